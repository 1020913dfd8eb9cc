"""Plain text: paragraphs with their lines and the chapters above them, in any encoding.

A paragraph is a run of lines without a blank one. Lines that were wrapped by hand are joined again; lists,
logs, subtitles, JSON and the like keep theirs. What is longer than a page is divided, for a citation should
be short.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from quinze.knowledge.document import Block, BlockKind, Document, Place
from quinze.knowledge.readers import charset
from quinze.knowledge.readers.outline import outline_level
from quinze.knowledge.readers.report import Report
from quinze.knowledge.readers.tables import Headings, heading_block

PROSE = frozenset({"", ".txt", ".text", ".asc", ".me", ".readme"})
"""Suffixes of files whose lines may have been wrapped by hand."""
LONGEST = 2000
"""Characters of one block."""
_WIDE = frozenset("WFA")
_BREAK = re.compile(r"(?<=[。！？；!?;])|(?<=[.,，、：:])\s|\s")
_LIST = re.compile(r"\s*([-*•·+>|]|\d{1,3}[.)、]|[(（]?[\da-zA-Z一二三四五六七八九十]{1,3}[)）])\s*\S")


def read(path: Path, report: Report) -> Document:
    text = charset.read_text(path, report)
    wrapped = path_suffix(report.name) in PROSE
    headings = Headings()
    blocks: list[Block] = []
    for lines, piece in paragraphs(text, report, wrapped=wrapped):
        level = outline_level(piece) if wrapped else None
        if level is not None:
            blocks.append(heading_block(level, piece, Place(lines=lines), headings))
        else:
            blocks.append(Block(BlockKind.PARAGRAPH, piece, Place(lines=lines, heading=headings.path)))
    return Document(report.format or "text", tuple(blocks))


def paragraphs(text: str, report: Report, *, wrapped: bool) -> Iterator[tuple[tuple[int, int], str]]:
    """((first line, last line), text) of each paragraph, none longer than LONGEST."""
    first, lines, after_heading = 1, list[str](), False
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        blank = not line.strip()
        is_heading = wrapped and not blank and outline_level(line.strip()) is not None
        if lines and (blank or is_heading or after_heading):
            report.tick()
            yield from _divided(first, lines, wrapped=wrapped)
            lines = []
        after_heading = is_heading
        if not blank:
            if not lines:
                first = number
            lines.append(line.rstrip())


def path_suffix(name: str) -> str:
    dot = name.rpartition("/")[2].rfind(".")
    return name.rpartition("/")[2][dot:].lower() if dot >= 0 else ""


def width(text: str) -> int:
    """Columns of a terminal that `text` takes: a Chinese character has two."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(each) in _WIDE else 1 for each in text)


def joined(lines: list[str]) -> str:
    """Wrapped lines as one: with a space between words, without one between Chinese characters."""
    text = lines[0].strip()
    for line in lines[1:]:
        line = line.strip()
        glue = "" if text and line and (_no_space(text[-1]) or _no_space(line[0])) else " "
        text += glue + line
    return text


def _no_space(character: str) -> bool:
    return "⺀" <= character <= "鿿" or "豈" <= character <= "﫿" or "！" <= character <= "｠"


def _divided(first: int, lines: list[str], *, wrapped: bool) -> Iterator[tuple[tuple[int, int], str]]:
    if wrapped and _was_wrapped(lines):
        last = first + len(lines) - 1
        text = joined(lines)
        if len(text) <= LONGEST:
            yield (first, last), text
            return
    start, size = 0, 0
    for index, line in enumerate(lines):
        if size and size + len(line) > LONGEST:
            yield from _one(first + start, lines[start:index])
            start, size = index, 0
        size += len(line) + 1
    yield from _one(first + start, lines[start:])


def _one(first: int, lines: list[str]) -> Iterator[tuple[tuple[int, int], str]]:
    text = "\n".join(lines).strip("\n")
    place = (first, first + len(lines) - 1)
    for piece in pieces(text):
        yield place, piece


def pieces(text: str) -> Iterator[str]:
    """`text` cut at ends of sentences or words into pieces of at most LONGEST characters."""
    while len(text) > LONGEST:
        cuts = [match.end() for match in _BREAK.finditer(text, LONGEST // 2, LONGEST)]
        cut = cuts[-1] if cuts else LONGEST
        yield text[:cut].rstrip()
        text = text[cut:].lstrip()
    if text.strip():
        yield text


def _was_wrapped(lines: list[str]) -> bool:
    """Whether the lines end where the paper ended, not where the thought did."""
    if len(lines) < 2 or any(_LIST.match(line) for line in lines[1:]):
        return False
    widths = [width(line.strip()) for line in lines]
    body = widths[:-1]
    most = max(widths)
    # Each line but the last is about as long as it could be before its next word (in Chinese: character).
    return 30 <= most <= 120 and all(
        wide + _first_word(lines[index + 1]) + 1 >= most - 4 for index, wide in enumerate(body)
    )


def _first_word(line: str) -> int:
    word = line.split(maxsplit=1)[0] if line.strip() else ""
    return min(width(word), 30) if word.isascii() else 2
