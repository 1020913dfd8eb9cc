"""Sampling: what is asked of the choice of the next token. The choosing itself is native (csrc/sampling.cpp).

Every default of every face is read here: command line, HTTP and Python alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from quinze.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen from the logits."""

    temperature: float = 0.7
    """0 takes the most likely token, always."""
    top_k: int = 40
    """Only the k most likely tokens are considered; 0 considers all."""
    top_p: float = 0.95
    """Only the most likely tokens whose odds together reach p; 1 considers all."""
    min_p: float = 0.05
    """Only tokens at least this share as likely as the most likely one; 0 considers all."""
    repetition_penalty: float = 1.0
    """Logits of tokens already in the last 256 are divided by it, or multiplied if negative; 1 is off.

    Keskar et al. 2019."""
    seed: int | None = None
    """None draws a fresh one; the same seed gives the same tokens."""
    max_tokens: int | None = None
    """None: until the context is full."""

    def __post_init__(self) -> None:
        """Raises InvalidRequestError, naming the field, for a number out of its range."""
        _in_range("temperature", self.temperature, 0.0, 100.0)
        _in_range("top_k", self.top_k, 0, 2**31 - 1)
        _in_range("top_p", self.top_p, 0.0, 1.0)
        _in_range("min_p", self.min_p, 0.0, 1.0)
        _in_range("repetition_penalty", self.repetition_penalty, 0.01, 100.0)
        if self.seed is not None:
            _in_range("seed", self.seed, -(2**63), 2**64 - 1)
        if self.max_tokens is not None:
            _in_range("max_tokens", self.max_tokens, 1, 2**31 - 1)


def _in_range(name: str, value: float, low: float, high: float) -> None:
    if not math.isfinite(value) or not low <= value <= high:
        raise InvalidRequestError(f"{name} is {value}; it must lie between {low:g} and {high:g}.", param=name)
