"""Models in every number format, and in mixtures that people have, against llama.cpp on the same file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quinze.engine.engine import Engine
from quinze.engine.sampling import SamplingParams
from quinze.formats.checkpoint import Tensor, TensorType
from quinze.formats.quants import decode
from quinze.models.weights import Model, load_model

KINDS = ["q4_1", "q5_0", "q5_1", "q4_k", "q5_k", "q6_k", "q4_0_real", "q4_k_m", "q5_k_m"]
TOLERANCE = 0.07
"""Of the norm: these tiny random models make much of the rounding of activations to int8."""


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_greedy_ids_are_those_of_llama_cpp(
    random_gguf: Callable[[str], Path], llama_cpp: Callable[..., Any], kind: str, rng: np.random.Generator
) -> None:
    """On the same file, as near as int8 activations let either be to exact arithmetic."""
    path = random_gguf(kind)
    model = load_model(path)
    engine, exact = Engine(model, threads=2), Engine(in_float32(model), threads=2, kv_type="f32")
    peer = llama_cpp(path, context_length=512, threads=2)
    errors = []
    for _ in range(3):
        ids = rng.integers(3, engine.config.vocab_size, 100).tolist()
        peer.clear()
        theirs = peer.forward(ids).copy()
        mine, truth = engine.logits(ids)[-1], exact.logits(ids)[-1]
        errors.append((distance(mine, truth), distance(theirs, truth)))
        assert distance(mine, theirs) < TOLERANCE
    mean = np.mean(errors, axis=0)
    assert mean[0] < 1.3 * mean[1]

    for token in engine.generate(ids, SamplingParams(temperature=0, max_tokens=24)):
        # Same choice, or one of two that the rounding cannot tell apart.
        assert theirs[token] > theirs.max() - 3 * TOLERANCE * theirs.std()
        theirs = peer.forward([token]).copy()
    peer.close()


@pytest.mark.parametrize("kind", ["q5_0", "q4_k_m", "q6_k"])
def test_the_scalar_kernels_agree(
    random_gguf: Callable[[str], Path], kind: str, rng: np.random.Generator
) -> None:
    model = load_model(random_gguf(kind))
    ids = rng.integers(3, 1024, 12).tolist()
    scalar, auto = (
        Engine(model, threads=2, kernels=name, kv_type="f32").logits(ids) for name in ("scalar", "auto")
    )
    assert distance(auto, scalar) < TOLERANCE


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def in_float32(model: Model) -> Model:
    """The same weights, decoded."""
    tensors = {
        name: Tensor(name, TensorType.F32, t.shape, decode(t).reshape(-1).view(np.uint8))
        for name, t in model.tensors.items()
    }
    return replace(model, tensors=tensors)
