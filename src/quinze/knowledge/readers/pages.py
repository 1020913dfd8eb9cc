"""One page as a picture, for the eye of the person who checks a citation."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from quinze.errors import InvalidRequestError, UnsupportedDocumentError
from quinze.knowledge.readers.image import open_image, upright

NARROWEST, WIDEST = 16, 3_000
MOST_PIXELS = 24_000_000


def render_page(path: Path, format: str, page: int, width: int) -> bytes:  # noqa: A002 -- Document.format
    """Page `page` (from 1) of a PDF or an image as PNG, about `width` pixels wide (within bounds)."""
    width = min(max(width, NARROWEST), WIDEST)
    match format:
        case "pdf":
            picture = _pdf_page(path, page, width)
        case "image":
            picture = _image_page(path, page, width)
        case _:
            raise UnsupportedDocumentError(
                f"{path.name} is a {format} file; only PDF files and images have pages that can be shown.",
                hint="Look at its text instead.",
            )
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=3)
    return out.getvalue()


def _pdf_page(path: Path, page: int, width: int) -> Image.Image:
    from quinze.knowledge.readers.pdf import open_pdf

    document = open_pdf(path, path.name)
    try:
        _check(path, page, len(document))
        if document.get_formtype():
            document.init_forms()
        shown = document[page - 1]
        wide, high = shown.get_size()
        scale = min((width - 0.5) / max(wide, 0.1), (MOST_PIXELS / max(wide * high, 0.1)) ** 0.5)
        bitmap = shown.render(scale=scale, may_draw_forms=bool(document.formenv), rev_byteorder=True)
        picture: Image.Image = bitmap.to_pil().convert("RGB")
        bitmap.close()
        shown.close()
        return picture
    finally:
        document.close()


def _image_page(path: Path, page: int, width: int) -> Image.Image:
    with open_image(path, path.name) as image:
        _check(path, page, getattr(image, "n_frames", 1) if image.format == "TIFF" else 1)
        if page > 1:
            image.seek(page - 1)
        picture = upright(image)
    scale = min(1.0, width / picture.width, (MOST_PIXELS / (picture.width * picture.height)) ** 0.5)
    if scale < 1.0:
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    return picture


def _check(path: Path, page: int, pages: int) -> None:
    if not 1 <= page <= pages:
        raise InvalidRequestError(
            f"{path.name} has {pages} page{'s' * (pages != 1)}; there is no page {page}.", param="page"
        )
