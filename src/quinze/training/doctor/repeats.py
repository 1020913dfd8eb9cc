"""Which passages occur twice: hashes of all windows of n tokens, one in eight of them kept.

The choice depends on the hash alone, so the same passage is chosen wherever it stands, also where rows cut
the text elsewhere (Schleimer, Wilkerson & Aiken 2003 call this sampling by 0 mod p).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from quinze.training.batch import Batch
from quinze.training.doctor.look import learned

Hashes = npt.NDArray[np.uint64]

PASSAGE_BYTES = 50
"""A passage that long does not return by chance."""
ONE_IN = 8
_BASE = 0x9E3779B97F4A7C15


def passage_length(bytes_per_token: float | None, vocab_size: int) -> int:
    """Tokens of a window, a power of two: about PASSAGE_BYTES, 16 at least (GPT-3 took 13 words).

    Where nobody knows how much a token stands for, a small vocabulary is taken for one of characters.
    """
    wanted = PASSAGE_BYTES / (bytes_per_token or (1.0 if vocab_size < 1024 else 3.0))
    return int(max(16, 2 ** np.ceil(np.log2(wanted))))


def text_passages(batches: Sequence[Batch], length: int) -> Hashes:
    """Hashes of the chosen windows of running text: rows are put back side by side as they were cut, for two
    cuts of the same passage may share no whole window."""
    if not batches:
        return np.empty(0, np.uint64)
    rows = np.concatenate([batch.rows for batch in batches])
    ids = np.concatenate([batch.ids for batch in batches])[np.argsort(rows, kind="stable")]
    stream = ids.reshape(1, -1).astype(np.uint64)
    if stream.shape[1] < length:
        return np.empty(0, np.uint64)
    hashes = _rolling(stream, length)
    found: Hashes = hashes[_mixed(hashes) % np.uint64(ONE_IN) == 0]
    return found


def learned_passages(batches: Sequence[Batch], length: int) -> Hashes:
    """The same of chats, row by row and only where all is learned: questions and system prompts repeat by
    nature."""
    parts = [np.empty(0, np.uint64)]
    for batch in batches:
        if batch.ids.shape[1] < length:
            continue
        hashes = _rolling(batch.ids.astype(np.uint64), length)  # (B, T - length + 1)
        ends = slice(length - 1, None)
        kept = _mixed(hashes) % np.uint64(ONE_IN) == 0
        if batch.segments is not None:
            kept &= batch.segments[:, : hashes.shape[1]] == batch.segments[:, ends]
        inside = np.cumsum(learned(batch), 1)
        kept &= inside[:, ends] - inside[:, : hashes.shape[1]] >= length - 1
        parts.append(hashes[kept])
    return np.concatenate(parts)


def share_repeated(found: Hashes) -> float:
    """Of the windows, how many are not the first of their kind."""
    return 1 - len(np.unique(found)) / len(found) if len(found) else 0.0


def share_known(found: Hashes, known: Hashes) -> float:
    """Of the windows, how many are among the known ones."""
    return float(np.isin(found, np.unique(known)).mean()) if len(found) else 0.0


def _rolling(ids: Hashes, length: int) -> Hashes:
    """(B, T) -> (B, T - length + 1), polynomials modulo 2^64 by doubling; length is a power of two."""
    hashes, power, width = ids + np.uint64(1), _BASE, 1
    while width < length:
        hashes = hashes[:, :-width] * np.uint64(power) + hashes[:, width:]
        power = power * power % 2**64
        width *= 2
    return hashes


def _mixed(hashes: Hashes) -> Hashes:
    """Low bits of a polynomial say little; SplitMix64's last steps spread them."""
    mixed = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return mixed ^ (mixed >> np.uint64(27))
