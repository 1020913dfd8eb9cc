"""A ModelConfig from config.json, as transformers 4 and 5 write it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quinze.errors import FileFormatError
from quinze.models.config import ModelConfig
from quinze.models.families import RENAMED, SAME, Family, derived, family, unsupported, windows
from quinze.models.fields import Fields
from quinze.models.rope import scaling

ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu", "gelu_new": "gelu"}
NOT_YET = (
    "add_cross_attention",
    "clip_qkv",
    "scale_attn_by_inverse_layer_idx",
    "use_bidirectional_attention",
)
"""Switches that change what is computed."""


def from_hugging_face(name: str, config: Mapping[str, Any]) -> ModelConfig:
    """UnsupportedModelError for what the engine cannot run, FileFormatError for what makes no sense."""
    if isinstance(config.get("text_config"), dict):
        # A model that also sees: its words are a model of their own.
        config = {**config["text_config"], "model_type": config.get("model_type")}
    architecture = Fields(name, config).text("model_type")
    kind = family(name, architecture)
    # A null is a statement too: Mistral's later folders switch their window off by it.
    values = {**kind.defaults, **{RENAMED.get(field, field): value for field, value in config.items()}}
    _refuse_what_we_cannot(name, values, kind)
    read = Fields(name, values)
    heads, hidden = read.number("num_attention_heads"), read.number("hidden_size")
    head_dim = read.number("head_dim", hidden // max(heads, 1))
    scalar = read.real("query_pre_attn_scalar", 0.0)
    if scalar < 0:
        raise FileFormatError(f"query_pre_attn_scalar of {name} is {scalar:g}.")
    bias = read.flag("attention_bias", False)
    numbers: dict[str, Any] = {
        "vocab_size": read.number("vocab_size"),
        "hidden_size": hidden,
        "intermediate_size": read.number("intermediate_size", 4 * hidden),
        "num_hidden_layers": read.number("num_hidden_layers"),
        "num_attention_heads": heads,
        "num_key_value_heads": read.number("num_key_value_heads", heads),
        "head_dim": head_dim,
        "max_position_embeddings": read.number("max_position_embeddings"),
        "rms_norm_eps": read.real("rms_norm_eps"),
        "tie_word_embeddings": read.flag("tie_word_embeddings", False),
        "qkv_bias": bias,
        "output_bias": bias,
        "mlp_bias": read.flag("mlp_bias", False),
        "windows": _windows(read, kind),
        "attention_scale": scalar**-0.5 if scalar else None,
        "attention_softcap": read.real("attn_logit_softcapping", 0.0),
        "logit_softcap": read.real("final_logit_softcapping", 0.0),
    }
    numbers |= _experts(read, numbers["intermediate_size"])
    numbers |= {**derived(kind, hidden), **kind.traits, **kind.folder_traits}
    if not kind.traits.get("learned_positions"):
        numbers |= _rope(read, head_dim)
    if kind.local_rope:
        numbers["local_rope_theta"] = _local_theta(read)
    return ModelConfig(
        name=name,
        architecture=SAME.get(architecture, architecture),
        rope_interleaved=False,
        **{"rope_theta": 10_000.0, **numbers},
    )


def _experts(read: Fields, inner: int) -> dict[str, Any]:
    """What a mixture of experts has besides; empty for a model that is none."""
    experts = read.number("num_experts", 0)
    if not experts:
        return {}
    each, layers = read.number("moe_intermediate_size", inner), read.number("num_hidden_layers")
    named, step = read.values.get("mlp_only_layers") or [], max(1, read.number("decoder_sparse_step", 1))
    if not isinstance(named, list) or len(named) > 2**12 or not all(type(i) is int for i in named):
        raise FileFormatError(f"mlp_only_layers of {read.name} is {named!r:.60}; it must list numbers.")
    plain = tuple(i for i in range(min(layers, 2**12)) if i in named or (i + 1) % step)
    return {
        "num_experts": experts,
        "num_experts_per_tok": read.number("num_experts_per_tok"),
        "moe_intermediate_size": each,
        "norm_topk_prob": read.flag("norm_topk_prob", False),
        "shared_expert_intermediate_size": read.number("shared_expert_intermediate_size", 0),
        "plain_layers": plain,
        "intermediate_size": inner if plain else each,
    }


def _refuse_what_we_cannot(name: str, values: Mapping[str, Any], kind: Family) -> None:
    activation = values.get("hidden_activation") or values.get("hidden_act") or "silu"
    wanted = kind.traits.get("activation", "silu")
    # Gemma's first folders say "gelu" and mean its tanh formula.
    legacy = activation == "gelu" and kind.scaled_embedding
    if not legacy and (not isinstance(activation, str) or ACTIVATIONS.get(activation) != wanted):
        raise unsupported(name, f"uses the activation {activation!r:.40}")
    if values.get("quantization_config"):
        raise unsupported(name, "is quantized in a format of its own (quantization_config)")
    for field in NOT_YET:
        if values.get(field):
            raise unsupported(name, f"has {field}")
    if values.get("scale_attn_weights") is False:
        raise unsupported(name, "does not scale its attention (scale_attn_weights)")


def _windows(read: Fields, kind: Family) -> tuple[int, ...]:
    layers = read.number("num_hidden_layers")
    window = read.number("sliding_window", 0)
    types = read.values.get("layer_types")
    if not window or read.values.get("use_sliding_window") is False:
        return ()
    if types is None:
        if not read.has("use_sliding_window") and read.has("max_window_layers"):
            return ()  # Qwen's default is off
        if read.has("max_window_layers"):
            first = read.number("max_window_layers")
            return tuple(window if i >= first else 0 for i in range(min(layers, 2**12)))
        every = read.number("sliding_window_pattern", kind.window_every) if kind.window_every else None
        return windows(kind, window, layers, every)
    known = {"full_attention": 0, "sliding_attention": window}
    if not isinstance(types, list) or not all(isinstance(layer, str) for layer in types):
        raise FileFormatError(f"layer_types of {read.name} is {types!r:.60}; it must be a list of texts.")
    strange = next((layer for layer in types if layer not in known), None)
    if strange is not None:
        raise unsupported(read.name, f"has layers of the type {strange[:40]!r}")
    return (
        tuple(known[layer] for layer in types) if len(set(types)) > 1 or "full_attention" not in types else ()
    )


def _tables(read: Fields) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """RoPE's numbers of most layers, and of those with a window where they have their own.

    transformers 5 writes theta and scaling together as rope_parameters.
    """
    table = read.table("rope_parameters" if read.values.get("rope_parameters") else "rope_scaling")
    if "full_attention" in table or "sliding_attention" in table:
        both = Fields(read.name, table)
        return both.table("full_attention"), both.table("sliding_attention")
    return table, {}


def _rope(read: Fields, head_dim: int) -> dict[str, Any]:
    table, _ = _tables(read)
    theta = Fields(read.name, table).real("rope_theta", read.real("rope_theta", 10_000.0))
    share = Fields(read.name, table).real("partial_rotary_factor", read.real("partial_rotary_factor", 1.0))
    if not 0 < share <= 1:
        raise FileFormatError(f"partial_rotary_factor of {read.name} is {share:g}.")
    rotated = int(head_dim * share)
    if read.values.get("model_type") == "phi3" and table.get("type") in ("su", "yarn"):
        table = {**table, "type": "longrope"}  # as its first folders call it
    original = read.number("original_max_position_embeddings", 0) or None
    length = read.number("max_position_embeddings")
    found = scaling(read.name, table, rotated, theta, length, original)
    return {"rope_theta": theta, "rotary_dim": rotated if rotated != head_dim else None, **found}


def _local_theta(read: Fields) -> float:
    _, local = _tables(read)
    if local.get("rope_type", "default") != "default":
        raise unsupported(read.name, "scales RoPE in the layers with a window")
    return Fields(read.name, local).real("rope_theta", read.real("rope_local_base_freq"))
