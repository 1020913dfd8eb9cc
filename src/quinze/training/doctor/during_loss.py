"""During the run, the loss: D1 numbers, D2 jumps, D3 floors, D4 forecast, D5 plateau, D6 overfitting."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from quinze.training.doctor.course import Course, Known
from quinze.training.doctor.words import finding
from quinze.training.events import Finding
from quinze.training.watch import Probe

STOP_AFTER = 3
"""Steps in a row without a number; then nothing will come of it."""


@dataclass
class NonFinite:
    """D1. The step was left out already (Doctor.allow); here it is said."""

    in_a_row: int = 0
    zeros: int = 0
    place: str = ""
    said: int = 0
    """How many times: the first two are told, later ones only if they stop the run."""

    def step(self, probe: Probe, course: Course, known: Known) -> Iterator[Finding]:
        report = probe.report
        norm = report.grad_norm
        self.zeros = self.zeros + 1 if report.loss == 0 else 0
        if self.zeros == STOP_AFTER:
            yield finding("D1.zero-loss", "stop", at_step=report.step, count=self.zeros)
        if math.isfinite(report.loss) and (norm is None or math.isfinite(norm)):
            self.in_a_row, self.place = 0, ""
            return
        self.in_a_row += 1
        place = self.place or "the loss"
        if self.in_a_row == STOP_AFTER:
            yield finding(
                "D1.non-finite-again", "stop", at_step=report.step, count=self.in_a_row, place=place
            )
        elif self.in_a_row == 1 and self.said < 2:
            self.said += 1
            yield finding(
                "D1.non-finite",
                "warning",
                at_step=report.step,
                at=report.step,
                loss=str(report.loss),
                norm=str(norm),
                place=place,
                rows=_rows(probe),
            )


@dataclass
class Spikes:
    """D2: robust z-score, (x - median) / (1.4826 MAD), over the window; and a curve that goes up for good."""

    jumps: list[int] = field(default_factory=list)
    single_said: bool = False
    many_said: bool = False
    diverging_said: bool = False

    def step(self, probe: Probe, course: Course, known: Known) -> Iterator[Finding]:
        step, loss, settings = probe.report.step, probe.report.loss, known.settings
        before = course.losses[:-1][-settings.window :]
        if len(before) >= 32 and math.isfinite(loss):
            median = statistics.median(before)
            spread = 1.4826 * statistics.median(abs(x - median) for x in before)
            # The absolute part: late in a run all losses are alike and any wobble has many sigmas.
            if loss > median + settings.sigmas * spread and loss > median + 0.2 * abs(median) + 0.1:
                yield from self._jump(probe, median)
        yield from self._diverging(step, course, known)

    def _jump(self, probe: Probe, median: float) -> Iterator[Finding]:
        step, loss = probe.report.step, probe.report.loss
        self.jumps = [*(at for at in self.jumps if at > step - 50), step]
        if len(self.jumps) >= 3 and not self.many_said:
            self.many_said = True
            yield finding(
                "D2.spikes",
                "warning",
                at_step=step,
                at=step,
                count=len(self.jumps),
                loss=loss,
                median=median,
            )
        elif not self.single_said:
            self.single_said = True
            yield finding(
                "D2.spike", "info", at_step=step, at=step, loss=loss, median=median, rows=_rows(probe)
            )

    def _diverging(self, step: int, course: Course, known: Known) -> Iterator[Finding]:
        smooth, uniform = course.smooth, known.uniform
        if smooth is None or self.diverging_said:
            return
        risen = smooth > course.best * (1 + known.settings.diverged) + 0.2
        blind = uniform is not None and known.method == "pretrain" and smooth > uniform * 1.1 + 0.3
        if risen or blind:
            self.diverging_said = True
            yield finding(
                "D2.diverging",
                "stop",
                at_step=step,
                at=step,
                loss=smooth,
                best=min(course.best, smooth),
                uniform=uniform or math.nan,
                ratio=course.ratio or 0.0,
            )


JUMPY = 0.03
"""Of the weights in one step: after the first steps healthy groups stay below."""


@dataclass
class Floor:
    """D3: has it learned more than a table would?"""

    frequencies_said: bool = False
    rate_said: bool = False
    bigram_said: list[str] = field(default_factory=list)

    def step(self, probe: Probe, course: Course, known: Known) -> Iterator[Finding]:
        report, floors, smooth = probe.report, known.floors, course.smooth
        if floors is None or smooth is None or known.method == "dpo" or course.steps < 60:
            return
        if report.progress < max(0.15, known.plan.warmup + 0.05):
            return
        if smooth >= floors.unigram - known.settings.frequencies_margin:
            yield from self._too_high(probe, smooth, floors.unigram, course.ratio)
            if not self.frequencies_said:
                self.frequencies_said = True
                yield finding(
                    "D3.only-frequencies",
                    "warning",
                    at_step=report.step,
                    progress=report.progress,
                    loss=smooth,
                    unigram=floors.unigram,
                )
            return
        if smooth < floors.bigram or report.progress < 0.2:
            return
        severity = "warning" if report.progress >= 0.6 else "info"
        if severity == "warning":
            yield from self._too_high(probe, smooth, floors.bigram, course.ratio)
        if severity not in self.bigram_said:
            self.bigram_said.append(severity)
            yield finding(
                "D3.below-bigram",
                "warning" if severity == "warning" else "info",
                at_step=report.step,
                progress=report.progress,
                loss=smooth,
                bigram=floors.bigram,
            )

    def _too_high(self, probe: Probe, smooth: float, floor: float, ratio: float | None) -> Iterator[Finding]:
        """The likeliest cause, where weights are seen to jump about."""
        if self.rate_said or ratio is None or ratio < JUMPY:
            return
        self.rate_said = True
        yield finding(
            "D3.rate-too-high",
            "warning",
            at_step=probe.report.step,
            progress=probe.report.progress,
            loss=smooth,
            floor=floor,
            ratio=ratio,
        )


@dataclass
class TooGood:
    """D4: no new text is as predictable as that."""

    said: bool = False

    def step(self, probe: Probe, course: Course, known: Known) -> Iterator[Finding]:
        floors, smooth = known.floors, course.smooth
        if self.said or floors is None or smooth is None or known.method != "pretrain":
            return
        if known.base_loaded or probe.report.epoch >= 1:
            return
        if smooth < 0.25 * floors.trigram:
            self.said = True
            yield finding(
                "D4.too-good",
                "warning",
                at_step=probe.report.step,
                at=probe.report.step,
                loss=smooth,
                trigram=floors.trigram,
            )


MIN_POINTS = 200
"""Before so many steps a curve falls too steeply to say where it leads."""


@dataclass
class Forecast:
    """D4: where the curve leads, told at a quarter and at half of the run."""

    told: int = 0

    def step(self, probe: Probe, course: Course, known: Known) -> Iterator[Finding]:
        progress = probe.report.progress
        due = (0.25, 0.5)
        if self.told >= len(due) or progress < due[self.told] or len(course.points) < MIN_POINTS:
            return
        self.told = sum(progress >= at for at in due)
        steps = np.array([step for step, _ in course.points], float)
        losses = np.array([loss for _, loss in course.points])
        if fitted := fit_curve(steps, losses, probe.report.step / progress):
            end, error = fitted
            yield finding(
                "D4.forecast", "info", at_step=probe.report.step, end=end, low=end - error, high=end + error
            )


def fit_curve(
    steps: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    losses: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    last: float,
) -> tuple[float, float] | None:
    """L(t) = a + b t^-c, by least squares over the curve behind its first tenth: (L(last), how far off).

    The error is the spread of all exponents that fit nearly as well, and at least 2 %.
    """
    behind = steps > steps[0] + 0.1 * (steps[-1] - steps[0])
    t, y = steps[behind] / last, losses[behind]
    tried = []
    for exponent in np.arange(0.1, 1.51, 0.1):
        basis = np.stack([np.ones_like(t), t**-exponent], 1)
        (a, b), *_ = np.linalg.lstsq(basis, y, rcond=None)
        if b > 0 and a > 0:
            tried.append((float(((basis @ (a, b) - y) ** 2).mean()), float(a + b)))
    if not tried:
        return None
    least, end = min(tried)
    near = [found for error, found in tried if error < 1.3 * least + 1e-9]
    return end, max(0.02 * end, max(near) - end, end - min(near))


@dataclass
class Plateau:
    """D5: flat at full learning rate."""

    said: bool = False

    def step(self, probe: Probe, course: Course, known: Known) -> Iterator[Finding]:
        report = probe.report
        if self.said or report.learning_rate < 0.99 or not 0.3 < report.progress < 0.9:
            return
        steps = max(200, int(0.25 * report.step))
        earlier = [loss for at, loss in course.points if at <= report.step - steps]
        if course.smooth is None or len(earlier) < 10 or report.step < 2 * steps:
            return
        gain = (statistics.mean(earlier[-5:]) - course.smooth) / abs(earlier[-1])
        if 0 <= gain < 0.005:
            self.said = True
            yield finding("D5.plateau", "info", at_step=report.step, gain=gain, steps=steps)


@dataclass
class Overfitting:
    """D6: three evaluations above the best one and still rising, while training goes on getting better."""

    seen: list[tuple[int, float, float]] = field(default_factory=list)
    """(step, validation loss, training loss)."""
    said: bool = False

    def step(self, probe: Probe, course: Course, known: Known) -> Iterator[Finding]:
        if (found := probe.evaluation) is None or not math.isfinite(found.loss):
            return
        train = found.train_loss if found.train_loss is not None else course.smooth
        self.seen.append((found.step, found.loss, train if train is not None else math.nan))
        best_step, best, at_best = min(self.seen, key=lambda one: one[1])
        after = [one for one in self.seen if one[0] > best_step]
        self.seen = [one for one in self.seen if one[0] >= best_step][-50:]
        if self.said or len(after) < 3:
            return
        last = [loss for _, loss, _ in after[-3:]]
        rising = last[0] <= last[1] <= last[2] and last[0] > best
        high = last[2] > best * (1 + known.settings.overfit_rise)
        if rising and high and not after[-1][2] > at_best:
            self.said = True
            yield finding(
                "D6.overfitting",
                "warning",
                at_step=found.step,
                best=best,
                best_step=best_step,
                now=last[2],
                train=after[-1][2],
            )


def _rows(probe: Probe) -> str:
    rows = [str(row) for row in probe.rows[:4]]
    return ", ".join(rows) + (", ..." if len(probe.rows) > 4 else "") if rows else "?"
