"""The tables of a knowledge base, and how its one file comes to be.

    meta        what the whole base is bound to: the embedder that made its vectors
    documents   one row a file, read or not; `key` is what makes it the same document on the next day
    blocks      what a reader yielded, one row a block
    chunks      passages: which blocks, on which page or slide, their vector (float16), a hash of their text
    words       FTS5 over the chunks' tokens (made by fulltext.py); it keeps the index, not the text
    word_counts in how many chunks a token occurs, read from the same index

A chunk's id is never given twice, and the chunks of a document have consecutive ids in one transaction.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

import apsw

from quinze.errors import StorageError
from quinze.knowledge.fulltext import TOKEN_CHARACTERS

VERSION = 2
APPLICATION_ID = 0x51757A65  # "Quze"
OLDEST_SQLITE = (3, 51, 3)
"""Older ones may corrupt a WAL database that two processes write."""

SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    path TEXT NOT NULL,
    root TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    format TEXT NOT NULL DEFAULT '',
    title TEXT NOT NULL DEFAULT '',
    language TEXT NOT NULL DEFAULT '',
    pages INTEGER,
    status TEXT NOT NULL CHECK (status IN ('ready', 'failed')),
    error TEXT NOT NULL DEFAULT '',
    hint TEXT NOT NULL DEFAULT '',
    warnings TEXT NOT NULL DEFAULT '[]',
    blocks INTEGER NOT NULL DEFAULT 0,
    chunks INTEGER NOT NULL DEFAULT 0,
    first_chunk INTEGER NOT NULL DEFAULT 0,
    tokens INTEGER NOT NULL DEFAULT 0,
    added_at TEXT NOT NULL,
    seconds REAL NOT NULL DEFAULT 0,
    code TEXT NOT NULL DEFAULT '',
    readers TEXT NOT NULL DEFAULT ''
);
CREATE INDEX documents_by_content ON documents (sha256);
CREATE TABLE blocks (
    document_id INTEGER NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    ordinal INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (document_id, ordinal)
) WITHOUT ROWID;
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    document_id INTEGER NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    first_block INTEGER NOT NULL,
    blocks INTEGER NOT NULL,
    start INTEGER NOT NULL,
    stop INTEGER,
    page INTEGER,
    headings BLOB NOT NULL,
    text_hash INTEGER NOT NULL,
    vector BLOB NOT NULL
);
CREATE INDEX chunks_by_document ON chunks (document_id);
CREATE VIRTUAL TABLE words USING fts5(
    context, body, content='', contentless_delete=1, tokenize="ascii tokenchars '{TOKEN_CHARACTERS}'"
);
CREATE VIRTUAL TABLE word_counts USING fts5vocab('words', 'row');
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""

UPDATES = {
    1: """
ALTER TABLE documents ADD COLUMN code TEXT NOT NULL DEFAULT '';
ALTER TABLE documents ADD COLUMN readers TEXT NOT NULL DEFAULT '';
""",
}
"""What makes a database of that version one of the next."""


def create(path: Path, meta: dict[str, str]) -> None:
    """Make the database at `path`, whole or not at all. If another process was faster, its database stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        connection = apsw.Connection(str(temporary))
        try:
            connection.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
            with connection:
                connection.execute(SCHEMA)
                connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        finally:
            connection.close()
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        for leftover in path.parent.glob(temporary.name + "*"):
            leftover.unlink(missing_ok=True)


def check(connection: apsw.Connection, path: Path) -> None:
    """Bring an older knowledge base up to date; StorageError for what is none, or newer than we are."""
    application = connection.pragma("application_id")
    version = connection.pragma("user_version")
    if application != APPLICATION_ID:
        raise StorageError(
            f"{path} is not a knowledge base of Quinze.",
            hint="Move the file away; a knowledge base of that name can then be made anew.",
        )
    if version > VERSION:
        raise StorageError(
            f"{path} was written by a newer Quinze (its version is {version}, this Quinze knows {VERSION}).",
            hint="Update Quinze, or make a knowledge base under another name.",
        )
    if version < VERSION:
        _update(connection)


def _update(connection: apsw.Connection) -> None:
    """To our version, in one transaction. Processes that wait here find it done."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for version in range(connection.pragma("user_version"), VERSION):
            connection.execute(UPDATES[version])
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def check_library() -> None:
    found = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    if found < OLDEST_SQLITE:
        raise StorageError(
            f"SQLite {apsw.sqlite_lib_version()} of apsw can corrupt a database shared by processes.",
            hint="Update it: pip install -U 'apsw>=3.51.3'",
        )
