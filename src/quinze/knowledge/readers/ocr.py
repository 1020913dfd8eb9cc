"""Text in pictures: rapidocr's models (they lie in its wheel; nothing is downloaded), English and Chinese.

Given an image as an array; returns lines with their boxes, or blocks in reading order. A page lying on its
side or standing on its head is turned first. Knows nothing of files: image.py and pdf.py bring the pictures.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quinze.knowledge.document import Block, BlockKind, Box, Place
from quinze.knowledge.readers.pdf_columns import Line, read_lines, table_stretches
from quinze.knowledge.readers.pdf_glyphs import Run
from quinze.knowledge.readers.pdf_layout import Paragraph, join_lines, read_paragraphs
from quinze.knowledge.readers.pdf_tables import Table, aligned_table

LONGEST_SIDE = 2000
"""The detector's own limit: more pixels are not looked at."""

MUCH_LARGER = 1.6
"""A heading's height over that of the running text."""

DOUBTFUL = 0.75
"""Mean confidence below which a person is told not to rely on the text."""

SURE = 0.88
"""Mean confidence of a page that stands upright; below it, the page is tried the other way up."""


@dataclass(frozen=True, slots=True)
class OcrLine:
    """One piece of text. `quad` (4, 2): its corners, top left first, clockwise, in pixels of the image."""

    text: str
    quad: np.ndarray
    score: float

    @property
    def rect(self) -> tuple[float, float, float, float]:
        (x0, y0), (x1, y1) = self.quad.min(axis=0), self.quad.max(axis=0)
        return float(x0), float(y0), float(x1), float(y1)


@dataclass(frozen=True, slots=True)
class Recognized:
    lines: list[OcrLine]
    turns: int
    """Quarter turns, counter-clockwise, that made the text upright."""
    width: int
    height: int

    @property
    def score(self) -> float:
        return _score(self.lines)

    @property
    def doubtful(self) -> bool:
        """Poorly printed, written by hand, or in a script that the models don't know."""
        return bool(self.lines) and self.score < DOUBTFUL


@functools.lru_cache(maxsize=1)
def _engine() -> Any:
    """The models, loaded once a process: about two seconds and 300 MB."""
    from rapidocr import RapidOCR

    threads = min(4, os.cpu_count() or 1)
    return RapidOCR(
        params={
            "Global.log_level": "critical",
            # The classifier of lines upside down turns good ones: 6.8 % errors on a clean page, else none.
            "Global.use_cls": False,
            "EngineConfig.onnxruntime.intra_op_num_threads": threads,
        }
    )


def recognize(image: np.ndarray, tick: Callable[[], None] = lambda: None) -> Recognized:
    """All text of `image`, uint8 (height, width, 3) in RGB."""
    height, width = image.shape[:2]
    lines = _pass(image, tick)
    turns, best = 0, _score(lines) * (1 - _tall(lines))
    if lines and best < SURE:
        for candidate in (1, 3) if _tall(lines) > 0.5 else (2,):
            tick()
            turned = _pass(np.ascontiguousarray(np.rot90(image, candidate)), tick)
            score = _score(turned) * (1 - _tall(turned))
            if score > best + 0.03:
                turns, best, lines = candidate, score, turned
    return Recognized([_turn_back(line, turns, width, height) for line in lines], turns, width, height)


def _pass(image: np.ndarray, tick: Callable[[], None]) -> list[OcrLine]:
    lines: list[OcrLine] = []
    for top, part in _parts(image):
        tick()
        scale = 2 if max(part.shape[:2]) < 500 else 1
        found = _engine()(np.ascontiguousarray(part.repeat(scale, 0).repeat(scale, 1)[:, :, ::-1]))
        if found.boxes is None or found.txts is None:
            continue
        for text, quad, score in zip(found.txts, found.boxes, found.scores, strict=True):
            if text.strip():
                corners = np.asarray(quad, dtype=np.float64) / scale + (0, top)
                lines.append(OcrLine(text.strip(), corners, float(score)))
    return lines


def _parts(image: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """A very tall picture (a screenshot of a whole page) in pieces, cut where a row is plain."""
    height, width = image.shape[:2]
    if height <= LONGEST_SIDE or height < 2.5 * width:
        return [(0, image)]
    step = max(int(1.4 * width), 800)
    ink = image.std(axis=(1, 2))
    cuts = [0]
    while height - cuts[-1] > 1.5 * step:
        low, high = cuts[-1] + int(0.7 * step), cuts[-1] + step
        cuts.append(low + int(np.argmin(ink[low:high])))
    cuts.append(height)
    return [(a, image[a:b]) for a, b in itertools.pairwise(cuts)]


def _score(lines: Sequence[OcrLine]) -> float:
    """Mean confidence by character."""
    letters = sum(len(line.text) for line in lines)
    return sum(line.score * len(line.text) for line in lines) / letters if letters else 0.0


def _tall(lines: Sequence[OcrLine]) -> float:
    """Share of the text in boxes taller than wide: lines of a page that lies on its side."""
    long = [line for line in lines if len(line.text) > 1]
    letters = sum(len(line.text) for line in long)
    if not letters:
        return 0.0
    tall = [line for line in long if line.rect[3] - line.rect[1] > 1.5 * (line.rect[2] - line.rect[0])]
    return sum(len(line.text) for line in tall) / letters


def _turn_back(line: OcrLine, turns: int, width: int, height: int) -> OcrLine:
    """From pixels of the turned image to those of the image as given; the corners stay the text's own."""
    quad = line.quad
    x, y = quad[:, 0], quad[:, 1]
    if turns == 1:
        quad = np.stack([width - y, x], axis=1)
    elif turns == 2:
        quad = np.stack([width - x, height - y], axis=1)
    elif turns == 3:
        quad = np.stack([y, height - x], axis=1)
    return OcrLine(line.text, quad, line.score)


def ocr_blocks(
    found: Recognized,
    page: int | None,
    *,
    region: Box = Box(0.0, 0.0, 1.0, 1.0),  # noqa: B008 -- frozen
) -> list[Block]:
    """The recognized lines as headings, paragraphs and table rows. `region`: the part of the page seen."""
    runs, rects = _runs(found)
    paragraphs: list[Paragraph | Table] = []
    for is_table, stretch in table_stretches(read_lines(runs)):
        if is_table:
            paragraphs.append(aligned_table(stretch))
        else:
            paragraphs.extend(read_paragraphs(stretch, statistics.median(line.size for line in stretch)))
    headings = _headings(paragraphs)
    blocks: list[Block] = []
    heading: tuple[str, ...] = ()
    tables = 0
    for item in paragraphs:
        place = functools.partial(_place, rects=rects, found=found, page=page, region=region)
        if isinstance(item, Table):
            tables += 1
            blocks.extend(_table_rows(item, tables, heading, place))
            continue
        text = join_lines([line.text for line in item.lines])
        if not any(c.isalnum() for c in text):
            continue  # frames and dots that were taken for letters
        if id(item) in headings:
            blocks.append(Block(BlockKind.HEADING, text, place(item.lines), level=1))
            heading = (text,)
        else:
            blocks.append(Block(BlockKind.PARAGRAPH, text, place(item.lines, heading=heading)))
    return blocks


def _table_rows(
    table: Table, number: int, heading: tuple[str, ...], place: Callable[..., Place]
) -> Iterator[Block]:
    header = tuple(table.rows[0].cells) if table.has_header else ()
    for at, row in enumerate(table.rows, 1):
        cells = tuple(row.cells)
        where = place(table.lines[at - 1 : at], heading=heading, table=number, row=at)
        yield Block(
            BlockKind.TABLE_ROW, " | ".join(cells), where, cells=cells, header=header if at > 1 else ()
        )


def _headings(paragraphs: Sequence[Paragraph | Table]) -> set[int]:
    """Ids of the paragraphs that are headings: set much larger, or in capitals.

    A picture's heights are too rough for finer differences. Where much is large (a poster), nothing is.
    """
    plain = [each for each in paragraphs if isinstance(each, Paragraph)]
    sizes = sorted(line.size for each in plain for line in each.lines for _ in line.text)
    found: set[int] = set()
    letters = 0
    for each in plain:
        text = each.first.text
        short = len(each.lines) == 1 and len(each.first.runs) == 1 and len(text) <= 60
        capitals = text.isupper() and re.sub(r"[ -]", "", text).isalpha() and len(text) > 5
        if short and (capitals or each.size >= MUCH_LARGER * sizes[len(sizes) // 2]):
            found.add(id(each))
            letters += len(text)
    return found if letters < 0.2 * len(sizes) else set()


def _runs(found: Recognized) -> tuple[list[Run], dict[int, tuple[float, float, float, float]]]:
    """Lines as runs in a frame where the text is upright and level, and each run's box in the image."""
    if not found.lines:
        return [], {}
    weights = [len(line.text) for line in found.lines]
    angles = [
        math.atan2(line.quad[1][1] - line.quad[0][1], line.quad[1][0] - line.quad[0][0])
        for line in found.lines
    ]
    tilt = found.turns * math.pi / 2
    level = sorted(
        (((a - tilt + math.pi) % (2 * math.pi)) - math.pi, w) for a, w in zip(angles, weights, strict=True)
    )
    half, seen, lean = sum(weights) / 2, 0, 0.0
    for angle, weight in level:
        seen += weight
        if seen >= half:
            lean = angle
            break
    total = tilt + (lean if abs(lean) < 0.2 else 0.0)
    cos, sin = math.cos(-total), math.sin(-total)
    turn = np.array([[cos, sin], [-sin, cos]])
    upright = [line.quad @ turn for line in found.lines]
    heights = [float(np.linalg.norm(q[3] - q[0])) for q in upright]
    usual = statistics.median(heights)
    runs, rects = [], {}
    for line, quad, height in zip(found.lines, upright, heights, strict=True):
        same = usual if 0.75 < height / usual < 1.3 else height
        middle = float(quad[:, 1].mean())
        size = 0.75 * same
        run = Run(
            line.text,
            float(quad[:, 0].min()),
            middle - same / 2,
            float(quad[:, 0].max()),
            middle + same / 2,
            middle + 0.3 * size,
            size,
            False,
            False,
        )
        runs.append(run)
        rects[id(run)] = line.rect
    return runs, rects


def _place(
    lines: Sequence[Line],
    *,
    rects: dict[int, tuple[float, float, float, float]],
    found: Recognized,
    page: int | None,
    region: Box,
    heading: tuple[str, ...] = (),
    table: int | None = None,
    row: int | None = None,
) -> Place:
    boxes = [rects[id(run)] for line in lines for run in line.runs]

    def across(pixels: float) -> float:
        part = min(max(pixels / found.width, 0.0), 1.0)
        return round(region.left + part * (region.right - region.left), 5)

    def down(pixels: float) -> float:
        part = min(max(pixels / found.height, 0.0), 1.0)
        return round(region.top + part * (region.bottom - region.top), 5)

    box = Box(
        across(min(b[0] for b in boxes)),
        down(min(b[1] for b in boxes)),
        across(max(b[2] for b in boxes)),
        down(max(b[3] for b in boxes)),
    )
    return Place(page=page, part="ocr", boxes=(box,), heading=heading, table=table, row=row)
