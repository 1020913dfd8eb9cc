"""Prompts that do not fit: refused, or cut with an entry for each piece. Nothing vanishes without a trace."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from quinze.errors import ContextLengthError, InvalidRequestError
from quinze.llm.llm import LLM
from quinze.llm.messages import Message

SYSTEM = Message("system", "The password of the day is OPAL.")
TURNS = [
    message
    for number in range(12)
    for message in (
        Message("user", f"Question number {number} about the weather?"),
        Message("assistant", f"Answer {number}: rain in the morning."),
    )
]
LAST = Message("user", "What is the password?")


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def read_by(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The ids that the engine is given, request by request."""
    seen: list[list[int]] = []
    generate = llm._engine.generate

    def watched(ids: Any, *args: Any, **keywords: Any) -> Any:
        seen.append(list(ids))
        return generate(ids, *args, **keywords)

    monkeypatch.setattr(llm._engine, "generate", watched)
    return seen


def test_dropping_the_oldest_leaves_whole_turns_out_and_names_each(
    chatty: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = read_by(chatty, monkeypatch)
    messages = [SYSTEM, *TURNS, LAST]
    reply = chatty.chat(messages, max_tokens=8, temperature=0, context_overflow="drop_oldest")
    context = reply.context
    gone = [entry["message"] for entry in context["dropped"]]
    assert gone == list(range(1, 1 + len(gone))), (
        "the oldest, without a hole, the system prompt not among them"
    )
    assert len(gone) % 2 == 0
    assert context["dropped_turns"] == len(gone) // 2 > 0
    for entry in context["dropped"]:
        left_out = messages[entry["message"]]
        assert (entry["role"], entry["sha256"]) == (left_out.role, digest(left_out.content))
        assert left_out.content.startswith(entry["begins"])
        assert entry["tokens"] == chatty.count_tokens(left_out.content)
        assert (entry["part"], entry["whole"], entry["turn"]) == (
            "history",
            True,
            (entry["message"] - 1) // 2,
        )
    kept = [message for i, message in enumerate(messages) if i not in gone]
    assert seen == [chatty._chat_ids(kept)], "the model reads exactly what is not in the entries"
    assert context["sent"] == chatty.count_chat_tokens(messages)
    parts = context["dropped_parts"]
    assert set(parts) == {"history", "template"}
    assert parts["history"] == sum(entry["tokens"] for entry in context["dropped"])
    assert sum(parts.values()) == context["sent"] - reply.usage.prompt_tokens
    assert sum(context["parts"].values()) == context["used"]
    # No more than it takes: with the newest of the dropped turns it would not have fitted.
    one_more = [SYSTEM, *TURNS[len(gone) - 2 :], LAST]
    assert chatty.count_chat_tokens(one_more) > chatty.context_length - 8


def test_keeping_the_ends_keeps_the_first_turn_and_the_newest(chatty: LLM) -> None:
    messages = [SYSTEM, *TURNS, LAST]
    context = chatty.chat(messages, max_tokens=8, temperature=0, context_overflow="keep_ends").context
    turns = sorted({entry["turn"] for entry in context["dropped"]})
    assert turns == list(range(1, 1 + len(turns)))
    assert 0 < len(turns) < len(TURNS) // 2


@pytest.mark.parametrize("policy", ["error", "drop_oldest", "keep_ends"])
def test_what_fits_is_left_alone_whatever_the_policy(chatty: LLM, policy: str) -> None:
    messages = [SYSTEM, *TURNS[:2], LAST]
    reply = chatty.chat(messages, max_tokens=4, temperature=0, context_overflow=policy)
    assert reply.context["dropped"] == []
    assert (reply.context["overflow"], reply.context["dropped_turns"]) == (policy, 0)
    assert reply.context["sent"] == reply.usage.prompt_tokens == chatty.count_chat_tokens(messages)


def test_a_last_resort_loses_its_middle_and_the_entry_holds_it(
    chatty: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = read_by(chatty, monkeypatch)
    text = "FRONT " + " ".join(f"w{number}" for number in range(3000)) + " BACK"
    reply = chatty.chat(
        [SYSTEM, *TURNS[:2], Message("user", text)], max_tokens=8, context_overflow="keep_ends"
    )
    *history, cut = reply.context["dropped"]
    assert [entry["part"] for entry in history] == ["history", "history"]
    assert (cut["part"], cut["role"], cut["whole"], cut["message"], cut["turn"]) == (
        "prompt",
        "user",
        False,
        3,
        1,
    )
    read = chatty.tokenizer.decode(seen[0])
    head, tail = read.split("\n[…]\n")
    head = head[head.index("FRONT") :]
    tail = tail[: tail.index("BACK") + 4]
    assert text.startswith(head)
    assert text.endswith(tail)
    missing = text[len(head) : len(text) - len(tail)]
    assert cut["sha256"] == digest(missing)
    assert cut["tokens"] == chatty.count_tokens(missing)
    assert SYSTEM.content in read
    # As much as there is room for: the reply has its eight tokens, and little is left unused.
    assert chatty.context_length - 8 - 8 <= reply.usage.prompt_tokens <= chatty.context_length - 8


def test_a_text_to_be_continued_loses_its_middle(stories: LLM) -> None:
    text = "Once upon a time there was a needle. " + "The cat sat on the mat. " * 200 + "Then"
    with pytest.raises(ContextLengthError, match="no turns that could be dropped") as caught:
        stories.complete(text, context_overflow="drop_oldest")
    assert caught.value.param == "prompt"
    for stream in (False, True):
        found = stories.complete(
            text, max_tokens=5, temperature=0, context_overflow="keep_ends", stream=stream
        )
        context = list(found)[-1].context if stream else found.context  # type: ignore[union-attr]
        [entry] = context["dropped"]
        assert (entry["part"], entry["role"], entry["whole"]) == ("prompt", None, False)
        assert entry["tokens"] > 1000
        assert context["used"] <= context["granted"]
        assert context["sent"] > context["granted"]
        assert sum(context["parts"].values()) == context["used"]


@pytest.mark.parametrize("policy", ["drop_oldest", "keep_ends"])
def test_protected_parts_that_do_not_fit_are_refused_with_the_numbers(chatty: LLM, policy: str) -> None:
    system = Message("system", "rule " * 150)
    tokens = chatty.count_tokens(system.content)
    with pytest.raises(ContextLengthError, match=rf"never dropped.*system prompt {tokens}.*holds 128"):
        chatty.chat([system, *TURNS, LAST], context_overflow=policy)


def test_a_question_that_does_not_fit_is_refused_though_turns_may_be_dropped(chatty: LLM) -> None:
    with pytest.raises(ContextLengthError, match="last turn 2"):
        chatty.chat([*TURNS, Message("user", "word " * 200)], context_overflow="drop_oldest")


def test_tool_results_stay_with_their_question(chatty: LLM) -> None:
    called = [Message("user", "Now?"), Message("assistant", "clock()"), Message("tool", "It is noon.")]
    context = chatty.chat([*TURNS, *called], max_tokens=4, context_overflow="drop_oldest").context
    assert context["dropped_turns"] > 0
    assert max(entry["message"] for entry in context["dropped"]) < len(TURNS)
    assert context["parts"]["prompt"] == sum(chatty.count_tokens(message.content) for message in called)


def test_the_model_may_be_told_once_and_a_request_overrides_it(chatty_path: Any) -> None:
    with LLM(chatty_path, threads=1, context_overflow="drop_oldest") as llm:
        assert llm.chat([*TURNS, LAST], max_tokens=1).context["dropped_turns"] > 0
        with pytest.raises(ContextLengthError):
            llm.chat([*TURNS, LAST], max_tokens=1, context_overflow="error")
    with pytest.raises(InvalidRequestError, match="drop_oldest, keep_ends"):
        LLM(chatty_path, context_overflow="silently")


def test_documents_are_a_part_of_their_own(chatty: LLM) -> None:
    passage, missing = "The rent is due on the fifteenth.", "Dogs need the landlord's consent."
    question = Message("user", f"{passage}\nWhen is it due?", knowledge=(passage,), left_out=(missing,))
    context = chatty.chat([SYSTEM, question], max_tokens=1).context
    parts = context["parts"]
    assert parts["knowledge"] == chatty.count_tokens(passage)
    assert parts["knowledge"] + parts["prompt"] == chatty.count_tokens(question.content)
    [entry] = context["dropped"]
    assert (entry["part"], entry["sha256"], entry["begins"]) == ("knowledge", digest(missing), missing)
