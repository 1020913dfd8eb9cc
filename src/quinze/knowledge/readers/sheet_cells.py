"""The cells of an Excel sheet beside their values: how far they reach, and which format each one has.

One pass over the sheet's own XML, as bytes and in pieces, for a sheet may have millions of cells. A sheet
whose few cells stand far apart is read here as a whole, for others would lay out every cell between them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lxml import etree

from quinze.knowledge.readers.packed import Element, Package, own_text
from quinze.knowledge.readers.sheet_formats import BUILT_IN, Format, compile_format

S = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
LAST_ROW, LAST_COLUMN = 1_048_576, 16_384
_COUNTRY_DATES = {14: "yyyy-mm-dd", 22: "yyyy-mm-dd hh:mm"}
# No tag of a cell is long; what has no end must not be searched for one again and again.
_CELL = re.compile(rb"<(?:\w{1,20}:)?c\s[^<>]{0,200}?\br=[\"']([A-Z]{1,3})(\d{1,7})[\"']")
_REF = re.compile(rb"\br=[\"']([A-Z]{1,3})(\d{1,7})[\"']")
_DAYS_TO_1904 = 1462


@dataclass(frozen=True, slots=True)
class Extent:
    """How far the cells of a sheet reach, and how many there are."""

    rows: int = 0
    columns: int = 0
    cells: int = 0


@dataclass(frozen=True, slots=True)
class Styles:
    """What the workbook says of all its cells."""

    parts: Mapping[str, str]
    """Name of a sheet -> its part in the package."""
    formats: Mapping[int, Format]
    """Index of a cell's style -> what shows its value; those that show it as it is are left out."""
    country_dates: Mapping[int, Format]
    """The same of dates in the order of the reader's country."""
    since_1904: bool = False


def read_styles(package: Package) -> Styles:
    main = package.main_part("xl/workbook.xml")
    root = package.side_xml(main)
    if root is None:
        return Styles({}, {}, {})
    relations = package.relations(main)
    parts = {
        each.get("name", ""): relations.get(each.get(f"{R}id", ""), ("", ""))[1]
        for each in root.iter(f"{S}sheet")
    }
    about = next(root.iter(f"{S}workbookPr"), None)
    since_1904 = about is not None and about.get("date1904", "0") in ("1", "true")
    target = next((target for kind, target in relations.values() if kind == "styles"), "xl/styles.xml")
    styles = package.side_xml(target)
    if styles is None:
        return Styles(parts, {}, {}, since_1904)
    codes = dict(BUILT_IN)
    for each in styles.iter(f"{S}numFmt"):
        if (number := each.get("numFmtId", "")).isdigit():
            codes[int(number)] = each.get("formatCode", "")
    formats: dict[int, Format] = {}
    dates: dict[int, Format] = {}
    used = styles.find(f"{S}cellXfs")
    for index, each in enumerate(() if used is None else used.iterchildren(f"{S}xf")):
        number = each.get("numFmtId", "0")
        identity = int(number) if number.isdigit() else 0
        found = None if identity in _COUNTRY_DATES else compile_format(codes.get(identity, ""))
        if found is not None:
            formats[index] = found
        elif (dated := compile_format(_COUNTRY_DATES.get(identity, ""))) is not None:
            dates[index] = dated
    return Styles(parts, formats, dates, since_1904)


def extent_of(package: Package, part: str) -> Extent:
    """The last row and column that any cell claims to stand in, whatever the sheet says of its size."""
    rows = cells = 0
    columns: set[bytes] = set()
    for piece in _pieces(package, part):
        found = _CELL.findall(piece)
        cells += len(found)
        columns.update({column for column, _ in found})
        # Rows of one sheet ascend, but nobody makes them.
        rows = max(rows, max(map(int, {row for _, row in found}), default=0))
    return Extent(rows, max(map(_column, columns), default=-1) + 1, cells)


def formatted_cells(package: Package, part: str, styles: Styles) -> Iterator[tuple[int, int, Format]]:
    """(row, column, format), counted from 0, of each cell that does not show its value as it is."""
    wanted = {str(index).encode(): format_ for index, format_ in styles.formats.items()}
    if not wanted:
        return
    cell = re.compile(
        rb"<(?:\w{1,20}:)?c\s([^<>]{0,200}?\bs=[\"'](" + b"|".join(wanted) + rb")[\"'][^<>]{0,200})>"
    )
    columns: dict[bytes, int] = {}
    for piece in _pieces(package, part):
        for match in cell.finditer(piece):
            ref = _REF.search(match[1])
            if ref is not None:
                letters = ref[1]
                column = columns.get(letters)
                if column is None:
                    column = columns[letters] = _column(letters)
                yield int(ref[2]) - 1, column, wanted[match[2]]


def scattered_cells(
    package: Package, part: str, styles: Styles
) -> Iterator[tuple[int, int, str | float | bool, Format | None]]:
    """(row, column, value, format) of each cell that holds a value, straight from the file."""
    strings = _shared_strings(package)
    parser = etree.XMLPullParser(
        events=("end",), resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True
    )
    for data in package.chunks(part):
        parser.feed(data)
        for _, element in parser.read_events():
            if etree.QName(element).localname == "row":
                yield from _row(element, strings, styles)
                element.clear()
                # What is read goes: a million empty rows are memory too.
                while element.getprevious() is not None:
                    del element.getparent()[0]


def _row(
    row: Element, strings: list[str], styles: Styles
) -> Iterator[tuple[int, int, str | float | bool, Format | None]]:
    for cell in row.iterchildren():
        match = re.fullmatch(r"([A-Z]{1,3})(\d{1,7})", cell.get("r", ""))
        found = None if match is None else _value(cell, strings)
        if match is None or found is None or found == "":
            continue
        style = int(cell.get("s", "0")) if cell.get("s", "0").isdigit() else 0
        show = styles.formats.get(style) or styles.country_dates.get(style)
        at, column = int(match[2]) - 1, _column(match[1].encode())
        if at < LAST_ROW and column < LAST_COLUMN:
            yield at, column, found, show


def _value(cell: Element, strings: list[str]) -> str | float | bool | None:
    kind = cell.get("t", "n")
    if kind == "inlineStr":
        return "".join(own_text(each) for each in cell.iter("{*}t"))
    held = cell.find("{*}v")
    text = "" if held is None else own_text(held).strip()
    if not text:
        return None
    if kind == "s":
        return strings[int(text)] if text.isdigit() and int(text) < len(strings) else None
    if kind == "b":
        return text == "1"
    if kind != "n":
        return text
    try:
        return float(text)
    except ValueError:
        return text


def _shared_strings(package: Package) -> list[str]:
    main = package.main_part("xl/workbook.xml")
    relations = package.relations(main).values()
    target = next((target for kind, target in relations if kind == "sharedStrings"), "xl/sharedStrings.xml")
    root = package.side_xml(target)
    if root is None:
        return []
    # A reading of the characters (w:rPh in Japanese) is no part of the text.
    return [
        "".join(own_text(t) for t in each.iter(f"{S}t") if t.getparent().tag != f"{S}rPh")
        for each in root.iterchildren(f"{S}si")
    ]


def _pieces(package: Package, part: str) -> Iterator[bytes]:
    """The part in pieces that end before a tag begins."""
    rest = b""
    for data in package.chunks(part):
        data = rest + data
        cut = data.rfind(b"<")
        # A tag of a megabyte is none.
        rest = data[cut:] if cut >= 0 and len(data) - cut < 1 << 20 else b""
        yield data[:cut] if cut > 0 else b""
    yield rest


def _column(letters: bytes) -> int:
    """A is 0, XFD is 16383."""
    index = 0
    for letter in letters:
        index = index * 26 + letter - 64
    return index - 1
