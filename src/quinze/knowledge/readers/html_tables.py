"""A table of a web page as a grid: cells that span rows or columns are told, the header rows found.

Given a table element; knows nothing of the page around it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from selectolax.lexbor import LexborNode

from quinze.knowledge.readers.html_tree import is_hidden
from quinze.knowledge.readers.tables import looks_like_header

MOST_COLUMNS = 512
MOST_ROWS = 65_536


@dataclass(slots=True)
class Grid:
    rows: list[list[str]] = field(default_factory=list)
    """A cell that spans columns stands in its first, one that spans rows in each of them."""
    spread: list[list[str]] = field(default_factory=list)
    """The same with cells that span columns repeated."""
    header: int = 0
    """How many rows at the top name the columns."""


def read_grid(table: LexborNode, text_of: Callable[[LexborNode], str]) -> Grid:
    grid = Grid()
    hanging: dict[int, tuple[int, str, bool]] = {}
    all_names = 0
    for row, in_head in _rows(table):
        if len(grid.rows) >= MOST_ROWS:
            break
        cells: list[str] = []
        spread: list[str] = []
        names = True
        for cell in row.iter():
            if cell.tag not in ("td", "th") or is_hidden(cell):
                continue
            _hang(hanging, cells, spread)
            names = names and cell.tag == "th"
            across, down = _span(cell, "colspan", MOST_COLUMNS), _span(cell, "rowspan", MOST_ROWS)
            across = min(across, MOST_COLUMNS - len(cells))
            text = text_of(cell)
            for column in range(across):
                if down > 1:
                    hanging[len(cells)] = (down - 1, text, column == 0)
                cells.append(text if column == 0 else "")
                spread.append(text)
        _hang(hanging, cells, spread)
        if (in_head or names) and all_names == len(grid.rows) and any(cells):
            all_names += 1
        grid.rows.append(cells)
        grid.spread.append(spread)
    if 0 < all_names < len(grid.rows):
        grid.header = all_names
    elif len(grid.rows) > 1 and len(grid.rows[0]) > 1 and all_names == 0:
        grid.header = int(looks_like_header(grid.spread[0], grid.rows[1:20]))
    return grid


def has_names(table: LexborNode) -> bool:
    """Whether its own cells, not those of a table within it, name columns or rows: it was made for data."""
    return any(cell.tag == "th" for row, _ in _rows(table) for cell in row.iter())


def _hang(hanging: dict[int, tuple[int, str, bool]], cells: list[str], spread: list[str]) -> None:
    """Fill in the cells that reach down from rows above."""
    while (found := hanging.get(len(cells))) is not None:
        left, text, first = found
        if left == 1:
            del hanging[len(cells)]
        else:
            hanging[len(cells)] = (left - 1, text, first)
        cells.append(text if first else "")
        spread.append(text)


def _rows(table: LexborNode) -> list[tuple[LexborNode, bool]]:
    rows: list[tuple[LexborNode, bool]] = []
    for child in table.iter():
        if child.tag == "tr":
            rows.append((child, False))
        elif child.tag in ("thead", "tbody", "tfoot"):
            rows += [(row, child.tag == "thead") for row in child.iter() if row.tag == "tr"]
    return [(row, in_head) for row, in_head in rows if not is_hidden(row)]


def _span(cell: LexborNode, name: str, most: int) -> int:
    text = cell.attributes.get(name) or "1"
    return max(1, min(int(text), most)) if text.isascii() and text.isdigit() and len(text) < 9 else 1
