"""Images before OCR: opened safely, turned, laid on a ground on which they can be read."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from quinze.errors import DocumentError, TooLargeError
from quinze.knowledge.readers import image
from quinze.knowledge.readers.report import Report

Shared = Callable[[str], Path]


def test_a_picture_of_too_many_pixels_is_refused_unopened(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    path = tmp_path / "bomb.png"
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(TooLargeError, match=r"bomb\.png"):
        image.read(path, Report("bomb.png"))


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "half.png"
    Image.effect_noise((300, 300), 60).save(path)
    path.write_bytes(path.read_bytes()[:2_000])
    with pytest.raises(DocumentError, match=r"half\.png is damaged"):
        image.read(path, Report("half.png"))
    path.write_bytes(b"no picture at all")
    with pytest.raises(DocumentError, match=r"half\.png"):
        image.read(path, Report("half.png"))


def test_a_picture_without_text_yields_no_blocks_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "plain.png"
    Image.new("RGB", (300, 200), "white").save(path)
    report = Report("plain.png")
    document = image.read(path, report)
    assert document.blocks == ()
    assert "OCR found no words" in report.warnings[0]


def test_the_camera_s_orientation_is_honoured() -> None:
    picture = Image.new("RGB", (40, 20), "white")
    picture.putpixel((0, 0), (255, 0, 0))
    picture.getexif()[0x0112] = 6  # to be turned a quarter clockwise
    turned = image.upright(picture)
    assert turned.size == (20, 40)
    assert turned.getpixel((19, 0)) == (255, 0, 0)


@pytest.mark.parametrize(("ink", "ground"), [((255, 255, 255), (0, 0, 0)), ((0, 0, 0), (255, 255, 255))])
def test_transparent_pictures_get_a_ground_that_their_ink_is_seen_on(
    ink: tuple[int, int, int], ground: tuple[int, int, int]
) -> None:
    picture = Image.new("RGBA", (60, 40), (0, 0, 0, 0))
    ImageDraw.Draw(picture).rectangle((20, 10, 40, 20), fill=(*ink, 255))
    flat = image.upright(picture)
    assert flat.getpixel((30, 15)) == ink
    assert flat.getpixel((2, 2)) == ground


def test_sixteen_bit_grey_keeps_its_contrast() -> None:
    values = np.full((10, 10), 40_000, dtype=np.uint16)
    values[5, 5] = 10_000
    flat = np.asarray(image.upright(Image.fromarray(values)))
    assert flat[5, 5].tolist() == [0, 0, 0]
    assert flat[0, 0].tolist() == [255, 255, 255]


@pytest.mark.slow
def test_every_page_of_a_tiff_is_read_with_its_number(tmp_path: Path, shared: Shared) -> None:
    line = Image.open(shared("data/documents/made/ocr_en_clean.png")).convert("RGB").crop((0, 0, 1464, 110))
    other = Image.open(shared("data/documents/made/ocr_zh_clean.png")).convert("RGB").crop((0, 0, 1104, 100))
    path = tmp_path / "fax.tiff"
    line.save(path, save_all=True, append_images=[other])
    document = image.read(path, Report("fax.tiff"))
    assert document.pages == 2
    assert [(b.place.page, b.text[:6]) for b in document.blocks] == [(1, "Hybrid"), (2, "混合检索把关")]
