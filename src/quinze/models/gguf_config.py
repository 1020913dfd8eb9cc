"""A ModelConfig from a GGUF's key-value pairs, by llama.cpp's names for them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from quinze.errors import FileFormatError
from quinze.models.config import ModelConfig
from quinze.models.families import Family, derived, family, unsupported, windows
from quinze.models.fields import Fields
from quinze.models.rope import scaling

LAYER = "model.layers.0."


def from_gguf(
    name: str,
    metadata: Mapping[str, Any],
    vocab_size: int,
    tensors: Collection[str],
    long_factors: Mapping[str, list[float]] | None = None,
) -> ModelConfig:
    """From the pairs, and from what only the tensors tell.

    vocab_size    rows of its embedding, which no key states
    tensors       their names, Hugging Face's
    long_factors  LongRoPE's "short_factor" and "long_factor", which a GGUF has as tensors
    """
    architecture = Fields(name, metadata).text("general.architecture")
    kind = family(name, architecture)
    values = {**kind.gguf_defaults, **_without_prefix(metadata, architecture)}
    read = Fields(name, values)
    heads, hidden = read.number("attention.head_count"), read.number("embedding_length")
    head_dim = read.number("attention.key_length", hidden // max(heads, 1))
    if read.number("attention.value_length", head_dim) != head_dim:
        raise unsupported(name, "has keys and values of different length")
    layers = read.number("block_count")
    wide = layers == kind.wide_heads_from and heads > 0 and hidden > 0
    layer_norm = kind.traits.get("norm") == "layer"
    numbers: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": hidden,
        "intermediate_size": read.number("feed_forward_length", read.number("expert_feed_forward_length", 0)),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": read.number("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": read.number("context_length"),
        "rms_norm_eps": read.real(f"attention.layer_norm{'' if layer_norm else '_rms'}_epsilon"),
        "tie_word_embeddings": "lm_head.weight" not in tensors,
        "qkv_bias": LAYER + "self_attn.q_proj.bias" in tensors,
        "output_bias": LAYER + "self_attn.o_proj.bias" in tensors,
        "mlp_bias": LAYER + "mlp.down_proj.bias" in tensors,
        "windows": _windows(read, kind),
        "attention_scale": read.real("attention.scale", math.sqrt(heads / hidden) if wide else 0.0) or None,
        "attention_softcap": read.real("attn_logit_softcapping", 0.0),
        "logit_softcap": read.real("final_logit_softcapping", 0.0),
    }
    numbers |= _experts(read, numbers["intermediate_size"], tensors)
    numbers |= {**derived(kind, hidden), **kind.traits}
    if not kind.traits.get("learned_positions"):
        numbers |= _rope(read, head_dim, long_factors)
    if kind.local_rope:
        numbers["local_rope_theta"] = read.real("rope.freq_base_swa")
    return ModelConfig(
        name=name,
        architecture=architecture,
        rope_interleaved=kind.gguf_interleaved,
        **{"rope_theta": 10_000.0, **numbers},
    )


def _experts(read: Fields, inner: int, tensors: Collection[str]) -> dict[str, Any]:
    """What a mixture of experts has besides; empty for a model that is none."""
    experts, layers = read.number("expert_count", 0), read.number("block_count")
    if not experts:
        return {}
    plain_shares = read.real("expert_weights_scale", 1.0) in (0, 1)
    if read.number("expert_gating_func", 1) not in (0, 1) or not plain_shares:
        raise unsupported(read.name, "weighs its experts in a way of its own")
    each = read.number("expert_feed_forward_length", inner)
    has_shared = any("shared_expert_gate" in name for name in tensors)
    shared = read.number("expert_shared_feed_forward_length", 0) if has_shared else 0
    plain = tuple(i for i in range(min(layers, 2**12)) if f"model.layers.{i}.mlp.gate.weight" not in tensors)
    return {
        "num_experts": experts,
        "num_experts_per_tok": read.number("expert_used_count"),
        "moe_intermediate_size": each,
        "norm_topk_prob": read.flag("expert_weights_norm", False),
        "shared_expert_intermediate_size": shared,
        "plain_layers": plain,
        "intermediate_size": inner if plain else each,
    }


def _without_prefix(metadata: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    prefix = f"{architecture}."
    return {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}


def _windows(read: Fields, kind: Family) -> tuple[int, ...]:
    window, layers = read.number("attention.sliding_window", 0), read.number("block_count")
    pattern = read.values.get("attention.sliding_window_pattern")
    if window and isinstance(pattern, np.ndarray) and pattern.dtype.kind == "b":
        return tuple(window if slides else 0 for slides in pattern.tolist())
    if pattern is not None and kind.window_every:
        return windows(kind, window, layers, read.number("attention.sliding_window_pattern"))
    return windows(kind, window, layers)


def _rope(read: Fields, head_dim: int, long_factors: Mapping[str, list[float]] | None) -> dict[str, Any]:
    rotated, theta = read.number("rope.dimension_count", head_dim), read.real("rope.freq_base", 10_000.0)
    if not 0 < rotated <= head_dim or rotated % 2:
        raise FileFormatError(f"rope.dimension_count of {read.name} is {rotated:,}.")
    if read.real("rope.scaling.yarn_log_multiplier", 0.0):
        raise unsupported(read.name, "scales RoPE by YaRN with a logarithm of its own")
    words = {
        "rope.scaling.factor": "factor",
        "rope.scaling.original_context_length": "original_max_position_embeddings",
        "rope.scaling.yarn_beta_fast": "beta_fast",
        "rope.scaling.yarn_beta_slow": "beta_slow",
        # llama.cpp multiplies YaRN's own scale by it; for LongRoPE it is the whole scale.
        "rope.scaling.attn_factor": "attention_factor" if long_factors else "attn_factor",
    }
    table: dict[str, Any] = {word: read.values[key] for key, word in words.items() if read.has(key)}
    table["rope_type"] = read.text("rope.scaling.type") if read.has("rope.scaling.type") else "none"
    if long_factors:
        table |= {**long_factors, "rope_type": "longrope"}
    found = scaling(read.name, table, rotated, theta, read.number("context_length"), None)
    return {"rope_theta": theta, "rotary_dim": rotated if rotated != head_dim else None, **found}
