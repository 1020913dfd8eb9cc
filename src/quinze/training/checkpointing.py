"""The saved state of a run: whole or absent, at whatever moment the process is killed.

    checkpoints/
    ├── step-200/
    │   ├── model.safetensors       what is trained, float32
    │   ├── optimizer.safetensors   its moments
    │   ├── state.json              step, time used, best, watcher, and what the run was made of
    │   └── manifest.json           sha256 of the others; written last
    ├── LATEST, best, healthy       names of folders

Everything is written and synced in step-200.tmp, which then takes its name at once. Reading goes from the
newest backwards until one is whole: a broken one is named and passed over. Older ones are removed only when
the new one has been read back.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quinze.errors import CheckpointError, FileFormatError, StorageError
from quinze.formats.checkpoint import Tensor, TensorType
from quinze.formats.quants import decode
from quinze.formats.safetensors import read_safetensors, write_safetensors
from quinze.paths import atomic_write, sync_folder

VERSION = 1
MODEL, MOMENTS, STATE, MANIFEST = "model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"
POINTERS = ("LATEST", "best", "healthy")


@dataclass(frozen=True, slots=True)
class Saved:
    """One checkpoint, read whole and verified."""

    path: Path
    step: int
    model: dict[str, torch.Tensor]
    moments: dict[str, torch.Tensor]
    facts: dict[str, Any]
    """state.json."""
    passed_over: list[str] = field(default_factory=list)
    """Why newer ones were not taken, a sentence each."""


class Checkpoints:
    """The folder of them. One process writes; any may read."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep

    def write(
        self,
        step: int,
        model: Mapping[str, torch.Tensor],
        moments: Mapping[str, torch.Tensor],
        facts: Mapping[str, Any],
        *,
        best: bool = False,
        healthy: bool = True,
    ) -> Path:
        """Save, verify, point, and only then remove what is too old. StorageError where the disk refuses."""
        self.folder.mkdir(parents=True, exist_ok=True)
        final = self.folder / f"step-{step}"
        if not final.exists():
            self._write(final, model, moments, facts)
        with _refusals(final):
            for name, wanted in zip(POINTERS, (True, best, healthy), strict=True):
                if wanted:
                    with atomic_write(self.folder / name) as file:
                        file.write(final.name.encode())
        self._prune()
        return final

    def _write(
        self,
        final: Path,
        model: Mapping[str, torch.Tensor],
        moments: Mapping[str, torch.Tensor],
        facts: Mapping[str, Any],
    ) -> None:
        work = final.with_suffix(".tmp")
        try:
            with _refusals(final):
                shutil.rmtree(work, ignore_errors=True)
                work.mkdir()
                write_safetensors(work / MODEL, _arrays(model))
                write_safetensors(work / MOMENTS, _arrays(moments))
                _write_json(work / STATE, facts)
                hashes = {name: _sha256(work / name) for name in (MODEL, MOMENTS, STATE)}
                _write_json(work / MANIFEST, {"version": VERSION, "files": hashes})
                os.replace(work, final)  # noqa: PTH105  # one system call, which tests interrupt
                sync_folder(self.folder)
        except StorageError:
            shutil.rmtree(work, ignore_errors=True)
            raise
        problem = self.problem(final)
        if problem:
            raise CheckpointError(f"What was just written is not what was meant: {problem}")

    def steps(self) -> list[int]:
        """Of all that are there, newest first."""
        if not self.folder.is_dir():
            return []
        found = (re.fullmatch(r"step-(\d{1,12})", path.name) for path in self.folder.iterdir())
        return sorted((int(match[1]) for match in found if match), reverse=True)

    def latest(self) -> Saved | None:
        """The newest that is whole; None where there is none at all.

        CheckpointError where there are some and every one is broken.
        """
        passed: list[str] = []
        for step in self.steps():
            problem = self.problem(self.folder / f"step-{step}")
            if problem is None:
                return self.read(step, passed)
            passed.append(problem)
        if passed:
            raise CheckpointError(
                f"None of the {len(passed)} checkpoints is whole. {passed[0]}",
                hint="Begin the run again in another folder.",
            )
        return None

    def read(self, step: int, passed_over: list[str] | None = None) -> Saved:
        """CheckpointError where it is broken or not there."""
        path = self.folder / f"step-{step}"
        problem = self.problem(path)
        if problem:
            raise CheckpointError(problem)
        facts = json.loads((path / STATE).read_bytes())
        return Saved(path, step, _tensors(path / MODEL), _tensors(path / MOMENTS), facts, passed_over or [])

    def named(self, pointer: str) -> int | None:
        """The step that LATEST, best or healthy names, if it is there."""
        try:
            name = (self.folder / pointer).read_text()
        except OSError:
            return None
        match = re.fullmatch(r"step-(\d{1,12})", name.strip())
        return int(match[1]) if match and (self.folder / match[0]).is_dir() else None

    def problem(self, path: Path) -> str | None:
        """What is wrong with a checkpoint, as a sentence; None if it is whole."""
        try:
            manifest = json.loads((path / MANIFEST).read_bytes())
            version, files = manifest["version"], dict(manifest["files"])
        except (OSError, ValueError, TypeError, KeyError):
            return f"{path.name} has no readable manifest."
        if version != VERSION:
            return f"{path.name} was written in version {version} of the layout; this one reads {VERSION}."
        for name in (MODEL, MOMENTS, STATE):
            try:
                same = _sha256(path / name) == files.get(name)
            except OSError:
                return f"{path.name} lacks {name}."
            if not same:
                return f"{name} of {path.name} is not what was written: its sha256 differs."
        return None

    def sweep(self) -> None:
        """Remove what an interrupted write or removal left. Only for the one who writes."""
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                if path.suffix == ".tmp" and path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                elif path.suffix == ".part":
                    path.unlink(missing_ok=True)

    def drop_after(self, step: int) -> None:
        """Remove newer ones: a run that goes on from `step` will write them anew."""
        for newer in self.steps():
            if newer > step:
                self._remove(newer)

    def _prune(self) -> None:
        kept = {self.named(pointer) for pointer in POINTERS} | set(self.steps()[: self.keep])
        for step in self.steps():
            if step not in kept:
                self._remove(step)

    def _remove(self, step: int) -> None:
        path = self.folder / f"step-{step}"
        doomed = path.with_suffix(".tmp")
        shutil.rmtree(doomed, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.replace(path, doomed)  # noqa: PTH105
            shutil.rmtree(doomed, ignore_errors=True)


def check_space(folder: Path, needed: int) -> None:
    """StorageError where less than `needed` bytes are free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(
            f"This run needs {needed / 1e6:,.0f} MB of disk for its checkpoints; {free / 1e6:,.0f} MB are "
            f"free in {folder}.",
            hint="Make room, choose another folder, or a smaller model.",
        )


@contextlib.contextmanager
def _refusals(path: Path) -> Any:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path.name} could not be saved: {error.strerror or error}.",
            hint="Make room on the disk; the checkpoints before it are whole, and the run goes on from them.",
        ) from error


def _arrays(tensors: Mapping[str, torch.Tensor]) -> list[Tensor]:
    found = []
    for name, tensor in tensors.items():
        array = np.ascontiguousarray(tensor.detach().float().cpu().numpy())
        found.append(Tensor(name, TensorType.F32, array.shape, array.reshape(-1).view(np.uint8)))
    return found


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    """Copies, so that the file can be removed."""
    try:
        return {name: torch.from_numpy(np.array(decode(t))) for name, t in read_safetensors(path).items()}
    except FileFormatError as error:
        raise CheckpointError(error.message) from error


def _write_json(path: Path, value: Any) -> None:
    with atomic_write(path) as file:
        file.write(json.dumps(value, indent=1, sort_keys=True, allow_nan=True).encode())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
