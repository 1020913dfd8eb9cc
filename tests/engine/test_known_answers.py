"""The engine against others on whole models: a stored text, transformers, llama.cpp."""

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

GREEDY = SamplingParams(temperature=0)


@pytest.mark.parametrize("threads", [1, 2])
def test_stories260k_tells_the_stored_story(
    stories: Model, greedy_ids: list[int], kernels: str, threads: int
) -> None:
    engine = Engine(stories, kernels=kernels, threads=threads, kv_type="f32")
    params = SamplingParams(temperature=0, max_tokens=256)
    assert list(engine.generate([1], params)) == greedy_ids


LLAMAS: dict[str, dict[str, Any]] = {
    "grouped": {},
    "tied": {"tie_word_embeddings": True},
    "every head its own": {"num_key_value_heads": 4, "num_hidden_layers": 1},
    "one key head": {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 1},
    "odd sizes": {
        "hidden_size": 60, "head_dim": 10, "num_attention_heads": 6, "intermediate_size": 77,
        "vocab_size": 301,
    },
    "head of 20": {"head_dim": 20, "hidden_size": 72},
    "wide head": {"head_dim": 128, "rope_theta": 500000.0},
    "llama3 scaling": {
        "head_dim": 32,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "linear scaling": {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
}  # fmt: skip


@pytest.mark.parametrize("config", LLAMAS.values(), ids=LLAMAS.keys())
def test_logits_are_those_of_transformers(
    transformers_llama: Callable[..., tuple[Any, Path]],
    config: dict[str, Any],
    kernels: str,
    rng: np.random.Generator,
) -> None:
    import torch

    peer, folder = transformers_llama(**config)
    engine = Engine(load_model(folder), kernels=kernels, kv_type="f32", threads=2)
    ids = rng.integers(0, engine.config.vocab_size, 300).tolist()
    with torch.no_grad():
        expected = peer(torch.tensor([ids])).logits[0].numpy()
    spread = expected.std()
    assert spread > 0.1  # the model says something
    np.testing.assert_allclose(engine.logits(ids), expected, atol=2e-4 * spread, rtol=1e-4)


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0", "q4_0"])
def test_logits_and_greedy_ids_are_those_of_llama_cpp(
    random_gguf: Callable[[str], Path], llama_cpp: Callable[..., Any], kind: str, rng: np.random.Generator
) -> None:
    """On the same file, as near as int8 activations let either be to exact arithmetic."""
    path = random_gguf(kind)
    model = load_model(path)
    engine = Engine(model, threads=2)
    peer = llama_cpp(path, context_length=512, threads=2)
    ids = rng.integers(3, engine.config.vocab_size, 100).tolist()
    theirs = peer.forward(ids).copy()
    mine = engine.logits(ids)[-1]
    exact = Engine(in_float32(model), threads=2, kv_type="f32").logits(ids)[-1]

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.linalg.norm(a - b) / np.linalg.norm(b))

    tolerance = {"f32": 0.002, "f16": 0.002, "q8_0": 0.03, "q4_0": 0.03}[kind]
    assert distance(mine, exact) < tolerance
    assert distance(mine, exact) < 1.5 * distance(theirs, exact) + 1e-3
    assert distance(mine, theirs) < 1.5 * tolerance

    written = list(engine.generate(ids, SamplingParams(temperature=0, max_tokens=24)))
    for token in written:
        # Same choice, or one of two that the rounding cannot tell apart.
        assert theirs[token] > theirs.max() - 2 * tolerance * theirs.std()
        theirs = peer.forward([token]).copy()
    peer.close()


def in_float32(model: Model) -> Model:
    """The same weights, decoded."""
    tensors = {
        name: Tensor(name, TensorType.F32, t.shape, decode(t).reshape(-1).view(np.uint8))
        for name, t in model.tensors.items()
    }
    return replace(model, tensors=tensors)


def test_a_prompt_in_one_go_equals_token_by_token(
    random_gguf: Callable[[str], Path], kernels: str, rng: np.random.Generator
) -> None:
    """And in any pieces: the cache cannot tell how it was filled.

    A last bit of a float sum can turn the rounding of an activation to int8: quantized models agree to that.
    """
    for kind, tolerance in (("f16", 1e-5), ("q8_0", 0.02), ("q4_0", 0.02)):
        engine = Engine(load_model(random_gguf(kind)), kernels=kernels, threads=2, kv_type="f32")
        decoder = engine._running()
        ids = rng.integers(0, 1024, 300 if kernels == "avx2" else 40).astype(np.int32)
        whole = engine.logits(ids.tolist())
        for piece in (1, 7, 100):
            cache = decoder.cache("f32")
            parts = [decoder.forward_all(cache, ids[i : i + piece]) for i in range(0, len(ids), piece)]
            error = np.concatenate(parts) - whole
            assert np.linalg.norm(error) < tolerance * np.linalg.norm(whole)


def test_one_thread_and_two_compute_the_same(random_gguf: Callable[[str], Path], kernels: str) -> None:
    model = load_model(random_gguf("q4_0"))
    ids = list(range(50))
    one, two, five = (Engine(model, kernels=kernels, threads=n).logits(ids) for n in (1, 2, 5))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one, five)
