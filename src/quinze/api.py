"""The Python face: three classes that do what the terminal and the page do.

    import quinze

    llm = quinze.LLM("model.gguf")
    notes = quinze.KnowledgeBase("notes")
    notes.add("Documents/")
    print(notes.ask("When is the rent due?", model=llm).answer)

Everything is kept under QUINZE_HOME, the same folder that `quinze serve` uses.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from quinze import paths
from quinze.llm import llm as _llm
from quinze.service.service import Service
from quinze.service.settings import load_settings

if TYPE_CHECKING:
    from quinze.embeddings.embedder import Vectors
    from quinze.evaluation.classification import Classification
    from quinze.knowledge.knowledge_base import DocumentInfo, Hit, IngestEvent, IngestReport
    from quinze.rag.pipeline import Answer, AnswerEvent


def _service() -> Service:
    home = paths.home()
    return Service(home, load_settings(home, os.environ))


class LLM(_llm.LLM):
    """A language model: a GGUF file, a Hugging Face folder, a llama2.c file, an adapter, or the name of a
    linked one; "model+adapter" joins two of them.

    >>> LLM("stories260K.bin").complete("Once upon a time", max_tokens=8, temperature=0).text
    ', there was a little girl'
    """

    def __init__(
        self,
        path_or_name: str | Path,
        *,
        context_length: int | None = None,
        threads: int | None = None,
        context_overflow: str | None = None,
        kv_cache_type: str | None = None,
        device: str | None = None,
    ) -> None:
        service = _service()
        try:
            path = service.models.path_of(path_or_name)
            base = service.models.base_of(path_or_name)
        finally:
            service.close()
        settings = service.settings
        super().__init__(
            path if base is None else base,
            context_length=context_length if context_length is not None else settings.context_length,
            threads=threads if threads is not None else settings.threads,
            context_overflow=context_overflow if context_overflow is not None else settings.context_overflow,
            kv_cache_type=kv_cache_type if kv_cache_type is not None else settings.kv_cache_type,
            kv_cache_bytes=settings.kv_cache_bytes,
            prefix_cache_bytes=settings.prefix_cache_bytes,
            speculation=settings.speculation,
            device=device if device is not None else settings.device,
        )
        if base is not None:
            self._adapted.wear(path)


class KnowledgeBase:
    """Documents that can be searched and asked, by name. It is made when something is first added."""

    def __init__(self, name: str) -> None:
        self._service = _service()
        self.name = self._service.knowledge_bases.folder_of(name).name

    def add(self, *paths: str | Path, progress: Callable[[IngestEvent], None] | None = None) -> IngestReport:
        """Read files and folders. What has not changed is skipped; what cannot be read is in `.failed`,
        with its reason."""
        return self._service.ingest(self.name, [Path(path) for path in paths], progress=progress)

    def search(self, query: str, k: int | None = None) -> list[Hit]:
        """The k passages that answer best, best first."""
        return list(self._service.search(self.name, query, k).hits)

    def ask(self, question: str, *, model: str | _llm.LLM | None = None, k: int | None = None) -> Answer:
        """An answer with its citations: from the model, or quoted from the documents when there is none.

        model  a name, a path, or an LLM; None takes the default one if it can chat
        """
        if isinstance(model, _llm.LLM):
            base = self._service.knowledge_bases.get(self.name)
            chosen = self._service.settings.search_results if k is None else k
            return self._service.rooms.answer(question, base, model, k=chosen)
        return self._service.ask(self.name, question, model=model, k=k)

    def stream(
        self, question: str, *, model: str | None = None, k: int | None = None
    ) -> Iterator[AnswerEvent]:
        """The same in pieces: what was searched, then the words, then the whole answer."""
        return self._service.stream_ask(self.name, question, model=model, k=k)

    def documents(self) -> list[DocumentInfo]:
        """Every document, those that could not be read too, with the reason."""
        if not self._service.knowledge_bases.exists(self.name):
            return []
        return self._service.knowledge_bases.get(self.name).documents()

    def remove(self, document: int | str | None = None) -> None:
        """Remove one document, by its name or id; without one, the whole knowledge base."""
        if document is None:
            self._service.remove_knowledge_base(self.name)
            return
        self._service.remove_document(
            self.name, self._service.knowledge_bases.get(self.name).document(document).id
        )

    def close(self) -> None:
        self._service.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"KnowledgeBase({self.name!r})"


class Embedder:
    """Texts -> unit vectors, (len(texts), dimensions), so that a dot product is a cosine.

    name  of an embedder; None takes the one of the settings

    >>> Embedder().embed(["bread dough", "面团"]).shape
    (2, 256)
    """

    def __init__(self, name: str | None = None) -> None:
        with contextlib.closing(_service()) as service:
            self._embedder = service.embedder(name)

    @property
    def id(self) -> str:
        return self._embedder.id

    @property
    def dimensions(self) -> int:
        return self._embedder.dimensions

    def embed(self, texts: Sequence[str]) -> Vectors:
        return self._embedder.embed([texts] if isinstance(texts, str) else list(texts))

    def classify(
        self,
        texts: Sequence[str],
        labels: Sequence[str],
        *,
        multi: bool = False,
        threshold: float = 0.5,
        abstain: float = 0.0,
        margin: float = 0.0,
    ) -> list[Classification]:
        """Each text under the label that it is most like, with no training.

        labels   "name" or "name=description"
        multi    any number of labels, each that reaches `threshold`
        abstain  `.label` is None where the most probable label has less than this
        margin   or is less than this ahead of the second

        >>> Embedder().classify(["The match ended two to one."], ["sports", "cooking"])[0].label
        'sports'
        """
        from quinze.embeddings.zero_shot import EmbeddingClassifier
        from quinze.evaluation.classification import classify, labels_of

        given = [texts] if isinstance(texts, str) else list(texts)
        return classify(
            EmbeddingClassifier(self._embedder, labels_of(labels)),
            given,
            multi=multi,
            threshold=threshold,
            abstain=abstain,
            margin=margin,
        )

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """The same for questions; a model trained with prefixes treats them apart."""
        return self._embedder.embed_queries([texts] if isinstance(texts, str) else list(texts))
