"""From the lines of a page to its paragraphs, by leading, indent, size, weight and where lines end.

Works in points, in a frame where the text is upright. Knows nothing of PDF, headings or whole documents.
"""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from quinze.knowledge.readers.pdf_columns import Line, is_cjk
from quinze.knowledge.readers.pdf_glyphs import HYPHENS

BULLET = re.compile(r"^([•‣⁃◦▪▫●○■□◆◇➢➤✓✔\uf0b7]\s*|[∙·–—*-]\s+)(?=\S)")
NUMBERED = re.compile(
    r"^((\(?(\d{1,3}|[a-z]|[ivx]{1,5})[.)]|[A-Z]\)|\[\d{1,3}\])\s+|\d{1,3}、|[（(][一二三四五六七八九十\d]{1,3}[）)]\s*)\S"
)


@dataclass(slots=True)
class Paragraph:
    lines: list[Line] = field(default_factory=list)

    @property
    def first(self) -> Line:
        return self.lines[0]

    @property
    def size(self) -> float:
        return max(self.lines, key=lambda line: len(line.text)).size

    @property
    def bold(self) -> bool:
        return all(line.bold for line in self.lines)

    @property
    def mono(self) -> bool:
        return all(line.mono for line in self.lines)


def read_paragraphs(lines: Sequence[Line], body_size: float) -> list[Paragraph]:
    """Lines in reading order, joined. `body_size`: the usual font size of the whole document."""
    blocks: list[list[Line]] = []
    leadings = _leadings(lines)
    for line in lines:
        if blocks and _goes_on(blocks[-1][-1], line, leadings.get((line.column, round(line.size)))):
            blocks[-1].append(line)
        else:
            blocks.append([line])
    return [paragraph for block in blocks for paragraph in _split(block, body_size)]


def _leadings(lines: Sequence[Line]) -> dict[tuple[int, int], float]:
    """The usual distance of two baselines, by column and font size."""
    steps: dict[tuple[int, int], list[float]] = {}
    for before, line in itertools.pairwise(lines):
        step = line.baseline - before.baseline
        if (
            before.column == line.column
            and 0 < step < 2.2 * line.size
            and round(line.size) == round(before.size)
        ):
            steps.setdefault((line.column, round(line.size)), []).append(step)
    return {key: statistics.median_low(found) for key, found in steps.items()}


def _goes_on(before: Line, line: Line, leading: float | None) -> bool:
    """`line` stands in one block with the line before it."""
    if before.table is not None or line.table is not None or before.column != line.column:
        return False
    step, size = line.baseline - before.baseline, max(line.size, before.size)
    if before.mono and line.mono:
        return 0 < step < 3.2 * size
    most = min(1.25 * leading + 1, 2.0 * size) if leading else 1.6 * size
    if _unfinished(before, line):
        most = max(most, 2.4 * size)
    return (
        0 < step <= most
        and 0.88 < line.size / before.size < 1.14
        and line.bold == before.bold
        and line.mono == before.mono
    )


def _split(block: list[Line], body_size: float) -> list[Paragraph]:
    """A block of close lines, cut where an item, an indent or an early end of line begins a new paragraph."""
    left, right = min(line.x0 for line in block), max(line.x1 for line in block)
    paragraphs = [Paragraph([block[0]])]
    for before, line in itertools.pairwise(block):
        if before.mono and line.mono:
            paragraphs[-1].lines.append(line)
            continue
        if _starts_paragraph(before, line, paragraphs[-1], left, right, body_size):
            paragraphs.append(Paragraph([line]))
        else:
            paragraphs[-1].lines.append(line)
    return paragraphs


def _starts_paragraph(
    before: Line, line: Line, paragraph: Paragraph, left: float, right: float, body_size: float
) -> bool:
    em = line.size
    if is_item(line.text):
        return True
    if before.text[-1:] in HYPHENS or (before.text[-1] in "-‐" and line.text[0].islower()):
        return False
    hanging = (len(paragraph.lines) == 1 and is_item(before.text)) or _unfinished(before, line)
    centered = abs((before.x0 + before.x1) - (line.x0 + line.x1)) < em and abs(before.x0 - line.x0) > em
    if not centered and not line.rtl and not hanging:
        if line.x0 > before.x0 + 0.8 * em and before.x0 < left + 0.5 * em:
            return True
        if line.x0 < before.x0 - 0.8 * em and len(paragraph.lines) > 1 and not is_item(paragraph.first.text):
            return True
    if line.size > 1.25 * body_size:
        return False
    # Text wraps only where the next word doesn't fit; a line that had room for it was ended on purpose.
    word = line.text.split(" ", 1)[0]
    if is_cjk(word[0]):
        word = word[:2]  # a line may end a character early, so that no comma begins the next
    needed = (line.x1 - line.x0) * len(word) / max(1, len(line.text)) + 0.6 * em
    if centered:
        room = (right - left) - (before.x1 - before.x0)
    else:
        room = before.x0 - left if line.rtl else right - before.x1
    return room > needed + 0.015 * (right - left)


def _unfinished(before: Line, line: Line) -> bool:
    """The sentence runs on: no stop before, no capital after."""
    return line.text[0].islower() and before.text[-1] not in ".!?:;。！？：；"


def is_item(text: str) -> bool:
    return bool(BULLET.match(text) or NUMBERED.match(text))


def join_lines(lines: Sequence[str], words: frozenset[str] | set[str] = frozenset()) -> str:
    """The lines of a paragraph as one text: hyphenation undone, CJK lines joined without a space.

    A hyphen at a line's end stays where `words`, those of the document, know the word only with it.
    """
    text = ""
    for line in (part.strip() for part in lines):
        if not text or not line:
            text += line
        elif text[-1] in HYPHENS or (text[-1] in "-‐" and text[-2:-1].isalpha() and line[0].islower()):
            head, tail = re.split(r"[^\w-]", text[:-1])[-1].lower(), re.split(r"[^\w-]", line)[0].lower()
            kept = f"{head}-{tail}" in words and head + tail not in words
            text = text[:-1] + ("-" if kept else "") + line
        elif is_cjk(text[-1]) and is_cjk(line[0]):
            text += line
        else:
            text += " " + line
    return text.replace("\u00ad", "").replace("\ufffe", "").replace("\x02", "")
