"""Sheets: every value stands in the cell that its place names, under its column's name."""

from __future__ import annotations

import datetime
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl.utils import get_column_letter

from quinze.knowledge.document import Block, BlockKind, Document, Place
from quinze.knowledge.readers.csvs import find_delimiter
from quinze.knowledge.readers.sheet_tables import cell_range, column_name, sheet_blocks
from quinze.knowledge.readers.sheets import shown
from quinze.knowledge.readers.workers import Readers

SOURCES = "data/documents/docling/xlsx/sources"


@pytest.fixture(scope="module")
def known(read: Callable[[str], Document]) -> Document:
    return read("known.xlsx")


def test_rows_are_cited_by_their_cells_under_the_names_of_their_columns(
    known: Document, one: Callable[[Document, str], Block]
) -> None:
    row = one(known, "Seal kit")
    assert row.cells == ("Seal kit 密封件", "4", "18.9", "国产")
    assert row.header == ("Part", "Qty", "Price EUR", "备注")
    assert row.place.label() == "sheet Parts 零件, B5:E5"


def test_values_are_as_a_person_would_write_them(
    known: Document, one: Callable[[Document, str], Block]
) -> None:
    assert one(known, "262.35").text == "262.35"
    assert one(known, "2025-03-14").cells == ("2025-03-14", "17.5%", "TRUE")


def test_titles_hidden_sheets_and_comments_say_what_they_are(
    known: Document, one: Callable[[Document, str], Block]
) -> None:
    assert one(known, "TITLE").kind is BlockKind.PARAGRAPH
    assert one(known, "HIDDEN-CELL").place == Place(sheet="Hidden", cells="A1", part="hidden")
    comment = one(known, "CELL-COMMENT")
    assert (comment.kind, comment.place.cells, comment.place.part) == (BlockKind.NOTE, "B4", "comment")


def peer_value(value: object) -> str:
    if isinstance(value, datetime.datetime | bool | int | float | str | datetime.time | datetime.timedelta):
        return " ".join(shown(value).split())
    return ""


@pytest.mark.filterwarnings("ignore:wmf image format")
@pytest.mark.parametrize(
    "name",
    [
        "xlsx_01", "xlsx_05_table_with_title", "xlsx_06_edge_cases_", "xlsx_07_gap_tolerance_",
        "xlsx_08_one_cell_anchor", "xlsx_09_section_label_header", "xlsx_comments", "xlsx_emf",
    ],
)  # fmt: skip
def test_every_cell_that_openpyxl_finds_stands_where_we_say(
    readers: Readers, shared: Callable[[str], Path], name: str
) -> None:
    path = shared(f"{SOURCES}/{name}.xlsx")
    ours: dict[str, list[tuple[int, int, int, int, str]]] = {}
    for block in readers.read(path).blocks:
        if block.place.cells and block.kind is not BlockKind.NOTE:
            bounds = openpyxl.utils.range_boundaries(block.place.cells)
            ours.setdefault(block.place.sheet or "", []).append((*bounds, block.text))
    for sheet in openpyxl.load_workbook(path, data_only=True).worksheets:
        for row in sheet.iter_rows():
            for cell in row:
                if text := peer_value(cell.value):
                    x, y = cell.column, cell.row
                    around = [t for a, b, c, d, t in ours[sheet.title] if a <= x <= c and b <= y <= d]
                    assert any(text in each for each in around), (sheet.title, cell.coordinate, text)


def test_fifty_thousand_rows_are_read_whole(
    read: Callable[[str], Document], made: Callable[[str], Path]
) -> None:
    document = read("big.xlsx")
    peer = openpyxl.load_workbook(made("big.xlsx"), read_only=True)
    last = document.blocks[-1]
    assert len(document.blocks) == 50_000
    assert last.place.cells is not None
    assert last.place.cells.startswith("A50000:")
    first_rows = peer.worksheets[0].iter_rows(max_row=3, values_only=True)
    for block, row in zip(document.blocks, first_rows, strict=False):
        assert list(block.cells) == [peer_value(value) for value in row]


def test_old_excel_files_read_like_new_ones(readers: Readers, shared: Callable[[str], Path]) -> None:
    old, new = (
        readers.read(shared(f"data/documents/markitdown/test.{suffix}")) for suffix in ("xls", "xlsx")
    )
    assert [block.cells for block in old.blocks] == [block.cells for block in new.blocks]


@pytest.mark.parametrize("name", ["known_gb18030", "known_utf-16", "known_utf-8", "known_utf-8-sig"])
def test_csv_in_any_encoding(read: Callable[[str], Document], name: str) -> None:
    document = read(f"{name}.csv")
    assert document.format == "csv"
    assert len(document.blocks) == 201
    assert document.blocks[1].header == ("id", "name", "note")
    assert document.blocks[1].cells == (
        "0",
        "零件0",
        "混合检索把关键词匹配与稠密向量结合起来，以便找到相关段落。",
    )
    assert document.blocks[200].place.cells == "A201:C201"


@pytest.mark.parametrize(
    ("content", "delimiter"),
    [
        ("a,b\n1,2\n", ","), ("a;b\n1,5;2,5\n3,5;4,5\n", ";"), ("a\tb, c\n1\t2\n", "\t"),
        ("a|b|c\n1|2|3\n", "|"),
        ('a,b\n"x;y;z","u;v;w"\n', ","), ("sep=;\na;b\n", ";"), ("only\none\ncolumn\n", ","),
    ],
)  # fmt: skip
def test_the_delimiter_is_the_one_that_makes_a_table(content: str, delimiter: str) -> None:
    assert find_delimiter(content)[1] == delimiter


def test_quoted_cells_hold_delimiters_and_line_ends(tmp_path: Path, readers: Readers) -> None:
    path = tmp_path / "a.csv"
    path.write_text('name,remark\n"Lozano, Dr","first line\nsecond ""line"""\nRoss,none\n', "utf-8")
    rows = readers.read(path).blocks
    assert rows[1].cells == ("Lozano, Dr", 'first line second "line"')
    assert rows[2].place.cells == "A3:B3"


def rows_of(*lines: str) -> list[list[str]]:
    return [line.split(",") for line in lines]


def test_tables_side_by_side_are_two_and_a_form_is_one() -> None:
    two = rows_of("year,rain,,,city,size", "2020,80,,,Bern,5", "2021,90,,,Rome,9")
    assert {block.header for block in sheet_blocks(two, Place()) if block.header} == {
        ("year", "rain"),
        ("city", "size"),
    }
    form = rows_of("1,Voltage,,kV,:,130", "2,Phases,,,:,3")
    assert [block.cells for block in sheet_blocks(form, Place())] == [
        ("1", "Voltage", "kV", ":", "130"),
        ("2", "Phases", "", ":", "3"),
    ]


def test_a_blank_row_within_a_table_does_not_cost_the_rest_its_header() -> None:
    rows = rows_of("part,price", "bolt,3", "nut,2", "", "screw,4", "washer,1")
    screw = next(block for block in sheet_blocks(rows, Place()) if block.cells[:1] == ("screw",))
    assert screw.header == ("part", "price")
    assert screw.place.cells == "A5:B5"


def test_names_over_two_rows_are_joined() -> None:
    rows = rows_of("city,2024,,2025,", ",Q1,Q2,Q1,Q2", "Bern,1,2,3,4", "Rome,5,6,7,8")
    merged = [((0, 1), (0, 2)), ((0, 3), (0, 4)), ((0, 0), (1, 0))]
    last = list(sheet_blocks(rows, Place(), merged))[-1]
    assert last.header == ("city", "2024 / Q1", "2024 / Q2", "2025 / Q1", "2025 / Q2")


@given(st.integers(min_value=0, max_value=16_383))
def test_columns_are_named_as_openpyxl_names_them(index: int) -> None:
    assert column_name(index) == get_column_letter(index + 1)


@given(st.lists(st.lists(st.sampled_from(["", "a", "7", "name", "2020-01-01"]), max_size=7), max_size=12))
def test_no_cell_is_lost_and_none_is_read_twice(rows: list[list[str]]) -> None:
    """Whatever the layout, each filled cell lies in the place of exactly one block."""
    places = [openpyxl.utils.range_boundaries(block.place.cells) for block in sheet_blocks(rows, Place())]
    for y, row in enumerate(rows, start=1):
        for x, cell in enumerate(row, start=1):
            if cell:
                assert sum(left <= x <= right and top <= y <= low for left, top, right, low in places) == 1


@given(st.floats(min_value=-1e300, max_value=1e300))
def test_numbers_keep_fifteen_digits(value: float) -> None:
    assert float(shown(value)) == pytest.approx(value, rel=1e-14, abs=0)
    assert not re.search(r"\.0$", shown(value))


def test_ranges_are_written_as_spreadsheets_do() -> None:
    assert cell_range(6, 0, 6, 3) == "A7:D7"
    assert cell_range(2, 27, 2, 27) == "AB3"


ODS = {
    "office": "urn:oasis:names:tc:opendocument:xmlns:office:1.0",
    "table": "urn:oasis:names:tc:opendocument:xmlns:table:1.0",
    "text": "urn:oasis:names:tc:opendocument:xmlns:text:1.0",
}


def write_ods(path: Path, rows: str) -> Path:
    spaces = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in ODS.items())
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr("META-INF/manifest.xml", "<manifest/>")
        archive.writestr(
            "content.xml",
            f"<office:document-content {spaces}><office:body><office:spreadsheet>"
            f'<table:table table:name="Städte">{rows}</table:table>'
            "</office:spreadsheet></office:body></office:document-content>",
        )
    return path


def ods_row(*cells: tuple[str, str, str], times: int = 1) -> str:
    """Cells as (type, value, what LibreOffice shows)."""
    row = "".join(
        f'<table:table-cell office:value-type="{kind}" office:{name}="{value}"><text:p>{shown}</text:p>'
        "</table:table-cell>"
        if kind != "string"
        else f'<table:table-cell office:value-type="string"><text:p>{shown}</text:p></table:table-cell>'
        for kind, value, shown in cells
        for name in ["date-value" if kind == "date" else "value"]
    )
    return f'<table:table-row table:number-rows-repeated="{times}">{row}</table:table-row>'


def test_opendocument_sheets_are_read(tmp_path: Path, readers: Readers) -> None:
    rows = (("城市", "人口"), ("Bern", "134"), ("Rome", "2750"))
    source = "".join(
        ods_row(("string", "", city), ("float" if size.isdigit() else "string", size, size))
        for city, size in rows
    )
    last = readers.read(write_ods(tmp_path / "a.ods", source)).blocks[-1]
    assert (last.cells, last.header) == (("Rome", "2750"), ("城市", "人口"))
    assert last.place.label() == "sheet Städte, A3:B3"


def test_opendocument_cells_are_read_as_they_are_seen(tmp_path: Path, readers: Readers) -> None:
    """The texts are those that LibreOffice writes beside these values."""
    source = ods_row(*(("string", "", name) for name in ("City", "Rent", "Share", "Since")))
    bern = (("string", "", "Bern"), ("currency", "1250", "€1,250.00"), ("percentage", "0.25", "25%"))
    source += ods_row(*bern, ("date", "2025-03-14", "14 Mar 2025"), times=2)
    source += ods_row(("string", "", "Rome"), ("float", "12", "12 kg"))
    blocks = readers.read(write_ods(tmp_path / "a.ods", source)).blocks
    assert [block.cells for block in blocks[1:]] == [
        ("Bern", "€1,250.00", "25%", "14 Mar 2025"), ("Bern", "€1,250.00", "25%", "14 Mar 2025"),
        ("Rome", "12 kg", "", ""),
    ]  # fmt: skip
    assert blocks[1].header == ("City", "Rent", "Share", "Since")
