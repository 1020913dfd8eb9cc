"""OpenDocument sheets: what is seen in the cells that hold numbers, dates and times.

The file keeps beside each value the text that its program showed. One pass over content.xml; given the
unpacked file, returns the shown texts by sheet, row and column. Values and empty cells are read elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from lxml import etree

from quinze.knowledge.readers.packed import Element, Package

TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
MOST_CELLS = 3_000_000
MOST_REPEATED = 1_000
"""A filled cell is repeated rarely; what is repeated to the end of the sheet is blank."""
_TYPED = frozenset(("float", "percentage", "currency", "date", "time"))

Seen = dict[str, list[tuple[int, int, str]]]
"""Name of a sheet -> (row, column, text), counted from 0."""


def seen_cells(package: Package) -> Seen:
    found: Seen = {}
    parser = etree.XMLPullParser(
        events=("start", "end"), resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True
    )
    cells: list[tuple[int, int, str]] = []
    row = room = 0
    try:
        for data in package.chunks("content.xml"):
            parser.feed(data)
            for event, element in parser.read_events():
                if event == "start" and element.tag == f"{TABLE}table":
                    cells = found.setdefault(element.get(f"{TABLE}name", ""), [])
                    row = 0
                elif event == "end" and element.tag == f"{TABLE}table-row":
                    repeated = _times(element, "rows")
                    own = list(_row(element))
                    for again in range(min(repeated, MOST_REPEATED) if own else 0):
                        cells += [(row + again, column, text) for column, text in own]
                        room += len(own)
                    row += repeated
                    element.clear()
                    if room > MOST_CELLS:
                        return found
    except etree.XMLSyntaxError:
        # The values are read by another; what is damaged for both is its to say.
        return found
    return found


def _row(row: Element) -> Iterator[tuple[int, str]]:
    column = 0
    for cell in row.iterchildren(f"{TABLE}table-cell", f"{TABLE}covered-table-cell"):
        repeated = _times(cell, "columns")
        if cell.get(f"{OFFICE}value-type") in _TYPED:
            shown = "".join(cell.find(f"{TEXT}p").itertext()) if cell.find(f"{TEXT}p") is not None else ""
            if text := " ".join(shown.split()):
                for again in range(min(repeated, MOST_REPEATED)):
                    yield column + again, text
        column += repeated


def _times(element: Element, what: str) -> int:
    text = element.get(f"{TABLE}number-{what}-repeated", "1")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 1
