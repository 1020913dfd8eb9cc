"""Citations: each sentence that a model wrote, bound to the passage that holds it, and checked against it.

Given the reply and the passages of its prompt; returns the answer with marks numbered anew and one citation
a mark, narrowed to the sentence of the document that supports the claim best. A mark is a claim, not a
proof: a sentence whose words or numbers its passage lacks is bound to the passage that has them, or called
unsupported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quinze.knowledge.document import Block, BlockKind, Place
from quinze.knowledge.fulltext import Analyzer
from quinze.knowledge.sentences import sentence_spans
from quinze.rag.answers import Citation, Status
from quinze.rag.likeness import agreement
from quinze.rag.quoting import code_excerpt, narrow
from quinze.rag.spans import filled_columns, spans_of
from quinze.rag.words import Question, is_foreign, is_han, is_number, read_question

if TYPE_CHECKING:
    from quinze.knowledge.results import Hit

SUPPORTED, WEAK = 0.6, 0.35
"""Share of a claim's words that the passage holds, to be called supported, or weakly so."""
ELSEWHERE = 0.6
"""What a word is worth that stands in the passage, but not in the sentence that is cited."""

_MARKS = re.compile(
    r"\s*[\[［【]\s*(?:passage\s*|段落\s*)?(\d{1,4}(?:\s*[,，、;]\s*\d{1,4})*)\s*[\]］】]", re.IGNORECASE
)
_LEADING = re.compile(rf"(?:{_MARKS.pattern})+", re.IGNORECASE)
_CLOSING = re.compile(r"[\s.。!！?？;；,，:：]*$")
_NEGATION = re.compile(
    r"\b(?:not|no|never|none|neither|nor|without|cannot|\w+n't)\b|不|没|无|未|非|别", re.IGNORECASE
)


@dataclass(slots=True)
class Claim:
    text: str
    """Without its marks."""
    before: str
    """What parts it from the claim before: a space, a line break."""
    marks: list[int]


@dataclass(frozen=True, slots=True)
class Support:
    score: float
    status: Status
    hit: Hit
    block: int
    start: int
    end: int


@dataclass(slots=True)
class Bound:
    answer: str
    citations: list[Citation] = field(default_factory=list)
    unknown_marks: list[int] = field(default_factory=list)
    unmarked: int = 0
    """Sentences that say something, but nothing in the passages says it."""

    @property
    def holds(self) -> bool:
        """Whether at least one sentence is supported."""
        return any(citation.status == "supported" for citation in self.citations)


def bind(reply: str, passages: Sequence[Hit], question: Question, analyzer: Analyzer) -> Bound:
    """The reply with its marks checked; passage n is passages[n - 1]."""
    bound = Bound("")
    checker = Checker(passages, question, analyzer)
    numbers: dict[tuple[int, int, int, int, Status], int] = {}
    for claim in claims_of(reply):
        known = [mark for mark in claim.marks if 1 <= mark <= len(passages)]
        bound.unknown_marks += [mark for mark in claim.marks if mark not in known]
        supports = checker.supports(claim.text, known)
        if not supports and says_something(claim.text):
            bound.unmarked += 1
        marks = []
        for support in supports:
            key = (support.hit.document_id, support.block, support.start, support.end, support.status)
            if key not in numbers:
                numbers[key] = len(numbers) + 1
                bound.citations.append(
                    _citation(numbers[key], support, read_question(claim.text, analyzer), analyzer)
                )
            marks.append(numbers[key])
        bound.answer += claim.before + _marked(claim.text, list(dict.fromkeys(marks)))
    bound.answer = bound.answer.strip()
    return bound


def claims_of(reply: str) -> list[Claim]:
    """The sentences of a reply, each with the marks that stand in it or follow it."""
    claims: list[Claim] = []
    last = 0
    for line_start, line in _lines(reply):
        for start, end in sentence_spans(line):
            text = line[start:end].rstrip()
            end = start + len(text)
            leading = _LEADING.match(text)
            if leading and claims and start > 0:
                claims[-1].marks += _numbers(leading.group())
                text = text[leading.end() :]
            plain = _MARKS.sub("", text).strip()
            if plain and plain not in "-*•":
                claims.append(Claim(plain, reply[last : line_start + start], _numbers(text)))
            last = line_start + end
    return claims


class Checker:
    """Says how well passages support claims."""

    def __init__(self, passages: Sequence[Hit], question: Question, analyzer: Analyzer) -> None:
        self._passages = passages
        self._asked = question.terms
        self._analyzer = analyzer
        self._terms: dict[str, set[str]] = {}

    def supports(self, claim: str, marks: Sequence[int]) -> list[Support]:
        """The passages named, if any supports the claim; else one that does; else those named, as is."""
        if not says_something(claim):
            return []
        named = [self.check(claim, self._passages[mark - 1]) for mark in dict.fromkeys(marks)]
        held = [support for support in named if support.status == "supported"]
        if held:
            return held
        others = [self.check(claim, hit) for at, hit in enumerate(self._passages, start=1) if at not in marks]
        others = sorted((one for one in others if one.status == "supported"), key=lambda one: -one.score)
        weak = [support for support in named if support.status == "weak"]
        return others[:1] or weak or named

    def check(self, claim: str, hit: Hit) -> Support:
        """How well one passage supports a claim, and the sentence of it that does so best."""
        asked = read_question(claim, self._analyzer)
        foreign = is_foreign(hit.text, asked)
        words = [word for word in asked.words if not (foreign and is_han(word.terms[0]))]
        total = sum(word.weight for word in words)
        everywhere = self._all_terms(hit)
        best = Support(0.0, "unsupported", hit, 0, 0, len(hit.blocks[0].text) if hit.blocks else 0)
        for index, block, start, end in _units(hit):
            own = self._of(block.text[start:end]) | self._of(filled_columns(block))
            held = sum(
                word.weight * max(agreement(word, own), ELSEWHERE * agreement(word, everywhere))
                for word in words
            )
            if total and held / total > best.score:
                best = Support(held / total, "unsupported", hit, index, start, end)
        numbers = {term for word in words for term in word.terms if is_number(term)}
        if best.score < WEAK or not numbers <= everywhere | self._asked:
            return best
        cited = hit.blocks[best.block].text[best.start : best.end]
        agrees = bool(_NEGATION.search(claim)) == bool(_NEGATION.search(cited))
        status: Status = "supported" if best.score >= SUPPORTED and agrees and not foreign else "weak"
        return Support(best.score, status, hit, best.block, best.start, best.end)

    def _all_terms(self, hit: Hit) -> set[str]:
        columns = " ".join(filled_columns(block) for block in hit.blocks)
        return self._of("\n".join((hit.text, hit.title, columns, *hit.place.heading)))

    def _of(self, text: str) -> set[str]:
        if text not in self._terms:
            self._terms[text] = set(self._analyzer.tokens(text))
        return self._terms[text]


def _units(hit: Hit) -> Iterator[tuple[int, Block, int, int]]:
    for index, block in enumerate(hit.blocks):
        for start, end in spans_of(block):
            yield index, block, start, end


def _citation(number: int, support: Support, claim: Question, analyzer: Analyzer) -> Citation:
    hit = support.hit
    block = hit.blocks[support.block]
    start, end = support.start, support.end
    if block.kind is BlockKind.CODE:
        start, end = code_excerpt(block, hit.document, claim, analyzer)
    anchor: Place = narrow(block, start, end)
    return Citation(
        number=number,
        document=hit.document,
        document_id=hit.document_id,
        place=anchor.label(),
        text=block.text[start:end],
        score=round(min(1.0, support.score), 4),
        anchor=anchor,
        block=hit.first_block + support.block,
        status=support.status,
    )


def _lines(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    for line in text.splitlines(keepends=True):
        yield start, line
        start += len(line)


def _numbers(text: str) -> list[int]:
    return [int(number) for group in _MARKS.findall(text) for number in re.findall(r"\d+", group)]


def _marked(text: str, marks: Sequence[int]) -> str:
    """The claim with its marks at its end, before the full stop."""
    if not marks:
        return text
    closing = _CLOSING.search(text)
    at = closing.start() if closing else len(text)
    return f"{text[:at]} {''.join(f'[{mark}]' for mark in marks)}{text[at:]}"


def says_something(text: str) -> bool:
    """Whether a sentence is a claim at all; "Here is the answer:" and a question are none."""
    return bool(re.search(r"\w", text)) and not text.rstrip().endswith((":", "：", "?", "？"))
