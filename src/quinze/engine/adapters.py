"""Adapters beside a model in the engine: loaded once, chosen by each sequence, several in one step.

Given an adapter's folder, read (models/adapters.py); gives the number that a sequence's ids carry through the
decoder. The model's weights are never touched, so quantized ones do as well. Knows nothing of requests.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from quinze import native
from quinze.errors import InvalidRequestError
from quinze.formats.quants import decode
from quinze.models.adapters import Adapter, LowRank, digest, fitted
from quinze.models.weights import Model

NONE = -1
"""The number of no adapter: the model as it is."""
MOST = 256
"""Adapters beside one model."""


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """An adapter in an engine. Keys and values computed with one serve nobody who has another."""

    number: int
    name: str


def number_of(adapter: Loaded | None) -> int:
    """What a sequence's ids carry through the decoder."""
    return NONE if adapter is None else adapter.number


class Adapters:
    """Those of one engine, each loaded once. They stay as long as the engine: some megabytes each."""

    def __init__(self, decoder: native.Decoder, model: Model) -> None:
        self._decoder, self._model = decoder, model
        self._lock = threading.Lock()
        self._loaded: dict[str, Loaded] = {}

    def load(self, adapter: Adapter) -> Loaded:
        """By its content: the same one from another folder is the same. InvalidRequestError for too many,
        UnsupportedModelError for one of another model."""
        key = digest(adapter.path)
        with self._lock:
            if key not in self._loaded:
                if len(self._loaded) >= MOST:
                    raise InvalidRequestError(
                        f"{MOST} adapters are loaded beside {self._model.config.name}.",
                        hint="Unload the model, which unloads them too.",
                    )
                number = load_adapter(self._decoder, self._model, adapter)
                self._loaded[key] = Loaded(number, adapter.path.name)
            return self._loaded[key]


def load_adapter(decoder: native.Decoder, model: Model, adapter: Adapter) -> int:
    """Put it beside the model. UnsupportedModelError if it was made for another one (models/adapters.py)."""
    return decoder.add_adapter(parts(fitted(adapter, model), model))


def parts(layers: Mapping[str, LowRank], model: Model) -> dict[str, native.LowRank]:
    """As the native code takes them: the scale within B, and what DoRA multiplies the products by."""
    found: dict[str, native.LowRank] = {}
    for name, low in layers.items():
        weight = f"{name}.weight"
        b = (low.b * np.float32(low.scale)).astype(np.float32)
        share = None
        if low.magnitude is not None:
            # The length of each merged row, once: it does not hang on what is read.
            full = decode(model.tensors[weight]) + b @ low.a
            share = np.ascontiguousarray(low.magnitude / np.linalg.norm(full, axis=1), dtype=np.float32)
            b = b * share[:, None]
        found[weight] = (np.ascontiguousarray(low.a), np.ascontiguousarray(b), share)
    return found
