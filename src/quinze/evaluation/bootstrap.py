"""How far a mean may be off, by drawing the same examples again (Efron 1979)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quinze.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the band in which it lies with the given confidence."""

    mean: float
    low: float
    high: float


def standard_error(values: Sequence[float]) -> tuple[float, float]:
    """(mean, its standard error s / sqrt(n)). 0 for one value."""
    array = np.asarray(values, np.float64)
    if len(array) < 2:
        return float(array.mean()), 0.0
    return float(array.mean()), float(array.std(ddof=1) / math.sqrt(len(array)))


def interval(
    values: Sequence[float], *, confidence: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """Percentile bootstrap of the mean. `values` (N,): one number an example, 0 or 1 of a choice.

    Raises InvalidRequestError when there is nothing to draw from.
    """
    return _interval(np.asarray(values, np.float64), confidence, draws, seed)


def paired_interval(
    a: Sequence[float], b: Sequence[float], *, confidence: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """Of mean(a) - mean(b) over the same examples: drawn in pairs, so what is hard for both cancels out.

    If the band holds no 0, one of the two is better as far as these examples can tell.
    """
    if len(a) != len(b):
        raise InvalidRequestError(f"{len(a):,} and {len(b):,} values are no pairs.", param="b")
    return _interval(np.asarray(a, np.float64) - np.asarray(b, np.float64), confidence, draws, seed)


def _interval(array: np.ndarray, confidence: float, draws: int, seed: int) -> Interval:
    if not len(array):
        raise InvalidRequestError("There are no values to take the mean of.")
    rng = np.random.default_rng(seed)
    # In blocks, for N examples times 2000 draws need not fit into memory at once.
    block = max(1, min(draws, 4_000_000 // len(array)))
    means: list[np.ndarray] = []
    for start in range(0, draws, block):
        drawn = rng.integers(0, len(array), (min(block, draws - start), len(array)))
        means.append(array[drawn].mean(1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Interval(float(array.mean()), float(low), float(high))
