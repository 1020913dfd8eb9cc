"""An answer as every face gives it: the text, where each claim comes from, and what was searched.

Knows nothing of how it is made.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from quinze.knowledge.document import Place
from quinze.knowledge.results import Unread

Status = Literal["verbatim", "supported", "weak", "unsupported"]


class Citation(msgspec.Struct, frozen=True):
    """What the mark [number] in an answer stands for: one stretch of one document."""

    number: int
    document: str
    document_id: int
    place: str
    """For people to read: "page 3", "sheet Prices, A7:D7"."""
    text: str
    """Verbatim from the document."""
    score: float
    """0..1: how much of the question a quote holds; how much of a generated claim the text holds."""
    anchor: Place
    block: int
    """Ordinal of its block in the document."""
    status: Status


class Passage(msgspec.Struct, frozen=True):
    """One hit of the search, and what became of it."""

    document: str
    place: str
    """For people to read."""
    anchor: Place
    score: float
    used: bool
    reason: str
    """"quoted" or "read" when used; else "budget", "duplicate" or "low score"."""


class Searched(msgspec.Struct, frozen=True):
    """The account of a search: shown under every answer, and instead of one when there is none."""

    knowledge_base: str
    documents: int
    chunks: int
    unread: list[Unread]
    """Documents that could not be read, and so were not searched."""
    terms: list[str]
    passages: list[Passage]
    notes: list[str]
    """What else a person should know, in the language of the question."""
    seconds: float


class Answer(msgspec.Struct, frozen=True):
    """`answer` with its marks [1], [2]; `kind` says who worded it: a model, the documents, or nobody."""

    answer: str
    kind: Literal["generated", "quoted", "none"]
    citations: list[Citation]
    searched: Searched
    model: str | None = None
    context: dict[str, Any] | None = None
    """The model's context ledger, when one was asked."""


class AnswerEvent(msgspec.Struct, frozen=True):
    """One step of a streamed answer: first "searched", then "delta"s while a model writes, at last "answer".

    The marks in deltas are the model's own and unchecked; those of the answer are checked and numbered anew.
    """

    type: Literal["searched", "delta", "answer"]
    searched: Searched | None = None
    text: str = ""
    answer: Answer | None = None
