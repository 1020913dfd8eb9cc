"""Two processes learn what one does, by data-parallel and by FSDP, and a run may go on with more or fewer."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quinze.models.weights import load_model
from quinze.training.distributed import World
from quinze.training.doctor.doctor import Doctor
from quinze.training.events import EvaluationReport, Finding, StepReport
from quinze.training.recording import read_metrics
from quinze.training.run_config import RunConfig, to_toml
from quinze.training.trainer import Trainer

Settings = Callable[..., RunConfig]
TOLERANCE = 2e-3
"""Of losses: sums in another order, grown by twenty steps of Muon."""


def train(config: RunConfig, folder: Path, until: int | None = None, doctor: bool = False) -> None:
    cancel = threading.Event()
    for event in Trainer(config, folder, watcher=Doctor() if doctor else None).run(cancel):
        if isinstance(event, StepReport) and event.step == until:
            cancel.set()


def _one(rank: int, size: int, port: int, config: RunConfig, folder: Path, *rest: Any) -> None:
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(size),
        LOCAL_RANK=str(rank),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    train(config, folder, *rest)
    World(rank, size, None).leave()  # type: ignore[arg-type]


def together(config: RunConfig, folder: Path, until: int | None = None, *, doctor: bool = False) -> None:
    """As torchrun would, without a new interpreter for each."""
    size = 2
    forking = multiprocessing.get_context("fork")
    port = _free_port()
    children = [
        forking.Process(target=_one, args=(rank, size, port, config, folder, until, doctor))
        for rank in range(size)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        assert child.exitcode == 0


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def told(folder: Path, kind: Any) -> list[Any]:
    return [event for event in read_metrics(folder) if isinstance(event, kind)]


def agree(folder: Path, alone: Path) -> None:
    mine, wanted = told(folder, StepReport), told(alone, StepReport)
    assert [report.step for report in mine] == [report.step for report in wanted]
    for report, other in zip(mine, wanted, strict=True):
        assert report.loss == pytest.approx(other.loss, rel=TOLERANCE), report.step
        assert report.tokens == other.tokens
    assert mine[0].grad_norm == pytest.approx(wanted[0].grad_norm, rel=1e-4)
    evaluated, others = told(folder, EvaluationReport), told(alone, EvaluationReport)
    assert [report.loss for report in evaluated] == pytest.approx([r.loss for r in others], rel=TOLERANCE)
    assert [r.bits_per_byte for r in evaluated] == pytest.approx(
        [r.bits_per_byte for r in others], rel=TOLERANCE
    )
    assert load_model(folder / "final").config == load_model(alone / "final").config


@pytest.fixture
def alone(settings: Settings, tmp_path: Path) -> Path:
    train(settings(), tmp_path / "alone")
    return tmp_path / "alone"


@pytest.mark.parametrize(("sharding", "optimizer"), [("none", "adamw"), ("fsdp", "muon")])
def test_two_processes_have_the_losses_of_one(
    sharding: str, optimizer: str, settings: Settings, tmp_path: Path
) -> None:
    tables: dict[str, Any] = {"optimizer": {"kind": optimizer, "clip": 2.0, "weight_decay": 0.1}}
    train(settings(**tables), tmp_path / "alone")
    more = {"batch": {"rows": 2}, "runtime": {"sharding": sharding}}
    together(settings(**tables, **more), tmp_path / "both")
    agree(tmp_path / "both", tmp_path / "alone")


@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_a_run_goes_on_with_two_processes_and_with_one_again(
    sharding: str, settings: Settings, alone: Path, tmp_path: Path
) -> None:
    """The same rows a step: the four of one, or two and two."""
    both = settings(batch={"rows": 2}, runtime={"sharding": sharding})
    train(settings(), tmp_path / "run", 6)
    together(both, tmp_path / "run", 14)
    train(settings(), tmp_path / "run")
    agree(tmp_path / "run", alone)


def test_the_doctor_looks_on_in_every_process(settings: Settings, alone: Path, tmp_path: Path) -> None:
    """What each tries on its own weights leaves them alike."""
    together(settings(batch={"rows": 2}), tmp_path / "both", doctor=True)
    agree(tmp_path / "both", alone)
    assert "B2.floors" in {finding.id for finding in told(tmp_path / "both", Finding)}


@pytest.mark.slow
def test_torchrun_starts_it(settings: Settings, alone: Path, tmp_path: Path) -> None:
    config = settings(batch={"rows": 1, "micro_batches": 2}, runtime={"sharding": "fsdp"})
    (tmp_path / "run.toml").write_text(to_toml(config))
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(_free_port())]
    worker = ["-m", "quinze.training.worker", str(tmp_path / "run.toml"), str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, *command, *worker], capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-9000:]
    agree(tmp_path / "run", alone)
