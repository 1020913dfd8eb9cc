"""The progress of an ingest: a bar for a person, plain lines for a log, nothing when nobody wants it."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from quinze.cli import console

if TYPE_CHECKING:
    from quinze.knowledge.results import IngestEvent


class IngestDisplay:
    """Shows events on standard error. `verbose`: a line for every file; `silent`: nothing at all."""

    def __init__(self, *, verbose: bool, silent: bool) -> None:
        self._verbose, self._silent = verbose, silent
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if console.person_is_watching() and not silent:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=console.errors_console(),
                transient=True,
            )

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("looking", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def event(self, event: IngestEvent) -> None:
        if self._silent:
            return
        if self._bar is not None:
            total = event.total or None
            self._bar.update(self._task, description=_short(_doing(event)), completed=event.done, total=total)
        if event.stage == "failed":
            console.remark(f"✗ {event.document}: {event.error} {event.hint}".rstrip(), style="red")
        elif event.stage == "ready" and self._verbose:
            pages = f", {event.pages} pages" if event.pages else ""
            console.remark(f"✓ {event.document}{pages}, {event.seconds:.1f} s")
        elif event.stage == "skipped" and self._verbose:
            console.remark(f"= {event.document}")


def _doing(event: IngestEvent) -> str:
    if event.page and event.pages:
        return f"{event.document}, page {event.page} of {event.pages}"
    return event.document


def _short(text: str, most: int = 48) -> str:
    """The end of a long path tells more than its beginning."""
    return text if len(text) <= most else "…" + text[-most + 1 :]
