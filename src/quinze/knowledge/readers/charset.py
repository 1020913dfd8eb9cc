"""From bytes to text, whatever encoding the file's maker used; or the finding that it is no text at all.

Byte order mark, then strict UTF-8, then what the file itself declares, then chardet's statistics.
"""

from __future__ import annotations

import codecs
from pathlib import Path

import chardet

from quinze.errors import EmptyDocumentError, ReaderLimitError, UnsupportedDocumentError
from quinze.knowledge.readers.report import Limits, Report

SAMPLE = 64 << 10
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What pages declare is a family; the decoder that reads the whole family loses nothing.
_WIDER = {
    "gb2312": "gb18030", "gbk": "gb18030", "x-gbk": "gb18030", "gb_2312-80": "gb18030",
    "big5": "big5hkscs", "shift_jis": "cp932", "euc-kr": "cp949", "ks_c_5601-1987": "cp949",
    "iso-8859-1": "cp1252", "latin-1": "cp1252", "ascii": "cp1252", "us-ascii": "cp1252",
    "iso-8859-9": "cp1254",
}  # fmt: skip
_HIGH = bytes(range(128, 256))
_CONTROLS = bytes(set(range(32)) - {9, 10, 12, 13, 27} | {127})


def looks_like_text(sample: bytes) -> bool:
    """Whether `sample`, the beginning of a file, is text in some encoding."""
    if any(sample.startswith(mark) for mark, _ in _MARKS):
        return True
    if utf16_without_mark(sample):
        return True
    if _has_controls(sample):
        return False
    if _is_utf8(sample) or _nearly_utf8(sample) is not None:
        return True
    guess = chardet.detect(sample)
    return guess["encoding"] is not None and _decodes(sample, guess["encoding"])


def decode(data: bytes, declared: str | None = None) -> str:
    """The text of `data`. Bytes that the encoding does not know become U+FFFD, never an error."""
    for mark, marked in _MARKS:
        if data.startswith(mark):
            return data.decode(marked, "replace")
    if encoding := utf16_without_mark(data[:SAMPLE]):
        return data.decode(encoding, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    if (lenient := _nearly_utf8(data)) is not None:
        return lenient
    for guess in (_known(declared), _known(chardet.detect(data[: 4 * SAMPLE])["encoding"])):
        if guess is not None:
            text = data.decode(guess, "replace")
            # One broken character in a thousand is a flaw of the file; more, and the guess was wrong.
            if text.count("�") <= len(text) // 1000 + 1:
                return text
    return data.decode("cp1252", "replace")


def read_text(path: Path, report: Report, declared: str | None = None) -> str:
    """The whole text of a file, its line ends made equal."""
    return (
        decode(read_bytes(path, report.name, report.limits), declared)
        .replace("\r\n", "\n")
        .replace("\r", "\n")
    )


def read_bytes(path: Path, name: str, limits: Limits) -> bytes:
    size = path.stat().st_size
    # Text of four bytes a character is the longest there is; beyond that not all of it could be kept anyway.
    most = 8 * limits.text_chars
    if size > most:
        raise ReaderLimitError(
            f"{name} is a text of {size / 1e6:,.1f} MB; at most {most / 1e6:,.1f} MB are read.",
            hint="Split it into smaller files, and add those.",
        )
    data = path.read_bytes()
    if not data.strip():
        raise EmptyDocumentError(f"{name} is empty.", hint="Check that it was saved and copied whole.")
    if not looks_like_text(data[:SAMPLE]):
        raise UnsupportedDocumentError(
            f"{name} does not hold text: its bytes fit no character encoding.",
            hint="If it is a document, give it its proper suffix, or save it as text in UTF-8.",
        )
    return data


def utf16_without_mark(sample: bytes) -> str | None:
    """UTF-16 betrays itself by the zero bytes of its spaces, digits and line ends, all on one side."""
    if len(sample) < 4 or b"\x00" not in sample:
        return None
    even, odd = sample[0:4000:2].count(0), sample[1:4000:2].count(0)
    encoding = "utf-16-le" if odd > even else "utf-16-be"
    if min(even, odd) * 20 > max(even, odd) or max(even, odd) * 40 < min(len(sample), 4000) // 2:
        return None
    text = sample[: len(sample) // 2 * 2].decode(encoding, "replace")
    strange = sum(not (each.isprintable() or each.isspace()) or each == "�" for each in text)
    return encoding if strange * 50 <= len(text) else None


def _is_utf8(sample: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample, final=False)
    except UnicodeDecodeError:
        return False
    return True


def _nearly_utf8(data: bytes) -> str | None:
    """The text of UTF-8 with a few broken bytes. In another encoding nearly all of them would be broken."""
    text = data.decode("utf-8", "replace")
    broken = text.count("�")
    is_flaw = broken * 20 < len(data) - len(data.translate(None, _HIGH)) and broken * 100 < len(text)
    return text if is_flaw else None


def _decodes(sample: bytes, encoding: str) -> bool:
    text = sample.decode(_known(encoding) or "utf-8", "replace")
    strange = sum(each == "�" or not (each.isprintable() or each.isspace()) for each in text)
    return strange * 50 <= len(text)


def _has_controls(sample: bytes) -> bool:
    return (len(sample) - len(sample.translate(None, _CONTROLS))) * 100 > len(sample)


def _known(encoding: str | None) -> str | None:
    """The codec that reads `encoding` and its extensions, if Python has one."""
    if not encoding:
        return None
    wider = _WIDER.get(encoding.strip().lower(), encoding.strip().lower())
    try:
        return codecs.lookup(wider).name
    except LookupError:
        return None
