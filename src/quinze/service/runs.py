"""Training runs by name: which there are, how each is doing, and how they are started and steered.

A run is a folder: those in HOME/runs/ are known by themselves, others when somebody adds them (runs.json).
Everything is read from the folder, so a run that a terminal started, or that survived the last server, is
watched and steered like one of our own. PyTorch is loaded by the run's own process only.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from quinze.errors import BusyError, ConflictError, InvalidRequestError, RunNotFoundError, StorageError
from quinze.paths import atomic_write
from quinze.service.names import valid_name
from quinze.service.run_events import RunEvents
from quinze.service.run_info import (
    RESOLVED,
    WANTED,
    RunDetail,
    RunInfo,
    is_run,
    run_detail,
    run_info,
)
from quinze.service.run_log import RunLog
from quinze.service.run_process import need_torch_installed, start
from quinze.training.control import NAME as CONTROL
from quinze.training.control import held, tell
from quinze.training.doctor.settings import Language
from quinze.training.events import TrainingEvent
from quinze.training.run_config import run_config, to_toml

FILE_NAME, FOLDER = "runs.json", "runs"
ACTIVE = ("running", "paused")
_LOOK_SECONDS = 0.3


class _List(msgspec.Struct):
    """runs.json."""

    folders: dict[str, str] = {}
    """Runs that lie elsewhere, by name."""
    hidden: list[str] = []
    """Of those in HOME/runs/: removed from the list, not from the disk."""


class Runs:
    def __init__(self, home: Path, most: int = 1) -> None:
        """most  runs under way at one time, when they are started here"""
        self._file, self._folder, self._most = home / FILE_NAME, home / FOLDER, most
        self._lock = threading.RLock()
        self._logs: dict[Path, RunLog] = {}
        self._children: dict[Path, subprocess.Popen[bytes]] = {}

    # --- which there are

    def list(self) -> list[RunInfo]:
        """Those under way first, then the youngest."""
        found = [self._info(name, folder) for name, folder in self._folders().items()]
        found.sort(key=lambda run: (run.state in ACTIVE, run.changed_at or ""), reverse=True)
        return found

    def get(self, name: str, language: Language = "en") -> RunDetail:
        """RunNotFoundError when there is none."""
        folder = self.folder_of(name)
        return run_detail(name, folder, self._log(folder), alive=self._alive(folder), language=language)

    def look(self, name: str) -> RunInfo:
        """How it is doing. RunNotFoundError when there is none."""
        return self._info(name, self.folder_of(name))

    def folder_of(self, name: str) -> Path:
        folder = self._folders().get(name)
        if folder is None:
            raise RunNotFoundError(
                f"There is no training run {name[:80]!r}.",
                hint="`quinze train ls` lists those that are known.",
                param="name",
            )
        return folder

    def add(self, folder: Path, name: str | None = None) -> RunInfo:
        """Know the run in `folder` by `name` (the folder's own, with a number if that is taken)."""
        folder = folder.expanduser().absolute()
        if "\x00" in str(folder) or not is_run(folder):
            raise RunNotFoundError(
                f"There is no training run in {str(folder)[:300]!r}.",
                hint="Name the folder that holds run.toml and metrics.jsonl.",
                param="path",
            )
        with self._editing() as known:
            folders = self._folders()
            same = next((one for one, path in folders.items() if path == folder), None)
            if same is not None and name in (None, same):
                return self._info(same, folder)
            if folder.parent == self._folder.absolute():
                known.hidden = [one for one in known.hidden if one != folder.name]
                return self._info(folder.name, folder)
            if name is not None and name in folders:
                raise ConflictError(f"Another run is called {name!r}.", hint="Choose another.", param="name")
            name = valid_name(name if name is not None else _free(folder.name, folders), of="run")
            known.folders = {one: path for one, path in known.folders.items() if Path(path) != folder}
            known.folders[name] = str(folder)
        return self._info(name, folder)

    def forget(self, name: str) -> None:
        """Take a run that is over from the list; its folder stays. ConflictError while it is under way."""
        folder = self.folder_of(name)
        if self._info(name, folder).state in ACTIVE:
            raise ConflictError(
                f"The run {name!r} is under way.", hint="Stop it first; it keeps its best.", param="name"
            )
        with self._editing() as known:
            if known.folders.pop(name, None) is None:
                known.hidden = sorted({*known.hidden, name})
        with self._lock:
            self._logs.pop(folder, None)

    # --- what happens in one

    def events(
        self, name: str, after: int = 0, *, language: Language = "en", steps: int | None = None
    ) -> RunEvents:
        """The events with a greater number, and those to come."""
        folder = self.folder_of(name)
        log = self._log(folder)
        log.read()
        return RunEvents(folder, after, language, steps, void=after > log.lines)

    def follow(self, name: str) -> Iterator[TrainingEvent]:
        """Every event from the first one on, as it comes, until the run is over."""
        found = self.events(name)
        while True:
            over = self.look(name).state not in ACTIVE
            _, new = found.more()
            yield from (event for _, event in new)
            if over and not new:
                return
            if not new:
                time.sleep(_LOOK_SECONDS)

    # --- steering

    def start(self, method: str, config: Mapping[str, Any], name: str | None = None) -> RunInfo:
        """Begin a run in HOME/runs/NAME, in a process of its own.

        Raises InvalidRequestError for settings that do not fit, BusyError while as many runs as may be are
        under way, ConflictError for a name that is taken, MissingPackageError without PyTorch.
        """
        asked = run_config({**config, "method": method}).resolved()
        need_torch_installed()
        with self._lock:
            stem = name if name is not None else _free(f"{method}-{datetime.now(UTC):%Y-%m-%d}", self._all())
            name = valid_name(stem, of="run")
            folder = self._folder / name
            if name in self._all() or folder.exists():
                raise ConflictError(f"Another run is called {name!r}.", hint="Choose another.", param="name")
            self._need_place()
            try:
                with atomic_write(folder / WANTED) as file:
                    file.write(to_toml(asked).encode())
            except OSError as error:
                raise StorageError(f"{folder} cannot be written: {error.strerror}.") from error
            try:
                self._children[folder] = start(folder / WANTED, folder)
            except StorageError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        return self._info(name, folder)

    def pause(self, name: str) -> RunInfo:
        """It rests after its step, and keeps its memory."""
        return self._told(name, "pause")

    def stop(self, name: str) -> RunInfo:
        """It ends after its step; the best of it becomes its model."""
        return self._told(name, "stop")

    def resume(self, name: str) -> RunInfo:
        """A paused run goes on; one that was interrupted or failed is started again where it was."""
        folder = self.folder_of(name)
        with self._lock:
            info = self._info(name, folder)
            if info.state in ACTIVE:
                tell(folder, "resume")
            elif info.state == "finished":
                raise ConflictError(f"The run {name!r} is finished.", hint="Start a new one.", param="name")
            else:
                need_torch_installed()
                self._need_place()
                (folder / CONTROL).unlink(missing_ok=True)
                config = folder / (RESOLVED if (folder / RESOLVED).is_file() else WANTED)
                self._children[folder] = start(config, folder)
        return self._info(name, folder)

    # --- inside

    def _told(self, name: str, command: Any) -> RunInfo:
        folder = self.folder_of(name)
        if self._info(name, folder).state not in ACTIVE:
            raise ConflictError(
                f"The run {name!r} is not under way: there is nothing to {command}.", param="name"
            )
        tell(folder, command)
        return self._info(name, folder)

    def _need_place(self) -> None:
        under_way = [run.name for run in self.list() if run.state in ACTIVE]
        if len(under_way) >= self._most:
            raise BusyError(
                f"The run {under_way[0]!r} is under way; {self._most} may be at the same time.",
                hint="Wait for its end, or stop it (max_runs in settings.json allows more).",
            )

    def _info(self, name: str, folder: Path) -> RunInfo:
        return run_info(name, folder, self._log(folder), alive=self._alive(folder))

    def _alive(self, folder: Path) -> bool:
        """A process that has just been started holds no lock yet."""
        child = self._children.get(folder)
        return (child is not None and child.poll() is None) or held(folder)

    def _log(self, folder: Path) -> RunLog:
        with self._lock:
            return self._logs.setdefault(folder, RunLog(folder))

    def _folders(self) -> dict[str, Path]:
        """Name -> folder."""
        known = self._read()
        return {name: path for name, path in self._all(known).items() if name not in known.hidden}

    def _all(self, known: _List | None = None) -> dict[str, Path]:
        known = known or self._read()
        found: dict[str, Path] = {}
        with contextlib.suppress(OSError):
            for path in sorted(self._folder.iterdir()):
                with contextlib.suppress(InvalidRequestError):
                    if is_run(path):
                        found[valid_name(path.name, of="run")] = path.absolute()
        return {name: Path(path) for name, path in known.folders.items() if is_run(Path(path))} | found

    def _read(self) -> _List:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=_List)
        except FileNotFoundError:
            return _List()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StorageError(
                f"{self._file} cannot be read: {error}.",
                hint="Mend it, or delete it and add your runs again.",
            ) from error

    @contextlib.contextmanager
    def _editing(self) -> Iterator[_List]:
        with self._lock:
            known = self._read()
            before = msgspec.json.encode(known)
            yield known
            if (plain := msgspec.json.encode(known)) == before:
                return
            try:
                with atomic_write(self._file) as file:
                    file.write(msgspec.json.format(plain, indent=2))
            except OSError as error:
                raise StorageError(
                    f"{self._file} cannot be written: {error.strerror}.",
                    hint="Is the disk full, or read-only?",
                ) from error


def _free(stem: str, taken: Mapping[str, Any]) -> str:
    """`stem`, or with the first number that makes it new."""
    if stem not in taken:
        return stem
    return next(f"{stem}-{i}" for i in range(2, len(taken) + 3) if f"{stem}-{i}" not in taken)
