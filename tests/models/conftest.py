"""Tiny random Llamas, made by transformers and written in every format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from quinze.formats.checkpoint import TensorType

LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


@pytest.fixture(scope="session")
def make_llama() -> Callable[..., Any]:
    """`make_llama(**config)`: a LlamaForCausalLM with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    def make(**changes: Any) -> Any:
        numbers = {
            "vocab_size": 320,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
        }
        torch.manual_seed(15)
        return LlamaForCausalLM(LlamaConfig(**(numbers | changes)))

    return make


@pytest.fixture(scope="session")
def write_peer_gguf() -> Callable[..., Path]:
    """`write_peer_gguf(path, model, type)`: the model as llama.cpp stores it, written by the gguf package."""

    def write(path: Path, model: Any, kind: TensorType = TensorType.F32) -> Path:
        config = model.config
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_dimension_count(config.head_dim)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        quantization = gguf.GGMLQuantizationType[kind.name]
        for name, tensor in model.state_dict().items():
            if name == "lm_head.weight" and config.tie_word_embeddings:
                continue
            array = tensor.numpy()
            if ".q_proj" in name or ".k_proj" in name:
                heads = config.num_attention_heads if ".q_proj" in name else config.num_key_value_heads
                array = interleave(array, heads)
            its = gguf.GGMLQuantizationType.F32 if array.ndim == 1 else quantization
            writer.add_tensor(gguf_name(name), gguf.quants.quantize(array, its), raw_dtype=its)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def gguf_name(name: str) -> str:
    if name in TOP:
        return TOP[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{LAYER[rest.removesuffix('.weight')]}.weight"


def interleave(array: np.ndarray, heads: int) -> np.ndarray:
    """Rows (heads, 2, half) to (heads, half, 2): from transformers' order of RoPE to llama.cpp's."""
    rows, cols = array.shape
    return array.reshape(heads, 2, rows // heads // 2, cols).swapaxes(1, 2).reshape(rows, cols).copy()
