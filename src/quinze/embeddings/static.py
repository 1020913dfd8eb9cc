"""A static embedder: each piece of a word has one learned vector, and a text is the mean of its pieces.

A look-up and a sum: no layer is computed, so a processor embeds tens of thousands of short texts a second.
Quinze's own starter is one (recipes/starter/embedder made it). Its folder holds

    tokenizer.json  folded text -> pieces; piece 0 stands for whatever is unknown, and counts nothing
    vectors.npy     (V, D) int8; the first D/2 and D/4 numbers are embeddings by themselves (Matryoshka)
    scales.npy      (V,) float16; a piece's vector is its row times this: what says little is short
    card.json       its id, what it was trained on and how well it does

V pieces, D dimensions, N texts.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers

from quinze.embeddings.embedder import Vectors
from quinze.embeddings.folding import fold
from quinze.errors import FileFormatError
from quinze.formats.json_file import read_json

MOST_PIECES = 2**20
MOST_DIMENSIONS = 4096
BATCH_PIECES = 1 << 15
"""Rows summed at once: their numbers stay within the processor's cache."""

_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half a character, as broken files have: it is none, and the tokenizer cannot read it."""


class StaticEmbedder:
    """Immutable, and may be shared by threads. The vectors stay in their mapped file."""

    matryoshka = True

    def __init__(self, folder: Path) -> None:
        """Raises FileFormatError where a file is missing, broken or does not fit the others."""
        card = read_json(folder / "card.json")
        self._tokenizer = _tokenizer(folder / "tokenizer.json")
        self._vectors = _array(folder / "vectors.npy", np.dtype(np.int8), 2)
        self._scales = _array(folder / "scales.npy", np.dtype("<f2"), 1).astype(np.float32)
        pieces, self.dimensions = self._vectors.shape
        if not 0 < pieces <= MOST_PIECES or not 0 < self.dimensions <= MOST_DIMENSIONS:
            raise FileFormatError(f"{folder} holds {pieces} x {self.dimensions} vectors.")
        if self._scales.shape != (pieces,) or self._tokenizer.get_vocab_size() != pieces:
            raise FileFormatError(
                f"The parts of {folder} do not belong together: {self._tokenizer.get_vocab_size()} pieces, "
                f"{pieces} vectors, {len(self._scales)} scales.",
                hint="Get the whole folder again.",
            )
        if not np.isfinite(self._scales).all():
            raise FileFormatError(f"{folder / 'scales.npy'} holds numbers that are none.")
        self.id = str(card.get("id", folder.name))[:80]
        self.source = str(folder.absolute())

    def embed(self, texts: Sequence[str]) -> Vectors:
        """(N, D) float32 of length 1; zero where a text holds no piece that is known."""
        out = np.zeros((len(texts), self.dimensions), np.float32)
        pieces, borders = self._pieces(texts)
        begin = 0
        while begin < len(texts):
            end = int(np.searchsorted(borders, borders[begin] + BATCH_PIECES, side="right")) - 1
            end = min(max(end, begin + 1), len(texts))
            self._sum(pieces[borders[begin] : borders[end]], borders[begin : end + 1], out[begin:end])
            begin = end
        return out

    embed_queries = embed

    def count_tokens(self, text: str) -> int:
        return len(self._pieces([text])[0])

    def _pieces(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """The known pieces of all texts, end to end; and (N + 1,) where each text's begin."""
        folded = [_SURROGATE.sub(" ", fold(text)) for text in texts]
        found = [e.ids for e in self._tokenizer.encode_batch_fast(folded, add_special_tokens=False)]
        pieces = np.fromiter(itertools.chain.from_iterable(found), np.intp)
        known = np.concatenate([[0], np.cumsum(pieces > 0)])
        borders = known[np.concatenate([[0], np.cumsum([len(ids) for ids in found], dtype=np.intp)])]
        return pieces[pieces > 0], borders

    def _sum(self, pieces: npt.NDArray[np.intp], borders: npt.NDArray[np.intp], out: Vectors) -> None:
        full = np.flatnonzero(np.diff(borders))
        if not len(full):
            return
        weighted = self._vectors[pieces] * self._scales[pieces, None]
        sums = np.add.reduceat(weighted, borders[full] - borders[0], axis=0)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        out[full] = np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0)


def _tokenizer(path: Path) -> tokenizers.Tokenizer:
    try:
        made = tokenizers.Tokenizer.from_str(path.read_text("utf-8"))
    # tokenizers raises plain Exception for whatever it cannot read.
    except Exception as error:
        raise FileFormatError(f"{path} is no tokenizer: {error}.", hint="Get the folder again.") from error
    made.no_truncation()
    made.no_padding()
    return made


def _array(path: Path, dtype: np.dtype[Any], dimensions: int) -> npt.NDArray[Any]:
    try:
        found: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FileFormatError(f"{path} cannot be read: {error}.", hint="Get the folder again.") from error
    if found.dtype != dtype or found.ndim != dimensions:
        raise FileFormatError(
            f"{path} holds {found.dtype} of {found.ndim} dimensions, not {dtype} of {dimensions}."
        )
    return found
