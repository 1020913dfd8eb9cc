"""From which numbers on the doctor speaks. Each stands here once; docs/guides/doctor.md tells why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from quinze.training.doctor.floors import COUNTED_TOKENS, SCORED_TOKENS

Language = Literal["en", "zh"]


@dataclass(frozen=True, slots=True)
class DoctorSettings:
    """Thresholds and how much is looked at."""

    language: Language = "en"
    """Of verdict, why and fix; `translate` makes the other one from a finding."""
    counted_tokens: int = COUNTED_TOKENS
    """Training tokens that are read before the run, for floors and duplicates."""
    scored_tokens: int = SCORED_TOKENS
    wiring_seconds: float = 20.0
    """The check that one batch can be learned by heart is left out where it would take longer."""
    memorize_steps: int = 40
    gauge_every: int = 25
    """Steps between two looks at weights, activations and logits; each costs about a hundredth of that."""
    quiet: tuple[str, ...] = ()
    """Rules, by their id or its first part, that say nothing: ("B7", "D5.plateau")."""

    # data
    duplicate_share: float = 0.05
    leak_share: float = 0.05
    unknown_share: float = 0.01
    epochs: float = 4.0
    """Passes over the data after which repeating is worth little (Muennighoff et al. 2023)."""
    few_labels: float = 0.02

    # during
    window: int = 128
    """Steps over which a spike is judged."""
    sigmas: float = 6.0
    diverged: float = 0.25
    """Loss above its best so far, as a share."""
    frequencies_margin: float = 0.05
    """Nats a token by which the unigram floor must be beaten."""
    frozen_ratio: float = 1e-9
    large_ratio: float = 0.2
    """Update by weight (root mean squares) that no healthy group keeps after its first tenth."""
    dead_share: float = 0.2
    largest_logit: float = 200.0
    waiting_share: float = 0.25
    slower: float = 0.6
    """Of the speed when it was warm."""
    overfit_rise: float = 0.01
