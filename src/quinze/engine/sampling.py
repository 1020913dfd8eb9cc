"""Sampling: what is asked of the choice of the next token. The choosing itself is native (csrc/sampling.cpp).

Every default of every face is read here: command line, HTTP and Python alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from quinze.errors import InvalidRequestError

MAX_BIASES, MAX_LOGPROBS = 1024, 20
SPECULATION = ("auto", "off")


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
    presence_penalty: float = 0.0
    """Subtracted from the logit of each token that the reply already has; 0 is off."""
    frequency_penalty: float = 0.0
    """The same as often as the reply has the token; 0 is off."""
    typical_p: float = 1.0
    """Only tokens about as surprising as is to be expected, whose odds together reach p; 1 considers all."""
    logit_bias: Mapping[int, float] | None = None
    """Added to the logits of these token ids, -100 to 100."""
    logprobs: int | None = None
    """Tell the logarithm of each token's odds, and so many of the likeliest (0 to 20); None tells none."""
    seed: int | None = None
    """None draws a fresh one; the same seed gives the same tokens."""
    max_tokens: int | None = None
    """None: until the context is full."""
    speculation: str = "auto"
    """"auto" guesses what the text repeats, where that pays, and checks it: the tokens stay the same, they
    only come faster; "off"."""

    def __post_init__(self) -> None:
        """Raises InvalidRequestError, naming the field, for a number out of its range."""
        _in_range("temperature", self.temperature, 0.0, 100.0)
        _in_range("top_k", self.top_k, 0, 2**31 - 1)
        _in_range("top_p", self.top_p, 0.0, 1.0)
        _in_range("min_p", self.min_p, 0.0, 1.0)
        _in_range("repetition_penalty", self.repetition_penalty, 0.01, 100.0)
        _in_range("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _in_range("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _in_range("typical_p", self.typical_p, 0.001, 1.0)
        if self.logit_bias is not None and len(self.logit_bias) > MAX_BIASES:
            raise InvalidRequestError(
                f"logit_bias holds {len(self.logit_bias):,} tokens; {MAX_BIASES:,} are the most.",
                param="logit_bias",
            )
        for id_, bias in (self.logit_bias or {}).items():
            _in_range(f"logit_bias[{id_}]", bias, -100.0, 100.0, param="logit_bias")
        if self.logprobs is not None:
            _in_range("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        if self.seed is not None:
            _in_range("seed", self.seed, -(2**63), 2**64 - 1)
        if self.max_tokens is not None:
            _in_range("max_tokens", self.max_tokens, 1, 2**31 - 1)
        speculation_of(self.speculation)


def speculation_of(name: str) -> str:
    """Raises InvalidRequestError for anything but a mode of speculation."""
    if name not in SPECULATION:
        raise InvalidRequestError(f"speculation is {name!r}; it must be auto or off.", param="speculation")
    return name


def _in_range(name: str, value: float, low: float, high: float, *, param: str | None = None) -> None:
    if not math.isfinite(value) or not low <= value <= high:
        raise InvalidRequestError(
            f"{name} is {value}; it must lie between {low:g} and {high:g}.", param=param or name
        )
