"""A model on another server: what it is sent, what its answers mean, and what each failure is called."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from quinze.engine.constraints import Grammar
from quinze.engine.sampling import SamplingParams
from quinze.errors import (
    BusyError,
    ContextLengthError,
    InvalidRequestError,
    ModelNotFoundError,
    QuinzeError,
    UpstreamError,
)
from quinze.hub.upstream import Upstream
from quinze.llm.messages import Message, ToolCall
from quinze.llm.upstream import UpstreamLLM

from .conftest import (
    KEY,
    Answer,
    FakeServer,
    Handler,
    delta,
    endless,
    refusing,
    saying,
    silent,
    until,
    usage,
)

Make = Callable[..., UpstreamLLM]
HI = [Message("system", "Be brief."), Message("user", "Hello!")]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def test_a_chat_streams_and_is_counted_by_the_server(server: FakeServer, llm: Make) -> None:
    deltas = list(
        llm("ollama").chat(HI, stream=True, params=SamplingParams(max_tokens=9, seed=4), stop=["\n"])
    )
    assert [d.text for d in deltas] == ["Hello", ", 世界", ""]
    last = deltas[-1]
    assert last.finish_reason == "stop"
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.cached_tokens) == (21, 5, 16)
    account = dict(last.context or {})
    assert (account["granted"], account["used"], account["counted_by"]) == (4096, 26, "upstream")
    assert sum(account["parts"].values()) == 26
    assert server.asked() == {
        "model": "big", "stream": True, "stream_options": {"include_usage": True}, "temperature": 0.7,
        "top_p": 0.95, "max_tokens": 9, "stop": ["\n"], "seed": 4,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"}],
    }  # fmt: skip
    assert llm().chat(HI).text == "Hello, 世界"


def test_each_server_is_asked_in_its_own_words(server: FakeServer, llm: Make) -> None:
    params = SamplingParams(top_k=0, repetition_penalty=1.1, max_tokens=5, logprobs=2)

    def asked(kind: str) -> dict[str, Any]:
        llm(kind).chat(HI, params=params)
        return server.asked()

    vllm = asked("vllm")
    assert (vllm["top_k"], vllm["min_p"], vllm["repetition_penalty"], vllm["top_logprobs"]) == (
        -1,
        0.05,
        1.1,
        2,
    )
    assert "typical_p" not in vllm
    llamacpp = asked("llamacpp")
    assert (llamacpp["top_k"], llamacpp["repeat_penalty"], llamacpp["typical_p"]) == (0, 1.1, 1.0)
    openai = asked("openai")
    assert openai["max_completion_tokens"] == 5
    # What was not changed is not sent to a server that may refuse what it does not know.
    assert not {"max_tokens", "min_p", "typical_p"} & set(openai)


def test_thoughts_are_told_apart_under_both_names(server: FakeServer, llm: Make) -> None:
    for name in ("reasoning_content", "reasoning"):
        server.answers = [
            saying(delta(**{name: "Hm, "}), delta(**{name: "well."}), delta(content="Yes."),
                   delta(finish_reason="stop"))
        ]  # fmt: skip
        reply = llm().chat(HI)
        assert (reply.text, reply.reasoning) == ("Yes.", "Hm, well.")


def test_calls_of_tools_are_joined_from_their_fragments(server: FakeServer, llm: Make) -> None:
    def part(index: int, **fields: Any) -> dict[str, Any]:
        return delta(tool_calls=[{"index": index, **fields}])

    server.answers = [
        saying(
            part(0, id="call_a", type="function", function={"name": "weather", "arguments": ""}),
            part(0, function={"arguments": '{"city": '}), part(0, function={"arguments": '"Köln"}'}),
            part(1, id="call_b", type="function", function={"name": "weather", "arguments": "{}"}),
            delta(finish_reason="tool_calls"), usage(40, 12),
        )
    ]  # fmt: skip
    earlier = Message("assistant", "", tool_calls=(ToolCall("call_0", "weather", "{}"),))
    found = Message("tool", "12 °C", tool_call_id="call_0")
    reply = llm().chat([*HI, earlier, found], tools=[WEATHER], tool_choice="weather")
    assert reply.finish_reason == "tool_calls"
    assert reply.tool_calls == (
        ToolCall("call_a", "weather", '{"city": "Köln"}'), ToolCall("call_b", "weather", "{}"),
    )  # fmt: skip
    asked = server.asked()
    assert asked["tools"] == [WEATHER]
    assert asked["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert asked["messages"][2]["tool_calls"][0]["id"] == asked["messages"][3]["tool_call_id"] == "call_0"


def test_the_form_of_a_reply_is_passed_on(server: FakeServer, llm: Make) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}

    def asked(kind: str, grammar: Grammar) -> dict[str, Any]:
        llm(kind).chat(HI, grammar=grammar)
        return server.asked()

    wanted = asked("", Grammar.json_schema(schema))["response_format"]
    assert wanted == {
        "type": "json_schema", "json_schema": {"name": "reply", "schema": schema, "strict": True},
    }  # fmt: skip
    assert asked("", Grammar.json_object())["response_format"] == {"type": "json_object"}
    vllm = asked("vllm", Grammar.choice(["yes", "no"]))
    assert vllm["structured_outputs"] == {"choice": ["yes", "no"]}
    assert asked("quinze", Grammar.regex("[ab]+"))["guided_regex"] == "[ab]+"
    with pytest.raises(InvalidRequestError, match="JSON schemas"):
        llm("ollama").chat(HI, grammar=Grammar.regex("[ab]+"))


def test_logprobs_keep_their_bytes(server: FakeServer, llm: Make) -> None:
    told = {"token": "世", "logprob": -0.5, "bytes": [228, 184, 150]}
    server.answers = [
        saying(delta(content="世", logprobs={"content": [{**told, "top_logprobs": [told]}]}),
               delta(finish_reason="length"))
    ]  # fmt: skip
    reply = llm().chat(HI, params=SamplingParams(logprobs=1))
    assert reply.finish_reason == "length"
    assert reply.logprobs[0].chosen.bytes == "世".encode()
    assert reply.logprobs[0].most_likely[0].logprob == -0.5


def test_a_text_is_completed(server: FakeServer, llm: Make) -> None:
    def choice(text: str, reason: str | None = None) -> dict[str, Any]:
        return {"id": "cmpl-1", "choices": [{"index": 0, "text": text, "finish_reason": reason}]}

    server.answers = [saying(choice(" there"), choice(" was", "length"), usage(3, 2))]
    reply = llm().complete("Once upon a time", params=SamplingParams(max_tokens=2))
    assert (reply.text, reply.finish_reason, reply.usage.prompt_tokens) == (" there was", "length", 3)
    assert server.requests[-1][0] == "/v1/completions"
    assert server.asked()["prompt"] == "Once upon a time"


def test_a_server_that_cannot_stream_or_count_still_serves(server: FakeServer, llm: Make) -> None:
    """It answers whole, or refuses stream_options as Mistral's does, and then the counts are estimates."""
    whole = {"choices": [{"message": {"role": "assistant", "content": "Whole."}, "finish_reason": "stop"}]}
    refusal = {"detail": "body.stream_options: Extra inputs are not permitted"}
    server.answers = [refusing(422, refusal), lambda handler, _: handler.json(whole)]
    reply = llm().chat(HI)
    assert "stream_options" not in server.asked()
    assert (reply.text, reply.context["counted_by"]) == ("Whole.", "estimated")
    assert reply.usage.prompt_tokens > 4
    assert reply.usage.completion_tokens == 2


def bad_body(data: bytes, kind: str = "application/json") -> Answer:
    return lambda handler, _: handler.raw(data, kind)


FAILURES: dict[str, tuple[Answer, type[QuinzeError], str]] = {
    "wrong key": (
        refusing(401, {"error": {"message": f"Incorrect API key: {KEY}", "code": 401}}), UpstreamError,
        "key right",
    ),
    "no such model": (
        refusing(404, {"object": "error", "message": "The model `big` does not exist."}), ModelNotFoundError,
        "does not exist",
    ),
    "too long for vLLM": (
        refusing(400, {"message": "This model's maximum context length is 4096 tokens.", "code": 400}),
        ContextLengthError, "4096",
    ),
    "too long for llama.cpp": (
        refusing(400, {"error": {"code": 400, "type": "exceed_context_size_error",
                                 "message": "the request exceeds the available context size"}}),
        ContextLengthError, "available context size",
    ),
    "bad request": (
        refusing(400, {"error": {"message": "top_k must be positive"}}), InvalidRequestError, "top_k",
    ),
    "broken": (refusing(500, {"error": "CUDA out of memory"}), UpstreamError, "CUDA out of memory"),
    "bad gateway": (refusing(502, "<html>"), UpstreamError, "HTTP 502"),
    "elsewhere": (refusing(302, {}, Location="http://127.0.0.1:1/steal"), UpstreamError, "does not follow"),
    "no JSON": (bad_body(b"<html>hello</html>"), UpstreamError, "no JSON"),
    "a web page": (bad_body(b"<html>hello</html>", "text/html"), UpstreamError, "in the middle"),
    "another JSON": (bad_body(b'["hello"]'), UpstreamError, "no JSON"),
    "no reply": (bad_body(b'{"hello": 1}'), UpstreamError, "no reply of a model"),
    "garbage in a stream": (saying(delta(content="a"), "{nonsense"), UpstreamError, "no JSON"),
    "an error in a stream": (
        saying(delta(content="a"), {"error": {"message": "engine died", "code": 500}}), UpstreamError,
        "engine died",
    ),
    "an end in the middle": (saying(delta(content="a"), last=None), UpstreamError, "in the middle"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_every_failure_has_its_name_and_names_the_server(server: FakeServer, llm: Make, name: str) -> None:
    answer, kind, words = FAILURES[name]
    server.answers = [answer]
    with pytest.raises(kind) as caught:
        llm(key=KEY).chat(HI)
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert server.url.split("/")[2] in str(caught.value)
    assert KEY not in str(caught.value)
    # Nothing is asked twice, and nobody else is asked.
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_says_when_to_come_again(server: FakeServer, llm: Make, status: int) -> None:
    server.answers = [refusing(status, {"error": {"message": "Rate limit reached"}}, Retry_After="7")]
    with pytest.raises(BusyError, match="Rate limit reached") as caught:
        llm().chat(HI)
    assert caught.value.retry_after == 7


def test_a_connection_that_drops_in_the_middle_is_no_end(server: FakeServer, llm: Make) -> None:
    def dropping(handler: Handler, body: dict[str, Any]) -> None:
        handler.begin()
        handler.event(delta(content="a"))
        handler.wfile.flush()
        handler.connection.shutdown(2)
        handler.close_connection = True

    server.answers = [dropping]
    deltas = llm().chat(HI, stream=True)
    assert next(deltas).text == "a"
    with pytest.raises(UpstreamError):
        list(deltas)


def test_a_silent_server_is_given_up(server: FakeServer, llm: Make) -> None:
    server.answers = [silent]
    deltas = llm(idle_timeout=0.3).chat(HI, stream=True)
    assert next(deltas).text == "word "
    with pytest.raises(UpstreamError, match=r"silent for 0\.3 seconds"):
        next(deltas)


def test_nobody_there_is_said_so(server: FakeServer) -> None:
    with pytest.raises(UpstreamError, match=r"127\.0\.0\.1:1 cannot be reached"):
        Upstream("http://127.0.0.1:1/v1").get("/models")
    for address in ("ftp://a/v1", "http://user:pass@host/v1", "http://host/v1?key=1", "http://ho st/", "x"):
        with pytest.raises(InvalidRequestError):
            Upstream(address)


@pytest.mark.parametrize("answer", [endless, silent])
def test_cancelling_closes_the_connection(server: FakeServer, llm: Make, answer: Answer) -> None:
    """Also while nothing comes: the server then stops computing."""
    server.answers = [answer]
    cancel = threading.Event()
    deltas = llm().chat(HI, stream=True, cancel=cancel)
    assert next(deltas).text == "word "
    threading.Timer(0.1, cancel.set).start()
    began = time.monotonic()
    last = list(deltas)[-1]
    assert last.finish_reason == "cancelled"
    assert time.monotonic() - began < 4
    if answer is endless:
        assert server.hung_up.wait(5)


def test_a_reply_that_nobody_reads_any_more_closes_the_connection(server: FakeServer, llm: Make) -> None:
    server.answers = [endless]
    deltas = llm().chat(HI, stream=True)
    next(deltas)
    deltas.close()
    assert server.hung_up.wait(5)


def test_tokens_are_counted_by_the_server_where_it_counts(server: FakeServer, llm: Make) -> None:
    server.routes["/tokenize"] = lambda body: {"count": len(body["prompt"].split()), "max_model_len": 4096}
    model = llm("vllm")
    assert [model.count_tokens("one two three"), model.count_tokens("one two three")] == [3, 3]
    assert len(server.requests) == 1
    assert model.chat(HI).context["parts"]["prompt"] == 1
    server.routes["/tokenize"] = lambda body: {"tokens": list(range(len(body["content"])))}
    assert llm("llamacpp").count_tokens("abc") == 3
    del server.routes["/tokenize"]
    model = llm("vllm")
    assert (model.counts_exactly, model.count_tokens("abcdefgh"), model.counts_exactly) == (True, 2, False)


def test_what_cannot_fit_is_refused_here_and_turns_are_dropped_where_asked(
    server: FakeServer, llm: Make
) -> None:
    """Some servers would cut it in silence (ollama#3839)."""
    long = Message("user", "word " * 2000)
    with pytest.raises(ContextLengthError, match="holds 512"):
        llm(context_length=512).chat([long])
    assert not server.requests
    reply = llm(context_length=512).chat(
        [Message("user", "word " * 300), Message("assistant", "Yes."), Message("user", "And now?")],
        context_overflow="drop_oldest",
    )
    assert [one["content"] for one in server.asked()["messages"]] == ["And now?"]
    assert reply.context["dropped_turns"] == 1
    assert reply.context["dropped"][0]["begins"].startswith("word word")


def test_a_server_that_cut_the_prompt_is_told_on(server: FakeServer, llm: Make) -> None:
    server.answers = [saying(delta(content="1234"), delta(finish_reason="stop"), usage(1024, 2))]
    reply = llm(context_length=8192).chat(
        [Message("user", "The password is 4711. " + "filler words " * 2000)]
    )
    assert reply.context["cut_upstream"]["read"] == 1024
    assert reply.context["cut_upstream"]["sent_about"] > 4000


def test_a_hostile_stream_ends(server: FakeServer, llm: Make) -> None:
    """Comments, empty events and events over several lines are read; one that never ends is cut off."""

    def odd(handler: Handler, body: dict[str, Any]) -> None:
        handler.begin()
        handler.chunk(": ping\n\n\n\n")
        handler.chunk("event: message\r\ndata: " + json.dumps(delta(content="a")) + "\r\n\r\n")
        one = json.dumps(delta(content="b", finish_reason="stop"), indent=1)
        handler.chunk("".join(f"data: {line}\n" for line in one.split("\n")) + "\n")
        handler.chunk("data:[DONE]\n\n")
        handler.end()

    def one_line(handler: Handler, body: dict[str, Any]) -> None:
        handler.begin()
        try:
            while not handler.fake.done.is_set():
                handler.chunk("data: " + "x" * 2**20)
        except OSError:
            handler.fake.hung_up.set()

    server.answers = [odd]
    assert llm().chat(HI).text == "ab"
    server.answers = [one_line]
    with pytest.raises(QuinzeError, match="8,388,608 bytes"):
        llm().chat(HI)
    until(server.hung_up.is_set)
