"""The doctor at the bedside: all rules in the order in which they look, and what they remember."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, fields
from typing import Any, Protocol

import msgspec

from quinze.errors import CheckpointError
from quinze.paths import atomic_write
from quinze.training.doctor import (
    after,
    before_data,
    before_labels,
    before_plan,
    before_wiring,
)
from quinze.training.doctor.course import Course, Known
from quinze.training.doctor.during_flow import Preference, RowOrder, Samples, Speed
from quinze.training.doctor.during_loss import (
    Floor,
    Forecast,
    NonFinite,
    Overfitting,
    Plateau,
    Spikes,
    TooGood,
)
from quinze.training.doctor.floors import Floors
from quinze.training.doctor.gauges import Gauges
from quinze.training.doctor.look import Look, look
from quinze.training.doctor.settings import DoctorSettings
from quinze.training.doctor.untouched import first_broken, looking, naming
from quinze.training.doctor.words import translate
from quinze.training.events import Finding, RunEnd, StepReport
from quinze.training.watch import Probe, Setup

BEFORE: tuple[Callable[[Look], Iterator[Finding]], ...] = (
    before_data.ids_fit,
    before_labels.supervised,
    before_labels.shifted,
    before_labels.ends,
    before_labels.begins,
    before_data.order,
    before_data.fertility,
    before_data.unknown_tokens,
    before_data.unused_vocabulary,
    before_data.duplicates,
    before_data.visiting_order,
    before_data.validation_is_alike,
    before_plan.budget,
    before_plan.disk,
    before_plan.schedule,
    before_plan.learning_rates,
    before_plan.shapes,
    before_wiring.loaded,
    before_wiring.trainable,
    before_wiring.first_loss,
    before_wiring.gradients,
    before_wiring.masks,
    before_wiring.memorizes,
)


class Rule(Protocol):
    """Of "during": a dataclass of plain data."""

    def step(self, probe: Probe, course: Course, known: Known) -> Iterator[Finding]: ...


def during() -> dict[str, Any]:
    """Fresh rules of "during", by name."""
    loss = (NonFinite, Spikes, Floor, TooGood, Forecast, Plateau, Overfitting)
    rules = (*loss, Speed, Samples, Preference, RowOrder)
    return {kind.__name__: kind() for kind in rules}


class Doctor:
    """A Watcher (watch.py). Without a setup it judges what it is shown (offline.py)."""

    def __init__(self, settings: DoctorSettings | None = None) -> None:
        self.settings = settings or DoctorSettings()
        self.known = Known(self.settings)
        self.course = Course()
        self.rules = during()
        self.gauges: Gauges | None = None
        self._setup: Setup | None = None
        self._last: StepReport | None = None

    @property
    def floors(self) -> Floors | None:
        return self.known.floors

    def before(self, setup: Setup) -> list[Finding]:
        """Some seconds: floors are counted, a few rows are tried; every weight is left as it was.

        The floors are written to floors.json in the run's folder.
        """
        self._setup = setup
        seen = look(setup, self.settings)
        self.know(
            Known(
                self.settings, setup.method, setup.model.vocab_size, seen.floors, setup.plan, setup.train,
                setup.base_loaded,
            )
        )  # fmt: skip
        self.gauges = Gauges(setup)
        if setup.folder and seen.floors and setup.rank == 0 and setup.folder.is_dir():
            with atomic_write(setup.folder / "floors.json") as file:
                file.write(msgspec.json.encode(seen.floors))
        return self._said(found for rule in BEFORE for found in rule(seen))

    def know(self, known: Known) -> None:
        self.known = known

    def allow(self, step: int, loss: float, grad_norm: float | None) -> bool:
        """Not a step whose loss or gradient is no number: one is enough to spoil every weight."""
        if math.isfinite(loss) and (grad_norm is None or math.isfinite(grad_norm)):
            if self.gauges and self.gauges.due(step, self.settings.gauge_every):
                self.gauges.snapshot()
            return True
        self.rules["NonFinite"].place = self._place(step)
        return False

    def _place(self, step: int) -> str:
        """Where it went wrong first: a weight, a module of the forward pass, or a gradient."""
        if self._setup is None:
            return ""
        model = self._setup.transformer
        broken = first_broken(model)
        if broken and not broken.endswith(".grad"):
            return broken
        places: list[str] = []
        with looking(model), naming(model, places):
            self._setup.loss(self._setup.batches(step - 1, 0))
        return places[0] if places else broken

    def step(self, probe: Probe) -> list[Finding]:
        self.course.see(probe)
        self._last = probe.report
        rules: Iterable[Rule] = [*self.rules.values()]
        if self.gauges:  # first, for others ask how far weights moved
            rules = [self.gauges, *rules]
        return self._said(found for rule in rules for found in rule.step(probe, self.course, self.known))

    def after(self, end: RunEnd) -> list[Finding]:
        found: list[Finding] = []
        if self._setup is not None and end.reason in ("finished", "stopped") and self.course.losses:
            found += after.noise_and_memory(self._setup, self.known, end)
        found += after.cost(self._last, self.course, self.known)
        return self._said(found)

    def _said(self, found: Iterable[Finding]) -> list[Finding]:
        quiet = self.settings.quiet
        kept = [one for one in found if one.id not in quiet and one.id.split(".")[0] not in quiet]
        return (
            kept if self.settings.language == "en" else [translate(x, self.settings.language) for x in kept]
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain data, a few kilobytes; of a large split a sample of the rows seen in this epoch."""
        rules = {name: asdict(rule) for name, rule in self.rules.items()}
        rules["RowOrder"]["seen"] = sorted(rules["RowOrder"]["seen"])
        return {
            "version": 1,
            "course": asdict(self.course),
            "rules": rules,
            "gauges": self.gauges.plain() if self.gauges else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises CheckpointError if it is not a doctor's."""
        if state.get("version") != 1 or not isinstance(state.get("rules"), dict):
            raise CheckpointError(
                "The doctor's part of the checkpoint is of another version.",
                hint="Resume with the version of Quinze that began the run.",
            )
        _take(self.course, state["course"])
        self.course.points = [(int(step), float(loss)) for step, loss in self.course.points]
        for name, values in state["rules"].items():
            if name in self.rules:
                _take(self.rules[name], values)
        order: RowOrder = self.rules["RowOrder"]
        order.seen = set(order.seen)
        if self.gauges:
            self.gauges.take(state.get("gauges", {}))


def _take(target: Any, values: dict[str, Any]) -> None:
    """Fields by name; lists are copied, for the state may be shared."""
    for each in fields(target):
        if each.name in values:
            value = values[each.name]
            setattr(target, each.name, list(value) if isinstance(value, list | tuple) else value)
