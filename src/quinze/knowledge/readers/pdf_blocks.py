"""From the lines of all pages to blocks: paragraphs, headings, lists, captions, code, table rows.

Given pages as pdf.py reads them. Knows nothing of PDFium.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from quinze.knowledge.document import Block, BlockKind, Box, Place
from quinze.knowledge.readers.pdf_breaks import mend, nest
from quinze.knowledge.readers.pdf_chrome import find_chrome
from quinze.knowledge.readers.pdf_columns import Line, table_stretches
from quinze.knowledge.readers.pdf_glyphs import Frame
from quinze.knowledge.readers.pdf_headings import CAPTION, Style, heading_level, read_style
from quinze.knowledge.readers.pdf_layout import BULLET, Paragraph, is_item, join_lines, read_paragraphs
from quinze.knowledge.readers.pdf_notes import Note
from quinze.knowledge.readers.pdf_tables import Table, aligned_table

LONGEST_CAPTION = 600

_FOOTNOTE = re.compile(r"^(\d{1,3}|[*†‡§]|\[\d{1,3}\]|[①-⑳])\s*\S")

Path = list[tuple[int, str]]
"""The headings above: (level, title), outermost first."""


@dataclass(slots=True)
class PageContent:
    """One page, read: its lines by the quarter turns of their text, and what else it holds."""

    number: int
    frame: Frame
    lines: dict[int, list[Line]] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    ocr: list[Block] = field(default_factory=list)

    @property
    def main(self) -> int:
        """The turns of the running text."""
        return max(self.lines, key=lambda turns: sum(len(line.text) for line in self.lines[turns]), default=0)

    @property
    def running(self) -> list[Line]:
        return self.lines.get(self.main, [])

    def upright(self, turns: int) -> Frame:
        return Frame(self.frame.width, self.frame.height, turns % 4)

    @property
    def height(self) -> float:
        """Of the page as its running text stands."""
        return self.frame.width if self.main % 2 else self.frame.height


def build_blocks(pages: Sequence[PageContent], outline: Mapping[tuple[int, str], int]) -> list[Block]:
    """All blocks of the document in reading order."""
    style = read_style([line for page in pages for line in page.running if line.table is None], outline)
    if not style.mono_is_rare:  # a typescript, a receipt: nothing in it is code
        for page in pages:
            for line in page.running:
                line.mono = False
    chrome = find_chrome([(page.height, page.running) for page in pages])
    blocks: list[Block] = []
    path: Path = []
    for page, marked in zip(pages, chrome, strict=True):
        blocks.extend(_chrome(page, marked, "header"))
        blocks.extend(_running(page, marked, style, path))
        blocks.extend(_chrome(page, marked, "footer"))
        blocks.extend(_aside(page, style))
        # What a picture says stands below the heading that was last above it.
        blocks.extend(_below(block, path, len(page.tables)) for block in page.ocr)
        blocks.extend(_notes(page, path))
    return nest(mend(blocks, style.words))


def _chrome(page: PageContent, marked: Mapping[int, str], part: str) -> Iterator[Block]:
    edge = [line for line in page.running if marked.get(id(line)) == part]
    if edge:
        text = join_lines([line.text for line in sorted(edge, key=lambda line: line.baseline)])
        place = Place(page=page.number, part=part, boxes=(_box(edge, page.upright(page.main)),))
        yield Block(BlockKind.PARAGRAPH, text, place)


def _running(page: PageContent, marked: Mapping[int, str], style: Style, path: Path) -> Iterator[Block]:
    for is_table, lines in table_stretches([line for line in page.running if id(line) not in marked]):
        if is_table:
            page.tables.append(aligned_table(lines))
            yield from _table_rows(page, len(page.tables) - 1, _titles(path))
            continue
        for paragraph in read_paragraphs(lines, style.body):
            if paragraph.first.table is not None:
                yield from _table_rows(page, paragraph.first.table, _titles(path))
            else:
                yield from _paragraph(paragraph, page, style, path)


def _paragraph(paragraph: Paragraph, page: PageContent, style: Style, path: Path) -> Iterator[Block]:
    text = join_lines([line.text for line in paragraph.lines], style.words)
    if not any(c.isalnum() for c in text):
        return  # rules, dots, boxes
    boxes = (_box(paragraph.lines, page.upright(page.main)),)
    level = heading_level(paragraph, text, page.number, style)
    if level:
        while path and path[-1][0] >= level:
            path.pop()
        place = Place(page=page.number, heading=_titles(path), boxes=boxes)
        path.append((level, text))
        yield Block(BlockKind.HEADING, text, place, level=level)
        return
    place = Place(page=page.number, heading=_titles(path), boxes=boxes)
    if CAPTION.match(text) and len(text) < LONGEST_CAPTION:
        yield Block(BlockKind.CAPTION, text, place)
    elif paragraph.mono and style.mono_is_rare and len(paragraph.lines) > 1:
        yield Block(BlockKind.CODE, _code(paragraph.lines), place)
    elif _is_footnote(paragraph, text, page, style):
        place = Place(page=page.number, part="footnote", heading=_titles(path), boxes=boxes)
        yield Block(BlockKind.NOTE, text, place)
    elif is_item(text):
        yield Block(BlockKind.LIST_ITEM, BULLET.sub("", text), place, level=1)
    else:
        yield Block(BlockKind.PARAGRAPH, text, place)


def _aside(page: PageContent, style: Style) -> Iterator[Block]:
    """Text that stands sideways to the running text, or at a slant."""
    for turns, lines in sorted(page.lines.items()):
        if turns == page.main:
            continue
        part = "watermark" if turns == 4 else "sideways"
        for paragraph in read_paragraphs(lines, style.body):
            text = join_lines([line.text for line in paragraph.lines], style.words)
            place = Place(page=page.number, part=part, boxes=(_box(paragraph.lines, page.upright(turns)),))
            yield Block(BlockKind.PARAGRAPH, text, place)


def _below(block: Block, path: Path, tables: int) -> Block:
    table = block.place.table + tables if block.place.table is not None else None
    place = msgspec.structs.replace(block.place, heading=_titles(path) + block.place.heading, table=table)
    return msgspec.structs.replace(block, place=place)


def _notes(page: PageContent, path: Path) -> Iterator[Block]:
    for note in page.notes:
        boxes = (note.box,) if note.box else ()
        place = Place(page=page.number, part=note.part, boxes=boxes, heading=_titles(path))
        yield Block(BlockKind.NOTE, note.text, place)


def _titles(path: Path) -> tuple[str, ...]:
    return tuple(title for _, title in path)


def _box(lines: Sequence[Line], frame: Frame) -> Box:
    return frame.box(
        min(line.x0 for line in lines),
        min(line.y0 for line in lines),
        max(line.x1 for line in lines),
        max(line.y1 for line in lines),
    )


def _is_footnote(paragraph: Paragraph, text: str, page: PageContent, style: Style) -> bool:
    return (
        paragraph.size <= 0.92 * style.body
        and paragraph.first.y0 > 0.6 * page.height
        and bool(_FOOTNOTE.match(text))
    )


def _code(lines: Sequence[Line]) -> str:
    """Lines of fixed pitch as they stand: indents and empty lines kept."""
    left, size = min(line.x0 for line in lines), lines[0].size
    steps = [b.baseline - a.baseline for a, b in itertools.pairwise(lines)]
    usual = min((step for step in steps if step > 0.5 * size), default=1.2 * size)
    text: list[str] = []
    for line, step in zip(lines, [usual, *steps], strict=True):
        text.extend([""] * (min(3, round(step / usual)) - 1))
        text.append(" " * round((line.x0 - left) / (0.6 * size)) + line.text.replace("\u00ad", "-"))
    return "\n".join(text)


def _table_rows(page: PageContent, number: int, heading: tuple[str, ...]) -> Iterator[Block]:
    frame = page.upright(page.main)
    table = page.tables[number]
    header = tuple(table.rows[0].cells) if table.has_header else ()
    for at, row in enumerate(table.rows, 1):
        cells = tuple(row.cells)
        place = Place(
            page=page.number,
            table=number + 1,
            row=at,
            heading=heading,
            boxes=(frame.box(row.x0, row.y0, row.x1, row.y1),),
        )
        text = " | ".join(cells)
        yield Block(BlockKind.TABLE_ROW, text, place, cells=cells, header=() if at == 1 else header)


def first_title(blocks: Sequence[Block]) -> str:
    """The outermost heading of the first page, where there is one."""
    headings = [b for b in blocks[:40] if b.kind is BlockKind.HEADING and b.place.page in (1, 2)]
    return min(headings, key=lambda b: b.level).text if headings else ""
