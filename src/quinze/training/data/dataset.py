"""Prepared data, memory-mapped: rows by number.

text        {split}.tokens.bin     one stream of tokens; row i is a window of T + 1 of them
chat,       {split}.tokens.bin     conversations one after the other
preference  {split}.trained.bin    (tokens,) uint8: 1 where the token is learned
            {split}.starts.npy     (conversations + 1,) where each begins
            {split}.rows.npy       (rows + 1,) which conversations each row holds, in order
token_bytes.npy                    (V,) UTF-8 bytes of each token, 0 for special ones
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quinze.errors import FileFormatError, InvalidRequestError
from quinze.training.batch import IGNORE, Row
from quinze.training.data.manifest import Manifest, file_sha256, read_manifest


class TokenData:
    """One folder of prepared data. Safe to share between threads; holds nothing in memory but maps."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self.token_bytes: npt.NDArray[np.int32] = np.load(folder / "token_bytes.npy", allow_pickle=False)
        """(V,) bytes of text of each token: nats / bytes of the labels / ln 2 are exact bits per byte."""
        self._splits = {name: _Split(folder, name, manifest) for name in manifest.splits}

    @classmethod
    def open(cls, folder: Path, *, verify: bool = False) -> TokenData:
        """`verify`: read every file and compare it with the manifest's sha256 (1 to 2 seconds a gigabyte)."""
        manifest = read_manifest(folder)
        for name, sha256 in manifest.files.items():
            path = folder / name
            if not path.is_file() or (verify and file_sha256(path) != sha256):
                raise FileFormatError(
                    f"{path} is missing or not what was written.", hint="Prepare the data again."
                )
        return cls(folder, manifest)

    def rows(self, split: str) -> int:
        return self._split(split).rows

    def row(self, split: str, i: int, shift: int = 0) -> Row:
        """Row i. `shift`: of text, so many tokens further on, as later epochs read it."""
        part = self._split(split)
        if not 0 <= i < part.rows:
            raise InvalidRequestError(f"There is no row {i:,}: {split!r} has {part.rows:,} rows.")
        return part.text(i, shift) if self.manifest.kind == "text" else part.packed(i)

    def stack(
        self, split: str, rows: npt.NDArray[np.int64], shifts: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int32] | None]:
        """ids, labels and segments (B, T) of several rows at once."""
        part = self._split(split)
        if self.manifest.kind == "text" and not part.isolate:
            windows = part.windows(rows, shifts)
            return windows[:, :-1], windows[:, 1:], None
        read = [self.row(split, int(row), int(shift)) for row, shift in zip(rows, shifts, strict=True)]
        segments = [row.segments for row in read if row.segments is not None]
        return (
            np.stack([row.ids for row in read]),
            np.stack([row.labels for row in read]),
            np.stack(segments) if segments else None,
        )

    def documents(self, split: str, i: int) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]]:
        """The parts of row i that see only themselves: ids (L,), and which of them are learned (L,)."""
        part = self._split(split)
        if self.manifest.kind != "text":
            return part.members_of(i)
        row = self.row(split, i)
        ids = np.append(row.ids, part.windows(np.array([i]), np.array([0]))[0, -1:])
        trained = np.append(False, row.labels != IGNORE)
        if row.segments is None:
            return [(ids, trained)]
        borders = np.flatnonzero(np.diff(row.segments)) + 1
        return list(zip(np.split(ids, borders), np.split(trained, borders), strict=True))

    def tokens(self, split: str) -> npt.NDArray[np.uint16] | npt.NDArray[np.uint32]:
        """All tokens of a split, mapped: for counts of pairs, floors and the like."""
        return self._split(split).tokens

    def _split(self, name: str) -> _Split:
        if name not in self._splits:
            raise InvalidRequestError(
                f"There is no split {name!r}; there are {', '.join(sorted(self._splits))}.", param="split"
            )
        return self._splits[name]


class _Split:
    def __init__(self, folder: Path, name: str, manifest: Manifest) -> None:
        self.length, self.eos, self.pad = manifest.sequence_length, manifest.eos_id, manifest.pad_id
        self.rows, self.isolate = manifest.splits[name].rows, manifest.settings.isolate_documents
        dtype = np.uint16 if manifest.dtype == "uint16" else np.uint32
        self.tokens = _mapped(folder / f"{name}.tokens.bin", np.dtype(dtype))
        if len(self.tokens) != manifest.splits[name].tokens:
            raise FileFormatError(
                f"{name}.tokens.bin holds {len(self.tokens):,} tokens; the manifest says "
                f"{manifest.splits[name].tokens:,}.",
                hint="Prepare the data again.",
            )
        if manifest.kind != "text":
            self.trained = _mapped(folder / f"{name}.trained.bin", np.dtype(np.uint8))
            self.starts = np.load(folder / f"{name}.starts.npy", allow_pickle=False)
            self.members = np.load(folder / f"{name}.rows.npy", allow_pickle=False)

    def windows(self, rows: npt.NDArray[np.int64], shifts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """(B, T + 1) of a text; the last window of a shifted epoch ends where the text ends."""
        starts = np.minimum(rows * self.length + shifts, len(self.tokens) - 1 - self.length)
        return np.asarray(self.tokens[starts[:, None] + np.arange(self.length + 1)], np.int64)

    def text(self, i: int, shift: int) -> Row:
        window = self.windows(np.array([i]), np.array([shift]))[0]
        segments = None
        if self.isolate and self.eos is not None:
            segments = np.zeros(self.length, np.int32)
            np.cumsum(window[: self.length - 1] == self.eos, out=segments[1:])
        labels = window[1:].copy()
        if segments is not None:
            # What follows an end is another document's first token, which nothing tells.
            labels[window[:-1] == self.eos] = IGNORE
        return Row(window[:-1].copy(), labels, segments)

    def members_of(self, i: int) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]]:
        found = []
        for which in range(self.members[i], self.members[i + 1]):
            start, end = int(self.starts[which]), int(self.starts[which + 1])
            trained = self.trained[start:end] == 1
            trained[0] = False  # nothing tells a first token
            found.append((self.tokens[start:end].astype(np.int64), trained))
        return found

    def packed(self, i: int) -> Row:
        """Conversations of one row; each of L tokens takes L - 1 places, padding is a segment of its own."""
        ids = np.full(self.length, self.pad, np.int64)
        labels = np.full(self.length, IGNORE, np.int64)
        segments = np.zeros(self.length, np.int32)
        at = segment = 0
        for which in range(self.members[i], self.members[i + 1]):
            start, end = int(self.starts[which]), int(self.starts[which + 1])
            tokens = self.tokens[start:end].astype(np.int64)
            stop = at + len(tokens) - 1
            ids[at:stop] = tokens[:-1]
            labels[at:stop] = np.where(self.trained[start + 1 : end] == 1, tokens[1:], IGNORE)
            segments[at:stop] = segment
            at, segment = stop, segment + 1
        segments[at:] = segment
        return Row(ids, labels, segments)


def _mapped(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.empty(0, dtype)
