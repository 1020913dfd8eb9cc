"""Turns: one computes at a time, in the order in which they came.

Knows nothing of models. A plain lock would let whoever just released it take it again, and a second request
would wait for the whole of the first.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

POLL_SECONDS = 0.05


class Turns:
    """A fair lock whose waiters can give up."""

    def __init__(self) -> None:
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def turn(self, cancelled: Callable[[], bool] = lambda: False) -> Iterator[bool]:
        """Waits for its turn; yields False, without one, if `cancelled()` says yes before it comes."""
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
        try:
            yield self._wait(ticket, cancelled)
        finally:
            with self._changed:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def _wait(self, ticket: object, cancelled: Callable[[], bool]) -> bool:
        with self._changed:
            while self._queue[0] is not ticket:
                if cancelled():
                    return False
                self._changed.wait(POLL_SECONDS)
        return not cancelled()
