"""How a run is paused, resumed and stopped from outside, and what a signal means to it.

    folder/control      a file with one word: pause, resume, stop. stop keeps the best.
    SIGTERM, SIGINT     finish the step, save, end as "interrupted"; whoever started it may start it again
    SIGUSR1, SIGUSR2    pause, resume

Another process needs nothing but the folder, so a page or a second terminal can steer any run. Whoever trains
holds folder/.lock, which the system gives back however the process ends: that is how others know it is alive.
"""

from __future__ import annotations

import contextlib
import fcntl
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Literal

from quinze.errors import ConflictError
from quinze.paths import atomic_write

Command = Literal["go", "pause", "stop", "interrupt"]
NAME = "control"
LOCK = ".lock"
INTERRUPTED = 75
"""Exit code of a run that can go on: sysexits.h's EX_TEMPFAIL, "try again"."""


class Control:
    """Asked between steps."""

    def __init__(self, folder: Path, cancel: threading.Event | None = None) -> None:
        self._file = folder / NAME
        self._cancel = cancel or threading.Event()
        self._signal: Command | None = None

    def command(self) -> Command:
        """What is wanted now. An interruption outweighs all else."""
        if self._signal == "interrupt" or self._cancel.is_set():
            return "interrupt"
        word = self._word()
        if word == "stop":
            return "stop"
        return "pause" if word == "pause" or self._signal == "pause" else "go"

    def _word(self) -> str:
        try:
            return self._file.read_text(encoding="utf-8")[:20].strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def clear(self) -> None:
        """A command is for the run that is there; the next one begins without."""
        self._file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Signals are heard within the block; in another thread than the main one they are left alone."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        meanings: dict[signal.Signals, Command] = {
            signal.SIGTERM: "interrupt", signal.SIGINT: "interrupt",
            signal.SIGUSR1: "pause", signal.SIGUSR2: "go",
        }  # fmt: skip

        def heard(number: int, _frame: FrameType | None) -> None:
            if self._signal == "interrupt" and number == signal.SIGINT:
                raise KeyboardInterrupt  # asked twice: at once
            self._signal = meanings[signal.Signals(number)]

        before = {number: signal.signal(number, heard) for number in meanings}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def tell(folder: Path, command: Literal["pause", "resume", "stop"]) -> None:
    """Leave a command for the run in `folder`."""
    with atomic_write(folder / NAME) as file:
        file.write(command.encode())


def wanted(folder: Path) -> str:
    """The command that lies in `folder` now; "" if there is none."""
    return Control(folder)._word()


@contextlib.contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Within the block nobody else trains in `folder`; ConflictError if somebody does already."""
    with (folder / LOCK).open("ab") as file:
        for _ in range(40):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.025)  # somebody may only be looking: `held`
        else:
            raise ConflictError(
                f"Another process trains in {folder}.",
                hint=f"Watch it: quinze train watch {folder}   Or take another folder.",
            )
        yield


def held(folder: Path) -> bool:
    """Whether a process trains in `folder` now."""
    try:
        with (folder / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
