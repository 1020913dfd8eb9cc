"""Excel and OpenDocument sheets: values as a person sees them, every row with the names of its columns.

Number formats are applied (25%, €1,250.00, 08:30), except in Excel's old and binary files, whose values are
written plainly. Place: sheet and cell range. Hidden sheets are read and say so (part "hidden"); comments
follow their sheet.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path

import python_calamine

from quinze.knowledge.document import Block, Document, Place
from quinze.knowledge.readers.detection import damaged, encrypted
from quinze.knowledge.readers.packed import Package
from quinze.knowledge.readers.report import Report
from quinze.knowledge.readers.sheet_cells import (
    Extent,
    Styles,
    extent_of,
    formatted_cells,
    read_styles,
    scattered_cells,
)
from quinze.knowledge.readers.sheet_formats import Value
from quinze.knowledge.readers.sheet_notes import notes_of
from quinze.knowledge.readers.sheet_ods import Seen, seen_cells
from quinze.knowledge.readers.sheet_tables import sheet_blocks
from quinze.knowledge.readers.tables import Typed

MOST_CELLS = 30_000_000
DENSE_CELLS = 2_000_000
DENSE_SHARE = 20
"""Up to so many cells, or so many for each one that is filled, a sheet is laid out whole."""
_PACKED = ("xlsx", "xlsb", "ods")


def read(path: Path, report: Report) -> Document:
    if report.format not in _PACKED:
        return _read(path, report, None)
    with Package(path, report) as package:
        package.check_sizes()
        seen = seen_cells(package) if report.format == "ods" else {}
        return _read(path, report, package if report.format == "xlsx" else None, seen)


def _read(path: Path, report: Report, package: Package | None, seen: Seen | None = None) -> Document:
    properties: dict[str, str] = {} if package is None else package.properties()
    try:
        workbook = python_calamine.CalamineWorkbook.from_path(str(path))
        blocks = list(_Sheets(workbook, report, package, seen or {}).read())
        sheets = len(workbook.sheet_names)
    except python_calamine.PasswordError:
        raise encrypted(report.name) from None
    except (python_calamine.CalamineError, python_calamine.ZipError, python_calamine.XmlError) as error:
        raise damaged(report.name, report.format, str(error)[:200] or "its sheets cannot be read") from None
    return Document(
        report.format or "xlsx",
        tuple(blocks),
        title=properties.get("title", ""),
        pages=sheets,
        properties=properties,
    )


class _Sheets:
    """The sheets of one workbook, read one after another."""

    def __init__(
        self,
        workbook: python_calamine.CalamineWorkbook,
        report: Report,
        package: Package | None,
        seen: Seen,
    ) -> None:
        self._workbook = workbook
        self._report = report
        self._package = package
        self._seen = seen
        self._styles = Styles({}, {}, {}) if package is None else read_styles(package)
        self._notes: dict[str, list[Block]] = {} if package is None else notes_of(package)

    def read(self) -> Iterator[Block]:
        room = self._report.limits.text_chars
        metadata = self._workbook.sheets_metadata
        for number, about in enumerate(metadata, start=1):
            self._report.page(number, len(metadata))
            hidden = about.visible != python_calamine.SheetVisibleEnum.Visible
            place = Place(sheet=about.name, part="hidden" if hidden else None)
            for block in self._sheet(about.name, place):
                yield block
                room -= len(block.text)
                if room < 0:
                    return
            yield from self._notes.pop(about.name, [])

    def _sheet(self, name: str, place: Place) -> Iterator[Block]:
        part = self._styles.parts.get(name, "")
        extent = Extent()
        if self._package is not None and part:
            extent = extent_of(self._package, part)
            # What is mostly empty is not laid out: a cell in the far corner makes it 17 thousand million.
            if extent.rows * extent.columns > max(DENSE_CELLS, DENSE_SHARE * extent.cells):
                yield from sheet_blocks(self._scattered(name, part), place, tick=self._report.tick)
                return
        try:
            sheet = self._workbook.get_sheet_by_name(name)
        except (python_calamine.CalamineError, python_calamine.WorksheetNotFound, python_calamine.XmlError):
            # A sheet of its own that holds a chart alone has no cells.
            return
        if sheet.total_height * sheet.total_width > MOST_CELLS:
            self._leave_out(name, sheet.total_height, sheet.total_width)
            return
        values = sheet.to_python(skip_empty_area=False)
        rows = [[plain(cell) for cell in row] for row in values]
        self._format(name, part, values, rows)
        yield from sheet_blocks(rows, place, sheet.merged_cell_ranges or (), self._report.tick)

    def _format(self, name: str, part: str, values: Sequence[Sequence[Value]], rows: list[list[str]]) -> None:
        """Write into `rows` what is seen of `values`."""
        if self._package is not None and part:
            for at, column, show in formatted_cells(self._package, part, self._styles):
                if at < len(values) and column < len(values[at]):
                    seen = show(values[at][column])
                    if seen is not None:
                        rows[at][column] = _tidy(values[at][column], seen)
        for at, column, text in self._seen.get(name, ()):
            if at < len(rows) and column < len(rows[at]) and rows[at][column]:
                rows[at][column] = Typed(text)

    def _scattered(self, name: str, part: str) -> list[list[str]]:
        """Rows as long as their last cell; those without one are empty."""
        if self._package is None:
            return []
        rows: list[list[str]] = []
        nothing: list[str] = []
        room = MOST_CELLS
        for at, column, value, show in scattered_cells(self._package, part, self._styles):
            if at >= len(rows):
                rows += [nothing] * (at + 1 - len(rows))
            if rows[at] is nothing:
                rows[at] = []
            missing = column + 1 - len(rows[at])
            room -= max(0, missing)
            if room < 0:
                self._leave_out(name, at + 1, column + 1)
                return []
            rows[at] += [""] * missing
            seen = show(value) if show is not None else None
            rows[at][column] = plain(value) if seen is None else _tidy(value, seen)
        return rows

    def _leave_out(self, name: str, rows: int, columns: int) -> None:
        self._report.warn(
            f"Sheet {name} spans {rows:,} rows by {columns:,} columns; it was left out. "
            "Export what matters of it as CSV."
        )


def plain(value: Value) -> str:
    """`shown`, and marked if it is no text."""
    return shown(value) if isinstance(value, str) or value is None else Typed(shown(value))


def _tidy(value: Value, seen: str) -> str:
    seen = " ".join(seen.split())
    return seen if isinstance(value, str) else Typed(seen)


def shown(value: Value) -> str:
    """A cell as a person would write it: 262.34999999999997 is 262.35, 12.0 is 12, a date is 2025-03-14."""
    if isinstance(value, str):
        return value.strip()
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, datetime.datetime):
        if value.time() == datetime.time():
            return value.date().isoformat()
        return value.replace(microsecond=0).isoformat(" ").removesuffix(":00")
    if isinstance(value, datetime.time):
        return value.replace(microsecond=0).isoformat()
    if isinstance(value, datetime.timedelta):
        hours, rest = divmod(round(value.total_seconds()), 3600)
        return f"{hours}:{rest // 60:02}:{rest % 60:02}"
    return value.isoformat()


def _number(value: float) -> str:
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.15g}"
