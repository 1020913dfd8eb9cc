"""Headings of a Word file that marks none: short lines that stand alone in bold or larger type.

Only where no paragraph has a heading's style, and only lines with ordinary text below them. Given the body
and its styles; returns which paragraphs are headings, and of what level. No caption or list item is.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Sequence
from dataclasses import dataclass

from quinze.knowledge.readers.docx_numbering import Style, W, integer, is_on, value
from quinze.knowledge.readers.docx_text import numbering_of, paragraphs_in
from quinze.knowledge.readers.outline import outline_level
from quinze.knowledge.readers.packed import Element, own_text

LONGEST = 80
LARGER = 1.15
"""So many times the size of the running text is larger."""
LEVELS = 3
FEWEST_TEXTS = 3
"""Paragraphs of running text, or what looks like headings is a poster, a form, a letter's head."""
_ENDS = re.compile(r"[。；;，,.…]$")
_ENDS_OF_BOLD = re.compile(r"[!?！？:：]$")
_CAPTION = re.compile(
    r"(table|figure|fig|chart|表格?|图表?|圖)[\s.]*[\dA-Z一二三四五六七八九十]", re.IGNORECASE
)
_WORDS = re.compile(r"[^\W\d_]{2}|[\u3400-\u9fff]")


@dataclass(slots=True)
class _Line:
    element: Element
    text: str
    bold: bool
    size: int
    """Half points of its smallest letter, so that one large letter makes no heading."""
    plain: bool
    """A paragraph of its own: in no list, no caption, no table."""


def visual_headings(body: Element, styles: dict[str, Style], default_size: int) -> dict[Element, int]:
    """Paragraph -> level of the headings that only their looks tell; none where styles tell them."""
    lines: list[_Line] = []
    for element in paragraphs_in(body):
        if element.tag != f"{W}p":
            lines.append(_Line(element, "", bold=False, size=0, plain=False))
            continue
        properties = element.find(f"{W}pPr")
        style_id = None if properties is None else value(properties.find(f"{W}pStyle"))
        style = styles.get(style_id or "", styles[""])
        outline = None if properties is None else integer(value(properties.find(f"{W}outlineLvl")))
        outline = style.outline if outline is None else outline
        if style.is_title or (outline is not None and outline < 9):
            return {}
        line = _line(element, style, styles, default_size)
        # "Chapter 3", "第三章": headings that name themselves need no looks, and have levels of their own.
        if outline_level(line.text) is not None:
            return {}
        if line.text:
            num_id = numbering_of(properties)[0] or style.num_id
            named = style.is_caption or style.is_contents or style.name.lower() in ("subtitle", "副标题")
            line.plain = num_id in (None, "0") and not named
            lines.append(line)
    return _chosen(lines)


def _chosen(lines: Sequence[_Line]) -> dict[Element, int]:
    sizes: collections.Counter[int] = collections.Counter()
    for line in lines:
        sizes[line.size] += len(line.text)
    usual = sizes.most_common(1)[0][0] if sizes else 0
    letters = sum(len(line.text) for line in lines)
    bold = sum(len(line.text) for line in lines if line.bold)
    if not usual or bold * 2 > letters:
        return {}
    stands_out = [_stands_out(line, usual) for line in lines]
    texts = sum(bool(line.text) and not out for line, out in zip(lines, stands_out, strict=True))
    chosen: dict[int, tuple[int, bool]] = {}
    for at in range(len(lines) - 2, -1, -1):
        below = lines[at + 1]
        # Above what it heads: ordinary text, or a heading in smaller type.
        heads = chosen[at + 1] < _look(lines[at]) if at + 1 in chosen else not stands_out[at + 1]
        if stands_out[at] and heads and (below.text != "" or below.element.tag == f"{W}tbl"):
            chosen[at] = _look(lines[at])
    if texts < FEWEST_TEXTS or len(chosen) > texts:
        return {}
    looks = sorted(set(chosen.values()), reverse=True)
    return {lines[at].element: min(looks.index(look) + 1, LEVELS) for at, look in chosen.items()}


def _look(line: _Line) -> tuple[int, bool]:
    return line.size, line.bold


def _stands_out(line: _Line, usual: int) -> bool:
    return (
        line.plain
        and 0 < len(line.text) <= LONGEST
        and (line.bold or line.size >= usual * LARGER)
        and line.size >= usual
        and not line.text[0].islower()
        and "\n" not in line.text
        and "\t" not in line.text
        and _ENDS.search(line.text) is None
        and (line.size >= usual * LARGER or _ENDS_OF_BOLD.search(line.text) is None)
        and _CAPTION.match(line.text) is None
        and _WORDS.search(line.text) is not None
    )


def _line(element: Element, style: Style, styles: dict[str, Style], default_size: int) -> _Line:
    pieces: list[str] = []
    bold, smallest = True, 0
    for run in element.iter(f"{W}r"):
        text = "".join(
            own_text(each) if each.tag == f"{W}t" else "\n" if each.tag == f"{W}br" else "\t"
            for each in run.iterchildren(f"{W}t", f"{W}br", f"{W}tab")
        )
        if not text.strip():
            pieces.append(text)
            continue
        properties = run.find(f"{W}rPr")
        own = styles.get((value(properties.find(f"{W}rStyle")) if properties is not None else "") or "")
        of_style = style.bold or (own is not None and own is not styles[""] and own.bold)
        mark = None if properties is None else properties.find(f"{W}b")
        bold = bold and (of_style if mark is None else is_on(mark))
        stated = None if properties is None else integer(value(properties.find(f"{W}sz")))
        size = stated or style.size or default_size
        smallest = size if not smallest else min(smallest, size)
        pieces.append(text)
    return _Line(element, "".join(pieces).strip(), bold=bold, size=smallest, plain=True)
