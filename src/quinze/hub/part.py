"""What has come of a file, kept beside its place until it is whole.

NAME.part holds the bytes, NAME.part.json says of which file they are. Knows nothing of requests beyond the
headers of an answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from quinze.errors import StorageError
from quinze.paths import atomic_write, sync_folder


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository, as the hub states it."""

    path: str
    size: int
    sha256: str | None
    """None where the hub states none (small files kept in git itself)."""
    url: str


class Part:
    """The kept bytes of one file."""

    def __init__(self, to: Path, file: RemoteFile) -> None:
        self._to, self._file = to, file
        self._path = to.with_name(f"{to.name}.part")
        self._note = to.with_name(f"{to.name}.part.json")
        self._sha, self.have, self.etag = hashlib.sha256(), 0, ""
        told: Any = None
        with contextlib.suppress(OSError, ValueError):
            told = json.loads(self._note.read_bytes())
        if isinstance(told, dict) and self._same(told):
            self.etag = str(told.get("etag", ""))
            with contextlib.suppress(OSError), self._path.open("rb") as kept:
                while piece := kept.read(1 << 20):
                    self.took(piece)
        if self.have > file.size:
            self.restart()

    def _same(self, told: Mapping[str, Any]) -> bool:
        return (told.get("sha256"), told.get("size")) == (self._file.sha256, self._file.size)

    def continues(self, response: http.client.HTTPResponse, etag: str) -> bool:
        """Whether a 206 goes on where we are, in the same file."""
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if not found or int(found[1]) != self.have or found[2] not in ("*", str(self._file.size)):
            return False
        return not self.etag or etag == self.etag

    def note(self, etag: str) -> None:
        if etag == self.etag and self._note.exists():
            return
        self.etag = etag
        with _on_disk(self._note), atomic_write(self._note) as out:
            told = {"sha256": self._file.sha256, "size": self._file.size, "etag": etag}
            out.write(json.dumps(told).encode())

    def restart(self) -> None:
        self._sha, self.have, self.etag = hashlib.sha256(), 0, ""
        with _on_disk(self._path):
            for path in (self._note, self._path):
                path.unlink(missing_ok=True)

    def open(self) -> IO[bytes]:
        with _on_disk(self._path):
            out = self._path.open("r+b" if self._path.exists() else "wb")
            out.truncate(self.have)
            out.seek(self.have)
            return out

    def took(self, piece: bytes) -> None:
        self._sha.update(piece)
        self.have += len(piece)

    def finish(self) -> bool:
        """At its place if it is right; else it is thrown away."""
        if self._file.sha256 and self._sha.hexdigest() != self._file.sha256:
            self.restart()
            return False
        with _on_disk(self._to):
            with self._path.open("ab") as out:
                os.fsync(out.fileno())
            self._path.replace(self._to)
            self._note.unlink(missing_ok=True)
            sync_folder(self._to.parent)
        return True


def strong(etag: str | None) -> str:
    """A weak ETag promises no equal bytes, so it is none for us."""
    return etag if etag and etag.startswith('"') and len(etag) < 200 else ""


def write(out: IO[bytes], piece: bytes) -> None:
    with _on_disk(Path(out.name)):
        out.write(piece)


@contextlib.contextmanager
def _on_disk(path: Path) -> Iterator[None]:
    """A full disk is no reason to ask the hub once more."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror or error}.", hint="Is the disk full, or read-only?"
        ) from error
