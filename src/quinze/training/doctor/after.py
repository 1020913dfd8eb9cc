"""After the run: A3 how exact its number is, A4 what it learned by heart, A6 what it cost."""

from __future__ import annotations

from collections.abc import Iterator

from quinze.evaluation.bootstrap import standard_error
from quinze.training.doctor.course import Course, Known
from quinze.training.doctor.untouched import looking
from quinze.training.doctor.words import finding
from quinze.training.events import Finding, RunEnd, StepReport
from quinze.training.watch import Setup

BATCHES = 16


def noise_and_memory(setup: Setup, known: Known, end: RunEnd) -> Iterator[Finding]:
    """Losses on a few batches of both splits, with the weights as they are now."""
    if setup.validation_batches is None or setup.validation is None or known.method == "dpo":
        return
    first = setup.validation_batches(0)
    count = min(BATCHES, max(1, setup.validation.rows // max(1, len(first.rows))))
    with looking(setup.transformer):
        held = [float(setup.loss(setup.validation_batches(i))) for i in range(count)]
        seen = min(count, max(1, end.step))
        read = [float(setup.loss(setup.batches(max(0, end.step - 1 - i), 0))) for i in range(seen)]
    if count >= 4:
        loss, error = standard_error(held)
        yield finding("A3.noise", "info", at_step=end.step, loss=loss, error=2 * error, batches=count)
    train, validation = sum(read) / len(read), sum(held) / len(held)
    if validation - train > 0.5 and not known.base_loaded:
        yield finding(
            "A4.memorized",
            "info",
            at_step=end.step,
            train=train,
            validation=validation,
            gap=validation - train,
        )


def cost(last: StepReport | None, course: Course, known: Known) -> Iterator[Finding]:
    if last is None or course.smooth is None or known.floors is None or last.seconds <= 0:
        return
    yield finding(
        "A6.cost",
        "info",
        at_step=last.step,
        tokens=last.tokens,
        minutes=last.seconds / 60,
        speed=last.tokens / last.seconds,
        loss=course.smooth,
        trigram=known.floors.trigram,
    )
