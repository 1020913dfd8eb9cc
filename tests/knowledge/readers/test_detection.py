"""A file is what it holds, not what it is called; what cannot be read is refused by its right name."""

from __future__ import annotations

import importlib.util
import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from quinze.errors import (
    DocumentError,
    EmptyDocumentError,
    EncryptedDocumentError,
    UnsupportedDocumentError,
)
from quinze.knowledge.readers import CODE, READERS, SUFFIXES, detect
from quinze.knowledge.readers.workers import Readers

MADE = [
    ("known.docx", "docx"), ("known.pptx", "pptx"), ("known.xlsx", "xlsx"), ("known.epub", "epub"),
    ("known.html", "html"), ("known_gbk.html", "html"), ("known_utf-16.csv", "csv"),
    ("known_gb18030.csv", "csv"),
    ("onecol.pdf", "pdf"), ("bad_xref.pdf", "pdf"), ("ocr_en_clean.png", "image"),
    ("ocr_mix_serif_lowc.jpg", "image"), ("enc_koi8-r.txt", "text"), ("enc_gb2312.txt", "text"),
    ("known.json", "text"), ("NOTE.md", "markdown"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), MADE)
def test_every_kind_of_file_is_recognised(made: Callable[[str], Path], name: str, kind: str) -> None:
    assert detect(made(name)) == kind


@pytest.mark.parametrize(
    ("name", "kind"), [each for each in MADE if each[1] not in ("csv", "text", "markdown")]
)
def test_a_wrong_name_does_not_deceive(
    made: Callable[[str], Path], tmp_path: Path, name: str, kind: str
) -> None:
    for suffix in (".txt", ".doc", ".docx", ".xls", "", ".bin"):
        path = tmp_path / f"mislabelled{suffix}"
        shutil.copyfile(made(name), path)
        assert detect(path) == kind


def test_a_wrongly_named_file_is_read_as_what_it_is(
    made: Callable[[str], Path], tmp_path: Path, readers: Readers
) -> None:
    path = tmp_path / "report.pdf"
    shutil.copyfile(made("known.docx"), path)
    assert readers.read(path).format == "docx"


@pytest.mark.parametrize(
    ("name", "head", "kind"),
    [
        ("a.py", "import os\n", "python"), ("a.ts", "let a = 1\n", "typescript"), ("a.h", "int a;\n", "c"),
        ("script", "#!/usr/bin/env python3\nprint(1)\n", "python"), ("run", "#!/bin/sh\nls\n", "bash"),
        ("Makefile", "all:\n\techo\n", "text"), ("a.log", "one\ntwo\n", "text"),
        ("a.srt", "1\n00:00\n", "text"),
        ("page", "<!DOCTYPE html><p>x</p>", "html"), ("a.txt", "  <html><body>x</body></html>", "html"),
        ("a.xml", "<?xml version='1.0'?><a/>", "text"), ("a.unheard-of", "words\n", "text"),
        ("a.tsv", "a\tb\n", "tsv"), ("MZ.txt", "MZ is also how a sentence may begin.", "text"),
        ("a.ipynb", "{}", "notebook"), ("A.MD", "# T", "markdown"),
    ],
)  # fmt: skip
def test_text_is_told_apart_by_suffix_and_first_line(tmp_path: Path, name: str, head: str, kind: str) -> None:
    path = tmp_path / name
    path.write_text(head, "utf-8")
    assert detect(path) == kind


def test_every_promised_format_has_a_reader_that_is_there() -> None:
    assert set(SUFFIXES.values()) <= set(READERS)
    assert set(READERS) >= CODE
    for address in set(READERS.values()):
        assert importlib.util.find_spec(address.partition(":")[0]) is not None, address


def test_a_locked_file_says_so(made: Callable[[str], Path]) -> None:
    for name in ("enc.docx", "enc.xlsx", "enc.pptx"):
        with pytest.raises(EncryptedDocumentError, match=rf"{name} is protected by a password") as caught:
            detect(made(name))
        assert "without one" in caught.value.hint


def zipped(**members: bytes) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return memory.getvalue()


def tarred() -> bytes:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"), io.BytesIO())
    return memory.getvalue()


def ole(*names: str) -> bytes:
    """The smallest compound file with streams of these names in its root."""
    header = bytearray(512)
    header[:8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
    header[30:32] = (9).to_bytes(2, "little")
    header[48:52] = (1).to_bytes(4, "little")
    header[76:512] = b"\xff" * 436
    header[76:80] = (0).to_bytes(4, "little")
    table = (0xFFFFFFFD).to_bytes(4, "little") + (0xFFFFFFFE).to_bytes(4, "little") * 127
    entries = b""
    for number, name in enumerate(("Root Entry", *names)):
        raw = name.encode("utf-16-le")
        following = number + 1 if 0 < number < len(names) else 0xFFFFFFFF
        entry = raw.ljust(64, b"\0") + (len(raw) + 2).to_bytes(2, "little") + b"\x05\x01"
        entry += (0xFFFFFFFF).to_bytes(4, "little") + following.to_bytes(4, "little")
        entries += (entry + (1 if number == 0 and names else 0xFFFFFFFF).to_bytes(4, "little")).ljust(
            128, b"\0"
        )
    return bytes(header) + table + entries.ljust(512, b"\0")


@pytest.mark.parametrize(
    ("content", "words", "way_out"),
    [
        (ole("WordDocument"), "Word file of the old kind", "save it as .docx"),
        (ole("Current User", "PowerPoint Document"), "PowerPoint file of the old kind", "save it as .pptx"),
        (ole("__properties_version1.0"), "Outlook message", "as text"),
        (b"{\\rtf1\\ansi Hello}", "Rich Text", "save it as .docx"),
        (zipped(a=b"x"), "zip archive", "Unpack"),
        (zipped(mimetype=b"application/vnd.oasis.opendocument.text"), "OpenDocument text", "as .docx"),
        (tarred(), "packed archive", "Unpack"),
        (b"\x1f\x8b\x08\x00" + bytes(20), "packed archive", "Unpack"),
        (b"7z\xbc\xaf'\x1c\x00\x04", "packed archive", "Unpack"),
        (b"\x7fELF\x02\x01\x01" + bytes(20), "program", "documentation"),
        (b"ID3\x04\x00\x00\x00\x00" + bytes(20), "sound or video", "transcript"),
        (b"SQLite format 3\x00" + bytes(100), "database", "CSV"),
        (b"GGUF\x03\x00\x00\x00" + bytes(20), "model", "as a model"),
        (bytes(range(256)) * 20, "binary file", "save it as PDF"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a.txt", "a.bin", "a.doc"])
def test_what_is_not_read_is_called_by_its_name(
    tmp_path: Path, name: str, content: bytes, words: str, way_out: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnsupportedDocumentError, match=words) as caught:
        detect(path)
    assert way_out in caught.value.hint
    assert name in caught.value.message


def test_old_excel_is_read_and_new_excel_in_an_old_shell_is_locked(tmp_path: Path) -> None:
    path = tmp_path / "a.doc"
    path.write_bytes(ole("Workbook"))
    assert detect(path) == "xls"
    path.write_bytes(ole("EncryptionInfo", "EncryptedPackage"))
    with pytest.raises(EncryptedDocumentError):
        detect(path)


@pytest.mark.parametrize("content", [b"", b" \r\n\t ", b"\xef\xbb\xbf", bytes(100)])
@pytest.mark.parametrize("name", ["a.docx", "a.pdf", "a.txt", "a"])
def test_nothing_is_empty(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(EmptyDocumentError, match=f"{name} is empty"):
        detect(path)


@pytest.mark.parametrize("name", ["bad_trunc.docx", "bad_trunc.pptx", "bad_trunc.xlsx", "bad_random.docx"])
def test_a_damaged_file_is_called_damaged(made: Callable[[str], Path], name: str) -> None:
    with pytest.raises(DocumentError, match=rf"{name} is not a readable .* file: .* damaged") as caught:
        detect(made(name))
    assert caught.value.hint


def test_a_broken_directory_of_an_old_file_is_no_trap(tmp_path: Path) -> None:
    """A chain of sectors that bites its own tail, and numbers beyond the file."""
    whole = bytearray(ole("WordDocument"))
    whole[512 + 4 : 512 + 8] = (1).to_bytes(4, "little")
    path = tmp_path / "loop.doc"
    path.write_bytes(whole)
    with pytest.raises(UnsupportedDocumentError):
        detect(path)
    whole[48:52] = (0x7FFFFFFF).to_bytes(4, "little")
    path.write_bytes(whole)
    with pytest.raises(DocumentError, match="damaged"):
        detect(path)
