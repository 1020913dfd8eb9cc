"""Constraints: whatever the model would like to say, the reply is what was asked for.

The judges are the jsonschema package, Python's re and json. The model is small, its temperature high:
it would say anything by itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from quinze.engine.constraints import MAX_REGEX, MAX_SCHEMA, Grammar, Grammars
from quinze.engine.engine import Engine
from quinze.engine.sampling import SamplingParams
from quinze.errors import InvalidRequestError
from quinze.models.weights import Model
from quinze.tokenizer.tokenizer import Tokenizer, load_tokenizer

PERSON = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Person",
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "size": {"enum": ["small", "large", None]},
        "pets": {"type": "array", "maxItems": 2, "items": {"$ref": "#/$defs/pet"}},
    },
    "required": ["name", "age", "size"],
    "additionalProperties": False,
    "$defs": {
        "pet": {
            "type": "object",
            "properties": {
                "kind": {"const": "cat"},
                "lives": {"type": "integer", "minimum": 1, "maximum": 9},
            },
            "required": ["kind"],
            "additionalProperties": False,
        }
    },
}
TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "boolean"},
                "children": {"type": "array", "maxItems": 1, "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["value", "children"],
            "additionalProperties": False,
        }
    },
}
SCHEMAS: dict[str, Any] = {
    "object": PERSON,
    "recursive": TREE,
    "array": {
        "type": "array",
        "items": {"type": "integer", "minimum": -5, "maximum": 5},
        "minItems": 3,
        "maxItems": 5,
    },
    "date": {"type": "string", "format": "date"},
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
    "choice": {"anyOf": [{"type": "null"}, {"type": "number", "minimum": 0, "maximum": 1}]},
    "chinese": {"enum": ["大", "小", "十五"]},
}
ASKED_BADLY: dict[str, Any] = {
    "not": {"not": {"type": "string"}},
    "uniqueItems": {"type": "array", "uniqueItems": True},
    "if": {"if": {"type": "string"}, "then": {"minLength": 3}},
    "date-tim": {"type": "string", "format": "date-tim"},
    "strin": {"type": "strin"},
    "http://other.example/schema": {"$ref": "http://other.example/schema"},
    "minLength (5)": {"type": "string", "minLength": 5, "maxLength": 2},
}


@pytest.fixture(scope="module")
def tokenizer(shared: Callable[[str], Path]) -> Tokenizer:
    shared("data/models/tok512.bin")
    path = shared("data/models/stories260K.bin")
    from quinze.formats.checkpoint import open_checkpoint

    return load_tokenizer(path, open_checkpoint(path))


@pytest.fixture(scope="module")
def grammars(tokenizer: Tokenizer) -> Grammars:
    return Grammars(tokenizer)


@pytest.fixture(scope="module")
def write(stories: Model, tokenizer: Tokenizer, grammars: Grammars) -> Callable[..., tuple[str, str | None]]:
    """`write(grammar, seed=1)`: what the model says under it, and why it ended."""
    engine = Engine(stories, threads=1)

    def one(grammar: Grammar, *, seed: int = 1, max_tokens: int = 400) -> tuple[str, str | None]:
        params = SamplingParams(
            temperature=3.0, top_k=0, min_p=0.0, top_p=1.0, seed=seed, max_tokens=max_tokens
        )
        constraint = grammars.compile(grammar)
        with engine.generate([1], params, stop_ids=tokenizer.stop_ids, constraint=constraint) as generation:
            said = b"".join(tokenizer.piece(id_) for id_ in generation)
        return said.decode(errors="replace"), generation.finish_reason

    return one


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_every_whole_reply_is_what_the_schema_describes(write: Any, schema: Any) -> None:
    whole = 0
    for seed in range(15):
        text, reason = write(Grammar.json_schema(schema), seed=seed)
        if reason == "stop":
            whole += 1
            jsonschema.Draft202012Validator(schema).validate(json.loads(text))
        else:
            assert reason == "length"
    assert whole >= 5


def test_a_json_object_is_one(write: Any) -> None:
    whole = [
        text for seed in range(20) for text, why in [write(Grammar.json_object(), seed=seed)] if why == "stop"
    ]
    assert whole
    assert all(isinstance(json.loads(text), dict) for text in whole)


@pytest.mark.parametrize(
    "pattern", ["[0-9]{3}-[a-z]+", "(yes|no), (sir|madam)", "a?b{2,4}", "[^x]{1,5}", "大|小+"]
)
def test_every_whole_reply_matches_the_pattern(write: Any, pattern: str) -> None:
    replies = [write(Grammar.regex(pattern), seed=seed, max_tokens=60) for seed in range(10)]
    assert any(reason == "stop" for _, reason in replies)
    assert all(re.fullmatch(pattern, text) for text, reason in replies if reason == "stop")


def test_a_choice_is_one_of_the_texts_whatever_letters_they_have(write: Any) -> None:
    texts = ["yes", "no/maybe", "a-b (c) [d] {e}", "好\n.*\\", '"quoted"', " space"]
    said = {write(Grammar.choice(texts), seed=seed) for seed in range(60)}
    assert {reason for _, reason in said} == {"stop"}
    assert {text for text, _ in said} <= set(texts)
    assert len(said) > 1
    assert [write(Grammar.choice([text])) for text in texts] == [(text, "stop") for text in texts]


def test_a_reply_that_is_cut_says_length_and_one_that_ends_there_says_stop(write: Any) -> None:
    text, reason = write(Grammar.json_schema(PERSON), max_tokens=4)
    assert reason == "length"
    with pytest.raises(ValueError):
        json.loads(text)
    assert write(Grammar.regex("a"), max_tokens=1) == ("a", "stop")


def test_no_control_token_is_ever_text(shared: Callable[[str], Path]) -> None:
    tokenizer = load_tokenizer(shared("data/tokenizers/qwen3"))
    constraint = Grammars(tokenizer).compile(Grammar.regex("(?s:.*)"))
    allowed = np.unpackbits(constraint.mask().view(np.uint8), bitorder="little")
    control = {tokenizer.id(token) for token in tokenizer.control_tokens}
    assert {id_ for id_ in control if allowed[id_]} == tokenizer.stop_ids
    assert allowed.sum() > 0.98 * tokenizer.vocab_size


@pytest.mark.parametrize("named", ASKED_BADLY)
def test_what_cannot_be_enforced_is_named(grammars: Grammars, named: str) -> None:
    with pytest.raises(InvalidRequestError, match=re.escape(named)) as caught:
        grammars.compile(Grammar.json_schema(ASKED_BADLY[named]))
    assert caught.value.param == "response_format"


def test_a_schema_cannot_loosen_what_is_enforced(grammars: Grammars) -> None:
    with pytest.raises(InvalidRequestError, match="not"):
        grammars.compile(Grammar.json_schema({"not": {}, "x-guidance": {"lenient": True}}))


@pytest.mark.parametrize("pattern", ["(?=x)y", "(a", "[z-a]", "(a)\\1"])
def test_a_pattern_that_is_none_or_cannot_be_used_is_refused(grammars: Grammars, pattern: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        grammars.compile(Grammar.regex(pattern))
    assert caught.value.param == "guided_regex"


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def test_what_is_too_large_or_too_deep_is_refused_before_any_work() -> None:
    for make in (
        lambda: Grammar.json_schema(nested(20_000)),
        lambda: Grammar.json_schema({"enum": ["x" * MAX_SCHEMA]}),
        lambda: Grammar.regex("a" * (MAX_REGEX + 1)),
        lambda: Grammar.choice([]),
        lambda: Grammar.choice([""]),
        lambda: Grammar.choice([str(i) for i in range(2000)]),
        lambda: Grammar.choice(["x" * MAX_SCHEMA, "y"]),
        lambda: Grammar.json_schema([1, 2]),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidRequestError):
            make()


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar.regex("((((((a|b){90}){90}){90}){90}){90}){90}c"),
        Grammar.regex("(a|b)*a(a|b){3000}"),
        Grammar.regex("(.*a){50}(.*b){50}"),
        Grammar.regex("(\\p{L}+\\d*){1,2000}!"),
        Grammar.json_schema({"type": "string", "pattern": "^((a{1,50}){1,50}){1,50}b$"}),
        Grammar.json_schema({"enum": [f"{i:05}" for i in range(6000)]}),
        Grammar.json_schema({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}),
        Grammar.json_schema({"anyOf": [{"$ref": "#"}, {"type": "null"}]}),
        Grammar.json_schema(nested(30)),
    ],
)
def test_a_hostile_grammar_is_refused_or_obeyed(write: Any, grammar: Grammar) -> None:
    try:
        _, reason = write(grammar, max_tokens=40)
    except InvalidRequestError as error:
        assert "cannot be enforced" in error.message  # noqa: PT017
    else:
        assert reason in {"stop", "length"}
