"""Whatever is sent: what is not read has an entry; system prompt and last turn are read, or all refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from quinze.errors import ContextLengthError
from quinze.llm.context import OVERFLOWS, Overflow, turns_of
from quinze.llm.messages import Message
from quinze.llm.overflow import GAP, Window, admit_chat, admit_text

MESSAGES = st.lists(
    st.builds(
        Message,
        st.sampled_from(["system", "user", "user", "assistant", "assistant", "tool"]),
        st.text("ab ", max_size=60),
    ),
    min_size=1,
    max_size=12,
)


def window(granted: int, asked: int | None, policy: Overflow) -> Window:
    return Window("it", granted, asked, policy, len)


@given(MESSAGES, st.integers(8, 400), st.none() | st.integers(0, 500), st.sampled_from(OVERFLOWS))
def test_every_message_is_read_or_has_an_entry(
    messages: list[Message], granted: int, asked: int | None, policy: Overflow
) -> None:
    read: list[Message] = []

    def render(shown: Sequence[Message]) -> list[int]:
        """A token a letter, and three of a template around each message."""
        read[:] = shown
        return [0] * sum(len(message.content) + 3 for message in shown)

    sent = len(render(messages))
    try:
        admitted = admit_chat(messages, window(granted, asked, policy), render)
    except ContextLengthError:
        assert sent >= granted, "what fits is never refused"
        return
    account: dict[str, Any] = admitted.ledger.account(0)
    assert account["used"] == len(admitted.ids) < granted
    assert account["used"] == sum(account["parts"].values())
    assert account["sent"] == sent
    gone = {entry["message"] for entry in account["dropped"] if entry["whole"]}
    cut = {entry["message"]: entry for entry in account["dropped"] if not entry["whole"]}
    last = turns_of(messages)[-1:]
    protected = {i for i, message in enumerate(messages) if message.role == "system"} | set(*last)
    assert not gone & protected
    kept = [i for i in range(len(messages)) if i not in gone]
    assert len(kept) == len(read)
    for i, message in zip(kept, read, strict=True):
        whole = messages[i]
        if i in cut:
            head, tail = message.content.split(GAP)
            assert whole.content.startswith(head)
            assert whole.content.endswith(tail)
            assert cut[i]["tokens"] == len(whole.content) - len(head) - len(tail)
        else:
            assert message == whole
    if policy == "error" or sent <= granted - max(1, granted // 4):
        assert account["dropped"] == []
    if policy == "drop_oldest":
        assert cut == {}


@given(st.text("ab ", max_size=900), st.integers(8, 400), st.sampled_from(OVERFLOWS))
def test_a_text_is_read_whole_or_its_gap_is_counted(text: str, granted: int, policy: Overflow) -> None:
    read: list[str] = []

    def encode(shown: str) -> list[int]:
        read.append(shown)
        return [1, *(0 for _ in shown)]

    try:
        account = admit_text(text, window(granted, None, policy), encode).ledger.account(0)
    except ContextLengthError:
        assert len(text) + 1 >= granted
        return
    assert account["parts"]["template"] == 1
    assert account["used"] < granted
    if not account["dropped"]:
        assert account["used"] == account["sent"] == len(text) + 1
        return
    assert policy == "keep_ends"
    [entry] = account["dropped"]
    assert entry["tokens"] + account["used"] - 1 - len(GAP) == len(text)
