"""PDF: PDFium reads the glyphs, liteparse finds the tables, rapidocr reads what is only a picture.

Each page is read by itself; what a heading, a running header or a broken word is, the whole document tells
(pdf_blocks.py). Boxes are fractions of the page as it is seen: turned as the file says, cut to its crop box.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
import pypdfium2.raw as pdfium

from quinze.errors import DocumentError, EncryptedDocumentError
from quinze.knowledge.document import Block, Box, Document
from quinze.knowledge.readers.pdf_blocks import PageContent, build_blocks, first_title
from quinze.knowledge.readers.pdf_columns import read_columns, read_lines
from quinze.knowledge.readers.pdf_glyphs import Frame, Glyphs, Run, page_transform, read_glyphs
from quinze.knowledge.readers.pdf_headings import outline_key
from quinze.knowledge.readers.pdf_notes import read_notes
from quinze.knowledge.readers.pdf_tables import TableFinder, without_straddlers
from quinze.knowledge.readers.report import Report

OCR_DPI = 150
OCR_SIDE = 2000
"""Longest side, in pixels, of a page drawn for OCR."""

FEW_GLYPHS = 12
"""With fewer, a page that shows a large picture is taken for a scan."""

LARGE_PICTURE = 0.12
"""Share of the page: smaller pictures on a page with text are not searched for more text."""

MOST_PAGES = 20_000


def read(path: Path, report: Report) -> Document:
    document = open_pdf(path, report.name)
    try:
        if document.get_formtype():
            document.init_forms()
        count = len(document)
        if count > MOST_PAGES:
            report.warn(f"Only the first {MOST_PAGES:,} of {count:,} pages were read.")
        finder = TableFinder(path, count)
        pages = [
            content
            for number in range(1, min(count, MOST_PAGES) + 1)
            if (content := _read_page(document, number, count, finder, report)) is not None
        ]
        attachments = document.count_attachments()
        if attachments:
            report.warn(
                f"It carries {attachments} attached file{'s' * (attachments > 1)}, which were not read."
            )
        blocks = build_blocks(pages, _outline(document))
        properties = {key: value for key, value in document.get_metadata_dict().items() if value}
        title = _usable_title(properties.get("Title", "")) or first_title(blocks)
        return Document(
            report.format or "pdf", tuple(blocks), title=title, pages=count, properties=properties
        )
    finally:
        document.close()


def open_pdf(path: Path, name: str) -> Any:
    try:
        return pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == pdfium.FPDF_ERR_PASSWORD:
            raise EncryptedDocumentError(
                f"{name} is locked with a password.",
                hint="Open it with its password, save a copy without one, and add that.",
            ) from None
        if getattr(error, "err_code", None) == pdfium.FPDF_ERR_SECURITY:
            raise EncryptedDocumentError(
                f"{name} is encrypted in a way that is not read here.",
                hint="Open it in its own program, print it to a new PDF, and add that.",
            ) from None
        raise DocumentError(
            f"{name} is damaged: no PDF program could find its pages.",
            hint="Download or copy it again; if it opens elsewhere, print it to a new PDF and add that.",
        ) from None


def _read_page(
    document: Any, number: int, count: int, finder: TableFinder, report: Report
) -> PageContent | None:
    report.page(number, count)
    try:
        page = document[number - 1]
        try:
            return _content(document, page, number, finder, report)
        finally:
            page.close()
    except pypdfium2.PdfiumError:
        report.warn(f"page {number}: damaged, left out")
        return None


def _content(document: Any, page: Any, number: int, finder: TableFinder, report: Report) -> PageContent:
    width, height = page.get_size()
    content = PageContent(number, Frame(max(width, 0.1), max(height, 0.1)))
    glyphs = read_glyphs(page)
    content.notes = read_notes(document, page)
    for region in _ocr_regions(page, glyphs):
        content.ocr.extend(_ocr(page, number, region, report))
    if glyphs.broken:
        how = "it was read from the picture of the page" if content.ocr else "and OCR found no words"
        report.warn(f"page {number}: its text cannot be decoded; {how}")
    if not (glyphs.broken and content.ocr):
        _layout(content, glyphs, finder)
    return content


def _layout(content: PageContent, glyphs: Glyphs, finder: TableFinder) -> None:
    for turns, runs in glyphs.runs.items():
        if turns == 0:
            tables = finder.tables(content.number, content.frame.width, content.frame.height, runs)
            content.tables = without_straddlers(tables, read_columns(runs) if tables else [])
            runs = [run for run in runs if not any(table.holds(run) for table in content.tables)]
            for at, table in enumerate(content.tables):
                size = (table.y1 - table.y0) / max(1, len(table.rows))
                runs.append(
                    Run("", table.x0, table.y0, table.x1, table.y1, table.y1, size, False, False, table=at)
                )
        content.lines[turns] = read_lines(runs)


_WHOLE = Box(0.0, 0.0, 1.0, 1.0)


def _ocr_regions(page: Any, glyphs: Glyphs) -> Iterator[Box]:
    """The parts of a page whose text is only a picture of text."""
    pictures = list(_pictures(page, glyphs.frame))
    if glyphs.broken or glyphs.count < FEW_GLYPHS:
        if glyphs.broken or pictures or (glyphs.count == 0 and _shows_something(page)):
            yield _WHOLE
        return
    runs = [
        glyphs.upright(turns % 4).box(run.x0, run.y0, run.x1, run.y1)
        for turns, found in glyphs.runs.items()
        for run in found
    ]
    for box in pictures:
        inside = sum(
            box.left <= (b.left + b.right) / 2 <= box.right
            and box.top <= (b.top + b.bottom) / 2 <= box.bottom
            for b in runs
        )
        if inside <= 1:
            yield box


def _pictures(page: Any, frame: Frame) -> Iterator[Box]:
    """Large pictures, none within another."""
    a, b, c, d, e, f = page_transform(page)
    found: list[Box] = []
    for picture in page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_IMAGE], max_depth=4):
        left, bottom, right, top = picture.get_bounds()
        xs = [a * x + c * y + e for x in (left, right) for y in (bottom, top)]
        ys = [b * x + d * y + f for x in (left, right) for y in (bottom, top)]
        box = frame.box(min(xs), min(ys), max(xs), max(ys))
        if (box.right - box.left) * (box.bottom - box.top) >= LARGE_PICTURE:
            found.append(box)
    found.sort(key=lambda box: -(box.right - box.left) * (box.bottom - box.top))
    kept: list[Box] = []
    for box in found:
        if not any(_covers(other, box) for other in kept):
            kept.append(box)
    yield from kept


def _covers(outer: Box, inner: Box) -> bool:
    wide = min(outer.right, inner.right) - max(outer.left, inner.left)
    high = min(outer.bottom, inner.bottom) - max(outer.top, inner.top)
    return (
        wide > 0 and high > 0 and wide * high > 0.5 * (inner.right - inner.left) * (inner.bottom - inner.top)
    )


def _shows_something(page: Any) -> bool:
    """Whether the page is more than white paper."""
    small = _draw(page, _WHOLE, 300)
    return bool(small.std() > 1.0)


def _draw(page: Any, region: Box, longest: int, dpi: float = OCR_DPI) -> np.ndarray:
    """The region as pixels (height, width, 3), RGB."""
    width, height = page.get_size()
    wide, high = (region.right - region.left) * width, (region.bottom - region.top) * height
    scale = min(dpi / 72, longest / max(wide, high, 1e-3))
    if max(wide, high) * scale < 400:
        scale = min(
            400 / max(wide, high, 1e-3), 100.0
        )  # a tiny page, as made from a picture of 1 pixel a point
    crop = (
        region.left * width, (1 - region.bottom) * height, (1 - region.right) * width, region.top * height,
    )  # fmt: skip
    bitmap = page.render(scale=scale, crop=crop, may_draw_forms=False, rev_byteorder=True)
    pixels = np.array(bitmap.to_numpy()[:, :, :3])
    bitmap.close()
    return pixels


def _ocr(page: Any, number: int, region: Box, report: Report) -> list[Block]:
    from quinze.knowledge.readers.ocr import ocr_blocks, recognize

    found = recognize(_draw(page, region, OCR_SIDE), report.tick)
    if region != _WHOLE and (found.score < 0.75 or sum(len(line.text) for line in found.lines) < 8):
        return []  # a photograph, a drawing
    if found.doubtful:
        report.warn(f"page {number}: its picture is hard to read; its text may hold mistakes")
    return ocr_blocks(found, number, region=region)


def _outline(document: Any) -> dict[tuple[int, str], int]:
    """(page, title's key) -> level, of at most a few thousand bookmarks."""
    outline: dict[tuple[int, str], int] = {}
    try:
        for entry in document.get_toc(max_depth=8):
            destination = entry.get_dest()
            title, page = entry.get_title(), destination.get_index() if destination else None
            key = outline_key(title or "")
            if key and page is not None and len(outline) < 5_000:
                outline.setdefault((page + 1, key), min(6, entry.level + 1))
    except (pypdfium2.PdfiumError, RecursionError):
        return outline
    return outline


_PROGRAMS_OWN = re.compile(
    r"\.(docx?|pptx?|xlsx?|tex|indd|qxd|pdf|dvi|rtf|png|jpe?g)$"
    r"|^(\(?anonymous\)?$|untitled|microsoft word|powerpoint pres|slide 1)",
    re.IGNORECASE,
)


def _usable_title(title: str) -> str:
    """The title in the file's properties, unless a program left its own words there."""
    title = title.strip()
    return "" if len(title) < 2 or _PROGRAMS_OWN.search(title) else title
