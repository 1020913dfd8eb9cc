"""During the run, the model itself: D7 how far weights move, D8 dead units, D9 outputs that grow.

A look costs a sample of each weight before and after one step, and now and then one small forward pass;
between looks nothing is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from quinze.training.doctor.course import Course, Known
from quinze.training.doctor.untouched import looking
from quinze.training.doctor.words import finding
from quinze.training.events import Finding
from quinze.training.watch import Probe, Setup

SAMPLED = 2048
"""Numbers of each weight that are compared."""
FORWARD_EVERY = 8
"""Looks between two that run the model too."""
TOKENS = 256
"""Of the small forward pass."""


@dataclass
class Gauges:
    """Reads weights itself; all else it holds is plain data (`plain`)."""

    setup: Setup
    looks: int = 0
    said: list[str] = field(default_factory=list)
    usual_logit: float | None = None
    before: dict[str, torch.Tensor] = field(default_factory=dict)
    earlier: dict[str, torch.Tensor] = field(default_factory=dict)
    """The sample of one look before, to see what has not moved since."""
    earlier_step: int = 0

    def due(self, step: int, every: int) -> bool:
        """Often at the beginning, when a wrong rate shows itself."""
        return step % every == 0 or step in (4, 8, 16)

    def snapshot(self) -> None:
        self.before = {name: _sample(p) for name, p in self._weights()}

    def _weights(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        for name, parameter in self.setup.transformer.named_parameters():
            if parameter.requires_grad:
                yield name, parameter

    def step(self, probe: Probe, course: Course, known: Known) -> Iterator[Finding]:
        if not self.before:
            return
        before, self.before = self.before, {}
        if probe.skipped:
            return
        self.looks += 1
        now = {name: _sample(p) for name, p in self._weights()}
        ratios = self._ratios(before, now)
        course.ratio = max((x for name, x in ratios.items() if "embed" not in name), default=None)
        report = probe.report
        if report.learning_rate > 1e-4:
            yield from self._frozen(report.step, now)
            if course.steps >= 50 and report.progress > max(0.1, known.plan.warmup):
                yield from self._large(report.step, ratios, known)
        if self.looks % FORWARD_EVERY == 1:
            yield from self._forward(report.step, known)

    def _ratios(self, before: dict[str, torch.Tensor], now: dict[str, torch.Tensor]) -> dict[str, float]:
        """Update by weight, root mean squares, of each matrix that does not begin with zeros."""
        moved = {name: (now[name] - old).norm() for name, old in before.items() if old.numel() >= SAMPLED}
        sizes = {name: before[name].norm() for name in moved}
        return {
            name: float(moved[name]) / float(size)
            for name, size in sizes.items()
            if float(size) / math.sqrt(before[name].numel()) > 1e-4
        }

    def _frozen(self, step: int, now: dict[str, torch.Tensor]) -> Iterator[Finding]:
        earlier, self.earlier = self.earlier, now
        steps, self.earlier_step = step - self.earlier_step, step
        still = [
            name
            for name, sample in earlier.items()
            if name in now and "embed" not in name and bool((sample == now[name]).all())
        ]
        if still and steps >= 8 and "frozen" not in self.said:
            self.said.append("frozen")
            names = ", ".join(still[:3]) + (f", ... {len(still) - 3} more" if len(still) > 3 else "")
            yield finding("D7.frozen", "warning", at_step=step, group=names, steps=steps, count=len(still))

    def _large(self, step: int, ratios: dict[str, float], known: Known) -> Iterator[Finding]:
        large = {name: x for name, x in ratios.items() if x > known.settings.large_ratio}
        if len(large) > len(ratios) / 4 and "large" not in self.said:
            self.said.append("large")
            worst = max(large, key=lambda name: large[name])
            yield finding("D7.large-updates", "warning", at_step=step, group=worst, ratio=large[worst])

    def _forward(self, step: int, known: Known) -> Iterator[Finding]:
        """Units and outputs on a few tokens of what is read now."""
        batch = self.setup.batches(max(0, step - 1), 0)
        rows = max(1, TOKENS // batch.ids.shape[1])
        device = next(self.setup.transformer.parameters()).device
        ids = torch.from_numpy(batch.ids[:rows, : TOKENS * 4]).to(device)
        silent: dict[str, torch.Tensor] = {}
        with looking(self.setup.transformer), _inputs_of(self.setup.transformer, "down_proj", silent):
            logits = self.setup.transformer(ids)
        yield from self._dead(step, silent, known)
        largest = float(logits.detach().abs().max())
        self.usual_logit = self.usual_logit if self.usual_logit is not None else largest
        limit = max(known.settings.largest_logit, 3 * self.usual_logit)
        if largest > limit and "logits" not in self.said:
            self.said.append("logits")
            yield finding("D9.logits", "warning", at_step=step, largest=largest, usual=self.usual_logit)

    def _dead(self, step: int, largest: dict[str, torch.Tensor], known: Known) -> Iterator[Finding]:
        if self.looks <= 1 or "dead" in self.said:
            return
        for layer, values in largest.items():
            share = float((values < 1e-7 * values.max().clamp(min=1e-30)).float().mean())
            if share > known.settings.dead_share:
                self.said.append("dead")
                yield finding("D8.dead-units", "warning", at_step=step, layer=layer, share=share)
                return

    def plain(self) -> dict[str, object]:
        return {"looks": self.looks, "said": self.said, "usual_logit": self.usual_logit}

    def take(self, state: dict[str, object]) -> None:
        for name in ("looks", "said", "usual_logit"):
            if name in state:
                setattr(self, name, state[name])


def _sample(parameter: torch.nn.Parameter) -> torch.Tensor:
    """Evenly spaced numbers of it, copied; of a sharded weight those of this process."""
    local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
    flat = local.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // SAMPLED)].clone().float()


class _inputs_of:  # noqa: N801, a context manager reads like a function
    """While it runs, keeps of each module of that name the largest size of each of its inputs, (units,)."""

    def __init__(self, transformer: torch.nn.Module, name: str, found: dict[str, torch.Tensor]) -> None:
        self._modules = [(n, m) for n, m in transformer.named_modules() if n.endswith(name)]
        self._found = found

    def __enter__(self) -> None:
        def hook(name: str) -> Callable[[Any, Any], None]:
            def see(_module: Any, inputs: Any) -> None:
                self._found[name] = inputs[0].detach().abs().reshape(-1, inputs[0].shape[-1]).amax(0)

            return see

        self._handles = [m.register_forward_pre_hook(hook(n)) for n, m in self._modules]

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
