"""Evidence: how much of what a question asks stands in one sentence, table row or definition.

Given a question and the hits of a search; weighs the question's words by their rarity among those hits. A
word in the unit itself counts whole, one in the column's name nearly so, one in the heading above or the
sentences around less. Knows nothing of answers or models.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from quinze.embeddings.folding import fold
from quinze.knowledge.document import Block, BlockKind, Place
from quinze.knowledge.fulltext import Analyzer
from quinze.rag.likeness import SIMILAR, compared, found
from quinze.rag.spans import filled_columns, spans_of
from quinze.rag.words import Question, Word, is_foreign, is_han, is_number

if TYPE_CHECKING:
    from quinze.knowledge.results import Hit

OWN, COLUMN, LEAD, AROUND, ABOVE, NEAR, BESIDE = 1.0, 0.95, 0.75, 0.6, 0.6, 0.4, 0.35
"""What a word of the question is worth, by where it stands: NEAR is anywhere in the passage, BESIDE in what
else was found of the page, the slide, the sheet or the picture."""
NAME_BESIDE, MOSTLY = 0.85, 0.75
"""What a name is worth anywhere near a text that holds at least this share of what is asked about it."""
SIGN = 0.8
"""... when the text has what an answer looks like: a telephone number, where one is asked for."""
FOREIGN, UNTRANSLATED = 0.25, 0.6
"""What a Chinese word of the question weighs in a text without Chinese that has a name of the question; the
second, if the glossary knows what it is in English, and that is not there."""
LACKING = 0.55
"""What coverage is worth of a passage without a number of the question (SKU-9201 is not SKU-9999), or with
its names, but nothing of what is asked about them."""
NAMELESS = 0.6
"""... of a passage in another language that shares no name with the question, only words of the glossary."""
MATTER = 0.35
"""Added to the fit of a text that holds itself all that is asked about the names in the question."""
ECHO = 0.6
"""What fits a text that only repeats words of the question: an answer adds something."""
NAMED = 0.3
"""Added to the score of what stands in a file, on a page or in a chapter that the question names."""
UNSEEN = 9
"""Passages assumed beyond the hits, without the word: what makes rarity mild where there are few hits."""
HEAD_LINES = 12
"""The lines of a definition in which a word counts whole: signature and docstring."""

_DATE = re.compile(
    r"\b(?:1[5-9]|20)\d\d\b|\d{1,2}:\d\d|\d\s*[年月日号点]|\d{1,2}[/.-]\d{1,2}[/.-]\d|[一二三四五六七八九十]月|星期|"
    r"\b(?:january|february|march|april|may|june|july|august|september|october|november|december|"
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)day|century)\b",
    re.IGNORECASE,
)
_MONEY = re.compile(
    r"[$€£¥￥]|\b(?:euros?|dollars?|pounds?|yuan|USD|EUR|GBP|CNY|RMB)\b|[\d十百千万亿]\s*(?:元|美元|欧元|块钱)"
)
_NAMED = re.compile(
    r"\b[A-Z][\w.'-]*\s+(?:[A-Z]\.?\s+)?[A-Z][a-z]+|[\u4e00-\u9fff]{2,4}(?:先生|女士|教授|博士|老师|医生)"
)
_DEFINES = re.compile(
    r"^.{1,50}?\b(?:is|are|was|were) (?:an?|the)\b|^.{1,20}?(?:是一|是指|即|称为)", re.IGNORECASE
)
_PLACE = re.compile(
    r"第\s*[\d一二三四五六七八九十百]+\s*[章节页张条款部卷]|\b(?:chapter|section|page|slide|part|appendix)\s+[\dA-Z][\d.]*",
    re.IGNORECASE,
)
_BECAUSE = re.compile(
    r"\b(?:because|since|due to|therefore|thus|so that|reason)\b|因为|由于|因此|所以|以便|原因|为了",
    re.IGNORECASE,
)
_NUMBER_SIGN = re.compile(r"(?<=\w\w)\s?#(?!\w)")
_HAN_NUMBER = re.compile(r"[一二两三四五六七八九十百千万亿]+[个名位条项种次页人元年天月岁台张家层倍]")


@dataclass(frozen=True, slots=True)
class Unit:
    """One thing that may be quoted: `hit.blocks[block].text[start:end]`."""

    hit: Hit
    block: int
    start: int
    end: int
    coverage: float
    """Share of the question that it holds, by weight: 0..1. Decides whether anything answers at all."""
    holds: frozenset[str]
    """The first term of each word that stands in the unit itself."""
    score: float
    """Coverage, and how well it fits the sort of answer wanted: what units are ranked by."""

    @property
    def source(self) -> Block:
        return self.hit.blocks[self.block]


class Evidence:
    """Weighs units of text against one question."""

    def __init__(self, question: Question, hits: Sequence[Hit], analyzer: Analyzer) -> None:
        self._question = question
        self._hits = hits
        self._analyzer = analyzer
        self._remembered: dict[str, set[str]] = {}
        self._near = [self._terms(hit.text) for hit in hits]
        held = [
            terms | self._terms(f"{hit.title} {hit.document} {' '.join(hit.place.heading)}")
            for hit, terms in zip(hits, self._near, strict=True)
        ]
        columns = {name for hit in hits for block in hit.blocks for name in block.header}
        vocabulary = set().union(*held, *(self._terms(name) for name in columns))
        self._words = [compared(word, vocabulary) for word in question.words]
        self._weights = [
            (
                word,
                word.weight
                * _rarity(word, sum(not terms.isdisjoint(word.terms) for terms in held), len(held)),
            )
            for word in self._words
        ]
        self._beside = self._terms_of_pages()
        self._outside: dict[tuple[object, ...], set[str]] = {}
        self._folded_question = fold(question.text)
        self._places = [_unspaced(found) for found in _PLACE.findall(self._folded_question)]

    def units(self) -> list[Unit]:
        """Every sentence, row and definition of the hits that holds any of the question, the best first."""
        seen: set[tuple[int, int, str]] = set()
        found: list[Unit] = []
        for rank, hit in enumerate(self._hits):
            for index, block in enumerate(hit.blocks):
                key = (hit.document_id, hit.first_block + index, block.text)
                if key not in seen and block.text.strip():
                    seen.add(key)
                    found += self._units_of(hit, rank, index, self._near[rank])
        return sorted(found, key=lambda unit: -unit.score)

    def _units_of(self, hit: Hit, rank: int, index: int, near: set[str]) -> Iterator[Unit]:
        block = hit.blocks[index]
        lead = self._lead(hit.blocks, index)
        place = block.place
        above = self._terms(
            " ".join(
                (
                    *place.heading,
                    hit.title,
                    hit.document,
                    place.sheet or "",
                    place.chapter or "",
                    place.part or "",
                )
            )
        )
        named = self._terms(PurePosixPath(hit.document).name) if self._is_named(hit.document) else set()
        foreign = is_foreign(f"{hit.title}\n{hit.text}", self._question)
        spans = spans_of(block)
        whole = self._terms(block.text)
        for start, end in spans:
            text = block.text[start:end]
            tokens = self._analyzer.tokens(text)
            own = self._terms(text) if "#" in text else set(tokens)
            places = [
                (OWN, own),
                (LEAD, lead),
                (AROUND, whole),
                (ABOVE, above),
                (NEAR, set() if _in_table(block) else near),
                (BESIDE, self._of_page(hit, block)),
            ]
            if block.kind is BlockKind.TABLE_ROW:
                places.append((COLUMN, self._terms(filled_columns(block))))
            elif block.kind is BlockKind.CODE:
                head = "\n".join(text.split("\n")[:HEAD_LINES]) + " " + (place.symbol or "")
                places[0] = (SIMILAR, own)
                places.append((OWN, self._terms(head)))
            here = [place for place in places if place[0] >= COLUMN]
            coverage = self._coverage(places, named, text, foreign=foreign)
            if coverage:
                fit = self._fit(block, text, tokens) + MATTER * self._matter(here, text)
                score = coverage * fit + 0.1 / (rank + 2)
                score += NAMED if named or self._is_there(place) else 0.0
                holds = frozenset(word.terms[0] for word in self._words if found(word, here) >= SIMILAR)
                yield Unit(hit, index, start, end, coverage, holds, score)

    def _is_named(self, document: str) -> bool:
        """Whether the question says the file's name; a plain word ("report") is one only with its suffix."""
        name = fold(PurePosixPath(document).name)
        stem = PurePosixPath(name).stem
        return name in self._folded_question or (
            len(stem) > 3 and not stem.isalpha() and stem in self._folded_question
        )

    def _is_there(self, place: Place) -> bool:
        """Whether the question names the chapter, page or slide: "page 3", "第2章"."""
        stands = [*place.heading, place.chapter or ""]
        stands += [f"page {place.page}", f"第{place.page}页"] if place.page else []
        stands += [f"slide {place.slide}", f"第{place.slide}页", f"第{place.slide}张"] if place.slide else []
        spaced = [fold(text) + " " for text in stands]
        return any(
            re.search(rf"{re.escape(named)}(?!\d)", _unspaced(text))
            for named in self._places
            for text in spaced
        )

    def _terms(self, text: str) -> set[str]:
        terms = self._remembered.get(text)
        if terms is None:
            plain = _NUMBER_SIGN.sub(" number ", text) if "#" in text else text
            terms = self._remembered[text] = set(self._analyzer.tokens(plain))
        return terms

    def _terms_of_pages(self) -> dict[tuple[object, ...], dict[tuple[object, ...], set[str]]]:
        """Of each page (slide, sheet, ...) that was hit, and each table on it, the terms that were found."""
        pages: dict[tuple[object, ...], dict[tuple[object, ...], set[str]]] = {}
        for hit in self._hits:
            for block in hit.blocks:
                tables = pages.setdefault(_page(hit, block), {})
                tables.setdefault(_table(block), set()).update(self._terms(block.text))
        return pages

    def _of_page(self, hit: Hit, block: Block) -> set[str]:
        """The terms of a block's page; of a row's, what stands outside of its table."""
        key = (_page(hit, block), _table(block) if _in_table(block) else None)
        if key not in self._outside:
            tables = self._beside[_page(hit, block)]
            self._outside[key] = set().union(*(terms for table, terms in tables.items() if table != key[1]))
        return self._outside[key]

    def _coverage(
        self, places: Sequence[tuple[float, set[str]]], ignored: set[str], text: str, *, foreign: bool
    ) -> float:
        """Share of the question's weight found in `places`: sets of terms with what a find there is worth.

        In a text of the other language names and numbers are found, seldom the rest, which so counts less.
        """
        worths = self._worths(places, text)
        named = any(worth and word.is_name and len(word.terms[0]) > 1 for word, _, worth in worths)
        total = got = names = names_found = 0.0
        lacks_number = False
        matters: list[bool] = []
        for word, weight, worth in worths:
            if ignored.issuperset(word.terms) or (word.implied and worth < SIGN):
                continue
            unlikely = foreign and named and is_han(word.terms[0]) and not worth
            if unlikely:
                weight *= UNTRANSLATED if word.translations else FOREIGN
            total += weight
            got += worth * weight
            lacks_number |= not worth and is_number(word.terms[0]) and len(word.terms[0]) > 1
            if word.is_name and not is_number(word.terms[0]):
                names += weight
                names_found += weight if worth else 0.0
            if _asks(word) and (word.translations or not unlikely):
                matters.append(worth > 0)
        lacks_matter = bool(matters) and not any(matters)
        lacks = lacks_number or names_found < names / 2 or lacks_matter
        doubt = (LACKING if lacks else 1.0) * (NAMELESS if foreign and not named else 1.0)
        return got / total * doubt if total else 0.0

    def _worths(self, places: Sequence[tuple[float, set[str]]], text: str) -> list[tuple[Word, float, float]]:
        """(word, its weight, what it is found to be worth). Beside what is asked about it, a name counts
        nearly whole; of a name in several parts, a single part counts half."""
        here = [place for place in places if place[0] >= COLUMN]
        close = self._matter(here, text) >= MOSTLY
        worths = []
        for word, weight in self._weights:
            worth = self._worth(word, places, text)
            if word.is_name and worth and close:
                worth = max(worth, NAME_BESIDE)
            worths.append((word, weight, worth))
        missing = {word.terms[-1] for word, _, worth in worths if len(word.terms) > 1 and not worth}
        return [
            (word, weight, worth / 2 if word.is_name and word.terms[-1] in missing else worth)
            for word, weight, worth in worths
        ]

    def _worth(self, word: Word, places: Sequence[tuple[float, set[str]]], text: str) -> float:
        worth = found(word, places)
        return max(worth, SIGN) if word.sign and word.sign.search(text) else worth

    def _matter(self, here: Sequence[tuple[float, set[str]]], text: str) -> float:
        """Share of what is asked about the names that stands in the text itself."""
        asked = [(word, weight) for word, weight in self._weights if word.implied or _asks(word)]
        total = sum(weight for _, weight in asked)
        return sum(weight * self._worth(word, here, text) for word, weight in asked) / total if total else 0.0

    def _fit(self, block: Block, text: str, tokens: Sequence[str]) -> float:
        """More than 1 if the text is of the sort that the question wants, less if it can hardly answer."""
        asked = self._question.terms
        fit = 1.0 + 0.1 * self._closeness(tokens) + self._kind_fit(text, tokens)
        if block.kind is BlockKind.CODE:
            symbol = self._terms(block.place.symbol or "")
            fit += 0.1 * min(len(symbol), 3) if symbol <= asked else 0.0
            fit += 0.1 if "code" in self._question.kinds else -0.1
        if block.kind is BlockKind.TABLE_ROW:
            fit += self._row_fit(block)
        if block.kind is BlockKind.HEADING:
            fit *= 0.7
        if text.rstrip().endswith(("?", "？")):
            fit *= 0.75
        adds = any(token not in asked and (len(token) > 1 or is_number(token)) for token in tokens)
        return fit if adds else fit * ECHO

    def _kind_fit(self, text: str, tokens: Sequence[str]) -> float:
        """What a text deserves for having what a question of this sort asks for: a number, a date, ..."""
        kinds, asked = self._question.kinds, self._question.terms
        new_number = any(is_number(term) and term not in asked for term in tokens)
        counts, is_money = new_number or bool(_HAN_NUMBER.search(text)), bool(_MONEY.search(text))
        begins = not self._terms(text[:40]).isdisjoint(asked)
        deserved = [
            0.12 * ("number" in kinds and counts and (is_money or "money" not in kinds)),
            0.15 * ("money" in kinds and counts and is_money),
            0.15 * ("date" in kinds and bool(_DATE.search(text))),
            0.08 * ("person" in kinds and bool(_NAMED.search(text))),
            0.12 * ("definition" in kinds and begins and bool(_DEFINES.search(text))),
            0.1 * ("reason" in kinds and bool(_BECAUSE.search(text))),
        ]
        return sum(deserved)

    def _row_fit(self, block: Block) -> float:
        """A row answers by its label and its column together; the row of column names answers nothing."""
        if block.cells == block.header:
            return -0.5
        asked = self._question.terms
        labels = [not asked.isdisjoint(self._analyzer.tokens(cell)) for cell in block.cells]
        columns = [
            bool(cell) and not asked.isdisjoint(self._analyzer.tokens(name))
            for name, cell in zip(block.header, block.cells, strict=False)
        ]
        crossed = any(
            label and column and here != there
            for here, label in enumerate(labels)
            for there, column in enumerate(columns)
        )
        return 0.2 if crossed else 0.0

    def _closeness(self, tokens: Sequence[str]) -> float:
        """1 if the question's words stand together in the text, towards 0 if they are scattered over it."""
        places = [at for at, token in enumerate(tokens) if token in self._question.terms]
        if len(places) < 2:
            return 0.0
        gaps = sorted(later - earlier for earlier, later in itertools.pairwise(places))
        return 1.0 / (1.0 + gaps[len(gaps) // 2] / 5)

    def _lead(self, blocks: Sequence[Block], index: int) -> set[str]:
        """The terms of the block that introduces this one: a question, a line with a colon, a caption."""
        row = blocks[index].kind is BlockKind.TABLE_ROW
        for block in reversed(blocks[:index]):
            if row and block.kind is BlockKind.TABLE_ROW:
                continue
            introduces = block.text.rstrip().endswith(("?", "？", ":", "："))
            return self._terms(block.text) if row or introduces or block.kind is BlockKind.HEADING else set()
        return set()


def _in_table(block: Block) -> bool:
    """Whether a row stands under names of columns: then what other rows say is not about it."""
    return block.kind is BlockKind.TABLE_ROW and any(block.header)


def _asks(word: Word) -> bool:
    """Whether a word says what is asked about the names of a question."""
    return not (word.is_name or word.implied) and word.weight >= 1


def _page(hit: Hit, block: Block) -> tuple[object, ...]:
    place = block.place
    return hit.document_id, place.page, place.slide, place.sheet, place.chapter


def _table(block: Block) -> tuple[object, ...]:
    return (block.header, block.place.table) if block.kind is BlockKind.TABLE_ROW else ()


def _unspaced(text: str) -> str:
    return "".join(text.split())


def _rarity(word: Word, holders: int, total: int) -> float:
    """Towards 0.45 for a word that every hit has, 1 for one that none has.

    A Chinese pair that none has may be no word at all, but the end of one and the beginning of the next;
    hardly so at the end of a phrase.
    """
    if not holders and is_han(word.terms[0]):
        return 0.5 if len(word.terms) > 1 else 0.8
    all_passages = total + UNSEEN
    return 0.45 + 0.55 * math.log(all_passages / (holders + 1)) / math.log(all_passages)
