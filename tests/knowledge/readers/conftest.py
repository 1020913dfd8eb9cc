"""What the tests of the readers share: one child for them all, and the sentences that everybody must find."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from quinze.knowledge.document import Block, Document
from quinze.knowledge.readers.workers import Readers


@pytest.fixture(scope="session")
def readers() -> Iterator[Readers]:
    with Readers(workers=1) as readers:
        yield readers


@pytest.fixture(scope="session")
def made(shared: Callable[[str], Path]) -> Callable[[str], Path]:
    """`made("known.docx")`: one of our own documents with known text."""
    return lambda name: shared(f"data/documents/made/{name}")


@pytest.fixture(scope="session")
def sentences(made: Callable[[str], Path]) -> list[str]:
    """The sixteen sentences, English and Chinese, that stand in every made document."""
    known = json.loads(made("known.json").read_text("utf-8"))
    return [*known["EN"], *known["ZH"]]


@pytest.fixture(scope="session")
def read(readers: Readers, made: Callable[[str], Path]) -> Callable[[str], Document]:
    """Read a made document as Quinze does: in a child."""
    return lambda name: readers.read(made(name))


@pytest.fixture(scope="session")
def found() -> Callable[[Document, Sequence[str]], list[str]]:
    """Those of some sentences that are whole in one block of a document."""
    return lambda document, wanted: [
        each for each in wanted if any(each in block.text for block in document.blocks)
    ]


@pytest.fixture(scope="session")
def one() -> Callable[[Document, str], Block]:
    """The only block that holds a text."""

    def find(document: Document, text: str) -> Block:
        (block,) = [block for block in document.blocks if text in block.text]
        return block

    return find
