"""How a training run looks in the terminal: one bar that moves, and a line for whatever is worth one."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from quinze.cli import console

if TYPE_CHECKING:
    from quinze.service.run_info import RunInfo
    from quinze.training.events import EvaluationReport, Finding, RunEnd, StepReport, TrainingEvent

STYLES = {"info": "", "warning": "yellow", "stop": "red"}
SIGNS = {"info": "·", "warning": "!", "stop": "✗"}


class RunDisplay:
    """Shows events on standard error. With `as_json` each is a line of JSON on standard output instead."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self.end: RunEnd | None = None
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if console.person_is_watching() and not as_json:
            self._bar = Progress(
                BarColumn(bar_width=24), TextColumn("{task.percentage:>3.0f}%  {task.description}"),
                console=console.errors_console(), transient=True,
            )  # fmt: skip

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("looking at data and model", total=1.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, event: TrainingEvent) -> None:
        from quinze.training import events

        if isinstance(event, events.RunEnd):
            self.end = event
        if self._as_json:
            console.print_json_line(event)
        elif isinstance(event, events.StepReport):
            self._step(event)
        elif isinstance(event, events.EvaluationReport):
            console.remark(_evaluation(event))
        elif isinstance(event, events.Finding):
            _finding(event)
        elif isinstance(event, events.SampleReport):
            console.remark(f"  {event.prompt}▸{event.text}", style="dim")

    def _step(self, report: StepReport) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=report.progress, description=_step_line(report))


def run_rows(runs: Sequence[RunInfo]) -> list[tuple[str, ...]]:
    """Of `quinze train ls`."""
    return [
        (
            run.name, run.method or "", run.state, f"{run.progress:.0%}", f"{run.step:,}", _loss(run.loss),
            _loss(run.best_loss), run.path,
        )
        for run in runs
    ]  # fmt: skip


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _step_line(report: StepReport) -> str:
    more = "".join(f"  {name} {value:.3f}" for name, value in report.extra.items())
    return (
        f"step {report.step:,}  loss {report.loss:.3f}{more}  {report.tokens_per_second:,.0f} tokens/s  "
        f"{_clock(report.eta_seconds)} left"
    )


def _evaluation(report: EvaluationReport) -> str:
    bits = f", {report.bits_per_byte:.3f} bits a byte" if report.bits_per_byte is not None else ""
    gap = f" (training {report.train_loss:.3f})" if report.train_loss is not None else ""
    best = "  best so far" if report.best else ""
    loss = f"{report.split} loss {report.loss:.4f}{bits}{gap}{best}"
    return f"step {report.step:,}, {_clock(report.seconds)}: {loss}"


def _finding(finding: Finding) -> None:
    where = f"step {finding.step:,}: " if finding.step else ""
    console.remark(f"{SIGNS[finding.severity]} {where}{finding.verdict}", style=STYLES[finding.severity])
    if finding.fix and finding.severity != "info":
        console.remark(f"  {finding.fix}")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
