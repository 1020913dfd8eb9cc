"""Pace: what steps cost on this machine, measured as they go. How long a piece of a prompt may be, and what a
guess must promise, hang on it.

Given the sizes and seconds of steps; knows neither requests nor text.
"""

from __future__ import annotations

STEP_TOKENS = 256
"""Most tokens of a step (csrc/kernels.h)."""
STALL_SECONDS = 0.15
"""About how long a step may last when others wait for their next token: a prompt's piece is cut to it."""
SMALLEST_PIECE = 16


class Pace:
    """Used by one thread."""

    _FIRST_COST = 0.15
    """Of each further id, before anything was measured."""

    def __init__(self) -> None:
        self.prompt_rate = 0.0
        """Tokens of prompts a second."""
        self._write_seconds = 0.0
        """Of a step in which nobody reads a prompt."""
        self._one: float | None = None
        self._costs: dict[int, float] = {}

    def measured(self, seconds: float, *, prompt: int, written: list[int]) -> None:
        """A step took so long: `prompt` ids of prompts, and for each sequence that writes its ids."""
        if prompt >= SMALLEST_PIECE:
            # What those who write cost beside it is known from the steps without a prompt.
            rate = prompt / max(seconds - self._write_seconds, seconds / 4)
            self.prompt_rate += (0.3 if self.prompt_rate else 1.0) * (rate - self.prompt_rate)
        elif not prompt:
            self._write_seconds += 0.2 * (seconds - self._write_seconds)
            if len(written) == 1:
                self.wrote(written[0], seconds)

    def wrote(self, ids: int, seconds: float) -> None:
        """A step had so many ids, all of one sequence that writes."""
        if ids == 1:
            self._one = seconds if self._one is None else self._one + 0.1 * (seconds - self._one)
            for tried in self._costs:  # what was dear once is tried again in the end
                self._costs[tried] -= 0.002 * (self._costs[tried] - 1)
        elif self._one:
            cost, before = seconds / self._one, self._costs.get(ids)
            self._costs[ids] = cost if before is None else before + 0.2 * (cost - before)

    def cost(self, ids: int) -> float:
        """Of a step with so many ids of one sequence; with one it is 1."""
        known = self._costs.get(ids)
        if known is not None:
            return known
        near = min(self._costs, key=lambda n: abs(n - ids), default=None)
        if near is None:
            return 1 + self._FIRST_COST * (ids - 1)
        # Hopefully: it will be measured, and products cost less by the row the more there are.
        return 1 + 0.6 * max(0.0, self._costs[near] - 1) / (near - 1) * (ids - 1)

    def piece_tokens(self) -> int:
        """How many tokens of prompts fit beside those who write."""
        most = int(self.prompt_rate * STALL_SECONDS) // SMALLEST_PIECE * SMALLEST_PIECE
        return max(SMALLEST_PIECE, min(STEP_TOKENS, most))
