"""The reading order of a page: runs of glyphs -> lines, column after column.

Columns are found by the white between them, whatever the order in which the file draws its text. Works in
points, in a frame where the text is upright. Knows nothing of PDF, paragraphs, headings or documents.
"""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from quinze.knowledge.readers.pdf_glyphs import WIDE_GAP, Run

GUTTER = 0.8
"""In em: white that runs down between two columns is at least this wide."""

COLUMN_CHARACTERS = 15
"""Lines of a column of running text are at least this long; shorter ones are cells, read row by row."""

CELL_GAP = 1.5
"""In em: white between the two cells of a row; between sentences of justified text it is up to one."""

DEEPEST = 4
"""Columns within columns."""

_CJK = re.compile(r"[\u2e80-\u30ff\u31f0-\u9fff\uf900-\ufaff\uff00-\uffef\u3000-\u303f]")


@dataclass(slots=True)
class Line:
    runs: list[Run]
    text: str
    x0: float
    y0: float
    x1: float
    y1: float
    baseline: float
    size: float
    bold: bool
    mono: bool
    rtl: bool = False
    column: int = 0

    @property
    def table(self) -> int | None:
        return self.runs[0].table


def is_cjk(char: str) -> bool:
    """Chinese or Japanese, with its punctuation: written without spaces between words."""
    return bool(_CJK.match(char))


def read_lines(runs: Sequence[Run]) -> list[Line]:
    """All lines of a page in reading order, each with the number of its column."""
    lines: list[Line] = []
    for column, members in enumerate(read_columns(runs)):
        lines.extend(_attach_scripts([line for band in _bands(members) for line in _lines(band, column)]))
    return lines


def read_columns(runs: Sequence[Run]) -> list[list[Run]]:
    """The columns of a page, and what stands between them, in reading order."""
    found: list[list[Run]] = []
    if runs:
        _order(list(runs), found, depth=0)
    return found


def _attach_scripts(lines: list[Line]) -> list[Line]:
    """Super- and subscripts that came to stand alone go back into the line that they overlap."""
    kept: list[Line] = []
    for i, line in enumerate(lines):
        if kept and _is_script(line, kept[-1]):
            kept[-1] = _line([*kept[-1].runs, *line.runs], line.column)
        elif i + 1 < len(lines) and _is_script(line, lines[i + 1]):
            lines[i + 1] = _line([*lines[i + 1].runs, *line.runs], line.column)
        else:
            kept.append(line)
    return kept


def _is_script(small: Line, big: Line) -> bool:
    middle = small.baseline - 0.25 * small.size
    return (
        small.table is None
        and big.table is None
        and small.size < 0.8 * big.size
        and big.baseline - big.size < middle < big.baseline + 0.4 * big.size
        and small.x0 > big.x0 - big.size
        and small.x1 < big.x1 + big.size
    )


def _bands(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that overlap vertically, top to bottom."""
    bands: list[list[Run]] = []
    bottom = float("-inf")
    for run in sorted(runs, key=lambda r: r.core[0]):
        top, low = run.core
        if bands and top < bottom:
            bands[-1].append(run)
            bottom = max(bottom, low)
        else:
            bands.append([run])
            bottom = low
    return bands


@dataclass(slots=True)
class _Group:
    """Bands one below the other that have some white in common."""

    bands: list[list[Run]]
    white: list[tuple[float, float]]

    @property
    def runs(self) -> list[Run]:
        return [run for band in self.bands for run in band]


def _order(runs: list[Run], found: list[list[Run]], depth: int) -> None:
    """Append to `found` the columns of `runs` in reading order; what spans columns is a column of its own."""
    single = False  # consecutive groups without columns are one
    for group in _groups(runs):
        columns = _columns(group) if depth < DEEPEST else [group.runs]
        if len(columns) > 1:
            rtl = sum(run.rtl for run in group.runs) > 0.5 * len(group.runs)
            for column in reversed(columns) if rtl else columns:
                _order(column, found, depth + 1)
        elif single:
            found[-1].extend(group.runs)
        else:
            found.append(group.runs)
        single = len(columns) == 1


def _groups(runs: list[Run]) -> list[_Group]:
    left, right = min(r.x0 for r in runs), max(r.x1 for r in runs)
    gutter = GUTTER * statistics.median(r.size for r in runs)
    groups: list[_Group] = []
    for band in _bands(runs):
        blanks = _blanks(band, left, right, gutter)
        if groups:
            last = groups[-1]
            common = _common(last.white, blanks, gutter)
            # A band of two columns goes on with two columns; it doesn't join a centered title above.
            begins = _inner(band, blanks) and not _inner(last.runs, last.white)
            if not begins and (common or (not last.white and not blanks)):
                last.bands.append(band)
                last.white = common
                continue
        groups.append(_Group([band], blanks))
    for above, group in itertools.pairwise(groups):
        inner = _inner(group.runs, group.white)
        while inner and above.bands and min(r.x0 for r in above.bands[-1]) >= inner[-1][1] - 0.1:
            group.bands.insert(0, above.bands.pop())  # lines that stand only in the right column belong to it
    return [group for group in groups if group.bands]


def _blanks(band: Sequence[Run], left: float, right: float, least: float) -> list[tuple[float, float]]:
    """The white of a band between `left` and `right`, in pieces at least `least` wide."""
    blanks, at = [], left
    for run in sorted(band, key=lambda r: r.x0):
        if run.x0 - at >= least:
            blanks.append((at, run.x0))
        at = max(at, run.x1)
    if right - at >= least:
        blanks.append((at, right))
    return blanks


def _inner(runs: Sequence[Run], white: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those pieces of white that have text on both sides."""
    return [
        (a, b) for a, b in white if any(r.x1 <= a + 0.1 for r in runs) and any(r.x0 >= b - 0.1 for r in runs)
    ]


def _common(
    one: Sequence[tuple[float, float]], two: Sequence[tuple[float, float]], least: float
) -> list[tuple[float, float]]:
    both = [(max(a, c), min(b, d)) for a, b in one for c, d in two]
    return [(a, b) for a, b in both if b - a >= least]


def _columns(group: _Group) -> list[list[Run]]:
    """The group split at those gutters that have running text on both sides."""
    runs = group.runs
    cuts = [(a + b) / 2 for a, b in _inner(runs, group.white)]
    while cuts:
        columns: list[list[Run]] = [[] for _ in range(len(cuts) + 1)]
        for run in runs:
            columns[sum((run.x0 + run.x1) / 2 > cut for cut in cuts)].append(run)
        running = [_is_running(column) for column in columns]
        weak = next((i for i in range(len(cuts)) if not (running[i] and running[i + 1])), None)
        if weak is None:
            return columns
        del cuts[weak]
    return [runs]


def _is_running(column: Sequence[Run]) -> bool:
    lines = [_length("".join(r.text for r in band)) for band in _bands(column) if band[0].table is None]
    if len(lines) < 3:
        return bool(column) and any(r.table is not None for r in column)
    return statistics.median(lines) >= COLUMN_CHARACTERS


def _length(text: str) -> int:
    return sum(2 if is_cjk(c) else 1 for c in text)


def _lines(band: Sequence[Run], column: int) -> list[Line]:
    """The lines of one band: runs on about the same baseline, with their super- and subscripts."""
    lines: list[list[Run]] = []
    for run in sorted(band, key=lambda r: (-round(r.size, 1), r.baseline)):
        for line in lines:
            first = line[0]
            if run.table is None and first.table is None and _same_line(first, run):
                line.append(run)
                break
        else:
            lines.append([run])
    return sorted((_line(runs, column) for runs in lines), key=lambda line: line.baseline)


def _same_line(big: Run, small: Run) -> bool:
    middle = small.baseline - 0.25 * small.size
    return big.baseline - 0.8 * big.size < middle < big.baseline + 0.12 * big.size


def _line(runs: list[Run], column: int) -> Line:
    rtl = sum(len(r.text) for r in runs if r.rtl) > 0.5 * sum(len(r.text) for r in runs)
    runs = sorted(runs, key=lambda r: -r.x1 if rtl else r.x0)
    text = ""
    for before, run in zip([None, *runs], runs, strict=False):
        if before is not None:
            gap = (before.x0 - run.x1 if rtl else run.x0 - before.x1) / max(min(run.size, before.size), 0.1)
            near = 0.9 if is_cjk(text[-1:]) and is_cjk(run.text[0]) else 0.13
            if gap > near or (run.space and gap > 0.06 and near < 0.5):
                text += " "
        text += run.text
    widest = max(runs, key=lambda r: len(r.text))
    letters = sum(len(r.text) for r in runs)
    return Line(
        runs,
        text,
        min(r.x0 for r in runs),
        min(r.y0 for r in runs),
        max(r.x1 for r in runs),
        max(r.y1 for r in runs),
        widest.baseline,
        widest.size,
        sum(len(r.text) for r in runs if r.bold) > 0.9 * letters,
        sum(len(r.text) for r in runs if r.mono) > 0.9 * letters,
        rtl,
        column,
    )


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    x0: float
    x1: float


def line_cells(line: Line) -> list[Cell]:
    """The pieces of a line that stand further apart than its words."""
    runs = sorted(line.runs, key=lambda run: run.x0)
    groups: list[list[Run]] = []
    for run in runs:
        if groups and run.x0 - max(r.x1 for r in groups[-1]) < WIDE_GAP * line.size:
            groups[-1].append(run)
        else:
            groups.append([run])
    return [Cell(_line(g, line.column).text, min(r.x0 for r in g), max(r.x1 for r in g)) for g in groups]


def table_stretches(lines: Sequence[Line]) -> list[tuple[bool, list[Line]]]:
    """Lines in order, in stretches that are a table (rows of cells, one below the other) or are not."""
    stretches: list[tuple[bool, list[Line]]] = []
    cells = [line_cells(line) if line.table is None else [] for line in lines]
    i = 0
    while i < len(lines):
        j, widest = i + 1, cells[i]
        while j < len(lines) and _next_row(widest, cells[j], lines[j - 1], lines[j]):
            widest = max(widest, cells[j], key=len)
            j += 1
        if j - i >= 3 or (j - i == 2 and len(cells[i]) >= 4):
            stretches.append((True, list(lines[i:j])))
        elif stretches and not stretches[-1][0]:
            stretches[-1][1].extend(lines[i:j])
        else:
            stretches.append((False, list(lines[i:j])))
        i = j
    return stretches


def _next_row(widest: list[Cell], cells: list[Cell], above: Line, below: Line) -> bool:
    if len(widest) < 2 or len(cells) < 2 or above.column != below.column:
        return False
    if below.baseline - above.baseline > 4 * below.size:
        return False
    if len(widest) == 2 or len(cells) == 2:
        # Two cells might be two sentences: they must stand well apart, and in every row.
        near = min(row[1].x0 - row[0].x1 for row in (widest, cells) if len(row) == 2)
        if len(widest) != len(cells) or near < CELL_GAP * below.size:
            return False
    long, short = (widest, cells) if len(widest) >= len(cells) else (cells, widest)
    return len(long) - len(short) <= 1 and assign_columns(long, short, 1.2 * above.size) is not None


def assign_columns(columns: Sequence[Cell], cells: Sequence[Cell], near: float) -> list[int] | None:
    """For each cell the column in which it stands, from left to right; None where one fits nowhere."""
    found: list[int] = []
    for cell in cells:
        first = found[-1] + 1 if found else 0
        fitting = [i for i in range(first, len(columns)) if _misfit(columns[i], cell) < near]
        if not fitting:
            return None
        found.append(min(fitting, key=lambda i: _misfit(columns[i], cell)))
    return found


def _misfit(column: Cell, cell: Cell) -> float:
    """How far the cell's left edge, right edge or middle is from the column's, whichever is nearest."""
    left, right = abs(column.x0 - cell.x0), abs(column.x1 - cell.x1)
    return min(left, right, abs(column.x0 + column.x1 - cell.x0 - cell.x1) / 2)
