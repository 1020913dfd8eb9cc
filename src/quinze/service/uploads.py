"""Uploads: a file comes in piece by piece, is safe on disk before anybody is told so, and is never lost.

One knowledge base's folder:

    files/<sha256>-<harmless name>   the content, as it came
    incoming/*.part                  on its way; swept at start when nobody writes to it any more
    pending/<id>.json                accepted, not yet read into the knowledge base; taken up again at start

Knows nothing of what is in a document, nor of HTTP.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from quinze.errors import StorageError, TooLargeError
from quinze.paths import atomic_write, sync_folder
from quinze.service.names import file_name_on_disk

FILES, INCOMING, PENDING = "files", "incoming", "pending"
_ABANDONED_AFTER = 24 * 3600.0


class Pending(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something promised to be read: an upload (`file` in files/, shown as `name`) or paths on this
    machine."""

    id: str
    file: str = ""
    name: str = ""
    paths: list[str] = []


class Upload:
    """A file on its way in: `write` its pieces, then `finish`. Leaving the block without that deletes it."""

    def __init__(self, folder: Path, name: str, limit: int) -> None:
        self.folder, self.name, self.limit = folder, name, limit
        self.size = 0
        self._hash = hashlib.sha256()
        incoming = folder / INCOMING
        try:
            incoming.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=incoming, suffix=".part")
        except OSError as error:
            raise _refused(error) from error
        self._file, self._temporary = os.fdopen(descriptor, "wb"), Path(temporary)

    def write(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.size > self.limit:
            raise TooLargeError(
                f"{self.name} is larger than the {self.limit:,} bytes that may be uploaded.",
                hint="Raise max_upload_bytes in settings.json, or add the file by its path.",
            )
        self._hash.update(piece)
        try:
            self._file.write(piece)
        except OSError as error:
            raise _refused(error) from error

    def finish(self) -> Pending:
        """Make the file durable, then note that it waits to be read. From here on it is not lost."""
        stored = file_name_on_disk(self._hash.hexdigest(), self.name)
        files = self.folder / FILES
        try:
            files.mkdir(parents=True, exist_ok=True)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._temporary.replace(files / stored)
            sync_folder(files)
            return note_pending(self.folder, file=stored, name=self.name)
        except OSError as error:
            raise _refused(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink()


def note_pending(folder: Path, *, file: str = "", name: str = "", paths: list[str] | None = None) -> Pending:
    pending = Pending(id=secrets.token_hex(8), file=file, name=name, paths=paths or [])
    # The time in front keeps the order in which things came.
    with atomic_write(folder / PENDING / f"{time.time_ns():020}-{pending.id}.json") as out:
        out.write(msgspec.json.encode(pending))
    return pending


def forget_pending(folder: Path, pending: Pending) -> None:
    # The knowledge base may be removed at this very moment, and its notes with it.
    with contextlib.suppress(FileNotFoundError):
        for path in (folder / PENDING).glob(f"*-{pending.id}.json"):
            path.unlink(missing_ok=True)


def pending_of(folder: Path) -> Iterator[Pending]:
    """What was promised before and not done, oldest first.

    A note that cannot be read is set aside, not obeyed.
    """
    for path in sorted((folder / PENDING).glob("*.json")):
        try:
            pending = msgspec.json.decode(path.read_bytes(), type=Pending)
            if "/" in pending.file or not (pending.file or pending.paths):
                raise msgspec.ValidationError("it names nothing to read")
            yield pending
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            with contextlib.suppress(OSError):
                path.rename(path.with_suffix(".broken"))


def sweep_incoming(folder: Path) -> None:
    """Delete what an interrupted upload left behind: nobody was told that it had arrived."""
    for path in (folder / INCOMING).glob("*.part"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_AFTER:
                path.unlink()


def _refused(error: OSError) -> StorageError:
    return StorageError(
        f"The upload could not be stored: {error.strerror or error}.",
        hint="Is the disk full, or the folder read-only?",
    )
