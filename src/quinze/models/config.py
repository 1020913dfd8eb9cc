"""What a model is, in numbers: its sizes, and what tells its family from Llama.

Every number has a range, so that nobody later divides by zero heads or allocates a layer too many. The
families are data (families.py); the one decoder reads them from here. Knows nothing of files and tensors.
Hugging Face's names are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from quinze.errors import FileFormatError


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of a model. Building one checks every number. The defaults are Llama's."""

    name: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    rope_interleaved: bool
    """True: RoPE turns neighbors (2i, 2i+1), as in llama2.c and Llama's GGUF; False: (i, i + R/2) of R."""
    tie_word_embeddings: bool
    rope_factors: tuple[float, ...] | None = None
    """rotary_dim/2 numbers that divide the rotation frequencies (rope.py), or None."""
    architecture: str = "llama"

    rotary_dim: int | None = None
    """How many numbers of a head turn, the first ones; None: all; 0: none, for positions are learned."""
    rope_scale: float = 1.0
    """Cosines and sines are multiplied by it (YaRN, LongRoPE)."""
    long_rope_factors: tuple[float, ...] | None = None
    """Instead of `rope_factors` where the context is longer than `original_max_position_embeddings`."""
    ntk_factor: float | None = None
    """Beyond max_position_embeddings, up to so many times that, the base of RoPE grows with the context that
    is granted (dynamic NTK)."""
    original_max_position_embeddings: int | None = None
    local_rope_theta: float | None = None
    """Of the layers with a window, unscaled; None: they turn like the others (Gemma 3 has two)."""
    learned_positions: bool = False
    """A vector for each position is added to the embedding (GPT-2)."""

    norm: Literal["rms", "layer"] = "rms"
    norm_offset: float = 0.0
    """Added to the norms' weights as the file has them (Gemma's folders: 1)."""
    pre_norms: bool = True
    """Norms before attention and before the MLP; OLMo 2 has none there."""
    post_norms: bool = False
    """Norms of what they return (Gemma 2 and 3, OLMo 2)."""
    qk_norm: Literal["none", "head", "all"] = "none"
    """RMSNorm of queries and keys: of each head, or of all together."""
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    activation: Literal["silu", "gelu"] = "silu"
    """"gelu" by its tanh formula."""
    gated: bool = True
    """SwiGLU or GeGLU; False: activation(up) alone."""

    num_experts: int = 0
    """Small MLPs of which a router picks some for each token, in the place of one; 0: none."""
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    """Of each expert."""
    norm_topk_prob: bool = False
    """The shares of the chosen experts are made to add up to 1."""
    shared_expert_intermediate_size: int = 0
    """Of one that all tokens pass through besides (Qwen 2); 0: none."""
    plain_layers: tuple[int, ...] = ()
    """Layers of a mixture that have one MLP all the same."""

    windows: tuple[int, ...] = ()
    """For each layer: a token sees so many positions, its own among them; 0: all before it. (): all 0."""
    attention_scale: float | None = None
    """Of the scores; None: 1 / sqrt(head_dim)."""
    attention_softcap: float = 0.0
    """Scores become cap * tanh(score / cap); 0: they stay."""
    logit_softcap: float = 0.0
    embedding_scale: float = 1.0

    def __post_init__(self) -> None:
        for field, limit in _LIMITS.items():
            value = getattr(self, field)
            if type(value) is not int or not 1 <= value <= limit:
                raise self._broken(f"{field} is {value!r:.60}; it must lie between 1 and {limit:,}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise self._broken(
                f"{self.num_attention_heads} heads cannot share {self.num_key_value_heads} key/value heads"
            )
        for field, (low, high) in _RANGES.items():
            value = getattr(self, field)
            if value is not None and not (isinstance(value, float) and low <= value <= high):
                raise self._broken(f"{field} is {value!r:.60}; it must lie between {low:g} and {high:g}")
        self._check_rope()
        self._check_experts()
        if self.windows and (
            len(self.windows) != self.num_hidden_layers
            or not all(0 <= window <= _LIMITS["max_position_embeddings"] for window in self.windows)
        ):
            raise self._broken(
                f"its {len(self.windows)} sliding windows do not fit {self.num_hidden_layers} layers"
            )

    def _check_rope(self) -> None:
        turning = self.rotated
        if type(turning) is not int or not 0 <= turning <= self.head_dim or turning % 2:
            raise self._broken(
                f"RoPE turns {turning!r:.60} of head_dim {self.head_dim}; it needs an even number"
            )
        for factors in (self.rope_factors, self.long_rope_factors):
            if factors is not None and (
                len(factors) != turning // 2 or not all(1e-6 <= factor <= 1e6 for factor in factors)
            ):
                raise self._broken(f"its {len(factors)} RoPE factors do not fit {turning // 2} frequencies")
        length = self.original_max_position_embeddings
        if (self.long_rope_factors is not None or length is not None) and not (
            type(length) is int and 1 <= length <= _LIMITS["max_position_embeddings"]
        ):
            raise self._broken(f"original_max_position_embeddings is {length!r:.60}")

    def _check_experts(self) -> None:
        for field in ("num_experts", "num_experts_per_tok", "moe_intermediate_size"):
            value, least = getattr(self, field), 1 if self.num_experts else 0
            if type(value) is not int or not least <= value <= _EXPERT_LIMITS[field]:
                raise self._broken(
                    f"{field} is {value!r:.60}; it must lie between {least} and {_EXPERT_LIMITS[field]:,}"
                )
        shared = self.shared_expert_intermediate_size
        if type(shared) is not int or not 0 <= shared <= _EXPERT_LIMITS["moe_intermediate_size"]:
            raise self._broken(f"shared_expert_intermediate_size is {shared!r:.60}")
        if self.num_experts * self.num_hidden_layers > _MOST_EXPERTS:
            raise self._broken(
                f"it has {self.num_experts:,} experts in each of {self.num_hidden_layers:,} layers"
            )
        if self.num_experts_per_tok > self.num_experts:
            raise self._broken(f"{self.num_experts_per_tok} of {self.num_experts} experts cannot be chosen")
        if not all(type(i) is int and 0 <= i < self.num_hidden_layers for i in self.plain_layers):
            raise self._broken("it names layers without experts that it has not")

    def _broken(self, what: str) -> FileFormatError:
        return FileFormatError(f"The configuration of {self.name} makes no sense: {what}.")

    @property
    def rotated(self) -> int:
        """How many numbers of a head turn."""
        return self.head_dim if self.rotary_dim is None else self.rotary_dim

    @property
    def active_parameters(self) -> int:
        """How many weights a token passes through: of a mixture, those of its chosen experts."""
        mixed = self.num_hidden_layers - len(self.plain_layers)
        idle = (self.num_experts - self.num_experts_per_tok) * mixed
        return self.parameters - idle * 3 * self.hidden_size * self.moe_intermediate_size

    @property
    def longest_context(self) -> int:
        """Tokens that may be granted; more than `max_position_embeddings` only where somebody asks for it."""
        return int(self.max_position_embeddings * (self.ntk_factor or 1))

    @property
    def parameters(self) -> int:
        """How many weights the model has, tied ones counted once."""
        from quinze.models.shapes import shapes

        return sum(math.prod(shape) for shape in shapes(self).values())

    def frequencies(self, context_length: int) -> list[float]:
        """Radians a position by which each pair of a head turns, where so long a context is granted."""
        if self.ntk_factor is not None and context_length > self.max_position_embeddings:
            return self._plain_frequencies(self._ntk_theta(self.ntk_factor, context_length))
        long = self.long_rope_factors
        beyond = self.original_max_position_embeddings or 0
        factors = long if long is not None and context_length > beyond else self.rope_factors
        plain = self._plain_frequencies(self.rope_theta)
        return plain if factors is None else [f / by for f, by in zip(plain, factors, strict=True)]

    def _ntk_theta(self, factor: float, context_length: int) -> float:
        """As transformers has it for a text of that length (u/bloc97 and u/emozilla, 2023)."""
        stretched = factor * context_length / self.max_position_embeddings - (factor - 1)
        return float(self.rope_theta * stretched ** (self.rotated / max(1, self.rotated - 2)))

    def local_frequencies(self) -> list[float]:
        """The same for layers with a window; empty where they turn like the others."""
        return [] if self.local_rope_theta is None else self._plain_frequencies(self.local_rope_theta)

    def _plain_frequencies(self, theta: float) -> list[float]:
        turning = self.rotated
        return [math.pow(theta, -2.0 * i / turning) for i in range(turning // 2)]


_LIMITS = {
    "vocab_size": 2**22, "hidden_size": 2**18, "intermediate_size": 2**20, "num_hidden_layers": 1024,
    "num_attention_heads": 4096, "num_key_value_heads": 4096, "head_dim": 1024,
    "max_position_embeddings": 2**27,
}  # fmt: skip
_MOST_EXPERTS = 2**16
"""Of all layers together: the largest models have 25,000."""
_EXPERT_LIMITS = {"num_experts": 4096, "num_experts_per_tok": 1024, "moe_intermediate_size": 2**20}
_RANGES = {
    "rms_norm_eps": (0.0, 1.0), "rope_theta": (1.0, 1e12), "local_rope_theta": (1.0, 1e12),
    "rope_scale": (1e-6, 1e6), "attention_scale": (1e-6, 1e6), "attention_softcap": (0.0, 1e6),
    "logit_softcap": (0.0, 1e6), "embedding_scale": (1e-6, 1e6), "norm_offset": (-1e6, 1e6),
    "ntk_factor": (1.0, 1024.0),
}  # fmt: skip


def from_llama2c(name: str, header: Mapping[str, Any]) -> ModelConfig:
    """From llama2.c's seven numbers."""
    return ModelConfig(
        name=name,
        vocab_size=header["vocab_size"],
        hidden_size=header["dim"],
        intermediate_size=header["hidden_dim"],
        num_hidden_layers=header["n_layers"],
        num_attention_heads=header["n_heads"],
        num_key_value_heads=header["n_kv_heads"],
        head_dim=header["dim"] // header["n_heads"],
        max_position_embeddings=header["seq_len"],
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        rope_interleaved=True,
        tie_word_embeddings=header["tied"],
    )
