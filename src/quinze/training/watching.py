"""The least that a run without a doctor is watched for, and what the trainer itself has to say."""

from __future__ import annotations

import math
from typing import Any

from quinze.training.events import Finding, RunEnd
from quinze.training.watch import Probe, Setup

PATIENCE = 3
"""Steps in a row that may be left out before the run stops."""


SHARDED = Finding(
    id="R2.sharded",
    severity="info",
    verdict="The weights are spread over several processes, where the doctor does not look.",
    evidence={},
    why="Only losses that are no number are looked for in this run.",
    fix='Where the model fits into each process: [runtime] sharding = "none".',
)


def passed_over(step: int, problems: list[str]) -> Finding:
    """Newer checkpoints than that of `step` are broken."""
    return Finding(
        id="R1.broken-checkpoint",
        severity="warning",
        verdict=f"The run goes on from step {step:,}: {' '.join(problems)}",
        evidence={"step": step, "broken": len(problems)},
        why="A newer checkpoint is damaged; the steps since the one before are done again.",
        fix="Check the disk.",
        step=step,
    )


class Unwatched:
    """A Watcher: leaves out a step whose loss or gradient is no number, and stops at the third in a row."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def before(self, setup: Setup) -> list[Finding]:  # noqa: ARG002
        return []

    def allow(self, step: int, loss: float, grad_norm: float | None) -> bool:  # noqa: ARG002
        return math.isfinite(loss) and (grad_norm is None or math.isfinite(grad_norm))

    def step(self, probe: Probe) -> list[Finding]:
        self._in_a_row = self._in_a_row + 1 if probe.skipped else 0
        if self._in_a_row < PATIENCE:
            return []
        return [
            Finding(
                id="D1.non-finite",
                severity="stop",
                verdict=f"The loss or its gradient was no number in {PATIENCE} steps in a row.",
                evidence={"loss": str(probe.report.loss), "steps": PATIENCE},
                why="Every weight would become NaN, and the model would be lost.",
                fix="Lower optimizer.lr, or set optimizer.clip = 1.0.",
                step=probe.report.step,
            )
        ]

    def after(self, end: RunEnd) -> list[Finding]:  # noqa: ARG002
        return []

    def state_dict(self) -> dict[str, Any]:
        return {"in_a_row": self._in_a_row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._in_a_row = int(state.get("in_a_row", 0))
