"""Turns: few places, many who wait. What is used is loaded on first use, kept, and closed when it is idle.

Knows nothing of models: given a function that loads what a path names. Those who wait are served in the order
in which they came, so that a request for one model is never overtaken for ever by requests for another.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from quinze.errors import BusyError

_LOOK_AGAIN = 0.1
"""Seconds between two looks at `cancel` while waiting."""


class Closable(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=Closable)


class _Held(Generic[T]):
    """One loaded thing."""

    def __init__(self, stamp: Any) -> None:
        self.stamp = stamp
        self.thing: T | None = None
        """None while it is being loaded."""
        self.users = 0
        self.last_used = time.monotonic()


class Turns(Generic[T]):
    def __init__(
        self,
        load: Callable[[Path], T],
        *,
        most_loaded: int,
        most_users: int,
        most_waiting: int,
        unload_after: float,
    ) -> None:
        self._load = load
        self._most_loaded, self._most_users, self._most_waiting = most_loaded, most_users, most_waiting
        self._unload_after = unload_after
        self._changed = threading.Condition()
        self._held: dict[Path, _Held[T]] = {}
        self._line: collections.deque[object] = collections.deque()
        self._users = 0
        self._closed = False
        self._janitor: threading.Thread | None = None

    def loaded(self) -> frozenset[Path]:
        with self._changed:
            return frozenset(path for path, held in self._held.items() if held.thing is not None)

    def held(self, path: Path) -> T | None:
        """What is loaded for a path, to be looked at; None if nothing is."""
        with self._changed:
            found = self._held.get(path)
            return None if found is None else found.thing

    def waiting(self) -> int:
        with self._changed:
            return len(self._line)

    @contextlib.contextmanager
    def use(self, path: Path, stamp: Any = None, cancel: threading.Event | None = None) -> Iterator[T]:
        """What `path` names, for the length of the block. A new `stamp` means that the file has changed."""
        held = self._take(path, stamp, cancel)
        try:
            if held.thing is None:
                self._bring(path, held)
            assert held.thing is not None
            yield held.thing
        finally:
            with self._changed:
                held.users -= 1
                self._users -= 1
                held.last_used = time.monotonic()
                if self._closed and not held.users:
                    self._drop(path, held)
                self._changed.notify_all()

    def unload(self, path: Path) -> None:
        """Close it now if nobody uses it."""
        with self._changed:
            held = self._held.get(path)
            if held is not None and not held.users:
                self._drop(path, held)
                self._changed.notify_all()

    def close(self) -> None:
        """Refuse whoever waits, close what is idle; what is in use is closed by its last user."""
        with self._changed:
            self._closed = True
            for path, held in list(self._held.items()):
                if not held.users:
                    self._drop(path, held)
            self._changed.notify_all()

    def _take(self, path: Path, stamp: Any, cancel: threading.Event | None) -> _Held[T]:
        """Wait until we are first in line and there is a place; then it is ours."""
        ticket = object()
        with self._changed:
            if not self._is_free() and len(self._line) >= self._most_waiting:
                raise BusyError(
                    f"{len(self._line):,} requests wait for a model already.", hint="Try again in a moment."
                )
            self._line.append(ticket)
            try:
                while True:
                    if self._closed:
                        raise BusyError("Quinze is shutting down.", hint="Start it again.")
                    if cancel is not None and cancel.is_set():
                        raise BusyError("The request was cancelled while it waited.")
                    held = self._place(path, stamp) if self._line[0] is ticket else None
                    if held is not None:
                        held.users += 1
                        self._users += 1
                        return held
                    self._changed.wait(_LOOK_AGAIN if cancel is not None else None)
            finally:
                self._line.remove(ticket)
                self._changed.notify_all()

    def _is_free(self) -> bool:
        return not self._line and self._users < self._most_users

    def _place(self, path: Path, stamp: Any) -> _Held[T] | None:
        """Whom we may join or load now; None: not yet."""
        if self._users >= self._most_users:
            return None
        held = self._held.get(path)
        if held is not None and held.stamp != stamp and held.thing is not None:
            if held.users:
                return None
            self._drop(path, held)
            held = None
        if held is not None:
            # While somebody else loads it, we wait: loading it twice would take the memory of two.
            return held if held.thing is not None else None
        idle = sorted((h.last_used, str(p), p) for p, h in self._held.items() if not h.users)
        while len(self._held) >= self._most_loaded:
            if not idle:
                return None
            oldest = idle.pop(0)[2]
            self._drop(oldest, self._held[oldest])
        return self._held.setdefault(path, _Held(stamp))

    def _bring(self, path: Path, held: _Held[T]) -> None:
        try:
            thing = self._load(path)
        except BaseException:
            with self._changed:
                self._held.pop(path, None)
            raise
        with self._changed:
            held.thing = thing
            if self._unload_after and self._janitor is None:
                self._janitor = threading.Thread(target=self._tidy, name="quinze-unload", daemon=True)
                self._janitor.start()
            self._changed.notify_all()

    def _drop(self, path: Path, held: _Held[T]) -> None:
        if self._held.get(path) is held:
            del self._held[path]
        if held.thing is not None:
            held.thing.close()
            held.thing = None

    def _tidy(self) -> None:
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                due = [
                    (held.last_used + self._unload_after, path, held)
                    for path, held in self._held.items()
                    if not held.users
                ]
                for when, path, held in due:
                    if when <= now:
                        self._drop(path, held)
                        self._changed.notify_all()
                rest = [when - now for when, _, _ in due if when > now]
                self._changed.wait(min([*rest, self._unload_after]))
