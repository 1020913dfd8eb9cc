"""What repeats at the edges of a document's pages: running headers, footers, page numbers.

Given the lines of every page; returns which of them are no part of the running text. Knows nothing of files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from quinze.knowledge.readers.pdf_columns import Line

EDGE = 0.16
"""Share of the page's height at its top and at its bottom where headers and footers stand."""

DEPTH = 4
"""Lines looked at from each edge."""

_NUMBER = re.compile(
    r"^\W*((page|seite|p\.|第)\s*)?(\d{1,4}([-–.]\d{1,4})?|[ivxlc]{1,6})(\s*(of|/|von|页?\s*共|\|)\s*\d{1,4})?\s*页?\W*$",
    re.I,
)


def find_chrome(pages: Sequence[tuple[float, Sequence[Line]]]) -> list[dict[int, str]]:
    """For each page, given as (height, lines): id(line) -> "header" | "footer"."""
    edges = [
        {"header": _edge(height, lines, True), "footer": _edge(height, lines, False)}
        for height, lines in pages
    ]
    counts: Counter[tuple[str, str]] = Counter()
    for edge in edges:
        counts.update({(part, _key(line.text)) for part, lines in edge.items() for line in lines})
    needed = 3 if len(pages) >= 3 else 2
    found: list[dict[int, str]] = []
    for (height, lines), edge in zip(pages, edges, strict=True):
        marked: dict[int, str] = {}
        for part, candidates in edge.items():
            depth = 0
            for n, line in enumerate(candidates, 1):
                repeated = counts[part, _key(line.text)] >= needed and len(pages) > 1
                if not (repeated or _NUMBER.match(line.text)):
                    break
                if _stands_apart(line, candidates[:n], lines, height):
                    depth = n
            marked.update((id(line), part) for line in candidates[:depth])
        found.append(marked)
    empty = sum(len(marked) == len(lines) for marked, (_, lines) in zip(found, pages, strict=True))
    # Where nothing else stands on the pages, it is their text.
    return found if empty <= len(pages) / 2 else [{} for _ in pages]


def _edge(height: float, lines: Sequence[Line], top: bool) -> list[Line]:
    """The lines nearest to an edge of the page, the outermost first."""
    near = [
        line
        for line in lines
        if line.table is None and (line.y1 < EDGE * height if top else line.y0 > (1 - EDGE) * height)
    ]
    return sorted(near, key=lambda line: line.baseline if top else -line.baseline)[:DEPTH]


def _key(text: str) -> str:
    """The text with its numbers left open, since page numbers and dates run on."""
    return re.sub(r"\s+", " ", re.sub(r"\d+", "#", text)).strip().casefold()


def _stands_apart(line: Line, outer: Sequence[Line], lines: Sequence[Line], height: float) -> bool:
    """White separates it from the nearest line further in, more than lines of one text have between them."""
    out = {id(each) for each in outer}
    middle = height / 2
    inner = [
        each
        for each in lines
        if id(each) not in out and abs(each.baseline - middle) < abs(line.baseline - middle)
    ]
    if not inner:
        return True
    nearest = min(inner, key=lambda each: abs(each.baseline - line.baseline))
    if nearest.table is not None:
        return min(abs(nearest.y0 - line.y1), abs(line.y0 - nearest.y1)) > 0.5 * line.size
    return abs(nearest.baseline - line.baseline) > 1.7 * max(line.size, nearest.size)
