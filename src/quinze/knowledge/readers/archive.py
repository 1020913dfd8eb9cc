"""Zip archives: every member that can be read, as if it lay beside the others in a folder.

Members are unpacked one by one into a file of no name of theirs, and told apart like any other file. An
archive within the archive stays closed. Place: the member's name as the chapter, then as in its own format.
"""

from __future__ import annotations

import importlib
import posixpath
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import msgspec

from quinze.errors import DocumentError, ReaderLimitError
from quinze.knowledge.document import Block, Document
from quinze.knowledge.readers import READERS
from quinze.knowledge.readers.detection import damaged, detect
from quinze.knowledge.readers.packed import PARTS_IN_ALL
from quinze.knowledge.readers.report import Report

MEMBERS = 2_000
RATIO = 200
"""Text packs to a tenth or so; what packs so much more tightly, and is large, was made to do harm."""
SMALL = 1 << 20
WARNINGS = 20
_PIECE = 1 << 20
_PASSED = ("__macosx", "node_modules", "__pycache__")


def read(path: Path, report: Report) -> Document:
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory(prefix="quinze-") as folder:
            return _read(archive, Path(folder), report)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise damaged(report.name, report.format, str(error)) from None


def _read(archive: zipfile.ZipFile, folder: Path, report: Report) -> Document:
    members = [info for info in archive.infolist() if not info.is_dir() and _is_seen(info.filename)]
    size = sum(info.file_size for info in members)
    most = PARTS_IN_ALL * report.limits.part_bytes
    if len(members) > MEMBERS or size > most:
        raise ReaderLimitError(
            f"{report.name} holds {len(members):,} files of {size / 1e6:,.0f} MB; at most {MEMBERS:,} of "
            f"{most / 1e6:,.0f} MB are read of one archive.",
            hint="Unpack it, and add the folder.",
        )
    blocks: list[Block] = []
    left_out: list[str] = []
    room = report.limits.text_chars
    for number, info in enumerate(members):
        report.page(number + 1, len(members))
        try:
            found = _member(archive, info, folder / str(number), report)
        except (DocumentError, OSError) as error:
            left_out.append(
                error.message if isinstance(error, DocumentError) else f"{info.filename}: {error}"
            )
            continue
        blocks += found
        room -= sum(len(block.text) for block in found)
        if room < 0:
            break
    for reason in left_out[:WARNINGS]:
        report.warn(reason)
    if len(left_out) > WARNINGS:
        report.warn(f"{len(left_out) - WARNINGS:,} more files in it could not be read.")
    return Document("zip", tuple(blocks))


def _is_seen(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return not any(part.strip(".") != part.rstrip(".") or part.lower() in _PASSED for part in parts)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, report: Report) -> list[Block]:
    name = posixpath.normpath("/" + info.filename.replace("\\", "/")).lstrip("/")
    if info.file_size > report.limits.part_bytes or (
        info.file_size > SMALL and info.file_size > RATIO * max(info.compress_size, 1)
    ):
        raise ReaderLimitError(
            f"{name} unpacks from {info.compress_size / 1e6:,.1f} to {info.file_size / 1e6:,.1f} MB; "
            "it was left out."
        )
    try:
        _unpack(archive, info, path, report)
        format_ = detect(path, name)
        # The archive's own limits hold for all of it; what a member's reader says is said with its name.
        own = Report(name, format_, report.limits, send=lambda *_: report.tick())
        document = _reader(format_)(path, own)
    except DocumentError:
        raise
    except (MemoryError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 -- a stranger's parser on a stranger's file may raise anything
        raise damaged(name, "zip", f"its content could not be understood ({type(error).__name__})") from None
    finally:
        path.unlink(missing_ok=True)
    for warning in (*document.warnings, *own.warnings):
        report.warn(f"{name}: {warning}")
    return [_moved(block, name) for block in document.blocks]


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, report: Report) -> None:
    try:
        with archive.open(info) as source, path.open("wb") as target:
            while piece := source.read(_PIECE):
                report.tick()
                target.write(piece)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise damaged(info.filename, "zip", f"it cannot be unpacked ({error})") from None


def _reader(format_: str) -> Any:
    if format_ == "zip":
        raise DocumentError("An archive within the archive was left out.")
    module, _, function = READERS[format_].partition(":")
    return getattr(importlib.import_module(module), function)


def _moved(block: Block, name: str) -> Block:
    chapter = f"{name} › {block.place.chapter}" if block.place.chapter else name
    # No page of an archive can be shown, so nothing is marked on one.
    return msgspec.structs.replace(
        block, place=msgspec.structs.replace(block.place, chapter=chapter, boxes=())
    )
