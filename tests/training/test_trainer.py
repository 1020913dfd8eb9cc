"""The loop: it learns, it ends in time, it can be paused, stopped and interrupted, and leaves a model."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quinze.engine.engine import Engine
from quinze.errors import InvalidRequestError, StorageError
from quinze.models.weights import load_model
from quinze.training.control import tell
from quinze.training.events import (
    CheckpointReport,
    EvaluationReport,
    Finding,
    RunEnd,
    SampleReport,
    StepReport,
    TrainingEvent,
)
from quinze.training.recording import read_metrics
from quinze.training.run_config import RunConfig, load_run_config
from quinze.training.runtime import Clock
from quinze.training.trainer import Trainer
from quinze.training.watching import Unwatched

Settings = Callable[..., RunConfig]


def steps(events: list[TrainingEvent]) -> list[StepReport]:
    return [event for event in events if isinstance(event, StepReport)]


def end_of(events: list[TrainingEvent]) -> RunEnd:
    assert isinstance(events[-1], RunEnd)
    return events[-1]


@pytest.fixture(scope="module")
def finished(
    tales: Path, letters: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[TrainingEvent]]:
    from quinze.training.run_config import run_config

    folder = tmp_path_factory.mktemp("finished") / "run"
    config = run_config(
        {
            "data": {"folder": str(tales), "tokenizer": str(letters)},
            "model": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
            "batch": {"rows": 8}, "schedule": {"steps": 60}, "checkpoints": {"steps": 20},
            "evaluation": {"times": 3, "prompts": ["the c"], "sample_tokens": 8},
            "runtime": {"deterministic": True, "threads": 1, "device": "cpu"},
        }
    )  # fmt: skip
    return folder, list(Trainer(config, folder).run())


def test_a_run_learns_what_its_text_is_made_of(finished: tuple[Path, list[TrainingEvent]]) -> None:
    """The words are known and their letters follow from the first ones: far below guessing, ln 97 = 4.57."""
    _, events = finished
    found = steps(events)
    assert [report.step for report in found] == list(range(1, 61))
    assert found[0].loss > 4.2
    assert found[-1].loss < 1.6
    assert found[-1].progress == 1
    evaluations = [event for event in events if isinstance(event, EvaluationReport)]
    assert [event.step for event in evaluations] == [0, 20, 40, 60]
    assert evaluations[-1].loss < 1.8
    assert end_of(events).reason == "finished"


def test_bits_per_byte_are_counted_of_the_text(finished: tuple[Path, list[TrainingEvent]]) -> None:
    """Each token is one byte, but for the ends, which are none."""
    _, events = finished
    last = [event for event in events if isinstance(event, EvaluationReport)][-1]
    assert last.bits_per_byte is not None
    ratio = last.bits_per_byte / (last.loss / np.log(2))
    assert 1.0 < ratio < 1.1


def test_what_it_leaves_is_a_model_of_transformers_and_of_the_engine(
    finished: tuple[Path, list[TrainingEvent]],
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, events = finished
    final = Path(end_of(events).model or "")
    assert final == folder / "final"
    peer = AutoModelForCausalLM.from_pretrained(final, dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(final)("the cat saw").input_ids
    with torch.no_grad():
        wanted = peer(torch.tensor([ids])).logits[0].numpy()
    mine = Engine(load_model(final), kv_type="f32", threads=1).logits(ids)
    np.testing.assert_allclose(mine, wanted, atol=1e-3 * wanted.std(), rtol=1e-3)
    assert load_run_config(folder / "run.toml").schedule.steps == 60


def test_every_event_is_on_disk(finished: tuple[Path, list[TrainingEvent]]) -> None:
    folder, events = finished
    assert read_metrics(folder) == events
    assert any(isinstance(event, SampleReport) and event.prompt == "the c" for event in events)
    assert list((folder / "tensorboard").iterdir())


class Ticking:
    """A second passes whenever somebody looks."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        self.time += 1.0
        return self.time


def test_a_run_with_a_deadline_ends_decayed_and_on_time(settings: Settings, tmp_path: Path) -> None:
    config = settings(
        schedule={"minutes": 2.0, "warmup": 0.1, "decay": 0.5}, evaluation={"times": 3},
        checkpoints={"minutes": None},
    )  # fmt: skip
    clock = Clock(Ticking())
    events = list(Trainer(config, tmp_path / "run", clock=clock).run())
    found = steps(events)
    assert len(found) > 10
    assert max(report.learning_rate for report in found) == pytest.approx(1, abs=0.05)
    assert found[-1].learning_rate < 0.1
    assert found[-1].progress == 1
    assert 100 < clock.work <= 120 + 3  # the last step may end just after it
    assert end_of(events).reason == "finished"
    # Evaluations are evenly spread over the time.
    at = [event.seconds for event in events if isinstance(event, EvaluationReport)]
    assert len(at) == 4


def test_a_run_that_is_stopped_keeps_its_best(settings: Settings, tmp_path: Path) -> None:
    events = []
    for event in Trainer(settings(evaluation={"times": 10}), tmp_path / "run").run():
        events.append(event)
        if isinstance(event, StepReport) and event.step == 6:
            tell(tmp_path / "run", "stop")
    end = end_of(events)
    assert (end.reason, end.step) == ("stopped", 6)
    assert end.best_step == 6
    assert load_model(Path(end.model or "")).config.architecture == "qwen3"
    assert not (tmp_path / "run" / "control").exists()


def test_a_paused_run_waits(settings: Settings, tmp_path: Path) -> None:
    seen: list[int] = []
    paused, done = threading.Event(), threading.Event()

    def work() -> None:
        for event in Trainer(settings(), tmp_path / "run").run():
            if isinstance(event, StepReport):
                seen.append(event.step)
                if event.step == 5:
                    tell(tmp_path / "run", "pause")
                    paused.set()
        done.set()

    threading.Thread(target=work, daemon=True).start()
    assert paused.wait(60)
    assert not done.wait(0.5)
    assert seen[-1] == 5
    tell(tmp_path / "run", "resume")
    assert done.wait(60)
    assert seen[-1] == 20


def test_a_signal_ends_the_step_and_saves(settings: Settings, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    events = []
    for event in Trainer(settings(), tmp_path / "run").run():
        events.append(event)
        if isinstance(event, StepReport) and event.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
    assert end_of(events).reason == "interrupted"
    assert end_of(events).model is None
    assert [event.step for event in events if isinstance(event, CheckpointReport)][-1] == 3
    assert signal.getsignal(signal.SIGTERM) == before


class Poisoned(Unwatched):
    """Every weight becomes NaN before step 4."""

    def __init__(self) -> None:
        super().__init__()
        self.model: torch.nn.Module | None = None

    def before(self, setup: Any) -> list[Finding]:
        self.model = setup.transformer
        return []

    def allow(self, step: int, loss: float, grad_norm: float | None) -> bool:
        if step == 3 and self.model is not None:
            with torch.no_grad():
                next(self.model.parameters()).fill_(float("nan"))
        return super().allow(step, loss, grad_norm)


def test_a_loss_that_is_no_number_stops_the_run_with_what_was_good(
    settings: Settings, tmp_path: Path
) -> None:
    config = settings(schedule={"steps": 20}, evaluation={"times": 10})
    events = list(Trainer(config, tmp_path / "run", watcher=Poisoned()).run())
    end = end_of(events)
    assert end.reason == "failed"
    assert "no number" in end.message
    assert end.step == 6
    assert end.best_step == 2
    # load_model refuses weights that are no numbers.
    assert load_model(Path(end.model or ""))


class Stopping(Unwatched):
    def before(self, setup: Any) -> list[Finding]:
        assert setup.batches(0, 0).ids.shape == (4, 32)
        assert float(setup.loss(setup.batches(0, 0)).detach()) == pytest.approx(np.log(97), rel=0.05)
        assert setup.plan.steps == 20
        assert setup.plan.tokens_per_step == 128
        assert setup.validation_batches is not None
        assert sum(len(group) for group in setup.groups.values()) == len(list(setup.transformer.parameters()))
        return [Finding(id="X", severity="stop", verdict="It cannot be.", evidence={}, why="", fix="")]


def test_a_watcher_may_stop_a_run_before_it_begins(settings: Settings, tmp_path: Path) -> None:
    events = list(Trainer(settings(), tmp_path / "run", watcher=Stopping()).run())
    assert [type(event) for event in events] == [Finding, RunEnd]
    assert end_of(events).message == "It cannot be."
    assert end_of(events).model is None


def test_what_does_not_fit_is_said_before_anything_begins(
    settings: Settings, tmp_path: Path, letters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(**tables: Any) -> Iterator[TrainingEvent]:
        return Trainer(settings(**tables), tmp_path / "run").run()

    with pytest.raises(InvalidRequestError, match="there are"):
        next(run(batch={"rows": 4000}))
    with pytest.raises(InvalidRequestError, match="no device"):
        next(run(runtime={"device": "abacus"}))
    with pytest.raises(InvalidRequestError, match="CUDA"):
        next(run(runtime={"device": "cuda"}))
    with pytest.raises(InvalidRequestError, match="text data"):
        next(run(method="dpo", model={"base": "x"}))
    other = tmp_path / "other"
    other.mkdir()
    told = json.loads((letters / "tokenizer.json").read_text())
    told["added_tokens"] = []
    (other / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(InvalidRequestError, match="another tokenizer"):
        next(run(data={"tokenizer": str(other)}))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(StorageError, match="needs"):
        next(run())


@pytest.mark.slow
def test_compiled_code_learns_the_same(settings: Settings, letters: Path, tmp_path: Path) -> None:
    runs = {}
    for compile_ in ("off", "on"):
        config = settings(
            data={"tokenizer": str(letters)}, runtime={"compile": compile_, "deterministic": False},
            evaluation={"times": 2, "prompts": ["the "], "sample_tokens": 4},
        )  # fmt: skip
        runs[compile_] = list(Trainer(config, tmp_path / compile_).run())
    plain, compiled = ([report.loss for report in steps(events)] for events in runs.values())
    assert compiled == pytest.approx(plain, rel=1e-3)
    assert sum(isinstance(event, SampleReport) for event in runs["on"]) == 3
