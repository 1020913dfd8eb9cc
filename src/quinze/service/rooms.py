"""The doors from the service down into the other rooms, each opened when first used.

A Service is given a `Rooms`; tests give one with other doors. Nothing here is loaded before it is asked for,
so that `quinze ls` pays for neither the engine nor the readers.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quinze.embeddings.embedder import Embedder
    from quinze.hub.upstream import Upstream
    from quinze.knowledge.knowledge_base import KnowledgeBase
    from quinze.knowledge.readers.workers import Readers
    from quinze.llm.llm import LLM
    from quinze.llm.model import LanguageModel
    from quinze.rag.pipeline import Answer, AnswerEvent


class Rooms:
    """The real doors."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers: Readers | None = None
        self._embedders: dict[str, Embedder] = {}

    def readers(self) -> Readers:
        """The killable children that read and draw, shared by all knowledge bases."""
        from quinze.knowledge.readers.workers import Readers

        with self._lock:
            if self._readers is None:
                self._readers = Readers()
            return self._readers

    def open_knowledge_base(self, folder: Path, embedder: Embedder | None, *, create: bool) -> KnowledgeBase:
        from quinze.knowledge.knowledge_base import KnowledgeBase

        return KnowledgeBase.open(
            folder, embedder=embedder, create=create, readers=self.readers(), load=self.load_embedder
        )

    def render_page(
        self, path: Path, document_format: str, page: int, width: int, *, timeout: float
    ) -> bytes:
        return self.readers().render(path, document_format, page, width, timeout)

    def close(self) -> None:
        with self._lock:
            if self._readers is not None:
                self._readers.close()
                self._readers = None

    def load_embedder(self, name: str) -> Embedder:
        """By its name, or the path of a model; one that is loaded stays, and is shared."""
        from quinze.embeddings.loading import load_embedder

        with self._lock:
            # One model for all the bases that it made, and for /v1/embeddings.
            if name not in self._embedders:
                self._embedders[name] = load_embedder(name)
            return self._embedders[name]

    def load_llm(
        self,
        path: Path,
        *,
        context_length: int | None,
        threads: int | None,
        context_overflow: str,
        pack_weights: str,
        kv_cache_type: str,
        kv_cache_bytes: int | None,
        prefix_cache_bytes: int,
        speculation: str,
        device: str,
    ) -> LLM:
        from quinze.llm.llm import LLM

        return LLM(
            path,
            context_length=context_length,
            threads=threads,
            context_overflow=context_overflow,
            pack_weights=pack_weights,
            kv_cache_type=kv_cache_type,
            kv_cache_bytes=kv_cache_bytes,
            prefix_cache_bytes=prefix_cache_bytes,
            speculation=speculation,
            device=device,
        )

    def upstream(self, address: str, key: str | None, idle_timeout: float) -> Upstream:
        from quinze.hub.upstream import Upstream

        return Upstream(address, key=key, idle_timeout=idle_timeout)

    def upstream_llm(
        self,
        name: str,
        upstream: Upstream,
        *,
        model: str,
        context_length: int,
        kind: str,
        context_overflow: str,
        cancel: threading.Event | None,
    ) -> LanguageModel:
        from quinze.llm.upstream import UpstreamLLM
        from quinze.llm.upstream_request import Served

        served = Served(model, context_length, kind)
        return UpstreamLLM(name, upstream, served, context_overflow=context_overflow, cancel=cancel)

    def secret(self, variable: str) -> str | None:
        """A key in the environment."""
        from quinze.service.settings import secret

        return secret(variable)

    def answer(
        self, question: str, knowledge_base: KnowledgeBase, llm: LanguageModel | None, *, k: int
    ) -> Answer:
        from quinze.rag.pipeline import answer

        return answer(question, knowledge_base, llm, k=k)

    def stream_answer(
        self, question: str, knowledge_base: KnowledgeBase, llm: LanguageModel | None, *, k: int
    ) -> Iterator[AnswerEvent]:
        from quinze.rag.pipeline import stream_answer

        return stream_answer(question, knowledge_base, llm, k=k)

    def document_formats(self) -> Mapping[str, str]:
        """Suffix -> format, of every kind of document that can be read."""
        from quinze.knowledge.readers import SUFFIXES

        return SUFFIXES

    def packed_bytes(self, path: Path) -> int:
        """Of the rearranged copy of a model's weights; 0 where there is none."""
        from quinze.engine.packing import packed_bytes

        return packed_bytes(path)

    def forget_model(self, path: Path) -> None:
        """Delete what Quinze itself keeps of a model: never its own file."""
        from quinze.engine.packing import remove_packed

        remove_packed(path)

    def describe_model(self, path: Path) -> dict[str, Any]:
        from quinze.service.model_info import describe

        return describe(path)
