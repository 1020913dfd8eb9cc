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


def load_embedder(name: str, *, threads: int | None = None) -> Embedder:
    """The embedder of that name ("starter", "hashing") or id, or the model at that path.

    InvalidRequestError if there is none, UnsupportedModelError for a model that is no embedder.
    threads  for a model; None: all cores
    """
    if name in {"starter", STARTER}:
        return _starter()
    if name in {"hashing", HashingEmbedder.id}:
        return HashingEmbedder()
    path = Path(name).expanduser()
    if "\x00" not in name and ("/" in name or path.suffix == ".gguf") and path.exists():
        if (path / "vectors.npy").is_file():
            return StaticEmbedder(path)
        # Not before it is asked for: the engine comes with it.
        from quinze.embeddings.language_model import LanguageModelEmbedder

        return LanguageModelEmbedder(path, threads=threads)
    raise InvalidRequestError(
        f"There is no embedder named {name[:200]!r}.",
        hint=f"Known are starter ({STARTER}) and hashing ({HashingEmbedder.id}); "
        "or name an embedding model, or its path.",
        param="embedder",
    )


@functools.cache
def _starter() -> StaticEmbedder:
    """One for the whole process: it is immutable, and its vectors are mapped."""
    made = StaticEmbedder(Path(str(files("quinze.starter"))) / "embedder")
    made.source = STARTER  # wherever Quinze is installed
    return made
