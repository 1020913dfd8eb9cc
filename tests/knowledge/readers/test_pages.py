"""Pages as pictures, for the citation viewer: the box that a reader gives lies on the words that it gives."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pypdfium2
import pytest
from PIL import Image

from quinze.errors import EncryptedDocumentError, InvalidRequestError, UnsupportedDocumentError
from quinze.knowledge.document import Block
from quinze.knowledge.readers import pdf
from quinze.knowledge.readers.pages import MOST_PIXELS, render_page
from quinze.knowledge.readers.report import Report

Shared = Callable[[str], Path]


def picture(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


def ink(block: Block, page: Image.Image) -> tuple[float, float]:
    """Share of dark pixels within the block's box, and in a frame around it."""
    pixels = np.asarray(page.convert("L")) < 128
    [box] = block.place.boxes
    x0, x1 = round(box.left * page.width), round(box.right * page.width)
    y0, y1 = round(box.top * page.height), round(box.bottom * page.height)
    around = pixels[max(0, y0 - 3) : y1 + 3, max(0, x0 - 3) : x1 + 3].sum() - pixels[y0:y1, x0:x1].sum()
    return float(pixels[y0:y1, x0:x1].mean()), float(around) / max(1, pixels[y0:y1, x0:x1].sum())


@pytest.mark.parametrize("name", ["onecol.pdf", "rot90.pdf", "twocol.pdf"])
def test_a_pdf_page_is_drawn_and_boxes_hug_their_ink(name: str, shared: Shared) -> None:
    path = shared(f"data/documents/made/{name}")
    page = picture(render_page(path, "pdf", 1, 1_400))
    assert page.width == pytest.approx(1_400, abs=2)
    blocks = [b for b in pdf.read(path, Report(name)).blocks if b.place.page == 1 and b.kind == "paragraph"]
    for block in blocks:
        within, around = ink(block, page)
        assert within > 0.05, block.text
        assert around < 0.05, block.text
    assert len(blocks) > 8


@pytest.mark.parametrize("turned", [0, 90, 180, 270])
def test_boxes_are_fractions_of_the_page_as_it_is_seen(turned: int, tmp_path: Path, shared: Shared) -> None:
    """Cut to a crop box and turned by /Rotate, the boxes still lie on their words."""
    document = pypdfium2.PdfDocument(shared("data/documents/made/onecol.pdf"))
    page = document[0]
    page.set_cropbox(60, 300, 560, 800)
    page.set_rotation(turned)
    path = tmp_path / "cut.pdf"
    document.save(path)
    png = picture(render_page(path, "pdf", 1, 1_400))
    blocks = pdf.read(path, Report("cut.pdf")).blocks
    found = [b for b in blocks if "SN-48213-KX" in b.text or "1,250,000" in b.text]
    assert len(found) == 3
    assert not any("HEADER-MARK" in b.text for b in blocks), "what the crop box hides is not seen"
    for block in found:
        within, around = ink(block, png)
        assert within > 0.05, block.text
        assert around < 0.05, block.text


def test_an_image_is_shown_and_never_enlarged(shared: Shared) -> None:
    path = shared("data/documents/made/ocr_en_clean.png")
    assert picture(render_page(path, "image", 1, 700)).width == 700
    assert picture(render_page(path, "image", 1, 3_000)).size == Image.open(path).size


def test_the_size_of_a_picture_is_bounded(tmp_path: Path, shared: Shared) -> None:
    path = shared("data/documents/made/onecol.pdf")
    assert picture(render_page(path, "pdf", 1, 1_000_000)).width <= 3_000
    assert picture(render_page(path, "pdf", 1, -5)).width == pytest.approx(16, abs=1)
    tall = tmp_path / "tall.png"
    Image.new("1", (3_000, 20_000)).save(tall)
    shown = picture(render_page(tall, "image", 1, 3_000))
    assert shown.width * shown.height <= MOST_PIXELS * 1.01


def test_what_cannot_be_shown_is_refused_with_a_reason(shared: Shared) -> None:
    path = shared("data/documents/made/onecol.pdf")
    with pytest.raises(InvalidRequestError, match="has 1 page; there is no page 2"):
        render_page(path, "pdf", 2, 800)
    with pytest.raises(InvalidRequestError):
        render_page(path, "pdf", 0, 800)
    with pytest.raises(UnsupportedDocumentError, match="docx"):
        render_page(path, "docx", 1, 800)
    with pytest.raises(EncryptedDocumentError):
        render_page(shared("data/documents/made/enc_rc4.pdf"), "pdf", 1, 800)
