"""Chat and completions as the official openai client sees them."""

from __future__ import annotations

import concurrent.futures
import json
import time
from typing import Any

import httpx
import openai
import pytest

from quinze.engine.sampling import SamplingParams
from quinze.llm.messages import ToolCall

TEXT = "Quinze means fifteen，十五."
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]


def ask(running: Any, **more: Any) -> Any:
    return running.openai.chat.completions.create(**{"model": "scripted", "messages": HELLO, **more})


def refused(running: Any, **more: Any) -> dict[str, Any]:
    """The error object of a chat request that must get status 400."""
    body = {"model": "scripted", "messages": HELLO, **more}
    reply = running.http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 400, reply.text
    error: dict[str, Any] = reply.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    return error


def test_a_reply_has_the_shape_the_client_expects(running: Any) -> None:
    reply = ask(running)
    assert reply.object == "chat.completion"
    assert reply.id.startswith("chatcmpl-")
    assert isinstance(reply.created, int)
    assert reply.model == "scripted"
    (choice,) = reply.choices
    assert (choice.index, choice.finish_reason) == (0, "stop")
    assert (choice.message.role, choice.message.content) == ("assistant", TEXT)
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (7, 5, 12)
    assert reply.usage.prompt_tokens_details.cached_tokens == 3
    assert reply.model_extra["context"] == {"granted": 64, "used": 12}
    assert reply.model_extra["timings"] == {"prefill_seconds": 0.1, "decode_seconds": 0.2}


def test_a_stream_begins_with_the_role_and_ends_with_the_reason(running: Any) -> None:
    chunks = list(ask(running, stream=True))
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.role is None for chunk in chunks[1:])
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_comes_in_a_last_chunk_without_choices_only_when_asked_for(running: Any) -> None:
    *chunks, last = list(ask(running, stream=True, stream_options={"include_usage": True}))
    assert last.choices == []
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == (7, 5, 12)
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_the_stream_on_the_wire_is_data_lines_and_done(running: Any) -> None:
    body = {"model": "scripted", "messages": HELLO, "stream": True}
    reply = running.http.post("/v1/chat/completions", json=body)
    assert reply.headers["content-type"].startswith("text/event-stream")
    *events, done, rest = reply.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert all(json.loads(event.removeprefix("data: "))["created"] for event in events)


def test_the_sampling_that_is_asked_for_reaches_the_model(running: Any) -> None:
    ask(running, temperature=0, top_p=0.5, seed=15, max_completion_tokens=3, max_tokens=9, stop=["fifteen"],
        frequency_penalty=0.5, presence_penalty=-0.5, logit_bias={"7": -100}, logprobs=True, top_logprobs=2,
        extra_body={"top_k": 2, "min_p": 0.1, "repetition_penalty": 1.1, "typical_p": 0.9,
                    "unheard_of": [1]})  # fmt: skip
    asked = running.llm.asked[-1]
    assert asked["params"] == SamplingParams(
        temperature=0, top_p=0.5, seed=15, max_tokens=3, top_k=2, min_p=0.1, repetition_penalty=1.1,
        frequency_penalty=0.5, presence_penalty=-0.5, typical_p=0.9, logit_bias={7: -100.0}, logprobs=2,
    )  # fmt: skip
    assert asked["stop"] == ("fifteen",)


def test_what_is_not_asked_for_is_the_default_of_sampling_params(running: Any) -> None:
    ask(running)
    assert running.llm.asked[-1]["params"] == SamplingParams()


def test_n_replies_are_numbered_and_the_prompt_counts_once(running: Any) -> None:
    reply = ask(running, n=3, seed=2**64 - 1)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert {choice.message.content for choice in reply.choices} == {TEXT}
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (7, 15)
    assert [asked["params"].seed for asked in running.llm.asked[-3:]] == [2**64 - 1, 0, 1]


def test_n_replies_stream_one_after_the_other(running: Any) -> None:
    *chunks, last = list(ask(running, n=2, stream=True, stream_options={"include_usage": True}))
    texts, roles, reasons = {0: "", 1: ""}, {0: 0, 1: 0}, []
    for chunk in chunks:
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        roles[choice.index] += choice.delta.role is not None
        reasons += [(choice.index, choice.finish_reason)] if choice.finish_reason else []
    assert texts == {0: TEXT, 1: TEXT}
    assert roles == {0: 1, 1: 1}
    assert reasons == [(0, "stop"), (1, "stop")]
    assert (last.choices, last.usage.completion_tokens) == ([], 10)


def test_a_reply_that_is_cut_says_length(running: Any) -> None:
    assert ask(running, max_tokens=2).choices[0].finish_reason == "length"
    assert list(ask(running, max_tokens=2, stream=True))[-1].choices[0].finish_reason == "length"


def test_a_stop_string_may_be_a_text_or_a_list(running: Any) -> None:
    assert ask(running, stop="fifteen").choices[0].message.content == "Quinze means"
    assert ask(running, stop=["never", "means"]).choices[0].message.content == "Quinze"


def test_roles_and_content_parts_become_messages(running: Any) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    ask(running, messages=[
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "15"},
    ])  # fmt: skip
    messages = running.llm.asked[-1]["messages"]
    assert [message.role for message in messages] == ["system", "user", "assistant", "tool"]
    assert messages[1].content == "one\ntwo"
    assert messages[2].tool_calls == (ToolCall("call_1", "add", "{}"),)
    assert messages[3].tool_call_id == "call_1"
    assert messages[3].content == "15"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 0),
        ("n", 17),
        ("top_logprobs", 5),
        ("top_logprobs", 21),
        ("typical_p", 0),
        ("tool_choice", "required"),
        ("tool_choice", "perhaps"),
        ("tool_choice", {"type": "function", "function": {"name": "f"}}),
        ("response_format", {"type": "xml"}),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "x"}}),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "x", "schema": [1]}}),
        ("guided_json", "{"),
        ("guided_regex", "a" * 5000),
        ("guided_choice", []),
        ("logit_bias", {"5": 101}),
        ("logit_bias", {"five": 1}),
        ("frequency_penalty", 2.5),
        ("presence_penalty", -2.5),
        ("stop", [str(i) for i in range(17)]),
        ("temperature", -1),
        ("temperature", "hot"),
        ("top_p", 1.5),
        ("top_k", -1),
        ("seed", 2**70),
        ("max_tokens", 0),
        ("messages", []),
        ("messages", "hello"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(running: Any, field: str, value: Any) -> None:
    assert refused(running, **{field: value})["param"] == field


@pytest.mark.parametrize(
    "harmless",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "auto"},
        {"response_format": {"type": "text"}},
        {"n": 1, "logprobs": False, "frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}},
        {"user": "me", "metadata": {"a": "b"}, "parallel_tool_calls": False, "reasoning_effort": "low"},
        {"stop": None, "seed": None, "max_tokens": None, "temperature": None},
        {"stop": []},
    ],
)
def test_what_does_no_harm_is_ignored(running: Any, harmless: dict[str, Any]) -> None:
    body = {"model": "scripted", "messages": HELLO, **harmless}
    assert running.http.post("/v1/chat/completions", json=body).status_code == 200


def test_only_one_form_can_be_asked_for(running: Any) -> None:
    error = refused(running, response_format={"type": "json_object"}, guided_regex="a")
    assert error["param"] == "guided_regex"


def test_an_image_is_refused_with_its_place(running: Any) -> None:
    image = {"type": "image_url", "image_url": {"url": "http://example.org/a.png"}}
    error = refused(running, messages=[{"role": "user", "content": [{"type": "text", "text": "?"}, image]}])
    assert error["param"] == "messages[0].content[1].type"
    assert "text only" in error["message"]


def test_an_unknown_role_is_refused(running: Any) -> None:
    assert refused(running, messages=[{"role": "king", "content": "!"}])["param"] == "messages[0].role"


def test_an_unknown_model_is_the_clients_not_found_error(running: Any) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(running, model="gpt-15")
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert caught.value.response.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("stream", [False, True])
def test_too_long_a_prompt_is_the_clients_bad_request_error(running: Any, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(running, messages=[{"role": "user", "content": "TOO LONG"}], stream=stream)
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_without_a_chat_template_says_so(running: Any, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError, match="no chat template"):
        ask(running, model="base", stream=stream)


def test_a_failure_in_mid_stream_raises_in_the_client_and_tells_nothing(running: Any) -> None:
    got = []
    with pytest.raises(openai.APIError) as caught:
        got += list(ask(running, messages=[{"role": "user", "content": "FAIL"}], stream=True))
    assert "secret" not in str(caught.value)
    reply = running.http.post(
        "/v1/chat/completions",
        json={"model": "scripted", "messages": [{"role": "user", "content": "FAIL"}], "stream": True},
    )
    assert "[DONE]" not in reply.text
    assert "secret" not in reply.text


def test_a_failure_of_ours_is_500_without_a_word_of_the_inside(running: Any) -> None:
    body = {"model": "scripted", "messages": [{"role": "user", "content": "FAIL"}]}
    reply = running.http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 500
    assert reply.json()["error"]["code"] == "internal_error"
    assert "secret" not in reply.text


def test_a_silent_stream_pings_with_comments(serve: Any) -> None:
    running = serve(ping_seconds=0.1)
    running.llm.slow.set()
    body = {"model": "scripted", "messages": HELLO, "stream": True}
    with running.http.stream("POST", "/v1/chat/completions", json=body) as reply:
        lines = reply.iter_lines()
        seen = [next(lines) for _ in range(4)]
        running.llm.slow.clear()
        rest = list(lines)
    assert ": ping" in seen
    assert rest[-2:] == ["data: [DONE]", ""]


def test_a_client_that_hangs_up_in_mid_stream_frees_the_model(serve: Any) -> None:
    running = serve(max_generations=1)
    running.llm.slow.set()
    running.llm.go.release()
    body = {"model": "scripted", "messages": HELLO, "stream": True}
    with running.http.stream("POST", "/v1/chat/completions", json=body) as reply:
        for line in reply.iter_lines():
            if "Quinze" in line:
                break
    assert running.llm.cancelled.wait(10)
    running.until(lambda: running.llm.at_work == 0)
    running.llm.slow.clear()
    assert ask(running).choices[0].message.content == TEXT


def test_a_client_that_hangs_up_before_a_whole_reply_frees_the_model(serve: Any) -> None:
    running = serve(max_generations=1)
    running.llm.slow.set()
    with pytest.raises(httpx.ReadTimeout):
        running.http.post("/v1/chat/completions", json={"model": "scripted", "messages": HELLO}, timeout=0.5)
    assert running.llm.cancelled.wait(10)
    running.until(lambda: running.llm.at_work == 0)


def test_when_too_many_wait_the_next_is_told_when_to_come_again(serve: Any) -> None:
    running = serve(max_generations=1, max_waiting=0)
    running.llm.slow.set()
    running.llm.go.release()
    body = {"model": "scripted", "messages": HELLO}
    with running.http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}):
        reply = running.http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "1"
    assert reply.json()["error"]["code"] == "busy"


def test_two_hundred_at_once_are_answered_or_told_to_come_again(serve: Any) -> None:
    running = serve(max_generations=2, max_waiting=20)
    running.llm.slow.set()
    most = 0

    def one(_: int) -> int:
        reply = running.http.post("/v1/chat/completions", json={"model": "scripted", "messages": HELLO})
        return int(reply.status_code)

    with concurrent.futures.ThreadPoolExecutor(60) as pool:
        futures = [pool.submit(one, i) for i in range(200)]
        while not all(future.done() for future in futures):
            most = max(most, running.llm.at_work)
            running.llm.go.release(5)
            time.sleep(0.01)
    statuses = {future.result() for future in futures}
    assert statuses == {200, 503}
    assert most <= 2


def test_a_server_that_stops_tells_its_streams(serve: Any) -> None:
    running = serve()
    running.llm.slow.set()
    running.llm.go.release()
    body = {"model": "scripted", "messages": HELLO, "stream": True}
    with running.http.stream("POST", "/v1/chat/completions", json=body) as reply:
        lines = reply.iter_lines()
        next(line for line in lines if "Quinze" in line)
        running.server.stop()
        rest = [line for line in lines if line]
    assert "shutting down" in rest[-1]
    assert running.llm.cancelled.wait(10)


def test_a_completion_continues_a_text(running: Any) -> None:
    reply = running.openai.completions.create(model="base", prompt="Once", echo=True)
    assert (reply.object, reply.choices[0].text, reply.choices[0].finish_reason) == (
        "text_completion", "Once" + TEXT, "stop",
    )  # fmt: skip
    assert reply.usage.total_tokens == 12


def test_a_completion_streams(running: Any) -> None:
    chunks = list(running.openai.completions.create(model="base", prompt=["Once"], stream=True, max_tokens=3))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Quinze means fifteen"
    assert chunks[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", ["a", "b"]),
        ("prompt", [1, 2]),
        ("prompt", [[1]]),
        ("suffix", "end"),
        ("best_of", 3),
        ("n", 17),
        ("logprobs", 21),
    ],
)
def test_a_completion_refuses_what_it_cannot_do(running: Any, field: str, value: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        running.openai.completions.create(**{"model": "base", "prompt": "Once", field: value})
    assert caught.value.param == field


def test_the_models_are_listed_and_the_broken_one_is_not(running: Any) -> None:
    found = running.openai.models.list().data
    assert [model.id for model in found] == ["scripted", "base", "starter-v1-256"]
    assert all(model.object == "model" and isinstance(model.created, int) for model in found)
    assert running.openai.models.retrieve("base").id == "base"
    with pytest.raises(openai.NotFoundError):
        running.openai.models.retrieve("broken")
