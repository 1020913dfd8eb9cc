"""A question -> the passages that answer best, and the account of how they were found.

Two searches see every passage: FTS5 over words, and the likeness of vectors. The best of each are candidates,
whose text is then looked at: BM25 and likeness are brought to 0..1 among them and added by weight; passages
that hold more of the question's informative words, or whose file or page the question names, rise. Then
copies are folded, and no document takes all places. All scores are scaled by how much of the question the
best passage covers at all, so that a score near 0 means "nothing here is about this".
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Sequence

import msgspec

from quinze.embeddings.embedder import Embedder
from quinze.embeddings.folding import fold
from quinze.errors import InvalidRequestError
from quinze.knowledge import ranking
from quinze.knowledge.chunking import Piece, cut, indexed_text, span
from quinze.knowledge.document import Block, Place
from quinze.knowledge.fulltext import Analyzer, Query, match_expression
from quinze.knowledge.glossary import read_glossary
from quinze.knowledge.indexing import context_text
from quinze.knowledge.ranking import Collection, FileName, NamedPlaces, Related, Terms, Weights
from quinze.knowledge.results import Dropped, Hit, Search
from quinze.knowledge.stores.records import StoredChunk
from quinze.knowledge.stores.sqlite import SQLiteStore
from quinze.knowledge.vector_index import Likeness, VectorIndex

MOST_QUERY_CHARACTERS = 20_000
MOST_RESULTS = 1000


class Limits(msgspec.Struct, frozen=True):
    by_words: int = 40
    """Candidates from FTS5, at least; with k results, 3 k at least."""
    by_vector: int = 20
    by_meaning: int = 15
    """Candidates from FTS5 that have words of the same meaning, beside the question's own."""
    matches: int = 20_000
    """Of the question's terms, the commonest are not looked up while together they would match more passages
    than this: FTS5 scores each match. They still count in the ranking of what the others find."""
    of_one_document: float = 0.6
    """Share of the k places that one document may take while others come near."""
    near: float = 0.5
    """What "near" is: this share of the score that would be replaced."""
    alike: float = 0.9
    """Passages that share this much of their words are copies."""
    copies: int = 16
    """Copies of hits in other documents that are told of."""


class Candidate(msgspec.Struct):
    """A passage on its way through the ranking."""

    chunk: StoredChunk
    blocks: tuple[Block, ...]
    context: list[str]
    body: frozenset[str]
    terms: Terms
    place: Place
    words: float
    vector: float
    coverage: float
    score: float = 0.0


class _State(msgspec.Struct, frozen=True):
    """What is known of the whole base at one version of it; exchanged as one, so that threads agree."""

    average_length: float
    names: list[FileName]
    counts: dict[str, int]


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
        self._glossary = read_glossary(analyzer)
        self.weights, self.limits = weights or Weights(), limits or Limits()
        self._vector_share = self.weights.share_of(embedder.id)
        self._index = VectorIndex(embedder.dimensions)
        self._lock = threading.Lock()
        self._state: _State | None = None

    def search(self, question: str, k: int) -> Search:
        begun = time.perf_counter()
        _check(question, k)
        folded = fold(question)
        state = self._refresh()
        named = {name.document: name for name in state.names if name.is_in(folded)}
        places = NamedPlaces.of(folded)
        query = self._analyzer.query(_plain(question, folded, named.values()))
        related = {term: others for term in query.terms if (others := self._glossary.related(term))}
        state = self._count(
            state, (*query.terms, *(other for others in related.values() for other in others))
        )
        ids, products = self._index.scores(self._embedder.embed_queries([question])[0])
        likeness = Likeness(ids, products)
        ready, _, chunks, _ = self._store.counts()
        collection = Collection(len(ids), state.average_length, state.counts)
        present = [term for term in query.terms if state.counts[term] > 0]
        same = dict.fromkeys(
            other for group in related.values() for other in group if state.counts[other] > 0
        )
        meant = [term for term in same if term not in present]

        candidates = self._candidates(k, present, meant, state, likeness, list(named), places)
        looked_at = self._look_at(candidates, query, present, meant, related, collection, likeness)
        self._score(looked_at, query, related, collection, set(named), places)
        unique, copies, dropped = self._fold(looked_at)
        kept, crowded_out = self._choose(unique, k)
        best = ranking.best_possible_bm25(present, collection, self.weights)
        return Search(
            hits=[_hit(candidate, best) for candidate in kept],
            documents=ready,
            chunks=chunks,
            unread=self._store.unread(),
            terms=present,
            dropped=dropped + crowded_out,
            notes=_notes(query, state),
            seconds=time.perf_counter() - begun,
            copies=[_hit(candidate, best) for candidate in copies[: self.limits.copies]],
        )

    # -- candidates

    def _candidates(
        self,
        k: int,
        present: Sequence[str],
        meant: Sequence[str],
        state: _State,
        likeness: Likeness,
        named: Sequence[int],
        places: NamedPlaces,
    ) -> list[int]:
        found = likeness.best(max(self.limits.by_vector, k))
        terms = self._worth_looking_up(present, state)
        count = max(self.limits.by_words, 3 * k)
        if terms:
            expression = match_expression(tuple(terms))
            by_words = self._store.match(expression, count, (self.weights.context, 1.0))
            found = [chunk for chunk, _ in by_words] + found
        if meant:
            wide = match_expression(tuple(self._worth_looking_up([*present, *meant], state)))
            by_meaning = self._store.match(wide, self.limits.by_meaning, (self.weights.context, 1.0))
            found += [chunk for chunk, _ in by_meaning]
        for document in named:
            run = self._store.chunk_run(document)
            found += likeness.within(run).best(count)
            for page in sorted(places.pages | places.slides):
                found += self._store.chunks_on_page(document, page)[:count]
            if terms:
                within = self._store.match(expression, count, (self.weights.context, 1.0), within=run)
                found += [chunk for chunk, _ in within]
        return list(dict.fromkeys(found))

    def _worth_looking_up(self, present: Sequence[str], state: _State) -> list[str]:
        """The rarest terms, as many as FTS5 can score in good time; two at least."""
        chosen: list[str] = []
        matches = 0
        for term in sorted(present, key=lambda term: state.counts[term]):
            matches += state.counts[term]
            if matches > self.limits.matches and len(chosen) >= 2:
                break
            chosen.append(term)
        return chosen

    # -- ranking

    def _look_at(
        self,
        candidates: Sequence[int],
        query: Query,
        present: Sequence[str],
        meant: Sequence[str],
        related: Related,
        collection: Collection,
        likeness: Likeness,
    ) -> list[Candidate]:
        rarity = ranking.rarity(query, collection, self.weights)
        looked_at = []
        for chunk in self._store.chunks(candidates).values():
            blocks = own_blocks(chunk)
            context = self._analyzer.tokens(context_of(chunk))
            body = self._analyzer.tokens("\n".join(indexed_text(block) for block in blocks))
            terms = ranking.count_terms(context, body, self.weights.context)
            words = ranking.bm25(present, terms, collection, self.weights)
            words += self.weights.meaning * ranking.bm25(meant, terms, collection, self.weights)
            candidate = Candidate(
                chunk=chunk, blocks=blocks, context=context, body=frozenset(body), terms=terms,
                place=span(blocks),
                words=words,
                vector=max(likeness[chunk.id], 0.0),
                coverage=ranking.coverage(query, rarity, set(body), context, related, self.weights),
            )  # fmt: skip
            looked_at.append(candidate)
        return looked_at

    def _score(
        self,
        candidates: list[Candidate],
        query: Query,
        related: Related,
        collection: Collection,
        named: set[int],
        places: NamedPlaces,
    ) -> None:
        """Give each candidate its score and sort them, best first."""
        if not candidates:
            return
        rarity = ranking.rarity(query, collection, self.weights)
        most_words = max(c.words for c in candidates) or 1.0
        vectors = [c.vector for c in candidates]
        low, high = min(vectors), max(vectors)
        for c in candidates:
            likeness = (c.vector - low) / (high - low) if high > low else float(high > 0)
            c.score = (1 - self._vector_share) * c.words / most_words + self._vector_share * likeness
            c.score += self.weights.coverage * c.coverage
            if c.coverage and self.weights.focus:
                c.score += self.weights.focus * self._focus(c, query, related, rarity)
            if c.chunk.document_id in named:
                c.score += self.weights.named_file
            if any(places.hold(block.place) for block in c.blocks):
                c.score += self.weights.named_page
        candidates.sort(key=lambda c: (-c.score, c.chunk.id))
        top = candidates[0].score or 1.0
        level = max(ranking.level(c.coverage, c.vector) for c in candidates)
        for c in candidates:
            c.score = min(level * c.score / top, 1.0)

    def _focus(self, candidate: Candidate, query: Query, related: Related, rarity: dict[str, float]) -> float:
        """The coverage of the best single block, with what stands above it."""
        if len(candidate.blocks) == 1:
            return candidate.coverage
        tokens = (set(self._analyzer.tokens(indexed_text(block))) for block in candidate.blocks)
        context, weights = candidate.context, self.weights
        return max(ranking.coverage(query, rarity, own, context, related, weights) for own in tokens)

    # -- choosing

    def _fold(self, ranked: list[Candidate]) -> tuple[list[Candidate], list[Candidate], list[Dropped]]:
        """Those that say something new, the copies of them, and whose copies they are."""
        unique: list[Candidate] = []
        copies: list[Candidate] = []
        dropped: list[Dropped] = []
        for candidate in ranked:
            twin = next((other for other in unique if self._alike(candidate, other)), None)
            if twin is None:
                unique.append(candidate)
                continue
            if candidate.chunk.document_id != twin.chunk.document_id:
                copies.append(candidate)
            where = ", ".join(part for part in (twin.chunk.document, twin.place.label()) if part)
            dropped.append(_drop(candidate, f"the same text as in {where}"))
        return unique, copies, dropped

    def _choose(self, unique: list[Candidate], k: int) -> tuple[list[Candidate], list[Dropped]]:
        """The k to return, best first, and why the others are not among them."""
        share = max(2, math.ceil(k * self.limits.of_one_document))
        dropped: list[Dropped] = []
        kept: list[Candidate] = []
        crowded: list[Candidate] = []
        taken: dict[int, int] = {}
        for candidate in unique:
            document = candidate.chunk.document_id
            taken[document] = taken.get(document, 0) + 1
            (kept if taken[document] <= share else crowded).append(candidate)
        # A passage of a crowded document still goes before those of others that are far behind it.
        chosen = kept[:k]
        for candidate in crowded:
            if len(chosen) < k:
                chosen.append(candidate)
            elif chosen[-1].score < self.limits.near * candidate.score:
                dropped.append(_drop(chosen.pop(), f"not among the {k} best"))
                chosen.append(candidate)
            else:
                dropped.append(_drop(candidate, f"{share} better passages are of the same document"))
            chosen.sort(key=lambda c: (-c.score, c.chunk.id))
        return chosen, dropped + [_drop(candidate, f"not among the {k} best") for candidate in kept[k:]]

    def _alike(self, a: Candidate, b: Candidate) -> bool:
        if a.chunk.text_hash == b.chunk.text_hash:
            return True
        if a.chunk.document_id == b.chunk.document_id:
            return False
        small, large = sorted((a.body, b.body), key=len)
        least = self.limits.alike * len(large)
        return len(small) >= least and len(small & large) >= self.limits.alike * len(small | large)

    # -- what is known of the whole

    def _refresh(self) -> _State:
        with self._lock:
            state = self._state
            if self._index.refresh(self._store) or state is None:
                names = [FileName.of(d.id, d.name) for d in self._store.documents() if d.status == "ready"]
                state = self._state = _State(self._store.average_length(), names, {})
            return state

    def _count(self, state: _State, terms: Iterable[str]) -> _State:
        """`state` with the counts of these terms."""
        missing = [term for term in dict.fromkeys(terms) if term not in state.counts]
        if not missing:
            return state
        counted = msgspec.structs.replace(state, counts=state.counts | self._store.word_counts(missing))
        with self._lock:
            if self._state is state:
                self._state = counted
        return counted


def own_blocks(chunk: StoredChunk) -> tuple[Block, ...]:
    """The blocks of a chunk, the only one cut where the chunk is a part of it."""
    if chunk.stop is None or not chunk.blocks:
        return chunk.blocks
    return (cut(chunk.blocks[0], Piece(chunk.first_block, chunk.start, chunk.stop)),)


def context_of(chunk: StoredChunk) -> str:
    return context_text(chunk.document, chunk.title, chunk.headings)


def _hit(candidate: Candidate, best_possible: float) -> Hit:
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
            "vector": round(candidate.vector, 4),
            "words": round(candidate.words / best_possible, 4) if best_possible else 0.0,
            "coverage": round(candidate.coverage, 4),
        },
    )


def _drop(candidate: Candidate, reason: str) -> Dropped:
    return Dropped(candidate.chunk.document, candidate.place, round(candidate.score, 4), reason)


def _notes(query: Query, state: _State) -> list[str]:
    """The question's words that stand nowhere. Pairs across two Chinese words are no words of the
    question."""
    absent = ["".join(run[:1]) for run in query.runs if all(state.counts[term] == 0 for term in run)]
    return [f"Nowhere in these documents: {', '.join(dict.fromkeys(absent))}."] if absent else []


def _plain(question: str, folded: str, names: Iterable[FileName]) -> str:
    """What is asked, without where. The question as it was written, if it names no place: camelCase tells
    words."""
    plain = ranking.without_names(folded, names)
    return question if plain == folded else plain


def _check(question: str, k: int) -> None:
    if not question.strip():
        raise InvalidRequestError("The question is empty.", param="query")
    if len(question) > MOST_QUERY_CHARACTERS:
        raise InvalidRequestError(
            f"The question has {len(question):,} characters; {MOST_QUERY_CHARACTERS:,} is the most.",
            hint="Ask about one thing at a time.",
            param="query",
        )
    if not 1 <= k <= MOST_RESULTS:
        raise InvalidRequestError(f"k is {k}; it must lie between 1 and {MOST_RESULTS:,}.", param="k")
