"""A knowledge base: documents in, passages out.

    folder/knowledge.sqlite      everything that was read and is searched

This is the door to the room: it opens the store, keeps the embedder that the base was made with, and hands
`add` to ingest.py and `search` to retriever.py. May be shared by threads; other processes may open the same
folder.

>>> kb = KnowledgeBase.open(Path("notes"), embedder=HashingEmbedder(), create=True)
>>> kb.add([Path("bread.md")]).added
1
>>> kb.search("how long is bread dough proved?")[0].document
'bread.md'
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from quinze.embeddings.embedder import Embedder
from quinze.embeddings.loading import load_embedder
from quinze.errors import (
    ConflictError,
    DocumentNotFoundError,
    InvalidRequestError,
    KnowledgeBaseNotFoundError,
)
from quinze.knowledge.defaults import EMBEDDER, SEARCH_RESULTS
from quinze.knowledge.document import Block
from quinze.knowledge.fulltext import Analyzer
from quinze.knowledge.ingest import Ingest, Progress, Reader
from quinze.knowledge.readers.workers import Readers
from quinze.knowledge.results import (
    DocumentInfo,
    Dropped,
    Failure,
    Hit,
    IngestEvent,
    IngestReport,
    Search,
    Stats,
    Unread,
)
from quinze.knowledge.retriever import Retriever
from quinze.knowledge.stores.sqlite import SQLiteStore

__all__ = [
    "DocumentInfo",
    "Dropped",
    "Failure",
    "Hit",
    "IngestEvent",
    "IngestReport",
    "KnowledgeBase",
    "Search",
    "Stats",
    "Unread",
]

DATABASE = "knowledge.sqlite"
UPLOADS = "files"


class KnowledgeBase:
    def __init__(
        self, folder: Path, store: SQLiteStore, embedder: Embedder, readers: Reader | None = None
    ) -> None:
        self.folder = folder
        self.name = folder.name
        self.embedder = embedder
        self._store = store
        self._analyzer = Analyzer()
        self._retriever = Retriever(store, embedder, self._analyzer)
        self._lock = threading.Lock()
        self._readers, self._own_readers = readers, readers is None

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        embedder: Embedder | None,
        create: bool,
        readers: Reader | None = None,
        load: Callable[[str], Embedder] = load_embedder,
    ) -> KnowledgeBase:
        """The knowledge base in `folder`; with `create`, made if it is not there.

        embedder  None: the one its database records (of a new base: the default one)
        readers   None: reading children of its own, started by the first `add`
        load      the embedder of a name, or of a model's path
        """
        folder = Path(folder)
        path = folder / DATABASE
        if create:
            chosen = embedder or load(EMBEDDER)
            store = SQLiteStore.create(path, _bound_to(chosen))
        elif path.is_file():
            store = SQLiteStore(path)
        else:
            raise KnowledgeBaseNotFoundError(
                f"There is no knowledge base in {folder}.", hint="Create it first."
            )
        try:
            recorded = store.meta["embedder"]
            if embedder is None:
                embedder = _load(load, store.meta.get("embedder_source", recorded), recorded, folder.name)
            if embedder.id != recorded:
                raise ConflictError(
                    f"The knowledge base {folder.name!r} was made with {recorded}, not with {embedder.id}.",
                    hint="Vectors of two embedders cannot be compared. Make a new knowledge base.",
                    param="embedder",
                )
            return cls(folder, store, embedder, readers)
        except BaseException:
            store.close()
            raise

    # -- documents

    def add(
        self,
        paths: Sequence[Path],
        *,
        names: Sequence[str] | None = None,
        progress: Progress | None = None,
        cancel: threading.Event | None = None,
        retry: bool = False,
    ) -> IngestReport:
        """Read files and folders into the base. What is known and unchanged is skipped; what changed is read
        anew.

        names     how each file is shown, and by which it is recognized the next time (uploads)
        progress  called in this thread for every step of every document
        cancel    set it, and the call ends soon; documents reported ready stay
        retry     read again what could not be read before, even if its file is unchanged
        """
        work = Ingest(self._store, self.embedder, self._analyzer, self._get_readers(), progress, cancel)
        report = work.run(paths, names, retry=retry)
        self._forget_uploads(work.replaced)
        return report

    def remove(self, document: int | str) -> None:
        """Take a document out, by its id or name. Its file stays, unless it was uploaded into this base."""
        info = self.document(document)
        self._store.remove([info.id])
        self._forget_uploads([info.path])

    def documents(self) -> list[DocumentInfo]:
        """Every document, read or not, by name."""
        return self._store.documents()

    def document(self, document: int | str) -> DocumentInfo:
        info = self._store.document(document)
        if info is None:
            raise DocumentNotFoundError(
                f"There is no document {str(document)[:200]!r} in {self.name}.", param="document"
            )
        return info

    def blocks(self, document_id: int, *, start: int = 0, limit: int | None = None) -> list[Block]:
        """What was read of a document, in order: `limit` blocks from number `start` on."""
        self.document(document_id)
        return self._store.blocks(document_id, max(start, 0), limit)

    @property
    def analyzer(self) -> Analyzer:
        """What its words were indexed with; it may be shared by threads."""
        return self._analyzer

    def stats(self) -> Stats:
        ready, failed, chunks, updated_at = self._store.counts()
        size = 0
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                size += (self.folder / (DATABASE + suffix)).stat().st_size
        return Stats(
            documents=ready + failed, ready=ready, failed=failed, chunks=chunks, bytes=size,
            embedder=self.embedder.id, updated_at=updated_at,
        )  # fmt: skip

    # -- search

    def search(self, query: str, k: int = SEARCH_RESULTS) -> list[Hit]:
        """The k passages that answer best, best first."""
        return self.search_account(query, k).hits

    def search_account(self, query: str, k: int = SEARCH_RESULTS) -> Search:
        """The same with the account: what was searched, by which terms, what was dropped and why."""
        return self._retriever.search(query, k)

    def check(self) -> list[str]:
        """What the database's own integrity check complains of; [] when all is well."""
        return self._store.integrity()

    def close(self) -> None:
        with self._lock:
            if self._readers is not None and self._own_readers:
                self._readers.close()
                self._readers = None
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _get_readers(self) -> Reader:
        with self._lock:
            if self._readers is None:
                self._readers = Readers(workers=2)
            return self._readers

    def _forget_uploads(self, paths: Sequence[str]) -> None:
        """Delete uploads of this base that no document stands for any more."""
        uploads = (self.folder / UPLOADS).resolve()
        mine = [Path(path) for path in paths if Path(path).parent == uploads]
        if mine:
            needed = {known.path for known in self._store.known()}
            for path in mine:
                if str(path) not in needed:
                    with contextlib.suppress(OSError):
                        path.unlink()


def _bound_to(embedder: Embedder) -> dict[str, str]:
    """What a new base writes down of the embedder that makes its vectors."""
    return {
        "embedder": embedder.id,
        "embedder_source": embedder.source,
        "dimensions": str(embedder.dimensions),
    }


def _load(load: Callable[[str], Embedder], source: str, recorded: str, name: str) -> Embedder:
    try:
        return load(source)
    except InvalidRequestError as error:
        raise ConflictError(
            f"The knowledge base {name!r} was made with {recorded}, which is not at {source} any more.",
            hint="Put the model back to where it was, or make a new knowledge base.",
            param="embedder",
        ) from error
