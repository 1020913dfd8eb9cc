"""What is told of a training run, to a page, a list or another program. Read from its folder alone."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from quinze.errors import QuinzeError
from quinze.service.run_log import RunLog
from quinze.service.run_process import complaint
from quinze.training.control import wanted
from quinze.training.doctor.floors import Floors
from quinze.training.doctor.settings import Language
from quinze.training.doctor.words import translate
from quinze.training.events import EvaluationReport, Finding, SampleReport
from quinze.training.recording import METRICS
from quinze.training.run_config import RunConfig, load_run_config

State = Literal["running", "paused", "interrupted", "finished", "failed"]
RESOLVED, WANTED = "run.toml", "wanted.toml"
"""The settings as the trainer wrote them, and as they were asked for (before it has begun)."""


class RunInfo(msgspec.Struct, kw_only=True):
    """A run at one moment."""

    name: str
    path: str
    state: State
    """interrupted: it can go on where it was."""
    method: str | None = None
    progress: float = 0.0
    """0 to 1."""
    eta_seconds: float | None = None
    """None when it does not run."""
    step: int = 0
    tokens: int = 0
    tokens_per_second: float | None = None
    seconds: float = 0.0
    """Of training."""
    loss: float | None = None
    """Moving mean of the steps, nats a token."""
    best_loss: float | None = None
    """Of the evaluations."""
    best_step: int | None = None
    bits_per_byte: float | None = None
    """Of the best evaluation."""
    warnings: int = 0
    """Rules of the doctor that had more to say than a remark."""
    model: str | None = None
    """Folder of the finished model."""
    message: str = ""
    """Why it failed."""
    changed_at: str | None = None
    lines: int = 0
    """Of its log: numbers of events."""


class RunDetail(RunInfo, kw_only=True):
    """The same, with what one looks at when one looks at this run alone."""

    config: RunConfig | None = None
    floors: Floors | None = None
    """Losses that simple tables reach on the same text."""
    findings: list[Finding] = []
    samples: list[SampleReport] = []
    last_evaluation: EvaluationReport | None = None


def is_run(folder: Path) -> bool:
    with contextlib.suppress(OSError):  # too long a name
        return any((folder / name).is_file() for name in (RESOLVED, WANTED))
    return False


def run_info(name: str, folder: Path, log: RunLog, *, alive: bool) -> RunInfo:
    """alive  whether a process trains in the folder now"""
    log.read()
    step, best, end = log.step, log.best, log.end
    failure = "" if alive else complaint(folder)
    state = _state(alive, wanted(folder), end.reason if end else None, failure)
    config = config_of(folder)
    # By its name alone: the run may have been started with a relative path, or moved since.
    model = folder / Path(end.model).name if end and end.model else None
    return RunInfo(
        name=name,
        path=str(folder),
        state=state,
        method=config.method if config else None,
        progress=1.0 if end and end.reason == "finished" else step.progress if step else 0.0,
        eta_seconds=step.eta_seconds if step and state in ("running", "paused") else None,
        step=step.step if step else 0,
        tokens=step.tokens if step else 0,
        tokens_per_second=step.tokens_per_second if step else None,
        seconds=step.seconds if step else 0.0,
        loss=log.loss,
        best_loss=best.loss if best else None,
        best_step=best.step if best else None,
        bits_per_byte=best.bits_per_byte if best else None,
        warnings=len({finding.id for finding in list(log.findings) if finding.severity != "info"}),
        model=str(model) if model and model.is_dir() else None,
        message=failure or (end.message if end else ""),
        changed_at=_changed(folder),
        lines=log.lines,
    )


def run_detail(name: str, folder: Path, log: RunLog, *, alive: bool, language: Language) -> RunDetail:
    info = run_info(name, folder, log, alive=alive)
    return RunDetail(
        **msgspec.structs.asdict(info),
        config=config_of(folder),
        floors=_floors(folder),
        findings=[in_language(finding, language) for finding in list(log.findings)],
        samples=list(log.samples),
        last_evaluation=log.evaluation,
    )


def in_language(found: Finding, language: Language) -> Finding:
    """One whose numbers are not those of our sentence stays as it is."""
    with contextlib.suppress(KeyError, IndexError, ValueError, TypeError):
        return translate(found, language)
    return found


def config_of(folder: Path) -> RunConfig | None:
    for name in (RESOLVED, WANTED):
        with contextlib.suppress(QuinzeError, OSError):
            return load_run_config(folder / name)
    return None


def _state(alive: bool, command: str, ended: str | None, failure: str) -> State:
    if alive:
        return "paused" if command == "pause" else "running"
    if ended in ("finished", "stopped"):
        return "finished"
    return "failed" if ended == "failed" or failure else "interrupted"


def _floors(folder: Path) -> Floors | None:
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return msgspec.json.decode((folder / "floors.json").read_bytes(), type=Floors)
    return None


def _changed(folder: Path) -> str | None:
    for name in (METRICS, RESOLVED, WANTED):
        with contextlib.suppress(OSError):
            moment = datetime.fromtimestamp((folder / name).stat().st_mtime, UTC)
            return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
    return None
