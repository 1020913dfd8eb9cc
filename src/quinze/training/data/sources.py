"""Where data comes from: files of text and of records, folders of them, or whatever yields documents.

    .txt .text .md .markdown          one text a file
    .jsonl .ndjson .json              one record a line, or a list of them
    .csv .tsv .parquet                one record a row (parquet with pyarrow, of the "train" extra)
    .gz .xz .bz2 and, from Python 3.14 on, .zst   around any of these but parquet

Read as they are asked for: a file is never in memory whole, except one text and one .json list.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import importlib
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import chardet

from quinze.errors import (
    FileFormatError,
    InvalidRequestError,
    MissingPackageError,
    NotFoundError,
    TooLargeError,
)

TEXTS = frozenset([".txt", ".text", ".md", ".markdown"])
LINES = frozenset([".jsonl", ".ndjson"])
RECORDS = LINES | {".json", ".csv", ".tsv", ".parquet"}
PACKED = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open, ".zst": None}
UNPACKED = 4
"""How many times its size a packed text is, about."""
MAX_WHOLE = 2**30
"""Bytes of one text or one .json list; a larger corpus comes in lines or in several files."""
MAX_LINE = 2**26
"""Bytes of one record."""
SAMPLE = 2**16


@dataclass(frozen=True, slots=True)
class Record:
    """One document as it was met: a text, or fields that hold one or a conversation."""

    value: str | Mapping[str, Any]
    where: str
    """File and line, for whoever wants to look."""
    consumed: int = 0
    """Bytes of its file that were read when it came."""


@dataclass(frozen=True, slots=True)
class Source:
    """A named origin of records. `open` is called anew for each reading."""

    name: str
    open: Callable[[], Iterator[Record]]
    licence: str = ""
    bytes: int | None = None
    """Of its files on disk, for progress."""
    text_bytes: int = 0
    """About as many bytes of text, for the disk that they will need."""
    identity: str = ""
    """Changes when the content may have; "": unknown, and prepared anew each time."""

    @classmethod
    def of(cls, path: Path, *, name: str = "", licence: str = "") -> Source:
        """A file, or every readable file of a folder, in the order of their names."""
        files = _files(path)
        stats = [file.stat() for file in files]
        identity = ";".join(f"{f}:{s.st_size}:{s.st_mtime_ns}" for f, s in zip(files, stats, strict=True))
        return cls(
            name or path.name,
            lambda: (record for file in files for record in read_file(file)),
            licence,
            sum(status.st_size for status in stats),
            sum(s.st_size * (UNPACKED if _is_packed(f) else 1) for f, s in zip(files, stats, strict=True)),
            identity,
        )

    @classmethod
    def of_documents(
        cls, name: str, documents: Callable[[], Iterable[str | Mapping[str, Any]]], *, licence: str = ""
    ) -> Source:
        """Texts or records that somebody else has, as a knowledge base: called once for each reading."""

        def records() -> Iterator[Record]:
            for number, value in enumerate(documents(), 1):
                yield Record(value, f"{name}:{number}")

        return cls(name, records, licence)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        if not _suffix(path):
            known = " ".join(sorted(TEXTS | RECORDS))
            raise FileFormatError(
                f"{path.name} is none of the kinds of files that data is read from.",
                hint=f"They are {known}, also packed as {' '.join(PACKED)}.",
            )
        return [path]
    if not path.is_dir():
        raise NotFoundError(f"There is no file or folder {path}.", hint="Check the spelling.")
    inside = (p for p in path.rglob("*") if not any(x.startswith(".") for x in p.relative_to(path).parts))
    found = sorted(p for p in inside if p.is_file() and _suffix(p))
    if not found:
        raise NotFoundError(f"{path} holds no text, JSONL, CSV or parquet files.")
    return found


def _suffix(path: Path) -> str:
    """The kind of a file, packed or not; "" if it is none of ours."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    kind = suffixes[-1] if suffixes else ""
    return kind if kind in TEXTS | RECORDS else ""


def _is_packed(path: Path) -> bool:
    return path.suffix.lower() in PACKED or path.suffix.lower() == ".parquet"


def read_file(path: Path) -> Iterator[Record]:
    """The records of one file. FileFormatError names the line that could not be read."""
    kind = _suffix(path)
    try:
        if kind == ".parquet":
            yield from _parquet(path)
        elif kind in LINES:
            yield from _lines(path)
        elif kind == ".json":
            yield from _json(path)
        elif kind in (".csv", ".tsv"):
            yield from _csv(path, "," if kind == ".csv" else "\t")
        else:
            yield from _text(path)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise FileFormatError(
            f"{path} could not be read: {error}.", hint="Download or copy it again."
        ) from error


class _Opened:
    """A file, unpacked as it is read, that knows how far it has come in the packed bytes."""

    def __init__(self, path: Path) -> None:
        self._raw = path.open("rb")
        opener: Any = PACKED.get(path.suffix.lower(), io.BufferedReader)
        if opener is None:
            opener = _zstandard(path)
        self.file: IO[bytes] = opener(self._raw)

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self._raw.close()

    def consumed(self) -> int:
        return self._raw.tell()


def _zstandard(path: Path) -> Any:
    try:
        return importlib.import_module("compression.zstd").open
    except ImportError:
        raise MissingPackageError(
            f"{path.name} is packed with Zstandard, which Python reads from version 3.14 on.",
            hint="Unpack it first: unzstd, or pack it with xz.",
        ) from None


def _lines(path: Path) -> Iterator[Record]:
    with _Opened(path) as opened:
        number = 0
        while line := opened.file.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                raise TooLargeError(f"{path.name}, line {number:,}, is longer than {MAX_LINE:,} bytes.")
            if line.strip():
                yield Record(_record(line, path, number), f"{path.name}:{number}", opened.consumed())


def _record(line: bytes, path: Path, number: int) -> str | Mapping[str, Any]:
    try:
        value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except (ValueError, RecursionError) as error:
        raise FileFormatError(
            f"{path.name}, line {number:,}, is not JSON: {error}.", hint="Each line holds one JSON object."
        ) from error
    return _checked(value, path, f"line {number:,}")


def _checked(value: Any, path: Path, where: str) -> str | Mapping[str, Any]:
    if not isinstance(value, (str, dict)):
        raise FileFormatError(
            f"{path.name}, {where}, holds a {type(value).__name__}; it should hold an object or a text."
        )
    return value


def _json(path: Path) -> Iterator[Record]:
    data = _whole(path)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        if b"\n{" in data.strip():
            yield from _lines(path)  # JSON lines by another name, which are common
            return
        raise FileFormatError(f"{path.name} is not JSON: {error}.") from error
    if isinstance(value, dict):
        # One record, or a list under a name as {"data": [...]}.
        lists = [item for item in value.values() if isinstance(item, list)]
        value = lists[0] if len(value) == 1 and lists else [value]
    if not isinstance(value, list):
        raise FileFormatError(f"{path.name} holds a {type(value).__name__}, and no list of records.")
    for number, item in enumerate(value, 1):
        yield Record(_checked(item, path, f"record {number:,}"), f"{path.name}:{number}")


def _csv(path: Path, delimiter: str) -> Iterator[Record]:
    csv.field_size_limit(MAX_LINE)
    with _Opened(path) as opened:
        text = io.TextIOWrapper(opened.file, "utf-8-sig", newline="")
        try:
            for number, row in enumerate(csv.DictReader(text, delimiter=delimiter), 2):
                fields = {key: value for key, value in row.items() if isinstance(key, str)}
                yield Record(fields, f"{path.name}:{number}", opened.consumed())
        except (csv.Error, UnicodeDecodeError) as error:
            raise FileFormatError(f"{path.name} could not be read as a table: {error}.") from error


def _parquet(path: Path) -> Iterator[Record]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise MissingPackageError(
            f"{path.name} needs the package pyarrow.", hint="pip install 'quinze[train]'"
        ) from None
    try:
        number = 0
        for group in parquet.ParquetFile(path, memory_map=True).iter_batches(batch_size=1024):
            for row in group.to_pylist():
                number += 1
                yield Record(row, f"{path.name}:{number}")
    except ValueError as error:  # ArrowInvalid is one
        raise FileFormatError(f"{path.name} is no parquet file: {error}.") from error


def _text(path: Path) -> Iterator[Record]:
    data = _whole(path)
    if data.lstrip()[:1] == b"{" and _is_record(data):
        yield from _lines(path)
        return
    yield Record(decoded(data, path.name), path.name, path.stat().st_size)


def _is_record(data: bytes) -> bool:
    """Whether the first line is a JSON object: lines of them are often called .txt."""
    try:
        return isinstance(json.loads(data.lstrip().split(b"\n", 1)[0]), dict)
    except (ValueError, RecursionError):
        return False


def _whole(path: Path) -> bytes:
    with _Opened(path) as opened:
        data = opened.file.read(MAX_WHOLE + 1)
    if len(data) > MAX_WHOLE:
        raise TooLargeError(
            f"{path.name} holds more than {MAX_WHOLE:,} bytes in one piece.",
            hint="Split it into several files, or write one document a line as JSONL.",
        )
    return data


def decoded(data: bytes, name: str) -> str:
    """Text in whatever encoding it is, by its byte order mark, UTF-8, or chardet's statistics."""
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        guess = chardet.detect(data[:SAMPLE])["encoding"] or ""
    try:
        return data.decode("gb18030" if guess.lower().startswith("gb") else guess or "utf-8")
    except (UnicodeDecodeError, LookupError):
        raise FileFormatError(
            f"{name} is in no encoding that could be recognized.", hint="Save it as UTF-8."
        ) from None


TEXT_FIELDS = ("text", "content", "raw_content", "document", "body", "markdown", "article")


def text_of(record: Record, fields: tuple[str, ...]) -> str:
    """The text of a record. InvalidRequestError names the fields there are."""
    if isinstance(record.value, str):
        return record.value
    wanted = fields or tuple(name for name in TEXT_FIELDS if isinstance(record.value.get(name), str))[:1]
    parts = [record.value.get(name) for name in wanted]
    if not parts or not all(isinstance(part, str) for part in parts):
        there = ", ".join(sorted(map(str, record.value)))[:200]
        raise InvalidRequestError(
            f"{record.where} has no {' and '.join(wanted) or 'text'}; its fields are {there}.",
            hint="Name the fields that hold its text with text_fields.",
            param="text_fields",
        )
    return "\n".join(str(part) for part in parts)
