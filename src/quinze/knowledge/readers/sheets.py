"""Excel and OpenDocument sheets: values as a person would read them, every row with the names of its columns.

Place: sheet and cell range. Hidden sheets are read and say so (part "hidden"); comments follow their sheet.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import python_calamine

from quinze.knowledge.document import Block, Document, Place
from quinze.knowledge.readers.detection import damaged, encrypted
from quinze.knowledge.readers.packed import Package
from quinze.knowledge.readers.report import Report
from quinze.knowledge.readers.sheet_notes import notes_of
from quinze.knowledge.readers.sheet_tables import sheet_blocks

Value = str | float | int | bool | datetime.date | datetime.time | datetime.timedelta | None
MOST_CELLS = 30_000_000
_PACKED = ("xlsx", "xlsb", "ods")


def read(path: Path, report: Report) -> Document:
    properties: dict[str, str] = {}
    notes: dict[str, list[Block]] = {}
    if report.format in _PACKED:
        with Package(path, report) as package:
            package.check_sizes()
            if report.format == "xlsx":
                properties = package.properties()
                notes = notes_of(package)
    try:
        workbook = python_calamine.CalamineWorkbook.from_path(str(path))
        blocks = _read_sheets(workbook, report, notes)
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


def _read_sheets(
    workbook: python_calamine.CalamineWorkbook, report: Report, notes: dict[str, list[Block]]
) -> list[Block]:
    blocks: list[Block] = []
    room = report.limits.text_chars
    metadata = workbook.sheets_metadata
    for number, about in enumerate(metadata, start=1):
        report.page(number, len(metadata))
        hidden = about.visible != python_calamine.SheetVisibleEnum.Visible
        place = Place(sheet=about.name, part="hidden" if hidden else None)
        for block in _read_sheet(workbook, about.name, place, report):
            blocks.append(block)
            room -= len(block.text)
            if room < 0:
                return blocks
        blocks += notes.pop(about.name, [])
    return blocks


def _read_sheet(
    workbook: python_calamine.CalamineWorkbook, name: str, place: Place, report: Report
) -> Iterator[Block]:
    try:
        sheet = workbook.get_sheet_by_name(name)
    except (python_calamine.CalamineError, python_calamine.WorksheetNotFound, python_calamine.XmlError):
        # A sheet of its own that holds a chart alone has no cells.
        return
    if sheet.total_height * sheet.total_width > MOST_CELLS:
        report.warn(
            f"Sheet {name} spans {sheet.total_height:,} rows by {sheet.total_width:,} columns; "
            "it was left out."
        )
        return
    rows = [[shown(cell) for cell in row] for row in sheet.to_python(skip_empty_area=False)]
    merged = sheet.merged_cell_ranges or ()
    yield from sheet_blocks(rows, place, merged, report.tick)


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
