"""A Word table as a grid: every cell at its column, merged cells told, the header rows found.

Given a w:tbl and a function that reads a cell; knows nothing of the document around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from quinze.knowledge.readers.docx_numbering import W, integer, is_on, value
from quinze.knowledge.readers.packed import Element
from quinze.knowledge.readers.tables import looks_like_header

MOST_COLUMNS = 512


@dataclass(slots=True)
class Cell:
    text: str
    nested: list[Element] = field(default_factory=list)
    """Tables within the cell."""
    span: int = 1
    continued: bool = False
    """Belongs to the cell above."""


@dataclass(slots=True)
class Row:
    cells: list[str]
    """One a column; a cell merged downwards is repeated, one merged sideways stands in its first column."""
    spread: list[str]
    """The same with cells merged sideways repeated too: what heads each column."""
    nested: list[Element]
    marked: bool
    """The author marked it as a header row."""


def read_rows(table: Element, read_cell: Callable[[Element], Cell]) -> list[Row]:
    rows: list[Row] = []
    above: dict[int, str] = {}
    for element in _rows(table):
        properties = element.find(f"{W}trPr")
        if properties is not None and (
            properties.find(f"{W}del") is not None or is_on(properties.find(f"{W}hidden"))
        ):
            continue
        column = _skip(properties, "gridBefore")
        row = Row([""] * column, [""] * column, [], _is_marked(properties))
        for cell in _cells(element, read_cell):
            text = above.get(len(row.cells), "") if cell.continued and not cell.text else cell.text
            at, span = len(row.cells), min(cell.span, MOST_COLUMNS - len(row.cells))
            if span <= 0:
                break
            row.cells += [text] + [""] * (span - 1)
            row.spread += [text] * span
            row.nested += cell.nested
            above.update(dict.fromkeys(range(at, at + span), text))
        rows.append(row)
    return rows


def header_rows(rows: list[Row]) -> tuple[int, int]:
    """(title rows, title and header rows): what stands at the top, and what names the columns."""
    marked = 0
    while marked < len(rows) and rows[marked].marked:
        marked += 1
    titles = 0
    # One cell across the whole table is its title.
    while titles < len(rows) - 2 and len(rows[titles].spread) > 1 and len(set(rows[titles].spread)) == 1:
        titles += 1
    if titles < marked < len(rows):
        return titles, marked
    if len(rows) - titles < 2 or len(rows[titles].cells) < 2:
        return titles, titles
    below = [row.cells for row in rows[titles + 1 : titles + 20]]
    return titles, titles + int(looks_like_header(rows[titles].spread, below))


def _rows(table: Element) -> Iterator[Element]:
    for child in table:
        if child.tag == f"{W}tr":
            yield child
        elif child.tag in (f"{W}sdt", f"{W}sdtContent", f"{W}customXml", f"{W}ins", f"{W}moveTo"):
            yield from _rows(child)


def _cells(row: Element, read_cell: Callable[[Element], Cell]) -> Iterator[Cell]:
    for child in row:
        if child.tag == f"{W}tc":
            cell = read_cell(child)
            properties = child.find(f"{W}tcPr")
            if properties is not None:
                cell.span = max(1, integer(value(properties.find(f"{W}gridSpan"))) or 1)
                merge = properties.find(f"{W}vMerge")
                cell.continued = merge is not None and value(merge) in (None, "continue")
            yield cell
        elif child.tag in (f"{W}sdt", f"{W}sdtContent", f"{W}customXml", f"{W}ins", f"{W}moveTo"):
            yield from _cells(child, read_cell)


def _skip(properties: Element | None, name: str) -> int:
    found = None if properties is None else properties.find(f"{W}{name}")
    return min(max(0, integer(value(found)) or 0), MOST_COLUMNS)


def _is_marked(properties: Element | None) -> bool:
    return properties is not None and is_on(properties.find(f"{W}tblHeader"))
