"""Quoting: the sentences, rows and definitions that answer best, word for word, each with its own place.

Given a question and the weighed units of a search; returns quotes, or none when nothing supports an answer.
No model is needed and no text is made up: every quote is a stretch of the document.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from quinze.knowledge.document import Block, BlockKind, Place
from quinze.knowledge.fulltext import Analyzer
from quinze.knowledge.sentences import estimate_tokens, sentence_spans
from quinze.rag.evidence import Unit
from quinze.rag.words import ASKING, Question

if TYPE_CHECKING:
    from quinze.knowledge.results import Hit

ENOUGH, ENOUGH_OF_ONE, MANY = 0.5, 0.32, 1000
"""Share of the question (by weight) that a unit must hold to be quoted at all, among MANY passages (measured
on tests/exam) and in a single one (tests/rag/test_small_base.py)."""
CLOSE, CLOSE_BESIDE = 0.6, 0.75
"""A further quote scores this share of the best one at least; from the same document the second, unless it
holds a word of the question that no quote before it holds."""
SHORT_BLOCK = 25
"""A paragraph of at most so many tokens is quoted whole."""
MOST_TWINS = 3
"""Documents cited for one and the same text."""
LONG_QUOTE = 500
CODE_LINES = 16

_BACKWARD = re.compile(
    r"(?:It|He|She|They|This|These|Those|That|Its|His|Her|Their|Such|However|Therefore|Thus|Hence|Then|But|And|Also)\b|[它他她这此该其那]|"
    r"因此|所以|但|然而|而且|同时|另外"
)


@dataclass(frozen=True, slots=True)
class Quote:
    hit: Hit
    block: int
    """Ordinal of its block in the document."""
    text: str
    """Verbatim."""
    shown: str
    """The same as an answer shows it: a row with the names of its columns, code fenced."""
    place: Place
    coverage: float
    score: float


def enough(passages: int) -> float:
    """The share of a question that must be held for an answer, among so many passages.

    The more there are, the more likely it is that one shares a word with the question by chance.

    >>> enough(1), round(enough(30), 2), enough(16_000)
    (0.32, 0.41, 0.5)
    """
    grown = min(1.0, math.log(max(passages, 1)) / math.log(MANY))
    return ENOUGH_OF_ONE + (ENOUGH - ENOUGH_OF_ONE) * grown


def quote(
    question: Question, units: Sequence[Unit], analyzer: Analyzer, *, passages: int = MANY, limit: int = 4
) -> list[Quote]:
    """At most `limit` things said, the best first, each with up to three documents that say the same.

    Empty when no unit holds enough of the question. `passages`: how many were searched.
    """
    least = enough(passages)
    said: list[list[Quote]] = []
    held: set[str] = set()
    for unit in units:
        if unit.coverage < least or (said and unit.score < said[0][0].score * CLOSE):
            continue
        made = make_quote(unit, question, analyzer)
        twins = next((one for one in said if _squeezed(one[0].text) == _squeezed(made.text)), None)
        if twins is not None:
            if len(twins) < MOST_TWINS and all(made.hit.document_id != one.hit.document_id for one in twins):
                twins.append(made)
            continue
        others = [one for twin in said for one in twin if one.hit.document_id == made.hit.document_id]
        weak = others and unit.score < said[0][0].score * CLOSE_BESIDE and unit.holds <= held
        if len(said) < limit and not weak and not any(_repeats(made, one) for one in others):
            said.append([made])
            held |= unit.holds
    return [one for twins in said for one in twins]


def make_quote(unit: Unit, question: Question, analyzer: Analyzer) -> Quote:
    """The unit as it is quoted: widened to what is needed to understand it, or cut to what answers."""
    block = unit.source
    start, end = unit.start, unit.end
    if block.kind is BlockKind.CODE:
        start, end = code_excerpt(block, unit.hit.document, question, analyzer)
    elif block.kind is not BlockKind.TABLE_ROW:
        start, end = _readable(block.text, start, end)
        start, end = _completed(block.text, start, end, question, analyzer)
    text = block.text[start:end]
    return Quote(
        hit=unit.hit,
        block=unit.hit.first_block + unit.block,
        text=text,
        shown=show(block, text),
        place=narrow(block, start, end),
        coverage=unit.coverage,
        score=unit.score,
    )


def show(block: Block, text: str) -> str:
    """The stretch as an answer shows it: a row with the names of its columns, code fenced."""
    if block.kind is BlockKind.CODE:
        return f"```\n{text}\n```"
    if block.kind is BlockKind.TABLE_ROW and block.cells:
        named = [
            f"{block.header[at].rstrip(' :：')}: {cell}"
            if at < len(block.header) and block.header[at] not in ("", cell)
            else cell
            for at, cell in enumerate(block.cells)
            if cell.strip()
        ]
        row = "; ".join(" ".join(part.split()) for part in named)
        # A form: the cell before the colon names the one behind it.
        return row.replace(":; ", ": ").replace("：; ", "：")
    return " ".join(text.split())


def narrow(block: Block, start: int, end: int) -> Place:
    """The place of a stretch of a block: its own lines, and its own boxes where every line has one."""
    place = block.place
    before = block.text.count("\n", 0, start)
    through = min(block.text.count("\n", 0, end), block.text.rstrip("\n").count("\n"))
    lines = block.text.rstrip("\n").count("\n") + 1
    if place.lines and place.lines[1] - place.lines[0] + 1 == lines:
        first = place.lines[0]
        place = msgspec.structs.replace(place, lines=(first + before, first + through))
    if len(place.boxes) == lines > 1:
        place = msgspec.structs.replace(place, boxes=place.boxes[before : through + 1])
    return place


def code_excerpt(block: Block, document: str, question: Question, analyzer: Analyzer) -> tuple[int, int]:
    """A definition's beginning, or, if the words asked for come later in it, the lines around them."""
    lines = block.text.split("\n")
    if len(lines) <= CODE_LINES:
        return 0, len(block.text)
    named = analyzer.tokens(f"{document} {block.place.symbol or ''}")
    asked = question.terms.difference(named, ASKING)
    held = [asked.intersection(analyzer.tokens(line)) for line in lines]
    # Signature and docstring win a tie.
    worth = [len(set().union(*held[at : at + CODE_LINES])) for at in range(len(lines) - CODE_LINES + 1)]
    best = worth.index(max(worth))
    start = sum(len(line) + 1 for line in lines[:best])
    return start, start + len("\n".join(lines[best : best + CODE_LINES]))


def _readable(text: str, start: int, end: int) -> tuple[int, int]:
    """A short paragraph whole; else the sentence, with the one before if it points back; never too long."""
    if estimate_tokens(text) <= SHORT_BLOCK:
        stripped = text.strip()
        start = text.index(stripped)
        return start, start + len(stripped)
    spans = sentence_spans(text)
    at = next((i for i, span in enumerate(spans) if span[0] == start), 0)
    if (
        at
        and (_BACKWARD.match(text[start:end]) or estimate_tokens(text[start:end]) < 6)
        and end - spans[at - 1][0] <= LONG_QUOTE
    ):
        start = spans[at - 1][0]
    if end - start > LONG_QUOTE * 2:
        cut = text.rfind(" ", start, start + LONG_QUOTE * 2)
        end = cut if cut > start else start + LONG_QUOTE * 2
    return start, end


def _completed(text: str, start: int, end: int, question: Question, analyzer: Analyzer) -> tuple[int, int]:
    """With the sentence before or after, if it holds a word of the question that this one lacks."""
    held = set(analyzer.tokens(text[start:end]))
    lacking = [
        frozenset((*word.terms, *word.translations, *word.synonyms))
        for word in question.words
        if word.weight >= 1 and held.isdisjoint((*word.terms, *word.translations, *word.synonyms))
    ]
    if not lacking:
        return start, end
    spans = sentence_spans(text)
    for a, b in (
        *[span for span in spans if span[0] >= end][:1],
        *[span for span in spans if span[1] <= start][-1:],
    ):
        stop = a + len(text[a:b].rstrip())
        new = set(analyzer.tokens(text[a:b]))
        if max(stop, end) - min(a, start) <= LONG_QUOTE and any(not new.isdisjoint(one) for one in lacking):
            start, end = min(a, start), max(stop, end)
            lacking = [one for one in lacking if new.isdisjoint(one)]
    return start, end


def _repeats(one: Quote, other: Quote) -> bool:
    """Whether one says nothing that the other, of the same document, does not."""
    overlaps = one.block == other.block and (one.text in other.text or other.text in one.text)
    return overlaps or _differs_in_number_only(one, other)


def _differs_in_number_only(one: Quote, other: Quote) -> bool:
    """Whether two sentences of a document are the same but for their numbering."""
    rows = one.place.row or one.place.cells
    return not rows and re.sub(r"[\W\d_]", "", one.text) == re.sub(r"[\W\d_]", "", other.text)


def _squeezed(text: str) -> str:
    return "".join(text.split())
