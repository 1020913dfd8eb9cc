"""Prefixes: the caches of sequences that ended, for whoever begins alike. System prompts are computed once.

The pages are shared, not copied (csrc/cache.h); the least recently used go first when there is no room.
Knows nothing of requests.
"""

from __future__ import annotations

from dataclasses import dataclass

from quinze import native
from quinze.engine.sequence import Sequence, clipped, common_prefix

MOST_KEPT = 64


@dataclass(frozen=True, slots=True)
class Prefix:
    """What a sequence has computed."""

    ids: list[int]
    cache: native.Cache
    """Of these ids, or of as many of them as it has."""
    singly: list[tuple[int, int]]
    """Ranges that were computed one by one."""
    adapter: int = -1
    """Keys and values computed with one adapter are no use to another."""

    def common(self, sequence: Sequence, most: int) -> int:
        """How many of its ids, up to `most`, can be those of the sequence. Where that begins again, only what
        was computed as its own were."""
        if self.ids[0] != sequence.ids[0] or self.adapter != sequence.adapter:
            return 0
        length = min(common_prefix(self.ids, sequence.ids), most)
        if length <= self.cache.length and not self.cache.can_share(length):
            return 0
        if sequence.written and clipped(self.singly, length) != clipped(sequence.inherited, length):
            return 0
        return length


class Prefixes:
    """Used by one thread."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: list[Prefix] = []
        """The most recently used last."""

    def put(self, prefix: Prefix) -> None:
        """Those that only begin like it are forgotten, for it serves in their place."""
        ids = prefix.ids
        if not ids or not self._most_bytes:
            return
        self._kept = [
            one for one in self._kept if one.adapter != prefix.adapter or ids[: len(one.ids)] != one.ids
        ]
        self._kept.append(prefix)
        while len(self._kept) > MOST_KEPT or self.bytes() > self._most_bytes:
            self.drop_one()

    def find(self, sequence: Sequence, most: int) -> tuple[Prefix | None, int]:
        """The one that has the longest beginning of the sequence, up to `most` ids, and how long that is."""
        best, longest = None, 0
        for one in self._kept:
            common = one.common(sequence, most)
            if common > longest:
                best, longest = one, common
        if best is not None:
            self._kept.remove(best)
            self._kept.append(best)
        return best, longest

    def drop_one(self) -> bool:
        """Forget the least recently used; False if there is none."""
        if not self._kept:
            return False
        self._kept.pop(0)
        return True

    def clear(self) -> None:
        self._kept.clear()

    def bytes(self) -> int:
        """Of all pages; those that several share count more than once."""
        return sum(one.cache.bytes for one in self._kept)
