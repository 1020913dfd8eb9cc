"""Word: the body in its order, with real heading levels and numbers, then headers, footers and what hangs on
the page.

Place: ordinal of the paragraph, headings above it; in tables, table and row. Notes and comments follow the
paragraph that they are about.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from quinze.knowledge.document import Block, BlockKind, Document, Place
from quinze.knowledge.readers.charts import chart_blocks
from quinze.knowledge.readers.docx_headings import visual_headings
from quinze.knowledge.readers.docx_numbering import (
    Numbering,
    Style,
    W,
    default_size,
    integer,
    read_styles,
    value,
)
from quinze.knowledge.readers.docx_tables import Cell, header_rows, read_rows
from quinze.knowledge.readers.docx_text import A, Text, numbering_of, paragraphs_in, read_text
from quinze.knowledge.readers.outline import outline_level
from quinze.knowledge.readers.packed import Element, Package, own_text
from quinze.knowledge.readers.report import Report
from quinze.knowledge.readers.tables import Headings, heading_block, merge_names, row_block

NESTED_MOST = 20
LONGEST_CELL = 4000
"""A cell with more text than this is a page's layout, not a value: its paragraphs are read one by one."""


def read(path: Path, report: Report) -> Document:
    with Package(path, report) as package:
        main = package.main_part("word/document.xml")
        root = package.xml(main)
        body = None if root is None else root.find(f"{W}body")
        story = _Story(package, main, report)
        blocks = [] if body is None else list(story.read_body(body))
        blocks += story.margins()
        properties = package.properties()
    title = story.title or properties.get("title", "")
    return Document("docx", tuple(blocks), title=title, properties=properties)


@dataclass(slots=True)
class _Paragraph:
    """One paragraph, understood."""

    found: Text
    style: Style
    label: str | None
    """Its number in a list or outline; "" for a bullet, None outside of lists."""
    depth: int = 0

    @property
    def text(self) -> str:
        text = self.found.text.strip()
        return f"{self.label} {text}" if self.label and text else text


class _Story:
    """Reads stories (body, header, note, ...); counts paragraphs and tables over all of them."""

    def __init__(self, package: Package, main: str, report: Report) -> None:
        self._package = package
        self._report = report
        self._relations = package.relations(main)
        styles = self._part("styles")
        self._styles = read_styles(styles)
        self._default_size = default_size(styles)
        self._visual: dict[Element, int] = {}
        self._numbering = Numbering(self._part("numbering"), self._styles)
        self._notes = {kind: self._read_notes(kind) for kind in ("footnote", "endnote", "comment")}
        self._headings = Headings()
        self._paragraphs = 0
        self._tables = 0
        self.title = ""

    def read_body(self, body: Element) -> Iterator[Block]:
        """The main story; where it marks no headings, those that its looks tell."""
        self._visual = visual_headings(body, self._styles, self._default_size)
        yield from self.read(body)

    def read(self, story: Element, part: str | None = None, depth: int = 0) -> Iterator[Block]:
        """The blocks of a story, in order."""
        code: list[str] = []
        place = Place()
        for element in paragraphs_in(story):
            self._report.tick()
            if element.tag != f"{W}p":
                yield from self._code(code, place)
                yield from self._table(element, part, depth) if element.tag == f"{W}tbl" else ()
                continue
            paragraph = self._paragraph(element)
            if not paragraph.text:
                yield from self._code(code, place)
                yield from self._attached(paragraph, self._place(part), depth)
                continue
            self._paragraphs += 1
            here = self._place(part)
            if self._is_code(paragraph):
                place = place if code else here
                code.append(paragraph.found.text.rstrip())
                continue
            yield from self._code(code, place)
            block = self._block(paragraph, here, self._visual.get(element))
            yield block
            yield from self._attached(paragraph, block.place, depth)
        yield from self._code(code, place)

    def margins(self) -> Iterator[Block]:
        """Headers and footers, each text once however many sections repeat it."""
        self._headings = Headings()
        seen: set[tuple[str, str]] = set()
        for kind, target in self._relations.values():
            if kind not in ("header", "footer"):
                continue
            root = self._package.side_xml(target)
            for block in () if root is None else self.read(root, kind):
                if (kind, block.text) not in seen:
                    seen.add((kind, block.text))
                    kept = BlockKind.TABLE_ROW if block.kind is BlockKind.TABLE_ROW else BlockKind.PARAGRAPH
                    yield msgspec.structs.replace(block, kind=kept, level=0)

    def _part(self, kind: str) -> Element | None:
        target = next(
            (target for each, target in self._relations.values() if each == kind), f"word/{kind}.xml"
        )
        return self._package.side_xml(target)

    def _read_notes(self, kind: str) -> dict[str, Element]:
        root = self._part(f"{kind}s")
        notes = () if root is None else root.iterchildren(f"{W}{kind}")
        return {each.get(f"{W}id", ""): each for each in notes if each.get(f"{W}type") in (None, "normal")}

    def _place(self, part: str | None) -> Place:
        # An empty paragraph with a picture belongs to the paragraph before it.
        return Place(paragraph=max(1, self._paragraphs), heading=self._headings.path, part=part)

    def _paragraph(self, element: Element) -> _Paragraph:
        properties = element.find(f"{W}pPr")
        style_id = None if properties is None else value(properties.find(f"{W}pStyle"))
        style = self._styles.get(style_id or "", self._styles[""])
        found = read_text(element, style, self._styles)
        outline = None if properties is None else integer(value(properties.find(f"{W}outlineLvl")))
        if outline is not None:
            style = _with_outline(style, outline)
        num_id, level = numbering_of(properties)
        own = num_id is not None
        if num_id is None:
            num_id = style.num_id
        if level is None:
            level = 0 if own else style.level
        if level is None:
            level = self._numbering.level_of_style(num_id or "", style_id or "")
        label = None
        # An empty list item shows no number, but Word counts it all the same.
        if num_id not in (None, "0") and not _is_deleted(properties):
            label = self._numbering.next(num_id or "", level)
        return _Paragraph(found, style, label, level)

    def _block(self, paragraph: _Paragraph, place: Place, visual: int | None) -> Block:
        style, text = paragraph.style, paragraph.text
        if style.is_title and place.part is None:
            self.title = self.title or text
            return heading_block(1, text, place, self._headings)
        if style.outline is not None and style.outline < 9 and len(text) < 400:
            if place.part is None:
                return heading_block(style.outline + 1, text, place, self._headings)
            return Block(BlockKind.PARAGRAPH, text, place)
        level = outline_level(text) if paragraph.label is None and place.part is None else None
        level = visual if level is None else level
        if level is not None and not style.is_contents:
            return heading_block(level, text, place, self._headings)
        if style.is_contents:
            place = msgspec.structs.replace(place, part="contents")
            return Block(BlockKind.LIST_ITEM, " ".join(text.split("\t")), place, level=1)
        if style.is_caption:
            return Block(BlockKind.CAPTION, text, place)
        if paragraph.label is not None:
            return Block(BlockKind.LIST_ITEM, text, place, level=paragraph.depth + 1)
        return Block(BlockKind.PARAGRAPH, text, place)

    def _is_code(self, paragraph: _Paragraph) -> bool:
        if paragraph.style.is_code:
            return True
        text = paragraph.found.text
        return paragraph.found.mono and paragraph.label is None and _looks_like_code(text)

    def _code(self, lines: list[str], place: Place) -> Iterator[Block]:
        if lines:
            yield Block(BlockKind.CODE, "\n".join(lines), place)
            lines.clear()

    def _attached(self, paragraph: _Paragraph, place: Place, depth: int) -> Iterator[Block]:
        """What hangs on a paragraph: text boxes, pictures, charts, notes, comments."""
        found = paragraph.found
        if depth < NESTED_MOST:
            for box in found.boxes:
                yield from self.read(box, place.part or "textbox", depth + 1)
        for text in found.pictures:
            yield Block(BlockKind.CAPTION, text, msgspec.structs.replace(place, part="picture"))
        for relation in found.parts:
            yield from self._drawing(relation, place)
        for kind, identity in found.notes:
            note = self._notes[kind].pop(identity, None)
            text = "" if note is None else self._note_text(note)
            if note is not None and text:
                author = (note.get(f"{W}author") or "").strip() if kind == "comment" else ""
                yield Block(
                    BlockKind.NOTE,
                    f"{author}: {text}" if author else text,
                    msgspec.structs.replace(place, part=kind),
                )

    def _note_text(self, note: Element) -> str:
        texts = (read_text(each, Style(), self._styles).text.strip() for each in note.iter(f"{W}p"))
        return "\n".join(text for text in texts if text)

    def _drawing(self, relation: str, place: Place) -> Iterator[Block]:
        kind, target = self._relations.get(relation, ("", ""))
        root = self._package.side_xml(target) if target else None
        if root is None:
            return
        if kind == "chart":
            yield from chart_blocks(root, msgspec.structs.replace(place, part="chart"))
        elif kind == "diagramData":
            for paragraph in root.iter(f"{A}p"):
                text = "".join(own_text(each) for each in paragraph.iter(f"{A}t")).strip()
                if text:
                    yield Block(BlockKind.PARAGRAPH, text, msgspec.structs.replace(place, part="diagram"))

    def _table(self, table: Element, part: str | None, depth: int) -> Iterator[Block]:
        if depth >= NESTED_MOST:
            self._report.warn(f"Tables nested more than {NESTED_MOST} deep were left out.")
            return
        if _is_layout(table):
            for cell in table.iter(f"{W}tc"):
                yield from self.read(cell, part, depth + 1)
                return
        self._tables += 1
        number = self._tables
        attached: list[_Paragraph] = []
        rows = read_rows(table, lambda cell: self._cell(cell, attached))
        titles, first = header_rows(rows)
        header = merge_names([row.spread for row in rows[titles:first]])
        for index, row in enumerate(rows, start=1):
            place = Place(table=number, row=index, heading=self._headings.path, part=part)
            if any(cell.strip() for cell in row.cells):
                yield row_block(row.cells, header if index > first else (), place)
            for nested in row.nested:
                yield from self._table(nested, part, depth + 1)
        for paragraph in attached:
            yield from self._attached(
                paragraph, Place(table=number, heading=self._headings.path, part=part), depth
            )

    def _cell(self, cell: Element, attached: list[_Paragraph]) -> Cell:
        texts: list[str] = []
        nested: list[Element] = []
        for element in paragraphs_in(cell):
            if element.tag == f"{W}tbl":
                nested.append(element)
            elif element.tag == f"{W}p":
                paragraph = self._paragraph(element)
                texts.append(paragraph.text)
                found = paragraph.found
                if found.boxes or found.notes or found.pictures or found.parts:
                    attached.append(paragraph)
        return Cell("\n".join(text for text in texts if text), nested)


def _is_layout(table: Element) -> bool:
    """A table of one cell is a frame around running text."""
    cells = 0
    for cell in table.iter(f"{W}tc"):
        cells += 1
        if cells > 1 and cell.getparent().getparent() is table:
            return False
    rows = sum(1 for _ in table.iterchildren(f"{W}tr"))
    return rows == 1 and cells >= 1


def _is_deleted(properties: Element | None) -> bool:
    return properties is not None and properties.find(f"{W}rPr/{W}del") is not None


def _looks_like_code(text: str) -> bool:
    """Typewriter type alone is a matter of taste; with the marks of code in it, it is code."""
    return (
        any(mark in text for mark in ("(", "{", "=", ";", "<", "#", "$ ", "//", "--", "::", "->"))
        or text[:1].isspace()
    )


def _with_outline(style: Style, outline: int) -> Style:
    return Style(style.name, outline, style.num_id, style.level, style.mono, style.hidden)
