"""Members of a zip-packed document (Office files, books), unpacked within limits and parsed without trust.

No member larger than the limit is unpacked, no entity is expanded, nothing outside the file is ever fetched.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from lxml import etree

from quinze.errors import DocumentError, EncryptedDocumentError, ReaderLimitError
from quinze.knowledge.readers.detection import damaged, encrypted
from quinze.knowledge.readers.report import Report

Element = Any
"""An lxml element."""

_T = TypeVar("_T")

PARTS_IN_ALL = 4
"""All the members read of one file may unpack to so many times the limit of one."""

_ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, ValueError, RuntimeError,
)  # fmt: skip

# ISO's strict variant of Office files differs from the usual one in the names of its namespaces.
_STRICT = b"http://purl.oclc.org/ooxml/"
_FAMILIES = (
    (b"officeDocument/relationships", b"http://schemas.openxmlformats.org/officeDocument/2006/relationships"),
    (b"officeDocument/math", b"http://schemas.openxmlformats.org/officeDocument/2006/math"),
    (b"wordprocessingml/main", b"http://schemas.openxmlformats.org/wordprocessingml/2006/main"),
    (b"spreadsheetml/main", b"http://schemas.openxmlformats.org/spreadsheetml/2006/main"),
    (b"presentationml/main", b"http://schemas.openxmlformats.org/presentationml/2006/main"),
    (b"drawingml/", b"http://schemas.openxmlformats.org/drawingml/2006/"),
)
_MARKUP = (".xml", ".bin", ".rels", ".vml")
_ENTITY = re.compile(rb"<!ENTITY\s")
_RELATIONSHIP = "{http://schemas.openxmlformats.org/package/2006/relationships}Relationship"


class Package:
    """A zip file of parts. Use it as a context manager."""

    def __init__(self, path: Path, report: Report) -> None:
        self._report = report
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise damaged(report.name, report.format, f"it cannot be unpacked ({error})") from None
        self._unpacked = 0
        self._names = {name.lstrip("/").lower(): name for name in self._zip.namelist()}

    def __enter__(self) -> Package:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def __contains__(self, part: str) -> bool:
        return part.lstrip("/").lower() in self._names

    def check_sizes(self) -> None:
        """Refuse a package that would unpack beyond all limits, for a parser that unpacks it by itself."""
        most = PARTS_IN_ALL * self._report.limits.part_bytes
        for info in self._zip.infolist():
            if info.flag_bits & 1:
                raise encrypted(self._report.name)
        size = sum(info.file_size for info in self._zip.infolist() if info.filename.lower().endswith(_MARKUP))
        if size > most:
            raise ReaderLimitError(
                f"{self._report.name} unpacks to {size / 1e6:,.0f} MB; at most {most / 1e6:,.0f} are read.",
                hint="Split it, or export the sheets that matter as CSV.",
            )

    def names(self) -> Iterator[str]:
        yield from self._zip.namelist()

    def chunks(self, part: str, size: int = 1 << 20) -> Iterator[bytes]:
        """The bytes of a large part one after another, for a package whose sizes were checked; none of a part
        that is not there or is damaged."""
        name = self._names.get(part.lstrip("/").lower())
        if name is None:
            return
        try:
            with self._zip.open(name) as file:
                while data := file.read(size):
                    self._report.tick()
                    yield data
        except _ZIP_ERRORS:
            return

    def read(self, part: str) -> bytes | None:
        """The bytes of a part, whatever the case of its name; None if there is none."""
        name = self._names.get(part.lstrip("/").lower())
        if name is None:
            return None
        info = self._zip.getinfo(name)
        most = self._report.limits.part_bytes
        self._unpacked += info.file_size
        if info.file_size > most or self._unpacked > PARTS_IN_ALL * most:
            raise ReaderLimitError(
                f"{self._report.name} is packed too tightly to be honest: {name} alone unpacks to "
                f"{info.file_size / 1e6:,.0f} MB, and at most {most / 1e6:,.0f} MB of a part are read.",
                hint="If it is a real document, split it, or save it without its large parts.",
            )
        if info.flag_bits & 1:
            raise encrypted(self._report.name)
        self._report.tick()
        try:
            return self._zip.read(info)
        except _ZIP_ERRORS as error:
            raise damaged(
                self._report.name, self._report.format, f"{name} cannot be unpacked ({error})"
            ) from None

    def xml(self, part: str) -> Element | None:
        """The root element of an XML part; None if there is none."""
        data = self.read(part)
        if data is None or not data.strip():
            return None
        try:
            return parse_xml(data, part, self._report)
        except etree.XMLSyntaxError as error:
            raise damaged(self._report.name, self._report.format, f"{part} is no XML ({error.msg})") from None

    def side_xml(self, part: str) -> Element | None:
        """The root of a part without which the rest can be read; the person is told if it is damaged."""
        return self._lenient(part, self.xml)

    def side_read(self, part: str) -> bytes | None:
        """The same of its bytes."""
        return self._lenient(part, self.read)

    def _lenient(self, part: str, read: Callable[[str], _T]) -> _T | None:
        try:
            return read(part)
        except (ReaderLimitError, EncryptedDocumentError):
            raise
        except DocumentError:
            self._report.warn(f"{part} is damaged and was left out.")
            return None

    def relations(self, part: str) -> dict[str, tuple[str, str]]:
        """Of one part: relation id -> (kind, name of its target). Those that lead outside are left out."""
        folder, _, file = part.rpartition("/")
        root = self.side_xml(f"{folder}/_rels/{file}.rels" if folder else f"_rels/{file}.rels")
        found: dict[str, tuple[str, str]] = {}
        for each in () if root is None else root.iter(_RELATIONSHIP):
            if each.get("TargetMode") == "External":
                continue
            target = unquote(each.get("Target", ""))
            target = (
                target[1:] if target.startswith("/") else posixpath.normpath(posixpath.join(folder, target))
            )
            found[each.get("Id", "")] = (each.get("Type", "").rpartition("/")[2], target)
        return found

    def main_part(self, default: str) -> str:
        """The part that the package names as its document."""
        for kind, target in self.relations("").values():
            if kind == "officeDocument" and target in self:
                return target
        return default

    def properties(self) -> dict[str, str]:
        """Title, author and dates, as docProps/core.xml states them."""
        root = self.side_xml("docProps/core.xml")
        names = {"title": "title", "creator": "author", "created": "created", "modified": "modified"}
        found: dict[str, str] = {}
        for each in () if root is None else root.iterchildren(tag=etree.Element):
            name = names.get(etree.QName(each).localname)
            if name and each.text and each.text.strip():
                found[name] = each.text.strip()
        return found


def parse_xml(data: bytes, part: str, report: Report) -> Element:
    """The root of `data`; entities stay unexpanded, and the person is told of them."""
    if _STRICT in data:
        for strict, usual in _FAMILIES:
            data = data.replace(_STRICT + strict, usual)
    if _ENTITY.search(data, 0, 100_000):
        report.warn(f"{part} declares entities of its own; their content was left out.")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True, remove_pis=True
    )
    return etree.fromstring(data, parser)


def own_text(element: Element) -> str:
    """The text right inside an element, around entities that were not expanded."""
    if len(element) == 0:
        return element.text or ""
    return (element.text or "") + "".join(child.tail or "" for child in element)
