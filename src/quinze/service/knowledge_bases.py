"""Knowledge bases by name: open, create, list, add to, search, remove.

Given the home folder. Each knowledge base is opened once and shared by everybody in this process; what it
stores and how it searches is its own business (knowledge/).
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from quinze.errors import ConflictError, InvalidRequestError, KnowledgeBaseNotFoundError, QuinzeError
from quinze.service.names import valid_name
from quinze.service.rooms import Rooms

if TYPE_CHECKING:
    from quinze.embeddings.embedder import Embedder
    from quinze.knowledge.knowledge_base import KnowledgeBase

DATABASE = "knowledge.sqlite"


class KnowledgeBases:
    def __init__(self, home: Path, rooms: Rooms, *, embedder: Callable[[], Embedder]) -> None:
        """embedder  gives the one of new bases"""
        self._folder = home / "knowledge"
        self._rooms = rooms
        self._load_embedder = embedder
        self._lock = threading.RLock()
        self._open: dict[str, KnowledgeBase] = {}
        self._files: dict[str, int | None] = {}
        """Which file each open one stands on."""

    def names(self) -> list[str]:
        if not self._folder.is_dir():
            return []
        found = [path.parent.name for path in self._folder.glob(f"*/{DATABASE}")]
        return sorted(name for name in found if not name.startswith("."))

    def folder_of(self, name: str) -> Path:
        """Its folder. The name is checked, so it can only be a folder directly under knowledge/."""
        try:
            return self._folder / valid_name(name, of="knowledge base")
        except InvalidRequestError:
            raise self._unknown(name) from None

    def exists(self, name: str) -> bool:
        with contextlib.suppress(KnowledgeBaseNotFoundError):
            return (self.folder_of(name) / DATABASE).is_file()
        return False

    def create(self, name: str, embedder: Embedder | None = None) -> KnowledgeBase:
        """embedder  None: that of the settings"""
        name = valid_name(name, of="knowledge base")
        with self._lock:
            if self.exists(name):
                raise ConflictError(
                    f"There is already a knowledge base named {name!r}.",
                    hint="Choose another name.",
                    param="name",
                )
            self._forget(name)
            embedder = embedder or self._load_embedder()
            self._open[name] = self._rooms.open_knowledge_base(self._folder / name, embedder, create=True)
            self._files[name] = _inode(self._folder / name)
            return self._open[name]

    def require_embedder(self, name: str, embedder: Embedder) -> None:
        """ConflictError where the vectors of the base were made by another."""
        made_with = self.get(name).embedder.id
        if made_with != embedder.id:
            raise ConflictError(
                f"The knowledge base {name!r} was made with {made_with}, not with {embedder.id}.",
                hint="Vectors of two embedders cannot be compared. Make a new knowledge base.",
                param="embedder",
            )

    def get(self, name: str) -> KnowledgeBase:
        with self._lock:
            name = self.folder_of(name).name
            found = _inode(self._folder / name)
            if name in self._open and self._files[name] != found:
                # Another process has removed it, or made another of the same name.
                self._forget(name)
            if found is None:
                raise self._unknown(name)
            if name not in self._open:
                self._open[name] = self._rooms.open_knowledge_base(self._folder / name, None, create=False)
                self._files[name] = found
            return self._open[name]

    def overview(self, name: str) -> dict[str, Any]:
        """Its name and numbers; of one that cannot be opened, its name and why."""
        try:
            stats = msgspec.to_builtins(self.get(name).stats(), enc_hook=str)
        except QuinzeError as error:
            nothing = {"documents": 0, "ready": 0, "failed": 0, "chunks": 0, "bytes": 0, "embedder": None}
            return {"name": name, **nothing, "updated_at": None, "error": str(error)}
        return {"name": name, **stats, "error": None}

    def remove(self, name: str) -> None:
        """Delete the knowledge base and the uploads in it. Files elsewhere, added by their path, stay."""
        with self._lock:
            folder = self.folder_of(name)
            if not self.exists(name):
                raise self._unknown(name)
            self._forget(folder.name)
            # Renamed first: from this moment it is gone, whatever happens to the deleting.
            gone = folder.with_name(f".removed-{folder.name}")
            shutil.rmtree(gone, ignore_errors=True)
            folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def close(self) -> None:
        with self._lock:
            for opened in self._open.values():
                opened.close()
            self._open.clear()

    def _forget(self, name: str) -> None:
        opened = self._open.pop(name, None)
        if opened is not None:
            opened.close()

    def folders(self) -> Iterator[tuple[str, Path]]:
        for name in self.names():
            yield name, self._folder / name

    def _unknown(self, name: str) -> KnowledgeBaseNotFoundError:
        known = self.names()
        hint = f"Known are {', '.join(known)}." if known else f"Make one: quinze kb add {_quoted(name)} FILES"
        return KnowledgeBaseNotFoundError(
            f"There is no knowledge base named {name[:80]!r}.", hint=hint, param="knowledge_base"
        )


def _inode(folder: Path) -> int | None:
    """Tells one database file from another; None when there is none."""
    try:
        return (folder / DATABASE).stat().st_ino
    except OSError:
        return None


def _quoted(name: str) -> str:
    return f'"{name[:80]}"' if " " in name else name[:80]
