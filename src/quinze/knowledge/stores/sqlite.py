"""One knowledge base in one SQLite file: documents, blocks, chunks, words and vectors.

One connection writes, others read; each document goes in, or is replaced, in one transaction that is on the
disk when `put` returns. Several processes may use the same file: `version` tells when another one has
written. Whatever SQLite complains of becomes a StorageError that says what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import apsw
import msgspec
import numpy as np
import numpy.typing as npt

from quinze.embeddings.embedder import Vectors
from quinze.errors import StorageError
from quinze.knowledge.document import Block
from quinze.knowledge.results import DocumentInfo, Unread
from quinze.knowledge.stores import schema
from quinze.knowledge.stores.connections import Connections, explained
from quinze.knowledge.stores.records import ChunkRow, Entry, Known, StoredChunk

_INFO = (
    "id, name, path, sha256, size, format, title, language, pages, status, error, hint, warnings,"
    " blocks, chunks, added_at, seconds, code"
)


_BLOCKS = "SELECT data FROM blocks WHERE document_id = ? AND ordinal >= ? AND ordinal < ? ORDER BY ordinal"


class SQLiteStore(Connections):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with self.reading() as db:
            self.meta: dict[str, str] = dict(db.execute("SELECT key, value FROM meta"))

    @classmethod
    def create(cls, path: Path, meta: dict[str, str]) -> SQLiteStore:
        """The store at `path`, made with this meta unless it is already there."""
        with explained(path):
            if not path.exists():
                schema.create(path, meta)
        return cls(path)

    # -- writing

    def put(self, entry: Entry, blocks: Sequence[Block], chunks: Sequence[ChunkRow], vectors: Vectors) -> int:
        """Write a document, replacing the one of the same key, whole or not at all. Returns its id."""
        with self.writing() as db:
            row = db.execute("SELECT id FROM documents WHERE key = ?", (entry.key,)).fetchone()
            document_id = self._put_entry(db, entry, row and row[0])
            if row:
                self._clear(db, document_id)
            encoder = msgspec.msgpack.Encoder()
            db.executemany(
                "INSERT INTO blocks VALUES (?, ?, ?)",
                ((document_id, i, encoder.encode(block)) for i, block in enumerate(blocks)),
            )
            first = self._put_chunks(db, document_id, chunks, vectors)
            db.execute(
                "UPDATE documents SET blocks = ?, chunks = ?, first_chunk = ?, tokens = ? WHERE id = ?",
                (len(blocks), len(chunks), first, sum(chunk.length for chunk in chunks), document_id),
            )
        return document_id

    def _put_entry(self, db: apsw.Connection, entry: Entry, document_id: int | None) -> int:
        values = msgspec.structs.asdict(entry) | {"warnings": msgspec.json.encode(entry.warnings).decode()}
        values["name"] = _free_name(db, entry.name, entry.path, document_id)
        if document_id is not None:
            assignments = ", ".join(f"{name} = :{name}" for name in values)
            db.execute(f"UPDATE documents SET {assignments} WHERE id = :id", values | {"id": document_id})
            return document_id
        columns, places = ", ".join(values), ", ".join(f":{name}" for name in values)
        db.execute(f"INSERT INTO documents ({columns}) VALUES ({places})", values)
        return db.last_insert_rowid()

    def _put_chunks(
        self, db: apsw.Connection, document_id: int, chunks: Sequence[ChunkRow], vectors: Vectors
    ) -> int:
        last = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'chunks'").fetchone()
        first = last[0] + 1 if last else 1
        halves = vectors.astype("<f2")
        db.executemany(
            "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    first + i, document_id, c.first_block, c.blocks, c.start, c.stop, c.page,
                    msgspec.msgpack.encode(c.headings), c.text_hash, halves[i].tobytes(),
                )
                for i, c in enumerate(chunks)
            ),
        )  # fmt: skip
        db.executemany(
            "INSERT INTO words (rowid, context, body) VALUES (?, ?, ?)",
            ((first + i, c.context, c.body) for i, c in enumerate(chunks)),
        )
        return first if chunks else 0

    def _clear(self, db: apsw.Connection, document_id: int) -> None:
        db.execute(
            "DELETE FROM words WHERE rowid IN (SELECT id FROM chunks WHERE document_id = ?)", (document_id,)
        )
        db.execute("DELETE FROM chunks WHERE document_id = ?", (document_id,))
        db.execute("DELETE FROM blocks WHERE document_id = ?", (document_id,))

    def touch(
        self,
        document_id: int,
        *,
        key: str,
        name: str,
        path: str,
        root: str,
        mtime_ns: int,
        title: str | None = None,
    ) -> None:
        """Note that an unchanged document has another date, or another name and path."""
        with self.writing() as db:
            db.execute(
                "UPDATE documents SET key = ?, name = ?, path = ?, root = ?, mtime_ns = ? WHERE id = ?",
                (key, _free_name(db, name, path, document_id), path, root, mtime_ns, document_id),
            )
            if title is not None:
                db.execute("UPDATE documents SET title = ? WHERE id = ?", (title, document_id))

    def remove(self, document_ids: Iterable[int]) -> None:
        with self.writing() as db:
            for document_id in document_ids:
                self._clear(db, document_id)
                db.execute("DELETE FROM documents WHERE id = ?", (document_id,))

    # -- reading

    def documents(self) -> list[DocumentInfo]:
        with self.reading() as db:
            return [_info(row) for row in db.execute(f"SELECT {_INFO} FROM documents ORDER BY name")]

    def document(self, document: int | str) -> DocumentInfo | None:
        """By id or by shown name."""
        column = "id" if isinstance(document, int) else "name"
        with self.reading() as db:
            row = db.execute(f"SELECT {_INFO} FROM documents WHERE {column} = ?", (document,)).fetchone()
        return _info(row) if row else None

    def known(self) -> list[Known]:
        fields = ", ".join(Known.__struct_fields__)
        with self.reading() as db:
            return [Known(*row) for row in db.execute(f"SELECT {fields} FROM documents")]

    def same_content(self, sha256: str) -> list[Known]:
        fields = ", ".join(Known.__struct_fields__)
        with self.reading() as db:
            return [
                Known(*row)
                for row in db.execute(f"SELECT {fields} FROM documents WHERE sha256 = ?", (sha256,))
            ]

    def unread(self) -> list[Unread]:
        with self.reading() as db:
            rows = db.execute("SELECT name, error, code FROM documents WHERE status = 'failed' ORDER BY name")
            return [Unread(*row) for row in rows]

    def blocks(self, document_id: int, start: int, limit: int | None) -> list[Block]:
        stop = 2**62 if limit is None else start + limit
        with self.reading() as db:
            rows = db.execute(_BLOCKS, (document_id, start, stop))
            return [_block(data) for (data,) in rows]

    def chunks(self, ids: Sequence[int]) -> dict[int, StoredChunk]:
        """Chunks by id; one that has gone meanwhile is absent."""
        found = {}
        with self.reading() as db:
            for chunk_id in ids:
                row = db.execute(
                    "SELECT c.document_id, d.name, d.title, c.first_block, c.blocks, c.start, c.stop,"
                    " c.headings, c.text_hash"
                    " FROM chunks c JOIN documents d ON d.id = c.document_id WHERE c.id = ?",
                    (chunk_id,),
                ).fetchone()
                if row is None:
                    continue
                document_id, name, title, first, count, start, stop, headings, text_hash = row
                rows = db.execute(_BLOCKS, (document_id, first, first + count))
                found[chunk_id] = StoredChunk(
                    id=chunk_id, document_id=document_id, document=name, title=title, first_block=first,
                    blocks=tuple(_block(data) for (data,) in rows), start=start, stop=stop,
                    headings=msgspec.msgpack.decode(headings, type=tuple[str, ...]), text_hash=text_hash,
                )  # fmt: skip
        return found

    def match(
        self, expression: str, limit: int, weights: tuple[float, float], within: tuple[int, int] | None = None
    ) -> list[tuple[int, float]]:
        """(chunk id, FTS5's BM25) of the chunks that match best, best first; greater is better.

        weights  of the context, and of the body
        within   (first chunk id, number of chunks): only among these
        """
        first, count = within or (1, 2**62)
        with self.reading() as db:
            rows = db.execute(
                "SELECT rowid, -bm25(words, ?, ?) AS score FROM words WHERE words MATCH ?"
                " AND rowid BETWEEN ? AND ? ORDER BY score DESC LIMIT ?",
                (*weights, expression, first, first + count - 1, limit),
            )
            return [(rowid, score) for rowid, score in rows]

    def word_counts(self, terms: Iterable[str]) -> dict[str, int]:
        """In how many chunks each term stands."""
        with self.reading() as db:
            counts = {}
            for term in terms:
                row = db.execute("SELECT doc FROM word_counts WHERE term = ?", (term,)).fetchone()
                counts[term] = row[0] if row else 0
            return counts

    def average_length(self) -> float:
        """Tokens of a chunk that are no function words, on average."""
        with self.reading() as db:
            row = db.execute("SELECT total(tokens), sum(chunks) FROM documents").fetchone()
            assert row is not None
            return float(row[0] / row[1]) if row[1] else 0.0

    def counts(self) -> tuple[int, int, int, str | None]:
        """(ready documents, failed documents, chunks, time of the last addition)"""
        with self.reading() as db:
            row = db.execute(
                "SELECT count(*) FILTER (WHERE status = 'ready'), count(*) FILTER (WHERE status = 'failed'),"
                " coalesce(sum(chunks), 0), max(added_at) FROM documents"
            ).fetchone()
            assert row is not None
            return row[0], row[1], row[2], row[3]

    def chunk_runs(self) -> dict[int, tuple[int, int]]:
        """document id -> (first chunk id, number of chunks), of every document that has chunks."""
        with self.reading() as db:
            return {
                document_id: (first, count)
                for document_id, first, count in db.execute(
                    "SELECT id, first_chunk, chunks FROM documents WHERE chunks > 0"
                )
            }

    def chunk_run(self, document_id: int) -> tuple[int, int]:
        """(first chunk id, number of chunks) of one document; (0, 0) if it has none."""
        with self.reading() as db:
            row = db.execute(
                "SELECT first_chunk, chunks FROM documents WHERE id = ?", (document_id,)
            ).fetchone()
            return (row[0], row[1]) if row else (0, 0)

    def chunks_on_page(self, document_id: int, page: int) -> list[int]:
        """The chunks of a document that begin on that page or slide, or on the one before and reach into
        it."""
        with self.reading() as db:
            rows = db.execute(
                "SELECT id FROM chunks WHERE document_id = ? AND page BETWEEN ? AND ? ORDER BY id",
                (document_id, page - 1, page),
            )
            return [row[0] for row in rows]

    def vectors(self, first: int, count: int, dimensions: int) -> tuple[npt.NDArray[np.int64], Vectors]:
        """Ids and vectors of the chunks from id `first` on, `count` of them at most."""
        with self.reading() as db:
            rows = db.execute(
                "SELECT id, vector FROM chunks WHERE id >= ? AND id < ? ORDER BY id", (first, first + count)
            ).fetchall()
        ids = np.array([row[0] for row in rows], np.int64)
        stored: list[Any] = [row[1] for row in rows]
        joined = b"".join(stored)
        if len(joined) != len(rows) * dimensions * 2:
            raise StorageError(
                f"{self.path} holds vectors that are not of {dimensions} numbers each.",
                hint="It is damaged: restore it from a copy, or add the documents to a new knowledge base.",
            )
        return ids, np.frombuffer(joined, "<f2").astype(np.float32).reshape(len(rows), dimensions)

    def integrity(self) -> list[str]:
        """What SQLite's own check complains of; [] when all is well."""
        with self.reading() as db:
            said = [str(row[0]) for row in db.execute("PRAGMA integrity_check")]
            return [] if said == ["ok"] else said


def _info(row: Sequence[Any]) -> DocumentInfo:
    values = list(row)
    values[12] = msgspec.json.decode(values[12], type=list[str])
    return DocumentInfo(*values)


_decoder = msgspec.msgpack.Decoder(Block)


def _block(data: bytes) -> Block:
    return _decoder.decode(data)


def _free_name(db: apsw.Connection, name: str, path: str, document_id: int | None) -> str:
    """`name`, or a longer form of it that no other document bears: with more of its path, then with a
    number."""
    parents = [part for part in Path(path).parent.parts if part != "/"][::-1]
    candidate, number = name, 1
    depth = len(Path(name).parts) - 1
    while True:
        row = db.execute("SELECT id FROM documents WHERE name = ?", (candidate,)).fetchone()
        if row is None or row[0] == document_id:
            return candidate
        if depth < len(parents):
            candidate = f"{parents[depth]}/{candidate}"
            depth += 1
        else:
            number += 1
            candidate = f"{name} ({number})"
