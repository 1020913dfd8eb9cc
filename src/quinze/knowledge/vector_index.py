"""Exact vector search: every vector is compared, in memory, by one product of matrix and vector.

The vectors live in the store; this is their copy, brought up to date by `refresh` when the store's version
has changed: what is new is read, what is gone is masked, and the rows are packed again when a quarter of them
is dead. Knows nothing of texts.
"""

from __future__ import annotations

import threading
from typing import Protocol

import numpy as np
import numpy.typing as npt

from quinze.embeddings.embedder import Vectors

READ_AT_ONCE = 4096
MOST_DEAD = 0.25

Ids = npt.NDArray[np.int64]


class VectorSource(Protocol):
    """What the index asks of the store."""

    def version(self) -> int: ...

    def chunk_runs(self) -> dict[int, tuple[int, int]]: ...

    def vectors(self, first: int, count: int, dimensions: int) -> tuple[Ids, Vectors]: ...


class VectorIndex:
    """N rows of `dimensions` numbers, of which `alive` ones are searched. May be shared by threads."""

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._lock = threading.Lock()
        self._version: int | None = None
        self._runs: dict[int, tuple[int, int]] = {}
        self._size = 0
        self._ids: Ids = np.empty(0, np.int64)
        self._vectors: Vectors = np.empty((0, dimensions), np.float32)
        self._alive: npt.NDArray[np.bool_] = np.empty(0, np.bool_)

    def __len__(self) -> int:
        return int(np.count_nonzero(self._alive[: self._size]))

    def refresh(self, source: VectorSource) -> bool:
        """Bring the copy up to date; True when anything had changed."""
        with self._lock:
            # The version is asked first: what is written after it is found the next time.
            version = source.version()
            if version == self._version:
                return False
            runs = source.chunk_runs()
            for document, run in self._runs.items():
                if runs.get(document) != run:
                    self._kill(run)
            for document, run in sorted(runs.items(), key=lambda item: item[1]):
                if self._runs.get(document) != run:
                    self._load(source, run)
            self._runs = runs
            self._pack()
            self._version = version
            return True

    def scores(self, query: Vectors) -> tuple[Ids, Vectors]:
        """The ids of all live rows, ascending, and their dot products with `query` (dimensions,)."""
        with self._lock:
            products = self._vectors[: self._size] @ query  # (N,)
            alive = self._alive[: self._size]
            if alive.all():
                return self._ids[: self._size].copy(), products
            return self._ids[: self._size][alive], products[alive]

    def _load(self, source: VectorSource, run: tuple[int, int]) -> None:
        first, count = run
        for start in range(first, first + count, READ_AT_ONCE):
            ids, vectors = source.vectors(start, min(READ_AT_ONCE, first + count - start), self.dimensions)
            self._grow(len(ids))
            end = self._size + len(ids)
            self._ids[self._size : end] = ids
            self._vectors[self._size : end] = vectors
            self._alive[self._size : end] = True
            self._size = end

    def _kill(self, run: tuple[int, int]) -> None:
        ids = self._ids[: self._size]
        self._alive[: self._size] &= (ids < run[0]) | (ids >= run[0] + run[1])

    def _grow(self, more: int) -> None:
        if self._size + more <= len(self._ids):
            return
        room = max(self._size + more, self._size + self._size // 2, 256)
        self._ids = np.resize(self._ids, room) if self._size else np.empty(room, np.int64)
        vectors = np.empty((room, self.dimensions), np.float32)
        vectors[: self._size] = self._vectors[: self._size]
        self._vectors = vectors
        alive = np.zeros(room, np.bool_)
        alive[: self._size] = self._alive[: self._size]
        self._alive = alive

    def _pack(self) -> None:
        """Drop dead rows when there are many, and keep ids ascending (another process may interleave with
        us)."""
        ids = self._ids[: self._size]
        alive = self._alive[: self._size]
        ascending = bool((ids[1:] > ids[:-1]).all()) if self._size else True
        if ascending and np.count_nonzero(~alive) <= MOST_DEAD * self._size:
            return
        keep = np.flatnonzero(alive)
        keep = keep[np.argsort(ids[keep])]
        self._ids, self._vectors = ids[keep], self._vectors[keep]
        self._alive = np.ones(len(keep), np.bool_)
        self._size = len(keep)


class Likeness:
    """Likeness by chunk id, from two parallel arrays with ascending ids."""

    def __init__(self, ids: Ids, products: Vectors) -> None:
        self._ids, self._products = ids, products

    def __getitem__(self, chunk: int) -> float:
        at = int(np.searchsorted(self._ids, chunk))
        return float(self._products[at]) if at < len(self._ids) and self._ids[at] == chunk else 0.0

    def best(self, count: int) -> list[int]:
        """The ids of the `count` most alike, best first; none that is not alike at all."""
        products = self._products
        at = np.argpartition(-products, count)[:count] if len(products) > count else np.arange(len(products))
        at = at[products[at] > 0]
        ordered: list[int] = self._ids[at[np.argsort(-products[at], kind="stable")]].tolist()
        return ordered

    def within(self, run: tuple[int, int]) -> Likeness:
        a, b = np.searchsorted(self._ids, [run[0], run[0] + run[1]])
        return Likeness(self._ids[a:b], self._products[a:b])
