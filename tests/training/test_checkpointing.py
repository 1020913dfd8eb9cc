"""A checkpoint is whole or absent: at every system call of its writing, with every byte of it changed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from quinze.errors import CheckpointError, StorageError
from quinze.training.checkpointing import Checkpoints, check_space


class Killed(BaseException):
    """As a process that is killed: nobody cleans up."""


def write(checkpoints: Checkpoints, step: int, **more: Any) -> Path:
    model = {"a.weight": torch.full((3, 4), float(step)), "b": torch.arange(5.0)}
    return checkpoints.write(step, model, {"a.weight:momentum": torch.ones(3, 4)}, {"step": step}, **more)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() is None
    write(checkpoints, 7, best=True)
    saved = checkpoints.latest()
    assert saved is not None
    assert (saved.step, saved.facts) == (7, {"step": 7})
    assert torch.equal(saved.model["a.weight"], torch.full((3, 4), 7.0))
    assert list(saved.moments) == ["a.weight:momentum"]
    assert [checkpoints.named(name) for name in ("LATEST", "best", "healthy")] == [7, 7, 7]


def test_the_last_the_best_and_the_healthy_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    write(checkpoints, 1, best=True, healthy=False)
    write(checkpoints, 2, healthy=True)
    for step in (3, 4, 5, 6):
        write(checkpoints, step, healthy=False)
    assert checkpoints.steps() == [6, 5, 2, 1]


@pytest.mark.parametrize("call", ["fsync", "replace", "open", "unlink", "rmdir"])
def test_killed_at_any_system_call_the_newest_is_whole(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        write(checkpoints, step)
    kills = 0
    for nth in range(1, 60):
        step = 3 + nth
        with monkeypatch.context() as patch:
            counted = _killing(patch, call, nth)
            try:
                write(checkpoints, step)
            except Killed:
                kills += 1
        saved = Checkpoints(tmp_path).latest()
        assert saved is not None
        assert saved.step in (step, step - 1, step - 2)
        assert float(saved.model["a.weight"][0, 0]) == saved.step == saved.facts["step"]
        if counted() < nth:  # all of them were tried
            break
        # Whoever comes after the killed one begins by clearing up.
        checkpoints.sweep()
        write(checkpoints, step)
        assert not list(tmp_path.glob("*.tmp"))
    assert kills > 0


def _killing(patch: pytest.MonkeyPatch, call: str, nth: int) -> Callable[[], int]:
    """Ends the process, so to speak, at the nth call. Returns how often it was called."""
    real = getattr(os, call)
    count = 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count == nth:
            raise Killed
        return real(*arguments, **named)

    patch.setattr(os, call, counted)
    return lambda: count


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]
)
@pytest.mark.parametrize("harm", ["flipped", "truncated", "missing"])
def test_a_damaged_one_is_named_and_the_one_before_taken(name: str, harm: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    write(checkpoints, 1)
    path = write(checkpoints, 2) / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(data if harm == "flipped" else data[: len(data) // 2])
    saved = checkpoints.latest()
    assert saved is not None
    assert saved.step == 1
    assert len(saved.passed_over) == 1
    assert "step-2" in saved.passed_over[0]
    with pytest.raises(CheckpointError):
        checkpoints.read(2)


def test_where_none_is_whole_the_run_does_not_begin_anew_in_silence(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    (write(checkpoints, 1) / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"lacks state\.json"):
        checkpoints.latest()


def test_a_full_disk_leaves_the_older_ones_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    write(checkpoints, 1)
    for nth in range(1, 5):
        with monkeypatch.context() as patch:
            _full_from(patch, nth)
            with pytest.raises(StorageError, match="No space left"):
                write(checkpoints, 2)
        assert checkpoints.steps() == [1]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["LATEST", "healthy", "step-1"]
    with pytest.raises(StorageError, match="MB of disk"):
        check_space(tmp_path, 2**60)


def _full_from(patch: pytest.MonkeyPatch, nth: int) -> None:
    real, count = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count >= nth:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    patch.setattr(os, "fsync", full)
