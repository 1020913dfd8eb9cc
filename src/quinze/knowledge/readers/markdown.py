"""Markdown: headings, lists, tables, code and paragraphs, each with its lines; formatting is left out.

HTML within it is read as a browser would show it, comments are not. Front matter becomes properties.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from markdown_it import MarkdownIt
from markdown_it.token import Token

from quinze.knowledge.document import Block, BlockKind, Document, Place
from quinze.knowledge.readers import charset, html, html_tree
from quinze.knowledge.readers.report import Report
from quinze.knowledge.readers.tables import Headings, heading_block, row_block
from quinze.knowledge.readers.text import joined

_FRONT = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FIELD = re.compile(r"([A-Za-z][\w -]{0,40}):\s+(.{1,1000})$", re.MULTILINE)
_TASK = re.compile(r"^\[([ xX])\]\s+")
_UNREAD = re.compile(r"<(/?)(?:script|style|template)\b", re.IGNORECASE)
_SHOWN = {"softbreak": "\r", "hardbreak": "\n"}
_WORDS = frozenset(("text", "code_inline", "image"))
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)


def read(path: Path, report: Report) -> Document:
    text = charset.read_text(path, report)
    properties: dict[str, str] = {}
    skipped = 0
    if (front := _FRONT.match(text)) is not None:
        properties = {
            name.strip().lower(): value.strip().strip("\"'") for name, value in _FIELD.findall(front[1])
        }
        skipped = front[0].count("\n")
        text = text[front.end() :]
    reading = Reading(report, skipped)
    reading.read(text)
    title = properties.get("title", "") or reading.title
    return Document("markdown", tuple(reading.blocks), title=title, properties=properties)


@dataclass(slots=True)
class _Table:
    number: int
    header: tuple[str, ...] = ()
    row: int = 0
    in_head: bool = False
    cells: list[str] = field(default_factory=list)


class Reading:
    """Turns Markdown into blocks; counts tables and remembers headings over all that it is given."""

    def __init__(self, report: Report, skipped: int = 0) -> None:
        self.blocks: list[Block] = []
        self.title = ""
        self._report = report
        self._skipped = skipped
        self.headings = Headings()
        self._lists: list[int | None] = []
        """Of each open list its next number; None for bullets."""
        self._label: str | None = None
        self._table: _Table | None = None
        self._tables = 0

    def read(self, text: str) -> None:
        tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
        lines = (1, 1)
        for index, token in enumerate(tokens):
            if token.map is not None:
                lines = (token.map[0] + 1 + self._skipped, max(token.map) + self._skipped)
            self._report.tick()
            if token.type == "inline":
                self._text(token, tokens[index - 1], lines)
            elif token.type in ("fence", "code_block"):
                self._add(BlockKind.CODE, token.content.rstrip("\n"), lines)
            elif token.type == "html_block":
                self._html(token.content, lines)
            else:
                self._structure(token, lines)

    def _structure(self, token: Token, lines: tuple[int, int]) -> None:
        kind = token.type
        if kind in ("bullet_list_open", "ordered_list_open"):
            self._lists.append(None if kind[0] == "b" else int(token.attrGet("start") or 1))
        elif kind in ("bullet_list_close", "ordered_list_close"):
            self._lists.pop()
        elif kind == "list_item_open":
            number = self._lists[-1]
            self._label = "" if number is None else f"{number}{token.markup or '.'}"
            if number is not None:
                self._lists[-1] = number + 1
        elif kind == "table_open":
            self._tables += 1
            self._table = _Table(self._tables)
        elif self._table is not None:
            self._table_part(kind, self._table, lines)

    def _table_part(self, kind: str, table: _Table, lines: tuple[int, int]) -> None:
        if kind == "table_close":
            self._table = None
        elif kind in ("thead_open", "thead_close"):
            table.in_head = kind == "thead_open"
        elif kind == "tr_open":
            table.row += 1
            table.cells = []
        elif kind == "tr_close":
            self._row(table, lines)

    def _row(self, table: _Table, lines: tuple[int, int]) -> None:
        if any(table.cells):
            place = Place(table=table.number, row=table.row, lines=lines, heading=self.headings.path)
            self.blocks.append(row_block(table.cells, () if table.in_head else table.header, place))
        if table.in_head:
            table.header = tuple(" ".join(cell.split()) for cell in table.cells)

    def _text(self, token: Token, opened: Token, lines: tuple[int, int]) -> None:
        text = plain(token)
        if self._table is not None:
            self._table.cells.append(text)
        elif not text:
            return
        elif opened.type == "heading_open":
            level = int(opened.tag[1])
            if level == 1 and not self.title:
                self.title = text
            self.blocks.append(
                heading_block(level, text.replace("\n", " "), Place(lines=lines), self.headings)
            )
        elif self._lists:
            text = _TASK.sub(lambda match: "☐ " if match[1] == " " else "☒ ", text)
            label, self._label = self._label, None
            self._add(BlockKind.LIST_ITEM, f"{label} {text}" if label else text, lines, len(self._lists))
        else:
            self._add(BlockKind.PARAGRAPH, text, lines)

    def _html(self, content: str, lines: tuple[int, int]) -> None:
        reading = html.Reading(self._report)
        reading.read(html_tree.parse(content.encode("utf-8", "replace"), self._report))
        for block in reading.blocks:
            if block.kind is BlockKind.HEADING:
                self.blocks.append(heading_block(block.level, block.text, Place(lines=lines), self.headings))
                continue
            table = None if block.place.table is None else self._tables + block.place.table
            place = Place(
                lines=lines,
                heading=self.headings.path,
                table=table,
                row=block.place.row,
                part=block.place.part,
            )
            self.blocks.append(msgspec.structs.replace(block, place=place))
        self._tables += max((block.place.table or 0 for block in reading.blocks), default=0)

    def _add(self, kind: BlockKind, text: str, lines: tuple[int, int], level: int = 0) -> None:
        if text.strip():
            place = Place(lines=lines, heading=self.headings.path)
            self.blocks.append(Block(kind, text, place, level=level))


def plain(token: Token) -> str:
    """What a reader sees of a line of Markdown."""
    text = "".join(_pieces(token.children or ()))
    lines = text.split("\n")
    # A line that ends within a paragraph is a space; the marks of hard breaks were kept apart.
    return "\n".join(" ".join(joined(part.split("\r")).split()) for part in lines).strip()


def _pieces(children: Sequence[Token]) -> Iterator[str]:
    hidden = 0
    for child in children:
        if child.type == "html_inline":
            tag = _UNREAD.match(child.content)
            if tag is not None:
                hidden = max(0, hidden + (-1 if tag[1] else 1))
            elif _BREAK.match(child.content):
                yield "\n"
        elif not hidden:
            yield _SHOWN.get(child.type) or (child.content if child.type in _WORDS else "")
