"""The loop: from a RunConfig to a folder with a model that anyone can load.

    for event in Trainer(load_run_config(path), folder).run():
        print(event)

Called again on the same folder, a run goes on where it was, bit for bit on the CPU: every batch is a function
of the step, every random number of (seed, step, process), and all else lies in the checkpoint.

    folder/
    ├── run.toml            as resolved
    ├── metrics.jsonl       every event;  tensorboard/  the same for TensorBoard
    ├── control             pause, resume, stop (control.py)
    ├── checkpoints/        (checkpointing.py)
    └── final/              the finished model, or adapter

A step, 0-based in the data and counted from 1 in reports: batches -> loss, gradients summed over
micro-batches and processes -> the watcher may forbid it -> optimizer. Never prints.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch

from quinze.errors import ConflictError
from quinze.paths import atomic_write
from quinze.training import finishing, measuring
from quinze.training.building import Parts, build, identity
from quinze.training.checkpointing import Checkpoints, check_space
from quinze.training.control import Control, holding
from quinze.training.counters import Counters
from quinze.training.distributed import World, gather_no_more, gradient_norm
from quinze.training.events import (
    CheckpointReport,
    EvaluationReport,
    Finding,
    RunEnd,
    SampleReport,
    StepReport,
    TrainingEvent,
)
from quinze.training.optim import whole
from quinze.training.recording import Recorder
from quinze.training.run_config import RunConfig, differences, to_toml
from quinze.training.runtime import Clock, memory_bytes, prepare_runtime, step_seed, try_compile
from quinze.training.schedule import share
from quinze.training.setting_up import setup_of
from quinze.training.stepping import clip_gradients, compute_gradients, put_weights
from quinze.training.watch import Probe, Watcher
from quinze.training.watching import SHARDED, Unwatched, passed_over

Reason = Literal["finished", "stopped", "interrupted", "failed"]


class Trainer:
    """One run in one folder. On several processes each has one of these, and only the first writes."""

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        *,
        watcher: Watcher | None = None,
        accept_drift: bool = False,
        world: World | None = None,
        clock: Clock | None = None,
    ) -> None:
        """watcher       None: only losses that are no number are looked for
        accept_drift  go on although settings or data are not those that the run began with
        """
        self.config, self.folder = config.resolved(), folder
        self.watcher: Watcher = watcher or Unwatched()
        self._accept_drift = accept_drift
        self._world = world
        self._checkpoints = Checkpoints(folder / "checkpoints", self.config.checkpoints.keep)
        self._counters = Counters()
        self._clock = clock or Clock()
        self._watcher_state: dict[str, Any] | None = None
        self._saved_step: int | None = None

    def run(self, cancel: threading.Event | None = None) -> Iterator[TrainingEvent]:
        """Train to the end, yielding what happens; the last event is a RunEnd.

        Raises InvalidRequestError for settings that do not fit, ConflictError where the folder holds another
        run, CheckpointError, StorageError. What was saved before an error stays whole.
        """
        began, control = self._clock.now(), Control(self.folder, cancel)
        recorder: Recorder | None = None
        self._world = self._world or World.join(self.config.runtime.device)
        with contextlib.ExitStack() as stack:
            stack.enter_context(prepare_runtime(self.config, self._world))
            parts = build(self.config, self._world)
            if self._world.first:
                self.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(holding(self.folder))
            early = [*self._sharded(parts), *self._restore(parts)]
            if self._world.first:
                self._write_config()
                recorder = Recorder(self.folder, self._counters.step)
                stack.callback(recorder.close)
            stack.enter_context(control.listening())
            for event in self._events(parts, control, early, began):
                if recorder is not None:
                    recorder.write(event)
                yield event

    def _events(
        self, parts: Parts, control: Control, early: list[TrainingEvent], began: float
    ) -> Iterator[TrainingEvent]:
        c = self._counters
        yield from early
        self._check_space(parts)
        self._clock.go_on(c.seconds, c.used)
        if c.stride == 0 and self.config.schedule.minutes is None:
            c.stride = self._progress(parts, c.step + 1) - c.progress
        try_compile(parts)
        found = self.watcher.before(setup_of(parts, c.step, self.folder))
        gather_no_more(parts.transformer)
        self._other_work(self._clock.now() - began)  # a deadline knows no preparations
        if c.step and self._watcher_state is not None:
            self.watcher.load_state_dict(self._watcher_state)
        yield from found
        reason: Reason = "failed" if _stops(found) else "finished"
        if c.step == 0 and reason == "finished":
            yield from self._evaluate(parts)
        while reason == "finished" and c.progress < 1.0:
            command = self._command(parts, control)
            if command in ("stop", "interrupt"):
                reason = "stopped" if command == "stop" else "interrupted"
                break
            found = []
            for event in self._step(parts):
                yield event
                found += [event] if isinstance(event, Finding) else []
            if _stops(found):
                reason = "failed"
        yield from self._end(parts, reason, [one for one in found if one.severity == "stop"])
        if parts.world.first:
            control.clear()

    # ---- one step

    def _step(self, parts: Parts) -> Iterator[TrainingEvent]:
        c, config, world = self._counters, self.config, parts.world
        before, began = self._clock.waited, self._clock.now()
        torch.manual_seed(step_seed(config.seed, c.step, world.rank))
        rate = share(config.schedule, c.progress + c.stride / 2)  # of the middle of the step
        found = compute_gradients(parts, c.step, self._clock)
        loss = found.loss
        norm = gradient_norm(parts.trained.values(), world)
        c.step += 1
        allowed = self.watcher.allow(c.step, loss, norm)
        if allowed:
            clip_gradients(parts, norm, config.optimizer.clip)
            parts.optimizer.step(rate)
        else:
            c.last_skip = c.step
        parts.optimizer.zero_grad()
        seconds = self._clock.now() - began
        c.seconds, c.used = self._clock.stepped(seconds)
        c.tokens += parts.tokens_per_step
        if math.isfinite(loss):
            c.see(loss)
        c.epoch = c.step / parts.batches.steps_per_epoch
        self._advance(parts)
        report = StepReport(
            step=c.step, tokens=c.tokens, epoch=c.epoch, seconds=c.seconds, loss=loss, learning_rate=rate,
            grad_norm=norm, tokens_per_second=parts.tokens_per_step / max(seconds, 1e-9),
            progress=c.progress, eta_seconds=self._eta(), extra=found.extra,
        )  # fmt: skip
        yield report
        evaluation: EvaluationReport | None = None
        samples: list[SampleReport] = []
        if self._evaluation_due():
            for event in self._evaluate(parts):
                evaluation = event if isinstance(event, EvaluationReport) else evaluation
                samples += [event] if isinstance(event, SampleReport) else []
                yield event
        probe = Probe(
            report=report, skipped=not allowed, rows=found.rows, epoch=found.epoch,
            data_seconds=self._clock.waited - before, step_seconds=seconds, evaluation=evaluation,
            samples=samples, memory_bytes=memory_bytes(),
        )  # fmt: skip
        yield from self.watcher.step(probe)
        if evaluation is not None and evaluation.best:
            yield self._save(parts, "best")
        elif self._save_due():
            yield self._save(parts, "interval")

    # ---- how far, and what next

    def _advance(self, parts: Parts) -> None:
        """Progress never goes back; all processes have that of the first."""
        c = self._counters
        found = self._progress(parts, c.step)
        (found,) = parts.world.of_first([found])
        before, c.progress = c.progress, min(max(c.progress, found), 1.0)
        c.stride = c.progress - before

    def _progress(self, parts: Parts, step: int) -> float:
        c, schedule = self._counters, self.config.schedule
        if schedule.minutes is not None:
            return c.used / max(schedule.minutes * 60 - c.reserve, 1e-9)
        if schedule.tokens is not None:
            return step * parts.tokens_per_step / schedule.tokens
        return step / (schedule.steps or 1)

    def _eta(self) -> float:
        c, minutes = self._counters, self.config.schedule.minutes
        if minutes is not None:
            return max(0.0, minutes * 60 - c.used)
        return c.used * (1 - c.progress) / max(c.progress, 1e-9)

    def _evaluation_due(self) -> bool:
        times = self.config.evaluation.times
        return math.floor(self._counters.progress * times + 1e-9) > self._counters.evaluations

    def _save_due(self) -> bool:
        table, c = self.config.checkpoints, self._counters
        by_steps = table.steps is not None and c.step % table.steps == 0
        by_time = (
            table.minutes is not None
            and not self.config.runtime.deterministic
            and c.used - c.saved_at >= table.minutes * 60
        )
        (due,) = self._world.of_first([float(by_steps or by_time)]) if self._world else [float(by_steps)]
        return bool(due)

    def _command(self, parts: Parts, control: Control) -> str:
        """Waits while paused."""
        words = ("go", "pause", "stop", "interrupt")
        while True:
            (number,) = parts.world.of_first([float(words.index(control.command()))])
            if words[int(number)] != "pause":
                return words[int(number)]
            time.sleep(0.1)

    # ---- measured, saved, ended

    def _evaluate(self, parts: Parts) -> Iterator[TrainingEvent]:
        c = self._counters
        c.evaluations = math.floor(c.progress * self.config.evaluation.times + 1e-9)
        began = self._clock.now()
        if measuring.rows_of(parts):
            if c.step == 0:
                c.evaluation_rows = measuring.affordable_rows(parts)
            loss, bits = measuring.evaluate(parts, c.evaluation_rows)
            best = math.isfinite(loss) and (c.best_loss is None or loss < c.best_loss)
            if best:
                c.best_loss, c.best_step = loss, c.step
            c.evaluated_step = c.step
            yield EvaluationReport(
                step=c.step, seconds=c.seconds, split=self.config.data.validation, loss=loss,
                bits_per_byte=bits, best=best and c.step > 0, train_loss=c.smooth_loss,
            )  # fmt: skip
        for i, prompt in enumerate(self.config.evaluation.prompts):
            if parts.tokenizer is not None:
                text = measuring.sample(parts, parts.tokenizer, prompt, self.config.seed + i)
                yield SampleReport(step=c.step, prompt=prompt, text=text)
        self._other_work(self._clock.now() - began, at_the_end=True)

    def _other_work(self, seconds: float, *, at_the_end: bool = False) -> None:
        """Work beside training counts against a deadline; that which the end repeats is set aside for it."""
        c = self._counters
        c.used = self._clock.worked(seconds)
        minutes = self.config.schedule.minutes
        if at_the_end and minutes is not None:
            c.reserve = min(max(c.reserve, 1.1 * seconds), 0.2 * minutes * 60)

    def _save(
        self, parts: Parts, reason: Literal["interval", "best", "end", "interrupted"]
    ) -> CheckpointReport:
        c = self._counters
        began = self._clock.now()
        c.saved_at, self._saved_step = c.used, c.step
        path = self._checkpoints.folder / f"step-{c.step}"
        # Gathered by all processes, written by one.
        model = {name: whole(parameter.detach()) for name, parameter in parts.trained.items()}
        moments = parts.optimizer.state()
        if parts.world.first:
            path = self._checkpoints.write(
                c.step, model, moments, self._facts(parts), best=c.best_step == c.step, healthy=c.healthy
            )
        parts.world.barrier()
        self._other_work(self._clock.now() - began)
        size = sum(file.stat().st_size for file in path.iterdir())
        return CheckpointReport(step=c.step, path=str(path), bytes=size, reason=reason)

    def _facts(self, parts: Parts) -> dict[str, Any]:
        return {
            "counters": asdict(self._counters),
            "optimizer_steps": parts.optimizer.steps,
            "watcher": self.watcher.state_dict(),
            "identity": identity(parts),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "world_size": parts.world.size,
        }

    def _end(self, parts: Parts, reason: Reason, stops: list[Finding]) -> Iterator[TrainingEvent]:
        c = self._counters
        if reason == "finished" and c.evaluated_step != c.step:
            yield from self._evaluate(parts)
        if reason == "interrupted" or (c.step and reason != "failed" and self._saved_step != c.step):
            yield self._save(parts, "interrupted" if reason == "interrupted" else "end")
        model: Path | None = None
        if reason != "interrupted" and (c.best_step or reason != "failed"):
            model = self._write_final(parts)
        end = RunEnd(
            reason=reason, step=c.step, seconds=c.seconds, best_step=c.best_step, best_loss=c.best_loss,
            model=str(model) if model else None, message=stops[0].verdict if stops else "",
        )  # fmt: skip
        yield from self.watcher.after(end)
        yield end

    def _write_final(self, parts: Parts) -> Path:
        """The best weights where an evaluation found them best, else the last ones."""
        best = self._checkpoints.named("best")
        if best is not None and best != self._counters.step:
            put_weights(parts, self._checkpoints.read(best).model)
        weights = {name: whole(p.detach()) for name, p in parts.transformer.named_parameters()}
        if parts.world.first:
            finishing.write_final(parts, weights, self.folder / "final")
        parts.world.barrier()
        return self.folder / "final"

    # ---- before

    def _sharded(self, parts: Parts) -> list[TrainingEvent]:
        """Watchers take weights for plain tensors, which spread ones are not."""
        spread = parts.world.size > 1 and self.config.runtime.sharding == "fsdp"
        if not spread or isinstance(self.watcher, Unwatched):
            return []
        self.watcher = Unwatched()
        return [SHARDED]

    def _restore(self, parts: Parts) -> list[TrainingEvent]:
        """Take up the newest whole checkpoint, if there is one."""
        if parts.world.first:
            self._checkpoints.sweep()
        parts.world.barrier()
        saved = self._checkpoints.latest()
        parts.world.barrier()
        if saved is None:
            return []
        drift = differences(saved.facts["identity"], identity(parts))
        if drift and not self._accept_drift:
            raise ConflictError(
                f"{self.folder} holds a run with other settings: {'; '.join(drift[:8])}.",
                hint="Take another folder, give it the settings it began with, or accept the drift.",
            )
        put_weights(parts, saved.model)
        parts.optimizer.load(saved.moments, saved.facts["optimizer_steps"])
        self._counters = Counters(**saved.facts["counters"])
        self._counters.drift += drift
        self._watcher_state = saved.facts["watcher"]
        if parts.world.first:
            self._checkpoints.drop_after(saved.step)
        parts.world.barrier()
        return [passed_over(saved.step, saved.passed_over)] if saved.passed_over else []

    def _check_space(self, parts: Parts) -> None:
        size = 4 * sum(p.numel() for p in parts.trained.values())
        whole_model = 4 * sum(p.numel() for p in parts.transformer.parameters())
        moments = 2 * size
        if parts.world.first:
            check_space(self.folder, 2 * (size + moments) + whole_model)

    def _write_config(self) -> None:
        text = to_toml(self.config).encode()
        with atomic_write(self.folder / "run.toml") as file:
            file.write(text)


def _stops(findings: list[Finding]) -> bool:
    return any(finding.severity == "stop" for finding in findings)
