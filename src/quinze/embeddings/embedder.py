"""An embedder turns texts into vectors. This is the interface that every one of them fills.

Knows nothing of stores or documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]


class Embedder(Protocol):
    """Texts -> unit vectors, so that a dot product is a cosine."""

    @property
    def id(self) -> str:
        """Names the model and everything that changes its vectors; stored with every vector:
        "hashing-v1-512"."""
        ...

    @property
    def source(self) -> str:
        """What `load_embedder` finds it by: its name, or the path of its model."""
        ...

    @property
    def matryoshka(self) -> bool:
        """Whether the first numbers of a vector, made a unit vector again, are a vector too
        (Kusupati et al. 2022)."""
        ...

    @property
    def dimensions(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of passages: (len(texts), dimensions), float32, each of length 1 (or all zero for an
        empty text)."""
        ...

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """The same for questions; a model trained with prefixes treats them apart."""
        ...

    def count_tokens(self, text: str) -> int:
        """How many tokens the embedder reads in `text` (for `usage`)."""
        ...


def shortened(vectors: Vectors, dimensions: int) -> Vectors:
    """The first numbers of each vector (N, D), made unit vectors again: where they are `matryoshka`."""
    kept = vectors[:, :dimensions]
    lengths = np.linalg.norm(kept, axis=1, keepdims=True)
    return np.asarray(np.divide(kept, lengths, out=np.zeros_like(kept), where=lengths > 0), np.float32)
