"""models.json: which names a person gave to which files and servers.

One writer at a time, in this process and in others; the file is whole at any moment.
"""

from __future__ import annotations

import contextlib
import fcntl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from quinze.errors import StorageError
from quinze.paths import atomic_write
from quinze.service.upstreams import UpstreamLink


class Links:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.RLock()

    def entries(self) -> dict[str, dict[str, Any]]:
        """name -> what the file says of it."""
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, dict[str, Any]])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StorageError(
                f"{self._file} cannot be read: {error}.",
                hint="Mend it, or delete it and link your models again.",
            ) from error

    def paths(self) -> dict[str, Path]:
        """Of the models that lie on this machine."""
        entries = self.entries().items()
        return {name: Path(entry["path"]) for name, entry in entries if isinstance(entry.get("path"), str)}

    def upstreams(self) -> dict[str, UpstreamLink]:
        found: dict[str, UpstreamLink] = {}
        for name, entry in self.entries().items():
            if "upstream" in entry:
                try:
                    found[name] = msgspec.convert(entry, UpstreamLink)
                except msgspec.ValidationError as error:
                    raise StorageError(
                        f"{self._file} says of {name!r}: {error}.", hint=f"Mend it, or: quinze rm {name}"
                    ) from error
        return found

    @contextlib.contextmanager
    def editing(self) -> Iterator[None]:
        """Nobody else, in this process or another, changes the links meanwhile."""
        lock = self._file.with_name(f".{self._file.name}.lock")
        with self._lock:
            try:
                lock.parent.mkdir(parents=True, exist_ok=True)
                file = lock.open("ab")
            except OSError as error:
                raise StorageError(
                    f"{lock} cannot be written: {error.strerror}.", hint="Is the disk full, or read-only?"
                ) from error
            with file:
                # Closing the file gives the lock back, even when the process dies.
                fcntl.flock(file, fcntl.LOCK_EX)
                yield

    def write(self, entries: dict[str, dict[str, Any]]) -> None:
        plain = msgspec.json.encode(dict(sorted(entries.items())))
        try:
            with atomic_write(self._file) as file:
                file.write(msgspec.json.format(plain, indent=2))
        except OSError as error:
            raise StorageError(
                f"{self._file} cannot be written: {error.strerror}.", hint="Is the disk full, or read-only?"
            ) from error
