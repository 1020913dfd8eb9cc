"""Documents that say the same: equal ones by their hash, near ones by MinHash and locality-sensitive hashing.

A signature is one permutation's hash cut into 112 bins of which each keeps its least (Li, Owen and Zhang
2012); empty bins of short texts borrow from full ones (optimal densification, Shrivastava 2017). The share
of equal entries of two signatures estimates the Jaccard similarity of their texts' shingles. Candidates are
documents with one of 14 bands of 8 entries in common, as FineWeb has it (Penedo et al. 2024); each is
checked against the first of its kind before it counts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from quinze.training.data.grams import Words, grams, mixed

BANDS, ENTRIES = 14, 8
SIZE = BANDS * ENTRIES
SHINGLE = 5
"""Words of a shingle."""
_EMPTY = np.uint32(0xFFFFFFFF)

Signature = npt.NDArray[np.uint32]


def signature(text: str) -> Signature:
    """(112,) of a text; all alike of a text without a word."""
    shingles = grams(text, SHINGLE)
    found = np.full(SIZE, _EMPTY, np.uint32)
    if not len(shingles):
        return found
    bins = (shingles >> np.uint64(32)) % np.uint64(SIZE)
    values = (shingles & np.uint64(0x7FFFFFFF)).astype(np.uint32)
    np.minimum.at(found, bins.astype(np.int64), values)
    full = found != _EMPTY
    empty = np.flatnonzero(~full)
    attempt = 0
    while len(empty):
        # The same bins ask the same ones in every text: that keeps the estimate unbiased.
        places = mixed(empty.astype(np.uint64) * np.uint64(SIZE) + np.uint64(attempt)) % np.uint64(SIZE)
        asked = places.astype(np.int64)
        answers = full[asked]
        found[empty[answers]] = found[asked[answers]]
        empty = empty[~answers]
        attempt += 1
    return found


def similarity(a: Signature, b: npt.NDArray[np.uint32]) -> npt.NDArray[np.float64]:
    """Estimated Jaccard similarity of one signature and each of b (n, 112)."""
    return np.asarray((a == b).mean(axis=-1))


def near_duplicates(signatures: npt.NDArray[np.uint32], threshold: float) -> npt.NDArray[np.int64]:
    """(n,) for each document the earlier one that it repeats, or -1 for one that stands first.

    Memory: the signatures (448 bytes a document), and one band at a time.
    """
    count = len(signatures)
    repeats = np.full(count, -1, np.int64)
    for group in _candidates(signatures):
        left = group
        while len(left) > 1:
            first, others = left[0], left[1:]
            near = similarity(signatures[first], signatures[others]) >= threshold
            alike = others[near]
            fresh = alike[repeats[alike] < 0]
            repeats[fresh] = first
            left = others[~near]
    # Chains end at the one that stays.
    for i in np.flatnonzero(repeats >= 0):
        while repeats[repeats[i]] >= 0:
            repeats[i] = repeats[repeats[i]]
    return repeats


def _candidates(signatures: npt.NDArray[np.uint32]) -> Iterator[npt.NDArray[np.int64]]:
    """Groups of documents with a band in common, each in rising order."""
    wordless = (signatures == _EMPTY).all(axis=1)
    for band in range(BANDS):
        entries = signatures[:, band * ENTRIES : (band + 1) * ENTRIES].astype(np.uint64)
        keys: Words = np.zeros(len(entries), np.uint64)
        for column in range(ENTRIES):
            keys = mixed(keys * np.uint64(31) + entries[:, column] + np.uint64(1))
        order = np.argsort(keys, kind="stable")
        order = order[~wordless[order]]
        borders = np.flatnonzero(keys[order][1:] != keys[order][:-1]) + 1
        sizes = np.diff(np.concatenate([[0], borders, [len(order)]]))
        starts = np.concatenate([[0], borders])
        for at in np.flatnonzero(sizes > 1):
            yield order[starts[at] : starts[at] + sizes[at]]
