"""The run so far, as the rules need it: windows of plain numbers, so that a resumed run judges alike."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field

from quinze.training.doctor.floors import Floors
from quinze.training.doctor.settings import DoctorSettings
from quinze.training.watch import Method, Plan, Probe, SplitFacts

SMOOTH = 20
"""Steps whose median is "the loss now"."""
KEPT = 128
POINTS = 400
"""Of the whole curve; when there are more, every other one is dropped."""


@dataclass(frozen=True, slots=True)
class Known:
    """What does not change while the run goes on."""

    settings: DoctorSettings
    method: Method = "pretrain"
    vocab_size: int | None = None
    floors: Floors | None = None
    plan: Plan = field(default_factory=lambda: Plan(steps=None))
    train: SplitFacts | None = None
    base_loaded: bool = False

    @property
    def uniform(self) -> float | None:
        """The loss of blind guessing; of DPO ln 2."""
        if self.method == "dpo":
            return math.log(2)
        return math.log(self.vocab_size) if self.vocab_size else None


@dataclass
class Course:
    """Finite losses only: one NaN in a window would silence every rule after it."""

    steps: int = 0
    """Seen, and not only counted: of a resumed run those before it too, if its state was loaded."""
    losses: list[float] = field(default_factory=list)
    best: float = 1e30
    """The lowest smoothed loss. (Not infinity: JSON has none.)"""
    points: list[tuple[int, float]] = field(default_factory=list)
    stride: int = 1
    ratio: float | None = None
    """Largest update by weight of any group of matrices, when last looked at."""
    first_step: int = 0

    def see(self, probe: Probe) -> None:
        loss = probe.report.loss
        self.steps += 1
        self.first_step = self.first_step or probe.report.step
        if not math.isfinite(loss) or probe.skipped:
            return
        self.losses = [*self.losses[-KEPT + 1 :], loss]
        smooth = self.smooth
        if smooth is None:
            return
        self.best = min(self.best, smooth)
        if self.steps % self.stride == 0:
            self.points.append((probe.report.step, smooth))
            if len(self.points) > POINTS:
                self.points, self.stride = self.points[::2], self.stride * 2

    @property
    def smooth(self) -> float | None:
        """The median of the last steps; None while there are fewer than half as many."""
        last = self.losses[-SMOOTH:]
        return statistics.median(last) if len(last) >= SMOOTH // 2 else None
