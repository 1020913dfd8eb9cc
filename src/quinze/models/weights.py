"""A model: its config, and the tensors that this config calls for, each of the right shape.

Given a path; returns a Model whose tensors bear Hugging Face's names, whatever the file calls them.
A tensor too many is refused like one too few: ignored weights give wrong words. Knows nothing of the engine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from quinze.errors import FileFormatError, UnsupportedModelError
from quinze.formats.checkpoint import Checkpoint, Tensor, TensorType, open_checkpoint
from quinze.formats.quants import decode
from quinze.models.config import ModelConfig, from_gguf, from_hugging_face, from_llama2c

GGUF_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
GGUF_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
ROPE_FACTORS = "rope_freqs.weight"


@dataclass(frozen=True, slots=True)
class Model:
    """A model ready for the engine; its weights are still in the mapped file."""

    config: ModelConfig
    tensors: Mapping[str, Tensor]
    """Under Hugging Face's names; no "lm_head.weight" where it is tied."""
    checkpoint: Checkpoint


def load_model(path: Path) -> Model:
    """Open a GGUF, a Hugging Face folder or a llama2.c file, and check it whole."""
    checkpoint = open_checkpoint(path)
    config, tensors = _READ[checkpoint.format](checkpoint)
    _check(config, tensors)
    return Model(config, tensors, checkpoint)


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor that a Llama of this config has. Matrices are (rows, cols): out features, in features."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    layer = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    wanted: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, hidden)}
    for i in range(config.num_hidden_layers):
        wanted |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    wanted["model.norm.weight"] = (hidden,)
    if not config.tie_word_embeddings:
        wanted["lm_head.weight"] = (config.vocab_size, hidden)
    return wanted


def _from_gguf(checkpoint: Checkpoint) -> tuple[ModelConfig, dict[str, Tensor]]:
    named = {_hugging_face_name(name): tensor for name, tensor in checkpoint.tensors.items()}
    tensors = {name: replace(tensor, name=name) for name, tensor in named.items()}
    factors = tensors.pop(ROPE_FACTORS, None)
    embedding = tensors.get("model.embed_tokens.weight")
    config = from_gguf(
        checkpoint.path.stem,
        checkpoint.metadata,
        vocab_size=embedding.shape[0]
        if embedding
        else len(checkpoint.metadata.get("tokenizer.ggml.tokens", ())),
        tied="lm_head.weight" not in tensors,
    )
    if factors is not None:
        if factors.type is not TensorType.F32 or factors.shape != (config.head_dim // 2,):
            raise FileFormatError(
                f"{ROPE_FACTORS} of {config.name} should be {config.head_dim // 2} numbers in F32."
            )
        config = replace(config, rope_factors=tuple(decode(factors).tolist()))
    return config, tensors


def _from_safetensors(checkpoint: Checkpoint) -> tuple[ModelConfig, dict[str, Tensor]]:
    path = checkpoint.path
    config = from_hugging_face((path if path.is_dir() else path.parent).resolve().name, checkpoint.metadata)
    # Old conversions store RoPE's frequencies, which follow from the config.
    tensors = {n: t for n, t in checkpoint.tensors.items() if not n.endswith(".rotary_emb.inv_freq")}
    if config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    return config, tensors


def _from_llama2c(checkpoint: Checkpoint) -> tuple[ModelConfig, dict[str, Tensor]]:
    return from_llama2c(checkpoint.path.stem, checkpoint.metadata), dict(checkpoint.tensors)


_READ = {"gguf": _from_gguf, "safetensors": _from_safetensors, "llama2c": _from_llama2c}


def _hugging_face_name(name: str) -> str:
    """A GGUF's name for a tensor, translated; one that it does not know stays and is refused later."""
    layer = re.fullmatch(r"blk\.(\d{1,4})\.(\w+)\.weight", name)
    if layer and layer[2] in GGUF_LAYER_NAMES:
        return f"model.layers.{int(layer[1])}.{GGUF_LAYER_NAMES[layer[2]]}.weight"
    return GGUF_NAMES.get(name, name)


def _check(config: ModelConfig, tensors: Mapping[str, Tensor]) -> None:
    wanted = shapes(config)
    missing = [name for name in wanted if name not in tensors]
    if missing:
        only = " It holds a vocabulary and no weights." if not tensors else ""
        raise FileFormatError(
            f"{config.name} lacks {len(missing):,} of {len(wanted):,} tensors, the first {missing[0]}.{only}",
            hint="Download or copy it again, all of its parts.",
        )
    extra = sorted(set(tensors) - set(wanted))
    if extra:
        raise UnsupportedModelError(
            f"{config.name} has {len(extra):,} tensors that a Llama has not, the first {extra[0][:120]}.",
            hint="Quinze would have to leave them out, and the model would talk nonsense.",
        )
    for name, shape in wanted.items():
        tensor = tensors[name]
        if tensor.shape != shape:
            raise FileFormatError(
                f"{name} of {config.name} has the shape {tensor.shape}; its configuration calls for {shape}."
            )
        if len(shape) == 1 and tensor.type.block > 1:
            raise FileFormatError(f"{name} of {config.name} is quantized, which norms never are.")
    norms = [tensors[name] for name, shape in wanted.items() if len(shape) == 1]
    if not all(np.isfinite(decode(norm)).all() for norm in norms):
        raise FileFormatError(f"{config.name} has norms that are not numbers (NaN or infinite).")
