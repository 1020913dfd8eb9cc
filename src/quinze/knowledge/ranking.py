"""How well one passage answers a question, in numbers: BM25, coverage, focus, and what the question names.

The two formulas are written to be read:

    BM25(q, d) = sum over terms t of q:  idf(t) * tf (k1 + 1) / (tf + k1 (1 - b + b |d| / average |d|))
    idf(t)     = ln(1 + (N - n + 0.5) / (n + 0.5))      N passages, n of them with t

    coverage   = sum of the weights of the question's words that stand in d, over the sum of all their weights

A word in the title or a heading counts `context` times; |d| counts neither function words nor titles. FTS5's
own BM25 has a lower idf for common terms and is only used to find the candidates that are ranked by this one.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection as Collection_
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from quinze.embeddings.folding import CJK, fold
from quinze.embeddings.function_words import FAINT_WORDS, FUNCTION_CHARACTERS, FUNCTION_WORDS
from quinze.knowledge.document import Place
from quinze.knowledge.fulltext import Query

Related = Mapping[str, tuple[str, ...]]
"""Term -> terms that mean the same."""

FAINT = 0.4
"""Share of its weight that a faint word ("need", "find") keeps."""


class Weights(msgspec.Struct, frozen=True):
    """What counts how much. Measured by benchmarks/knowledge_search.py."""

    k1: float = 1.6
    b: float = 0.75
    context: float = 1.5
    """How often a word in the title or a heading counts, one in the text counting once."""
    vector: float = 0.5
    """Share of the vectors in the sum of both rankings; the words have the rest."""
    hashing_vector: float = 0.2
    """The same for the hashing embedder, whose vectors know spellings only."""
    starter_vector: float = 0.25
    """The same for the starter embedder, which knows words but not their order."""
    coverage: float = 0.2
    """Added for a passage that holds every informative word of the question."""
    focus: float = 0.1
    """Added when a single block (a row, a paragraph) holds them all."""
    named_file: float = 1.0
    named_page: float = 0.3
    above: float = 0.6
    """How much of a word's weight `coverage` counts when it stands in the title or a heading only."""
    shortest: float = 0.4
    """Passages shorter than this share of the average gain nothing more by it: a line is no better for being
    one."""
    meaning: float = 0.3
    """What another word of the same meaning counts, in BM25 ..."""
    covers: float = 0.7
    """... and in `coverage`."""
    numbers: float = 1.5
    """How much more a number of the question weighs in `coverage` than a word as rare."""

    def share_of(self, embedder: str) -> float:
        """How much the vectors of this embedder (its id) count beside the words."""
        kinds = {"hashing": self.hashing_vector, "starter": self.starter_vector}
        return kinds.get(embedder.split("-")[0], self.vector)

    def with_vectors(self, share: float) -> Weights:
        """The same with one share for every embedder."""
        return msgspec.structs.replace(self, vector=share, hashing_vector=share, starter_vector=share)


class Collection(msgspec.Struct, frozen=True):
    """What BM25 must know of all passages."""

    passages: int
    average_length: float
    counts: Mapping[str, int]
    """In how many passages a term stands."""

    def idf(self, term: str) -> float:
        count = min(self.counts.get(term, 0), self.passages)
        idf = math.log1p((self.passages - count + 0.5) / (count + 0.5))
        return FAINT * idf if term in FAINT_WORDS else idf


class Terms(msgspec.Struct, frozen=True):
    """A passage as ranking sees it."""

    frequency: Mapping[str, float]
    """Term -> how often it stands there, the context's weight included."""
    length: int


def count_terms(context: Sequence[str], body: Sequence[str], weight: float) -> Terms:
    frequency: Counter[str] = Counter(body)
    length = sum(n for term, n in frequency.items() if not is_function_word(term))
    weighted: dict[str, float] = dict(frequency)
    for term in context:
        weighted[term] = weighted.get(term, 0.0) + weight
    return Terms(weighted, length)


def is_function_word(term: str) -> bool:
    return term in FUNCTION_WORDS or term in FUNCTION_CHARACTERS


def bm25(terms: Iterable[str], passage: Terms, collection: Collection, weights: Weights) -> float:
    k1, b = weights.k1, weights.b
    relative = passage.length / collection.average_length if collection.average_length else 1.0
    relative = max(relative, weights.shortest)
    total = 0.0
    for term in terms:
        tf = passage.frequency.get(term, 0.0)
        if tf:
            total += collection.idf(term) * tf * (k1 + 1) / (tf + k1 * (1 - b + b * relative))
    return total


def best_possible_bm25(terms: Iterable[str], collection: Collection, weights: Weights) -> float:
    """What no passage can exceed: every term without end."""
    return sum(collection.idf(term) * (weights.k1 + 1) for term in terms)


def rarity(query: Query, collection: Collection, weights: Weights) -> dict[str, float]:
    """The weight of each term in `coverage`. What stands nowhere weighs as much as what stands once."""
    found = {}
    for term in query.terms:
        count = max(collection.counts.get(term, 0), 1)
        # The root, because a word may be rare for no good reason: nobody else happened to write "requires".
        found[term] = 0.2 + math.sqrt(math.log1p(max(collection.passages - count, 0) / (count + 0.5)))
        if term in FAINT_WORDS:
            found[term] *= FAINT
        if term in query.numbers:
            found[term] *= weights.numbers
    return found


def coverage(
    query: Query,
    rarity: Mapping[str, float],
    body: Collection_[str],
    context: Collection_[str],
    related: Related,
    weights: Weights,
) -> float:
    """Share of the question's words, weighted by rarity, that stand in the passage: 0..1. A word that stands
    only in its `context`, the title or a heading, counts by `above`, one of the same meaning by `covers`."""
    total = covered = 0.0
    for run in query.runs:
        weight = max(rarity[term] for term in run)
        total += weight
        if any(term in body for term in run):
            covered += weight
        elif any(term in context for term in run):
            covered += weights.above * weight
        elif any(other in body for term in run for other in related.get(term, ())):
            covered += weights.covers * weight
    return covered / total if total else 0.0


def level(coverage: float, vector: float) -> float:
    """How far a passage is about the question at all, 0..1. A likeness of 0.5 between a question and a
    passage is high for every embedder."""
    return 0.85 * coverage + 0.15 * min(max(vector, 0.0) / 0.5, 1.0)


# -- what the question names

_PAGE = re.compile(r"(?:\bpage|\bp\.)\s*(\d+)|第\s*(\d+)\s*页", re.IGNORECASE)
_CJK = re.compile(f"[{CJK}]")
_SLIDE = re.compile(r"\bslide\s*(\d+)|第\s*(\d+)\s*张|幻灯片\s*(\d+)", re.IGNORECASE)


class NamedPlaces(msgspec.Struct, frozen=True):
    """The pages and slides that a question speaks of."""

    pages: frozenset[int]
    slides: frozenset[int]

    @classmethod
    def of(cls, folded_question: str) -> NamedPlaces:
        """
        >>> NamedPlaces.of("第3页 and slide 12")
        NamedPlaces(pages=frozenset({3}), slides=frozenset({12}))
        """
        return cls(_numbers(_PAGE.findall(folded_question)), _numbers(_SLIDE.findall(folded_question)))

    def hold(self, place: Place) -> bool:
        return (place.page or place.slide) in self.pages or place.slide in self.slides


def without_names(folded_question: str, names: Iterable[FileName]) -> str:
    """The question without what only says where to look: file names, pages and slides. If nothing is left, as
    it was."""
    rest = folded_question
    for name in names:
        rest = rest.replace(name.whole, " ")
        if name.stem:
            rest = rest.replace(name.stem, " ")
    rest = _SLIDE.sub(" ", _PAGE.sub(" ", rest))
    return rest if re.search(r"\w", rest) else folded_question


class FileName(msgspec.Struct, frozen=True):
    """A document's file name as a question may say it: whole, or without its suffix where that is no plain
    word."""

    document: int
    whole: str
    stem: str

    @classmethod
    def of(cls, document: int, name: str) -> FileName:
        whole = fold(name.rpartition("/")[2])
        stem = whole.rpartition(".")[0] or whole
        # "report" may be meant as a word; "report_3" and "report.pdf" are surely names.
        plain = len(stem) < 4 or (stem.isascii() and stem.isalpha())
        return cls(document, whole, "" if plain else stem)

    def is_in(self, folded_question: str) -> bool:
        """
        >>> name = FileName.of(1, "recipes/bread.md")
        >>> name.is_in("what does bread.md say?"), name.is_in("what is bread?")
        (True, False)
        """
        if self.whole in folded_question:
            return True
        if not self.stem or self.stem not in folded_question:
            return False
        if _CJK.search(self.stem):
            return True
        return re.search(rf"(?<![^\W{CJK}]){re.escape(self.stem)}(?![^\W{CJK}])", folded_question) is not None


def _numbers(found: Iterable[tuple[str, ...]]) -> frozenset[int]:
    return frozenset(int(digits) for groups in found for digits in groups if digits and len(digits) < 7)
