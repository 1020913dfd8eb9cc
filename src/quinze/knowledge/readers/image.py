"""Pictures with text in them: PNG, JPEG, WebP, TIFF with its pages, BMP, GIF.

Pillow opens them, ocr.py reads them. A picture too large is refused before any pixel of it is unpacked.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from quinze.errors import DocumentError, TooLargeError
from quinze.knowledge.document import Block, Document
from quinze.knowledge.readers.report import Report

MOST_PIXELS = 120_000_000
"""An A2 page at 600 dpi. Unpacked, it takes three bytes a pixel."""

MOST_PAGES = 2_000
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB", "GIF")


def read(path: Path, report: Report) -> Document:
    blocks: list[Block] = []
    with open_image(path, report.name) as image:
        pages = min(getattr(image, "n_frames", 1), MOST_PAGES) if image.format == "TIFF" else 1
        for number, pixels in enumerate(_pages(image, pages, report), 1):
            # Only a file of several pages counts them.
            blocks.extend(_page(pixels, number if pages > 1 else None, report))
    if not blocks:
        report.warn("OCR found no words of English or Chinese in it.")
    return Document(report.format or "image", tuple(blocks), pages=pages if pages > 1 else None)


def _page(pixels: np.ndarray, number: int | None, report: Report) -> list[Block]:
    from quinze.knowledge.readers.ocr import ocr_blocks, recognize

    found = recognize(pixels, report.tick)
    if found.doubtful:
        where = f"page {number}: " if number else ""
        report.warn(f"{where}hard to read, or in a script that is not known; its text may hold mistakes")
    return ocr_blocks(found, number)


def open_image(path: Path, name: str) -> Image.Image:
    """The picture, its pixels not yet unpacked."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError:
        raise _too_large(name) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DocumentError(
            f"{name} is no picture that can be opened ({_reason(error)}).",
            hint="Open it in another program and save it as PNG or JPEG.",
        ) from None
    if image.width * image.height > MOST_PIXELS:
        image.close()
        raise _too_large(name, image.width, image.height)
    return image


def _too_large(name: str, width: int = 0, height: int = 0) -> TooLargeError:
    size = f"{width:,} x {height:,} pixels" if width else "far too many pixels"
    return TooLargeError(
        f"{name} has {size}; at most {MOST_PIXELS:,} are read.",
        hint="Save a smaller copy of it, and add that.",
    )


def _pages(image: Image.Image, pages: int, report: Report) -> Iterator[np.ndarray]:
    for index in range(pages):
        report.page(index + 1, pages)
        try:
            if pages > 1:
                image.seek(index)
            if image.width * image.height > MOST_PIXELS:
                report.warn(f"page {index + 1}: too large, left out")
                continue
            yield np.asarray(upright(image))
        except (OSError, EOFError, SyntaxError, ValueError) as error:
            if index == 0:
                raise DocumentError(
                    f"{report.name} is damaged: its pixels cannot be unpacked ({_reason(error)}).",
                    hint="Open it in another program and save it anew.",
                ) from None
            report.warn(f"page {index + 1}: damaged, left out")


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def upright(image: Image.Image) -> Image.Image:
    """RGB, turned as its camera noted, laid on a ground against which it can be read if it is transparent."""
    image = ImageOps.exif_transpose(image) or image
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
        values = np.asarray(image, dtype=np.float32)
        spread = float(values.max() - values.min()) or 1.0
        return Image.fromarray(((values - values.min()) * (255 / spread)).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layered = image.convert("RGBA")
        pixels = np.asarray(layered)
        drawn = pixels[pixels[:, :, 3] > 128][:, :3]
        ground = "black" if drawn.size and float(drawn.mean()) > 170 and _mostly_clear(pixels) else "white"
        paper = Image.new("RGBA", layered.size, ground)
        paper.alpha_composite(layered)
        return paper.convert("RGB")
    return image.convert("RGB")


def _mostly_clear(pixels: np.ndarray) -> bool:
    return float((pixels[:, :, 3] < 128).mean()) > 0.3
