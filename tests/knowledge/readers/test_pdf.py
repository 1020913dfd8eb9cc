"""PDF: the sentences that were written into a file come out, whole, in order and with their place.

Oracles: the known text from which the files were made; PDFium's own character boxes and search.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pypdfium2
import pytest

from quinze.errors import DocumentError, EncryptedDocumentError
from quinze.knowledge.document import Block, BlockKind, Box, Document
from quinze.knowledge.readers.pdf import read
from quinze.knowledge.readers.report import Report

Shared = Callable[[str], Path]


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def made(shared: Shared, name: str) -> Document:
    path = shared(f"data/documents/made/{name}")
    return read(path, Report(name, "pdf"))


@pytest.fixture(scope="module")
def known() -> Callable[[Shared], dict[str, Any]]:
    def load(shared: Shared) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(
            shared("data/documents/made/known.json").read_text(encoding="utf-8")
        )
        return data

    return load


def sentences(known: dict[str, Any]) -> list[str]:
    """The sixteen sentences in the order in which they were written: English and Chinese in turn."""
    return [sentence for pair in zip(known["EN"], known["ZH"], strict=True) for sentence in pair]


@pytest.mark.parametrize(
    "name",
    [
        "onecol.pdf",
        "twocol.pdf",
        "twocol_cid.pdf",
        "twocol_interleaved.pdf",
        "reverse_order.pdf",
        "rot90.pdf",
        "enc_owner_only.pdf",
        "bad_xref.pdf",
    ],
)
def test_all_known_sentences_are_found_in_order(name: str, shared: Shared, known: Any) -> None:
    text = squeezed("\n".join(b.text for b in made(shared, name).blocks))
    places = [text.find(squeezed(sentence)) for sentence in sentences(known(shared))]
    assert min(places) >= 0, f"{sum(p >= 0 for p in places)} of 16 found"
    assert places == sorted(places)


@pytest.mark.parametrize("name", ["twocol.pdf", "twocol_cid.pdf", "twocol_interleaved.pdf"])
def test_a_sentence_of_a_column_is_never_mixed_with_its_neighbour(
    name: str, shared: Shared, known: Any
) -> None:
    wanted = {squeezed(s) for s in sentences(known(shared))}
    whole = {squeezed(b.text) for b in made(shared, name).blocks if b.kind is BlockKind.PARAGRAPH}
    assert wanted <= whole


@pytest.mark.parametrize(("name", "tables"), [("onecol.pdf", 2), ("twocol.pdf", 1), ("twocol_cid.pdf", 1)])
def test_ruled_and_borderless_tables_have_every_cell(
    name: str, tables: int, shared: Shared, known: Any
) -> None:
    rows = [b for b in made(shared, name).blocks if b.kind is BlockKind.TABLE_ROW]
    expected = [tuple(row) for row in known(shared)["TAB"]]
    assert len({b.place.table for b in rows}) == tables
    for table in {b.place.table for b in rows}:
        own = [b for b in rows if b.place.table == table]
        assert [b.cells for b in own] == expected
        assert [b.place.row for b in own] == [1, 2, 3, 4]
        assert all(b.header == expected[0] for b in own[1:])


def test_running_headers_and_footers_are_marked_and_headings_make_paths(shared: Shared) -> None:
    document = made(shared, "twocol.pdf")
    parts = [(b.place.part, b.text) for b in document.blocks if b.place.part]
    assert parts == [
        ("header", "HEADER-MARK 季度报告"),
        ("footer", "FOOTER-MARK Page 1"),
        ("header", "HEADER-MARK 季度报告"),
        ("footer", "FOOTER-MARK Page 2"),
    ]
    assert not any("MARK" in b.text for b in document.blocks if b.place.part is None)
    headings = [b.text for b in document.blocks if b.kind is BlockKind.HEADING]
    assert headings == ["1 Heading 标题 1", "2 Heading 标题 2"]
    [claim] = [b for b in document.blocks if "SN-48213-KX and" in b.text]
    assert claim.place.heading == ("1 Heading 标题 1",)
    assert claim.place.label() == "page 1, 1 Heading 标题 1"


def test_three_hundred_pages_are_read_each_with_its_number(shared: Shared) -> None:
    seen: list[tuple[int, int | None]] = []
    path = shared("data/documents/made/big.pdf")
    report = Report("big.pdf", "pdf", send=lambda page, pages: seen.append((page, pages)))
    document = read(path, report)
    assert document.pages == 300
    assert seen == [(n, 300) for n in range(1, 301)]
    assert not any(b.place.part for b in document.blocks), "repeated sentences of the text are no headers"
    # The file numbers its lines "page.line": each stands on its page.
    numbered = [(re.match(r"(\d+)\.\d+ ", b.text), b) for b in document.blocks]
    matched = [(int(m.group(1)), b) for m, b in numbered if m]
    assert len(matched) > 6_000
    assert all(b.place.page == n + 1 for n, b in matched)


@pytest.mark.parametrize("name", ["enc_rc4.pdf", "enc_aes256.pdf"])
def test_a_locked_file_is_named_as_such(name: str, shared: Shared) -> None:
    with pytest.raises(EncryptedDocumentError, match="password"):
        made(shared, name)


@pytest.mark.parametrize("name", ["bad_empty.pdf", "bad_random.pdf", "bad_trunc.pdf"])
def test_a_broken_file_is_refused_with_its_name(name: str, shared: Shared) -> None:
    with pytest.raises(DocumentError, match=name):
        made(shared, name)


def test_sparse_borderless_rows_keep_their_columns(shared: Shared) -> None:
    path = shared("data/documents/markitdown/SPARSE-2024-INV-1234_borderless_table.pdf")
    rows = [b for b in read(path, Report(path.name, "pdf")).blocks if b.kind is BlockKind.TABLE_ROW]
    first = [b for b in rows if b.place.page == 1]
    assert first[0].cells == ("Product Code", "Location", "Expected", "Actual", "Variance", "Status")
    assert [b.cells for b in first[1:4]] == [
        ("SKU-8847", "A-12", "450", "", "", ""),
        ("", "B-07", "", "289", "-23", ""),
        ("SKU-9201", "", "780", "778", "", "OK"),
    ]
    assert all(b.header == first[0].cells for b in first[1:])
    [pending] = [b for b in rows if "SKU-5512" in b.cells]
    assert dict(zip(pending.header, pending.cells, strict=True))["Total Value"] == "$31,150.00"


def text_within(path: Path, block: Block, box: Box) -> str:
    """What PDFium itself finds in a box of the block."""
    document = pypdfium2.PdfDocument(path)
    page = document[(block.place.page or 1) - 1]
    left, bottom, right, top = page.get_bbox()
    corners = [(box.left, box.top), (box.right, box.bottom)]
    rotation = page.get_rotation()
    turned = {
        0: lambda x, y: (x, 1 - y),
        90: lambda x, y: (y, x),
        180: lambda x, y: (1 - x, y),
        270: lambda x, y: (1 - y, 1 - x),
    }[rotation]
    points = [turned(x, y) for x, y in corners]
    xs = sorted(left + x * (right - left) for x, _ in points)
    ys = sorted(bottom + y * (top - bottom) for _, y in points)
    text: str = page.get_textpage().get_text_bounded(xs[0] - 1, ys[0] - 1, xs[1] + 1, ys[1] + 1)
    document.close()
    return text


@pytest.mark.parametrize(
    "name",
    [
        "made/onecol.pdf",
        "made/twocol_interleaved.pdf",
        "made/rot90.pdf",
        "py-pdf/026-latex-multicolumn/multicolumn.pdf",
        "markitdown/SPARSE-2024-INV-1234_borderless_table.pdf",
    ],
)
def test_a_box_holds_its_own_text_and_no_other(name: str, shared: Shared) -> None:
    path = shared(f"data/documents/{name}")
    checked = 0
    torn: list[tuple[str, str]] = []
    for block in read(path, Report(name, "pdf")).blocks:
        within = re.sub(r"[^\w]", "", "".join(text_within(path, block, box) for box in block.place.boxes))
        own = re.sub(r"[^\w]", "", block.text)
        if len(own) > 8:
            checked += 1
            if sorted(within) != sorted(own):
                torn.append((within, own))
    assert checked > 8
    # A sentence over the foot of a page is given to the one before; its boxes stay where they are drawn.
    assert len(torn) == 2 * name.startswith("markitdown/SPARSE")
    for (giver_within, giver_own), (taker_within, taker_own) in zip(torn[::2], torn[1::2], strict=True):
        assert sorted(giver_within + taker_within) == sorted(giver_own + taker_own)
        assert giver_own.startswith(giver_within[:40])
        assert taker_within.endswith(taker_own[-40:])


def test_hyphens_at_line_ends_are_undone(shared: Shared) -> None:
    path = shared("data/documents/py-pdf/026-latex-multicolumn/multicolumn.pdf")
    document = read(path, Report(path.name, "pdf"))
    text = " ".join(b.text for b in document.blocks if b.kind is not BlockKind.TABLE_ROW)
    assert "consectetuer adipiscing elit. Ut purus elit, vestibulum ut" in text
    assert not re.search(r"[\u00ad\ufffe\x02]", text)
    # Left column first, then the right one, then the next page.
    in_turn = ("Ut purus elit", "Nulla malesuada porttitor", "Quisque ullamcorper placerat")
    order = [text.find(words) for words in in_turn]
    assert order == sorted(order)
    assert order[0] > 0
    rows = [b.cells for b in document.blocks if b.kind is BlockKind.TABLE_ROW]
    assert ("Denmark", "5.8", "42,951", "Copenhagen", "Danish") in rows


def test_the_outline_gives_headings_their_level(shared: Shared) -> None:
    path = shared("data/documents/py-pdf/006-pdflatex-outline/pdflatex-outline.pdf")
    outline = {(entry.get_title(), entry.level + 1) for entry in pypdfium2.PdfDocument(path).get_toc()}
    blocks = read(path, Report(path.name, "pdf")).blocks
    found = {(re.sub(r"^[\d.]+ ", "", b.text), b.level) for b in blocks if b.kind is BlockKind.HEADING}
    assert len(outline & found) >= 0.8 * len(outline)


def test_comments_and_form_values_are_notes(shared: Shared) -> None:
    path = shared("data/documents/py-pdf/024-annotations/annotated_pdf.pdf")
    notes = [b for b in read(path, Report(path.name, "pdf")).blocks if b.kind is BlockKind.NOTE]
    assert notes
    assert all(b.place.part == "comment" and b.place.boxes for b in notes)


def test_right_to_left_words_are_kept(shared: Shared) -> None:
    path = shared("data/documents/docling/pdf/sources/right_to_left_01.pdf")
    text = " ".join(b.text for b in read(path, Report(path.name, "pdf")).blocks)
    page = pypdfium2.PdfDocument(path)[0]
    words = set(re.findall(r"[\u0600-\u06ff]{4,}", page.get_textpage().get_text_bounded()))
    assert len(words) > 50
    assert len([word for word in words if word in text]) > 0.95 * len(words)


def test_what_is_printed_over_a_table_is_no_part_of_its_cells(shared: Shared) -> None:
    """The footer of this order runs through its last table; PDFium's own objects keep the two apart."""
    path = shared("data/documents/markitdown/movie-theater-booking-2024.pdf")
    blocks = read(path, Report(path.name, "pdf")).blocks
    rows = [b.cells for b in blocks if b.kind is BlockKind.TABLE_ROW]
    assert (
        "1",
        "SCR-1",
        "12/20-12/25",
        "Holiday Spectacular",
        "7:00 PM",
        "Daily",
        "PM",
        "$250",
        "$3,000",
    ) in rows
    assert (
        "2",
        "SCR-2",
        "12/20-12/31",
        "Winter Wonderland",
        "4:30 PM",
        "Daily",
        "MT",
        "$150",
        "$3,600",
    ) in rows
    [foot] = [b.text for b in blocks if "subject to cinema availability" in b.text]
    assert foot == (
        "This booking order is subject to cinema availability and standard terms. "
        "All showtimes are approximate and subject to change."
    )
