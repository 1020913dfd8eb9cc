"""OCR: pictures of known text, clean, noisy, tilted and turned. The oracle is the text that was drawn."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pypdfium2
import pytest
from PIL import Image
from reportlab.pdfgen import canvas

from quinze.knowledge.document import Block, BlockKind, Document
from quinze.knowledge.readers import image, ocr, pdf
from quinze.knowledge.readers.report import Report

Shared = Callable[[str], Path]

pytestmark = pytest.mark.slow


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def error_rate(found: str, truth: str) -> float:
    """Levenshtein distance by characters, blanks ignored."""
    a, b = squeezed(found), squeezed(truth)
    row = np.arange(len(b) + 1)
    letters = np.frombuffer(b.encode("utf-32-le"), dtype=np.uint32)
    for i, char in enumerate(a, 1):
        best = np.minimum(row[1:] + 1, row[:-1] + (letters != ord(char)))
        new = np.concatenate([[i], best])
        # An insertion costs one more than its left neighbour: a running minimum of value - position.
        new = np.minimum.accumulate(new - np.arange(len(new))) + np.arange(len(new))
        row = new
    return float(row[-1]) / len(b)


def read_made(shared: Shared, name: str) -> tuple[Document, str]:
    path = shared(f"data/documents/made/{name}")
    truth = path.parent / (path.name.split(".")[0] + ".gt.txt")
    read = pdf.read if path.suffix == ".pdf" else image.read
    return read(path, Report(name)), truth.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def turned(shared: Shared) -> tuple[Document, str]:
    return read_made(shared, "ocr_mix_rot90.png")


@pytest.fixture(scope="module")
def scan(shared: Shared) -> tuple[Document, str]:
    return read_made(shared, "scan_a4.pdf")


@pytest.mark.parametrize("name", ["ocr_en_clean.png", "ocr_zh_clean.png", "ocr_mix_rot2.png"])
def test_clean_and_tilted_pictures_are_read_without_a_mistake(name: str, shared: Shared) -> None:
    document, truth = read_made(shared, name)
    assert error_rate("".join(b.text for b in document.blocks), truth) <= 0.01
    assert all(b.place.part == "ocr" and len(b.place.boxes) == 1 for b in document.blocks)


def test_a_picture_lying_on_its_side_is_turned(turned: tuple[Document, str]) -> None:
    document, truth = turned
    assert error_rate("".join(b.text for b in document.blocks), truth) <= 0.02
    # Read down the lying page: the first sentence stands in a tall box at one edge.
    first, last = document.blocks[0].place.boxes[0], document.blocks[-1].place.boxes[0]
    assert first.bottom - first.top > 0.5 > first.right - first.left
    assert abs(first.left - last.left) > 0.5


def test_a_scanned_page_of_a_pdf_is_read_by_ocr(scan: tuple[Document, str]) -> None:
    document, truth = scan
    assert document.pages == 1
    assert error_rate("".join(b.text for b in document.blocks), truth) <= 0.01
    assert all(b.place.page == 1 and b.place.part == "ocr" for b in document.blocks)


def test_the_box_of_a_scanned_sentence_shows_that_sentence(
    scan: tuple[Document, str], shared: Shared
) -> None:
    document, _ = scan
    block: Block = next(b for b in document.blocks if "1,250,000" in b.text)
    [box] = block.place.boxes
    page = Image.open(shared("data/documents/made/scan_a4.png")).convert("RGB")
    corners = (box.left * page.width, box.top * page.height, box.right * page.width, box.bottom * page.height)
    crop = page.crop(tuple(round(c) for c in corners))
    found = ocr.recognize(np.asarray(crop))
    assert error_rate("".join(line.text for line in found.lines), block.text) <= 0.02


def test_aligned_cells_become_table_rows(shared: Shared, tmp_path: Path) -> None:
    """The vital signs of a scanned medical report, as a person reads them from its first page."""
    whole = pypdfium2.PdfDocument(
        shared("data/documents/markitdown/MEDRPT-2024-PAT-3847_medical_report_scan.pdf")
    )
    first, path = pypdfium2.PdfDocument.new(), tmp_path / "report.pdf"
    first.import_pages(whole, [0])
    first.save(path)
    document = pdf.read(path, Report(path.name))
    text = " ".join(b.text for b in document.blocks)
    for fact in ("SEATTLE GENERAL HOSPITAL", "Jonathan Michael Harrison", "PAT-3847-2024", "Lisinopril 10mg"):
        assert fact in text
    rows = {b.cells: b for b in document.blocks if b.kind is BlockKind.TABLE_ROW}
    pressure = rows["Blood Pressure", "142/88 mmHg", "120/80 mmHg", "ELEVATED"]
    assert pressure.header == ("Measurement", "Value", "Normal Range", "Status")
    assert pressure.place.heading[-1] == "VITAL SIGNS"
    assert ("Heart Rate", "78 bpm", "60-100 bpm", "NORMAL") in rows


def test_a_picture_on_a_page_of_text_is_read_where_it_stands(shared: Shared, tmp_path: Path) -> None:
    path = tmp_path / "mixed.pdf"
    page = canvas.Canvas(str(path), pagesize=(600, 800))
    for n in range(6):
        page.drawString(60, 740 - 16 * n, f"Line {n} of the running text, which is no picture at all.")
    picture = shared("data/documents/made/ocr_zh_clean.png")
    page.drawImage(str(picture), 60, 300, width=480, height=480 * 540 / 1104)
    page.save()
    document = pdf.read(path, Report("mixed.pdf"))
    typed = [b for b in document.blocks if b.place.part is None]
    seen = [b for b in document.blocks if b.place.part == "ocr"]
    assert "Line 5 of the running text" in typed[-1].text
    truth = shared("data/documents/made/ocr_zh_clean.gt.txt").read_text(encoding="utf-8")
    assert error_rate("".join(b.text for b in seen), truth) <= 0.01
    bottom, top = 1 - 300 / 800, 1 - (300 + 480 * 540 / 1104) / 800
    for block in seen:
        [box] = block.place.boxes
        assert top <= box.top < box.bottom <= bottom
        assert box.left >= 0.1


def undecodable(path: Path, lines: list[str]) -> None:
    """A PDF that shows `lines` and says of each letter that it is a character of nobody's alphabet."""
    cmap = (
        "/CIDInit /ProcSet findresource begin begincmap /CMapName /X def /CMapType 2 def "
        "1 begincodespacerange <00> <FF> endcodespacerange "
        "1 beginbfrange <00> <FF> <E000> endbfrange endcmap end"
    )
    drawn = "BT /F1 20 Tf 60 700 Td 30 TL " + " ".join(f"({line}) Tj T*" for line in lines) + " ET"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents 5 0 R "
        "/Resources << /Font << /F1 4 0 R >> >> >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /ToUnicode 6 0 R >>",
        f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream",
        f"<< /Length {len(cmap)} >>\nstream\n{cmap}\nendstream",
    ]
    body, offsets = "%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    body += f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R >>\n"
    path.write_text(f"{body}startxref\n{body.index('xref')}\n%%EOF")


def test_text_that_cannot_be_decoded_is_read_from_the_picture_of_the_page(tmp_path: Path) -> None:
    path = tmp_path / "broken.pdf"
    lines = ["The serial number is SN-48213-KX.", "Section 4.2 limits liability to EUR 1,250,000."]
    undecodable(path, lines)
    report = Report("broken.pdf")
    document = pdf.read(path, report)
    assert error_rate(" ".join(b.text for b in document.blocks), " ".join(lines)) <= 0.02
    assert "page 1: its text cannot be decoded" in report.warnings[0]
