"""A doctor for logs: metrics.jsonl of Quinze, or trainer_state.json of Hugging Face's Trainer.

The same rules as at the bedside, as far as a log shows what they need: losses, gradient norms, evaluations,
the order of time. Floors are read from floors.json beside metrics.jsonl.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from quinze.errors import FileFormatError, NotFoundError
from quinze.training.doctor.course import Known
from quinze.training.doctor.doctor import Doctor
from quinze.training.doctor.floors import Floors
from quinze.training.doctor.settings import DoctorSettings
from quinze.training.events import EvaluationReport, Finding, RunEnd, SampleReport, StepReport
from quinze.training.watch import Method, Probe

MAX_BYTES = 2**28
"""Of a log; millions of steps."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    findings: list[Finding]
    steps: int
    """Entries of the log that tell of a step."""
    source: str
    """"quinze" or "huggingface"."""
    last_loss: float | None


def diagnose(
    path: Path,
    settings: DoctorSettings | None = None,
    *,
    method: Method = "pretrain",
    vocab_size: int | None = None,
) -> Diagnosis:
    """Reads a run's folder, its metrics.jsonl, or a trainer_state.json (also within checkpoint-N/ folders).

    method      of a foreign run; a chat or preference run is not compared with blind guessing
    vocab_size  of a foreign model, to know what blind guessing costs
    Findings that the run itself wrote down come first. Raises NotFoundError and FileFormatError.
    """
    log = _log_of(path)
    doctor = Doctor(settings)
    floors = _floors(log.parent / "floors.json")
    known = floors.vocab_size if floors else vocab_size
    doctor.know(Known(doctor.settings, method, known, floors))
    ours = log.suffix == ".jsonl"
    told, probes = _ours(log) if ours else ([], _huggingface(log))
    findings, steps, last = list(told), 0, None
    said = {(one.id, one.step) for one in told}
    for probe in probes:
        steps, last = steps + 1, probe.report.loss
        findings += [one for one in doctor.step(probe) if (one.id, one.step) not in said]
    if not steps:
        raise FileFormatError(
            f"{log.name} tells of no training step.", hint="Is the run still before its first?"
        )
    return Diagnosis(findings, steps, "quinze" if ours else "huggingface", last)


def _log_of(path: Path) -> Path:
    if path.is_file():
        return path
    for name in ("metrics.jsonl", "trainer_state.json"):
        if (path / name).is_file():
            return path / name
    numbered = [p for p in path.glob("checkpoint-*/trainer_state.json") if p.parent.name[11:].isdigit()]
    if numbered:
        return max(numbered, key=lambda p: int(p.parent.name[11:]))
    raise NotFoundError(
        f"There is no log of a training run in {path}.",
        hint="Name a run's folder, a metrics.jsonl, or a trainer_state.json of Hugging Face's Trainer.",
    )


def _floors(path: Path) -> Floors | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Floors)
    except (OSError, msgspec.MsgspecError):
        return None  # they only sharpen the judgment


def _text(path: Path) -> str:
    if path.stat().st_size > MAX_BYTES:
        raise FileFormatError(f"{path.name} is larger than {MAX_BYTES >> 20} MB; that is no log of a run.")
    return path.read_text("utf-8", "replace")


def _ours(path: Path) -> tuple[list[Finding], list[Probe]]:
    """Events of events.py, a line each; the last line may be cut off in a run that was killed."""
    told: list[Finding] = []
    reports: list[StepReport] = []
    beside: dict[int, tuple[list[EvaluationReport], list[SampleReport]]] = {}
    lines = _text(path).split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        event = _event(line)
        if event is None and number < len(lines) - 1:
            raise FileFormatError(f"Line {number} of {path.name} is no event of a training run.")
        if isinstance(event, Finding):
            told.append(event)
        elif isinstance(event, StepReport):
            reports.append(event)
        elif isinstance(event, EvaluationReport):
            beside.setdefault(event.step, ([], []))[0].append(event)
        elif isinstance(event, SampleReport):
            beside.setdefault(event.step, ([], []))[1].append(event)
    return told, list(_probes(reports, beside))


def _event(line: str) -> Any:
    """JSON knows no NaN: a loss that was none was written as null."""
    try:
        raw = json.loads(line)
        if raw.get("type") in ("step", "evaluation") and raw.get("loss", 0) is None:
            raw["loss"] = math.nan
        kinds = Finding | StepReport | EvaluationReport | SampleReport | RunEnd
        return msgspec.convert(raw, kinds) if raw.get("type") != "checkpoint" else ()
    except (ValueError, AttributeError, msgspec.MsgspecError):
        return None


def _probes(
    reports: list[StepReport], beside: dict[int, tuple[list[EvaluationReport], list[SampleReport]]]
) -> Iterator[Probe]:
    before = 0.0
    for report in reports:
        evaluations, samples = beside.get(report.step, ([], []))
        held = [one for one in evaluations if one.split != "train"]
        yield Probe(
            report,
            step_seconds=max(0.0, report.seconds - before),
            evaluation=held[-1] if held else None,
            samples=samples,
            skipped=not math.isfinite(report.loss),
        )
        before = report.seconds


def _huggingface(path: Path) -> list[Probe]:
    """log_history: entries with `loss` are steps, entries with `eval_loss` evaluations."""
    try:
        state = json.loads(_text(path))
        history = [entry for entry in state["log_history"] if isinstance(entry, dict)]
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(
            f"{path.name} is no trainer_state.json: {error}.", hint="It must hold `log_history`."
        ) from error
    peak = max((_number(entry.get("learning_rate")) or 0.0 for entry in history), default=0.0)
    last = _number(state.get("max_steps")) or max((_number(e.get("step")) or 0 for e in history), default=0)
    evaluations: dict[int, EvaluationReport] = {}
    best = math.inf
    for entry in history:
        loss = _number(entry.get("eval_loss"))
        if loss is not None:
            step, best = int(_number(entry.get("step")) or 0), min(best, loss)
            evaluations[step] = EvaluationReport(
                step=step, seconds=0, split="validation", loss=loss, bits_per_byte=None, best=loss <= best,
                train_loss=None,
            )  # fmt: skip
    probes: list[Probe] = []
    given: set[int] = set()
    for entry in history:
        loss = _number(entry.get("loss"))
        if loss is None:
            continue
        step = int(_number(entry.get("step")) or 0)
        report = StepReport(
            step=step,
            tokens=int(_number(entry.get("num_input_tokens_seen")) or 0),
            epoch=_number(entry.get("epoch")) or 0.0,
            seconds=0.0,
            loss=loss,
            learning_rate=(_number(entry.get("learning_rate")) or 0.0) / peak if peak else 0.0,
            grad_norm=_number(entry.get("grad_norm")),
            tokens_per_second=0.0,
            progress=min(1.0, step / last) if last else 0.0,
            eta_seconds=0.0,
        )
        held = [found for at, found in evaluations.items() if at <= step and at not in given]
        given.update(found.step for found in held)
        # Evaluations come seldom, steps often: the newest belongs to this entry.
        probes.append(Probe(report, evaluation=held[-1] if held else None))
    rest = [found for at, found in evaluations.items() if at not in given]
    if probes and rest:
        probes[-1] = Probe(probes[-1].report, evaluation=rest[-1])
    return probes


def _number(value: Any) -> float | None:
    """Trainer writes NaN, newer ones write numbers as text too."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
