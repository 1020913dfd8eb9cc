"""The official openai client, a real server and a real model: from a request to the kernels and back."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import openai
import pydantic
import pytest

from quinze.formats.gguf import write_gguf
from quinze.models.names import gguf_name
from quinze.models.weights import load_model
from quinze.service.rooms import Rooms

TEMPLATE = (
    "{% if tools %}{% for t in tools %}{{ t['function']['name'] }}, {% endfor %}{% endif %}"
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}Once upon a time{% endif %}"
)


def tokens_of(path: Path) -> tuple[list[str], list[float], list[int]]:
    """A llama2.c tokenizer file as GGUF's three lists: tokens, scores, types."""
    data, at = path.read_bytes(), 4
    tokens, scores, types = [], [], []
    while at < len(data):
        score, length = struct.unpack_from("<fi", data, at)
        piece = data[at + 8 : at + 8 + length]
        at += 8 + length
        i = len(tokens)
        is_byte = 3 <= i < 259
        tokens.append(f"<0x{i - 3:02X}>" if is_byte else piece.decode().replace(" ", "▁").strip("\n"))
        scores.append(score)
        types.append(6 if is_byte else 3 if i in {1, 2} else 2 if i == 0 else 1)
    return tokens, scores, types


def write_storyteller(weights: Path, tokenizer: Path, path: Path) -> None:
    """stories260K as a GGUF that has a chat template."""
    model = load_model(weights)
    tensors = [
        type(tensor)(gguf_name(name, model.config), tensor.type, tensor.shape, tensor.data)
        for name, tensor in model.tensors.items()
    ]
    tokens, scores, types = tokens_of(tokenizer)
    config = model.config
    metadata = {
        "general.architecture": "llama",
        "general.name": "storyteller",
        "llama.context_length": config.max_position_embeddings,
        "llama.embedding_length": config.hidden_size,
        "llama.block_count": config.num_hidden_layers,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads,
        "llama.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "llama.rope.dimension_count": config.head_dim,
        "llama.rope.freq_base": config.rope_theta,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": np.array(scores, np.float32),
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": TEMPLATE,
    }
    write_gguf(path, metadata, tensors)


@pytest.fixture(scope="module")
def stories(
    shared: Callable[[str], Path], serving_with: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """A server with stories260K as it is ("stories260K") and with a chat template ("storyteller")."""
    weights, tokenizer = shared("data/models/stories260K.bin"), shared("data/models/tok512.bin")
    home = tmp_path_factory.mktemp("home")
    running = serving_with(home, Rooms(), threads=1, max_loaded_models=2, max_generations=1)
    path = home / "storyteller.gguf"
    write_storyteller(weights, tokenizer, path)
    for model in (weights, path):
        linked = running.http.post("/api/models", json={"path": str(model)})
        assert linked.status_code == 201, linked.text
    return running


def tokens_of_model(running: Any, id_: int) -> str:
    with running.service.models.use("stories260K") as llm:
        spelled: bytes = llm.tokenizer.piece(id_)
    return spelled.decode(errors="replace")


@pytest.fixture(scope="module")
def golden(shared: Callable[[str], Path]) -> str:
    """What stories260K tells by itself, computed by somebody else."""
    return shared("data/models/stories260K.greedy.txt").read_text("utf-8")


def test_a_linked_model_is_described(stories: Any) -> None:
    found = stories.http.get("/api/models/storyteller").json()
    assert (found["format"], found["architecture"], found["can_chat"]) == ("gguf", "llama", True)
    assert found["context_length"] == 512
    assert 255_000 < found["parameters"] < 300_000
    assert not stories.http.get("/api/models/stories260K").json()["can_chat"]
    assert stories.http.get("/api/status").json()["default_model"] == "storyteller"


@pytest.mark.parametrize("model", ["stories260K", "storyteller"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_greedy_completion_is_the_golden_text(stories: Any, golden: str, model: str, stream: bool) -> None:
    asked = {"model": model, "prompt": "Once upon a time", "temperature": 0, "max_tokens": 60}
    if stream:
        chunks = list(stories.openai.completions.create(**asked, stream=True))
        text, finish = "".join(chunk.choices[0].text for chunk in chunks), chunks[-1].choices[0].finish_reason
    else:
        reply = stories.openai.completions.create(**asked)
        text, finish = reply.choices[0].text, reply.choices[0].finish_reason
        assert reply.usage.completion_tokens == 60
        assert reply.usage.total_tokens == reply.usage.prompt_tokens + 60
        assert reply.model_extra["timings"]["decode_seconds"] > 0
        assert reply.model_extra["context"]
    assert finish == "length"
    assert len(text) > 60
    assert golden.startswith("Once upon a time" + text)


def test_a_stop_string_ends_it_before_the_string(stories: Any) -> None:
    reply = stories.openai.completions.create(
        model="stories260K", prompt="Once upon a time", temperature=0, stop=["Lily"]
    )
    assert reply.choices[0].finish_reason == "stop"
    assert reply.choices[0].text == ", there was a little girl named "


def test_the_stop_string_that_came_is_told(stories: Any) -> None:
    asked = {"model": "stories260K", "prompt": "Once upon a time", "temperature": 0, "max_tokens": 30}
    reply = stories.openai.completions.create(**asked, stop=["never", "Lily"])
    assert reply.choices[0].model_extra["stop_reason"] == "Lily"
    *_, last = stories.openai.completions.create(**asked, stop=["never", "Lily"], stream=True)
    assert (last.choices[0].finish_reason, last.choices[0].model_extra["stop_reason"]) == ("stop", "Lily")
    assert stories.openai.completions.create(**asked).choices[0].model_extra["stop_reason"] is None


def test_logprobs_of_a_chat_are_the_same_streamed_and_spell_the_reply(stories: Any) -> None:
    asked = {"model": "storyteller", "messages": [{"role": "user", "content": "Hi"}], "seed": 3,
             "temperature": 2, "max_tokens": 30, "logprobs": True, "top_logprobs": 4}  # fmt: skip
    (choice,) = stories.openai.chat.completions.create(**asked).choices
    told = choice.logprobs.content
    assert len(told) == 30
    spelled = b"".join(bytes(one.bytes) for one in told).decode(errors="replace")
    assert spelled.lstrip(" ") == choice.message.content.lstrip(" ")
    for one in told:
        odds = [likely.logprob for likely in one.top_logprobs]
        assert len(odds) == 4
        assert odds == sorted(odds, reverse=True)
        assert one.logprob <= odds[0] <= 0
        assert sum(np.exp(odds)) <= 1 + 1e-6
    chunks = list(stories.openai.chat.completions.create(**asked, stream=True))
    streamed = [one for chunk in chunks if (found := chunk.choices[0].logprobs) for one in found.content]
    assert [one.token for one in streamed] == [one.token for one in told]
    assert [one.logprob for one in streamed] == pytest.approx([one.logprob for one in told], abs=0.02)


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_of_a_completion_say_where_each_token_stands(stories: Any, stream: bool) -> None:
    asked = {"model": "stories260K", "prompt": "Once", "temperature": 0, "max_tokens": 12, "logprobs": 2}
    replies = stories.openai.completions.create(**asked, stream=stream)
    choices = [chunk.choices[0] for chunk in replies] if stream else replies.choices
    text = "".join(choice.text for choice in choices)
    found = [choice.logprobs for choice in choices if choice.logprobs]
    tokens = [token for one in found for token in one.tokens]
    offsets = [offset for one in found for offset in one.text_offset]
    assert len(tokens) == 12
    for token, offset in zip(tokens, offsets, strict=True):
        assert text[offset : offset + len(token)] == token
    likeliest = [top for one in found for top in one.top_logprobs]
    assert all(max(top, key=top.get) == token for top, token in zip(likeliest, tokens, strict=True))


def test_n_replies_differ_begin_with_the_single_one_and_share_the_prompt(stories: Any) -> None:
    asked = {"model": "stories260K", "prompt": "Once upon a time", "seed": 5, "temperature": 1,
             "max_tokens": 20}  # fmt: skip
    three = stories.openai.completions.create(**asked, n=3)
    texts = [choice.text for choice in three.choices]
    assert len(set(texts)) == 3
    assert texts[0] == stories.openai.completions.create(**asked).choices[0].text
    assert texts == [choice.text for choice in stories.openai.completions.create(**asked, n=3).choices]
    assert three.usage.completion_tokens == 60


def test_a_token_can_be_forbidden_and_forced(stories: Any) -> None:
    asked = {"model": "stories260K", "prompt": "Once upon a time", "temperature": 0, "max_tokens": 8}
    plain = stories.openai.completions.create(**asked, logprobs=0).choices[0]
    comma = next(i for i in reversed(range(512)) if plain.logprobs.tokens[0] == tokens_of_model(stories, i))
    other = stories.openai.completions.create(**asked, logit_bias={comma: -100}).choices[0]
    assert not other.text.startswith(plain.logprobs.tokens[0])
    forced = stories.openai.completions.create(**asked, logit_bias={comma: 100}).choices[0]
    assert forced.text == plain.logprobs.tokens[0] * 8
    with pytest.raises(openai.BadRequestError) as caught:
        stories.openai.completions.create(**asked, logit_bias={512: 1})
    assert caught.value.param == "logit_bias"


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 10}, "age": {"type": "integer", "maximum": 150}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": SCHEMA}}


@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_in_a_schema_is_json_that_it_describes(stories: Any, stream: bool) -> None:
    asked = {"model": "storyteller", "messages": [{"role": "user", "content": "Hi"}], "seed": 3,
             "response_format": FORMAT}  # fmt: skip
    reply = stories.openai.chat.completions.create(**asked, stream=stream)
    if stream:
        chunks = list(reply)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        reason = chunks[-1].choices[0].finish_reason
    else:
        text, reason = reply.choices[0].message.content, reply.choices[0].finish_reason
    assert reason == "stop"
    jsonschema.validate(json.loads(text), SCHEMA)


def test_a_cut_reply_raises_in_the_clients_own_parse(stories: Any) -> None:
    class Person(pydantic.BaseModel):
        name: str
        age: int

    ask = stories.openai.chat.completions.parse
    asked: Any = {"model": "storyteller", "messages": [{"role": "user", "content": "Hi"}]}
    with pytest.raises(openai.LengthFinishReasonError):
        ask(**asked, response_format=Person, max_tokens=2)
    bound = Person.model_json_schema() | {"properties": SCHEMA["properties"], "additionalProperties": False}
    found = stories.openai.chat.completions.create(**asked, extra_body={"guided_json": bound})
    assert Person.model_validate_json(found.choices[0].message.content)


TOOLS: Any = [
    {"type": "function", "function": {"name": "meet", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "leave"}},
]


@pytest.mark.parametrize("stream", [False, True])
def test_a_required_call_comes_in_the_shape_that_the_client_joins(stories: Any, stream: bool) -> None:
    asked = {"model": "storyteller", "messages": [{"role": "user", "content": "Hi"}], "seed": 3,
             "tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "meet"}}}  # fmt: skip
    if stream:
        with stories.openai.chat.completions.stream(**asked) as events:
            (choice,) = events.get_final_completion().choices
    else:
        (choice,) = stories.openai.chat.completions.create(**asked).choices
        assert choice.message.content is None
    (call,) = choice.message.tool_calls
    assert (choice.finish_reason, call.type, call.function.name) == ("tool_calls", "function", "meet")
    assert call.id.startswith("call_")
    jsonschema.validate(json.loads(call.function.arguments), SCHEMA)


def test_a_model_may_answer_in_words_and_its_calls_can_be_sent_back(stories: Any) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "meet", "arguments": "{}"}}
    reply = stories.openai.chat.completions.create(
        model="storyteller", temperature=0, max_tokens=5, tools=TOOLS,
        messages=[{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [call]},
                  {"role": "tool", "tool_call_id": "call_1", "content": "done"}],
    )  # fmt: skip
    assert reply.choices[0].message.content
    assert reply.choices[0].message.tool_calls is None


def test_guided_choice_and_regex_bind_a_completion(stories: Any) -> None:
    asked = {"model": "stories260K", "prompt": "Once upon a time", "seed": 1}
    create = stories.openai.completions.create
    assert create(**asked, extra_body={"guided_choice": ["no", "yes"]}).choices[0].text in {"no", "yes"}
    assert re.fullmatch(
        "[0-9]{15}", create(**asked, extra_body={"guided_regex": "[0-9]{15}"}).choices[0].text
    )


@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_that_cannot_be_enforced_says_why(stories: Any, stream: bool) -> None:
    schema = {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": {"type": "array", "uniqueItems": True}},
    }
    with pytest.raises(openai.BadRequestError, match="uniqueItems") as caught:
        stories.openai.chat.completions.create(
            model="storyteller",
            messages=[{"role": "user", "content": "Hi"}],
            response_format=schema,
            stream=stream,
        )
    assert caught.value.param == "response_format"


def test_the_same_seed_tells_the_same_story(stories: Any) -> None:
    def story(seed: int) -> str:
        reply = stories.openai.completions.create(
            model="stories260K", prompt="Once", seed=seed, temperature=1, max_tokens=40
        )
        return str(reply.choices[0].text)

    assert story(15) == story(15)
    assert len({story(seed) for seed in range(4)}) > 1


def test_a_chat_streams_with_its_usage(stories: Any) -> None:
    chunks = list(
        stories.openai.chat.completions.create(
            model="storyteller",
            messages=[{"role": "system", "content": "Tell a story."}, {"role": "user", "content": "你好"}],
            max_tokens=20,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices).strip()
    assert chunks[-1].usage.completion_tokens == 20
    assert chunks[-1].usage.prompt_tokens > 10


def test_a_prompt_beyond_the_context_says_both_numbers(stories: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        stories.openai.completions.create(model="stories260K", prompt="story " * 2000)
    assert caught.value.code == "context_length_exceeded"
    assert "512" in str(caught.value)


def test_a_client_that_hangs_up_frees_the_engine(stories: Any) -> None:
    """One generation at a time is allowed here: a first one still at work would keep the second waiting."""
    body = {"model": "stories260K", "prompt": "Once", "stream": True, "temperature": 1}
    for _ in range(5):
        with stories.http.stream("POST", "/v1/completions", json=body) as reply:
            next(reply.iter_lines())
        done = stories.openai.completions.create(model="stories260K", prompt="Once", max_tokens=1)
        assert done.usage.completion_tokens == 1
    assert stories.service.models.waiting() == 0


def test_what_a_model_writes_about_documents_is_bound_to_them(stories: Any) -> None:
    """A model this small says nothing that the documents support: so their own words answer."""
    stories.http.post("/api/knowledge", json={"name": "notes"})
    reply = stories.http.post(
        "/api/knowledge/notes/documents",
        params={"name": "rent.txt"},
        content=b"The rent is due on the fifteenth of each month.",
    )
    stories.http.get(f"/api/jobs/{reply.json()['id']}/events")
    answer = stories.http.post(
        "/api/ask",
        json={"knowledge_base": "notes", "question": "When is the rent due?", "model": "storyteller"},
    ).json()
    assert answer["kind"] in {"quoted", "generated"}
    assert "fifteenth" in answer["citations"][0]["text"]
