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
