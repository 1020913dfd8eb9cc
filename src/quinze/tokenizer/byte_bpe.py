"""Byte-level BPE: vocabularies of GPT-2's kind, from vocab.json and merges.txt or from a GGUF ("gpt2").

Bytes are written as letters: printable ones as themselves, the others from U+0100 on (a space is "Ġ").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from quinze.errors import FileFormatError
from quinze.tokenizer.patterns import SAME, WHOLE_WORDS, pre_tokenizer
from quinze.tokenizer.tokenizer import CONTROL, Vocabulary, raise_if_hostile

MAX_TOKENS = 2**21


def _letters() -> dict[str, int]:
    """letter -> byte"""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTES = _letters()
_LATIN = str.maketrans({chr(code): "\uffff" for code in range(256)} | {k: chr(v) for k, v in BYTES.items()})
"""letter -> the Latin-1 character of its byte; what is no letter of ours is no Latin-1 afterwards."""


def token_bytes(token: str) -> bytes:
    """The bytes of a token; one with other letters in it is plain text, as added tokens are."""
    try:
        return token.translate(_LATIN).encode("latin-1")
    except UnicodeEncodeError:
        return token.encode("utf-8", errors="surrogateescape")


@dataclass
class ByteVocabulary:
    """A vocabulary as its files state it."""

    tokens: Mapping[str, int]
    merges: Sequence[tuple[str, str]]
    added: Mapping[str, int] = field(default_factory=dict)
    """Tokens beyond the merges, matched as they stand in trusted text."""
    special: frozenset[int] = frozenset()
    """Of these, the ones that a reader never sees."""
    splits: str = "gpt-2"
    """llama.cpp's name of the way words are split."""
    more: dict[str, Any] = field(default_factory=dict)
    """Further fields of Vocabulary."""


def build(found: ByteVocabulary) -> Vocabulary:
    """The tokens and merges as a Vocabulary on the tokenizers library."""
    names = names_by_id({**found.tokens, **found.added})
    kind = SAME.get(found.splits, found.splits)
    expressions = pre_tokenizer(kind)
    clean = {token if _is_utf8(token) else f"\U0010fffe{id_}": id_ for token, id_ in found.tokens.items()}
    try:
        model = models.BPE(vocab=clean, merges=list(found.merges), ignore_merges=kind in WHOLE_WORDS)
        backend = Backend(model)
    except BaseException as error:
        raise_if_hostile(error)
        raise
    if kind == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(expression), "isolated") for expression in expressions]
        + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    added = {token: id_ for token, id_ in found.added.items() if token}
    control = {t: id_ for t, id_ in added.items() if id_ in found.special or CONTROL.fullmatch(t)}
    plain = [AddedToken(t, normalized=False) for t in added if t not in control and t in found.tokens]
    backend.add_tokens(plain)
    ids = set(found.added.values())
    return Vocabulary(
        first=backend,
        middle=backend,
        pieces=[
            name.encode("utf-8", errors="surrogateescape") if id_ in ids else token_bytes(name)
            for id_, name in enumerate(names)
        ],
        names=names,
        control=control,
        special=found.special,
        **found.more,
    )


def names_by_id(tokens: Mapping[str, int]) -> list[str]:
    """id -> token, "" where there is none."""
    if not tokens or not all(type(id_) is int and 0 <= id_ < MAX_TOKENS for id_ in tokens.values()):
        raise FileFormatError(f"The vocabulary's ids must be numbers below {MAX_TOKENS:,}.")
    names = [""] * (max(tokens.values()) + 1)
    for token, id_ in tokens.items():
        names[id_] = token
    return names


def _is_utf8(token: str) -> bool:
    try:
        token.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
