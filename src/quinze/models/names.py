"""The names of tensors: GGUF's and the families' own, put into Llama's; and what lies fused, parted.

Given a file's tensors; returns views of them under the names that shapes.py calls for. Copies nothing but
GPT-2's matrices from a folder, which lie there columns first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from quinze.errors import FileFormatError
from quinze.formats.checkpoint import Tensor
from quinze.models.config import ModelConfig
from quinze.models.expert_names import experts_apart, of_gguf, of_mixtral

GGUF_NAMES = {
    "token_embd": "model.embed_tokens",
    "position_embd": "model.embed_positions",
    "output_norm": "model.norm",
    "output": "lm_head",
}
GGUF_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "post_ffw_norm": "post_feedforward_layernorm",
}
FUSED_UP = {"phi3"}
"""Architectures whose GGUF calls the fused gate and up "ffn_up"."""

GPT2_NAMES = {
    "wte": "model.embed_tokens",
    "wpe": "model.embed_positions",
    "ln_f": "model.norm",
    "ln_1": "input_layernorm",
    "ln_2": "post_attention_layernorm",
    "attn.c_attn": "self_attn.qkv_proj",
    "attn.c_proj": "self_attn.o_proj",
    "mlp.c_fc": "mlp.up_proj",
    "mlp.c_proj": "mlp.down_proj",
}
LEFT_OUT = (
    # Old folders store RoPE's frequencies and GPT-2's masks, which follow from the config.
    r".*\.rotary_emb\.inv_freq|(transformer\.)?h\.\d+\.attn\.(masked_)?bias|"
    # What sees, in a model of which we run the words.
    r"(model\.)?(vision_tower|multi_modal_projector)\..*"
)


def from_gguf_names(tensors: Mapping[str, Tensor], architecture: str) -> dict[str, Tensor]:
    """One that is not known keeps its name, and is refused later."""
    return _renamed(tensors, {name: _of_gguf(name, architecture, tensors) for name in tensors})


def _of_gguf(name: str, architecture: str, all_: Mapping[str, Tensor]) -> str:
    layer = re.fullmatch(r"blk\.(\d{1,4})\.([\w.]+)\.(weight|bias)", name)
    if layer is None:
        stem, _, part = name.rpartition(".")
        return f"{GGUF_NAMES[stem]}.{part}" if stem in GGUF_NAMES else name
    index, stem, part = layer.groups()
    found = GGUF_LAYER_NAMES.get(stem) or of_gguf(stem)
    if stem == "ffn_norm" and f"blk.{index}.post_ffw_norm.weight" in all_:
        found = "pre_feedforward_layernorm"
    if stem == "ffn_up" and architecture in FUSED_UP and f"blk.{index}.ffn_gate.weight" not in all_:
        found = "mlp.gate_up_proj"
    return name if found is None else f"model.layers.{int(index)}.{found}.{part}"


def gguf_name(name: str, config: ModelConfig) -> str:
    """What a GGUF calls a tensor of ours."""
    top = {ours: theirs for theirs, ours in GGUF_NAMES.items()}
    stem, _, part = name.rpartition(".")
    if stem in top:
        return f"{top[stem]}.{part}"
    _, _, layer, rest = stem.split(".", 3)
    layers = {ours: theirs for theirs, ours in GGUF_LAYER_NAMES.items()}
    if config.post_norms:
        layers |= {
            "post_attention_layernorm": "post_attention_norm",
            "pre_feedforward_layernorm": "ffn_norm",
        }
    return f"blk.{layer}.{layers[rest]}.{part}"


def from_hugging_face_names(tensors: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """A folder's tensors, without what follows from the config or is nobody's business here."""
    kept = {name: t for name, t in tensors.items() if not re.fullmatch(LEFT_OUT, name)}
    if config.architecture == "gpt2":
        found = _renamed(kept, {name: _of_gpt2(name) for name in kept})
        found = {name: _turned(t) if _lies_turned(name, t) else t for name, t in found.items()}
    else:
        found = _renamed(kept, {name: of_mixtral(of_words(name)) for name in kept})
    if config.tie_word_embeddings:
        found.pop("lm_head.weight", None)
    return found


def of_words(name: str) -> str:
    """The part of a model that also sees which holds the words, under two customs."""
    for prefix in ("language_model.model.", "model.language_model."):
        if name.startswith(prefix):
            return "model." + name.removeprefix(prefix)
    # A folder of the model alone, without its head, leaves "model." out: Qwen3-Embedding's does.
    bare = name.startswith(("embed_tokens.", "layers.", "norm."))
    return f"model.{name}" if bare else name.removeprefix("language_model.")


def _of_gpt2(name: str) -> str:
    name = name.removeprefix("transformer.")
    layer = re.fullmatch(r"h\.(\d{1,4})\.(.+)\.(weight|bias)", name)
    if layer and layer[2] in GPT2_NAMES:
        return f"model.layers.{int(layer[1])}.{GPT2_NAMES[layer[2]]}.{layer[3]}"
    stem, _, part = name.rpartition(".")
    return f"{GPT2_NAMES[stem]}.{part}" if stem in GPT2_NAMES else name


def _lies_turned(name: str, tensor: Tensor) -> bool:
    return "_proj.weight" in name and len(tensor.shape) == 2


def _turned(tensor: Tensor) -> Tensor:
    """(in, out) -> (out, in), in memory."""
    number = np.dtype(f"u{tensor.type.bytes}")
    turned = np.ascontiguousarray(tensor.data.view(number).reshape(tensor.shape).T)
    return replace(tensor, shape=turned.shape, data=turned.reshape(-1).view(np.uint8))


def _renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        wanted = names[name]
        if wanted in found:
            raise FileFormatError(f"Two tensors of the file are {wanted[:120]}; one of them is {name[:120]}.")
        found[wanted] = replace(tensor, name=wanted)
    return found


def fused_rows(config: ModelConfig) -> dict[str, dict[str, int]]:
    """A fused matrix -> its parts, in order, and how many rows each has."""
    queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    inner = config.intermediate_size
    return {
        "self_attn.qkv_proj": {
            "self_attn.q_proj": queries,
            "self_attn.k_proj": keys,
            "self_attn.v_proj": keys,
        },
        "mlp.gate_up_proj": {"mlp.gate_proj": inner, "mlp.up_proj": inner},
    }


def parted(tensors: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Fused tensors as views of their parts: queries, keys and values; gate and up; experts."""
    fused = fused_rows(config)
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        stem, _, part = name.rpartition(".")
        whole = next((whole for whole in fused if stem.endswith("." + whole)), None)
        if whole is None:
            found |= experts_apart(tensor, config) or {name: tensor}
            continue
        before = stem.removesuffix(whole)
        parts = {f"{before}{piece}.{part}": rows for piece, rows in fused[whole].items()}
        twice = next((one for one in parts if one in tensors), None)
        if twice is not None:
            raise FileFormatError(f"{config.name} has {twice[:120]} both by itself and within {name[:120]}.")
        found |= _split(tensor, parts, config.name)
    return found


def _split(tensor: Tensor, rows: Mapping[str, int], model: str) -> dict[str, Tensor]:
    total = sum(rows.values())
    if len(tensor.shape) not in (1, 2) or tensor.shape[0] != total:
        raise FileFormatError(
            f"{tensor.name} of {model} has the shape {tensor.shape}; its configuration calls for "
            f"{total:,} rows."
        )
    row_bytes = len(tensor.data) // total
    found: dict[str, Tensor] = {}
    at = 0
    for name, count in rows.items():
        data = tensor.data[at * row_bytes : (at + count) * row_bytes]
        found[name] = replace(tensor, name=name, shape=(count, *tensor.shape[1:]), data=data)
        at += count
    return found
