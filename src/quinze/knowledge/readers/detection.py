"""What a file is: by its first bytes and its members, then by its suffix.

A file that is not what its name says is read as what it is; one that cannot be read is refused by its right
name.
"""

from __future__ import annotations

import re
import stat
import zipfile
from pathlib import Path

from quinze.errors import (
    DocumentError,
    EmptyDocumentError,
    EncryptedDocumentError,
    UnsupportedDocumentError,
)
from quinze.knowledge.readers import charset, ole
from quinze.knowledge.readers.suffixes import CODE, NAMES, REFUSED, SUFFIXES

_MAGICS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image"), (0, b"\xff\xd8\xff", "image"), (0, b"GIF87a", "image"),
    (0, b"GIF89a", "image"), (0, b"II*\x00", "image"), (0, b"MM\x00*", "image"), (0, b"II+\x00", "image"),
    (8, b"WEBP", "image"), (0, b"{\\rtf", "rtf"), (0, b"%!PS", "ps"), (0, b"ITSF", "chm"),
    (0, b"AT&TFORM", "djvu"), (60, b"BOOKMOBI", "mobi"), (0, b"\x1f\x8b", "archive"),
    (0, b"BZh", "archive"), (0, b"\xfd7zXZ\x00", "archive"), (0, b"7z\xbc\xaf'\x1c", "archive"),
    (0, b"Rar!\x1a\x07", "archive"), (0, b"\x28\xb5\x2f\xfd", "archive"), (257, b"ustar", "archive"),
    (0, b"ID3", "audio"), (0, b"OggS", "audio"), (0, b"fLaC", "audio"), (0, b"RIFF", "audio"),
    (0, b"\x1aE\xdf\xa3", "audio"), (4, b"ftypheic", "heic"), (4, b"ftypmif1", "heic"),
    (4, b"ftypavif", "heic"), (4, b"ftyp", "audio"), (0, b"\x7fELF", "program"), (0, b"MZ", "program"),
    (0, b"\xca\xfe\xba\xbe", "program"), (0, b"\xcf\xfa\xed\xfe", "program"), (0, b"\x00asm", "program"),
    (0, b"SQLite format 3\x00", "database"), (0, b"GGUF", "weights"), (0, b"PAR1", "database"),
)  # fmt: skip
_SHEBANGS = (
    (b"python", "python"), (b"bash", "bash"), (b"/sh", "bash"), (b"zsh", "bash"), (b"node", "javascript"),
    (b"ruby", "ruby"), (b"php", "php"),
)  # fmt: skip
_FEED = re.compile(
    rb"(?:<\?(?:(?!\?>).)*\?>|<!--(?:(?!-->).)*-->|\s)*"
    rb"<(?:rss[\s>]|feed\s[^>]*http://www\.w3\.org/2005/atom|rdf:rdf\s[^>]*http://purl\.org/rss/)",
    re.DOTALL,
)
_PACKED = frozenset({"docx", "pptx", "xlsx", "xlsb", "ods", "epub"})


def detect(path: Path, name: str = "") -> str:
    """The format of the file at `path`, a key of READERS. `name` is what the person calls it."""
    name = name or path.name
    require_file(path, name)
    suffix = suffix_of(name) or suffix_of(path.name)
    promised = SUFFIXES.get(suffix, "")
    with path.open("rb") as file:
        head = file.read(charset.SAMPLE)
    if not head.strip(b"\x00\t\n\r \xef\xbb\xbf"):
        raise EmptyDocumentError(
            f"{name} is empty{'' if not head else ': it holds nothing but blanks'}.",
            hint="Check that it was saved and copied whole.",
        )
    found = _by_content(path, name, head, promised)
    if found in REFUSED and found != promised:
        raise refusal(name, found)
    if found:
        return found
    if promised and promised != "text" and not charset.looks_like_text(head):
        raise damaged(name, promised)
    return _kind_of_text(name, suffix, promised, head)


def require_file(path: Path, name: str) -> None:
    """Devices, pipes and folders are not opened: reading some of them never ends."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DocumentError(
            f"{_short(name)} cannot be opened: {reason}.",
            hint="Check that it still exists and that you may read it.",
        ) from None
    if not stat.S_ISREG(mode):
        kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
        what = next((words for check, words in kinds if check(mode)), "a device")
        raise UnsupportedDocumentError(f"{name} is {what}, not a file.", hint="Add the file itself.")


def suffix_of(name: str) -> str:
    """ ".pdf" of "a/B.PDF"; "" when there is none."""
    last = name.replace("\\", "/").rpartition("/")[2]
    stem, dot, suffix = last.rpartition(".")
    return f".{suffix.lower()}" if dot and stem else ""


def refusal(name: str, kind: str) -> UnsupportedDocumentError:
    what, hint = REFUSED[kind]
    return UnsupportedDocumentError(f"{name} is {what}, which Quinze does not read.", hint=hint)


def encrypted(name: str) -> EncryptedDocumentError:
    return EncryptedDocumentError(
        f"{name} is protected by a password.",
        hint="Open it with its password, save a copy without one, and add the copy.",
    )


def damaged(name: str, promised: str, reason: str = "") -> DocumentError:
    what = f"a readable {NAMES.get(promised, promised)} file"
    return DocumentError(
        f"{name} is not {what}: {reason or 'its content is damaged, or of another kind'}.",
        hint="Fetch it again, or open it in its own program and save it anew.",
    )


def _by_content(path: Path, name: str, head: bytes, promised: str) -> str:
    # The PDF standard lets a kilobyte of anything stand before the header.
    if b"%PDF-" in head[:1024]:
        return "pdf"
    if head.startswith(ole.MAGIC):
        return _ole_kind(path, name, promised)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return _zip_kind(path, name, promised)
    for offset, magic, kind in _MAGICS:
        if head[offset : offset + len(magic)] == magic and not _only_words(kind, head):
            return kind
    if head[:2] == b"BM" and len(head) > 26 and head[6:10] == b"\0\0\0\0":
        return "image"
    # An MPEG frame: eleven set bits, then a layer that exists. A mark of UTF-16 looks alike.
    is_frame = head[0] == 0xFF and head[1] & 0xE6 in (0xE2, 0xE4, 0xE6)
    if is_frame and not charset.looks_like_text(head):
        return "audio"
    return ""


def _only_words(kind: str, head: bytes) -> bool:
    """ "MZ", "ID3" and the like may also begin a text."""
    return kind in ("program", "audio", "database", "weights", "archive") and charset.looks_like_text(head)


def _ole_kind(path: Path, name: str, promised: str) -> str:
    names = ole.top_names(path)
    if "EncryptedPackage" in names:
        raise encrypted(name)
    for stream, kind in (
        ("WordDocument", "doc"),
        ("PowerPoint Document", "ppt"),
        ("__properties_version1.0", "msg"),
        ("Workbook", "xls"),
        ("Book", "xls"),
    ):
        if stream in names:
            return kind
    raise damaged(name, promised or "Office")


def _zip_kind(path: Path, name: str, promised: str) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.NameToInfo
            locked = any(info.flag_bits & 1 for info in members.values())
            mimetype = archive.read("mimetype")[:200] if _small(archive, "mimetype") and not locked else b""
            manifest = (
                archive.read("META-INF/manifest.xml")
                if mimetype and _small(archive, "META-INF/manifest.xml")
                else b""
            )
            rights = "META-INF/encryption.xml" in members and "META-INF/rights.xml" in members
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError, RuntimeError):
        raise damaged(name, promised or "zip", "it is cut off or damaged") from None
    kind = _zip_members(frozenset(members), mimetype)
    if locked or (kind != "zip" and (rights or b"encryption-data" in manifest)):
        raise encrypted(name)
    if kind == "zip" and promised in _PACKED and not members:
        raise damaged(name, promised)
    return kind


_MIMETYPES = (
    (b"application/epub+zip", "epub"),
    (b"application/vnd.oasis.opendocument.spreadsheet", "ods"),
    (b"application/vnd.oasis.opendocument.text", "odt"),
    (b"application/vnd.oasis.opendocument.presentation", "odp"),
)
_MEMBERS = (
    ("xl/workbook.bin", "xlsb"), ("word/document", "docx"), ("ppt/presentation", "pptx"),
    ("xl/workbook", "xlsx"), ("word/", "docx"), ("ppt/", "pptx"), ("xl/", "xlsx"),
    ("meta-inf/container.xml", "epub"),
)  # fmt: skip


def _zip_members(members: frozenset[str], mimetype: bytes) -> str:
    for beginning, kind in _MIMETYPES:
        if mimetype.startswith(beginning):
            return kind
    small = {member.lower() for member in members}
    for folder, kind in _MEMBERS:
        if any(member.startswith(folder) for member in small):
            return kind
    return "pages" if any(member.endswith(".iwa") for member in small) else "zip"


def _small(archive: zipfile.ZipFile, member: str) -> bool:
    info = archive.NameToInfo.get(member)
    return info is not None and info.file_size <= 1 << 20


def _kind_of_text(name: str, suffix: str, promised: str, head: bytes) -> str:
    if not charset.looks_like_text(head):
        raise UnsupportedDocumentError(
            f"{name} is a binary file of a kind that Quinze does not know"
            f"{f', although its name ends in {suffix}' if promised == 'text' else ''}.",
            hint="If it is a document, save it as PDF, Word or plain text and add that.",
        )
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:2048].lower()
    if promised in ("", "text", "html") and _FEED.match(start):
        return "feed"
    is_html = start.startswith((b"<!doctype html", b"<html")) or (
        start.startswith((b"<?xml", b"<!--", b"<!doctype")) and b"<html" in start
    )
    if promised in CODE or promised in ("markdown", "csv", "tsv", "html", "notebook", "email"):
        return "html" if is_html and promised not in CODE and promised != "markdown" else promised
    if is_html and suffix not in (".xml", ".xsl", ".svg", ".vue", ".svelte"):
        return "html"
    if promised == "text":
        return "text"
    if start.startswith(b"#!"):
        line = start.partition(b"\n")[0]
        return next((language for word, language in _SHEBANGS if word in line), "text")
    return "text"


def _short(name: str) -> str:
    return name if len(name) <= 120 else f"{name[:60]}…{name[-59:]}"
