"""The service: everything that can be asked of Quinze, by the terminal, over HTTP or from Python.

Given the home folder and the settings; loads nothing until it is asked to. Knows neither HTTP nor the
terminal.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quinze.errors import (
    ConflictError,
    DocumentNotFoundError,
    InvalidRequestError,
    ModelNotFoundError,
    QuinzeError,
    StorageError,
)
from quinze.service import uploads
from quinze.service.jobs import Failure, Job, Jobs
from quinze.service.knowledge_bases import KnowledgeBases
from quinze.service.names import valid_upload_name
from quinze.service.pages import PageImages
from quinze.service.registry import Registry
from quinze.service.rooms import Rooms
from quinze.service.runs import Runs
from quinze.service.settings import Settings

if TYPE_CHECKING:
    from quinze.embeddings.embedder import Embedder, Vectors
    from quinze.knowledge.knowledge_base import DocumentInfo, IngestEvent, IngestReport, Search
    from quinze.llm.model import LanguageModel
    from quinze.rag.pipeline import Answer, AnswerEvent

log = logging.getLogger(__name__)

MAX_QUESTION = 20_000
"""Characters of a question or a query; more is a document, not a question."""
MAX_K = 100
_SECONDS_TO_STOP_A_JOB = 30.0


class Service:
    def __init__(self, home: Path, settings: Settings, rooms: Rooms | None = None) -> None:
        self.home, self.settings = home, settings
        self.rooms = rooms or Rooms()
        self.models = Registry(home, settings, self.rooms)
        self.knowledge_bases = KnowledgeBases(home, self.rooms, embedder=self.embedder)
        self.jobs = Jobs()
        self.runs = Runs(home, settings.max_runs)
        self.page_images = PageImages(home, settings, self.rooms)
        self._lock = threading.Lock()
        self._embedders: dict[str, Embedder] = {}

    # --- taking in

    def ingest(
        self,
        name: str,
        paths: Sequence[Path],
        *,
        progress: Callable[[IngestEvent], None] | None = None,
        cancel: threading.Event | None = None,
        create: bool = True,
        embedder: str | None = None,
    ) -> IngestReport:
        """Read files and folders into a knowledge base, here and now; it is made if it is missing.

        embedder  that makes its vectors; ConflictError if it was made with another. None: its own, or for a
                  new one that of the settings
        """
        found = _existing(paths)
        if create and not self.knowledge_bases.exists(name):
            self.knowledge_bases.create(name, self.embedder(embedder))
        elif embedder is not None:
            self.knowledge_bases.require_embedder(name, self.embedder(embedder))
        return self.knowledge_bases.get(name).add(found, progress=progress, cancel=cancel)

    def add_paths(self, name: str, paths: Sequence[Path]) -> Job:
        """Read files and folders of this machine in the background.

        Survives a kill: `resume` takes it up again.
        """
        found = _existing(paths)
        folder = self._folder(name)
        return self._submit(name, uploads.note_pending(folder, paths=[str(path) for path in found]))

    def upload(self, name: str, file_name: str) -> uploads.Upload:
        """A place for a file that comes in piece by piece; when it is whole, `add_upload` its `finish()`."""
        return uploads.Upload(
            self._folder(name), valid_upload_name(file_name), self.settings.max_upload_bytes
        )

    def add_upload(self, name: str, pending: uploads.Pending) -> Job:
        return self._submit(name, pending)

    def retry(self, name: str, document_id: int) -> Job:
        """Read one document again, from where it came."""
        path, document = self.document_file(name, document_id)
        folder = self._folder(name)
        if path.parent == (folder / uploads.FILES).resolve():
            return self._submit(name, uploads.note_pending(folder, file=path.name, name=document.name))
        return self._submit(name, uploads.note_pending(folder, paths=[str(path)]))

    def resume(self) -> None:
        """Take up again what was promised before the last stop."""
        for name, folder in self.knowledge_bases.folders():
            uploads.sweep_incoming(folder)
            for pending in uploads.pending_of(folder):
                self._submit(name, pending)

    # --- asking

    def search(self, name: str, query: str, k: int | None = None) -> Search:
        query, k = _question(query, "query"), self._k(k)
        return self.knowledge_bases.get(name).search_account(query, k)

    def ask(self, name: str, question: str, *, model: str | None = None, k: int | None = None) -> Answer:
        """An answer from the documents, with its citations.

        model  None: the default one if it can chat; "": none, the answer is quoted from the documents
        """
        question, k = _question(question, "question"), self._k(k)
        base = self.knowledge_bases.get(name)
        with self._answering(model, None) as llm:
            return self.rooms.answer(question, base, llm, k=k)

    def stream_ask(
        self,
        name: str,
        question: str,
        *,
        model: str | None = None,
        k: int | None = None,
        cancel: threading.Event | None = None,
    ) -> Iterator[AnswerEvent]:
        """The same in pieces. Closing the iterator gives the model back at once."""
        question, k = _question(question, "question"), self._k(k)
        base = self.knowledge_bases.get(name)
        with self._answering(model, cancel) as llm:
            events = self.rooms.stream_answer(question, base, llm, k=k)
            try:
                for event in events:
                    yield event
                    if cancel is not None and cancel.is_set():
                        return
            finally:
                close = getattr(events, "close", None)
                if close is not None:
                    close()

    def embed(self, texts: Sequence[str], *, model: str | None = None) -> tuple[Vectors, int, str]:
        """Vectors of the texts, the tokens read, and the id of the embedder."""
        embedder = self.embedder(model)
        tokens = sum(embedder.count_tokens(text) for text in texts)
        return embedder.embed(texts), tokens, embedder.id

    def embedder(self, model: str | None = None) -> Embedder:
        """By its name or id; the setting `embedder` when none is named."""
        name = model or self.settings.embedder
        with self._lock:
            for embedder in self._embedders.values():
                if name == embedder.id:
                    return embedder
            if name not in self._embedders:
                known = name in self.models.names()
                path = str(self.models.path_of(name)) if known else name
                try:
                    self._embedders[name] = self.rooms.load_embedder(path)
                except QuinzeError as error:
                    raise ModelNotFoundError(error.message, hint=error.hint, param="model") from error
            return self._embedders[name]

    # --- documents

    def document_file(self, name: str, document_id: int) -> tuple[Path, DocumentInfo]:
        """Where a document's own file lies now; DocumentNotFoundError when it has gone."""
        document = self.knowledge_bases.get(name).document(document_id)
        path = Path(document.path)
        if not path.is_file():
            raise DocumentNotFoundError(
                f"The file of {document.name!r} is no longer where it was added from.",
                hint="Add it again, or remove the document.",
                param="id",
            )
        return path, document

    def page_image(self, name: str, document_id: int, page: int, width: int | None = None) -> bytes:
        """A page drawn as PNG, from the cache when it was drawn before."""
        path, document = self.document_file(name, document_id)
        if page < 1 or (document.pages is not None and page > document.pages):
            raise DocumentNotFoundError(
                f"{document.name!r} has no page {page}; it has {document.pages or 'no'} pages.", param="page"
            )
        try:
            return self.page_images.get(path, document.sha256, document.format, page, width)
        except QuinzeError as error:
            # An upload lies under another name than the one it came with.
            message = error.message.replace(path.name, document.name)
            raise type(error)(message, hint=error.hint, param=error.param) from error

    def remove_document(self, name: str, document_id: int) -> None:
        """Remove it from the knowledge base; an upload's file goes too, a file added by its path stays."""
        self.knowledge_bases.get(name).remove(document_id)

    def remove_knowledge_base(self, name: str) -> None:
        """Stop the jobs that read into it, then delete it with its uploads."""
        name = self._folder(name).name
        running = [job for job in self.jobs.all() if job.knowledge_base == name and not job.ended]
        for job in running:
            self.jobs.cancel(job)
        if not all(job.wait(_SECONDS_TO_STOP_A_JOB) for job in running):
            raise ConflictError(
                f"{name!r} is still being read into.",
                hint="Try again when its job has stopped.",
                param="name",
            )
        self.knowledge_bases.remove(name)

    def close(self) -> None:
        """Stop the jobs (they resume at the next start), give back models, readers and databases."""
        self.jobs.close()
        self.models.close()
        self.knowledge_bases.close()
        self.rooms.close()

    # --- inside

    def _folder(self, name: str) -> Path:
        """Of a knowledge base that exists."""
        self.knowledge_bases.get(name)
        return self.knowledge_bases.folder_of(name)

    def _submit(self, name: str, pending: uploads.Pending) -> Job:
        folder = self.knowledge_bases.folder_of(name)
        name = folder.name
        stored = [str(folder / uploads.FILES / pending.file)] if pending.file else pending.paths
        paths = [Path(path) for path in stored]
        names = [pending.name] if pending.name else None

        def work(job: Job) -> list[Failure]:
            base = self.knowledge_bases.get(name)
            report = base.add(paths, names=names, progress=job.progress, cancel=job.cancel)
            return report.failed

        def on_end(job: Job) -> None:
            # A full disk or a fault of ours is no reason to forget what was promised.
            failed = job.snapshot().error
            ours = failed is not None and failed["code"] in {StorageError.code, QuinzeError.code}
            if not (job.kept_for_next_start or ours):
                uploads.forget_pending(folder, pending)

        title = pending.name or (paths[0].name if len(paths) == 1 else f"{paths[0].name} + {len(paths) - 1}")
        return self.jobs.submit(name, work, title=title, total=len(paths), on_end=on_end)

    @contextlib.contextmanager
    def _answering(self, model: str | None, cancel: threading.Event | None) -> Iterator[LanguageModel | None]:
        """The model that answers: the one named, else the default one if it can chat, else none (quotes)."""
        chosen = model
        if chosen is None:
            default = self.models.default()
            chosen = default if default is not None and self.models.info(default).can_chat else ""
        if not chosen:
            yield None
            return
        with self.models.use(chosen, cancel=cancel) as llm:
            yield llm

    def _k(self, k: int | None) -> int:
        k = self.settings.search_results if k is None else k
        if not 1 <= k <= MAX_K:
            raise InvalidRequestError(f"k is {k}; it must lie between 1 and {MAX_K}.", param="k")
        return k


def _question(text: str, param: str) -> str:
    text = text.strip()
    if not text:
        raise InvalidRequestError(f"The {param} is empty.", hint="Write what you want to know.", param=param)
    if len(text) > MAX_QUESTION:
        raise InvalidRequestError(
            f"The {param} has {len(text):,} characters; {MAX_QUESTION:,} is the most.",
            hint="Add long texts as documents and ask about them.",
            param=param,
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(f"The {param} is not valid Unicode.", param=param) from None
    return text.replace("\x00", " ")


def _existing(paths: Sequence[Path]) -> list[Path]:
    """The paths, absolute; InvalidRequestError names the first that is missing."""
    if not paths:
        raise InvalidRequestError("No path is given.", hint="Name a file or a folder.", param="paths")
    found = []
    for path in paths:
        if "\x00" in str(path):
            raise InvalidRequestError("A path holds a NUL character.", param="paths")
        absolute = path
        try:
            absolute = path.expanduser().absolute()
            there = absolute.exists()
        except (OSError, RuntimeError):  # too long a name; "~nobody"
            there = False
        if not there:
            raise InvalidRequestError(
                f"There is no file or folder {str(path)[:300]!r}.", hint="Check the path.", param="paths"
            )
        found.append(absolute)
    return found
