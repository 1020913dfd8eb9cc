"""Speculation without a second model: what followed the last few ids when they stood here before?

Answers that quote their passages repeat them word for word. Saxena 2023, "Prompt lookup decoding": the last
ids are looked up in the prompt and the reply, and what followed is guessed to follow again. The decoder
checks all guesses in one pass (csrc/step.h), so that the tokens are those that would have come anyway.

    lookup = PromptLookup(ids)          one sequence
    pace = Pace()                       the machine: what a pass over so many ids costs
    guesses = lookup.guess(pace)

How many are guessed is what pays: the odds that a guess is right are learned from all of them, tried or not,
and what a longer pass costs is measured.
"""

from __future__ import annotations

from collections.abc import Sequence

from quinze.engine.pace import Pace

LENGTHS = (1, 2, 3, 5, 7, 11)
"""Guesses that may be tried at once. With the id before them they fill the four rows of a product."""
GRAM = 3
"""Ids that must have stood there before."""
_RUNS = (0, 1, 4)
_FIRST_ODDS, _LEARNING = (0.3, 0.7, 0.93), 0.15
"""That the next guess is right behind so many right ones: a quotation under way goes on."""
_WORTH = 1.05
"""What a guess must promise: five tokens of a hundred more."""
_REMEMBERED = 65_536
"""Ids of a prompt that are looked up; of longer ones the end."""


class PromptLookup:
    """One sequence."""

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids = list(ids[-_REMEMBERED:])
        self._after: dict[tuple[int, ...], int] = {}
        """The last ids -> where the one stands that followed them last."""
        for end in range(GRAM, len(self._ids)):
            self._after[tuple(self._ids[end - GRAM : end])] = end
        self._odds = list(_FIRST_ODDS)
        """Learned from all guesses, tried or not, for each of _RUNS."""
        self._run = 0
        """Tokens in a row that were as would have been guessed."""

    def guess(self, pace: Pace, most: int = LENGTHS[-1]) -> list[int]:
        """As many as are worth trying; often none."""
        at = self._next()
        if at is None:
            return []
        best, gain, tokens, odds, tried = 0, _WORTH, 1.0, 1.0, 0
        for count in LENGTHS:
            if count > most or at + count > len(self._ids):
                break
            for right in range(tried, count):
                odds *= self._odds[_bucket(self._run + right)]
                tokens += odds
            tried = count
            if tokens / pace.cost(count + 1) > gain:
                best, gain = count, tokens / pace.cost(count + 1)
        return self._ids[at : at + best]

    def extend(self, tokens: Sequence[int]) -> None:
        """These followed, whether they were guessed or not."""
        at = self._next()
        if at is None:
            self._run = 0
        for token in tokens:
            if at is not None:
                right = at < len(self._ids) and self._ids[at] == token
                bucket = _bucket(self._run)
                self._odds[bucket] += _LEARNING * (right - self._odds[bucket])
                self._run = self._run + 1 if right else 0
                at = at + 1 if right else None
            if len(self._ids) >= GRAM:
                self._after[tuple(self._ids[-GRAM:])] = len(self._ids)
            self._ids.append(token)

    def _next(self) -> int | None:
        return self._after.get(tuple(self._ids[-GRAM:]))


def _bucket(run: int) -> int:
    return sum(run >= least for least in _RUNS) - 1
