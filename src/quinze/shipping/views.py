"""Views: one model as somebody computes it, all with the same face, so that they can be compared.

    TrainerView    PyTorch, float32: what was trained (transformer.py), with an adapter beside it or not
    EngineView     the C++ engine on the file that is served: a folder, an adapter on its base, a GGUF

Each brings its own tokenizer and template, from the files that lie with it. T tokens, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from quinze.engine.engine import Engine
from quinze.engine.sampling import SamplingParams
from quinze.errors import UnsupportedModelError
from quinze.formats.quants import Floats
from quinze.models.adapters import fitted, read_adapter
from quinze.models.weights import load_model
from quinze.tokenizer.chat_template import ChatTemplate
from quinze.tokenizer.tokenizer import Tokenizer, load_tokenizer


class View(Protocol):
    """What a certificate asks."""

    name: str
    tokenizer: Tokenizer
    context_length: int

    def rendered(self, messages: Sequence[dict[str, str]]) -> list[tuple[str, bool]] | None:
        """The chat template's words, (text, trusted) in pieces; None where there is no template."""
        ...

    def logits(self, ids: Sequence[int]) -> Floats:
        """(T, V) float32."""
        ...

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """The likeliest continuation, until a stop id or so many tokens."""
        ...

    def files(self) -> dict[str, str]:
        """name -> sha256 of the weights."""
        ...

    def close(self) -> None: ...


class _Worded:
    """The tokenizer and template of the files at a path."""

    def __init__(self, name: str, path: Path, words: Path | None) -> None:
        self.name, self.path = name, path
        self.tokenizer = load_tokenizer(words or path)
        self._template = ChatTemplate.of(self.tokenizer)

    def rendered(self, messages: Sequence[dict[str, str]]) -> list[tuple[str, bool]] | None:
        return None if self._template is None else self._template.render(messages)

    def close(self) -> None:
        if self._template is not None:
            self._template.close()


class EngineView(_Worded):
    """What is served."""

    def __init__(
        self, name: str, path: Path, *, adapter: Path | None = None, words: Path | None = None,
        threads: int | None = None,
    ) -> None:  # fmt: skip
        """words: the files of tokenizer and template, where they do not lie with the weights."""
        super().__init__(name, path, words)
        self._adapter = adapter
        # Keys and values in float32: a certificate compares weights, not what a cache rounds off.
        self._engine = Engine(load_model(path), threads=threads, kv_type="f32")
        self._loaded = None if adapter is None else self._engine.load_adapter(read_adapter(adapter))
        self.context_length = self._engine.context_length

    def logits(self, ids: Sequence[int]) -> Floats:
        return self._engine.logits(ids, self._loaded)

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        params = SamplingParams(temperature=0.0, max_tokens=count)
        stops = self.tokenizer.stop_ids
        with self._engine.generate(ids, params, stop_ids=stops, adapter=self._loaded) as generation:
            return list(generation)

    def files(self) -> dict[str, str]:
        return weight_hashes(self.path) | (weight_hashes(self._adapter) if self._adapter else {})

    def close(self) -> None:
        super().close()
        self._engine.close()


class TrainerView(_Worded):
    """What was trained. PyTorch is loaded here and not before."""

    def __init__(
        self, name: str, path: Path, *, adapter: Path | None = None, words: Path | None = None
    ) -> None:
        super().__init__(name, path, words)
        import torch

        from quinze.models.transformer import Transformer
        from quinze.training.lora import apply_adapter

        self._adapter = adapter
        self._torch = torch
        opened = load_model(path)
        self._model = Transformer.of(opened).eval()
        if adapter is not None:
            apply_adapter(self._model, fitted(read_adapter(adapter), opened, as_folder=True))
        self.context_length = opened.config.max_position_embeddings

    def logits(self, ids: Sequence[int]) -> Floats:
        if len(ids) > self.context_length:
            raise UnsupportedModelError(
                f"{self.name} reads {self.context_length:,} tokens; {len(ids):,} were given."
            )
        with self._torch.no_grad():
            found: Floats = self._model(self._torch.tensor([list(ids)]))[0].float().numpy()
        return found

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """Without a cache, each token by a whole pass: slow, and certain."""
        said: list[int] = []
        while len(said) < count and len(ids) + len(said) < self.context_length:
            token = int(self.logits([*ids, *said])[-1].argmax())
            if token in self.tokenizer.stop_ids:
                break
            said.append(token)
        return said

    def files(self) -> dict[str, str]:
        return weight_hashes(self.path) | (weight_hashes(self._adapter) if self._adapter else {})


def weight_hashes(path: Path) -> dict[str, str]:
    """sha256 of the weight files at a path, by their names."""
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    found: dict[str, str] = {}
    for file in files:
        with file.open("rb") as opened:
            found[f"{file.parent.name}/{file.name}"] = hashlib.file_digest(opened, "sha256").hexdigest()
    return found


def log_softmax(logits: Floats) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Over the last axis, in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    return np.asarray(wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True)))
