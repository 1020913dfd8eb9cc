"""Tables of a PDF page: liteparse says where they are, PDFium's glyphs fill them, and both must agree.

Given a file and the runs of its pages; returns tables as rows of cells, each with its box. A table whose
characters the two do not read alike is no table to us: its text stays in the reading order of pdf_columns.py.
"""

from __future__ import annotations

import itertools
import statistics
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quinze.knowledge.readers.pdf_columns import Line, assign_columns, line_cells, read_lines
from quinze.knowledge.readers.pdf_glyphs import Run
from quinze.knowledge.readers.pdf_layout import join_lines

LONGEST_CELL = 300
"""Longer "cells" are columns of running text."""

MEAN_CELL = 70

PAGES_AT_ONCE = 64


@dataclass(slots=True)
class Row:
    cells: list[str]
    x0: float
    y0: float
    x1: float
    y1: float
    bold: bool


@dataclass(slots=True)
class Table:
    rows: list[Row]
    has_header: bool
    x0: float
    y0: float
    x1: float
    y1: float
    lines: list[Line] = field(default_factory=list)
    """Where it was made of lines: one a row."""
    strays: list[Run] = field(default_factory=list)
    """Printed over it, and no part of it."""

    def holds(self, run: Run) -> bool:
        if any(run is stray for stray in self.strays):
            return False
        x, y = (run.x0 + run.x1) / 2, (run.y0 + run.y1) / 2
        return self.x0 - 1 <= x <= self.x1 + 1 and self.y0 - 1 <= y <= self.y1 + 1


class TableFinder:
    """liteparse over one file, a few pages at a time."""

    def __init__(self, path: Path, pages: int) -> None:
        self._path = path
        self._pages = pages
        self._first = 0
        self._found: dict[int, Any] = {}
        self._dead = False

    def tables(self, page: int, width: float, height: float, runs: Sequence[Run]) -> list[Table]:
        """The tables of page `page` (from 1), whose seen size is `width` x `height` points."""
        parsed = self._page(page)
        if parsed is None or abs(parsed.width - width) > 2 or abs(parsed.height - height) > 2:
            return []
        found: list[Table] = []
        for block in parsed.blocks or []:
            if block.kind == "table" and block.bbox is not None:
                table = _table(block, runs)
                if table is not None:
                    found.append(table)
        return found

    def _page(self, page: int) -> Any:
        if page not in self._found and not self._dead:
            from liteparse import LiteParse

            last = min(self._pages, page + PAGES_AT_ONCE - 1)
            parser = LiteParse(
                ocr_enabled=False,
                quiet=True,
                extract_blocks=True,
                continue_on_page_error=True,
                num_workers=1,
                target_pages=f"{page}-{last}",
            )
            try:
                self._found = {p.page_num: p for p in parser.parse(str(self._path)).pages}
            except Exception:  # noqa: BLE001 -- a stranger's parser; without it there are no tables, no more
                self._dead = True
                self._found = {}
            for number in range(page, last + 1):
                self._found.setdefault(number, None)
        return self._found.get(page)


def without_straddlers(tables: Sequence[Table], columns: Sequence[Sequence[Run]]) -> list[Table]:
    """The tables, without those made of neighbouring lines of two columns of text, a part of each."""
    kept = []
    for table in tables:
        touched = [column for column in columns if any(table.holds(run) for run in column)]
        inside = sum(table.holds(run) for column in touched for run in column)
        if len(touched) < 2 or inside > 0.5 * sum(map(len, touched)):
            kept.append(table)
    return kept


def _table(block: Any, runs: Sequence[Run]) -> Table | None:
    rows = [row for row in [block.header, *(block.rows or [])] if row]
    texts = [cell.text.strip() for row in rows for cell in row if cell.text.strip()]
    columns = max((len(row) for row in rows), default=0)
    if columns < 2 or len(rows) < 2 or len(texts) < 0.35 * columns * len(rows):
        return None
    if max(map(len, texts)) > LONGEST_CELL or statistics.mean(map(len, texts)) > MEAN_CELL:
        return None
    if sum(not any(c.isalnum() for c in text) for text in texts) > 0.25 * len(texts) and columns < 5:
        return None  # boxes to tick and bullets in columns: lists side by side
    box = block.bbox
    table = Table([], False, box.x, box.y, box.x + box.width, box.y + box.height)
    inside = [run for run in runs if table.holds(run)]
    if not inside or not _agree(" ".join(texts), " ".join(run.text for run in inside)):
        return None
    table.strays = _strays(inside)
    if table.strays:
        table.rows = _fill(rows, columns, [run for run in inside if table.holds(run)], exactly=False)
    table.rows = table.rows or _fill(rows, columns, inside)
    if not table.rows:
        table.rows, table.strays = _as_found(rows, columns), []
    if len(table.rows) < 2:
        return None
    table.has_header = _is_header(table.rows)
    return table


def aligned_table(lines: Sequence[Line]) -> Table:
    """A table of lines whose pieces stand one below the other, where liteparse saw none."""
    cells = [line_cells(line) for line in lines]
    widest = max(cells, key=len)
    rows = []
    for line, found in zip(lines, cells, strict=True):
        columns = assign_columns(widest, found, 4 * line.size) or range(len(found))
        texts = [""] * len(widest)
        for column, cell in zip(columns, found, strict=True):
            texts[column] = cell.text
        rows.append(Row(texts, line.x0, line.y0, line.x1, line.y1, line.bold))
    box = (min(r.x0 for r in rows), min(r.y0 for r in rows), max(r.x1 for r in rows), max(r.y1 for r in rows))
    return Table(rows, _is_header(rows), *box, lines=list(lines))


def _characters(text: str) -> Counter[str]:
    return Counter(c for c in unicodedata.normalize("NFKC", text) if c.isalnum())


def _agree(one: str, two: str) -> bool:
    a, b = _characters(one), _characters(two)
    different = sum(((a - b) + (b - a)).values())
    return different <= 0.02 * max(1, sum(b.values()))


def _strays(runs: Sequence[Run]) -> list[Run]:
    """Lines that were printed over the table: alone on a height between two rows, across several cells."""
    found = []
    for run in runs:
        close = [
            abs(other.baseline - run.baseline) / run.size
            for other in runs
            if other is not run and other.x0 < run.x1 and other.x1 > run.x0
        ]
        over = sum(0.2 < distance < 0.75 for distance in close)
        beside = any(
            other is not run and abs(other.baseline - run.baseline) < 0.2 * run.size for other in runs
        )
        if over >= 3 and not beside:
            found.append(run)
    return found


def _fill(rows: Sequence[Any], columns: int, runs: Sequence[Run], *, exactly: bool = True) -> list[Row]:
    """liteparse's grid filled with PDFium's runs; [] where a run doesn't fit into one cell of it.

    Not `exactly` where what is printed over the table stands in liteparse's cells too.
    """
    spans: list[list[tuple[float, float]]] = [[] for _ in range(columns)]
    heights: list[tuple[float, float]] = []
    for row in rows:
        boxes = [(i, cell.bbox) for i, cell in enumerate(row) if cell.bbox is not None and cell.text.strip()]
        if not boxes:
            return []
        heights.append((min(b.y for _, b in boxes), max(b.y + b.height for _, b in boxes)))
        for i, b in boxes:
            spans[i].append((b.x, b.x + b.width))
    # The middle half of the cells tells where a column is; a heading over two columns must not widen it.
    edges = [
        (statistics.median(a for a, _ in s), statistics.median(b for _, b in s)) if s else None for s in spans
    ]
    grid: list[list[list[Run]]] = [[[] for _ in range(columns)] for _ in rows]
    for run in runs:
        y = run.baseline - 0.3 * run.size
        at = min(range(len(rows)), key=lambda i: max(heights[i][0] - y, y - heights[i][1], 0.0))
        best = min(
            (i for i in range(columns) if edges[i]),
            key=lambda i: _distance(run.x0, run.x1, *(edges[i] or (0.0, 0.0))),
        )
        grid[at][best].append(run)
    for row, cells in zip(rows, grid, strict=True):
        pairs = [
            (_characters(" ".join(r.text for r in members)), _characters(cell.text))
            for cell, members in zip(row, cells, strict=False)
        ]
        if exactly and any(ours != theirs for ours, theirs in pairs):
            return []
        if sum((ours for ours, _ in pairs), Counter()) - sum((theirs for _, theirs in pairs), Counter()):
            return []
    return [row for cells in _split_rows(grid) if (row := _row(cells)) is not None]


def _distance(x0: float, x1: float, left: float, right: float) -> float:
    overlap = min(x1, right) - max(x0, left)
    return -overlap if overlap > 0 else abs((x0 + x1) / 2 - (left + right) / 2)


def _split_rows(grid: list[list[list[Run]]]) -> list[list[list[Run]]]:
    """Rows that were taken for one, because they stand close or one cell spans them, come apart again."""
    baselines = [_levels([run for cell in row for run in cell]) for row in grid]
    steps = [b[0] - a[0] for a, b in itertools.pairwise(baselines) if a and b and len(a) == 1]
    pitch = statistics.median(steps) if steps else 0.0
    out: list[list[list[Run]]] = []
    for row, levels in zip(grid, baselines, strict=True):
        filled = [cell for cell in row if cell]
        size = max((run.size for cell in filled for run in cell), default=1.0)
        on = [sum(any(_on(run, level) for run in cell) for cell in filled) for level in levels]
        inner = min((b - a for a, b in itertools.pairwise(levels)), default=0.0)
        apart = len(levels) > 1 and inner > 0.8 * size
        several = apart and (
            (min(on) >= 3 and min(on) >= 0.5 * len(filled))
            or (pitch > 0 and inner >= 0.85 * pitch and (min(on) >= 2 or _first_full(row, levels)))
        )
        if not several:
            out.append(row)
            continue
        single = len(levels)
        for level in levels:
            cells = []
            for cell in row:
                here = [run for run in cell if _on(run, level)]
                spans = bool(cell) and len(_levels(cell)) == 1 and single > 1 and min(on) >= 3
                cells.append(cell if spans and not here else here)
            out.append(cells)
    return out


def _first_full(row: list[list[Run]], levels: list[float]) -> bool:
    """The first cell has text on every level, or two others have: so many rows stand there."""
    full = [all(any(_on(run, level) for run in cell) for level in levels) for cell in row]
    return sum(full) >= 2 or (bool(row[0]) and full[0])


def _on(run: Run, level: float) -> bool:
    return abs(run.baseline - level) <= 0.35 * run.size


def _levels(runs: Sequence[Run]) -> list[float]:
    levels: list[float] = []
    for run in sorted(runs, key=lambda r: r.baseline):
        if not levels or run.baseline - levels[-1] > 0.5 * run.size:
            levels.append(run.baseline)
    return levels


def _row(cells: list[list[Run]]) -> Row | None:
    runs = [run for cell in cells for run in cell]
    if not runs:
        return None
    texts = [join_lines([line.text for line in read_lines(cell)]) for cell in cells]
    return Row(
        texts,
        min(r.x0 for r in runs),
        min(r.y0 for r in runs),
        max(r.x1 for r in runs),
        max(r.y1 for r in runs),
        all(r.bold for r in runs),
    )


def _as_found(rows: Sequence[Any], columns: int) -> list[Row]:
    out = []
    for row in rows:
        boxes = [cell.bbox for cell in row if cell.bbox is not None and cell.text.strip()]
        if boxes:
            texts = [cell.text.strip() for cell in row] + [""] * (columns - len(row))
            out.append(
                Row(
                    texts,
                    min(b.x for b in boxes),
                    min(b.y for b in boxes),
                    max(b.x + b.width for b in boxes),
                    max(b.y + b.height for b in boxes),
                    False,
                )
            )
    return out


def _is_header(rows: Sequence[Row]) -> bool:
    """The first row names the columns: it alone is set in bold, or it is words above numbers."""
    first, rest = rows[0], rows[1:]
    named = [cell for cell in first.cells if cell]
    if (
        len(named) < 0.6 * len(first.cells)
        or len(set(named)) < len(named)
        or any(c.endswith((":", "：")) for c in named)
    ):
        return False
    if first.bold and not all(row.bold for row in rest):
        return True
    if any(_numeric(cell) for cell in named) or max(map(len, named)) > 60:
        return False
    for i in range(len(first.cells)):
        below = [row.cells[i] for row in rest if row.cells[i]]
        if below and sum(map(_numeric, below)) >= 0.6 * len(below):
            return True
    return False


def _numeric(text: str) -> bool:
    digits = sum(c.isdigit() for c in text)
    return digits > 0 and digits >= sum(c.isalpha() for c in text)
