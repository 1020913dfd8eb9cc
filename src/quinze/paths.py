"""Where things lie, and how a file is written so that it is whole or absent.

Everything a person owns is under one folder: QUINZE_HOME, or the platform's data folder.

    home/
    ├── models.json               the models linked by name
    ├── settings.json
    ├── runs.json                 training runs that lie elsewhere
    ├── runs/NAME/                training runs that the service started
    └── knowledge/NAME/
        ├── knowledge.sqlite      documents, chunks, full text and vectors of one knowledge base
        └── files/                uploads, named by the hash of their content

Nothing is created by asking. The environment is read here once, by `home()`, and passed down from there.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

HOME_VARIABLE = "QUINZE_HOME"


def home() -> Path:
    """The folder of everything Quinze keeps: $QUINZE_HOME, else $XDG_DATA_HOME/quinze, else
    ~/.local/share/quinze."""
    chosen = os.environ.get(HOME_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().resolve()
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser().resolve() / "quinze"


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears at `path` whole or not at all: temporary file, fsync, rename, fsync again.

    >>> with atomic_write(Path("settings.json")) as file:
    ...     file.write(b"{}")
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
