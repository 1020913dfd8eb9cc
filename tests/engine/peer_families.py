"""Tiny random models of every family by transformers, and the GGUF that llama.cpp's converter makes of each.

The names come from the gguf package's own tables; what the converter changes in the weights is done again
here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers

SMALL: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
    "initializer_range": 0.2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GPT2: dict[str, Any] = {
    "vocab_size": 300, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 512, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def make(family: str, folder: Path, **changes: Any) -> Any:
    """A model of random weights, norms and biases included; saved in `folder`."""
    config = transformers.AutoConfig.for_model(family, **((GPT2 if family == "gpt2" else SMALL) | changes))
    config._attn_implementation = "eager"  # the only one with soft caps
    torch.manual_seed(15)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                middle = 0.0 if name.endswith("bias") or "gemma" in family else 1.0
                weight.copy_(middle + 0.3 * torch.randn(weight.shape))
    model.save_pretrained(folder)
    return model


def write_gguf(path: Path, model: Any, kind: str = "F32", each: int = 0) -> Path:
    """`each`: at most so many tensors in a file; the first of them is returned."""
    config = model.config
    family = config.model_type.removesuffix("_text")
    arch = "llama" if family in ("mistral", "mixtral") else family.replace("_moe", "moe")
    writer = gguf.GGUFWriter(path, arch, split_max_tensors=each)
    _write_numbers(writer, config, family)
    _write_vocabulary(writer, config.vocab_size)
    number = next(n for n, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    for name, tensor in _saved(model).items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if ".mlp." in name and name.split(".mlp.")[1] in _EXPERTS:
            theirs = f"blk.{name.split('.')[2]}.{_EXPERTS[name.split('.mlp.')[1]]}"
        assert theirs is not None, name
        array = _converted(name, tensor.float().numpy(), config, family)
        plain = array.ndim == 1 or "position" in theirs or "gate_inp" in theirs
        its = gguf.GGMLQuantizationType["F32" if plain else kind]
        writer.add_tensor(theirs, gguf.quants.quantize(array, its), raw_dtype=its)
    _write_long_factors(writer, config)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(path.parent.glob(f"{path.stem}-*.gguf"))[0] if each else path


_EXPERTS = {
    "experts.gate_proj.weight": "ffn_gate_exps.weight",
    "experts.up_proj.weight": "ffn_up_exps.weight",
    "experts.down_proj": "ffn_down_exps.weight",
    "gate.weight": "ffn_gate_inp.weight",
}


def _saved(model: Any) -> dict[str, torch.Tensor]:
    """The weights with experts as the converter stacks them: (E, rows, cols) of each matrix."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name.endswith("mlp.experts.gate_up_proj"):
            gate, up = tensor.chunk(2, dim=1)
            before = name.removesuffix("gate_up_proj")
            found |= {f"{before}gate_proj.weight": gate, f"{before}up_proj.weight": up}
        else:
            found[name] = tensor
    return found


def _converted(name: str, array: np.ndarray, config: Any, family: str) -> np.ndarray:
    if name.endswith("shared_expert_gate.weight"):
        return array[0]
    if family in ("llama", "mistral", "mixtral") and (".q_proj." in name or ".k_proj." in name):
        heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
        shape = (heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
        return array.reshape(shape).swapaxes(1, 2).reshape(array.shape).copy()
    if family.startswith("gemma") and name.endswith("norm.weight"):
        return array + 1
    turned = family == "gpt2" and ".c_" in name and array.ndim == 2
    return np.ascontiguousarray(array.T) if turned else array


def _head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _write_numbers(writer: gguf.GGUFWriter, config: Any, family: str) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    inner = config.n_inner if family == "gpt2" else config.intermediate_size
    writer.add_feed_forward_length(inner or 4 * config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    if family == "gpt2":
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    if hasattr(config, "num_experts_per_tok"):
        writer.add_expert_count(getattr(config, "num_experts", None) or config.num_local_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        if family in ("qwen2_moe", "qwen3_moe"):
            writer.add_expert_feed_forward_length(config.moe_intermediate_size)
        if family == "qwen2_moe":
            writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(_head_dim(config))
    writer.add_value_length(_head_dim(config))
    rope = config.rope_parameters
    if "full_attention" in rope:
        writer.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
        rope = rope["full_attention"]
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(_head_dim(config) * rope.get("partial_rotary_factor", 1.0)))
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] in ("yarn", "longrope"):
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if family in ("gemma2", "gemma3", "phi3") and config.sliding_window:
        writer.add_sliding_window(config.sliding_window)
    if family == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _write_long_factors(writer: gguf.GGUFWriter, config: Any) -> None:
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") != "longrope":
        return
    before = rope["original_max_position_embeddings"]
    stretched = config.max_position_embeddings / before
    writer.add_rope_scaling_attn_factors(float(np.sqrt(1 + np.log(stretched) / np.log(before))))
    writer.add_tensor("rope_factors_long.weight", np.float32(rope["long_factor"]))
    writer.add_tensor("rope_factors_short.weight", np.float32(rope["short_factor"]))


def _write_vocabulary(writer: gguf.GGUFWriter, size: int) -> None:
    special = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
    writer.add_vocab_size(size)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*special, *(f"t{i}".encode() for i in range(size - len(special)))])
    writer.add_token_scores([0.0] * size)
    writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * (size - len(special))])
