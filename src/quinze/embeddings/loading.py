"""Which embedder goes by which name. A name is kept with every vector (`Embedder.id`)."""

from __future__ import annotations

import functools
from importlib.resources import files
from pathlib import Path

from quinze.embeddings.embedder import Embedder
from quinze.embeddings.hashing import HashingEmbedder
from quinze.embeddings.static import StaticEmbedder
from quinze.errors import InvalidRequestError

STARTER = "starter-v1-256"
"""Quinze's own (src/quinze/starter/embedder); card.json says the same."""


def load_embedder(name: str) -> Embedder:
    """The embedder of that name ("starter", "hashing") or id; InvalidRequestError if there is none."""
    if name in {"starter", STARTER}:
        return _starter()
    if name in {"hashing", HashingEmbedder.id}:
        return HashingEmbedder()
    raise InvalidRequestError(
        f"There is no embedder named {name[:80]!r}.",
        hint=f"Known are starter ({STARTER}) and hashing ({HashingEmbedder.id}).",
        param="embedder",
    )


@functools.cache
def _starter() -> StaticEmbedder:
    """One for the whole process: it is immutable, and its vectors are mapped."""
    return StaticEmbedder(Path(str(files("quinze.starter"))) / "embedder")
