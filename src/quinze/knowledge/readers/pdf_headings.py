"""What is a heading in a PDF, which says so nowhere: told by the whole document's type, and by its outline.

Given the lines of all pages; knows nothing of blocks or of the file.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quinze.knowledge.readers.pdf_columns import Line
from quinze.knowledge.readers.pdf_layout import BULLET, Paragraph

LARGER = 1.12
"""A heading's size over that of the running text."""

LONGEST = 160
"""Characters of a heading."""

CAPTION = re.compile(
    r"^(?i:figure|fig\.|table|tab\.|exhibit|listing|chart|abbildung|abb\.|图表?|表|圖)\s*(\d|[A-Z]?[.-]?\d|[一二三四五六七八九十]+[\s:：])"
)
_CHAPTER = re.compile(r"^第[一二三四五六七八九十百零\d]+([编章])|^第[一二三四五六七八九十百零\d]+([节節])")


@dataclass(frozen=True, slots=True)
class Style:
    """What the whole document tells about its type."""

    body: float
    bold_is_rare: bool
    mono_is_rare: bool
    sizes: tuple[float, ...]
    """Font sizes of headings, largest first."""
    words: frozenset[str]
    outline: Mapping[tuple[int, str], int]
    """(page, key of the title) -> level"""


def read_style(lines: Sequence[Line], outline: Mapping[tuple[int, str], int]) -> Style:
    """`lines`: the running text of all pages."""
    sizes: Counter[float] = Counter()
    bold = mono = letters = 0
    words: set[str] = set()
    for line in lines:
        length = len(line.text)
        sizes[_rounded(line.size)] += length
        letters += length
        bold += length if line.bold else 0
        mono += length if line.mono else 0
        words.update(re.findall(r"\w+(?:-\w+)*", line.text.lower()))
    body = sizes.most_common(1)[0][0] if sizes else 10.0
    larger: list[float] = []
    for size in sorted({_rounded(line.size) for line in lines if line.size >= LARGER * body}, reverse=True):
        if not larger or size < 0.93 * larger[-1]:
            larger.append(size)
    return Style(body, bold < 0.4 * letters, mono <= 0.6 * letters, tuple(larger), frozenset(words), outline)


def _rounded(size: float) -> float:
    return round(2 * size) / 2


def heading_level(paragraph: Paragraph, text: str, page: int, style: Style) -> int:
    """1 is the outermost; 0: no heading."""
    key = outline_key(text)
    for number in (page, page - 1, page + 1):
        if (number, key) in style.outline:
            return style.outline[number, key]
    if not _could_be(paragraph, text):
        return 0
    chapter = _CHAPTER.match(text)
    if chapter and len(text) <= 40 and text[-1] not in "。；，" and len(paragraph.lines) == 1:
        return 1 if chapter.group(1) else 2
    if paragraph.size >= LARGER * style.body:
        return _by_size(paragraph, text, style)
    return min(6, len(style.sizes) + 1) if _by_weight(paragraph, text, style) else 0


def _could_be(paragraph: Paragraph, text: str) -> bool:
    letters = sum(c.isalpha() for c in text)
    return (
        letters >= max(2, 0.4 * len(text.replace(" ", "")))
        and len(text) <= LONGEST
        and len(paragraph.lines) <= 3
        and not CAPTION.match(text)
        and not BULLET.match(text)
    )


def _by_size(paragraph: Paragraph, text: str, style: Style) -> int:
    few = paragraph.size >= 1.5 * style.body
    if len(paragraph.lines) > 1 and text[-1] in ".。":
        return 0
    if not few and (
        _has_cells(paragraph) or len(paragraph.lines) > 2 or (text[-1] in ",;，；、" and len(text) > 60)
    ):
        return 0
    nearest = min(range(len(style.sizes)), key=lambda i: abs(style.sizes[i] - paragraph.size), default=0)
    return min(6, nearest + 1)


def _by_weight(paragraph: Paragraph, text: str, style: Style) -> bool:
    stops = ".,;。；，" if paragraph.size > 1.04 * style.body else ".:,;。：；，"
    return (
        paragraph.bold
        and style.bold_is_rare
        and paragraph.size >= 0.95 * style.body
        and len(paragraph.lines) <= 2
        and len(text) <= 100
        and text[-1] not in stops
        and not _has_cells(paragraph)
    )


def _has_cells(paragraph: Paragraph) -> bool:
    """Pieces far apart on one line: a row of something, not a title."""
    for line in paragraph.lines:
        runs = sorted(line.runs, key=lambda run: run.x0)
        if any(b.x0 - a.x1 > 2 * line.size for a, b in itertools.pairwise(runs)):
            return True
    return False


def outline_key(title: str) -> str:
    """A title without blanks, dots and its number: outlines and pages write those differently."""
    return re.sub(r"[\s.·…]+", "", re.sub(r"^\s*(\d+(\.\d+)*\.?|[A-Z]\.)\s+", "", title)).casefold()
