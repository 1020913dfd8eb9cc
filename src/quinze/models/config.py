"""What a Llama is, in numbers: from a GGUF's key-value pairs, from config.json or from llama2.c's header.

Every number has a range, so that nobody later divides by zero heads or allocates a layer too many.
Knows nothing of tensors. Hugging Face's names are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quinze.errors import FileFormatError, UnsupportedModelError

KNOWN = ("llama",)
"""Architectures that the engine runs."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of a model. Building one checks every number."""

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
    """True: RoPE turns neighbors (2i, 2i+1), as in llama2.c and GGUF; False: (i, i + head_dim/2)."""
    tie_word_embeddings: bool
    rope_factors: tuple[float, ...] | None = None
    """head_dim/2 numbers that divide the rotation frequencies (Llama 3's scaling, or linear), or None."""
    architecture: str = "llama"

    def __post_init__(self) -> None:
        limits = {
            "vocab_size": 2**22, "hidden_size": 2**18, "intermediate_size": 2**20, "num_hidden_layers": 1024,
            "num_attention_heads": 4096, "num_key_value_heads": 4096, "head_dim": 1024,
            "max_position_embeddings": 2**27,
        }  # fmt: skip
        for field, limit in limits.items():
            value = getattr(self, field)
            if type(value) is not int or not 1 <= value <= limit:
                raise self._broken(f"{field} is {value!r:.60}; it must lie between 1 and {limit:,}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise self._broken(
                f"{self.num_attention_heads} heads cannot share {self.num_key_value_heads} key/value heads"
            )
        if self.head_dim % 2:
            raise self._broken(f"head_dim is {self.head_dim}; RoPE needs an even number")
        for field, low, high in (("rms_norm_eps", 0.0, 1.0), ("rope_theta", 1.0, 1e12)):
            value = getattr(self, field)
            if not isinstance(value, float) or not math.isfinite(value) or not low <= value <= high:
                raise self._broken(f"{field} is {value!r:.60}; it must lie between {low:g} and {high:g}")
        factors = self.rope_factors
        if factors is not None and (
            len(factors) != self.head_dim // 2
            or not all(math.isfinite(f) and 1e-6 <= f <= 1e6 for f in factors)
        ):
            raise self._broken(f"its {len(factors)} RoPE factors do not fit {self.head_dim // 2} frequencies")

    def _broken(self, what: str) -> FileFormatError:
        return FileFormatError(f"The configuration of {self.name} makes no sense: {what}.")

    @property
    def parameters(self) -> int:
        """How many weights the model has, tied ones counted once."""
        queries, keys = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        attention = self.hidden_size * (2 * queries + 2 * keys)
        layer = attention + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return embeddings + self.num_hidden_layers * layer + self.hidden_size


def from_gguf(name: str, metadata: Mapping[str, Any], vocab_size: int, tied: bool) -> ModelConfig:
    """From a GGUF's key-value pairs. `vocab_size`: rows of its embedding, which no key states."""
    read = _Fields(name, metadata)
    _known_architecture(name, read.text("general.architecture"))
    if read.number("llama.expert_count", 0):
        raise _unsupported(name, "is a mixture of experts")
    scaling = metadata.get("llama.rope.scaling.type", "none")
    heads, hidden = read.number("llama.attention.head_count"), read.number("llama.embedding_length")
    head_dim = read.number("llama.attention.key_length", hidden // max(heads, 1))
    if read.number("llama.attention.value_length", head_dim) != head_dim:
        raise _unsupported(name, "has keys and values of different length")
    if read.number("llama.rope.dimension_count", head_dim) != head_dim:
        raise _unsupported(name, "rotates only a part of each head")
    factors = None
    if scaling == "linear":
        factors = _linear(read.real("llama.rope.scaling.factor"), head_dim)
    elif scaling != "none":
        raise _unsupported(name, f"scales RoPE by {scaling!r:.40}")
    return ModelConfig(
        name=name,
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=read.number("llama.feed_forward_length"),
        num_hidden_layers=read.number("llama.block_count"),
        num_attention_heads=heads,
        num_key_value_heads=read.number("llama.attention.head_count_kv", heads),
        head_dim=head_dim,
        max_position_embeddings=read.number("llama.context_length"),
        rms_norm_eps=read.real("llama.attention.layer_norm_rms_epsilon"),
        rope_theta=read.real("llama.rope.freq_base", 10000.0),
        rope_interleaved=True,
        rope_factors=factors,
        tie_word_embeddings=tied,
    )


def from_hugging_face(name: str, config: Mapping[str, Any]) -> ModelConfig:
    """From config.json, as transformers 4 and 5 write it."""
    read = _Fields(name, config)
    _known_architecture(name, read.text("model_type"))
    for field in ("attention_bias", "mlp_bias"):
        if config.get(field):
            raise _unsupported(name, f"has {field}")
    if config.get("hidden_act", "silu") != "silu":
        raise _unsupported(name, f"uses the activation {config['hidden_act']!r:.40}")
    if config.get("quantization_config"):
        raise _unsupported(name, "is quantized in a format of its own (quantization_config)")
    heads, hidden = read.number("num_attention_heads"), read.number("hidden_size")
    head_dim = read.number("head_dim", hidden // max(heads, 1))
    # transformers 5 writes theta and scaling together as rope_parameters.
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise FileFormatError(f"config.json of {name} has {rope!r:.60} for its RoPE.")
    theta = _Fields(name, rope).real("rope_theta", read.real("rope_theta", 10000.0))
    return ModelConfig(
        name=name,
        vocab_size=read.number("vocab_size"),
        hidden_size=hidden,
        intermediate_size=read.number("intermediate_size"),
        num_hidden_layers=read.number("num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=read.number("num_key_value_heads", heads),
        head_dim=head_dim,
        max_position_embeddings=read.number("max_position_embeddings"),
        rms_norm_eps=read.real("rms_norm_eps"),
        rope_theta=theta,
        rope_interleaved=False,
        rope_factors=_rope_factors(name, rope, head_dim, theta),
        tie_word_embeddings=config.get("tie_word_embeddings", False) is True,
    )


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


def _rope_factors(
    name: str, rope: Mapping[str, Any], head_dim: int, theta: float
) -> tuple[float, ...] | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    read = _Fields(name, rope)
    if kind == "linear":
        return _linear(read.real("factor"), head_dim)
    if kind != "llama3":
        raise _unsupported(name, f"scales RoPE by {kind!r:.40}")
    factor, low, high = (read.real(field) for field in ("factor", "low_freq_factor", "high_freq_factor"))
    length = read.real("original_max_position_embeddings")
    if not (1 <= factor <= 1e6 and 0 < low < high <= 1e6 and 1 <= length <= 2**27 and 1 <= theta <= 1e12):
        raise FileFormatError(f"config.json of {name} has impossible numbers in its llama3 RoPE scaling.")
    return tuple(
        _llama3_factor(2 * math.pi * theta ** (2 * i / head_dim), factor, low, high, length)
        for i in range(head_dim // 2)
    )


def _llama3_factor(wavelength: float, factor: float, low: float, high: float, length: float) -> float:
    """Short waves stay, long ones are stretched by `factor`, those between pass smoothly over (Llama 3.1)."""
    turns = length / wavelength
    if turns > high:
        return 1.0
    if turns < low:
        return factor
    smooth = (turns - low) / (high - low)
    return 1.0 / ((1 - smooth) / factor + smooth)


def _linear(factor: float, head_dim: int) -> tuple[float, ...]:
    return (factor,) * (head_dim // 2)


def _known_architecture(name: str, architecture: str) -> None:
    if architecture not in KNOWN:
        raise _unsupported(name, f"is a {architecture[:60]!r} model")


def _unsupported(name: str, what: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{name} {what}, which Quinze cannot run yet.",
        hint=f"It runs these architectures: {', '.join(KNOWN)} (RMSNorm, RoPE, SwiGLU, no biases).",
    )


class _Fields:
    """Typed look-ups that name the field at fault."""

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        self.name, self.values = name, values

    def _value(self, field: str, default: Any) -> Any:
        value = self.values.get(field)
        value = default if value is None else value
        if value is None:
            raise FileFormatError(f"The configuration of {self.name} lacks {field}.")
        return value

    def _wrong(self, field: str, value: Any, wanted: str) -> FileFormatError:
        return FileFormatError(f"{field} of {self.name} is {value!r:.60}; it must be {wanted}.")

    def number(self, field: str, default: int | None = None) -> int:
        value = self._value(field, default)
        # Some GGUF keys hold one number a layer; alike in every layer, they are one number.
        if getattr(value, "ndim", 0) == 1 and value.size and (value == value[0]).all():
            value = value[0].item()
        if type(value) is not int or not 0 <= value < 2**63:
            raise self._wrong(field, value, "a whole number")
        return value

    def real(self, field: str, default: float | None = None) -> float:
        value = self._value(field, default)
        if type(value) not in (int, float) or not math.isfinite(value) or abs(value) > 1e30:
            raise self._wrong(field, value, "a number")
        return float(value)

    def text(self, field: str) -> str:
        value = self._value(field, None)
        if not isinstance(value, str):
            raise self._wrong(field, value, "a text")
        return value
