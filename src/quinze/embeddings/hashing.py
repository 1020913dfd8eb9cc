"""The hashing embedder: texts -> vectors with nothing to download and nothing learned.

A text is cut into features: of Latin and other spaced scripts, each word and its pieces of three to five
characters; of Chinese, Japanese and Korean, each character and each pair. A feature is hashed to one of 512
places with a sign, its weight is sublinear in how often it occurs, and the vector is brought to length 1.
Alike spellings get alike vectors, so a typing slip does not hide a passage; synonyms stay apart, which only a
trained embedder can mend.

The whole batch is computed at once by numpy on code points: no loop over characters, and the same bits on
every machine. Raising `VERSION` is needed for any change to the numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from quinze.embeddings.embedder import Vectors
from quinze.embeddings.folding import CJK, fold
from quinze.embeddings.function_words import FUNCTION_CHARACTERS, FUNCTION_WORDS

VERSION = 1
DIMENSIONS = 512
BATCH_CHARACTERS = 1 << 16
"""Characters worked on at once: the arrays stay within the processor's cache."""

_WORDS = re.compile(rf"[{CJK}]+|[^\W{CJK}]+")
_IS_CJK = re.compile(f"[{CJK}]")

WORD, PAIR, SINGLE = 1.0, 1.0, 0.5
PIECES = {3: 0.35, 4: 0.35, 5: 0.25}
"""Weight of a word's pieces by their length, the boundary signs counted."""
FUNCTION_WORD = 0.1
"""Words without a meaning of their own count this much."""

UInt = npt.NDArray[np.uint64]


class HashingEmbedder:
    """Immutable, needs no memory worth naming, and may be shared by threads."""

    id = f"hashing-v{VERSION}-{DIMENSIONS}"
    source = "hashing"
    matryoshka = False
    dimensions = DIMENSIONS

    def __init__(self) -> None:
        words = _Words(sorted(FUNCTION_WORDS), [0] * len(FUNCTION_WORDS))
        self._function_words = np.sort(words.hashes)
        self._function_characters = np.array(sorted(map(ord, FUNCTION_CHARACTERS)), np.uint64)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """(len(texts), 512). A text without a letter or a digit has the zero vector."""
        out = np.zeros((len(texts), DIMENSIONS), np.float32)
        begin, room = 0, BATCH_CHARACTERS
        for end, text in enumerate(texts, 1):
            room -= len(text)
            if room <= 0 or end == len(texts):
                self._embed_batch(texts[begin:end], out[begin:end])
                begin, room = end, BATCH_CHARACTERS
        return out

    embed_queries = embed

    def count_tokens(self, text: str) -> int:
        """Words, and the single characters of scripts without spaces."""
        return sum(len(w) if _IS_CJK.match(w) else 1 for w in _WORDS.findall(fold(text)))

    def _embed_batch(self, texts: Sequence[str], out: Vectors) -> None:
        latin: list[str] = []
        latin_rows: list[int] = []
        han: list[str] = []
        han_rows: list[int] = []
        for row, text in enumerate(texts):
            for word in _WORDS.findall(fold(text)):
                if _IS_CJK.match(word):
                    han.append(word)
                    han_rows.append(row)
                else:
                    latin.append(word)
                    latin_rows.append(row)
        features = [*self._latin(latin, latin_rows), *self._han(han, han_rows)]
        if features:
            rows, hashes, weights = (np.concatenate(part) for part in zip(*features, strict=True))
            _add_features(rows, hashes, weights, out)

    def _latin(self, words: list[str], rows: list[int]) -> list[tuple[UInt, UInt, Vectors]]:
        if not words:
            return []
        marked = _Words(words, rows)
        importance = np.where(np.isin(marked.hashes, self._function_words), FUNCTION_WORD, 1.0).astype(
            np.float32
        )
        found = [(marked.rows, marked.hashes, importance * np.float32(WORD))]
        for length, weight in PIECES.items():
            at = marked.windows(length)
            hashes = _mix(marked.gram(at, length) + np.uint64(length))
            word = marked.word_of[at]
            share = importance[word] * np.float32(weight)
            found.append((marked.rows[word], hashes, share))
        return found

    def _han(self, runs: list[str], rows: list[int]) -> list[tuple[UInt, UInt, Vectors]]:
        if not runs:
            return []
        codes = _codes("".join(runs))
        lengths = np.array([len(run) for run in runs])
        row = np.repeat(np.array(rows, np.uint64), lengths)
        run = np.repeat(np.arange(len(runs)), lengths)
        empty = np.isin(codes, self._function_characters)
        importance = np.where(empty, FUNCTION_WORD, 1.0).astype(np.float32)
        pair = np.flatnonzero(run[:-1] == run[1:])
        pair_weight = importance[pair] * importance[pair + 1] * np.float32(PAIR)
        return [
            (row, _mix(codes + np.uint64(0x1_0000_0000)), importance * np.float32(SINGLE)),
            (row[pair], _mix(_mix(codes[pair]) + codes[pair + 1]), pair_weight),
        ]


class _Words:
    """Words laid end to end as code points, each between boundary signs, with the hash of each."""

    def __init__(self, words: list[str], rows: Sequence[int]) -> None:
        lengths = np.array([len(word) + 2 for word in words])
        self.codes = _codes("^" + "$^".join(words) + "$")  # (N,)
        self.rows = np.array(rows, np.uint64)  # (W,)
        self.word_of = np.repeat(np.arange(len(words)), lengths)  # (N,)
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        position = (np.arange(len(self.codes)) - np.repeat(starts, lengths)).astype(np.uint64)
        # The sum of what each character is at its position: order matters, and one reduceat does all words.
        self.hashes: UInt = _mix(np.add.reduceat(_mix(self.codes + (position << np.uint64(32))), starts))

    def windows(self, length: int) -> npt.NDArray[np.intp]:
        """Where a piece of `length` characters begins and stays within its word."""
        if len(self.codes) < length:
            return np.empty(0, np.intp)
        return np.flatnonzero(self.word_of[: len(self.codes) - length + 1] == self.word_of[length - 1 :])

    def gram(self, at: npt.NDArray[np.intp], length: int) -> UInt:
        total = np.zeros(len(at), np.uint64)
        for offset in range(length):
            total = total * np.uint64(0x100_0000_01B3) + self.codes[at + offset]
        return total


def _add_features(rows: UInt, hashes: UInt, weights: Vectors, out: Vectors) -> None:
    """Count equal features of a row, damp the counts, and add each to its place of the row's vector."""
    keys = (rows << np.uint64(40)) | (hashes >> np.uint64(24))
    order = np.argsort(keys, kind="stable")
    keys, weights = keys[order], weights[order]
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    counts = np.diff(np.append(first, len(keys)))
    keys = keys[first]
    values = weights[first] * (1.0 + np.log(counts))
    values *= np.where(keys & np.uint64(1 << 20), 1.0, -1.0)
    # Rows are few enough that row * 512 + place indexes the flattened output.
    place = ((keys >> np.uint64(40)) * np.uint64(DIMENSIONS) + (keys & np.uint64(DIMENSIONS - 1))).astype(
        np.intp
    )
    summed = np.bincount(place, weights=values, minlength=out.size).reshape(out.shape)
    norms = np.sqrt((summed * summed).sum(axis=1, keepdims=True))
    np.divide(summed, norms, out=out, where=norms > 0, casting="same_kind")


def _codes(text: str) -> UInt:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)


def _mix(x: UInt) -> UInt:
    """A well stirred 64-bit number from another (the finalizer of SplitMix64); overflow is meant."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
