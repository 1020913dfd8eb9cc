"""What a knowledge base tells: documents, hits, the account of a search, the progress of taking documents in.

Plain records, ready to become JSON. Nothing here computes.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from quinze.knowledge.document import Block, Place

Stage = Literal["waiting", "reading", "indexing", "ready", "failed", "skipped"]


class IngestEvent(msgspec.Struct, frozen=True):
    """One step of taking one document in."""

    document: str
    path: str
    stage: Stage
    page: int | None = None
    pages: int | None = None
    error: str = ""
    hint: str = ""
    code: str = ""
    """`QuinzeError.code` of the failure: its kind, for programs and for other languages."""
    seconds: float = 0.0
    """How long reading and indexing took, once it is ready or has failed."""
    done: int = 0
    """Documents finished (ready, failed or skipped) out of `total`."""
    total: int = 0


class Failure(msgspec.Struct, frozen=True):
    """A document that could not be read, why, and what to do."""

    document: str
    error: str
    hint: str = ""
    code: str = ""
    """`QuinzeError.code`: what kind of failure it is."""


class IngestReport(msgspec.Struct, frozen=True):
    """How an `add` ended. The numbers count documents."""

    added: int = 0
    updated: int = 0
    """Read again because the file had changed, or found under another name."""
    skipped: int = 0
    """Unchanged since they were read."""
    removed: int = 0
    """Their files were gone from the folder that was added."""
    failed: list[Failure] = []
    """Those that could not be read this time."""
    seconds: float = 0.0
    cancelled: bool = False


class DocumentInfo(msgspec.Struct, frozen=True):
    """One document as the knowledge base records it, read or not."""

    id: int
    name: str
    path: str
    sha256: str
    size: int
    format: str
    title: str
    language: str
    pages: int | None
    status: Literal["ready", "failed"]
    error: str
    hint: str
    warnings: list[str]
    blocks: int
    chunks: int
    added_at: str
    seconds: float
    code: str = ""
    """`QuinzeError.code` of the failure; "" when it is ready, or failed before Quinze took note of codes."""


class Unread(msgspec.Struct, frozen=True):
    """A document that no search can find, because it could not be read."""

    document: str
    error: str
    code: str = ""
    """`QuinzeError.code` of the failure."""


class Hit(msgspec.Struct, frozen=True):
    """A passage found."""

    chunk_id: int
    document_id: int
    document: str
    title: str
    place: Place
    """Where the passage stands as a whole; each of its `blocks` has a narrower place of its own."""
    text: str
    blocks: tuple[Block, ...]
    first_block: int
    """Ordinal of `blocks[0]` in the document."""
    score: float
    """0..1, what it was ranked by."""
    scores: dict[str, float | None]
    """vector    likeness of the vectors, 0..1 (None: no vector was compared)
    words     BM25 as a share of the best that any passage could reach for this query
    coverage  share of the query's informative terms, weighted by rarity, that the passage or its title
              holds"""


class Dropped(msgspec.Struct, frozen=True):
    """A passage that was found and not returned, and why."""

    document: str
    place: Place
    score: float
    reason: str


class Search(msgspec.Struct, frozen=True):
    """The whole account of a search: what was found, in what, by which terms, and what was left out."""

    hits: list[Hit]
    documents: int
    """Documents searched."""
    chunks: int
    """Passages searched."""
    unread: list[Unread]
    terms: list[str]
    """The query's terms that were looked up."""
    dropped: list[Dropped]
    notes: list[str] = []
    """What else a person should know: "“the” stands nearly everywhere and was not looked up"."""
    seconds: float = 0.0
    copies: list[Hit] = []
    """Passages that are not among the hits because one of them has the same text: where else it stands."""


class Stats(msgspec.Struct, frozen=True):
    documents: int
    ready: int
    failed: int
    chunks: int
    bytes: int
    """Size of the database."""
    embedder: str
    updated_at: str | None
