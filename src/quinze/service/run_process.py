"""The process of a training run: started here, and from then on its own.

It has a session of its own, so it survives the end of the server and the Ctrl-C of its terminal. Whether it
lives is told by the lock that it holds (training/control.py): the next server knows it as well as this one.
PyTorch is in that process only.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
from pathlib import Path

from quinze.errors import MissingPackageError, StorageError

LOG = "worker.log"
"""What the process complained of; empty when all is well."""
_LAST_BYTES = 4000


def need_torch_installed() -> None:
    """MissingPackageError where PyTorch is not installed; it is looked for, not loaded."""
    if importlib.util.find_spec("torch") is None:
        raise MissingPackageError(
            "Training needs PyTorch, which is not installed here.", hint="pip install 'quinze[train]'"
        )


def start(config: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Train by the settings in `config`, in `folder`, with the doctor as watcher; returns at once."""
    # -P: nothing is imported from the current folder; warnings of packages are no failures.
    command = [sys.executable, "-P", "-W", "ignore", "-m", "quinze.training.worker", str(config), str(folder)]
    try:
        with (folder / LOG).open("wb") as log:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
                start_new_session=True,
            )  # fmt: skip
    except OSError as error:
        raise StorageError(f"{folder} cannot be trained in: {error.strerror}.") from error
    # Waited for, so that it does not stay in the table of processes after its end.
    threading.Thread(target=child.wait, name="quinze-run", daemon=True).start()
    return child


def complaint(folder: Path) -> str:
    """The last line that the process left, if it ended with a complaint."""
    try:
        with (folder / LOG).open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _LAST_BYTES))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1][:1000] if lines else ""
