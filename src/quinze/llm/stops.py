"""Stop strings: text is held back only while it could still become one.

Given pieces of text; returns what may be shown. A stop string in several pieces never shows its beginning.
"""

from __future__ import annotations

from collections.abc import Sequence

from quinze.errors import InvalidRequestError

MAX_STOPS, MAX_LENGTH = 64, 1024


class Stops:
    """Watches one reply."""

    def __init__(self, stops: Sequence[str]) -> None:
        listed = [stops] if isinstance(stops, str) else list(stops)
        fine = all(isinstance(stop, str) and 0 < len(stop) <= MAX_LENGTH for stop in listed)
        if len(listed) > MAX_STOPS or not fine:
            raise InvalidRequestError(
                f"stop must hold at most {MAX_STOPS} texts of 1 to {MAX_LENGTH:,} characters.", param="stop"
            )
        self._stops = listed
        self._held = ""
        self.hit: str | None = None
        """The stop string that has come; nothing after it is shown."""

    def push(self, text: str) -> str:
        """What may be shown now."""
        if self.hit:
            return ""
        text = self._held + text
        found = [(at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            at, self.hit = min(found)
            self._held = ""
            return text[:at]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back and became no stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How many letters at the end of the text begin the stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
