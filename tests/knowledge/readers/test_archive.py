"""Zip archives: a member is read as it is when it lies in a folder of its own."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from quinze.errors import DocumentError, EmptyDocumentError, EncryptedDocumentError, ReaderLimitError
from quinze.knowledge.readers.report import MIB, Limits
from quinze.knowledge.readers.workers import Readers


def packed(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_each_member_reads_as_it_does_alone(
    readers: Readers, made: Callable[[str], Path], tmp_path: Path
) -> None:
    names = ["known.docx", "known.xlsx", "onecol.pdf", "known_gb18030.csv"]
    document = readers.read(packed(tmp_path / "a.zip", {f"資料/{n}": made(n).read_bytes() for n in names}))
    assert document.format == "zip"
    for name in names:
        alone = [(block.kind, block.text, block.place.page) for block in readers.read(made(name)).blocks]
        inside = [block for block in document.blocks if block.place.chapter == f"資料/{name}"]
        assert [(block.kind, block.text, block.place.page) for block in inside] == alone
        assert inside[0].place.label().startswith(f"資料/{name}")
    assert not any(block.place.boxes for block in document.blocks)


def test_what_cannot_be_read_is_named_and_costs_only_itself(readers: Readers, tmp_path: Path) -> None:
    inner = packed(tmp_path / "inner.zip", {"deep.txt": b"Deep words."}).read_bytes()
    document = readers.read(
        packed(
            tmp_path / "a.zip",
            {
                "note.txt": b"An honest sentence.", "inner.zip": inner, "cut.docx": b"PK\x03\x04 cut off",
                "__MACOSX/._note.txt": b"resource", ".hidden": b"hidden words", "run.exe": b"MZ" + b"\0" * 99,
            },
        )
    )  # fmt: skip
    assert [block.text for block in document.blocks] == ["An honest sentence."]
    assert sorted(warning.split()[0] for warning in document.warnings) == ["An", "cut.docx", "run.exe"]


def test_names_that_lead_outside_lead_nowhere(readers: Readers, tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    path = packed(tmp_path / "a.zip", {"../outside.txt": b"Climbing words.", "/etc/x.txt": b"Rooted words."})
    document = readers.read(path)
    assert not outside.exists()
    assert [block.text for block in document.blocks] == ["Climbing words.", "Rooted words."]


def test_bombs_are_not_unpacked(tmp_path: Path) -> None:
    small = Limits(seconds=60, idle_seconds=30, memory=700 * MIB, part_bytes=8 * MIB)
    with Readers(workers=1, limits=small) as readers:
        bomb = packed(tmp_path / "a.zip", {"zeros.txt": b"0" * (4 * MIB), "b.txt": b"Words."})
        document = readers.read(bomb)
        assert [block.text for block in document.blocks] == ["Words."]
        assert "unpacks from" in document.warnings[0]
        many = packed(tmp_path / "b.zip", {f"{n}.txt": b"0" * (7 * MIB) for n in range(6)})
        with pytest.raises(ReaderLimitError, match=r"b\.zip holds 6 files of 44 MB"):
            readers.read(many)
        nested = packed(
            tmp_path / "c.zip", {"d.zip": packed(tmp_path / "d.zip", {"e.txt": b"x"}).read_bytes()}
        )
        with pytest.raises(EmptyDocumentError, match="archive within the archive"):
            readers.read(nested)
        thousands = packed(tmp_path / "e.zip", {f"{n}.txt": b"x" for n in range(2_001)})
        with pytest.raises(ReaderLimitError, match="2,001 files"):
            readers.read(thousands)


def test_a_locked_and_a_damaged_archive_say_so(readers: Readers, tmp_path: Path) -> None:
    data = bytearray(packed(tmp_path / "a.zip", {"a.txt": b"Words."}).read_bytes())
    at = data.index(b"PK\x01\x02")
    data[6] |= 1
    data[at + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(data)
    with pytest.raises(EncryptedDocumentError):
        readers.read(tmp_path / "locked.zip")
    (tmp_path / "cut.zip").write_bytes(bytes(data[: len(data) // 2]))
    with pytest.raises(DocumentError, match=r"cut\.zip"):
        readers.read(tmp_path / "cut.zip")
    memory = io.BytesIO()
    zipfile.ZipFile(memory, "w").close()
    (tmp_path / "none.zip").write_bytes(memory.getvalue())
    with pytest.raises(EmptyDocumentError):
        readers.read(tmp_path / "none.zip")
