"""Charts of Word and PowerPoint files: their cached numbers as a table, categories down, series across."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from quinze.knowledge.document import Block, BlockKind, Place
from quinze.knowledge.readers.packed import Element, own_text
from quinze.knowledge.readers.tables import row_block

C = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
MOST_POINTS = 5000


def chart_blocks(root: Element, place: Place) -> Iterator[Block]:
    """Title and rows of the chart whose c:chartSpace is `root`."""
    title = root.find(f"{C}chart/{C}title")
    text = "" if title is None else "".join(own_text(each) for each in title.iter(f"{A}t")).strip()
    if text:
        yield Block(BlockKind.CAPTION, text, place)
    series = list(root.iter(f"{C}ser"))
    names = [_first(each.find(f"{C}tx")) or f"Series {index}" for index, each in enumerate(series, start=1)]
    columns = [_points(_either(each, "val", "yVal")) for each in series]
    categories: dict[int, str] = {}
    for each in series:
        categories = _points(_either(each, "cat", "xVal")) or categories
    rows = sorted({*categories, *(index for column in columns for index in column)})[:MOST_POINTS]
    header = ("", *names)
    if rows:
        yield row_block(header, (), msgspec.structs.replace(place, row=1))
    for number, index in enumerate(rows, start=2):
        cells = (categories.get(index, str(index + 1)), *(column.get(index, "") for column in columns))
        yield row_block(cells, header, msgspec.structs.replace(place, row=number))


def _either(series: Element, *names: str) -> Element | None:
    return next((found for name in names if (found := series.find(f"{C}{name}")) is not None), None)


def _first(element: Element | None) -> str:
    if element is None:
        return ""
    points = _points(element)
    return next(iter(points.values()), "") or next((own_text(each) for each in element.iter(f"{C}v")), "")


def _points(element: Element | None) -> dict[int, str]:
    """Index -> value. Categories of several levels are joined, the outer level first."""
    found: dict[int, str] = {}
    if element is None:
        return found
    levels = list(element.iter(f"{C}lvl")) or [element]
    for level in levels:
        for point in level.iter(f"{C}pt"):
            index, value = point.get("idx", ""), point.find(f"{C}v")
            if index.isdigit() and value is not None:
                text = number(own_text(value).strip())
                at = int(index)
                found[at] = f"{text} {found[at]}" if at in found else text
    return found


def number(text: str) -> str:
    """A number as a person would write it: 0.30000000000000004 is 0.3."""
    try:
        value = float(text)
    except ValueError:
        return text
    return f"{value:.15g}" if text.strip()[:1] in "-+.0123456789" and abs(value) < 1e15 else text
