"""Adapters beside a model in the engine: loaded once, chosen by each sequence, several in one step.

Given an adapter's folder, read (models/adapters.py); gives the number that a sequence's ids carry through the
decoder. The model's weights are never touched, so quantized ones do as well. Knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from quinze import native
from quinze.formats.quants import decode
from quinze.models.adapters import Adapter, LowRank, fitted
from quinze.models.weights import Model

NONE = -1
"""The number of no adapter: the model as it is."""


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
