"""The pipeline: from a question to an answer whose every claim shows where it comes from.

Given a knowledge base and, perhaps, an LLM that can chat. With one: passages, prompt, reply, checked
citations. Without one, or when nothing that it wrote is supported: quotes. When nothing supports an answer:
"none". Stores nothing.

    answer("多少钱？", knowledge_base, None).citations[0].place
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from quinze.engine.sampling import SamplingParams
from quinze.errors import ChatTemplateError, ContextLengthError, InvalidRequestError
from quinze.knowledge.fulltext import Analyzer
from quinze.rag.answers import Answer, AnswerEvent, Citation, Passage, Searched, Status
from quinze.rag.citations import bind
from quinze.rag.evidence import Evidence, Unit
from quinze.rag.phrases import phrase
from quinze.rag.prompt import NO_ANSWER, Prompt, build_prompt
from quinze.rag.quoting import Quote, quote
from quinze.rag.words import Question, read_question

if TYPE_CHECKING:
    from quinze.knowledge.knowledge_base import KnowledgeBase
    from quinze.knowledge.results import Hit, Search
    from quinze.llm.messages import Delta
    from quinze.llm.model import LanguageModel

__all__ = ["Answer", "AnswerEvent", "Citation", "Passage", "Searched", "Status", "answer", "stream_answer"]

POOL = 40
"""Hits among which the best sentences are looked for; the model reads the best k of them."""
ASKABLE = 0.25
"""A model is asked only if some sentence holds this share of the question."""


def answer(question: str, knowledge_base: KnowledgeBase, llm: LanguageModel | None, *, k: int = 8) -> Answer:
    """The answer as a whole; see `stream_answer`."""
    last: Answer | None = None
    for event in stream_answer(question, knowledge_base, llm, k=k):
        last = event.answer or last
    assert last is not None
    return last


def stream_answer(
    question: str, knowledge_base: KnowledgeBase, llm: LanguageModel | None, *, k: int = 8
) -> Iterator[AnswerEvent]:
    """What was searched, then what the model writes as it writes it, then the checked answer.

    Closing the iterator cancels the model.
    """
    if not question.strip():
        raise InvalidRequestError("The question is empty.", hint="Ask something.", param="question")
    if k < 1:
        raise InvalidRequestError(f"k is {k}; at least 1 passage must be read.", param="k")
    analyzer = knowledge_base.analyzer
    walk = _Walk(read_question(question, analyzer), analyzer, knowledge_base, k)
    prompt = walk.prompt_for(llm) if llm else None
    yield AnswerEvent("searched", searched=walk.searched(prompt, []))
    generated: Answer | None = None
    if llm and prompt and prompt.passages:
        generated = yield from walk.generate(llm, prompt)
    yield AnswerEvent("answer", answer=generated or walk.quoted())


@dataclass
class _Walk:
    """One question on its way: what was found, and what must be told about it."""

    question: Question
    analyzer: Analyzer
    knowledge_base: KnowledgeBase
    k: int
    notes: list[str] = field(default_factory=list)
    model: str | None = None
    """The model that was asked, whatever came of it."""
    context: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self.search: Search = self.knowledge_base.search_account(self.question.text, max(POOL, self.k))
        self.found: list[Hit] = sorted([*self.search.hits, *self.search.copies], key=lambda hit: -hit.score)
        self.units: list[Unit] = Evidence(self.question, self.found, self.analyzer).units()

    def note(self, name: str, **values: object) -> None:
        self.notes.append(phrase(name, self.question.language, **values))

    def prompt_for(self, llm: LanguageModel) -> Prompt | None:
        """The prompt for a model that can be asked, else None and a note that says why."""
        if not self.units or max(unit.coverage for unit in self.units) < ASKABLE:
            return None
        if not llm.can_chat:
            self.note("cannot_chat", model=llm.name)
            return None
        prompt = build_prompt(self.question, self._best_hits(), llm)
        if not prompt.passages:
            self.note("no_room", model=llm.name, tokens=llm.context_length)
        return prompt

    def generate(self, llm: LanguageModel, prompt: Prompt) -> Generator[AnswerEvent, None, Answer | None]:
        """Deltas; returns the generated answer, or None if it does not hold and documents must be quoted."""
        self.model = llm.name
        reply = ""
        params = SamplingParams(temperature=0.0, max_tokens=prompt.reply_tokens)
        try:
            stream = llm.chat(prompt.messages, params=params, stream=True)
            with contextlib.closing(cast("Generator[Delta, None, None]", stream)):
                for delta in stream:
                    shown = len(_spoken(reply))
                    reply += delta.text
                    if text := _spoken(reply)[shown:]:
                        yield AnswerEvent("delta", text=text)
                    if delta.context is not None:
                        self.context = dict(delta.context)
                    if delta.finish_reason == "length":
                        self.note("cut_short", tokens=prompt.reply_tokens)
        except (ContextLengthError, ChatTemplateError) as error:
            self.note("failed", model=llm.name, error=error.message)
            return None
        return self._checked(_spoken(reply), prompt)

    def _checked(self, reply: str, prompt: Prompt) -> Answer | None:
        if any(sentence in reply for sentence in NO_ANSWER.values()):
            self.note("refused", model=self.model, count=len(prompt.passages))
            return None
        bound = bind(reply, prompt.passages, self.question, self.analyzer)
        if not bound.holds:
            self.note("not_supported", model=self.model)
            return None
        if bound.unknown_marks:
            self.note(
                "unknown_marks", marks=", ".join(f"[{mark}]" for mark in sorted(set(bound.unknown_marks)))
            )
        if bound.unmarked:
            self.note("unmarked", count=bound.unmarked)
        searched = self.searched(prompt, [])
        return Answer(bound.answer, "generated", bound.citations, searched, self.model, self.context)

    def quoted(self) -> Answer:
        quotes = quote(self.question, self.units, self.analyzer, passages=self.search.chunks)
        searched = self.searched(None, quotes)
        if not quotes:
            return Answer(self._none(), "none", [], searched, self.model, self.context)
        numbers: dict[str, list[int]] = {}
        shown: dict[str, str] = {}
        for number, one in enumerate(quotes, start=1):
            text = "".join(one.text.split())
            shown.setdefault(text, one.shown)
            numbers.setdefault(text, []).append(number)
        parts = [
            shown[text]
            + ("\n" if shown[text].endswith("```") else " ")
            + "".join(f"[{number}]" for number in marks)
            for text, marks in numbers.items()
        ]
        citations = [_citation(number, one, best=quotes[0]) for number, one in enumerate(quotes, start=1)]
        return Answer("\n\n".join(parts), "quoted", citations, searched, None, self.context)

    def _none(self) -> str:
        language = self.question.language
        name = self.knowledge_base.name
        if not self.search.documents:
            return phrase("empty", language, name=name)
        documents = self.search.documents
        plural = "" if documents == 1 else "s"
        said = phrase("none", language, name=name, documents=documents, s=plural)
        if not self.search.terms:
            return said + phrase("no_terms", language)
        terms = ("、" if language == "zh" else ", ").join(self.search.terms)
        return said + phrase("terms", language, terms=terms)

    def searched(self, prompt: Prompt | None, quotes: Sequence[Quote]) -> Searched:
        quoted = {one.hit.chunk_id for one in quotes}
        read = {hit.chunk_id for hit in prompt.passages} if prompt else set()
        dropped = prompt.dropped if prompt else {}
        passages = []
        copies = {hit.chunk_id for hit in self.search.copies}
        for hit in self.found:
            used = hit.chunk_id in quoted or hit.chunk_id in read
            unused = dropped.get(hit.chunk_id, "duplicate" if hit.chunk_id in copies else "low score")
            reason = "quoted" if hit.chunk_id in quoted else "read" if used else unused
            label, score = hit.place.label(), round(hit.score, 4)
            passages.append(Passage(hit.document, label, hit.place, score, used, reason))
        return Searched(
            knowledge_base=self.knowledge_base.name,
            documents=self.search.documents,
            chunks=self.search.chunks,
            unread=list(self.search.unread),
            terms=list(self.search.terms),
            passages=passages,
            notes=list(self.notes),
            seconds=round(time.monotonic() - self.started, 4),
        )

    def _best_hits(self) -> list[Hit]:
        """The k hits whose best sentence holds most of the question."""
        best: dict[int, Hit] = {}
        for unit in self.units:
            best.setdefault(unit.hit.chunk_id, unit.hit)
        return list(best.values())[: self.k]


def _citation(number: int, one: Quote, best: Quote) -> Citation:
    return Citation(
        number=number,
        document=one.hit.document,
        document_id=one.hit.document_id,
        place=one.place.label(),
        text=one.text,
        score=round(min(best.coverage * one.score / best.score, 1.0), 4),
        anchor=one.place,
        block=one.block,
        status="verbatim",
    )


def _spoken(reply: str) -> str:
    """A reply without the thoughts with which some models begin it."""
    begun = reply.lstrip()
    if begun.startswith("<think>"):
        _, closed, rest = begun.partition("</think>")
        return rest.lstrip() if closed else ""
    return "" if "<think>".startswith(begun) else reply
