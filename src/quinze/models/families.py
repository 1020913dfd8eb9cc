"""The families that the engine runs: what tells each from Llama, as data.

Adding one means a row here, and the names of its tensors where they differ (names.py); the decoder reads all
else from the config.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quinze.errors import UnsupportedModelError


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture. `traits` and `folder_traits` are fields of ModelConfig."""

    traits: Mapping[str, Any] = field(default_factory=dict)
    folder_traits: Mapping[str, Any] = field(default_factory=dict)
    """Of Hugging Face folders only: where the weights lie otherwise there than in a GGUF."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What a config.json may leave out, as transformers' class fills it in."""
    gguf_defaults: Mapping[str, Any] = field(default_factory=dict)
    """What a GGUF may leave out, as llama.cpp fills it in; keys without the architecture."""
    gguf_interleaved: bool = False
    """llama.cpp's converter reorders queries and keys, so that RoPE turns neighbors."""
    window_every: int = 0
    """Of so many layers the last sees everything, the others look through the window; 0: all have one."""
    scaled_embedding: bool = False
    """The embedding is multiplied by sqrt(hidden_size)."""
    wide_heads_from: int | None = None
    """A GGUF of so many layers scales scores by sqrt(heads / hidden_size): it states no key for it."""
    local_rope: bool = False
    """Layers with a window have a RoPE base of their own."""


_GEMMA_DEFAULTS: dict[str, Any] = {
    "head_dim": 256, "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "max_position_embeddings": 8192,
    "hidden_activation": "gelu_pytorch_tanh", "vocab_size": 256_000,
}  # fmt: skip
_GEMMA: dict[str, Any] = {"activation": "gelu"}

FAMILIES: dict[str, Family] = {
    # As GGUF, Mixtral is a Llama with experts.
    "llama": Family(gguf_interleaved=True, gguf_defaults={"expert_weights_norm": True}),
    "mistral": Family(defaults={"sliding_window": 4096, "max_position_embeddings": 131_072}),
    "qwen2": Family(traits={"qkv_bias": True}),
    "qwen3": Family(traits={"qk_norm": "head"}, defaults={"head_dim": 128}),
    "mixtral": Family(
        traits={"norm_topk_prob": True},
        defaults={"num_experts": 8, "num_experts_per_tok": 2, "max_position_embeddings": 131_072},
    ),
    "qwen2moe": Family(
        traits={"qkv_bias": True},
        defaults={
            "num_experts": 60, "num_experts_per_tok": 4, "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632,
        },
    ),
    "qwen3moe": Family(
        traits={"qk_norm": "head"},
        defaults={"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768},
        gguf_defaults={"expert_weights_norm": True},
    ),
    "olmoe": Family(traits={"qk_norm": "all"}, defaults={"num_experts": 64, "num_experts_per_tok": 8}),
    "phi3": Family(),
    "gemma": Family(
        traits=_GEMMA,
        folder_traits={"norm_offset": 1.0},
        defaults=_GEMMA_DEFAULTS,
        scaled_embedding=True,
    ),
    "gemma2": Family(
        traits=_GEMMA | {"post_norms": True},
        folder_traits={"norm_offset": 1.0},
        defaults=_GEMMA_DEFAULTS
        | {
            "sliding_window": 4096, "query_pre_attn_scalar": 256, "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
        gguf_defaults={
            "attention.sliding_window": 4096, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
        },
        window_every=2,
        scaled_embedding=True,
        wide_heads_from=46,
    ),
    "gemma3": Family(
        traits=_GEMMA | {"post_norms": True, "qk_norm": "head"},
        folder_traits={"norm_offset": 1.0},
        defaults=_GEMMA_DEFAULTS
        | {
            "sliding_window": 4096, "query_pre_attn_scalar": 256, "max_position_embeddings": 131_072,
            "vocab_size": 262_208, "num_attention_heads": 8, "num_key_value_heads": 4, "rope_theta": 1e6,
            "rope_local_base_freq": 10_000.0,
        },
        gguf_defaults={"rope.freq_base": 1e6, "rope.freq_base_swa": 10_000.0},
        window_every=6,
        scaled_embedding=True,
        wide_heads_from=62,
        local_rope=True,
    ),
    "olmo2": Family(traits={"pre_norms": False, "post_norms": True, "qk_norm": "all"}),
    "gpt2": Family(
        traits={
            "norm": "layer", "activation": "gelu", "gated": False, "qkv_bias": True, "output_bias": True,
            "mlp_bias": True, "learned_positions": True, "rotary_dim": 0,
        },
        defaults={"tie_word_embeddings": True, "hidden_act": "gelu_new"},
    ),
}  # fmt: skip
"""By the name that GGUF and config.json give them."""

ENCODERS = {
    "bert", "roberta", "xlm-roberta", "distilbert", "mpnet", "modernbert", "modern-bert", "nomic_bert",
    "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "new", "gte", "deberta-v2", "t5encoder",
}  # fmt: skip
"""Models that read in both directions and make vectors, by the names of both formats."""

SAME = {"gemma3_text": "gemma3", "qwen2_moe": "qwen2moe", "qwen3_moe": "qwen3moe"}
"""Other names in config.json for one of these."""
RENAMED = {
    "n_embd": "hidden_size", "n_head": "num_attention_heads", "n_layer": "num_hidden_layers",
    "n_positions": "max_position_embeddings", "n_inner": "intermediate_size",
    "layer_norm_epsilon": "rms_norm_eps", "activation_function": "hidden_act",
    "num_local_experts": "num_experts",
}  # fmt: skip
"""GPT-2's and Mixtral's words in config.json, and everybody else's."""


def family(name: str, architecture: str) -> Family:
    """UnsupportedModelError, with the list of those that there are, for an unknown one."""
    found = FAMILIES.get(SAME.get(architecture, architecture))
    if found is not None:
        return found
    what = f"is a {architecture[:60]!r} model"
    if architecture in ENCODERS:
        raise UnsupportedModelError(
            f"{name} {what}, an encoder, which Quinze cannot run yet.",
            hint="For vectors take a language model that embeds, such as Qwen3-Embedding, or Quinze's "
            "own: starter.",
        )
    raise unsupported(name, what)


def derived(found: Family, hidden_size: int) -> dict[str, Any]:
    """Traits that follow from a size."""
    return {"embedding_scale": math.sqrt(hidden_size)} if found.scaled_embedding else {}


def windows(found: Family, window: int, layers: int, every: int | None = None) -> tuple[int, ...]:
    """The window of each layer, () where there is none."""
    every = found.window_every if every is None else every
    if not window:
        return ()
    # A hostile number of layers is refused later, and must not become a list before.
    return tuple(0 if every and (i + 1) % every == 0 else window for i in range(min(layers, 2**12)))


def unsupported(name: str, what: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{name} {what}, which Quinze cannot run yet.",
        hint=f"It runs these architectures: {', '.join(FAMILIES)}.",
    )
