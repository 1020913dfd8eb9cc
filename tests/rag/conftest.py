"""A knowledge base and a model that say what a test has them say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from quinze.engine.sampling import SamplingParams
from quinze.knowledge.chunking import chunk_document, cut, span
from quinze.knowledge.document import Block, BlockKind, Document, Place
from quinze.knowledge.fulltext import Analyzer
from quinze.knowledge.results import Hit, Search, Unread
from quinze.llm.messages import Delta, FinishReason, Message


@dataclass
class Shelf:
    """Documents whose every passage is found by every question, in the order in which they were put here."""

    name: str = "notes"
    unread: list[Unread] = field(default_factory=list)
    hits: list[Hit] = field(default_factory=list)
    documents: int = 0
    analyzer: Analyzer = field(default_factory=Analyzer)

    def put(self, name: str, *blocks: Block, title: str = "") -> None:
        self.documents += 1
        document = Document("text", blocks, title=title)
        for chunk in chunk_document(document):
            own = tuple(cut(blocks[piece.block], piece) for piece in chunk.pieces)
            text = "\n".join(block.text for block in own)
            number = len(self.hits) + 1
            hit = Hit(
                number, self.documents, name, title, span(own), text, own, chunk.first_block, 1 / number, {}
            )
            self.hits.append(hit)

    def search_account(self, query: str, k: int) -> Search:
        terms = list(Analyzer().query(query).terms)
        return Search(self.hits[:k], self.documents, len(self.hits), self.unread, terms, [])


@dataclass
class Scripted:
    """A model that replies as it is told, counts a token a character, and remembers what it was asked."""

    reply: str = ""
    name: str = "scripted"
    can_chat: bool = True
    context_length: int = 8000
    error: Exception | None = None
    finish: FinishReason = "stop"
    asked: list[Sequence[Message]] = field(default_factory=list)
    closed: bool = False

    def count_chat_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content) + 4 for message in messages)

    def chat(
        self,
        messages: Sequence[Message],
        *,
        params: SamplingParams | None = None,
        stream: bool = False,
    ) -> Iterator[Delta]:
        assert stream
        assert params is not None
        assert params.max_tokens is not None
        assert self.count_chat_tokens(messages) + params.max_tokens <= self.context_length
        self.asked.append(messages)
        return self._stream()

    def _stream(self) -> Iterator[Delta]:
        try:
            if self.error:
                raise self.error
            for start in range(0, len(self.reply), 5):
                yield Delta(self.reply[start : start + 5])
            yield Delta(finish_reason=self.finish, context={"granted": self.context_length})
        finally:
            self.closed = True


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def scripted() -> Callable[..., Scripted]:
    return Scripted


@pytest.fixture
def paragraph() -> Callable[..., Block]:
    def make(text: str, **place: Any) -> Block:
        return Block(BlockKind.PARAGRAPH, text, Place(**place))

    return make


@pytest.fixture
def rows() -> Callable[..., list[Block]]:
    """The rows of a sheet, the first being the names of its columns."""

    def make(sheet: str, *lines: Sequence[str]) -> list[Block]:
        header = tuple(lines[0])
        last = "ABCDEFGHIJ"[len(header) - 1]
        return [
            Block(
                BlockKind.TABLE_ROW,
                " | ".join(cells),
                Place(sheet=sheet, cells=f"A{number}:{last}{number}", row=number),
                cells=tuple(cells),
                header=header,
            )
            for number, cells in enumerate(lines, start=1)
        ]

    return make
