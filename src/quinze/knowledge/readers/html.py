"""Web pages: what a person came to read, without the frame around it.

Navigation, asides, footers, scripts, hidden elements and comments are passed over. Place: ordinal of the
paragraph, headings above it; in tables, table and row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from selectolax.lexbor import LexborHTMLParser, LexborNode

from quinze.knowledge.document import Block, BlockKind, Document, Place
from quinze.knowledge.readers import charset, html_tree
from quinze.knowledge.readers.html_tables import has_names, read_grid
from quinze.knowledge.readers.html_tree import BLOCKS, NEVER, inline_text, is_chrome, is_hidden, spaced
from quinze.knowledge.readers.report import Report
from quinze.knowledge.readers.tables import Headings, heading_block, merge_names, row_block

LONGEST_CELL = 2000
"""A cell with more text than this lays out a page: it is read as running text."""
_HEADINGS = {f"h{level}": level for level in range(1, 7)}


def read(path: Path, report: Report) -> Document:
    tree = html_tree.parse(charset.read_bytes(path, report.name, report.limits), report)
    reading = Reading(report)
    reading.read(tree)
    title = tree.css_first("head > title")
    return Document("html", tuple(reading.blocks), title=spaced(title.text()) if title is not None else "")


@dataclass(slots=True)
class _List:
    numbered: bool
    number: int = 0
    pending: str | None = None
    """What stands before the next text: "3." or "" at the beginning of an item, None within it."""


@dataclass(slots=True)
class _Open:
    """Where the walk stands: the elements that decide what a text is."""

    lists: list[_List] = field(default_factory=list)
    heading: int = 0
    term: str = ""
    caption: int = 0
    definition: int = 0


class Reading:
    """Turns pages into blocks; counts paragraphs and tables over all that are given to it."""

    def __init__(self, report: Report) -> None:
        self.blocks: list[Block] = []
        self.place = Place()
        self.headings = Headings()
        self.report = report
        self._paragraphs = 0
        self._tables = 0
        self._pieces: list[str] = []
        self._open = _Open()

    def begin(self, place: Place) -> None:
        """A new chapter: its place is that of all that follows, and no heading stands above it."""
        self.place = place
        self.headings = Headings()

    def read(self, tree: LexborHTMLParser) -> None:
        body = tree.body or tree.root
        if body is None:
            return
        before = len(self.blocks)
        self._walk(body, chrome=False)
        # A page that is nothing but asides and menus is read with them.
        if len(self.blocks) == before:
            self._walk(body, chrome=True)

    def _walk(self, root: LexborNode, *, chrome: bool) -> None:
        def passes(node: LexborNode) -> bool:
            tag = node.tag or ""
            if tag in NEVER or is_hidden(node) or (not chrome and is_chrome(node)):
                return True
            return self._reads_whole(node, tag)

        for node, entering in html_tree.walk(root, passes):
            tag = node.tag or ""
            if tag == "-text":
                self._pieces.append((node.text_content or "").replace("\n", " "))
            elif tag == "br" and entering:
                self._pieces.append("\n")
            elif tag in BLOCKS:
                if entering:
                    self._flush()
                    self._begin(node, tag)
                else:
                    self._end(tag)
        self._flush()

    def _reads_whole(self, node: LexborNode, tag: str) -> bool:
        """Whether the element was one to be dealt with as a whole, and has been."""
        if tag == "img":
            self._picture(node)
            return True
        if tag == "math":
            self._pieces.append(f" {node.attributes.get('alttext') or inline_text(node)} ")
            return True
        if tag == "pre":
            self._flush()
            self._code(node)
            return True
        if tag == "table":
            self._flush()
            return self._table(node)
        return False

    def _begin(self, node: LexborNode, tag: str) -> None:
        here = self._open
        if tag in _HEADINGS:
            here.heading = _HEADINGS[tag]
        elif tag in ("ul", "ol", "menu"):
            start = node.attributes.get("start") or "1"
            number = int(start) - 1 if start.lstrip("-").isdigit() and len(start) < 8 else 0
            here.lists.append(_List(tag == "ol", number))
        elif tag == "li" and here.lists:
            now = here.lists[-1]
            now.number += 1
            now.pending = f"{now.number}." if now.numbered else ""
        elif tag in ("figcaption", "caption"):
            here.caption += 1
        elif tag == "dl" and here.term:
            self._add(BlockKind.LIST_ITEM, here.term, level=1)
            here.term = ""
        elif tag == "dd":
            here.definition += 1

    def _end(self, tag: str) -> None:
        here = self._open
        if tag == "dt":
            # A term waits for what defines it; several terms may share a definition.
            text = " ".join(self._lines())
            self._pieces.clear()
            here.term = ", ".join(filter(None, (here.term, text)))
            return
        self._flush()
        if tag in _HEADINGS:
            here.heading = 0
        elif tag in ("ul", "ol", "menu") and here.lists:
            here.lists.pop()
        elif tag in ("figcaption", "caption"):
            here.caption = max(0, here.caption - 1)
        elif tag == "dd":
            here.definition = max(0, here.definition - 1)
            here.term = ""
        elif tag == "dl" and here.term:
            self._add(BlockKind.LIST_ITEM, here.term, level=1)
            here.term = ""

    def _flush(self) -> None:
        if not self._pieces:
            return
        text = "\n".join(self._lines())
        self._pieces.clear()
        if not text:
            return
        here = self._open
        if here.heading:
            place = msgspec.structs.replace(self.place, paragraph=self._count())
            self.blocks.append(heading_block(here.heading, text.replace("\n", " "), place, self.headings))
        elif here.caption:
            self._add(BlockKind.CAPTION, text)
        elif here.definition:
            self._add(BlockKind.LIST_ITEM, f"{here.term}: {text}" if here.term else text, level=1)
            here.term = ""
        elif here.lists:
            now = here.lists[-1]
            label, now.pending = now.pending, None
            self._add(
                BlockKind.LIST_ITEM, f"{label} {text}".strip() if label else text, level=len(here.lists)
            )
        else:
            self._add(BlockKind.PARAGRAPH, text)

    def _lines(self) -> list[str]:
        """The text gathered so far, spaced as a browser would; only <br> breaks a line."""
        return list(filter(None, map(spaced, "".join(self._pieces).split("\n"))))

    def _count(self) -> int:
        self.report.tick()
        self._paragraphs += 1
        return self._paragraphs

    def _add(self, kind: BlockKind, text: str, *, level: int = 0, part: str | None = None) -> None:
        place = msgspec.structs.replace(
            self.place, paragraph=self._count(), heading=self.headings.path, part=part or self.place.part
        )
        self.blocks.append(Block(kind, text, place, level=level))

    def _picture(self, node: LexborNode) -> None:
        text = html_tree.alternative_text(node)
        if len(text) < 3:
            self._pieces.append(text)
        elif not text.lower().endswith((".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp")):
            pieces, self._pieces = self._pieces, []
            self._add(BlockKind.CAPTION, text, part="picture")
            self._pieces = pieces

    def _code(self, node: LexborNode) -> None:
        text = _preformatted(node).strip("\n").rstrip()
        if text.strip():
            self._add(BlockKind.CODE, text)

    def _table(self, node: LexborNode) -> bool:
        """Whether it was a table of data; one that lays out a page is walked like any other element."""
        if (node.attributes.get("role") or "") in ("presentation", "none"):
            return False
        if node.css_first("table table") is not None and not has_names(node):
            return False
        grid = read_grid(node, inline_text)
        filled = [row for row in grid.rows if any(row)]
        if max((len(row) for row in grid.rows), default=0) < 2 or (len(filled) < 2 and grid.header == 0):
            return False
        if any(len(cell) > LONGEST_CELL for row in filled for cell in row):
            return False
        self._tables += 1
        caption = node.css_first("caption")
        if caption is not None and (text := inline_text(caption)):
            self._add(BlockKind.CAPTION, text)
        header = merge_names(grid.spread[: grid.header])
        for number, row in enumerate(grid.rows, start=1):
            if any(row):
                place = msgspec.structs.replace(
                    self.place, table=self._tables, row=number, heading=self.headings.path
                )
                self.blocks.append(row_block(row, header if number > grid.header else (), place))
        self.report.tick()
        return True


def _preformatted(root: LexborNode) -> str:
    pieces: list[str] = []
    for node, entering in html_tree.walk(root, lambda each: each.tag in NEVER or is_hidden(each)):
        if node.tag == "-text":
            pieces.append(node.text_content or "")
        elif node.tag == "br" and entering:
            pieces.append("\n")
    return "".join(pieces)
