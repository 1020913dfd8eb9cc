"""From the lines of all pages to blocks: paragraphs, headings with their paths, lists, captions, code, table rows.

What is a heading is told by the whole document: its usual font size, how rare bold is in it, and its outline.
Given pages as pdf.py reads them. Knows nothing of PDFium.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from quinze.knowledge.document import Block, BlockKind, Box, Place
from quinze.knowledge.readers.pdf_chrome import find_chrome
from quinze.knowledge.readers.pdf_glyphs import Frame
from quinze.knowledge.readers.pdf_layout import (
    BULLET,
    Line,
    Paragraph,
    is_item,
    join_lines,
    read_paragraphs,
    table_stretches,
)
from quinze.knowledge.readers.pdf_notes import Note
from quinze.knowledge.readers.pdf_tables import Table, aligned_table

LARGER = 1.12
"""A heading's size over that of the running text."""

LONGEST_HEADING = 160

_CAPTION = re.compile(
    r"^(?i:figure|fig\.|table|tab\.|exhibit|listing|chart|abbildung|abb\.|图表?|表|圖)\s*(\d|[A-Z]?[.-]?\d|[一二三四五六七八九十]+[\s:：])"
)
_CHAPTER = re.compile(r"^第[一二三四五六七八九十百零\d]+([编章])|^第[一二三四五六七八九十百零\d]+([节節])")
_FOOTNOTE = re.compile(r"^(\d{1,3}|[*†‡§]|\[\d{1,3}\]|[①-⑳])\s*\S")


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


@dataclass(frozen=True, slots=True)
class Style:
    """What the whole document tells about its type."""

    body: float
    bold_is_rare: bool
    mono_is_rare: bool
    sizes: tuple[float, ...]
    """Font sizes of headings, largest first."""
    words: frozenset[str]
    outline: Mapping[tuple[int, str], int]
    """(page, title without blanks) -> level"""


def build_blocks(pages: Sequence[PageContent], outline: Mapping[tuple[int, str], int]) -> list[Block]:
    """All blocks of the document in reading order."""
    style = _style(pages, outline)
    chrome = find_chrome([(_height(page), page.lines.get(page.main, [])) for page in pages])
    blocks: list[Block] = []
    path: list[tuple[int, str]] = []
    for page, marked in zip(pages, chrome, strict=True):
        blocks.extend(_page_blocks(page, marked, style, path))
    return blocks


def _height(page: PageContent) -> float:
    return page.frame.width if page.main % 2 and page.main < 4 else page.frame.height


def _style(pages: Sequence[PageContent], outline: Mapping[tuple[int, str], int]) -> Style:
    sizes: Counter[float] = Counter()
    bold = mono = letters = 0
    words: set[str] = set()
    lines = [line for page in pages for line in page.lines.get(page.main, []) if line.table is None]
    for line in lines:
        length = len(line.text)
        sizes[_rounded(line.size)] += length
        letters += length
        bold += length if line.bold else 0
        mono += length if line.mono else 0
        words.update(re.findall(r"\w+(?:-\w+)*", line.text.lower()))
    body = sizes.most_common(1)[0][0] if sizes else 10.0
    if mono > 0.6 * letters:
        for line in lines:
            line.mono = False
    larger: list[float] = []
    for size in sorted({_rounded(line.size) for line in lines if line.size >= LARGER * body}, reverse=True):
        if not larger or size < 0.93 * larger[-1]:
            larger.append(size)
    return Style(body, bold < 0.4 * letters, mono <= 0.6 * letters, tuple(larger), frozenset(words), outline)


def _rounded(size: float) -> float:
    return round(2 * size) / 2


def _page_blocks(
    page: PageContent, marked: Mapping[int, str], style: Style, path: list[tuple[int, str]]
) -> Iterator[Block]:
    main = page.lines.get(page.main, [])
    frame = Frame(page.frame.width, page.frame.height, page.main % 4)
    for part in ("header", "footer"):
        edge = [line for line in main if marked.get(id(line)) == part]
        if part == "footer":
            for is_table, lines in table_stretches([line for line in main if id(line) not in marked]):
                if is_table:
                    page.tables.append(aligned_table(lines))
                    heading = tuple(title for _, title in path)
                    yield from _table_rows(page, len(page.tables) - 1, frame, heading)
                    continue
                for paragraph in read_paragraphs(lines, style.body):
                    yield from _blocks(paragraph, page, frame, style, path)
        if edge:
            text = join_lines([line.text for line in sorted(edge, key=lambda line: line.baseline)])
            place = Place(page=page.number, part=part, boxes=(_box(edge, frame),))
            yield Block(BlockKind.PARAGRAPH, text, place)
    heading = tuple(title for _, title in path)
    for turns, lines in sorted(page.lines.items()):
        if turns == page.main:
            continue
        # 4 is what stands at a slant: stamps and watermarks, each by itself.
        aside = Frame(page.frame.width, page.frame.height, turns % 4)
        part = "watermark" if turns == 4 else "sideways"
        for paragraph in read_paragraphs(lines, style.body):
            text = join_lines([line.text for line in paragraph.lines], style.words)
            place = Place(page=page.number, part=part, boxes=(_box(paragraph.lines, aside),))
            yield Block(BlockKind.PARAGRAPH, text, place)
    yield from page.ocr
    for note in page.notes:
        boxes = (note.box,) if note.box else ()
        place = Place(page=page.number, part=note.part, boxes=boxes, heading=heading)
        yield Block(BlockKind.NOTE, note.text, place)


def _box(lines: Sequence[Line], frame: Frame) -> Box:
    return frame.box(
        min(line.x0 for line in lines),
        min(line.y0 for line in lines),
        max(line.x1 for line in lines),
        max(line.y1 for line in lines),
    )


def _blocks(
    paragraph: Paragraph, page: PageContent, frame: Frame, style: Style, path: list[tuple[int, str]]
) -> Iterator[Block]:
    first = paragraph.first
    if first.table is not None:
        yield from _table_rows(page, first.table, frame, tuple(title for _, title in path))
        return
    text = join_lines([line.text for line in paragraph.lines], style.words)
    if not any(c.isalnum() for c in text):
        return  # rules, dots, boxes
    boxes = (_box(paragraph.lines, frame),)
    level = _heading_level(paragraph, text, page.number, style)
    if level:
        while path and path[-1][0] >= level:
            path.pop()
        place = Place(page=page.number, heading=tuple(title for _, title in path), boxes=boxes)
        path.append((level, text))
        yield Block(BlockKind.HEADING, text, place, level=level)
        return
    place = Place(page=page.number, heading=tuple(title for _, title in path), boxes=boxes)
    if _CAPTION.match(text) and len(text) < 600:
        yield Block(BlockKind.CAPTION, text, place)
    elif paragraph.mono and style.mono_is_rare and len(paragraph.lines) > 1:
        yield Block(BlockKind.CODE, _code(paragraph.lines), place)
    elif _is_footnote(paragraph, text, frame, page, style):
        place = Place(page=page.number, part="footnote", heading=place.heading, boxes=boxes)
        yield Block(BlockKind.NOTE, text, place)
    elif is_item(text):
        yield Block(BlockKind.LIST_ITEM, BULLET.sub("", text), place, level=1)
    else:
        yield Block(BlockKind.PARAGRAPH, text, place)


def _heading_level(paragraph: Paragraph, text: str, page: int, style: Style) -> int:
    """1 is the outermost; 0: no heading."""
    key = outline_key(text)
    for number in (page, page - 1, page + 1):
        if (number, key) in style.outline:
            return style.outline[number, key]
    letters = sum(c.isalpha() for c in text)
    if letters < 2 or len(text) > LONGEST_HEADING or len(paragraph.lines) > 3 or _CAPTION.match(text):
        return 0
    if letters < 0.4 * len(text.replace(" ", "")):
        return 0
    chapter = _CHAPTER.match(text)
    if chapter and len(text) <= 40 and text[-1] not in "。；，" and len(paragraph.lines) == 1:
        return 1 if chapter.group(1) else 2
    if BULLET.match(text) or (text[-1] in ".,;，；、" and not style.outline and len(text) > 60):
        return 0
    if paragraph.size >= LARGER * style.body:
        if text[-1] in ".。" and len(paragraph.lines) > 1:
            return 0
        if paragraph.size < 1.5 * style.body and (_has_cells(paragraph) or len(paragraph.lines) > 2):
            return 0
        sizes = [size for size in style.sizes if size >= LARGER * style.body]
        at = min(range(len(sizes)), key=lambda i: abs(sizes[i] - paragraph.size)) if sizes else 0
        return min(6, at + 1)
    if (
        paragraph.bold
        and style.bold_is_rare
        and paragraph.size >= 0.95 * style.body
        and len(paragraph.lines) <= 2
        and len(text) <= 100
        and text[-1] not in (".,;。；，" if paragraph.size > 1.04 * style.body else ".:,;。：；，")
        and not _has_cells(paragraph)
    ):
        return min(6, len(style.sizes) + 1)
    return 0


def _has_cells(paragraph: Paragraph) -> bool:
    """Pieces far apart on one line: a row of something, not a title."""
    for line in paragraph.lines:
        runs = sorted(line.runs, key=lambda run: run.x0)
        if any(b.x0 - a.x1 > 2 * line.size for a, b in zip(runs, runs[1:], strict=False)):
            return True
    return False


def outline_key(title: str) -> str:
    """A title without blanks, dots and its number: outlines and pages write those differently."""
    return re.sub(r"[\s.·…]+", "", re.sub(r"^\s*(\d+(\.\d+)*\.?|[A-Z]\.)\s+", "", title)).casefold()


def _is_footnote(paragraph: Paragraph, text: str, frame: Frame, page: PageContent, style: Style) -> bool:
    return (
        paragraph.size <= 0.92 * style.body
        and paragraph.first.y0 > 0.6 * _height(page)
        and bool(_FOOTNOTE.match(text))
    )


def _code(lines: Sequence[Line]) -> str:
    """Lines of fixed pitch as they stand: indents and empty lines kept."""
    left, size = min(line.x0 for line in lines), lines[0].size
    steps = [b.baseline - a.baseline for a, b in zip(lines, lines[1:], strict=False)]
    usual = min((step for step in steps if step > 0.5 * size), default=1.2 * size)
    text: list[str] = []
    for line, step in zip(lines, [usual, *steps], strict=True):
        text.extend([""] * (min(3, round(step / usual)) - 1))
        text.append(" " * round((line.x0 - left) / (0.6 * size)) + line.text.replace("\u00ad", "-"))
    return "\n".join(text)


def _table_rows(page: PageContent, number: int, frame: Frame, heading: tuple[str, ...]) -> Iterator[Block]:
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
