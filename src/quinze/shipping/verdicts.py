"""Verdicts: the words of a certificate, and what may differ before a thing is called different."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

Outcome = Literal["equal", "within bounds", "different"]
EXACT = 2e-8
"""Nats a token that two float32 computations of the same weights may diverge: sums in another order leave
1e-12 to 1e-10; weights in float16 leave 1e-7 and more."""
TIE = 1e-3
"""Logits so near to each other count as a tie: which of them comes first is chance."""


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What may differ at the most and still be called "within bounds". None of it is allowed for "equal"."""

    divergence: float = EXACT
    """Kullback-Leibler, nats a token, mean."""
    first_tokens: float = 1.0
    """Least share of prompts whose first token is the same."""
    bits_per_byte: float = 1e-4
    """Most that a text may cost more."""
    kept: float = 0.5
    """Least share of the tune that is left: 1 - divergence from the tuned model / of the base from it."""


LEVEL_BOUNDS: Mapping[str, Bounds] = {
    "q8_0": Bounds(divergence=0.01, first_tokens=0.95, bits_per_byte=0.01),
    "q6_k": Bounds(divergence=0.03, first_tokens=0.9, bits_per_byte=0.02),
    "q5_k_m": Bounds(divergence=0.08, first_tokens=0.85, bits_per_byte=0.05),
    "q5_k_s": Bounds(divergence=0.08, first_tokens=0.85, bits_per_byte=0.05),
    "q4_k_m": Bounds(divergence=0.15, first_tokens=0.8, bits_per_byte=0.08),
    "q4_k_s": Bounds(divergence=0.15, first_tokens=0.8, bits_per_byte=0.08),
    "q4_0": Bounds(divergence=0.25, first_tokens=0.7, bits_per_byte=0.12),
    "f16": Bounds(divergence=1e-3, first_tokens=0.98, bits_per_byte=1e-3),
    "bf16": Bounds(divergence=5e-3, first_tokens=0.95, bits_per_byte=5e-3),
}
"""About three times what llama.cpp's tables tell of 8-billion-parameter models: small ones lose more."""


def bounds_of(level: str) -> Bounds:
    """Of a level's name; of one that the table has not, those of the coarsest."""
    return LEVEL_BOUNDS.get(level, LEVEL_BOUNDS["q4_0"])


class Check(msgspec.Struct, frozen=True):
    """One thing that was compared."""

    name: str
    outcome: Outcome
    told: str
    """What was found, with numbers."""
    numbers: dict[str, float] = {}
