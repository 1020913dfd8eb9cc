"""What is common to the tables of every format: telling names of columns from values, and rows as blocks."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from quinze.knowledge.document import Block, BlockKind, Place

LONGEST_NAME = 120
_VALUE = re.compile(
    r"[\s(]*[-+−±~≈<>≤≥]?\s*[$€£¥￥]?\s*[\d][\d.,:/\-–\s年月日]*\s*([%‰]|[a-zA-Z°]{1,3}|万|亿|元)?[\s)]*$"
    r"|\d{4}-\d\d-\d\d|https?://|[\w.+-]+@[\w-]+\.|(true|false|yes|no|n/?a|-+|—+|–)$",
    re.IGNORECASE,
)
_YEAR = re.compile(r"(19|20)\d\d\s*年?$")


class Typed(str):
    """The text of a cell that its file holds as a number, a date or a truth, however it is written."""

    __slots__ = ()


def is_value(text: str) -> bool:
    """Whether a cell holds a value (a number, a date, an address) rather than words."""
    return bool(text) and (isinstance(text, Typed) or _VALUE.match(text.strip()) is not None)


def looks_like_header(first: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    """Whether the row `first` names the columns of the rows below it."""
    names = [name.strip() for name in first]
    filled = [name for name in names if name]
    if not below or len(set(filled)) < 2 or len(filled) * 3 < len(names) * 2:
        return False
    if any(len(name) > LONGEST_NAME or "\n" in name.strip() for name in filled[1:]):
        return False
    values = sum(is_value(name) and not _YEAR.match(name) for name in first if name.strip())
    if values == 0:
        return True
    # Numbers above numbers are data; a number among names ("2024", "Q1") may still be a name.
    typed = sum(is_value(cell) for row in below for cell in row if cell.strip())
    cells = sum(bool(cell.strip()) for row in below for cell in row)
    return values * 3 <= len(filled) and typed * 2 > cells


def merge_names(rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Several header rows as one: "2024 / Q1"."""
    width = max((len(row) for row in rows), default=0)
    names = []
    for column in range(width):
        parts = dict.fromkeys(
            row[column].strip() for row in rows if column < len(row) and row[column].strip()
        )
        names.append(" / ".join(parts))
    return tuple(names)


def row_block(cells: Sequence[str], header: Sequence[str], place: Place) -> Block:
    tidy = tuple(" ".join(cell.split()) for cell in cells)
    return Block(BlockKind.TABLE_ROW, " | ".join(tidy), place, cells=tidy, header=tuple(header))


class Headings:
    """The headings above the point that a reader has reached."""

    def __init__(self) -> None:
        self._open: list[tuple[int, str]] = []

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(text for _, text in self._open)

    def enter(self, level: int, text: str) -> None:
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        self._open.append((level, text))


def heading_block(level: int, text: str, place: Place, headings: Headings) -> Block:
    """A heading's own path ends with itself."""
    headings.enter(level, text)
    return Block(BlockKind.HEADING, text, msgspec.structs.replace(place, heading=headings.path), level=level)
