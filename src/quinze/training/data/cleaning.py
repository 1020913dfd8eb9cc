"""One document made clean, or left out, with the reason: every change has a name, and is counted under it.

Unicode      NFC; control characters, byte order marks, soft hyphens and lone surrogates away
line ends    \\n alone; no blanks at the end of lines; at most two empty lines in a row
hard breaks  lines of one width, as of old e-texts, joined to paragraphs
mojibake     UTF-8 that was read as Latin-1 is read anew; what is beyond that is left out
repetition   a document that zlib makes ten times smaller says little: left out
"""

from __future__ import annotations

import itertools
import re
import unicodedata
import zlib
from dataclasses import dataclass, field

CONTROL = re.compile(
    "[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u2060\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
)
MOJIBAKE = re.compile(
    "[ÂÃ][\x80-\xbf\u0192\u02c6\u2013-\u2122]|â€|ï»¿|ï¿½|锟斤拷|烫烫|屯屯|ã€|[åäæçèé][\x80-\xbf\u2018-\u203a][\x80-\xbf\u0152-\u2122]"
)
MOJIBAKE_SHARE = 1 / 500
"""Marks a character from which a text counts as broken."""
REPETITIVE = 0.1
"""zlib's size of a document over its own; prose comes to 0.3 to 0.6, tables and lists to 0.15."""
REPETITIVE_FROM = 2000
"""Bytes from which that is judged."""
WIDTHS = range(45, 91)
"""Letters of a line that somebody broke by hand."""


@dataclass(slots=True)
class Cleaned:
    text: str | None
    """None: left out."""
    reasons: list[str] = field(default_factory=list)
    """What was mended, or why it was left out."""


def clean(text: str, min_characters: int = 1) -> Cleaned:
    """The document as it shall be learned."""
    done = Cleaned(None)
    if _share(MOJIBAKE, text) > MOJIBAKE_SHARE:
        mended = _unmangled(text)
        if mended is None:
            done.reasons.append("mojibake")
            return done
        text = mended
        done.reasons.append("mojibake mended")
    if text.count("\ufffd") > len(text) * MOJIBAKE_SHARE:
        done.reasons.append("undecodable")
        return done
    if "\r" in text or "\x85" in text or "\x0c" in text or "\u2028" in text:
        text = re.sub("\r\n?|[\x85\x0c\u2028]", "\n", text).replace("\u2029", "\n\n")
    if CONTROL.search(text):
        text = CONTROL.sub("", text)
        done.reasons.append("control characters removed")
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
        done.reasons.append("Unicode composed")
    text = re.sub(r"[ \t]+\n", "\n", text)
    joined = unwrapped(text)
    if joined is not None:
        text = joined
        done.reasons.append("hard line breaks joined")
    text = re.sub(r"\n{4,}", "\n\n\n", text)
    if len(text.strip()) < max(1, min_characters):
        done.reasons.append("too short" if text.strip() else "empty")
        return done
    data = text.encode()
    if len(data) >= REPETITIVE_FROM and len(zlib.compress(data, 1)) < REPETITIVE * len(data):
        done.reasons.append("repetitive")
        return done
    done.text = text
    return done


def tidy(text: str) -> str | None:
    """What somebody said, with nothing changed that a reader could see; None: beyond repair."""
    if _share(MOJIBAKE, text) > MOJIBAKE_SHARE and len(text) > 40:
        mended = _unmangled(text)
        if mended is None:
            return None
        text = mended
    return unicodedata.normalize("NFC", CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))


def unwrapped(text: str) -> str | None:
    """The text with its lines joined, if somebody broke all its paragraphs at one width; else None."""
    lines = text.split("\n")
    # A line that another one follows within its paragraph is as long as lines get.
    inner = [a for a, b in itertools.pairwise(lines) if a.strip() and b.strip()]
    if len(inner) < 20:
        return None
    widths = sorted(map(len, inner))
    broken = sum(a[-1].isalnum() or a[-1] in ",;-" for a in inner)
    even = widths[len(widths) // 10] > 0.75 * widths[-1 - len(widths) // 50]
    if not even or widths[-1 - len(widths) // 50] not in WIDTHS or broken < 0.5 * len(inner):
        return None
    return re.sub(r"(?<=\S)\n(?=[^\s\-*#>|\d])", " ", text)


def _share(pattern: re.Pattern[str], text: str) -> float:
    return sum(1 for _ in pattern.finditer(text)) / max(1, len(text))


def _unmangled(text: str) -> str | None:
    """UTF-8 that was read as Latin-1 or Windows-1252, read as what it was; None if it was not that."""
    for encoding in ("cp1252", "latin-1"):
        try:
            mended = text.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
        if _share(MOJIBAKE, mended) <= MOJIBAKE_SHARE:
            return mended
    return None
