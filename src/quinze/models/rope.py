"""RoPE's scalings: by what each frequency is divided so that a model reads further than it was trained.

Given the table of config.json, or a GGUF's keys put into its words; returns fields of ModelConfig.
R numbers of a head turn, in R / 2 pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from quinze.errors import FileFormatError
from quinze.models.families import unsupported
from quinze.models.fields import Fields

MAX_LENGTH = 2**27


def scaling(
    name: str, table: Mapping[str, Any], rotated: int, theta: float, length: int, original: int | None
) -> dict[str, Any]:
    """rope_factors, rope_scale, and what LongRoPE needs.

    length    max_position_embeddings
    original  original_max_position_embeddings where it stands outside the table
    """
    read = Fields(name, table)
    kind = table.get("rope_type") or table.get("type") or "default"
    if not 1 <= theta <= 1e12 or not 0 < rotated <= 2**16:
        raise FileFormatError(f"The configuration of {name} has impossible numbers for its RoPE.")
    if kind in ("default", "none"):
        return {}
    if kind == "dynamic":
        return _ntk(read, rotated)
    if kind == "linear":
        return {"rope_factors": (read.real("factor"),) * (rotated // 2)}
    before = read.number("original_max_position_embeddings", original or length)
    if not 1 < before <= MAX_LENGTH:
        raise FileFormatError(f"original_max_position_embeddings of {name} is {before:,}.")
    if kind == "llama3":
        return {"rope_factors": _llama3(read, rotated, theta, before)}
    if kind == "yarn":
        return _yarn(read, rotated, theta, length, before)
    if kind == "longrope":
        return _longrope(read, length, before)
    raise unsupported(name, f"scales RoPE by {kind!r:.40}")


def _ntk(read: Fields, rotated: int) -> dict[str, Any]:
    """NTK-aware: another base, always the same (`alpha`), or one that grows with the context (`factor`)."""
    alpha = read.real("alpha", 0.0)
    if not alpha:
        return {"ntk_factor": read.real("factor")}
    if not 1 <= alpha <= 1e6:
        raise FileFormatError(f"alpha of {read.name} is {alpha:g}.")
    times = alpha ** (rotated / max(1, rotated - 2))
    return {"rope_factors": tuple(times ** (2 * i / rotated) for i in range(rotated // 2))}


def _llama3(read: Fields, rotated: int, theta: float, length: int) -> tuple[float, ...]:
    """Short waves stay, long ones are stretched by `factor`, those between pass smoothly over (Llama 3.1)."""
    factor, low, high = (read.real(field) for field in ("factor", "low_freq_factor", "high_freq_factor"))
    if not (1 <= factor <= 1e6 and 0 < low < high <= 1e6):
        raise FileFormatError(f"{read.name} has impossible numbers in its llama3 RoPE scaling.")

    def divisor(wavelength: float) -> float:
        smooth = min(1.0, max(0.0, (length / wavelength - low) / (high - low)))
        return 1.0 / ((1 - smooth) / factor + smooth)

    return tuple(divisor(2 * math.pi * theta ** (2 * i / rotated)) for i in range(rotated // 2))


def _yarn(read: Fields, rotated: int, theta: float, length: int, before: int) -> dict[str, Any]:
    """Pairs that turn often in the old length stay, slow ones are stretched (Peng et al. 2023)."""
    factor = read.real("factor", length / before)
    fast, slow = read.real("beta_fast", 32.0), read.real("beta_slow", 1.0)
    if not (1 <= factor <= 1e6 and 0 < slow <= fast <= 1e6 and theta > 1):
        raise FileFormatError(f"{read.name} has impossible numbers in its YaRN scaling.")

    def pair_that_turns(times: float) -> float:
        return rotated * math.log(before / (times * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair_that_turns(fast), pair_that_turns(slow)
    if read.flag("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotated - 1)
    high += 0.001 if low == high else 0.0

    def divisor(pair: int) -> float:
        stretched = min(1.0, max(0.0, (pair - low) / (high - low)))
        return 1.0 / (stretched / factor + 1 - stretched)

    return {
        "rope_factors": tuple(divisor(i) for i in range(rotated // 2)),
        "rope_scale": read.real("attention_factor", _yarn_scale(read, factor)),
        "max_position_embeddings": max(length, int(factor * before)),
    }


def _yarn_scale(read: Fields, factor: float) -> float:
    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0

    weight, all_weight = read.real("mscale", 0.0), read.real("mscale_all_dim", 0.0)
    found = scale(weight) / (scale(all_weight) or 1.0) if weight and all_weight else scale(1.0)
    return found * read.real("attn_factor", 1.0)


def _longrope(read: Fields, length: int, before: int) -> dict[str, Any]:
    """Two lists of divisors, for texts up to the old length and beyond it (Ding et al. 2024)."""
    factor = read.real("factor", length / before)
    usual = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(before))
    return {
        "rope_factors": read.reals("short_factor"),
        "long_rope_factors": read.reals("long_factor"),
        "original_max_position_embeddings": before,
        "rope_scale": read.real("attention_factor", usual),
    }
