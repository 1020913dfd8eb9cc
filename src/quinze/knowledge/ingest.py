"""Taking documents in: which files, which of them anew, read by several children, written by one hand.

    scan     walk the folders, and skip what has the size and date that the store knows
    read     in as many threads as there are reading children: hash, skip what is known by content, read
    write    in the calling thread: chunk, embed, one transaction a document, an event, the next

What ends in between (cancelled, killed) has written whole documents or nothing of them; the next `add` goes
on. A file that cannot be read is written too, with the reason, so that a search can say what it does not
know.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from quinze.embeddings.embedder import Embedder, Vectors
from quinze.errors import DocumentError, QuinzeError
from quinze.knowledge.chunking import chunk_document
from quinze.knowledge.document import Document
from quinze.knowledge.fingerprint import hash_file, readers_fingerprint
from quinze.knowledge.folders import Found, find_files
from quinze.knowledge.fulltext import Analyzer
from quinze.knowledge.indexing import chunk_rows, indexed_texts, sayable
from quinze.knowledge.results import Failure, IngestEvent, IngestReport
from quinze.knowledge.stores.records import Entry, Known
from quinze.knowledge.stores.sqlite import SQLiteStore

WORKERS = 2
EVENT_SECONDS = 0.1
"""Page after page of one document is reported no oftener than this."""
EMBED_AT_ONCE = 256
READING_CANCELLED = "reading_cancelled"

Progress = Callable[[IngestEvent], None]


class Reader(Protocol):
    """What ingest asks of the readers."""

    def read(
        self,
        path: Path,
        *,
        name: str = "",
        progress: Callable[[int, int | None], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> Document: ...

    def close(self) -> None: ...


class Outcome(msgspec.Struct, frozen=True):
    """What a reading thread found out about one file."""

    file: Found
    sha256: str
    seconds: float
    document: Document | None = None
    error: QuinzeError | None = None


class Page(msgspec.Struct, frozen=True):
    file: Found
    page: int | None
    pages: int | None


class _Stop(threading.Event):
    """Set when this add has ended, or when the person has cancelled it."""

    def __init__(self, cancel: threading.Event) -> None:
        super().__init__()
        self._cancel = cancel

    def is_set(self) -> bool:
        return super().is_set() or self._cancel.is_set()


class Ingest:
    """One `add`. Made anew each time; `run` does it all."""

    def __init__(
        self,
        store: SQLiteStore,
        embedder: Embedder,
        analyzer: Analyzer,
        readers: Reader,
        progress: Progress | None = None,
        cancel: threading.Event | None = None,
    ) -> None:
        self._store, self._embedder, self._analyzer, self._readers = store, embedder, analyzer, readers
        self._progress = progress
        self._cancel = cancel or threading.Event()
        self._stop = _Stop(self._cancel)
        self._added = self._updated = self._skipped = self._removed = 0
        self._failed: list[Failure] = []
        self._done = self._total = 0
        self._told: dict[str, float] = {}
        self.replaced: list[str] = []
        """Paths that documents of the same name had before."""

    def run(self, paths: Sequence[Path], names: Sequence[str] | None, *, retry: bool = False) -> IngestReport:
        begun = time.perf_counter()
        found = find_files(paths, names)
        known = {entry.key: entry for entry in self._store.known()}
        found = [_as_known(file, known.get(file.key)) for file in found]
        self._total = len(found)
        todo = [file for file in found if not self._skip_by_date(file, known.get(file.key), retry)]
        for file in todo:
            self._tell(file, "waiting")
        if todo and not self._cancel.is_set():
            self._read_and_write(todo, known, retry)
        if not self._cancel.is_set():
            self._remove_gone(found, known)
        return IngestReport(
            added=self._added,
            updated=self._updated,
            skipped=self._skipped,
            removed=self._removed,
            failed=self._failed,
            seconds=time.perf_counter() - begun,
            cancelled=self._cancel.is_set(),
        )

    # -- scan

    def _skip_by_date(self, file: Found, known: Known | None, retry: bool) -> bool:
        if known is None or (known.size, known.mtime_ns) != (file.size, file.mtime_ns) or not known.sha256:
            return False
        if known.path != file.shown_path or _ask_again(file, known, retry):
            return False
        self._skip(file)
        return True

    def _skip(self, file: Found) -> None:
        self._skipped += 1
        self._done += 1
        self._tell(file, "skipped")

    # -- read, in threads of their own

    def _read_and_write(self, todo: list[Found], known: dict[str, Known], retry: bool) -> None:
        waiting: queue.SimpleQueue[Found] = queue.SimpleQueue()
        for file in todo:
            waiting.put(file)
        # Documents already read wait here for the one that writes; few, for they may be large.
        out: queue.Queue[Outcome | Page] = queue.Queue(maxsize=WORKERS + 2)
        threads = [
            threading.Thread(
                target=self._read_all, args=(waiting, out, known, retry), name=f"quinze-read-{i}"
            )
            for i in range(min(WORKERS, len(todo)))
        ]
        for thread in threads:
            thread.daemon = True
            thread.start()
        remaining = len(todo)
        try:
            while remaining and not self._cancel.is_set():
                try:
                    got = out.get(timeout=0.1)
                except queue.Empty:
                    assert any(thread.is_alive() for thread in threads) or not out.empty(), (
                        "a reading thread died"
                    )
                    continue
                if isinstance(got, Page):
                    self._tell(got.file, "reading", page=got.page, pages=got.pages)
                else:
                    self._take(got, known)
                    remaining -= 1
        finally:
            self._stop.set()
            while any(thread.is_alive() for thread in threads):
                # A thread may be waiting for room in the queue.
                while not out.empty():
                    out.get_nowait()
                for thread in threads:
                    thread.join(0.05)

    def _read_all(
        self,
        waiting: queue.SimpleQueue[Found],
        out: queue.Queue[Outcome | Page],
        known: dict[str, Known],
        retry: bool,
    ) -> None:
        while not self._stop.is_set():
            try:
                file = waiting.get_nowait()
            except queue.Empty:
                return
            out.put(self._read(file, out.put, known.get(file.key), retry))

    def _read(
        self,
        file: Found,
        tell: Callable[[Page], None],
        known: Known | None,
        retry: bool,
        *,
        moved: bool = True,
    ) -> Outcome:
        """What is in the file; no document if its content is known, or (`moved`) it was only moved."""
        begun = time.perf_counter()

        def on_page(page: int, pages: int | None) -> None:
            now = time.monotonic()
            if now - self._told.get(file.key, 0.0) >= EVENT_SECONDS:
                self._told[file.key] = now
                tell(Page(file, page or None, pages))

        sha256 = ""
        document = None
        error: QuinzeError | None = None
        try:
            sha256 = hash_file(file.path, self._stop)
            if known is not None and known.sha256 == sha256 and not _ask_again(file, known, retry):
                return Outcome(file, sha256, time.perf_counter() - begun)
            if moved and known is None and self._moved_from(file, sha256) is not None:
                return Outcome(file, sha256, time.perf_counter() - begun)
            tell(Page(file, None, None))
            document = self._readers.read(file.path, name=file.name, progress=on_page, cancel=self._stop)
        except OSError as refused:
            error = DocumentError(
                f"{file.name} cannot be opened: {refused.strerror or refused}.",
                hint="Does the file still exist, and may it be read?",
            )
        except QuinzeError as refused:
            error = refused
        finally:
            self._told.pop(file.key, None)
        return Outcome(file, sha256, time.perf_counter() - begun, document, error)

    def _moved_from(self, file: Found, sha256: str) -> Known | None:
        """The document that this file is under its new name: the same content, and its old file gone."""
        if file.is_upload:
            return None
        for other in self._store.same_content(sha256):
            by_path = other.key.startswith("path:") and other.status == "ready"
            if by_path and other.path != file.shown_path and not Path(other.path).exists():
                return other
        return None

    # -- write, in the calling thread

    def _take(self, outcome: Outcome, known: dict[str, Known]) -> None:
        file, before = outcome.file, known.get(outcome.file.key)
        if self._cancel.is_set():
            return
        if outcome.error is not None and outcome.error.code == READING_CANCELLED:
            # Whoever closed the readers wants no more.
            self._cancel.set()
            return
        if outcome.error is None and outcome.document is None:
            self._note_moved(outcome, before)
            return
        self._done += 1
        if outcome.document is not None:
            self._write(outcome, outcome.document, before)
            return
        error = outcome.error
        assert error is not None
        told = {"error": error.message, "hint": error.hint, "code": error.code}
        entry = self._entry(outcome, status="failed", readers=readers_fingerprint(), **told)
        self._store.put(entry, [], [], self._embedder.embed([]))
        self._failed.append(Failure(file.name, **told))
        self._tell(file, "failed", seconds=outcome.seconds, **told)

    def _note_moved(self, outcome: Outcome, before: Known | None) -> None:
        file = outcome.file
        moved = None if before is not None else self._moved_from(file, outcome.sha256)
        same = before or moved
        if same is None:
            # Another file of the same content was faster, so this one is a document of its own.
            self._take(self._read(file, lambda _: None, None, retry=False, moved=False), {})
            return
        self._store.touch(
            same.id,
            key=file.key,
            name=file.name,
            path=file.shown_path,
            root=file.root,
            mtime_ns=file.mtime_ns,
        )
        if moved is None:
            self._skip(file)
            return
        self._updated += 1
        self._done += 1
        self._tell(file, "ready")

    def _write(self, outcome: Outcome, document: Document, before: Known | None) -> None:
        file = outcome.file
        self._tell(file, "indexing", pages=document.pages)
        begun = time.perf_counter()
        document = sayable(document)
        chunks = chunk_document(document)
        rows = chunk_rows(file.name, document, chunks, self._analyzer)
        vectors = self._embed(indexed_texts(file.name, document, chunks))
        if vectors is None:
            return
        twins = [other.name for other in self._store.same_content(outcome.sha256) if other.key != file.key]
        warnings = [*document.warnings, *(f"The same content as {name}." for name in twins[:3])]
        seconds = outcome.seconds + time.perf_counter() - begun
        entry = self._entry(
            outcome, status="ready", format=document.format, title=document.title, language=document.language,
            pages=document.pages, warnings=warnings, seconds=round(seconds, 3),
        )  # fmt: skip
        self._store.put(entry, document.blocks, rows, vectors)
        if before is not None and before.path != entry.path:
            self.replaced.append(before.path)
        if before is None:
            self._added += 1
        else:
            self._updated += 1
        self._tell(file, "ready", pages=document.pages, seconds=entry.seconds)

    def _embed(self, texts: list[str]) -> Vectors | None:
        parts = [self._embedder.embed([])]
        for start in range(0, len(texts), EMBED_AT_ONCE):
            if self._cancel.is_set():
                return None
            parts.append(self._embedder.embed(texts[start : start + EMBED_AT_ONCE]))
        return np.concatenate(parts)

    def _entry(self, outcome: Outcome, **fields: object) -> Entry:
        file = outcome.file
        base = {
            "key": file.key,
            "name": file.name,
            "path": file.shown_path,
            "root": file.root,
            "sha256": outcome.sha256,
            "size": file.size,
            "mtime_ns": file.mtime_ns,
            "added_at": now(),
            "seconds": round(outcome.seconds, 3),
        }
        return msgspec.convert(base | fields, Entry)

    # -- what is no longer there

    def _remove_gone(self, found: list[Found], known: dict[str, Known]) -> None:
        """Documents whose files have vanished from a folder that was added again. An empty folder removes
        nothing: it looks like a disk that is not mounted."""
        current = {file.key for file in found}
        roots = {file.root for file in found if not file.named_itself}
        gone = [
            entry.id
            for entry in self._store.known()
            if entry.root in roots
            and entry.key not in current
            and entry.key in known
            and not Path(entry.path).exists()
        ]
        if gone:
            self._store.remove(gone)
            self._removed = len(gone)

    def _tell(self, file: Found, stage: str, **fields: object) -> None:
        if self._progress is not None:
            base = {"document": file.name, "path": file.shown_path, "stage": stage}
            self._progress(
                msgspec.convert(base | {"done": self._done, "total": self._total} | fields, IngestEvent)
            )


def _as_known(file: Found, known: Known | None) -> Found:
    """A file that was met in a folder before keeps its name and its folder when it is named itself."""
    if known is None or not known.root or file.root:
        return file
    return msgspec.structs.replace(file, name=known.name, root=known.root)


def _ask_again(file: Found, known: Known, retry: bool) -> bool:
    """Whether a file that failed is read again: when asked, when it is named itself and not met in a folder,
    or when the readers have changed since."""
    return known.status == "failed" and (retry or file.named_itself or known.readers != readers_fingerprint())


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
