"""The rows of a store as plain records. Nothing here computes."""

from __future__ import annotations

import msgspec

from quinze.knowledge.document import Block


class Known(msgspec.Struct, frozen=True):
    """What is needed to tell whether a file must be read again."""

    id: int
    key: str
    name: str
    path: str
    root: str
    sha256: str
    size: int
    mtime_ns: int
    status: str
    readers: str
    """The readers that failed on it, as fingerprint.py names them."""


class Entry(msgspec.Struct, frozen=True):
    """A document's row as it is written."""

    key: str
    name: str
    path: str
    root: str
    sha256: str
    size: int
    mtime_ns: int
    status: str
    added_at: str
    format: str = ""
    title: str = ""
    language: str = ""
    pages: int | None = None
    error: str = ""
    hint: str = ""
    code: str = ""
    readers: str = ""
    warnings: list[str] = []
    seconds: float = 0.0


class ChunkRow(msgspec.Struct, frozen=True):
    """A chunk as it is written: where it stands, its tokens and its vector."""

    first_block: int
    blocks: int
    start: int
    stop: int | None
    headings: tuple[str, ...]
    context: str
    body: str
    page: int | None
    """Page or slide of the first block."""
    length: int
    """Tokens of the body that are no function words."""
    text_hash: int


class StoredChunk(msgspec.Struct, frozen=True):
    """A chunk as it is read: its blocks are whole; `start` and `stop` cut the only one, if it is a part."""

    id: int
    document_id: int
    document: str
    title: str
    first_block: int
    blocks: tuple[Block, ...]
    start: int
    stop: int | None
    headings: tuple[str, ...]
    text_hash: int
