"""During the run, what flows: D10 speed, D11 samples, D12 preferences, D13 the order of rows."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from quinze.training.doctor.course import Course, Known
from quinze.training.doctor.words import finding
from quinze.training.events import Finding
from quinze.training.watch import Probe

WARM = (10, 60)
"""Steps by which the speed of the warm machine is known."""


@dataclass
class Speed:
    """D10: waiting for data, and a machine that slows down."""

    waits: list[float] = field(default_factory=list)
    waited: float = 0.0
    warm: list[float] = field(default_factory=list)
    last: list[tuple[float, float]] = field(default_factory=list)
    """(tokens a second, seconds) of the last steps."""
    tokens: int = 0
    starving_said: bool = False
    slower_said: bool = False

    def step(self, probe: Probe, course: Course, known: Known) -> Iterator[Finding]:
        tokens, self.tokens = probe.report.tokens - self.tokens, probe.report.tokens
        if probe.step_seconds <= 0 or course.steps <= 2:  # the first steps compile, load and allocate
            return
        self.waits = [*self.waits[-29:], probe.data_seconds / probe.step_seconds]
        self.waited += probe.data_seconds
        yield from self._starving(probe, known)
        rate = tokens / probe.step_seconds
        self.last = [*self.last[-29:], (rate, probe.step_seconds)]
        if WARM[0] <= course.steps < WARM[1]:
            self.warm.append(rate)
        elif course.steps >= WARM[1] + 30:
            yield from self._slower(probe, known)

    def _starving(self, probe: Probe, known: Known) -> Iterator[Finding]:
        if self.starving_said or len(self.waits) < 20 or self.waited < 0.2:
            return
        share = statistics.median(self.waits)
        if share > known.settings.waiting_share:
            self.starving_said = True
            factor = 1 / (1 - min(share, 0.99))
            yield finding("D10.starving", "warning", at_step=probe.report.step, share=share, factor=factor)

    def _slower(self, probe: Probe, known: Known) -> Iterator[Finding]:
        if self.slower_said or not self.warm or sum(seconds for _, seconds in self.last) < 20:
            return  # a moment's pause is nobody's fault
        now, warm = statistics.median(rate for rate, _ in self.last), statistics.median(self.warm)
        if now < known.settings.slower * warm:
            self.slower_said = True
            yield finding("D10.slower", "warning", at_step=probe.report.step, now=now, warm=warm)


@dataclass
class Samples:
    """D11: passages of four words that come again within one sample."""

    said: bool = False

    def step(self, probe: Probe, course: Course, known: Known) -> Iterator[Finding]:
        for sample in probe.samples:
            share = repeated_share(sample.text)
            if share > 0.5 and probe.report.progress > 0.5 and not self.said:
                self.said = True
                yield finding("D11.repeats", "info", at_step=sample.step, at=sample.step, share=share)


def repeated_share(text: str) -> float:
    """Of the passages of four words (of Chinese: characters), how many came before; 0 of a short text."""
    words = re.findall(r"[一-鿿]|[^\W一-鿿]+", text.lower())
    passages = Counter(tuple(words[i : i + 4]) for i in range(len(words) - 3))
    total = sum(passages.values())
    return 1 - len(passages) / total if total >= 12 else 0.0


@dataclass
class Preference:
    """D12: what the curves of DPO say (trl#800, #1236)."""

    first: tuple[float, float] | None = None
    """Chosen and rejected log-probabilities when it began."""
    accuracies: list[float] = field(default_factory=list)
    stuck: int = 0
    said: list[str] = field(default_factory=list)

    def step(self, probe: Probe, course: Course, known: Known) -> Iterator[Finding]:
        extra, report = probe.report.extra, probe.report
        if known.method != "dpo":
            return
        self.stuck = self.stuck + 1 if abs(report.loss - math.log(2)) < 1e-4 else 0
        if self.stuck == 10 and self._first_time("nothing"):
            yield finding(
                "D12.nothing-trained", "warning", at_step=report.step, steps=self.stuck, loss=report.loss
            )
        if "accuracy" in extra and len(self.accuracies) < 10:
            self.accuracies.append(extra["accuracy"])
            ranked = self.accuracies[3:]
            if len(self.accuracies) == 10 and min(ranked) >= 0.99 and report.loss < 0.3:
                yield finding("D12.too-easy", "warning", at_step=report.step, accuracy=min(ranked), steps=10)
        if {"chosen", "rejected"} <= extra.keys():
            yield from self._falling(report.step, extra["chosen"], extra["rejected"])

    def _falling(self, step: int, chosen: float, rejected: float) -> Iterator[Finding]:
        self.first = self.first or (chosen, rejected)
        fallen = self.first[0] - chosen
        both = fallen > max(0.2 * abs(self.first[0]), 5.0) and rejected < self.first[1]
        if both and self._first_time("falling"):
            yield finding("D12.both-falling", "warning", at_step=step, first=self.first[0], now=chosen)

    def _first_time(self, what: str) -> bool:
        if what in self.said:
            return False
        self.said.append(what)
        return True


HEAD = 32
"""Rows by which the order of an epoch is known."""


@dataclass
class RowOrder:
    """D13: rows read again within an epoch (a resume that replays), and epochs in the same order."""

    epoch: int = -1
    seen: set[int] = field(default_factory=set)
    """Rows of this epoch; of a large split one in so many."""
    again: list[float] = field(default_factory=list)
    """Of each of the last steps, the share of its rows that had been read."""
    heads: list[list[int]] = field(default_factory=list)
    """The first rows of the last two epochs."""
    replayed_said: bool = False
    order_said: bool = False

    def step(self, probe: Probe, course: Course, known: Known) -> Iterator[Finding]:
        epoch = int(probe.report.epoch) if probe.epoch is None else probe.epoch
        if not probe.rows:
            return
        if epoch != self.epoch:
            self.epoch, self.seen, self.again = epoch, set(), []
            self.heads = [*self.heads[-1:], []]
        one_in = max(1, (known.train.rows if known.train else 0) // 4096)
        rows = [int(row) for row in probe.rows]
        kept = [row for row in rows if row % one_in == 0]
        if kept:
            self.again = [*self.again[-9:], sum(row in self.seen for row in kept) / len(kept)]
        self.seen.update(kept)
        yield from self._replayed(probe)
        head = self.heads[-1]
        if len(head) < HEAD:
            head.extend(rows[: HEAD - len(head)])
            yield from self._same_order(probe)

    def _replayed(self, probe: Probe) -> Iterator[Finding]:
        if self.replayed_said or len(self.again) < 10:
            return
        share = statistics.mean(self.again)
        if share > 0.5:
            self.replayed_said = True
            yield finding(
                "D13.replayed", "warning", at_step=probe.report.step, share=share, epoch=self.epoch + 1
            )

    def _same_order(self, probe: Probe) -> Iterator[Finding]:
        if self.order_said or len(self.heads) < 2 or len(self.heads[-1]) < HEAD:
            return
        if self.heads[0] == self.heads[1]:
            self.order_said = True
            yield finding(
                "B3.same-order",
                "warning",
                at_step=probe.report.step,
                epoch=self.epoch + 1,
                before=self.epoch,
            )
