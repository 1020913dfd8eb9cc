"""Every family of models: logits of transformers from a folder, and of llama.cpp from the same GGUF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from quinze.engine.engine import Engine
from quinze.models.weights import load_model

LONG: dict[str, Any] = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.2, 1.5, 1.7, 2.0, 2.2, 2.5],
    "long_factor": [1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0, 16.0],
}
YARN: dict[str, Any] = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
HEADS = {"head_dim": 32, "query_pre_attn_scalar": 32}
GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, yarn": ("llama", {"rope_parameters": YARN | {"rope_theta": 5e5}}),
    "llama, dynamic": (
        "llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
    ),
    "smollm2": (
        "llama", {"hidden_size": 72, "num_attention_heads": 9, "num_key_value_heads": 3,
                  "tie_word_embeddings": True,
                  "rope_parameters": {"rope_type": "default", "rope_theta": 1e5}},
    ),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral, window": ("mistral", {"sliding_window": 50}),
    "mistral, window over a page": ("mistral", {"sliding_window": 130, "head_dim": 24}),
    "qwen2": ("qwen2", {}),
    "qwen2, tied, yarn": (
        "qwen2", {"tie_word_embeddings": True, "rope_parameters": YARN | {"rope_theta": 1e6}},
    ),
    "qwen2, window": ("qwen2", {"use_sliding_window": True, "sliding_window": 40, "max_window_layers": 1}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "qwen3, one head": ("qwen3", {"head_dim": 16, "num_attention_heads": 1, "num_key_value_heads": 1}),
    "phi3": ("phi3", {}),
    "phi3, window": ("phi3", {"sliding_window": 64}),
    "phi3, partial": (
        "phi3", {"num_attention_heads": 2, "rope_parameters": {
            "rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.75}},
    ),
    "phi3, short": (
        "phi3", {"max_position_embeddings": 1024, "original_max_position_embeddings": 512,
                 "rope_parameters": LONG | {"rope_theta": 1e4, "original_max_position_embeddings": 512}},
    ),
    "phi3, long": (
        "phi3", {"max_position_embeddings": 1024, "original_max_position_embeddings": 100,
                 "rope_parameters": LONG | {"rope_theta": 1e4, "original_max_position_embeddings": 100}},
    ),
    "gemma": ("gemma", {"head_dim": 32}),
    "gemma2": ("gemma2", HEADS | {"sliding_window": 40}),
    "gemma2, caps that bite": ("gemma2", HEADS | {
        "sliding_window": 4096, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
    "gemma3": ("gemma3_text", HEADS | {
        "sliding_window": 40, "num_hidden_layers": 7, "rope_parameters": GEMMA3_ROPE}),
    "olmo2": ("olmo2", {"num_key_value_heads": 2}),
    "gpt2": ("gpt2", {}),
    "gpt2, inner": ("gpt2", {"n_inner": 100, "n_head": 2}),
}  # fmt: skip
MIXTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2moe": ("qwen2_moe", {"num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 32,
                               "shared_expert_intermediate_size": 64}),
    "qwen3moe": ("qwen3_moe", {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32,
                               "head_dim": 32, "norm_topk_prob": True}),
    "olmoe": ("olmoe", {"num_experts": 8, "num_experts_per_tok": 2, "num_key_value_heads": 4}),
}  # fmt: skip
ALL = FAMILIES | MIXTURES


@pytest.fixture(scope="module", params=ALL)
def peer(
    request: pytest.FixtureRequest, families: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Any, Path]:
    """(name, the model in transformers, the folder it lies in)"""
    folder = tmp_path_factory.mktemp("family")
    kind, changes = ALL[request.param]
    return request.param, families.make(kind, folder, **changes), folder


def theirs(model: Any, ids: list[int]) -> np.ndarray:
    import torch

    with torch.no_grad():
        return np.asarray(model(torch.tensor([ids])).logits[0].numpy())


def granted(name: str) -> int | None:
    """LongRoPE's list is chosen by the context that is granted."""
    return 512 if name.endswith(", short") else None


def test_logits_of_a_folder_are_those_of_transformers(
    peer: tuple[str, Any, Path], kernels: str, rng: np.random.Generator
) -> None:
    name, model, folder = peer
    engine = Engine(
        load_model(folder), kernels=kernels, kv_type="f32", threads=2, context_length=granted(name)
    )
    ids = rng.integers(0, 300, 300 if kernels == "avx2" else 150).tolist()
    expected = theirs(model, ids)
    spread = expected.std()
    assert spread > 0.1  # the model says something
    np.testing.assert_allclose(engine.logits(ids), expected, atol=3e-4 * spread, rtol=1e-4)
    assert engine.config.parameters == model.num_parameters()


NO_WINDOW_THERE = ("mistral, window", "mistral, window over a page", "qwen2, window", "phi3, window")
"""llama.cpp runs these families without their window."""


def test_logits_of_a_gguf_are_those_of_llama_cpp(
    peer: tuple[str, Any, Path],
    families: ModuleType,
    llama_cpp: Callable[..., Any],
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    name, model, _ = peer
    if name in NO_WINDOW_THERE:
        pytest.skip("llama.cpp runs this family without its window")
    path = families.write_gguf(tmp_path / "model.gguf", model)
    context = granted(name) or 512
    engine = Engine(load_model(path), threads=2, kv_type="f32", context_length=context)
    # Its float16 cache sends, sooner or later, a token near the border to another expert than float32 does.
    ids = rng.integers(3, 300, 40 if engine.config.num_experts else 200).tolist()
    mine = engine.logits(ids)[-1]
    other = llama_cpp(path, context_length=context, threads=2)
    found = other.forward(ids).copy()
    other.close()
    # Its cache and its GELU are float16.
    assert np.linalg.norm(mine - found) < 0.01 * np.linalg.norm(found)
    np.testing.assert_allclose(mine, theirs(model, ids)[-1], atol=3e-3 * mine.std())


def test_token_by_token_equals_in_one_go(peer: tuple[str, Any, Path], rng: np.random.Generator) -> None:
    """The cache cannot tell how it was filled, through a window or not."""
    name, _, folder = peer
    engine = Engine(load_model(folder), threads=2, kv_type="f32", context_length=granted(name))
    ids = rng.integers(0, 300, 190).astype(np.int32)
    decoder = engine._running()
    cache = decoder.cache("f32")
    pieces = [ids[:60], ids[60:137], *(ids[i : i + 1] for i in range(137, 190))]
    found = np.concatenate([decoder.forward_all(cache, piece) for piece in pieces])
    whole = engine.logits(ids.tolist())
    np.testing.assert_allclose(found, whole, atol=1e-4 * whole.std())


@pytest.mark.parametrize(
    "name", ["qwen3", "mixtral", "qwen2moe", "qwen3moe", "phi3, partial", "gemma2", "gemma3", "olmo2", "gpt2"]
)
def test_quantized_weights_of_a_family_are_those_of_llama_cpp(
    families: ModuleType, llama_cpp: Callable[..., Any], tmp_path: Path, name: str, rng: np.random.Generator
) -> None:
    """Fused matrices are parted between rows of blocks."""
    kind, changes = ALL[name]
    model = families.make(kind, tmp_path / "folder", **changes)
    path = families.write_gguf(tmp_path / "model.gguf", model, "Q8_0")
    ids = rng.integers(3, 300, 10 if name in MIXTURES else 100).tolist()
    other = llama_cpp(path, context_length=512, threads=2)
    found = other.forward(ids).copy()
    other.close()
    mine = Engine(load_model(path), threads=2).logits(ids)[-1]
    assert np.linalg.norm(mine - found) < 0.06 * np.linalg.norm(found)
    assert np.corrcoef(mine, found)[0, 1] > 0.998


def test_a_model_in_parts_is_the_model_that_llama_cpp_reads(
    families: ModuleType, llama_cpp: Callable[..., Any], tmp_path: Path, rng: np.random.Generator
) -> None:
    model = families.make("qwen3", tmp_path / "folder", head_dim=32)
    first = families.write_gguf(tmp_path / "model.gguf", model, each=10)
    parts = sorted(tmp_path.glob("model-*.gguf"))
    assert len(parts) > 2
    ids = rng.integers(3, 300, 60).tolist()
    other = llama_cpp(first, context_length=512, threads=2)
    found = other.forward(ids).copy()
    other.close()
    mine = Engine(load_model(parts[-1]), threads=2, kv_type="f32").logits(ids)[-1]
    assert np.linalg.norm(mine - found) < 0.01 * np.linalg.norm(found)


@pytest.mark.parametrize("length", [300, 512, 700, 1000])
def test_dynamic_ntk_reads_beyond_its_length_as_transformers_does(
    families: ModuleType, tmp_path: Path, rng: np.random.Generator, length: int
) -> None:
    """The base of RoPE is that of a text as long as the context that is granted."""
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    model = families.make("llama", tmp_path, rope_parameters=rope)
    engine = Engine(load_model(tmp_path), threads=2, kv_type="f32", context_length=length)
    assert engine.context_length == length
    ids = rng.integers(0, 300, length).tolist()
    expected = theirs(model, ids)
    np.testing.assert_allclose(engine.logits(ids), expected, atol=3e-4 * expected.std(), rtol=1e-4)
    assert Engine(load_model(tmp_path)).context_length == 512
    assert Engine(load_model(tmp_path), context_length=5000).context_length == 1024


def test_float64_weights_run_as_float32(families: ModuleType, tmp_path: Path) -> None:
    """torch saves a model in double precision; no CPU needs it so exact."""
    model = families.make("qwen2", tmp_path / "f32")
    model.double().save_pretrained(tmp_path / "f64")
    names = {tensor.type.name for tensor in load_model(tmp_path / "f64").tensors.values()}
    assert names == {"F64"}
    ids = [5, 7, 11, 13]
    engines = [Engine(load_model(tmp_path / kind), threads=1, kv_type="f32") for kind in ("f32", "f64")]
    np.testing.assert_array_equal(*(engine.logits(ids) for engine in engines))
