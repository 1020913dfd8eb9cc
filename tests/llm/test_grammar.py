"""An LLM whose reply is bound: whole or streamed, with the vocabulary of a real chat model."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from quinze.engine.constraints import Grammar
from quinze.errors import InvalidRequestError
from quinze.llm.llm import LLM

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"enum": ["北京", "Paris"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 15},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
ASKED: list[Any] = [{"role": "user", "content": "Where to?"}]


def test_a_chat_is_what_the_schema_describes_and_the_same_streamed(chatty: LLM) -> None:
    for seed in range(8):
        options: dict[str, Any] = {"grammar": Grammar.json_schema(SCHEMA), "seed": seed, "temperature": 1.0}
        done = chatty.chat(ASKED, **options)
        assert done.finish_reason == "stop"
        jsonschema.validate(json.loads(done.text), SCHEMA)
        deltas = list(chatty.chat(ASKED, stream=True, **options))
        assert "".join(delta.text for delta in deltas) == done.text
        assert deltas[-1].finish_reason == "stop"


def test_a_completion_keeps_the_space_that_it_was_asked_for(stories: LLM) -> None:
    for prompt in ("", "Once"):
        done = stories.complete(prompt, grammar=Grammar.choice([" upon a time"]))
        assert (done.text, done.finish_reason) == (" upon a time", "stop")


def test_a_cut_reply_is_no_whole_one_and_says_so(chatty: LLM) -> None:
    done = chatty.chat(ASKED, grammar=Grammar.json_schema(SCHEMA), max_tokens=3)
    assert done.finish_reason == "length"


def test_logprobs_are_still_the_models_own(stories: LLM) -> None:
    bound = stories.complete("Once", grammar=Grammar.choice(["!"]), logprobs=2, temperature=0)
    free = stories.complete("Once", max_tokens=1, logprobs=2, temperature=0)
    assert bound.logprobs[0].chosen.token == "!"
    assert bound.logprobs[0].most_likely == free.logprobs[0].most_likely
    assert bound.logprobs[0].chosen.logprob < free.logprobs[0].chosen.logprob


@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_enforced_is_refused_before_the_first_token(chatty: LLM, stream: bool) -> None:
    with pytest.raises(InvalidRequestError, match="not"):
        chatty.chat(ASKED, grammar=Grammar.json_schema({"not": {}}), stream=stream)
