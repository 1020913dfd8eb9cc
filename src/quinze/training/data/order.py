"""In which order a run reads its rows: a pure function of the seed and the step.

Nothing is shuffled and nothing is remembered. Row number k of epoch e is a keyed permutation of k (a Feistel
network over the next power of four, walked until it lands within the rows), so a run resumes exactly from
its step alone, and any number of processes share an epoch without a row missing or met twice.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from quinze.errors import InvalidRequestError
from quinze.training.batch import Batch
from quinze.training.data.dataset import TokenData

ROUNDS = 6
"""Four make a Feistel network a strong permutation (Luby and Rackoff 1988); two more cost nothing here."""


def permuted(
    positions: npt.NDArray[np.int64], size: int, seed: int, epoch: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Where each position (n,) below `size` lies in its epoch's (n,) order."""
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    mask = np.uint64(2**half - 1)
    keys = [_mixed(epoch.astype(np.uint64) + _mixed(_word(seed) + _word(7919 * r))) for r in range(ROUNDS)]
    places = positions.astype(np.uint64)
    outside = np.ones(len(places), bool)
    while outside.any():
        left, right = places[outside] >> np.uint64(half), places[outside] & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right + key[outside]) & mask)
        places[outside] = left << np.uint64(half) | right
        outside = places >= np.uint64(size)
    return places.astype(np.int64)


class Batches:
    """The batches of a run.

    batch_size     rows of one micro-batch of one process; of preference data they are pairs, so it is even
    micro_batches  how many of them make a step (gradient accumulation)
    A step reads batch_size x micro_batches x world_size rows, the same ones however they are shared out.
    """

    def __init__(
        self,
        data: TokenData,
        split: str,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        micro_batches: int = 1,
    ) -> None:
        self._pair = 2 if data.manifest.kind == "preference" else 1
        if batch_size < 1 or micro_batches < 1 or not 0 <= rank < world_size or batch_size % self._pair:
            raise InvalidRequestError(
                f"A batch of {batch_size} rows, {micro_batches} a step, for process {rank} of {world_size}, "
                "cannot be.",
                hint="Rows of preference data come in pairs: an even batch." if self._pair == 2 else "",
                param="batch_size",
            )
        self._data, self._split, self._seed = data, split, seed
        self._rows = data.rows(split) // self._pair
        if not self._rows:
            raise InvalidRequestError(f"The split {split!r} has no rows.", hint="Prepare more text.")
        self._each = batch_size // self._pair
        self._shares, self._rank, self._micro = micro_batches * world_size, rank, micro_batches
        self._world = world_size

    @property
    def steps_per_epoch(self) -> float:
        return self._rows / (self._each * self._shares)

    def at(self, step: int, micro: int = 0) -> Batch:
        """The batch of a step, counted from 0, and of its part `micro`."""
        if step < 0 or not 0 <= micro < self._micro:
            raise InvalidRequestError(f"There is no part {micro} of step {step}.")
        share = micro * self._world + self._rank
        at = (step * self._shares + share) * self._each + np.arange(self._each, dtype=np.int64)
        epochs = at // self._rows
        units = permuted(at % self._rows, self._rows, self._seed, epochs)
        rows = (units[:, None] * self._pair + np.arange(self._pair)).reshape(-1)
        shifts = self._shifts(np.repeat(epochs, self._pair))
        ids, labels, segments = self._data.stack(self._split, rows, shifts)
        return Batch(ids, labels, segments, rows, epoch=int(epochs[0]))

    def _shifts(self, epochs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Later epochs cut a text at other places, so that a small corpus is met at new offsets."""
        length = np.uint64(self._data.manifest.sequence_length)
        shifts = _mixed(epochs.astype(np.uint64) + _mixed(_word(self._seed) + _word(104729))) % length
        return np.where(epochs == 0, 0, shifts.astype(np.int64))


def _word(number: int) -> npt.NDArray[np.uint64]:
    """Any integer as 64 bits."""
    return np.array([number % 2**64], np.uint64)


def _mixed(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea and Flood 2014): every bit of x changes half of the result's."""
    z = x + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
