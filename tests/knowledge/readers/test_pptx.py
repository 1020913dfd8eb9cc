"""PowerPoint files: slide by slide, in the order in which an eye reads, nothing left on the slide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pptx
import pytest

from quinze.knowledge.document import Block, BlockKind, Document
from quinze.knowledge.readers.workers import Readers

SOURCES = "data/documents/docling/pptx/sources"
NAMES = (
    "powerpoint_bad_text", "powerpoint_comments", "powerpoint_issue_2663", "powerpoint_malformed_pictures",
    "powerpoint_sample", "powerpoint_with_image", "pptx_chart",
)  # fmt: skip


@pytest.fixture(scope="module")
def known(read: Callable[[str], Document]) -> Document:
    return read("known.pptx")


def test_every_mark_stands_on_its_slide(known: Document, one: Callable[[Document, str], Block]) -> None:
    assert known.pages == 4
    assert one(known, "NOTES-MARK").place.part == "notes"
    assert one(known, "NOTES-MARK").kind is BlockKind.NOTE
    assert one(known, "GROUPED-TEXT").place.slide == 2
    assert one(known, "Bearing 6204").header == ("Part", "Qty", "Price EUR", "备注")
    assert one(known, "17.25").cells == ("Q2", "17.25")
    assert one(known, "17.25").header == ("", "Revenue 收入")
    assert one(known, "17.25").place.heading == ("Chart 图表",)


def test_shapes_are_read_from_the_top_whatever_the_order_of_drawing(known: Document) -> None:
    texts = [block.text for block in known.blocks]
    assert texts.index("TOP-BOX") < texts.index("BOTTOM-BOX")


def test_sentences_are_whole(
    known: Document, sentences: list[str], found: Callable[[Document, Sequence[str]], list[str]]
) -> None:
    assert found(known, [sentences[0], sentences[8], sentences[5]]) == [
        sentences[0],
        sentences[8],
        sentences[5],
    ]


def frames(shapes: Any) -> Iterator[str]:
    """Every paragraph that python-pptx finds on a slide, through groups and tables."""
    for shape in shapes:
        if shape.shape_type == 6:
            yield from frames(shape.shapes)
        elif shape.has_text_frame:
            yield from (paragraph.text for paragraph in shape.text_frame.paragraphs)
        elif getattr(shape, "has_table", False) and shape.has_table:
            yield from (cell.text for row in shape.table.rows for cell in row.cells if not cell.is_spanned)


@pytest.mark.parametrize("name", NAMES)
def test_every_paragraph_that_python_pptx_finds_is_found(
    readers: Readers, shared: Callable[[str], Path], name: str
) -> None:
    path = shared(f"{SOURCES}/{name}.pptx")
    ours: dict[int, str] = {}
    for block in readers.read(path).blocks:
        ours[block.place.slide or 0] = f"{ours.get(block.place.slide or 0, '')} {block.text}"
    for number, slide in enumerate(pptx.Presentation(str(path)).slides, start=1):
        squeezed = "".join(ours.get(number, "").split())
        for text in frames(slide.shapes):
            assert "".join(text.replace("\v", "").split()) in squeezed
        if slide.has_notes_slide:
            notes = slide.notes_slide.notes_text_frame
            assert notes is None or "".join(notes.text.split()) in squeezed


def test_both_generations_of_comments_name_their_author(
    readers: Readers, shared: Callable[[str], Path], one: Callable[[Document, str], Block]
) -> None:
    document = readers.read(shared(f"{SOURCES}/powerpoint_comments.pptx"))
    assert one(document, "sample reviewer comment").text.startswith("John Reviewer: ")
    assert one(document, "sample reviewer comment").place.part == "comment"


def test_numbered_lists_are_counted(readers: Readers, shared: Callable[[str], Path]) -> None:
    document = readers.read(shared(f"{SOURCES}/powerpoint_sample.pptx"))
    texts = [block.text for block in document.blocks if block.place.slide == 3]
    assert [text for text in texts if text.startswith(("1.", "2.", "3."))][:3] == [
        "1. List item4", "2. List item5", "3. List item6",
    ]  # fmt: skip
