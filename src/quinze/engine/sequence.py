"""Sequence: one text on its way through the engine, as its reader and the scheduler share it.

The scheduler's thread computes; the thread that reads takes items out of `out`. Each field is written by one
of the two. Knows nothing of text.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence as Ids
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from quinze import native
from quinze.engine.speculation import PromptLookup

FinishReason = Literal["stop", "length", "cancelled"]

AHEAD = 4
"""Tokens that may be computed before they are asked for, so that reading and computing overlap."""


class Logprobs(NamedTuple):
    """What the model itself thought of a token, before temperature, penalties and bias."""

    id: int
    logprob: float
    most_likely: list[tuple[int, float]]
    """(id, logprob), the likeliest first."""


class Item(NamedTuple):
    """A token, or the end, or both; or why there is no more."""

    token: int | None = None
    logprobs: Logprobs | None = None
    finish_reason: FinishReason | None = None
    error: BaseException | None = None


@dataclass(eq=False)
class Sequence:
    """A request's ids, and how far they are computed."""

    ids: list[int]
    """Of the prompt, then of the reply."""
    prompt: int
    """How many of them are the prompt's."""
    left: int
    """Tokens that may still be written."""
    sampler: native.Sampler
    stop_ids: frozenset[int] = frozenset()
    cancel: threading.Event | None = None
    constrained: bool = False
    """Each token needs a mask that the reader computes from the one before."""
    wants_logprobs: bool = False
    lookup: PromptLookup | None = None
    """Guesses what comes next; None: nothing is guessed."""
    adapter: int = -1
    """Which adapter its ids pass through (engine/adapters.py); -1: none."""

    mask: native.Mask | None = None
    """By the reader: what the next token may be."""
    taken: int = 0
    """By the reader: tokens of the reply that it has dealt with."""
    closed: bool = False
    """By the reader: no more is wanted."""

    order: int = 0
    """The first to come has the least."""
    inherited: list[tuple[int, int]] = field(default_factory=list)
    """Ranges of the prompt that another sequence had written, id by id."""
    out: queue.SimpleQueue[Item] = field(default_factory=queue.SimpleQueue)
    cache: native.Cache | None = None
    ended: bool = False
    cached_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    guessed_tokens: int = 0
    accepted_tokens: int = 0
    started: bool = False
    """Whether its cache has begun, perhaps with what another sequence had computed."""

    @property
    def written(self) -> int:
        return len(self.ids) - self.prompt

    @property
    def computed(self) -> int:
        return 0 if self.cache is None else self.cache.length

    @property
    def missing(self) -> int:
        """Ids that the cache has not seen."""
        return len(self.ids) - self.computed

    @property
    def cancelled(self) -> bool:
        return self.closed or (self.cancel is not None and self.cancel.is_set())

    @property
    def is_due(self) -> bool:
        """Whether its next token may be chosen now."""
        waiting = self.written - self.taken
        return waiting == 0 if self.constrained else waiting < AHEAD

    @property
    def singly(self) -> list[tuple[int, int]]:
        """Ranges of ids that are computed one by one, not together with their neighbors (csrc/decoder.h).

        The two round differently: what is computed again is computed in the same way again.
        """
        return [*self.inherited, (self.prompt, len(self.ids))]

    def begins_like(self, singly: list[tuple[int, int]], length: int) -> None:
        """Its first `length` ids were computed by a sequence that has these ranges."""
        self.inherited = clipped(singly, length)

    def next_stretch(self, most: int) -> tuple[int, bool]:
        """(end, one by one) of the ids that come next, up to `most`, and are computed in one way."""
        at = self.computed
        for start, end in self.singly:
            if at < start:
                return min(start, most), False
            if at < end:
                return min(end, most), True
        return most, False

    def give(self, token: int, logprobs: Logprobs | None) -> None:
        self.out.put(Item(token, logprobs))

    def end(self, reason: FinishReason, token: int | None = None, logprobs: Logprobs | None = None) -> None:
        self.ended = True
        self.out.put(Item(token, logprobs, reason))

    def fail(self, error: BaseException) -> None:
        self.ended = True
        self.out.put(Item(error=error))


def clipped(ranges: list[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    """What of the ranges lies below `length`.

    >>> clipped([(2, 4), (6, 9)], 7)
    [(2, 4), (6, 7)]
    """
    return [(start, min(end, length)) for start, end in ranges if start < min(end, length)]


def common_prefix(a: Ids[int], b: Ids[int]) -> int:
    """How many ids two sequences begin with alike.

    >>> common_prefix([1, 2, 3], [1, 2, 4, 5])
    2
    """
    most = min(len(a), len(b))
    if a[:most] == b[:most]:
        return most
    low, high = 0, most
    # Slices are compared by C: a few of them, halved, are faster than a loop.
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle)
    return low if a[low : low + 1] != b[low : low + 1] else low + 1
