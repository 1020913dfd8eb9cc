"""Exact resume: a run that was interrupted, killed or damaged ends with the bytes of one that was not."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quinze.errors import ConflictError
from quinze.models.adapters import read_adapter
from quinze.models.base_mark import check_base
from quinze.models.weights import load_model
from quinze.training.building import digest
from quinze.training.doctor.doctor import Doctor
from quinze.training.events import Finding, RunEnd, StepReport, TrainingEvent
from quinze.training.recording import read_metrics
from quinze.training.run_config import RunConfig
from quinze.training.selftest import certify_resume
from quinze.training.trainer import Trainer

Settings = Callable[..., RunConfig]


def run(config: RunConfig, folder: Path, until: int | None = None, **more: Any) -> list[TrainingEvent]:
    """The whole run, or to the end of step `until`, where it is interrupted."""
    cancel = threading.Event()
    events = []
    for event in Trainer(config, folder, **more).run(cancel):
        events.append(event)
        if isinstance(event, StepReport) and event.step == until:
            cancel.set()
    return events


def result(folder: Path) -> dict[str, bytes]:
    """Every byte that was learned, and the moments."""
    files = [folder / "final" / "model.safetensors", folder / "final" / "adapter_model.safetensors"]
    last = folder / "checkpoints" / (folder / "checkpoints" / "LATEST").read_text()
    files += [last / "model.safetensors", last / "optimizer.safetensors"]
    return {file.name + str(i): file.read_bytes() for i, file in enumerate(files) if file.exists()}


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(event.step, event.loss) for event in read_metrics(folder) if isinstance(event, StepReport)]


LORA = {"rank": 4, "dropout": 0.1}
CASES: dict[str, dict[str, Any]] = {
    "pretrain": {},
    "four micro-batches": {"batch": {"rows": 1, "micro_batches": 4}},
    "cosine, adamw, clipped": {
        "schedule": {"steps": 20, "kind": "cosine"}, "optimizer": {"kind": "adamw", "clip": 0.5}
    },
    "over several epochs": {"batch": {"rows": 24}},
    "sft": {"method": "sft"},
    "lora with dropout": {"method": "sft", "lora": LORA, "batch": {"rows": 2, "micro_batches": 2}},
    "dpo": {"method": "dpo", "optimizer": {"lr": 1e-4}},
    "dpo, lora": {"method": "dpo", "lora": LORA, "batch": {"micro_batches": 2}},
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_run_resumed_twice_is_bit_for_bit_one_that_was_not(
    name: str, settings: Settings, chatty: Path, talks: dict[str, Path], tmp_path: Path
) -> None:
    """Interrupted while it warms up, and while its rate falls."""
    tables = dict(CASES[name])
    if "method" in tables:
        tables |= {"model": {"base": str(chatty)}, "data": {"folder": str(talks[tables["method"]])}}
    config = settings(**tables)
    before = digest(chatty)
    whole = run(config, tmp_path / "whole")
    for until in (1, 13, None):
        events = run(config, tmp_path / "parts", until)
    assert isinstance(events[-1], RunEnd)
    assert events[-1].reason == "finished"
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "whole")) == 20
    assert result(tmp_path / "parts") == result(tmp_path / "whole")
    if name == "over several epochs":
        assert [event for event in whole if isinstance(event, StepReport)][-1].epoch > 2
    assert digest(chatty) == before
    if "lora" in tables:
        adapter = read_adapter(tmp_path / "whole" / "final")
        assert len(adapter.layers) == 14
        check_base(adapter.mark, load_model(chatty), "it")  # type: ignore[arg-type]


def test_a_resumed_run_is_judged_as_an_unbroken_one(settings: Settings, tmp_path: Path) -> None:
    """The doctor's windows are part of the state; and it changes nothing about what is learned."""
    config = settings(schedule={"steps": 30})
    run(config, tmp_path / "unwatched")
    whole = run(config, tmp_path / "whole", watcher=Doctor())
    run(config, tmp_path / "parts", 17, watcher=Doctor())
    parts = run(config, tmp_path / "parts", watcher=Doctor())
    assert result(tmp_path / "parts") == result(tmp_path / "whole") == result(tmp_path / "unwatched")

    def during(events: list[TrainingEvent]) -> list[str]:
        return [event.id for event in events if isinstance(event, Finding) and (event.step or 0) > 17]

    assert during(parts) == during(whole)


def test_preferences_are_learned(
    settings: Settings, chatty: Path, talks: dict[str, Path], tmp_path: Path
) -> None:
    config = settings(
        method="dpo", model={"base": str(chatty)}, data={"folder": str(talks["dpo"])},
        optimizer={"lr": 1e-3}, schedule={"steps": 30}, batch={"rows": 8},
    )  # fmt: skip
    found = [event for event in run(config, tmp_path / "run") if isinstance(event, StepReport)]
    assert found[0].loss == pytest.approx(math.log(2), rel=1e-3)  # nothing is preferred yet
    assert found[0].extra["margin"] == pytest.approx(0, abs=1e-3)
    assert found[-1].loss < 0.4
    assert found[-1].extra["accuracy"] > 0.9


@pytest.mark.slow
def test_killed_twenty_times_it_ends_with_the_same_bytes(settings: Settings, tmp_path: Path) -> None:
    """kill -9 of real processes, at moments of which many fall into the writing of a checkpoint."""
    config = settings(schedule={"steps": 200}, checkpoints={"steps": 2}, evaluation={"times": 4})
    run(config, tmp_path / "whole")
    chance, folder = random.Random(7), tmp_path / "killed"
    forking = multiprocessing.get_context("fork")
    kills = 0
    while kills < 20:
        before = _latest(folder)
        child = forking.Process(target=run, args=(config, folder))
        child.start()
        deadline = time.monotonic() + 60
        while _latest(folder) == before and child.is_alive() and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.03))
        assert child.is_alive(), "the run was over before it could be killed so often"
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        kills += 1
    events = run(config, folder)
    assert events[-1].step == 200
    assert losses(folder) == losses(tmp_path / "whole")
    assert result(folder) == result(tmp_path / "whole")
    assert not list(folder.rglob("*.tmp"))


def _latest(folder: Path) -> str:
    try:
        return (folder / "checkpoints" / "LATEST").read_text()
    except FileNotFoundError:
        return ""


def test_a_damaged_checkpoint_costs_some_steps_and_nothing_else(settings: Settings, tmp_path: Path) -> None:
    config = settings(checkpoints={"steps": 5})
    run(config, tmp_path / "whole")
    run(config, tmp_path / "parts", 13)
    path = tmp_path / "parts" / "checkpoints" / "step-13" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 64
    path.write_bytes(data)
    events = run(config, tmp_path / "parts")
    found = events[0]
    assert isinstance(found, Finding)
    assert "step 10" in found.verdict
    assert "step-13" in found.verdict
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert result(tmp_path / "parts") == result(tmp_path / "whole")


def test_a_run_that_is_finished_stays_finished(settings: Settings, tmp_path: Path) -> None:
    run(settings(), tmp_path / "run")
    before = result(tmp_path / "run")
    events = run(settings(), tmp_path / "run")
    assert [event for event in events if isinstance(event, StepReport)] == []
    assert result(tmp_path / "run") == before


def test_other_settings_are_refused_with_what_differs(
    settings: Settings, tmp_path: Path, letters: Path
) -> None:
    run(settings(), tmp_path / "run", 4)
    other = settings(optimizer={"muon_lr": 0.05}, evaluation={"times": 5})
    with pytest.raises(ConflictError, match=r"optimizer\.muon_lr: 0\.02 -> 0\.05") as caught:
        run(other, tmp_path / "run")
    assert "times" not in caught.value.message  # which may change
    events = run(other, tmp_path / "run", accept_drift=True)
    assert events[-1].step == 20


def test_rows_may_be_shared_out_otherwise(settings: Settings, tmp_path: Path) -> None:
    """The same rows a step, in more micro-batches: as when memory turns out to be short."""
    run(settings(), tmp_path / "whole")
    run(settings(), tmp_path / "parts", 10)
    events = run(settings(batch={"rows": 2, "micro_batches": 2}), tmp_path / "parts")
    assert events[-1].step == 20
    for (a, first), (b, second) in zip(losses(tmp_path / "whole"), losses(tmp_path / "parts"), strict=True):
        assert a == b
        assert first == pytest.approx(second, rel=1e-3)


def test_whoever_doubts_it_tries_it_with_their_own_settings(settings: Settings, tmp_path: Path) -> None:
    found = certify_resume(settings(schedule={"minutes": 90}), tmp_path)
    assert found.exact
    assert found.first_different_step is None


def test_the_losses_of_a_short_run_are_those_written_down(settings: Settings, tmp_path: Path) -> None:
    """Fifty steps on a CPU. What is computed in another order on another machine may differ by half a
    percent; a change of the method shows at once."""
    run(settings(schedule={"steps": 50}), tmp_path / "run")
    golden = json.loads((Path(__file__).parent / "golden_losses.json").read_text())
    assert [loss for _, loss in losses(tmp_path / "run")] == pytest.approx(golden, rel=5e-3)
