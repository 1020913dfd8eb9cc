"""Excel cells are read as a person sees them.

The oracles: the examples of Microsoft's own page on number formats and of ECMA-376, written down here as they
stand there; what LibreOffice Calc shows of the same cells; openpyxl, which writes the files.
"""

from __future__ import annotations

import datetime
import zipfile
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quinze.knowledge.document import BlockKind, Document
from quinze.knowledge.readers.sheet_formats import BUILT_IN, compile_format
from quinze.knowledge.readers.workers import Readers

NOON = datetime.datetime(2025, 3, 14, 8, 30, 5)  # noqa: DTZ001 -- clocks of a sheet have no zone

# As Microsoft documents them ("Review guidelines for customizing a number format").
MICROSOFT = [
    ("####.#", 1234.59, "1234.6"), ("#.000", 8.9, "8.900"), ("0.#", 0.631, "0.6"),
    ("#.0#", 12, "12.0"), ("#.0#", 1234.568, "1234.57"), ("#,###", 12000, "12,000"), ("#,", 12000, "12"),
    ("0.0,,", 12200000, "12.2"), ("# ???/???", 5.25, "5 1/4"), ("0.00E+00", 12200000, "1.22E+07"),
    ("#0.0E+0", 12200000, "12.2E+6"), ("0%", 0.08, "8%"), ("0.00%", 0.028, "2.80%"), ("00000", 123, "00123"),
    ('$0.00" Surplus";$-0.00" Shortage"', 125.74, "$125.74 Surplus"),
    ('$0.00" Surplus";$-0.00" Shortage"', -125.74, "$-125.74 Shortage"),
    ('"gross receipts for "@', "June", "gross receipts for June"),
]  # fmt: skip

# What LibreOffice Calc 7.4 shows (`soffice --convert-to html`).
LIBREOFFICE = [
    ("#,##0.00", 1234567.891, "1,234,567.89"), ("#,##0.00", 1.005, "1.01"), ("0%", 0.25, "25%"),
    ("0.00", -0.001, "0.00"), ("#,##0;(#,##0)", -1250.5, "(1,251)"),
    ('_($* #,##0.00_);_($* (#,##0.00);_($* "-"??_);_(@_)', 1250, "$1,250.00"),
    ('_($* #,##0.00_);_($* (#,##0.00);_($* "-"??_);_(@_)', 0, "$-"),
    ("[$€-407] #,##0.00", -1, "-€ 1.00"), ("#,##0.00 [$€-407]", 1250, "1,250.00 €"),
    ("[$¥-804]#,##0.00", 1250, "¥1,250.00"), ("000-00-0000", 123456789, "123-45-6789"),
    ("[<=9999999]###-####;(###) ###-####", 5551234567, "(555) 123-4567"),
    ("[<=9999999]###-####;(###) ###-####", 5551234, "555-1234"), ('0 "kg"', 12, "12 kg"),
    ('0.0,"K"', 123000, "123.0K"), ('General" units"', 2.75, "2.75 units"), ("+0;-0;0", 12, "+12"),
    ("##0.0E+0", 1234567.891, "1.2E+6"), ("##0.0E+0", 12345.6, "12.3E+3"), ("# ?/8", 0.354166667, "3/8"),
    ('0.00"元"', 12, "12.00元"), ('0"°C"', -1, "-1°C"), ("0;;", -1, ""),
    ("yyyy-mm-dd", NOON, "2025-03-14"), ("d mmm yyyy", NOON, "14 Mar 2025"), ("m/d/yyyy", NOON, "3/14/2025"),
    ("dddd, mmmm d, yyyy", NOON, "Friday, March 14, 2025"), ("hh:mm", NOON, "08:30"),
    ("h:mm AM/PM", NOON, "8:30 AM"), ("mm:ss", NOON, "30:05"), ("hh:mm:ss.00", NOON, "08:30:05.00"),
    ("[h]:mm", 61.25, "1470:00"), ("[h]:mm:ss", datetime.timedelta(hours=36), "36:00:00"),
    ('yyyy"年"m"月"d"日"', NOON, "2025年3月14日"), ("[$-409]d-mmm-yy;@", NOON, "14-Mar-25"),
    ("yyyy\\-mm\\-dd\\Thh:mm:ss", NOON, "2025-03-14T08:30:05"), ('h"h"mm"m"', 0.5, "12h00m"),
    ("dd.mm.yyyy hh:mm", 45730.354166667, "14.03.2025 08:30"), ("mmmmm", NOON, "M"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "value", "seen"), [*MICROSOFT, *LIBREOFFICE])
def test_a_value_is_written_as_others_write_it(code: str, value: float, seen: str) -> None:
    show = compile_format(code)
    assert show is not None
    assert " ".join((show(value) or "").split()) == seen


# openpyxl's 44 lacks its semicolons, and its 47 the colon that Excel shows.
@pytest.mark.parametrize("number", sorted(BUILT_IN.keys() - {44, 47}))
def test_the_formats_that_need_no_spelling_are_those_of_openpyxl(number: int) -> None:
    """Equal in what they show; openpyxl keeps the blanks that align columns."""
    ours, peer = (
        compile_format(BUILT_IN[number]),
        compile_format(openpyxl.styles.numbers.BUILTIN_FORMATS[number]),
    )
    assert ours is not None
    assert peer is not None
    for value in (1250.5, 0.25, 45730.35):
        assert str(ours(value)).replace(" ", "") == str(peer(value)).replace(" ", "")


@given(st.text(alphabet='0#?.,%;[]$€"\\_*@/ymdhsEe+-<=>1 Generalkg', max_size=20), st.floats(allow_nan=False))
def test_no_format_and_no_number_is_too_odd(code: str, value: float) -> None:
    show = compile_format(code)
    assert show is None or isinstance(show(value), str | None)


def sheet(path: Path) -> Path:
    """A price list whose cells hold plain numbers under many formats."""
    book = openpyxl.Workbook()
    page = book.active
    page.title = "Prices"
    page.append(["Part", "Price", "Share", "Since", "Opens", "Code", "Weight", "Dose"])
    for row in (
        ["Bolt", 1250, 0.25, datetime.date(2025, 3, 14), datetime.time(8, 30), 123, 12, 120000],
        ["Nut", 0.5, 0.075, datetime.date(2024, 12, 1), datetime.time(17, 5), 45, 3.5, 0.00012],
    ):
        page.append(row)
    codes = ["[$€-2]#,##0.00", "0.0%", "d mmm yyyy", "hh:mm", "00000", '0.0 "kg"', "0.0E+00"]
    for row in page.iter_rows(min_row=2, min_col=2):
        for cell, code in zip(row, codes, strict=True):
            cell.number_format = code
    book.save(path)
    return path


def test_a_row_is_read_as_it_is_seen(readers: Readers, tmp_path: Path) -> None:
    rows = readers.read(sheet(tmp_path / "a.xlsx")).blocks
    seen = ("Bolt", "€1,250.00", "25.0%", "14 Mar 2025", "08:30", "00123", "12.0 kg", "1.2E+05")
    assert rows[1].cells == seen
    assert rows[2].cells == ("Nut", "€0.50", "7.5%", "1 Dec 2024", "17:05", "00045", "3.5 kg", "1.2E-04")
    assert rows[1].header == rows[0].cells


def test_a_date_in_each_countrys_own_order_is_written_in_the_one_that_nobody_misreads(
    readers: Readers, tmp_path: Path
) -> None:
    path = tmp_path / "a.xlsx"
    book = openpyxl.Workbook()
    book.active["A1"], book.active["A2"] = NOON.date(), NOON
    book.active["A1"].number_format = openpyxl.styles.numbers.BUILTIN_FORMATS[14]
    book.active["A2"].number_format = openpyxl.styles.numbers.BUILTIN_FORMATS[22]
    book.save(path)
    assert [block.text for block in readers.read(path).blocks] == ["2025-03-14", "2025-03-14 08:30:05"]


def test_a_cell_in_the_far_corner_is_read_without_those_between(readers: Readers, tmp_path: Path) -> None:
    path = sheet(tmp_path / "a.xlsx")
    book = openpyxl.load_workbook(path)
    corner = book["Prices"]["XFD1048576"]
    corner.value, corner.number_format = 0.5, "0%"
    book["Prices"]["XFC1048576"] = "stray words"
    book.save(path)
    document = readers.read(path)
    assert document.blocks[1].cells[:4] == ("Bolt", "€1,250.00", "25.0%", "14 Mar 2025")
    assert document.blocks[-1].cells == ("stray words", "50%")
    assert document.blocks[-1].place.label() == "sheet Prices, XFC1048576:XFD1048576"
    assert document.warnings == ()


def test_scattered_and_dense_sheets_read_alike(
    readers: Readers, tmp_path: Path, made: Callable[[str], Path]
) -> None:
    """The same sheet, once with one cell far away."""
    near: Document = readers.read(made("known.xlsx"))
    book = openpyxl.load_workbook(made("known.xlsx"), data_only=True)
    name = book.sheetnames[0]
    book[name]["A1048576"], book[name]["XFD1048576"] = "far", "away"
    path = tmp_path / "far.xlsx"
    book.save(path)
    far = readers.read(path)

    def rows(document: Document) -> list[tuple[str, tuple[str, ...]]]:
        own = (block for block in document.blocks if block.place.sheet == name)
        return [(block.text, block.header) for block in own if block.kind is not BlockKind.NOTE]

    assert rows(far) == [*rows(near), ("far | away", ())]


def test_without_styles_the_values_are_left(readers: Readers, tmp_path: Path) -> None:
    path = sheet(tmp_path / "a.xlsx")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "b.xlsx", "w") as new:
        for name in old.namelist():
            if name != "xl/styles.xml":
                new.writestr(name, old.read(name))
    assert readers.read(tmp_path / "b.xlsx").blocks[1].cells[:3] == ("Bolt", "1250", "0.25")
