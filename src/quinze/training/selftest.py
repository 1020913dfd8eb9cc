"""Does a run of yours resume exactly? Tried on this machine, with these settings, in some steps.

One run goes straight through, one is interrupted twice; then everything that was learned is compared, byte
by byte. What makes a difference is named.
"""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec

from quinze.training.checkpointing import MODEL, MOMENTS, Checkpoints
from quinze.training.events import StepReport
from quinze.training.run_config import RunConfig, ScheduleTable
from quinze.training.trainer import Trainer

STEPS, STOPS = 8, (2, 5)


class ResumeCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """What was compared."""

    steps: int
    interrupted_after: tuple[int, ...]
    losses_equal: bool
    weights_equal: bool
    moments_equal: bool
    first_different_step: int | None

    @property
    def exact(self) -> bool:
        return self.losses_equal and self.weights_equal and self.moments_equal


def certify_resume(config: RunConfig, folder: Path) -> ResumeCertificate:
    """Two runs of eight steps in `folder`, which is left there. Raises what a run raises."""
    schedule = ScheduleTable(
        steps=STEPS,
        kind=config.schedule.kind,
        warmup=config.schedule.warmup,
        decay=config.schedule.decay,
        final=config.schedule.final,
    )
    runtime = msgspec.structs.replace(config.runtime, deterministic=True, compile="off")
    evaluation = msgspec.structs.replace(config.evaluation, times=1, prompts=())
    short = msgspec.structs.replace(config, schedule=schedule, runtime=runtime, evaluation=evaluation)
    straight = _losses(short, folder / "straight", None)
    parts: dict[int, float] = {}
    for stop in (*STOPS, None):
        parts |= _losses(short, folder / "interrupted", stop)
    different = [step for step in straight if parts.get(step) != straight[step]]
    return ResumeCertificate(
        steps=STEPS,
        interrupted_after=STOPS,
        losses_equal=not different,
        weights_equal=_same(folder, MODEL),
        moments_equal=_same(folder, MOMENTS),
        first_different_step=different[0] if different else None,
    )


def _losses(config: RunConfig, folder: Path, stop: int | None) -> dict[int, float]:
    cancel = threading.Event()
    found: dict[int, float] = {}
    for event in Trainer(config, folder).run(cancel):
        if isinstance(event, StepReport):
            found[event.step] = event.loss
            if event.step == stop:
                cancel.set()
    return found


def _same(folder: Path, name: str) -> bool:
    one, other = (
        Checkpoints(folder / run / "checkpoints").folder / f"step-{STEPS}" / name
        for run in ("straight", "interrupted")
    )
    return one.read_bytes() == other.read_bytes()
