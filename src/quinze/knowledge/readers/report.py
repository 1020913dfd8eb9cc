"""What a reader is given beside the file: its limits, and an ear for progress and warnings.

A reader runs in a child process. `page` and `tick` tell the parent that it is alive; what it leaves out it
says through `warn`, and the person sees it beside the document.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

MIB = 1 << 20
TICK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost before its reading is given up."""

    seconds: float = 1800.0
    """In all. A book of five hundred scanned pages takes about twenty minutes on two cores."""
    idle_seconds: float = 120.0
    """Without a sign of progress."""
    memory: int = 2048 * MIB
    """Resident bytes of the child process."""
    file_bytes: int = 1024 * MIB
    """Larger files are refused unread."""
    part_bytes: int = 128 * MIB
    """Unpacked size of one member of an Office file, a book or an archive."""
    text_chars: int = 20_000_000
    """Text of one document; what goes beyond is left out, with a warning."""


DEFAULT_LIMITS = Limits()


class Report:
    """A reader's voice. `name` is what the person calls the file, `format` what `detect` found it to be."""

    def __init__(
        self,
        name: str,
        format: str = "",  # noqa: A002 -- Document.format has this name too
        limits: Limits = DEFAULT_LIMITS,
        send: Callable[[int, int | None], None] | None = None,
    ) -> None:
        self.name = name
        self.format = format
        self.limits = limits
        self.warnings: list[str] = []
        self._send = send
        self._at: tuple[int, int | None] = (0, None)
        self._ticked = 0.0

    def page(self, page: int, pages: int | None) -> None:
        """Page (slide, sheet, chapter) number `page` of `pages` is being read."""
        self._at = (page, pages)
        self._ticked = time.monotonic()
        if self._send is not None:
            self._send(page, pages)

    def tick(self) -> None:
        """Still alive, within a page or in a format that has none. Cheap enough for every paragraph."""
        if time.monotonic() - self._ticked > TICK_SECONDS:
            self.page(*self._at)

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)
