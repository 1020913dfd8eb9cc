"""The tables on one sheet: a sheet is a plane of cells, and what stands apart on it is read apart.

Given rows of strings; returns blocks whose place names the cells. Blank rows divide; blank columns divide
what are two tables side by side, not a form whose labels and values stand apart. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from quinze.knowledge.document import Block, BlockKind, Place
from quinze.knowledge.readers.tables import is_value, looks_like_header, merge_names, row_block

Rows = Sequence[Sequence[str]]
Merged = Sequence[tuple[tuple[int, int], tuple[int, int]]]
"""((first row, first column), (last row, last column)) of merged cells, counted from 0."""
SIDE_BY_SIDE_ROWS = 20_000
"""Sheets longer than this are one table wide: looking for gaps between columns is for the laid out ones."""


@dataclass(frozen=True, slots=True)
class Region:
    """Rows top..bottom and columns left..right, inclusive, counted from 0."""

    top: int
    bottom: int
    left: int
    right: int


def column_name(index: int) -> str:
    """0 is A, 26 is AA."""
    name = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        name = chr(ord("A") + rest) + name
    return name


def cell_range(top: int, left: int, bottom: int, right: int) -> str:
    first, last = f"{column_name(left)}{top + 1}", f"{column_name(right)}{bottom + 1}"
    return first if first == last else f"{first}:{last}"


def sheet_blocks(
    rows: Rows, place: Place, merged: Merged = (), tick: Callable[[], None] = lambda: None
) -> Iterator[Block]:
    """Title lines as paragraphs, everything else as table rows, from the top of the sheet to its bottom."""
    above: _Table | None = None
    for region in regions(rows):
        table = _Table(rows, region, merged)
        # A blank line within a table does not end it: what follows has no names of its own.
        if not table.header and above is not None and above.header and above.columns == table.columns:
            table.header, table.title, table.names_end = above.header, above.title, region.top
        yield from table.blocks(place, tick)
        above = table


def regions(rows: Rows) -> Iterator[Region]:
    """The filled rectangles of a sheet, from top to bottom, then from left to right."""
    top: int | None = None
    for index in range(len(rows) + 1):
        filled = index < len(rows) and any(rows[index])
        if filled and top is None:
            top = index
        elif not filled and top is not None:
            yield from _parted(rows, _trimmed(rows, top, index - 1))
            top = None


def _trimmed(rows: Rows, top: int, bottom: int, left: int = 0, right: int | None = None) -> Region:
    first, last = -1, -1
    for index in range(top, bottom + 1):
        row = rows[index]
        stop = len(row) if right is None else min(len(row), right + 1)
        if first < 0 or any(row[left:first]):
            first = next((column for column in range(left, stop) if row[column]), first)
        if stop - 1 > last:
            last = next((column for column in range(stop - 1, last, -1) if row[column]), last)
    return Region(top, bottom, max(first, left), max(last, left))


def _parted(rows: Rows, region: Region) -> Iterator[Region]:
    """`region`, or the tables that stand side by side in it."""
    if region.right - region.left < 4 or region.bottom - region.top > SIDE_BY_SIDE_ROWS:
        yield region
        return
    used = [False] * (region.right + 1)
    for index in range(region.top, region.bottom + 1):
        for column, cell in enumerate(rows[index][: region.right + 1]):
            if cell:
                used[column] = True
    parts: list[tuple[int, int]] = []
    start: int | None = None
    for column in range(region.left, region.right + 2):
        if column <= region.right and used[column]:
            start = column if start is None else start
        elif start is not None:
            parts.append((start, column - 1))
            start = None
    sides = [_squeezed(rows, _trimmed(rows, region.top, region.bottom, left, right)) for left, right in parts]
    if len(sides) > 1 and all(_stands_alone(rows, side) for side in sides):
        for side in sides:
            yield from regions_within(rows, side)
    else:
        yield region


def regions_within(rows: Rows, region: Region) -> Iterator[Region]:
    """One side of a parted region, divided again at its own blank rows."""
    top: int | None = None
    for index in range(region.top, region.bottom + 2):
        filled = index <= region.bottom and any(rows[index][region.left : region.right + 1])
        if filled and top is None:
            top = index
        elif not filled and top is not None:
            yield _trimmed(rows, top, index - 1, region.left, region.right)
            top = None


def _squeezed(rows: Rows, region: Region) -> Region:
    top, bottom = region.top, region.bottom
    while top < bottom and not any(rows[top][region.left : region.right + 1]):
        top += 1
    while bottom > top and not any(rows[bottom][region.left : region.right + 1]):
        bottom -= 1
    return Region(top, bottom, region.left, region.right)


def _stands_alone(rows: Rows, region: Region) -> bool:
    if region.left == region.right or region.top == region.bottom:
        return False
    first = _slice(rows[region.top], region)
    if sum(map(bool, first)) == 1:
        return True
    return looks_like_header(
        first, [_slice(row, region) for row in rows[region.top + 1 : region.bottom + 1][:20]]
    )


def _slice(row: Sequence[str], region: Region) -> list[str]:
    cells = list(row[region.left : region.right + 1])
    return cells + [""] * (region.right + 1 - region.left - len(cells))


class _Table:
    """One region, understood: its title lines, the names of its columns, its rows."""

    def __init__(self, rows: Rows, region: Region, merged: Merged) -> None:
        self._rows = rows
        self._region = region
        self._below, self._right = _merges(rows, region, merged)
        width = region.right - region.left + 1
        used = [False] * width
        for index in range(region.top, region.bottom + 1):
            for column, cell in enumerate(rows[index][region.left : region.right + 1]):
                if cell:
                    used[column] = True
            if all(used):
                break
        self.columns = tuple(region.left + column for column in range(width) if used[column])
        self.titles = self._title_rows()
        self.title: tuple[str, ...] = tuple(
            str(next(cell for cell in self._cells(row) if cell)) for row in range(region.top, self.titles)
        )[-1:]
        self.names_end = self._names_end()
        self.header = merge_names([self._spread(row) for row in range(self.titles, self.names_end)])

    def blocks(self, place: Place, tick: Callable[[], None]) -> Iterator[Block]:
        region = self._region
        for index in range(region.top, region.bottom + 1):
            if not index % 256:
                tick()
            here = cell_range(index, region.left, index, region.right)
            cells = self._cells(index)
            if index < self.titles:
                text = str(next(cell for cell in cells if cell))
                column = region.left + next(
                    at for at, cell in enumerate(self._rows[index][region.left :]) if cell
                )
                yield Block(
                    BlockKind.PARAGRAPH,
                    text,
                    msgspec.structs.replace(place, cells=cell_range(index, column, index, column)),
                )
                continue
            heading = self.title if region.bottom > self.titles else ()
            header = self.header if index >= self.names_end else ()
            yield row_block(cells, header, msgspec.structs.replace(place, cells=here, heading=heading))

    def _cells(self, index: int) -> list[str]:
        row, length = self._rows[index], len(self._rows[index])
        return [
            (row[column] if column < length else "") or self._below.get((index, column), "")
            for column in self.columns
        ]

    def _spread(self, index: int) -> list[str]:
        row, length = self._rows[index], len(self._rows[index])
        return [
            (row[column] if column < length else "")
            or self._right.get((index, column), "")
            or self._below.get((index, column), "")
            for column in self.columns
        ]

    def _title_rows(self) -> int:
        """The first row that is no title: lines with one cell above a table with several columns."""
        region, at = self._region, self._region.top
        if len(self.columns) == 1:
            return at + (region.top == region.bottom)
        while at < region.bottom and sum(map(bool, self._rows[at][region.left : region.right + 1])) == 1:
            at += 1
        return at if at < region.bottom or at == region.top else region.top

    def _names_end(self) -> int:
        region, first = self._region, self.titles
        if first >= region.bottom:
            return first
        below = [self._cells(row) for row in range(first + 1, min(region.bottom, first + 20) + 1)]
        names = self._spread(first)
        if len(self.columns) == 1:
            headed = not is_value(names[0]) and all(is_value(row[0]) for row in below if row[0])
            return first + headed
        if all(row[0].rstrip().endswith((":", "：")) for row in (names, *below) if row[0]):
            return first
        if not looks_like_header(names, below):
            return first
        # A name that spans columns is divided by a second row of names.
        spans = any((first, column) in self._right for column in self.columns)
        second = first + 1
        if spans and second < region.bottom and not any(is_value(cell) for cell in self._spread(second)):
            return second + 1
        return second


def _merges(
    rows: Rows, region: Region, merged: Merged
) -> tuple[dict[tuple[int, int], str], dict[tuple[int, int], str]]:
    """(row, column) -> text, for the cells below and to the right of that which holds a merged text."""
    below: dict[tuple[int, int], str] = {}
    right: dict[tuple[int, int], str] = {}
    for (top, left), (bottom, last) in merged:
        if top < region.top or top > region.bottom or left > region.right or top >= len(rows):
            continue
        text = rows[top][left] if left < len(rows[top]) else ""
        if not text:
            continue
        for row in range(top + 1, min(bottom, region.bottom) + 1):
            below[row, left] = text
        for column in range(left + 1, min(last, region.right) + 1):
            for row in range(top, min(bottom, region.bottom) + 1):
                right[row, column] = text
    return below, right
