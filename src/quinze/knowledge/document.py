"""A document as every reader yields it: blocks of text, each with its place.

Knows nothing of files, chunks or stores. `Place.label()` is what a person reads beside a citation.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import msgspec


class BlockKind(enum.StrEnum):
    """What a block is, as far as chunking and display must know."""

    HEADING = "heading"
    PARAGRAPH = "paragraph"
    LIST_ITEM = "list_item"
    TABLE_ROW = "table_row"
    """One row of a table: `cells` holds its cells, `header` the names of its columns."""
    CODE = "code"
    """A whole definition (function, class, ...) of source code, or a code block; `symbol` names it."""
    CAPTION = "caption"
    NOTE = "note"
    """Speaker's notes, footnotes, comments."""


class Box(msgspec.Struct, frozen=True, array_like=True):
    """A rectangle on a page, in fractions of the page's width and height, origin at the top left of what is
    seen."""

    left: float
    top: float
    right: float
    bottom: float


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a text stands in its document. Only the fields that the format has are set; all counting starts
    at 1."""

    page: int | None = None
    """PDF page, or the page of a multi-page image."""
    slide: int | None = None
    sheet: str | None = None
    cells: str | None = None
    """Cell range of a sheet or a CSV file, as a spreadsheet writes it: "A7:D7"."""
    lines: tuple[int, int] | None = None
    """First and last line of a text file, inclusive."""
    paragraph: int | None = None
    """Ordinal of the paragraph in a flowing document (Word, HTML, EPUB)."""
    table: int | None = None
    """Ordinal of the table in a flowing document, a page or a slide."""
    row: int | None = None
    """Row of that table, the header row being 1."""
    heading: tuple[str, ...] = ()
    """The headings above it, outermost first."""
    symbol: str | None = None
    """Qualified name of the definition in source code: "ArgumentParser.parse_args"."""
    chapter: str | None = None
    """Title or file of a chapter in a book (EPUB), a cell of a notebook, a member of an archive."""
    part: str | None = None
    """"header", "footer", "notes", "comment", "textbox", "footnote", "ocr", ... when it is not the running
    text."""
    boxes: tuple[Box, ...] = ()
    """Where it is drawn on `page`."""

    def label(self) -> str:
        """One short line, in English, that lets a person find the place: "page 3", "sheet Prices, A7:D7"."""
        words = [self._chapter()] if self._chapter() else []
        named = (("page", self.page), ("slide", self.slide), ("sheet", self.sheet))
        words += [f"{name} {value}" for name, value in named if value is not None]
        if self.cells:
            words.append(self.cells)
        if self.table is not None:
            words.append(f"table {self.table}")
        if self.row is not None:
            words.append(f"row {self.row}")
        if self.symbol:
            words.append(self.symbol)
        if self.lines:
            first, last = self.lines
            words.append(f"line {first}" if first == last else f"lines {first}–{last}")
        if self.heading:
            words.append(" › ".join(self.heading))
        if self.part:
            words.append("recognized text" if self.part == "ocr" else self.part)
        if not words and self.paragraph is not None:
            words.append(f"paragraph {self.paragraph}")
        return ", ".join(words)

    def _chapter(self) -> str:
        """In words, "chapter Setting sail", "cell 2", "letters/first.eml"; nothing where the heading says it
        again."""
        chapter = (self.chapter or "").casefold()
        if not self.chapter or (self.heading and self.heading[0].casefold().startswith(chapter)):
            return ""
        named = chapter.startswith(("chapter", "cell ", "第")) or "." in chapter or "/" in chapter
        return self.chapter if named else f"chapter {self.chapter}"


class Block(msgspec.Struct, frozen=True, omit_defaults=True):
    """The smallest piece that a reader tells apart: a paragraph, a heading, a table row, a definition."""

    kind: BlockKind
    text: str
    """Plain text. Of a table row: its cells joined by " | "."""
    place: Place
    level: int = 0
    """Of a heading: 1 is the outermost. Of a list item: its depth."""
    cells: tuple[str, ...] = ()
    header: tuple[str, ...] = ()


class Document(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a reader makes of one file."""

    format: str
    """"pdf", "docx", "xlsx", "csv", "markdown", "html", "text", "image", "python", ..."""
    blocks: tuple[Block, ...]
    title: str = ""
    language: str = ""
    """"" when unknown, else "zh" or "en" or another ISO 639-1 code."""
    pages: int | None = None
    """Pages, slides or sheets, where the format has them."""
    warnings: tuple[str, ...] = ()
    """What was left out and why: "page 4: OCR took longer than 60 s". Shown to the person."""
    properties: Mapping[str, Any] = {}
    """Author, dates, ... as the file states them."""
