"""Constraints: what a reply may be, told to the sampler as a bit for each token that may come next.

    Grammar      what is asked for: a JSON schema, any JSON object, a regular expression, one of some texts
    Grammars     the grammars of one tokenizer; the first one compiled indexes its vocabulary
    Constraint   one reply on its way: mask(), accept(id), done

Grammars come from strangers: their size and depth are limited here, the work that they cause (automata,
rows of the parser) by llguidance, which compiles them. Nothing is fetched from elsewhere. Knows no models.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from quinze.errors import InvalidRequestError, UnsupportedModelError
from quinze.native import Mask

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    from quinze.tokenizer.tokenizer import Tokenizer

MAX_SCHEMA, MAX_REGEX, MAX_CHOICES = 65_536, 4_096, 1_024
"""Characters of a schema and of a regular expression; texts to choose from (MAX_SCHEMA characters in all)."""
MAX_DEPTH = 64
_SPACE = r"[ \n\t]{1,24}"
"""White space between the parts of JSON; without a bound a weak model may write nothing else."""
_LIMITS: dict[str, Any] = {
    "max_items_in_row": 2_000,
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 50_000,
    "max_lexer_states": 20_000,
    "max_grammar_size": 100_000,
    "verbose_errors": False,
}


@dataclass(frozen=True, slots=True)
class Grammar:
    """What is asked for, its size checked; `param` names the field that asked for it."""

    compiled: str
    """In llguidance's own form; nothing has been built yet."""
    param: str
    asked: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """As it was asked for, for a model that runs elsewhere: {"json_schema" | "regex" | "choice": ...}"""

    @classmethod
    def json_object(cls, *, param: str = "response_format") -> Self:
        """Any JSON object."""
        return cls.json_schema({"type": "object"}, param=param)

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool, *, param: str = "response_format") -> Self:
        """JSON that the schema describes; InvalidRequestError if it is too large or too deep."""
        if not isinstance(schema, (Mapping, bool)):
            raise InvalidRequestError("A JSON schema is an object.", param=param)
        check_depth(schema, param)
        text = json.dumps(schema, ensure_ascii=False)
        _check_size("The JSON schema", len(text), MAX_SCHEMA, param)
        # By hand, for a schema's own "x-guidance" would be obeyed.
        inner = {**schema, "x-guidance": _options()} if isinstance(schema, Mapping) else schema
        return cls(json.dumps({"grammars": [{"json_schema": inner}]}), param, {"json_schema": schema})

    @classmethod
    def regex(cls, pattern: str, *, param: str = "guided_regex") -> Self:
        """A text that the whole of the pattern matches, in the syntax of Rust's regex crate."""
        _check_size("The regular expression", len(pattern), MAX_REGEX, param)
        return cls._of_regex(pattern, param, {"regex": pattern})

    @classmethod
    def choice(cls, texts: Sequence[str], *, param: str = "guided_choice") -> Self:
        """One of the texts."""
        if not texts or len(texts) > MAX_CHOICES or not all(isinstance(text, str) and text for text in texts):
            raise InvalidRequestError(
                f"{param} must hold 1 to {MAX_CHOICES:,} texts, none of them empty.", param=param
            )
        _check_size("The texts to choose from", sum(map(len, texts)), MAX_SCHEMA, param)
        return cls._of_regex("|".join(map(_escaped, texts)), param, {"choice": list(texts)})

    @classmethod
    def _of_regex(cls, pattern: str, param: str, asked: Mapping[str, Any]) -> Self:
        from llguidance import LLMatcher

        return cls(LLMatcher.grammar_from_regex(pattern), param, asked)


class Grammars:
    """The grammars of one tokenizer. Safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._indexed: LLTokenizer | None = None
        self._lock = threading.Lock()

    def compile(self, grammar: Grammar) -> Constraint:
        """InvalidRequestError, naming what is wrong, for a grammar that cannot be enforced."""
        from llguidance import LLMatcher, LLParserLimits

        limits = LLParserLimits(**_LIMITS)
        matcher = LLMatcher(self._vocabulary(), grammar.compiled, log_level=0, limits=limits)
        constraint = Constraint(matcher, grammar.param)
        constraint.mask()
        return constraint

    def _vocabulary(self) -> LLTokenizer:
        with self._lock:
            if self._indexed is None:
                self._indexed = _index(self._tokenizer)
            return self._indexed


class Constraint:
    """One reply on its way."""

    def __init__(self, matcher: LLMatcher, param: str) -> None:
        self._matcher, self._param = matcher, param
        self._mask: Mask | None = None

    @property
    def done(self) -> bool:
        """Nothing can follow any more."""
        return bool(self._matcher.is_stopped())

    def mask(self) -> Mask:
        """A bit for each id that may come next; the ids that end a reply are among them where it may end."""
        if self._mask is None:
            found = self._matcher.compute_bitmask()
            self._check()
            self._mask = np.frombuffer(found, np.uint32)
        return self._mask

    def accept(self, id: int) -> None:  # noqa: A002
        """An id that the mask allowed is now part of the reply."""
        self._mask = None
        self._matcher.consume_token(id)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise _refused(self._matcher.get_error(), self._param)


def _index(tokenizer: Tokenizer) -> LLTokenizer:
    from llguidance import LLTokenizer, TokenizerWrapper

    if not tokenizer.stop_ids or not tokenizer.spells_bytes:
        why = "its tokens are no pieces of text" if tokenizer.stop_ids else "it has no token that ends one"
        raise UnsupportedModelError(
            f"The replies of this model cannot be constrained: {why}.",
            hint="Ask for the form in words, and check what comes.",
        )
    return LLTokenizer(TokenizerWrapper(_Pieces(tokenizer)), eos_token=sorted(tokenizer.stop_ids))


class _Pieces:
    """A vocabulary as llguidance reads it: bytes of each id, and ids of bytes that are bound to follow."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        control = {id_ for token in tokenizer.control_tokens if (id_ := tokenizer.id(token)) is not None}
        self.eos_token_id = min(tokenizer.stop_ids)
        self.bos_token_id = tokenizer.bos_id
        self.special_token_ids = sorted(control)
        # A control token steers the model and is no text, whatever its letters are.
        self.tokens = [b"" if i in control else tokenizer.piece(i) for i in range(tokenizer.vocab_size)]
        self._tokenizer = tokenizer
        self._ids = {piece: i for i, piece in enumerate(self.tokens) if piece}
        self._longest = max(map(len, self._ids))

    def __call__(self, text: str | bytes) -> list[int]:
        data = text if isinstance(text, bytes) else text.encode()
        ids = self._tokenizer.encode(data.decode(errors="replace"), bos=False)
        # Vocabularies that begin every text with a space do not spell one that goes on.
        return ids if b"".join(self.tokens[i] for i in ids) == data else self._spelled(data)

    def _spelled(self, data: bytes) -> list[int]:
        """By the longest piece that fits, again and again."""
        ids, at = [], 0
        while at < len(data):
            ends = range(min(len(data), at + self._longest), at, -1)
            end = next((end for end in ends if data[at:end] in self._ids), None)
            if end is None:
                break
            ids.append(self._ids[data[at:end]])
            at = end
        return ids


def _options() -> dict[str, Any]:
    return {"whitespace_pattern": _SPACE, "lenient": False}


def _refused(error: str, param: str) -> InvalidRequestError:
    unknown = re.search(r"Unimplemented keys: (\[.*?\])", error)
    if unknown:
        keys = ", ".join(json.loads(unknown.group(1)))
        return InvalidRequestError(
            f"{param} uses what cannot be enforced in a JSON schema: {keys[:200]}.",
            hint="Leave it out, and check what comes.",
            param=param,
        )
    told = " ".join(error.split("<state>")[0].split())
    said = re.split(r" \d+ \| ", told.rpartition("error: ")[2])[0]
    what = "no text can be like this" if "NoExtension" in told else said
    return InvalidRequestError(
        f"{param} cannot be enforced: {what[:300].rstrip('.')}.",
        hint="Simplify it; repetitions of repetitions cost most.",
        param=param,
    )


def _check_size(what: str, size: int, most: int, param: str) -> None:
    if size > most:
        raise InvalidRequestError(
            f"{what} has {size:,} characters; {most:,} are the most.", hint="Make it smaller.", param=param
        )


def check_depth(schema: object, param: str) -> None:
    """InvalidRequestError for a schema that is nested too deep."""
    level: list[object] = [schema]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, (Mapping, list, tuple))
            for inner in (outer.values() if isinstance(outer, Mapping) else outer)
        ]
        if not level:
            return
    raise InvalidRequestError(
        f"The JSON schema is nested deeper than {MAX_DEPTH} levels.",
        hint="Name its parts in $defs, and refer to them.",
        param=param,
    )


def _escaped(text: str) -> str:
    return "".join(c if c.isalnum() or c == " " else f"\\x{{{ord(c):x}}}" for c in text)
