"""Lines that stand in many documents: navigation, licences, "read more". Counted in fixed memory.

A count-min sketch (Cormode and Muthukrishnan 2005) of two rows: a count is never too low, and too high only
where two lines fall together in both.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from quinze.training.data.grams import Words, mixed

WIDTH = 2**22
AT_LEAST = 20
"""Documents with a line before it can be boilerplate."""
SHARE = 0.005
"""And this share of all documents."""


class LineCounts:
    """In how many documents each line stands."""

    def __init__(self) -> None:
        self._counts = np.zeros((2, WIDTH), np.uint32)
        self._frequent: Words = np.empty(0, np.uint64)

    def add(self, lines: Words) -> None:
        """Hashes of the different lines of some documents."""
        for row, places in enumerate(self._places(lines)):
            np.add.at(self._counts[row], places, 1)
        often = self._count(lines) >= AT_LEAST
        if often.any():
            self._frequent = np.union1d(self._frequent, lines[often])

    def boilerplate(self, documents: int) -> Words:
        """The hashes of lines that too many documents have, in order."""
        return self._frequent[self._count(self._frequent) >= max(AT_LEAST, SHARE * documents)]

    def _count(self, lines: Words) -> npt.NDArray[np.uint32]:
        first, second = self._places(lines)
        return np.asarray(np.minimum(self._counts[0][first], self._counts[1][second]))

    def _places(self, lines: Words) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        first = (lines % np.uint64(WIDTH)).astype(np.int64)
        return first, (mixed(lines) % np.uint64(WIDTH)).astype(np.int64)
