"""A needle at the front of a prompt that is too long: refused, or reported; on no route lost in silence.

The failure to avoid is ollama#3839: 200 OK for a prompt of 160,689 tokens of which 16,387 were read, and an
invented password instead of the one that had been cut away.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import quinze
from quinze.cli.main import run
from quinze.errors import ContextLengthError

NEEDLE = "The secret password is OPAL-1515."
HAY = " ".join(f"The clerk files letter {number} in drawer {number % 7}." for number in range(300))
QUESTION = "What is the secret password?"
LONG_TEXT = f"{NEEDLE} {HAY} {QUESTION}"
LONG_TALK = [
    {"role": "user", "content": NEEDLE},
    {"role": "assistant", "content": "I see."},
    *[
        message
        for number in range(60)
        for message in (
            {"role": "user", "content": f"File letter {number} in drawer {number % 7}."},
            {"role": "assistant", "content": f"Letter {number} is filed."},
        )
    ],
    {"role": "user", "content": QUESTION},
]
ONE_TURN = [{"role": "user", "content": LONG_TEXT}]
POLICIES = [None, "error", "drop_oldest", "keep_ends"]

Outcome = tuple[str, dict[str, Any]]
"""("refused", the error) or ("answered", the context)."""


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def events_of(reply: httpx.Response) -> list[dict[str, Any]]:
    lines = [line[6:] for line in reply.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def over_http(
    http: httpx.Client, path: str, asked: dict[str, Any], policy: str | None, stream: bool
) -> Outcome:
    body = {"model": "babbler", "max_tokens": 8, "temperature": 0, "stream": stream, **asked}
    reply = http.post(path, json=body if policy is None else {**body, "context_overflow": policy})
    if reply.status_code != 200:
        assert reply.status_code == 400
        return "refused", reply.json()["error"]
    if not stream:
        return "answered", reply.json()["context"]
    [context] = [event["context"] for event in events_of(reply) if event.get("context")]
    return "answered", context


def in_python(babbler: Path, work: Callable[[quinze.LLM], Any]) -> Outcome:
    with quinze.LLM(babbler, threads=1) as llm:
        try:
            done = work(llm)
            last = done if hasattr(done, "context") else list(done)[-1]
        except ContextLengthError as error:
            return "refused", {"code": error.code, "message": error.message}
        return "answered", dict(last.context)


@pytest.fixture
def ask_by(
    http: httpx.Client, babbler: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """`ask_by(route, policy)`: an over-long prompt with the needle at its front, by this route."""

    def terminal(*arguments: str) -> Outcome:
        code = run([*arguments, "--max-tokens", "8", "--json"])
        told = capsys.readouterr()
        if code:
            assert code == 2
            return "refused", json.loads(told.err.splitlines()[-1])["error"]
        return "answered", json.loads(told.out)["context"]

    def ask(route: str, policy: str | None) -> Outcome:
        chosen: dict[str, Any] = {"max_tokens": 8, "temperature": 0.0, "context_overflow": policy}
        option = ["--context-overflow", policy] if policy else []
        chat, text = "/v1/chat/completions", "/v1/completions"
        routes: dict[str, Callable[[], Outcome]] = {
            "chat": lambda: over_http(http, chat, {"messages": LONG_TALK}, policy, False),
            "chat, streamed": lambda: over_http(http, chat, {"messages": LONG_TALK}, policy, True),
            "chat, one turn": lambda: over_http(http, chat, {"messages": ONE_TURN}, policy, False),
            "chat, one turn, streamed": lambda: over_http(http, chat, {"messages": ONE_TURN}, policy, True),
            "completions": lambda: over_http(http, text, {"prompt": LONG_TEXT}, policy, False),
            "completions, streamed": lambda: over_http(http, text, {"prompt": LONG_TEXT}, policy, True),
            "python chat": lambda: in_python(babbler, lambda llm: llm.chat(LONG_TALK, **chosen)),
            "python chat, streamed": lambda: in_python(
                babbler, lambda llm: llm.chat(LONG_TALK, stream=True, **chosen)
            ),
            "python completion": lambda: in_python(babbler, lambda llm: llm.complete(LONG_TEXT, **chosen)),
            "terminal": lambda: terminal("run", str(babbler), LONG_TEXT, *option),
            "terminal, raw": lambda: terminal("run", str(babbler), LONG_TEXT, "--raw", *option),
        }
        return routes[route]()

    return ask


TALKS = ["chat", "chat, streamed", "python chat", "python chat, streamed"]
TEXTS = [
    "chat, one turn", "chat, one turn, streamed", "completions", "completions, streamed",
    "python completion", "terminal", "terminal, raw",
]  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("route", [*TALKS, *TEXTS])
def test_a_needle_at_the_front_never_vanishes_in_silence(
    ask_by: Callable[..., Outcome], route: str, policy: str | None
) -> None:
    outcome, told = ask_by(route, policy)
    may_be_cut = policy == "keep_ends" or (policy == "drop_oldest" and route in TALKS)
    assert outcome == ("answered" if may_be_cut else "refused")
    if outcome == "refused":
        assert told["code"] == "context_length_exceeded"
        assert "1,024" in told["message"], "it says how much there is room for"
        return
    assert told["sent"] > told["granted"] == 1024
    assert told["used"] <= told["granted"]
    assert sum(told["parts"].values()) == told["used"]
    read = told["used"] - told["parts"]["reply"]
    assert sum(told["dropped_parts"].values()) >= told["sent"] - read, "what was sent was read or is reported"
    needle = [entry for entry in told["dropped"] if entry["begins"] == NEEDLE]
    if policy == "drop_oldest":
        assert [entry["sha256"] for entry in needle] == [digest(NEEDLE)], "the needle itself is reported"
        assert told["dropped"][0] == needle[0]
    else:
        assert needle == [], "the ends are kept, so it was read"
        assert told["dropped"]


@pytest.mark.parametrize("stream", [False, True])
def test_passages_that_documents_offer_and_the_model_has_no_room_for_are_named(
    http: httpx.Client, stream: bool
) -> None:
    asked = {
        "knowledge_base": "rules",
        "question": "What is the secret password of room 3?",
        "model": "babbler",
    }
    reply = http.post("/api/ask", json={**asked, "stream": stream})
    assert reply.status_code == 200
    answer = events_of(reply)[-1] if stream else reply.json()
    context = answer["context"]
    assert context["parts"]["knowledge"] > context["parts"]["prompt"] > 0
    assert context["used"] <= context["granted"]
    assert {entry["part"] for entry in context["dropped"]} == {"knowledge"}
    assert context["dropped_parts"]["knowledge"] > 100


def test_a_chat_at_the_terminal_says_that_turns_were_dropped(
    babbler: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter([f"Note {number}: {HAY[:600]}" for number in range(8)])

    def typed(_prompt: str = "") -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", typed)
    arguments = ["chat", str(babbler), "--max-tokens", "8", "--context-overflow", "drop_oldest"]
    assert run(arguments) == 0
    told = capsys.readouterr().err
    assert "turn was left out" in told or "turns were left out" in told
    assert "from “Note 0: The clerk" in told


def test_the_setting_is_what_a_request_does_not_say(babbler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUINZE_CONTEXT_OVERFLOW", "drop_oldest")
    outcome, told = in_python(babbler, lambda llm: llm.chat(LONG_TALK, max_tokens=8))
    assert outcome == "answered"
    assert told["dropped_turns"] > 10
    monkeypatch.setenv("QUINZE_CONTEXT_OVERFLOW", "in silence")
    with pytest.raises(quinze.QuinzeError, match="context_overflow"):
        quinze.LLM(babbler)
