"""Overflow: what is done with a prompt that is longer than the model's window. The one door into it.

error         it is refused, with the numbers
drop_oldest   whole turns are left out, the oldest first
keep_ends     whole turns are left out of the middle, the first and the newest stay; and where one text alone
              is too long, its middle is cut out

The system prompt and the last turn are never dropped, and nothing is left out without an entry in the ledger.
Given messages and how to render and count them; knows neither the engine nor HTTP.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quinze.errors import InvalidRequestError
from quinze.llm.context import (
    OVERFLOWS,
    Dropped,
    Ledger,
    Overflow,
    chat_parts,
    dropped,
    open_ledger,
    text_parts,
    turns_of,
)
from quinze.llm.messages import Message

REPLY_TOKENS = 512
"""Kept free for the reply where turns may be dropped for it and no max_tokens says how much it needs."""
GAP = "\n[…]\n"
"""Stands where the middle of a text was cut out."""
_SHORTEST_ENDS = 32
"""Characters; a text of which less would be left is refused instead."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """What the model reads, and the account of it."""

    ids: list[int]
    ledger: Ledger
    messages: Sequence[Message] = ()
    """Of a conversation: what was kept of it."""


@dataclass(frozen=True, slots=True)
class Window:
    """A model's window, as far as one request is concerned."""

    name: str
    granted: int
    asked: int | None
    """max_tokens of the request"""
    overflow: Overflow
    count: Callable[[str], int]
    """tokens of a text by itself"""

    @property
    def comfortable(self) -> int:
        """Tokens of prompt beside which the reply has room: what it asks, a quarter of the window at most."""
        reply = REPLY_TOKENS if self.asked is None else self.asked
        return self.granted - max(1, min(reply, self.granted // 4))


def overflow_of(given: str) -> Overflow:
    """InvalidRequestError for a policy that does not exist."""
    found = next((one for one in OVERFLOWS if one == given), None)
    if found is None:
        raise InvalidRequestError(
            f"context_overflow is {given!r:.60}; it must be one of {', '.join(OVERFLOWS)}.",
            param="context_overflow",
        )
    return found


def admit_chat(
    messages: Sequence[Message], window: Window, render: Callable[[Sequence[Message]], list[int]]
) -> Admitted:
    """A conversation that fits, by the policy; ContextLengthError where what may not be dropped does not."""
    ids = render(messages)
    sent = len(ids)
    kept: Sequence[Message] = messages
    entries: list[Dropped] = []
    if window.overflow != "error" and sent > window.comfortable:
        kept, entries = _without_turns(messages, window, render)
        ids = render(kept) if entries else ids
    if window.overflow == "keep_ends" and len(ids) >= window.granted:
        kept, entry = _with_a_gap(kept, len(ids), messages, window, render)
        if entry is not None:
            entries.append(entry)
            ids = render(kept)
    turns = turns_of(messages)
    for i, message in enumerate(messages):
        turn = next((number for number, turn in enumerate(turns) if i in turn), None)
        for text in message.left_out:
            entries.append(
                dropped(text, window.count(text), part="knowledge", role=message.role, turn=turn, message=i,
                        whole=False)
            )  # fmt: skip
    # A refusal that names no parts need not count them: of a long text that is half of its cost.
    refused = window.overflow == "error" and len(ids) >= window.granted
    parts = {} if refused else chat_parts(kept, len(ids), window.count)
    ledger = open_ledger(
        window.name, window.granted, len(ids), parts, window.asked,
        sent=sent, overflow=window.overflow, dropped=entries,
    )  # fmt: skip
    return Admitted(ids, ledger, kept)


def admit_text(text: str, window: Window, encode: Callable[[str], list[int]]) -> Admitted:
    """A text to be continued. It has no turns, so only `keep_ends` makes room: its middle is cut out."""
    ids = encode(text)
    sent = len(ids)
    entries: list[Dropped] = []
    if window.overflow == "keep_ends" and sent >= window.granted:
        found = _ends(text, sent, window.comfortable, lambda shorter: len(encode(shorter)))
        if found is not None:
            shorter, gone = found
            entries = [dropped(gone, window.count(gone), part="prompt", whole=False)]
            ids = encode(shorter)
    ledger = open_ledger(
        window.name, window.granted, len(ids), text_parts(len(ids), len(encode(""))), window.asked,
        sent=sent, overflow=window.overflow, dropped=entries, param="prompt",
    )  # fmt: skip
    return Admitted(ids, ledger)


def _without_turns(
    messages: Sequence[Message], window: Window, render: Callable[[Sequence[Message]], list[int]]
) -> tuple[list[Message], list[Dropped]]:
    """The messages without as many turns as it takes, and an entry for each that went."""
    turns = turns_of(messages)
    numbers = list(range(len(turns) - 1))
    order = numbers if window.overflow == "drop_oldest" else [*numbers[1:], *numbers[:1]]

    def gone(count: int) -> set[int]:
        return {i for number in order[:count] for i in turns[number]}

    def without(count: int) -> list[Message]:
        missing = gone(count)
        return [message for i, message in enumerate(messages) if i not in missing]

    def fits(count: int) -> bool:
        return count > 0 and len(render(without(count))) <= window.comfortable

    # All of them where it never fits.
    fewest = bisect_left(range(len(order)), True, key=fits)
    entries = [
        dropped(messages[i].content, window.count(messages[i].content), part="history", role=messages[i].role,
                turn=number, message=i)
        for number in sorted(order[:fewest])
        for i in turns[number]
    ]  # fmt: skip
    return without(fewest), entries


def _with_a_gap(
    kept: Sequence[Message],
    tokens: int,
    messages: Sequence[Message],
    window: Window,
    render: Callable[[Sequence[Message]], list[int]],
) -> tuple[Sequence[Message], Dropped | None]:
    """The longest text of the last turn without its middle, and the entry for that."""
    turns = turns_of(kept)
    if not turns:
        return kept, None
    at = max(turns[-1], key=lambda i: len(kept[i].content))
    long = kept[at]

    def put(text: str) -> list[Message]:
        knowledge = tuple(passage for passage in long.knowledge if passage in text)
        shorter = dataclasses.replace(long, content=text, knowledge=knowledge)
        return [*kept[:at], shorter, *kept[at + 1 :]]

    around = len(render(put("")))
    found = _ends(
        long.content,
        max(1, tokens - around),
        window.comfortable - around,
        lambda text: len(render(put(text))) - around,
    )
    if found is None:
        return kept, None
    text, gone = found
    place = len(messages) - len(kept) + at
    entry = dropped(
        gone, window.count(gone), part="prompt", role=long.role, turn=len(turns_of(messages)) - 1,
        message=place, whole=False,
    )  # fmt: skip
    return put(text), entry


def _ends(text: str, tokens: int, room: int, count: Callable[[str], int]) -> tuple[str, str] | None:
    """(head, gap and tail; what is gone), as much of the ends as `room` holds; None where that is nothing."""

    def ends(characters: int) -> tuple[str, str]:
        head, tail = characters - characters // 2, characters // 2
        return text[:head] + GAP + text[len(text) - tail :], text[head : len(text) - tail]

    # The text's own density says about how much fits; the search begins there.
    middle = max(1, min(len(text) - 1, len(text) * max(room, 0) // tokens))
    low, high = 0, min(len(text), 4 * middle)
    while high - low > max(1, high // 64):
        low, high = (middle, high) if count(ends(middle)[0]) <= room else (low, middle)
        middle = (low + high) // 2
    return ends(low) if low >= min(_SHORTEST_ENDS, len(text)) else None
