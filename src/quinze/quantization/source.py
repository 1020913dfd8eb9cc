"""What is to be quantized, as GGUF would have it: tensors under its names, and its key-value pairs.

A GGUF file is taken as it is, whatever its architecture. Hugging Face folders and llama2.c files of the Llama
kind get GGUF's names, keys, vocabulary, and its order of the rows of queries and keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from quinze.errors import UnsupportedModelError
from quinze.formats.checkpoint import Checkpoint, Tensor, TensorType, open_checkpoint
from quinze.formats.part_names import part_files
from quinze.formats.quants import encode
from quinze.models.config import ModelConfig
from quinze.models.weights import load_model
from quinze.quantization.vocabulary import vocabulary_keys

CONVERTED = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""Architectures that are converted from other formats, and GGUF's names for them."""
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
ROWS_BY_HEAD = ("attn_q", "attn_k")


@dataclass(frozen=True, slots=True)
class Source:
    """A model, ready to be written as GGUF."""

    path: Path
    tensors: list[Tensor]
    metadata: Mapping[str, Any]
    layers: int
    bytes: int
    files: list[Path]
    """That must not be written over."""
    heads: Mapping[str, int] = field(default_factory=dict)
    """Tensors whose rows have RoPE's halves one after the other and must be interleaved, and their heads."""

    def tensor(self, tensor: Tensor) -> Tensor:
        """One of `tensors` with its rows in the order of GGUF; copies those that change."""
        heads = self.heads.get(tensor.name)
        if heads is None:
            return tensor
        rows = tensor.data.reshape(heads, 2, tensor.shape[0] // heads // 2, -1)
        return replace(tensor, data=np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(-1))


def open_source(path: Path) -> Source:
    """Any readable checkpoint; UnsupportedModelError for what cannot become a GGUF."""
    checkpoint = open_checkpoint(path)
    return _gguf(checkpoint) if checkpoint.format == "gguf" else _converted(path)


def _gguf(checkpoint: Checkpoint) -> Source:
    metadata = {key: value for key, value in checkpoint.metadata.items() if not key.startswith("split.")}
    layers = metadata.get(f"{metadata.get('general.architecture')}.block_count")
    if not checkpoint.tensors:
        raise UnsupportedModelError(f"{checkpoint.path.name} holds a vocabulary and no weights.")
    return Source(
        checkpoint.path,
        list(checkpoint.tensors.values()),
        metadata,
        layers if type(layers) is int else 0,
        checkpoint.bytes,
        part_files(checkpoint.path),
    )


def _converted(path: Path) -> Source:
    model = load_model(path)
    config = model.config
    architecture = CONVERTED.get(config.architecture)
    if architecture is None:
        raise UnsupportedModelError(
            f"{config.name} is a {config.architecture!r} model; Quinze converts "
            f"{', '.join(CONVERTED)} from folders.",
            hint="Take its GGUF file: that can be quantized whatever its architecture.",
        )
    _check(architecture, config)
    tensors, heads = [], {}
    for name, tensor in model.tensors.items():
        renamed = gguf_name(name)
        if renamed is None:
            raise UnsupportedModelError(f"{config.name} has {name}, for which GGUF has no name.")
        tensors.append(replace(tensor, name=renamed))
        part = renamed.split(".")[-2]
        if architecture == "llama" and part in ROWS_BY_HEAD and not config.rope_interleaved:
            heads[renamed] = config.num_attention_heads if part == "attn_q" else config.num_key_value_heads
    if config.rope_factors is not None:
        tensors.append(encode("rope_freqs.weight", np.array(config.rope_factors), TensorType.F32))
    metadata = _keys(architecture, config) | vocabulary_keys(path, model.checkpoint, config.vocab_size)
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    return Source(path, tensors, metadata, config.num_hidden_layers, model.checkpoint.bytes, files, heads)


def _check(architecture: str, config: ModelConfig) -> None:
    """Refuse what GGUF cannot say of these architectures: the file would run, and talk nonsense."""
    scaled = config.rope_factors is not None and architecture != "llama"
    if scaled or config.rope_scale != 1.0 or config.long_rope_factors is not None:
        raise UnsupportedModelError(
            f"{config.name} scales its rotary positions in a way that Quinze cannot write into a GGUF file.",
            hint="Take the model's GGUF file and quantize that.",
        )


def gguf_name(name: str) -> str | None:
    """GGUF's name for a tensor of Hugging Face's name; None where it has none.

    >>> gguf_name("model.layers.3.mlp.down_proj.weight")
    'blk.3.ffn_down.weight'
    """
    stem, _, part = name.rpartition(".")
    if stem in NAMES:
        return f"{NAMES[stem]}.{part}"
    pieces = stem.split(".", 3)
    if pieces[:2] != ["model", "layers"] or len(pieces) < 4 or pieces[3] not in LAYER_NAMES:
        return None
    return f"blk.{pieces[2]}.{LAYER_NAMES[pieces[3]]}.{part}"


def _keys(architecture: str, config: ModelConfig) -> dict[str, Any]:
    """The key-value pairs that say what the model is."""
    # llama.cpp knows no window of these architectures: within its length there is none.
    window = min((window for window in config.windows if window), default=config.max_position_embeddings)
    numbers: dict[str, Any] = {
        "context_length": min(window, config.max_position_embeddings),
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.dimension_count": config.rotary_dim or config.head_dim,
        "rope.freq_base": float(config.rope_theta),
        "vocab_size": config.vocab_size,
    }
    return {
        "general.architecture": architecture,
        "general.type": "model",
        "general.name": config.name,
        **{f"{architecture}.{key}": value for key, value in numbers.items()},
    }
