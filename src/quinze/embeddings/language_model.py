"""A language model as an embedder: what it makes of a text's last token, or of all, is the text's vector.

    embedder = LanguageModelEmbedder(Path("Qwen3-Embedding-0.6B-Q8_0.gguf"))
    embedder.embed_queries(["how long is dough proved?"]) @ embedder.embed(passages).T

Any decoder that the engine runs and whose file names a pooling (pooling.py). Its weights are loaded with the
first text. T tokens, C hidden size.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from quinze.embeddings.embedder import Vectors
from quinze.embeddings.pooling import Pooling, pooling_of
from quinze.engine.engine import Engine
from quinze.errors import UnsupportedModelError
from quinze.formats.checkpoint import Checkpoint
from quinze.models.weights import Model, load_model
from quinze.tokenizer.tokenizer import Tokenizer, load_tokenizer

SAMPLE = 256
"""Bytes of each tensor that its fingerprint is taken from."""


class LanguageModelEmbedder:
    """Safe to share between threads: the engine gives them turns."""

    matryoshka = True

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        """UnsupportedModelError for a model whose file names no pooling."""
        self._path, self._threads = path, threads
        self._model: Model = load_model(path)
        found = pooling_of(path, self._model.checkpoint)
        if found is None:
            raise UnsupportedModelError(
                f"{self._model.config.name} is no embedding model: its file names no pooling.",
                hint="Take one such as Qwen3-Embedding; a folder needs its 1_Pooling too.",
            )
        self._pooling = found
        self._tokenizer: Tokenizer = load_tokenizer(path, self._model.checkpoint)
        self._engine: Engine | None = None
        self._lock = threading.Lock()
        self.id = f"{self._model.config.name}@{fingerprint(self._model.checkpoint, found)}"
        self.source = str(path.absolute())

    @property
    def dimensions(self) -> int:
        return self._model.config.hidden_size

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of passages (len(texts), C). ContextLengthError for a text that is too long."""
        return self._vectors([self._pooling.passage_prefix + text if text else "" for text in texts])

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """The same for questions, behind the instruction that the model was trained with."""
        return self._vectors([self._pooling.query_prefix + text if text else "" for text in texts])

    def count_tokens(self, text: str) -> int:
        return len(self._tokenizer.encode_alone(text))

    def _vectors(self, texts: Sequence[str]) -> Vectors:
        found = np.zeros((len(texts), self.dimensions), np.float32)
        for i, text in enumerate(texts):
            ids = self._tokenizer.encode_alone(text) if text else []
            if ids:
                found[i] = unit(pooled(self._running().hidden_states(ids), self._pooling))
        return found

    def _running(self) -> Engine:
        with self._lock:
            if self._engine is None:
                self._engine = Engine(self._model, threads=self._threads)
            return self._engine


def pooled(states: Vectors, pooling: Pooling) -> Vectors:
    """One vector (C,) of what the model made of each token (T, C)."""
    if pooling.kind == "mean":
        return np.asarray(states.mean(axis=0), np.float32)
    return np.asarray(states[-1] if pooling.kind == "last" else states[0], np.float32)


def unit(vector: Vectors) -> Vectors:
    """Of length 1; zeros stay zeros."""
    length = float(np.linalg.norm(vector))
    return np.asarray(vector / length if length > 0 else vector, np.float32)


def fingerprint(checkpoint: Checkpoint, pooling: Pooling) -> str:
    """Tells models apart whose vectors differ: by their tensors, some bytes of each, and their pooling."""
    digest = hashlib.sha256(repr(pooling).encode())
    for name, tensor in sorted(checkpoint.tensors.items()):
        middle = max(0, (len(tensor.data) - SAMPLE) // 2)
        digest.update(f"{name} {tensor.type.name} {tensor.shape}".encode("utf-8", "surrogateescape"))
        digest.update(tensor.data[middle : middle + SAMPLE].tobytes())
    return digest.hexdigest()[:12]
