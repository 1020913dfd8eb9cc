"""The events of a training run as they are sent to whoever watches: in their language, and not too many."""

from __future__ import annotations

from pathlib import Path

from quinze.service.run_info import in_language
from quinze.service.run_log import Tail, event_of
from quinze.training.doctor.settings import Language
from quinze.training.events import Finding, StepReport, TrainingEvent
from quinze.training.recording import METRICS


class RunEvents:
    """The events of a run from one number on, asked for again and again. One reader, one thread."""

    def __init__(
        self, folder: Path, after: int, language: Language, steps: int | None, *, void: bool = False
    ) -> None:
        """void  the log was written anew since somebody counted to `after`"""
        self._tail = Tail(folder / METRICS)
        self._after, self._language, self._steps = 0 if void else after, language, steps
        self._void = void

    def more(self) -> tuple[bool, list[tuple[int, TrainingEvent]]]:
        """(whether all that was told before is void, the new events by number)."""
        anew, lines = self._tail.more()
        anew, self._void = anew or self._void, False
        if anew:
            self._after = 0
        found: list[tuple[int, TrainingEvent]] = []
        for number, line in lines:
            event = event_of(line) if number > self._after else None
            if event is not None:
                told = in_language(event, self._language) if isinstance(event, Finding) else event
                found.append((number, told))
        return anew, self._thinned(found)

    def _thinned(self, found: list[tuple[int, TrainingEvent]]) -> list[tuple[int, TrainingEvent]]:
        """Of many steps at once every n-th and the last; of all else everything."""
        steps = [number for number, event in found if isinstance(event, StepReport)]
        if self._steps is None or len(steps) <= self._steps:
            return found
        kept = {*steps[:: -(-len(steps) // self._steps)], steps[-1]}
        return [pair for pair in found if pair[0] in kept or not isinstance(pair[1], StepReport)]
