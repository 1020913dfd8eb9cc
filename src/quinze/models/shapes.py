"""Which tensors a config calls for, and their shapes.

The names are Hugging Face's, and Llama's where a family has others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quinze.models.config import ModelConfig

Shape = tuple[int, ...]


def shapes(config: ModelConfig) -> dict[str, Shape]:
    """name -> shape of every tensor. Matrices are (rows, cols): out features, in features."""
    hidden = config.hidden_size
    layer = _attention(config)
    for name in _norms(config):
        layer |= _norm(config, name)
    mlp, experts = _mlp(config), _experts(config) if config.num_experts else {}
    wanted: dict[str, Shape] = {"model.embed_tokens.weight": (config.vocab_size, hidden)}
    if config.learned_positions:
        wanted["model.embed_positions.weight"] = (config.max_position_embeddings, hidden)
    for i in range(config.num_hidden_layers):
        has = layer | (experts if experts and i not in config.plain_layers else mlp)
        wanted |= {f"model.layers.{i}.{name}": shape for name, shape in has.items()}
    wanted |= _norm(config, "model.norm")
    if not config.tie_word_embeddings:
        wanted["lm_head.weight"] = (config.vocab_size, hidden)
    return wanted


def _norms(config: ModelConfig) -> list[str]:
    """Where a norm follows the MLP, "post_attention" means that; elsewhere it stands before the MLP."""
    before = ["input_layernorm"] if config.pre_norms else []
    if not config.post_norms:
        return [*before, "post_attention_layernorm"]
    behind = ["post_attention_layernorm", "post_feedforward_layernorm"]
    return [*before, *(["pre_feedforward_layernorm"] if config.pre_norms else []), *behind]


def _norm(config: ModelConfig, name: str) -> dict[str, Shape]:
    parts = ("weight", "bias") if config.norm == "layer" else ("weight",)
    return {f"{name}.{part}": (config.hidden_size,) for part in parts}


def _attention(config: ModelConfig) -> dict[str, Shape]:
    hidden = config.hidden_size
    queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    wanted: dict[str, Shape] = {}
    for name, rows in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
        wanted |= _linear(f"self_attn.{name}", rows, hidden, config.qkv_bias)
    wanted |= _linear("self_attn.o_proj", hidden, queries, config.output_bias)
    if config.qk_norm != "none":
        each = config.qk_norm == "head"
        wanted["self_attn.q_norm.weight"] = (config.head_dim if each else queries,)
        wanted["self_attn.k_norm.weight"] = (config.head_dim if each else keys,)
    return wanted


def _mlp(config: ModelConfig) -> dict[str, Shape]:
    hidden, inner = config.hidden_size, config.intermediate_size
    wanted = _linear("mlp.gate_proj", inner, hidden, config.mlp_bias) if config.gated else {}
    wanted |= _linear("mlp.up_proj", inner, hidden, config.mlp_bias)
    return wanted | _linear("mlp.down_proj", hidden, inner, config.mlp_bias)


def _experts(config: ModelConfig) -> dict[str, Shape]:
    wanted: dict[str, Shape] = {"mlp.gate.weight": (config.num_experts, config.hidden_size)}
    for i in range(config.num_experts):
        wanted |= _expert(config, f"mlp.experts.{i}", config.moe_intermediate_size)
    if config.shared_expert_intermediate_size:
        wanted |= _expert(config, "mlp.shared_expert", config.shared_expert_intermediate_size)
        wanted["mlp.shared_expert_gate.weight"] = (1, config.hidden_size)
    return wanted


def _expert(config: ModelConfig, name: str, inner: int) -> dict[str, Shape]:
    hidden = config.hidden_size
    return {
        f"{name}.gate_proj.weight": (inner, hidden),
        f"{name}.up_proj.weight": (inner, hidden),
        f"{name}.down_proj.weight": (hidden, inner),
    }


def _linear(name: str, rows: int, cols: int, bias: bool) -> dict[str, Shape]:
    weight: dict[str, Shape] = {f"{name}.weight": (rows, cols)}
    return weight | ({f"{name}.bias": (rows,)} if bias else {})
