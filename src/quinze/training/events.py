"""What a training run tells whoever watches, and the one who may stop it.

Every event is plain data (msgspec), written to metrics.jsonl as it happens and sent as it is to the
terminal, the page and TensorBoard.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Severity = Literal["info", "warning", "stop"]


class Finding(msgspec.Struct, frozen=True, tag="finding", kw_only=True):
    """Something that the doctor noticed."""

    id: str
    """The rule: "B8.no-labels", "D1.non-finite"; docs/guides/doctor.md has them all."""
    severity: Severity
    """"stop": going on would waste time or spoil the weights."""
    verdict: str
    """One sentence with numbers, in the words of somebody who is not an expert."""
    evidence: dict[str, float | int | str | None]
    why: str
    """Why it matters."""
    fix: str
    """The one command or setting that mends it; "" if there is none."""
    step: int | None = None


class StepReport(msgspec.Struct, frozen=True, tag="step", kw_only=True):
    """One optimizer step that was taken."""

    step: int
    """Counted from 1: so many steps are behind."""
    tokens: int
    """Read since the run began."""
    epoch: float
    seconds: float
    """Of training since the run began, pauses and evaluations left out; a resumed run goes on counting."""
    loss: float
    """Mean cross-entropy of this step's supervised tokens, in nats; of DPO: its loss."""
    learning_rate: float
    """As a share of each group's peak: 0 to 1."""
    grad_norm: float | None
    tokens_per_second: float
    progress: float
    """0 to 1, of the time or tokens granted."""
    eta_seconds: float
    extra: dict[str, float] = {}
    """DPO: chosen, rejected, margin, accuracy; and whatever else a method measures."""


class EvaluationReport(msgspec.Struct, frozen=True, tag="evaluation", kw_only=True):
    step: int
    seconds: float
    split: str
    loss: float
    """Nats a supervised token."""
    bits_per_byte: float | None
    """None where the split does not tell its bytes."""
    best: bool
    train_loss: float | None
    """Moving mean of the steps, for the gap."""


class SampleReport(msgspec.Struct, frozen=True, tag="sample", kw_only=True):
    step: int
    prompt: str
    text: str


class CheckpointReport(msgspec.Struct, frozen=True, tag="checkpoint", kw_only=True):
    step: int
    path: str
    bytes: int
    reason: Literal["interval", "best", "end", "interrupted"]


class RunEnd(msgspec.Struct, frozen=True, tag="end", kw_only=True):
    reason: Literal["finished", "stopped", "interrupted", "failed"]
    step: int
    seconds: float
    best_step: int | None
    best_loss: float | None
    model: str | None
    """The folder of the finished model."""
    message: str = ""


TrainingEvent = Finding | StepReport | EvaluationReport | SampleReport | CheckpointReport | RunEnd
