"""A question -> the passages that answer best, and the account of how they were found.

Two rankings see every passage: BM25 over words, and the likeness of vectors. Each is brought to 0..1 among
the candidates of this question and they are added by weight; passages that hold more of the question's
informative words, that stand under matching headings, or whose file or page the question names, rise. Then
copies are folded and no document takes all places. The best score is lowered by how much of the question it
covers at all, so that a score near 0 means "nothing here is about this".
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

import msgspec
import numpy as np
import numpy.typing as npt

from quinze.embeddings.embedder import Embedder, Vectors
from quinze.embeddings.folding import CJK, fold
from quinze.errors import InvalidRequestError
from quinze.knowledge.chunking import Piece, cut, indexed_text, span
from quinze.knowledge.document import Block, Place
from quinze.knowledge.fulltext import Analyzer, Query, match_expression
from quinze.knowledge.results import Dropped, Hit, Search
from quinze.knowledge.stores.sqlite import SQLiteStore, StoredChunk
from quinze.knowledge.vector_index import Ids, VectorIndex

Scores = npt.NDArray[np.float64]

MOST_QUERY_CHARACTERS = 20_000


class Weights(msgspec.Struct, frozen=True):
    """What counts how much. Measured by benchmarks/knowledge_search.py."""

    vector: float = 0.5
    """Share of the vectors in the sum of both rankings; the words have the rest."""
    hashing_vector: float = 0.2
    """The same for the hashing embedder, whose vectors know spellings only."""
    coverage: float = 0.5
    """Added for a passage that holds every informative word of the question."""
    focus: float = 0.25
    """Added when a single block (a row, a paragraph) holds them all."""
    named_file: float = 1.0
    named_page: float = 0.3
    context: float = 1.5
    """How often a word in the title or a heading counts, one in the text counting once."""
    numbers: float = 1.5
    """How much more a number of the question weighs than a word as rare."""


class Limits(msgspec.Struct, frozen=True):
    candidates: int = 100
    """Of each ranking."""
    looked_at: int = 32
    """Candidates whose text is read, at least; with k results, 3 k at least."""
    common: float = 0.2
    """A term in more than this share of all passages is not looked up while rarer ones are there: it tells
    passages hardly apart, and FTS5 would have to score each of them."""
    common_from: int = 200
    """Number of passages from which on that is done."""
    of_one_document: float = 0.6
    """Share of the k places that one document may take while others come near."""
    near: float = 0.6
    """What "near" is: this share of the score that would be replaced."""
    alike: float = 0.9
    """Passages that share this much of their words are copies."""


class Candidate(msgspec.Struct):
    """A passage on its way through the ranking."""

    chunk: StoredChunk
    blocks: tuple[Block, ...]
    words: float
    vector: float
    tokens: frozenset[str]
    coverage: float
    place: Place
    score: float = 0.0


class Retriever:
    """May be shared by threads."""

    def __init__(
        self,
        store: SQLiteStore,
        embedder: Embedder,
        analyzer: Analyzer,
        weights: Weights | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._store, self._embedder, self._analyzer = store, embedder, analyzer
        self.weights, self.limits = weights or Weights(), limits or Limits()
        self._vector_share = (
            self.weights.hashing_vector if embedder.id.startswith("hashing") else self.weights.vector
        )
        self._index = VectorIndex(embedder.dimensions)
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._names: list[tuple[int, str]] = []

    def search(self, question: str, k: int) -> Search:
        begun = time.perf_counter()
        self._check(question, k)
        query = self._analyzer.query(question)
        self._refresh()
        ids, likeness = self._index.scores(self._embedder.embed_queries([question])[0])
        ready, _, chunks, _ = self._store.counts()
        rarity = self._rarity(query, len(ids))
        looked_up, notes = self._worth_looking_up(query, len(ids))
        named = self._named_documents(question)
        words = self._words(looked_up, named)
        vectors = _Lookup(ids, likeness)
        candidates = self._candidates(k, words, vectors, named)
        stored = self._store.chunks([chunk_id for chunk_id, _ in candidates])
        looked_at = [
            self._examine(stored[chunk_id], words.get(chunk_id, 0.0), vectors[chunk_id], query, rarity)
            for chunk_id, _ in candidates
            if chunk_id in stored
        ]
        base = dict(candidates)
        level = max((_level(c.coverage, c.vector) for c in looked_at), default=0.0)
        best_possible = sum(_fts5_rarity(len(ids), self._counts.get(term, 0)) for term in looked_up) * 2.2
        for candidate in looked_at:
            candidate.score = self._score(candidate, base[candidate.chunk.id], question, named, query, rarity)
        top = max((c.score for c in looked_at), default=0.0)
        for candidate in looked_at:
            candidate.score = level * candidate.score / top if top > 0 else 0.0
        looked_at.sort(key=lambda c: (-c.score, c.chunk.id))
        kept, dropped = self._choose(looked_at, k)
        return Search(
            hits=[self._hit(c, best_possible) for c in kept],
            documents=ready,
            chunks=chunks,
            unread=self._store.unread(),
            terms=list(looked_up),
            dropped=dropped,
            notes=notes,
            seconds=time.perf_counter() - begun,
        )

    # -- the two rankings

    def _words(self, terms: tuple[str, ...], named: frozenset[int]) -> dict[int, float]:
        if not terms:
            return {}
        expression = match_expression(terms)
        weights = (self.weights.context, 1.0)
        found = dict(self._store.match(expression, self.limits.candidates, weights))
        for document in named:
            found |= dict(self._store.match_in(expression, document, self.limits.candidates, weights))
        return found

    def _candidates(
        self, k: int, words: dict[int, float], vectors: _Lookup, named: frozenset[int]
    ) -> list[tuple[int, float]]:
        """(chunk id, fused score) of those worth reading, best first."""
        union = list(dict.fromkeys([*words, *vectors.best(self.limits.candidates)]))
        for document in named:
            union += [
                chunk for chunk in vectors.within(self._store.chunk_run(document)) if chunk not in words
            ]
        union = list(dict.fromkeys(union))
        if not union:
            return []
        by_words = np.array([words.get(chunk, 0.0) for chunk in union])
        by_vector = np.maximum(np.array([vectors[chunk] for chunk in union]), 0.0)
        fused = (1 - self._vector_share) * _to_one(by_words) + self._vector_share * _to_one(by_vector)
        if named:
            starts = [self._store.chunk_run(document) for document in named]
            fused += [any(a <= chunk < a + n for a, n in starts) for chunk in union]
        order = np.argsort(-fused, kind="stable")[: max(self.limits.looked_at, 3 * k)]
        return [(union[i], float(fused[i])) for i in order]

    # -- one passage

    def _examine(
        self, chunk: StoredChunk, words: float, vector: float, query: Query, rarity: dict[str, float]
    ) -> Candidate:
        blocks = own_blocks(chunk)
        body = "\n".join(indexed_text(block) for block in blocks)
        tokens = frozenset(self._analyzer.tokens(context_of(chunk) + "\n" + body))
        return Candidate(
            chunk=chunk, blocks=blocks, words=words, vector=vector, tokens=tokens,
            coverage=_coverage(query, rarity, tokens), place=span(blocks),
        )  # fmt: skip

    def _score(
        self,
        candidate: Candidate,
        fused: float,
        question: str,
        named: frozenset[int],
        query: Query,
        rarity: dict[str, float],
    ) -> float:
        score = fused + self.weights.coverage * candidate.coverage
        if candidate.coverage > 0 and self.weights.focus:
            score += self.weights.focus * self._focus(candidate, query, rarity)
        if candidate.chunk.document_id in named:
            score += self.weights.named_file - 1.0
        if _names_place(question, candidate.place):
            score += self.weights.named_page
        return score

    def _focus(self, candidate: Candidate, query: Query, rarity: dict[str, float]) -> float:
        if len(candidate.blocks) == 1:
            return candidate.coverage
        context = frozenset(self._analyzer.tokens(context_of(candidate.chunk)))
        return max(
            _coverage(query, rarity, context.union(self._analyzer.tokens(indexed_text(block))))
            for block in candidate.blocks
        )

    def _hit(self, candidate: Candidate, best_possible: float) -> Hit:
        chunk = candidate.chunk
        return Hit(
            chunk_id=chunk.id,
            document_id=chunk.document_id,
            document=chunk.document,
            title=chunk.title,
            place=candidate.place,
            text="\n".join(block.text for block in candidate.blocks),
            blocks=candidate.blocks,
            first_block=chunk.first_block,
            score=round(candidate.score, 4),
            scores={
                "vector": round(max(candidate.vector, 0.0), 4),
                "words": round(min(candidate.words / best_possible, 1.0), 4) if best_possible else 0.0,
                "coverage": round(candidate.coverage, 4),
            },
        )

    # -- choosing

    def _choose(self, ranked: list[Candidate], k: int) -> tuple[list[Candidate], list[Dropped]]:
        kept: list[Candidate] = []
        waiting: list[Candidate] = []
        dropped: list[Dropped] = []
        share = max(2, math.ceil(k * self.limits.of_one_document))
        taken: dict[int, int] = {}
        for candidate in ranked:
            twin = next((other for other in kept if self._alike(candidate, other)), None)
            if twin is not None:
                where = f"{twin.chunk.document}, {twin.place.label()}".rstrip(", ")
                dropped.append(_drop(candidate, f"the same text as in {where}"))
            elif taken.get(candidate.chunk.document_id, 0) >= share:
                waiting.append(candidate)
            else:
                kept.append(candidate)
                taken[candidate.chunk.document_id] = taken.get(candidate.chunk.document_id, 0) + 1
        # One that waits because of its document still goes before those that are far behind it.
        for candidate in waiting:
            weaker = [
                i for i, other in enumerate(kept[:k]) if other.score < self.limits.near * candidate.score
            ]
            if weaker or len(kept) < k:
                kept.insert(weaker[0] if weaker else len(kept), candidate)
            else:
                dropped.append(
                    _drop(candidate, f"{share} better passages of the same document are here already")
                )
        kept.sort(key=lambda c: (-c.score, c.chunk.id)) if not waiting else None
        rest = [_drop(candidate, f"not among the {k} best") for candidate in kept[k:]]
        return sorted(kept[:k], key=lambda c: (-c.score, c.chunk.id)), dropped + rest

    def _alike(self, a: Candidate, b: Candidate) -> bool:
        if a.chunk.text_hash == b.chunk.text_hash:
            return True
        if a.chunk.document_id == b.chunk.document_id:
            return False
        together = len(a.tokens | b.tokens)
        return together > 0 and len(a.tokens & b.tokens) >= self.limits.alike * together

    # -- what is known of the whole

    def _refresh(self) -> None:
        if self._index.refresh(self._store):
            with self._lock:
                self._counts = {}
                self._names = [(d.id, d.name) for d in self._store.documents() if d.status == "ready"]

    def _rarity(self, query: Query, n: int) -> dict[str, float]:
        """The weight of each term in `coverage`: how rare it is (BM25's IDF, never negative)."""
        missing = [term for term in query.terms if term not in self._counts]
        if missing:
            found = self._store.word_counts(missing)
            with self._lock:
                self._counts = self._counts | found
        rarity = {}
        for term in query.terms:
            count = max(self._counts[term], 1)
            rarity[term] = math.log1p(max(n - count, 0) / (count + 0.5) + 0.5)
            if term in query.numbers:
                rarity[term] *= self.weights.numbers
        return rarity

    def _worth_looking_up(self, query: Query, n: int) -> tuple[tuple[str, ...], list[str]]:
        present = [term for term in query.terms if self._counts[term] > 0]
        rare = [term for term in present if self._counts[term] <= self.limits.common * n]
        notes = []
        if n >= self.limits.common_from and rare and len(rare) < len(present):
            common = [term for term in present if term not in rare]
            notes.append(f"Too common here to tell passages apart: {', '.join(common)}.")
            present = rare
        absent = [term for term in query.terms if self._counts[term] == 0]
        if absent:
            notes.append(f"Nowhere in these documents: {', '.join(absent)}.")
        return tuple(present), notes

    def _named_documents(self, question: str) -> frozenset[int]:
        """Documents whose file name stands in the question."""
        folded = fold(question)
        return frozenset(document for document, name in self._names if _is_named(folded, name))

    def _check(self, question: str, k: int) -> None:
        if not question.strip():
            raise InvalidRequestError("The question is empty.", param="query")
        if len(question) > MOST_QUERY_CHARACTERS:
            raise InvalidRequestError(
                f"The question has {len(question):,} characters; {MOST_QUERY_CHARACTERS:,} is the most.",
                hint="Ask about one thing at a time.",
                param="query",
            )
        if not 1 <= k <= 1000:
            raise InvalidRequestError(f"k is {k}; it must lie between 1 and 1000.", param="k")


class _Lookup:
    """Likeness by chunk id, from two parallel arrays with ascending ids."""

    def __init__(self, ids: Ids, likeness: Vectors) -> None:
        self._ids, self._likeness = ids, likeness

    def __getitem__(self, chunk: int) -> float:
        at = int(np.searchsorted(self._ids, chunk))
        return float(self._likeness[at]) if at < len(self._ids) and self._ids[at] == chunk else 0.0

    def best(self, count: int) -> list[int]:
        if len(self._ids) > count:
            at = np.argpartition(-self._likeness, count)[:count]
        else:
            at = np.arange(len(self._ids))
        at = at[self._likeness[at] > 0]
        ordered: list[int] = self._ids[at[np.argsort(-self._likeness[at], kind="stable")]].tolist()
        return ordered

    def within(self, run: tuple[int, int], count: int = 20) -> list[int]:
        a, b = np.searchsorted(self._ids, [run[0], run[0] + run[1]])
        return _Lookup(self._ids[a:b], self._likeness[a:b]).best(count)


def own_blocks(chunk: StoredChunk) -> tuple[Block, ...]:
    """The blocks of a chunk, the only one cut where the chunk is a part of it."""
    if chunk.stop is None or not chunk.blocks:
        return chunk.blocks
    return (cut(chunk.blocks[0], Piece(chunk.first_block, chunk.start, chunk.stop)),)


def context_of(chunk: StoredChunk) -> str:
    return context_text(chunk.document, chunk.title, chunk.headings)


def context_text(name: str, title: str, headings: Sequence[str]) -> str:
    """What stands above a chunk and is indexed with it: the file's name, the title, the headings."""
    stem = PurePosixPath(name).stem
    return "\n".join(dict.fromkeys(part for part in (stem, title, *headings) if part))


def _coverage(query: Query, rarity: dict[str, float], tokens: frozenset[str]) -> float:
    total = covered = 0.0
    for run in query.runs:
        weight = max(rarity[term] for term in run)
        total += weight
        if not tokens.isdisjoint(run):
            covered += weight
    return covered / total if total else 0.0


def _level(coverage: float, vector: float) -> float:
    """How far a passage is about the question at all, 0..1."""
    return min(1.0, 0.85 * coverage + 0.15 * min(max(vector, 0.0) / 0.5, 1.0) + 0.0)


def _to_one(scores: Scores) -> Scores:
    low, high = float(scores.min()), float(scores.max())
    if high > low:
        return (scores - low) / (high - low)
    return np.full_like(scores, 1.0 if high > 0 else 0.0)


def _fts5_rarity(n: int, count: int) -> float:
    return max(math.log((n - count + 0.5) / (count + 0.5)), 1e-6)


def _drop(candidate: Candidate, reason: str) -> Dropped:
    return Dropped(candidate.chunk.document, candidate.place, round(candidate.score, 4), reason)


_PAGE = re.compile(r"(?:\bpage|\bp\.)\s*(\d+)|第\s*(\d+)\s*页", re.IGNORECASE)
_SLIDE = re.compile(r"\bslide\s*(\d+)|第\s*(\d+)\s*张|幻灯片\s*(\d+)", re.IGNORECASE)


def _names_place(question: str, place: Place) -> bool:
    folded = fold(question)
    return _among(_PAGE.findall(folded), place.page or place.slide) or _among(
        _SLIDE.findall(folded), place.slide
    )


def _among(found: Iterable[tuple[str, ...]], number: int | None) -> bool:
    return number is not None and str(number) in {digits for groups in found for digits in groups if digits}


def _is_named(folded_question: str, name: str) -> bool:
    last = fold(PurePosixPath(name).name)
    stem = PurePosixPath(last).stem
    if last in folded_question:
        return True
    least = 2 if re.search(f"[{CJK}]", stem) else 4
    if len(stem) < least or (stem.isascii() and stem.isalpha()):
        # A plain word ("report") may be meant as a word; with its suffix it is surely a name.
        return False
    return re.search(rf"(?<![^\W{CJK}]){re.escape(stem)}(?![^\W{CJK}])", folded_question) is not None
