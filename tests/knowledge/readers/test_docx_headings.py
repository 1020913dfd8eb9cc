"""Headings that only their looks tell.

The oracle is the maker of each file: its headings' styles are taken away and their looks left, as in a file
whose author never heard of styles, and what was a heading must be one still, and nothing else.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from lxml import etree

from quinze.knowledge.document import BlockKind, Document
from quinze.knowledge.readers.docx_numbering import W, read_styles
from quinze.knowledge.readers.workers import Readers

SOURCES = "data/documents/docling/docx/sources"
NAMESPACE = W.strip("{}")


def unstyled(path: Path, out: Path, *, larger: bool) -> Path:
    """The same file, its headings in bold and, if `larger`, in larger type, but without a heading's style."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        styles = read_styles(etree.fromstring(old.read("word/styles.xml")))
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, looks(data, styles, larger=larger) if name == "word/document.xml" else data)
    return out


def looks(data: bytes, styles: dict[str, object], *, larger: bool) -> bytes:
    root = etree.fromstring(data)
    for paragraph in root.iter(f"{W}p"):
        style = paragraph.find(f"{W}pPr/{W}pStyle")
        found = None if style is None else styles.get(style.get(f"{W}val", ""))
        outline = getattr(found, "outline", None)
        if style is None or found is None or (outline is None and not getattr(found, "is_title", False)):
            continue
        style.getparent().remove(style)
        for run in paragraph.iter(f"{W}r"):
            own = run.find(f"{W}rPr")
            if own is None:
                own = etree.Element(f"{W}rPr")
                run.insert(0, own)
            etree.SubElement(own, f"{W}b")
            if larger:
                etree.SubElement(own, f"{W}sz").set(f"{W}val", str(40 - 4 * (outline or 0)))
    return etree.tostring(root)


def headings(document: Document) -> list[tuple[int, str]]:
    return [(block.level, block.text) for block in document.blocks if block.kind is BlockKind.HEADING]


# The least share that is found again: two headings in a row of one size may be an address, a number in a list
# may be an item, and a file with three paragraphs is no text with chapters.
FILES = {
    "docx_lists": 0.9, "word_sample": 1.0, "list_after_num_headers": 0.3, "unit_test_headers": 0.85,
    "docx_rich_cells": 0.0,
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_what_its_style_made_a_heading_its_looks_make_one(
    readers: Readers, shared: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    path = shared(f"{SOURCES}/{name}.docx")
    styled = headings(readers.read(path))
    larger = headings(readers.read(unstyled(path, tmp_path / "a.docx", larger=True)))
    bold = headings(readers.read(unstyled(path, tmp_path / "b.docx", larger=False)))
    texts = {text for _, text in styled}
    assert {text for _, text in (*larger, *bold)} <= texts
    assert len(larger) >= FILES[name] * len(styled)


def test_larger_type_is_a_higher_level(
    readers: Readers, shared: Callable[[str], Path], tmp_path: Path
) -> None:
    path = shared(f"{SOURCES}/unit_test_headers.docx")
    levels = dict(text[::-1] for text in headings(readers.read(path)))
    document = readers.read(unstyled(path, tmp_path / "a.docx", larger=True))
    assert len(headings(document)) == 7
    assert all(levels[text] == level for level, text in headings(document))
    last = next(block for block in document.blocks if block.text == "Paragraph 2.1.1.1")
    assert last.place.heading == ("Section 2", "Section 2.1.1")


def test_a_file_that_marks_headings_is_taken_at_its_word(
    readers: Readers, shared: Callable[[str], Path]
) -> None:
    """Its bold lines stay what they are."""
    document = readers.read(shared(f"{SOURCES}/unit_test_formatting.docx"))
    assert headings(document) == []
