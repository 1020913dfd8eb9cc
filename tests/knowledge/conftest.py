"""A knowledge base of one's own, and readers that need no child process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quinze.embeddings.hashing import HashingEmbedder
from quinze.errors import DocumentError
from quinze.knowledge.document import Block, BlockKind, Document, Place
from quinze.knowledge.knowledge_base import KnowledgeBase


class LineReaders:
    """A paragraph a line, "# " begins a heading. `before` is called with each name and may block."""

    def __init__(self) -> None:
        self.read_names: list[str] = []
        self.before: Callable[[str, threading.Event | None], None] = lambda *_: None

    def read(
        self,
        path: Path,
        *,
        name: str = "",
        progress: Callable[[int, int | None], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> Document:
        self.before(name, cancel)
        self.read_names.append(name)
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        if "UNREADABLE" in text:
            raise DocumentError(f"{name} is unreadable.", hint="Write it anew.")
        blocks = []
        heading: tuple[str, ...] = ()
        for number, line in enumerate(text.splitlines(), 1):
            if progress is not None:
                progress(number, None)
            if line.startswith("# "):
                heading = (line[2:],)
            kind = BlockKind.HEADING if line.startswith("# ") else BlockKind.PARAGRAPH
            place = Place(lines=(number, number), heading=heading)
            if line:
                blocks.append(
                    Block(kind, line.removeprefix("# "), place, level=int(kind == BlockKind.HEADING))
                )
        return Document("text", tuple(blocks), language="en")

    def close(self) -> None: ...


@pytest.fixture
def readers() -> LineReaders:
    return LineReaders()


@pytest.fixture
def kb(tmp_path: Path, readers: LineReaders) -> Iterator[KnowledgeBase]:
    base = KnowledgeBase.open(tmp_path / "base", embedder=HashingEmbedder(), create=True, readers=readers)
    yield base
    base.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def write(source: Path) -> Callable[..., Path]:
    """`write("a.txt", "text")` in the source folder, each time with a later date."""
    dates = iter(range(1_700_000_000, 1_800_000_000))

    def write_file(name: str, text: str) -> Path:
        import os

        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        date = next(dates)
        os.utime(path, (date, date))
        return path

    return write_file
