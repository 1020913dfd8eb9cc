"""The layout of a page: runs of glyphs -> lines in reading order -> paragraphs.

Columns are found by the white between them, whatever the order in which the file draws its text. Works in points, in a
frame where the text is upright. Knows nothing of PDF, fonts' names, headings or whole documents.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from quinze.knowledge.readers.pdf_glyphs import HYPHENS, WIDE_GAP, Run

GUTTER = 0.8
"""In em: white that runs down between two columns is at least this wide."""

COLUMN_CHARACTERS = 15
"""A column of running text has lines at least this long; shorter ones are the cells of a table, read row by row."""

BULLET = re.compile(r"^([•‣⁃◦▪▫●○■□◆◇➢➤✓✔\uf0b7]\s*|[∙·–—*-]\s+)(?=\S)")
NUMBERED = re.compile(
    r"^((\(?(\d{1,3}|[a-z]|[ivx]{1,5})[.)]|[A-Z]\)|\[\d{1,3}\])\s+|\d{1,3}、|[（(][一二三四五六七八九十\d]{1,3}[）)]\s*)\S"
)
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


@dataclass(slots=True)
class Paragraph:
    lines: list[Line] = field(default_factory=list)

    @property
    def first(self) -> Line:
        return self.lines[0]

    @property
    def size(self) -> float:
        return max(self.lines, key=lambda line: len(line.text)).size

    @property
    def bold(self) -> bool:
        return all(line.bold for line in self.lines)

    @property
    def mono(self) -> bool:
        return all(line.mono for line in self.lines)


def is_cjk(char: str) -> bool:
    """Chinese or Japanese, with its punctuation: written without spaces between words."""
    return bool(_CJK.match(char))


def read_lines(runs: Sequence[Run]) -> list[Line]:
    """All lines of a page in reading order, each with the number of its column."""
    if not runs:
        return []
    found: list[list[Run]] = []
    _order(list(runs), found, depth=0)
    lines: list[Line] = []
    for column, members in enumerate(found):
        lines.extend(_attach_scripts([line for band in _bands(members) for line in _lines(band, column)]))
    return lines


def _attach_scripts(lines: list[Line]) -> list[Line]:
    """Super- and subscripts that came to stand alone go back into the line that they overlap."""
    kept: list[Line] = []
    for i, line in enumerate(lines):
        for other in (kept[-1:], lines[i + 1 : i + 2]):
            if other and line.table is None and other[0].table is None and line.size < 0.8 * other[0].size:
                big = other[0]
                middle = line.baseline - 0.25 * line.size
                within = line.x0 > big.x0 - big.size and line.x1 < big.x1 + big.size
                if big.baseline - big.size < middle < big.baseline + 0.4 * big.size and within:
                    merged = _line([*big.runs, *line.runs], big.column)
                    if i + 1 < len(lines) and big is lines[i + 1]:
                        lines[i + 1] = merged
                    else:
                        kept[-1] = merged
                    break
        else:
            kept.append(line)
    return kept


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


def _order(runs: list[Run], found: list[list[Run]], depth: int) -> None:
    """Append to `found` the columns of `runs` in reading order; what spans columns is a column of its own."""
    left, right = min(r.x0 for r in runs), max(r.x1 for r in runs)
    gutter = GUTTER * statistics.median(r.size for r in runs)
    groups: list[tuple[list[list[Run]], list[tuple[float, float]]]] = []
    for band in _bands(runs):
        blanks = _blanks(band, left, right, gutter)
        if groups:
            members, white = groups[-1]
            common = _common(white, blanks, gutter)
            begins = _inner(band, blanks) and not any(_inner(b, white) for b in members)
            if (common or (not white and not blanks)) and not begins:
                members.append(band)
                groups[-1] = (members, common)
                continue
            if begins:
                # Lines above that stand only in the right column belong to it.
                taken = []
                while len(members) > 1 and min(r.x0 for r in members[-1]) >= max(
                    a for a, _ in _inner(band, blanks)
                ):
                    taken.insert(0, members.pop())
                groups.append(([*taken, band], blanks))
                continue
        groups.append(([band], blanks))
    single = False  # consecutive groups without columns are one
    for members, white in groups:
        everything = [run for band in members for run in band]
        if not everything:
            continue
        columns = _columns(everything, members, white) if depth < 4 else [everything]
        if len(columns) > 1:
            rtl = sum(run.rtl for run in everything) > 0.5 * len(everything)
            for column in reversed(columns) if rtl else columns:
                _order(column, found, depth + 1)
            single = False
        elif single:
            found[-1].extend(everything)
        else:
            found.append(everything)
            single = True


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


def _columns(
    runs: list[Run], bands: Sequence[Sequence[Run]], white: Sequence[tuple[float, float]]
) -> list[list[Run]]:
    """Split at those gutters that have running text on both sides."""
    cuts = [(a + b) / 2 for a, b in _inner(runs, white)]
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


def read_paragraphs(lines: Sequence[Line], body_size: float) -> list[Paragraph]:
    """Join lines in reading order into paragraphs, by leading, indent, size, weight and where lines end."""
    blocks: list[list[Line]] = []
    leadings = _leadings(lines)
    for line in lines:
        if blocks and _goes_on(blocks[-1][-1], line, leadings.get((line.column, round(line.size)))):
            blocks[-1].append(line)
        else:
            blocks.append([line])
    return [paragraph for block in blocks for paragraph in _split(block, body_size)]


def _leadings(lines: Sequence[Line]) -> dict[tuple[int, int], float]:
    """The usual distance of two baselines, by column and font size."""
    steps: dict[tuple[int, int], list[float]] = {}
    for before, line in zip(lines, lines[1:], strict=False):
        step = line.baseline - before.baseline
        if (
            before.column == line.column
            and 0 < step < 2.2 * line.size
            and round(line.size) == round(before.size)
        ):
            steps.setdefault((line.column, round(line.size)), []).append(step)
    return {key: statistics.median_low(found) for key, found in steps.items()}


def _goes_on(before: Line, line: Line, leading: float | None) -> bool:
    """`line` stands in one block with the line before it."""
    if before.table is not None or line.table is not None or before.column != line.column:
        return False
    step, size = line.baseline - before.baseline, max(line.size, before.size)
    if before.mono and line.mono:
        return 0 < step < 3.2 * size
    most = min(1.25 * leading + 1, 2.0 * size) if leading else 1.6 * size
    if _unfinished(before, line):
        most = max(most, 2.4 * size)
    return (
        0 < step <= most
        and 0.88 < line.size / before.size < 1.14
        and line.bold == before.bold
        and line.mono == before.mono
    )


def _split(block: list[Line], body_size: float) -> list[Paragraph]:
    """A block of close lines, cut where a list item, an indent or a line that ended early begins a new paragraph."""
    left, right = min(line.x0 for line in block), max(line.x1 for line in block)
    paragraphs = [Paragraph([block[0]])]
    for before, line in zip(block, block[1:], strict=False):
        if before.mono and line.mono:
            paragraphs[-1].lines.append(line)
            continue
        if _starts_paragraph(before, line, paragraphs[-1], left, right, body_size):
            paragraphs.append(Paragraph([line]))
        else:
            paragraphs[-1].lines.append(line)
    return paragraphs


def _starts_paragraph(
    before: Line, line: Line, paragraph: Paragraph, left: float, right: float, body_size: float
) -> bool:
    em = line.size
    if is_item(line.text):
        return True
    if before.text[-1:] in HYPHENS or (before.text[-1] in "-‐" and line.text[0].islower()):
        return False
    hanging = (len(paragraph.lines) == 1 and is_item(before.text)) or _unfinished(before, line)
    centered = abs((before.x0 + before.x1) - (line.x0 + line.x1)) < em and abs(before.x0 - line.x0) > em
    if not centered and not line.rtl and not hanging:
        if line.x0 > before.x0 + 0.8 * em and before.x0 < left + 0.5 * em:
            return True
        if line.x0 < before.x0 - 0.8 * em and len(paragraph.lines) > 1 and not is_item(paragraph.first.text):
            return True
    if line.size > 1.25 * body_size:
        return False
    # Text wraps only where the next word doesn't fit; a line that had room for it was ended on purpose.
    word = line.text.split(" ", 1)[0]
    if is_cjk(word[0]):
        word = word[:2]  # a line may end a character early, so that no comma begins the next
    needed = (line.x1 - line.x0) * len(word) / max(1, len(line.text)) + 0.6 * em
    if centered:
        room = (right - left) - (before.x1 - before.x0)
    else:
        room = before.x0 - left if line.rtl else right - before.x1
    return room > needed + 0.015 * (right - left)


def _unfinished(before: Line, line: Line) -> bool:
    """The sentence runs on: no stop before, no capital after."""
    return line.text[0].islower() and before.text[-1] not in ".!?:;。！？：；"


def is_item(text: str) -> bool:
    return bool(BULLET.match(text) or NUMBERED.match(text))


def join_lines(lines: Sequence[str], words: frozenset[str] | set[str] = frozenset()) -> str:
    """The lines of a paragraph as one text: hyphenation undone, CJK lines joined without a space.

    A hyphen at a line's end stays where `words`, the words of the document, know the word with it and not without.
    """
    text = ""
    for line in (part.strip() for part in lines):
        if not text or not line:
            text += line
        elif text[-1] in HYPHENS or (text[-1] in "-‐" and text[-2:-1].isalpha() and line[0].islower()):
            head, tail = re.split(r"[^\w-]", text[:-1])[-1].lower(), re.split(r"[^\w-]", line)[0].lower()
            kept = f"{head}-{tail}" in words and head + tail not in words
            text = text[:-1] + ("-" if kept else "") + line
        elif is_cjk(text[-1]) and is_cjk(line[0]):
            text += line
        else:
            text += " " + line
    return text.replace("\u00ad", "").replace("\ufffe", "").replace("\x02", "")


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    x0: float
    x1: float


def line_cells(line: Line) -> list[Cell]:
    """The pieces of a line that stand at least an em apart."""
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
        j = i + 1
        while j < len(lines) and _same_columns(cells[j - 1], cells[j], lines[j - 1], lines[j]):
            j += 1
        if j - i >= 3 or (j - i == 2 and len(cells[i]) >= 4):
            stretches.append((True, list(lines[i:j])))
        elif stretches and not stretches[-1][0]:
            stretches[-1][1].extend(lines[i:j])
        else:
            stretches.append((False, list(lines[i:j])))
        i = j
    return stretches


def _same_columns(one: list[Cell], two: list[Cell], above: Line, below: Line) -> bool:
    if len(one) < 2 or len(one) != len(two) or above.column != below.column:
        return False
    if below.baseline - above.baseline > 4 * below.size:
        return False
    near = 1.2 * above.size

    def aligned(a: Cell, b: Cell) -> bool:
        return min(abs(a.x0 - b.x0), abs(a.x1 - b.x1), abs(a.x0 + a.x1 - b.x0 - b.x1) / 2) < near

    return all(aligned(a, b) for a, b in zip(one, two, strict=True))
