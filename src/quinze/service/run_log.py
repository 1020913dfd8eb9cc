"""The log of a training run, read while another process writes it.

Given the path of a metrics.jsonl; lines are numbered from 1. A run that goes on after an interruption writes
its log anew, without what it will do again: whoever follows is told, and begins anew too.
"""

from __future__ import annotations

import collections
import os
import threading
from pathlib import Path

import msgspec

from quinze.training.events import (
    CheckpointReport,
    EvaluationReport,
    Finding,
    RunEnd,
    SampleReport,
    StepReport,
    TrainingEvent,
)
from quinze.training.recording import METRICS

_PIECE = 4 * 2**20
"""Bytes read at one time; a line that is longer is none of ours, and is passed over."""
_MOST_FINDINGS, _MOST_SAMPLES = 200, 40
_SMOOTH = 0.05
"""Weight of a new loss in the moving mean: some twenty steps."""

_decoder: msgspec.json.Decoder[TrainingEvent] = msgspec.json.Decoder(TrainingEvent)


def event_of(line: bytes) -> TrainingEvent | None:
    """None for a line that is no event."""
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


class Tail:
    """The whole lines of a file that grows. One reader, one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode: int | None = None
        self._offset = self._number = 0

    def more(self) -> tuple[bool, list[tuple[int, bytes]]]:
        """(whether the file was written anew since the last call, its lines since then by number)."""
        try:
            with self._path.open("rb") as file:
                facts = os.fstat(file.fileno())
                anew = self._inode is not None and (
                    facts.st_ino != self._inode or facts.st_size < self._offset
                )
                if anew:
                    self._offset = self._number = 0
                self._inode = facts.st_ino
                file.seek(self._offset)
                piece = file.read(_PIECE)
        except OSError:
            return False, []
        end = piece.rfind(b"\n") + 1
        if not end:
            self._offset += len(piece) if len(piece) == _PIECE else 0
            return anew, []
        self._offset += end
        found = [(self._number + i, line) for i, line in enumerate(piece[:end].split(b"\n")[:-1], 1)]
        self._number += len(found)
        return anew, found


class RunLog:
    """What is known of one run by its log; `read` takes in what is new. Any thread may ask."""

    def __init__(self, folder: Path) -> None:
        self._tail = Tail(folder / METRICS)
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self.lines = 0
        self.step: StepReport | None = None
        self.loss: float | None = None
        """Moving mean of the steps' losses."""
        self.evaluation: EvaluationReport | None = None
        self.best: EvaluationReport | None = None
        self.end: RunEnd | None = None
        self.findings: collections.deque[Finding] = collections.deque(maxlen=_MOST_FINDINGS)
        self.samples: collections.deque[SampleReport] = collections.deque(maxlen=_MOST_SAMPLES)

    def read(self) -> None:
        with self._lock:
            while True:
                anew, found = self._tail.more()
                if anew:
                    self._forget()
                if not found:
                    return
                self.lines = found[-1][0]
                for _, line in found:
                    self._take(event_of(line))

    def _take(self, event: TrainingEvent | None) -> None:
        match event:
            case StepReport():
                self.step = event
                before = event.loss if self.loss is None else self.loss
                self.loss = before + _SMOOTH * (event.loss - before)
            case EvaluationReport():
                self.evaluation = event
                if self.best is None or event.loss < self.best.loss:
                    self.best = event
            case Finding():
                self.findings.append(event)
            case SampleReport():
                self.samples.append(event)
            case RunEnd():
                self.end = event
            case CheckpointReport() | None:
                pass
