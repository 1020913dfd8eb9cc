"""What a text is made of, as numbers: words, and runs of words, for finding copies of whatever length.

A word is a run of letters and digits, without case; a Chinese character is half a word, since most Chinese
words are two of them. Runs are hashed by polynomials modulo 2^64 with prefix sums, so a text of any length
is a handful of numpy passes. Nothing here depends on Python's own hash, which changes with every start.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
_BASE = 0x9E3779B97F4A7C15 | 1
_INVERSE = pow(_BASE, -1, 2**64)


def mixed(x: Words) -> Words:
    """SplitMix64's finalizer: every bit of x changes half of the result's."""
    z = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@functools.cache
def _kinds() -> npt.NDArray[np.uint8]:
    """Of every code point: 0 no letter, 1 of a word, 2 a word of its own (Han, kana)."""
    kinds = np.fromiter((chr(code).isalnum() for code in range(0x20000)), np.uint8, 0x20000)
    for first, last in ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF)):
        kinds[first : last + 1] *= 2
    return kinds


@functools.lru_cache(maxsize=2)
def _powers(size: int) -> tuple[Words, Words]:
    """base^i and base^-i of i < size, modulo 2^64."""
    both = []
    for base in (_BASE, _INVERSE):
        factors = np.full(size, base, np.uint64)
        factors[:1] = 1
        both.append(np.multiply.accumulate(factors))
    return both[0], both[1]


def _spans(values: Words, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> Words:
    """The hash of values[start:end] for each pair."""
    size = 1 << max(10, len(values).bit_length())
    powers, inverses = _powers(size)
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * powers[: len(values)], out=sums[1:])
    return mixed((sums[ends] - sums[starts]) * inverses[starts])


def words(text: str) -> tuple[Words, npt.NDArray[np.int64]]:
    """Each word's hash (n,), and its weight (n,): 2, or 1 for a Chinese character."""
    codes = np.frombuffer(text.lower().encode("utf-32-le", "replace"), np.uint32)
    kinds = _kinds()[np.minimum(codes, 0x1FFFF)]
    kinds[codes >= 0x20000] = 2  # rare Han
    before = np.concatenate([[np.uint8(0)], kinds[:-1]])
    after = np.concatenate([kinds[1:], [np.uint8(0)]])
    starts = np.flatnonzero((kinds == 2) | ((kinds == 1) & (before != 1)))
    ends = np.flatnonzero((kinds == 2) | ((kinds == 1) & (after != 1))) + 1
    weights = np.where(kinds[starts] == 2, 1, 2).astype(np.int64)
    return _spans(codes.astype(np.uint64) + np.uint64(1), starts, ends), weights


def grams(text: str, size: int) -> Words:
    """The hashes of all runs of `size` words (of 2 x `size` Chinese characters) as they come; of a shorter
    text the one run that it is."""
    hashes, weights = words(text)
    if not len(hashes):
        return np.empty(0, np.uint64)
    reached = np.concatenate([[0], np.cumsum(weights)])
    ends = np.searchsorted(reached, reached[:-1] + 2 * size)
    starts = np.flatnonzero(ends < len(reached))
    if not len(starts):
        return _spans(hashes, np.array([0]), np.array([len(hashes)]))
    return _spans(hashes, starts, ends[starts])
