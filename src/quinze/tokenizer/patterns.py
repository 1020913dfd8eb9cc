"""Regular expressions of tokenizers: the known pre-tokenizers by name, and a guard against hostile ones.

A tokenizer.json brings its own expressions, and `(a+)+$` takes an age of the universe on forty letters. The
guard reads an expression without running it and accepts only those that are at worst quadratic.
"""

from __future__ import annotations

import re

from quinze.errors import FileFormatError, UnsupportedModelError

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = _WORDS + r"|\p{N}{1,3}" + _REST
QWEN2 = _WORDS + r"|\p{N}" + _REST
# Words end where a capital follows a small letter (GPT-4o and Mistral's Tekken).
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LATER = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_BEGIN = r"[^\r\n\p{L}\p{N}]?"
GPT4O = f"{_BEGIN}{_UPPER}*{_LOWER}+{_SHORT}|{_BEGIN}{_UPPER}+{_LOWER}*{_SHORT}|\\p{{N}}{{1,3}}{_LATER}"
TEKKEN = f"{_BEGIN}{_UPPER}*{_LOWER}+|{_BEGIN}{_UPPER}+{_LOWER}*|\\p{{N}}{_LATER}"

PRE_TOKENIZERS: dict[str, tuple[str, ...]] = {
    "gpt-2": (GPT2,),
    "llama-bpe": (LLAMA3,),
    "qwen2": (QWEN2,),
    "dbrx": (LLAMA3,),
    "gpt-4o": (GPT4O,),
    "tekken": (TEKKEN,),
    "smollm": (r"\p{N}", GPT2),
    "default": (r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"),
}
"""llama.cpp's names (tokenizer.ggml.pre) and the expressions that split a text, one after the other."""
SAME = {
    "llama3": "llama-bpe", "llama-v3": "llama-bpe", "gpt2": "gpt-2", "phi-2": "gpt-2", "jina-es": "gpt-2",
    "jina-de": "gpt-2", "mpt": "gpt-2", "olmo": "gpt-2", "roberta-bpe": "gpt-2", "deepseek-r1-qwen": "qwen2",
    "starcoder": "smollm", "refact": "smollm", "command-r": "smollm", "codeshell": "smollm",
    "falcon3": "llama-bpe", "pixtral": "llama-bpe", "smaug-bpe": "dbrx",
    "stablelm2": "qwen2", "megrez": "qwen2", "llama4": "gpt-4o",
}  # fmt: skip
WHOLE_WORDS = frozenset({"llama-bpe", "tekken"})
"""They take a word whole where the vocabulary has it, and begin with bos where the file is silent."""

MAX_PATTERN = 4096
MAX_UNBOUNDED = 2
"""Repetitions without a limit in one alternative; the known pre-tokenizers have at most two."""


def pre_tokenizer(name: str) -> tuple[str, ...]:
    """The expressions of a pre-tokenizer by llama.cpp's name."""
    found = PRE_TOKENIZERS.get(SAME.get(name, name))
    if found is None:
        known = ", ".join(sorted({*PRE_TOKENIZERS, *SAME}))
        raise UnsupportedModelError(
            f"The vocabulary splits words in a way called {name[:60]!r}, which Quinze does not know.",
            hint=f"It knows {known}. Another file of the same model may come with a tokenizer.json.",
        )
    return found


def check_pattern(pattern: str) -> None:
    """FileFormatError for an expression that might run for ever."""
    if len(pattern) > MAX_PATTERN:
        raise _dangerous(pattern, f"is longer than {MAX_PATTERN:,} characters")
    unbounded = 0
    after_group = False
    for token in _TOKEN.findall(pattern):
        if token == "|":
            unbounded = 0
        elif _is_unbounded(token):
            if after_group:
                raise _dangerous(pattern, "repeats a group")
            unbounded += 1
            if unbounded > MAX_UNBOUNDED:
                raise _dangerous(
                    pattern, f"repeats without limit more than {MAX_UNBOUNDED} times in one alternative"
                )
        elif re.fullmatch(r"\\[1-9k].*", token):
            raise _dangerous(pattern, "refers back to what it matched")
        after_group = token == ")"


_TOKEN = re.compile(
    r"\\[pP]\{[^}]*\}|\\.|\[(?:\\.|\[:\w+:\]|[^\]\\])*\]|\{\d*,?\d*\}[?+]?|[*+?][?+]?|.", re.DOTALL
)


def _is_unbounded(token: str) -> bool:
    """`*`, `+`, `{3,}`, and counts so high that they are as bad."""
    counts = re.fullmatch(r"\{(\d*)(,?)(\d*)\}[?+]?", token)
    if counts:
        most = counts[3] or ("" if counts[2] else counts[1])
        return not most or len(most) > 2 or int(most) > 32
    return token[0] in "*+" and len(token) <= 2


def _dangerous(pattern: str, what: str) -> FileFormatError:
    return FileFormatError(
        f"The tokenizer's expression {pattern[:80]!r} {what}, which could run for ever.",
        hint="Take the tokenizer from the model's maker.",
    )
