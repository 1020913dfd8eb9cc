"""Hostile numbers in what the families besides Llama bring along: a clear error, or a model that is whole."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from quinze.errors import FileFormatError, QuinzeError
from quinze.formats.checkpoint import TensorType
from quinze.formats.gguf import write_gguf
from quinze.formats.quants import encode
from quinze.models.config import ModelConfig
from quinze.models.gguf_config import from_gguf
from quinze.models.hugging_face_config import from_hugging_face
from quinze.models.names import gguf_name
from quinze.models.shapes import shapes
from quinze.models.weights import load_model

NAN, INF = float("nan"), float("inf")


@pytest.fixture(autouse=True)
def memory_limit() -> Iterator[None]:
    """No more than a gigabyte beyond what this process has: a huge allocation fails the test."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


FOLDER: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6, "head_dim": 16,
}  # fmt: skip
LONGROPE = {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("mistral", {"sliding_window": -1}),
        ("mistral", {"sliding_window": 2**62}),
        ("mistral", {"sliding_window": "8"}),
        ("mistral", {"sliding_window": True}),
        ("mistral", {"num_hidden_layers": 2**62}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": -1}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "layer_types": 7}),
        ("qwen2", {"sliding_window": 8, "layer_types": ["sliding_attention"]}),
        ("qwen2", {"sliding_window": 8, "layer_types": ["sliding_attention"] * 10_000}),
        ("qwen2", {"sliding_window": 8, "layer_types": [["sliding_attention"], 1]}),
        ("qwen3", {"head_dim": 0}),
        ("qwen3", {"head_dim": 2**40}),
        ("qwen3", {"attention_bias": "yes"}),
        ("qwen3", {"tie_word_embeddings": 1}),
        ("phi3", {"partial_rotary_factor": 0.0}),
        ("phi3", {"partial_rotary_factor": -1.0}),
        ("phi3", {"partial_rotary_factor": 1.5}),
        ("phi3", {"partial_rotary_factor": NAN}),
        ("phi3", {"partial_rotary_factor": 0.07}),
        ("phi3", {"rope_scaling": LONGROPE | {"short_factor": [1.0]}}),
        ("phi3", {"rope_scaling": LONGROPE | {"long_factor": [0.0] * 8}}),
        ("phi3", {"rope_scaling": LONGROPE | {"long_factor": [NAN] * 8}}),
        ("phi3", {"rope_scaling": LONGROPE | {"long_factor": ["2"] * 8}}),
        ("phi3", {"rope_scaling": LONGROPE | {"long_factor": 2.0}}),
        ("phi3", {"rope_scaling": LONGROPE | {"long_factor": [1.0] * 10**6}}),
        ("phi3", {"rope_scaling": LONGROPE, "original_max_position_embeddings": 1}),
        ("phi3", {"rope_scaling": LONGROPE | {"attention_factor": -1.0}}),
        ("phi3", {"rope_scaling": LONGROPE | {"factor": INF}}),
        ("llama", {"rope_scaling": YARN | {"factor": 0.0}}),
        ("llama", {"rope_scaling": YARN | {"factor": 1e30}}),
        ("llama", {"rope_scaling": YARN | {"beta_fast": 0.0}}),
        ("llama", {"rope_scaling": YARN | {"beta_slow": -1.0}}),
        ("llama", {"rope_scaling": YARN | {"attention_factor": 0.0}}),
        ("llama", {"rope_scaling": YARN | {"original_max_position_embeddings": 0}}),
        ("llama", {"rope_scaling": YARN | {"original_max_position_embeddings": 2**62}}),
        ("llama", {"rope_scaling": YARN, "rope_theta": 1.0}),
        ("llama", {"rope_scaling": YARN, "rope_theta": NAN}),
        ("llama", {"rope_scaling": {"rope_type": ["yarn"]}}),
        ("gemma2", {"query_pre_attn_scalar": -4}),
        ("gemma2", {"query_pre_attn_scalar": 1e-20}),
        ("gemma2", {"query_pre_attn_scalar": NAN}),
        ("gemma2", {"attn_logit_softcapping": -1.0}),
        ("gemma2", {"attn_logit_softcapping": INF}),
        ("gemma2", {"final_logit_softcapping": "30"}),
        ("gemma2", {"hidden_size": -4}),
        ("gemma3_text", {"rope_local_base_freq": 0.0}),
        ("gemma3_text", {"rope_local_base_freq": INF}),
        ("gemma3_text", {"sliding_window_pattern": -1}),
        ("gemma3_text", {"rope_parameters": {"full_attention": 7}}),
        ("gemma3_text", {"rope_parameters": {"full_attention": {}, "sliding_attention": [1]}}),
        ("gpt2", {"num_attention_heads": 0}),
        ("gpt2", {"hidden_size": 2**62, "intermediate_size": None}),
        ("gpt2", {"rms_norm_eps": NAN}),
        ("gpt2", {"max_position_embeddings": 0}),
    ],
)
def test_impossible_numbers_of_a_folder_are_refused(family: str, change: dict[str, Any]) -> None:
    with pytest.raises(QuinzeError):
        from_hugging_face("it", FOLDER | {"model_type": family} | change)


PAIRS: dict[str, Any] = {
    "context_length": 128, "embedding_length": 32, "block_count": 2, "feed_forward_length": 32,
    "attention.head_count": 2, "attention.head_count_kv": 1, "attention.key_length": 16,
    "attention.value_length": 16, "attention.layer_norm_rms_epsilon": 1e-6,
}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("gemma2", {"attention.sliding_window": -1}),
        ("gemma2", {"attention.sliding_window": 2**40}),
        ("gemma2", {"block_count": 2**62}),
        ("gemma2", {"attn_logit_softcapping": NAN}),
        ("gemma2", {"final_logit_softcapping": -1.0}),
        ("gemma2", {"attention.scale": -1.0}),
        ("gemma2", {"attention.scale": INF}),
        ("gemma2", {"embedding_length": 0}),
        ("gemma3", {"rope.freq_base_swa": 0.0}),
        ("gemma3", {"attention.sliding_window": 8, "attention.sliding_window_pattern": -3}),
        ("gemma3", {"attention.sliding_window": 8, "attention.sliding_window_pattern": np.array([True])}),
        ("gemma3", {"attention.sliding_window": 8, "attention.sliding_window_pattern": "all"}),
        ("phi3", {"rope.dimension_count": 0}),
        ("phi3", {"rope.dimension_count": 18}),
        ("phi3", {"rope.dimension_count": 5}),
        ("qwen2", {"rope.scaling.type": "yarn", "rope.scaling.factor": -4.0}),
        ("qwen2", {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0,
                   "rope.scaling.original_context_length": 0}),
        ("qwen2", {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0,
                   "rope.scaling.attn_factor": 0.0}),
        ("qwen2", {"rope.scaling.type": "yarn", "rope.scaling.yarn_log_multiplier": 0.1}),
        ("qwen2", {"rope.scaling.type": 7}),
        ("gpt2", {"attention.layer_norm_epsilon": None}),
        ("gpt2", {"attention.layer_norm_epsilon": 2.0}),
    ],
)  # fmt: skip
def test_impossible_values_of_a_gguf_are_refused(family: str, change: dict[str, Any]) -> None:
    pairs = {f"{family}.{key}": value for key, value in (PAIRS | change).items()}
    with pytest.raises(QuinzeError):
        from_gguf("it", {"general.architecture": family, **pairs}, 64, ())


def config(**changes: Any) -> ModelConfig:
    numbers = {**FOLDER, "rope_theta": 1e4, "rope_interleaved": False, "tie_word_embeddings": True}
    return ModelConfig(name="it", **(numbers | changes))


def written(path: Path, family: str, made: ModelConfig, pairs: dict[str, Any], **other: np.ndarray) -> Path:
    """A GGUF of random numbers; `other` replaces tensors, by names with _ for what is no letter."""
    rng = np.random.default_rng(15)
    tensors = []
    for name, shape in shapes(made).items():
        theirs = gguf_name(name, made)
        array = other.pop(theirs.replace(".", "_"), rng.standard_normal(shape))
        tensors.append(encode(theirs, array, TensorType.F32))
    tensors += [encode(f"{name}.weight", array, TensorType.F32) for name, array in other.items()]
    metadata = {"general.architecture": family} | {f"{family}.{k}": v for k, v in (PAIRS | pairs).items()}
    write_gguf(path, metadata, tensors)
    return path


@pytest.mark.parametrize(
    ("tensor", "array"),
    [
        ("blk_0_attn_q_norm_weight", np.ones(15)),
        ("blk_0_attn_q_norm_weight", np.full(16, NAN)),
        ("blk_1_attn_k_norm_weight", np.ones((1, 16))),
        ("blk_0_attn_q_weight", np.ones((33, 32))),
        ("blk_0_attn_q_weight", np.ones(32 * 32)),
    ],
)
def test_misshapen_tensors_of_qwen3_are_refused(tmp_path: Path, tensor: str, array: np.ndarray) -> None:
    made = config(qk_norm="head")
    load_model(written(tmp_path / "whole.gguf", "qwen3", made, {}))
    with pytest.raises(FileFormatError):
        load_model(written(tmp_path / "it.gguf", "qwen3", made, {}, **{tensor: array}))


@pytest.mark.parametrize(
    "factors",
    [np.ones(7), np.zeros(8), np.full(8, NAN), np.full(8, -1.0), np.ones((2, 8)), np.ones(5000)],
)
@pytest.mark.parametrize("names", [("rope_freqs",), ("rope_factors_short", "rope_factors_long")])
def test_rope_factors_that_make_no_sense_are_refused(
    tmp_path: Path, factors: np.ndarray, names: tuple[str, ...]
) -> None:
    good = dict.fromkeys(names, np.ones(8))
    load_model(written(tmp_path / "whole.gguf", "qwen2", config(qkv_bias=True), {}, **good))
    with pytest.raises(FileFormatError):
        load_model(
            written(tmp_path / "it.gguf", "qwen2", config(qkv_bias=True), {}, **{**good, names[-1]: factors})
        )


@pytest.mark.parametrize("shape", [(1, 32), (0, 32), (64, 31), (65, 32), (64,), (2, 32, 32)])
def test_fused_tensors_of_the_wrong_size_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    folder = tmp_path / "it"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(FOLDER | {"model_type": "phi3"}))
    whole = {
        name: np.ones(size, np.float32)
        for name, size in shapes(config(tie_word_embeddings=False)).items()
        if "q_proj" not in name and "k_proj" not in name and "v_proj" not in name
    }
    for layer in range(2):
        whole[f"model.layers.{layer}.self_attn.qkv_proj.weight"] = np.ones((64, 32), np.float32)
    safetensors.numpy.save_file(whole, folder / "model.safetensors")
    load_model(folder)
    whole["model.layers.1.self_attn.qkv_proj.weight"] = np.ones(shape, np.float32)
    safetensors.numpy.save_file(whole, folder / "model.safetensors")
    with pytest.raises(FileFormatError):
        load_model(folder)


def test_two_names_for_one_tensor_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "it"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(FOLDER | {"model_type": "gemma3_text"}))
    made = config(qk_norm="head", post_norms=True)
    whole = {name: np.ones(size, np.float32) for name, size in shapes(made).items()}
    safetensors.numpy.save_file(whole, folder / "model.safetensors")
    load_model(folder)
    whole["language_model.model.norm.weight"] = np.zeros(32, np.float32)
    safetensors.numpy.save_file(whole, folder / "model.safetensors")
    with pytest.raises(FileFormatError, match="Two tensors"):
        load_model(folder)
