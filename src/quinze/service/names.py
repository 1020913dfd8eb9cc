"""Names that people give: to models, to knowledge bases, to uploads. Each is checked once, here.

A name of a knowledge base becomes a folder; the name of an upload comes from a browser and is only ever
shown. Chinese and English letters are equals; what could be mistaken for a path or an option is refused.
"""

from __future__ import annotations

import re
import unicodedata

from quinze.errors import InvalidRequestError

MAX_NAME = 80
MAX_UPLOAD_NAME = 1000
_MAX_NAME_BYTES = 200
_FORBIDDEN = re.compile(r'[\\/:*?"<>|\x00-\x1f\x7f-\x9f]')


def valid_name(name: str, *, of: str) -> str:
    """`name` in its one spelling (NFC), or InvalidRequestError that says what is wrong.

    of  "knowledge base", "model"

    >>> valid_name("笔记 2026", of="knowledge base")
    '笔记 2026'
    """
    name = _one_spelling(name, of)
    fault = ""
    if not name or name != name.strip():
        fault = "is empty, or begins or ends with a space"
    elif len(name) > MAX_NAME or len(name.encode()) > _MAX_NAME_BYTES:
        fault = f"has {len(name)} characters; {MAX_NAME} is the most"
    elif name.startswith((".", "-")):
        fault = 'begins with "." or "-"'
    elif _FORBIDDEN.search(name) or _invisible(name):
        fault = 'holds a control character or one of \\ / : * ? " < > |'
    if fault:
        raise InvalidRequestError(
            f"The {of} name {_shown(name)} {fault}.",
            hint="Use letters of any language, digits, spaces, dots, dashes and underscores.",
            param="name",
        )
    return name


def valid_upload_name(name: str) -> str:
    """The shown name of an uploaded file, "folder/file.docx", checked. It never becomes a path on its own.

    >>> valid_upload_name("reports/年报.pdf")
    'reports/年报.pdf'
    """
    name = _one_spelling(name, "document").strip()
    parts = name.split("/")
    fault = ""
    if not name:
        fault = "is empty"
    elif _invisible(name):
        fault = "holds a control character"
    elif "\\" in name or name.startswith("/") or re.match(r"[A-Za-z]:", name):
        fault = "is an absolute or a Windows path"
    elif any(part.strip() in {"", ".", ".."} for part in parts):
        fault = 'has an empty part, "." or ".."'
    elif len(name) > MAX_UPLOAD_NAME or any(len(part.encode()) > 255 for part in parts):
        fault = "is longer than a file name can be (255 bytes)"
    if fault:
        raise InvalidRequestError(
            f"The document name {_shown(name)} {fault}.",
            hint='Give a plain name such as "report.pdf" or "folder/report.pdf".',
            param="name",
        )
    return name


def file_name_on_disk(sha256: str, shown_name: str) -> str:
    """The name under which an upload is kept: the hash of its content, then a harmless form of its name."""
    last = shown_name.rpartition("/")[2]
    stem, dot, suffix = last.rpartition(".")
    if not dot:
        stem, suffix = last, ""
    stem = re.sub(r"[^\w.-]+", "_", stem).strip("._-") or "file"
    suffix = re.sub(r"[^\w]+", "", suffix)[:16]
    while len(stem.encode()) > 100:
        stem = stem[:-1]
    return f"{sha256}-{stem}.{suffix}" if suffix else f"{sha256}-{stem}"


def _one_spelling(name: str, of: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(f"The {of} name is not valid Unicode.", param="name") from None
    return unicodedata.normalize("NFC", name)


def _invisible(name: str) -> bool:
    """Control, format (bidi overrides, zero width), private, unassigned characters, line separators."""
    return any(unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"} for character in name)


def _shown(name: str) -> str:
    return repr(name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…")
