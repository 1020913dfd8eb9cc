"""What is indexed of a document: the tokens and the text of each chunk, with what stands above it.

A chunk is found by its own words and by those of its file's name, its title and its headings, which are kept
in a column of their own. Knows nothing of the store beyond the rows that it takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import PurePosixPath

import msgspec

from quinze.knowledge.chunking import Chunk
from quinze.knowledge.document import Document
from quinze.knowledge.fulltext import Analyzer
from quinze.knowledge.ranking import is_function_word
from quinze.knowledge.stores.records import ChunkRow


def context_text(name: str, title: str, headings: Sequence[str]) -> str:
    """What stands above a chunk and is indexed with it: the file's name, the title, the headings."""
    stem = PurePosixPath(name).stem
    return "\n".join(dict.fromkeys(part for part in (stem, title, *headings) if part))


def indexed_texts(name: str, document: Document, chunks: Sequence[Chunk]) -> list[str]:
    """What is embedded of each chunk: what stands above it, then its own text."""
    return [f"{context_text(name, document.title, chunk.headings)}\n{chunk.body}" for chunk in chunks]


def chunk_rows(name: str, document: Document, chunks: Sequence[Chunk], analyzer: Analyzer) -> list[ChunkRow]:
    """Each chunk as the store takes it, with its tokens."""
    rows = []
    contexts: dict[tuple[str, ...], str] = {}
    for chunk in chunks:
        if chunk.headings not in contexts:
            context = analyzer.tokens(context_text(name, document.title, chunk.headings))
            contexts[chunk.headings] = " ".join(context)
        tokens = analyzer.tokens(chunk.body)
        body = " ".join(tokens)
        digest = hashlib.blake2b(body.encode(), digest_size=8).digest()
        part = chunk.pieces[0]
        place = document.blocks[part.block].place
        row = ChunkRow(
            first_block=chunk.first_block,
            blocks=len(chunk.pieces),
            start=part.start,
            stop=part.end,
            headings=chunk.headings,
            context=contexts[chunk.headings],
            body=body,
            page=place.page or place.slide,
            length=sum(not is_function_word(token) for token in tokens),
            text_hash=int.from_bytes(digest, "little", signed=True),
        )
        rows.append(row)
    return rows


def sayable(document: Document) -> Document:
    """The document without lone surrogates, which no database stores."""
    try:
        msgspec.msgpack.encode(document)
    except UnicodeEncodeError:
        pass
    else:
        return document
    blocks = tuple(
        msgspec.structs.replace(
            block,
            text=_sayable(block.text),
            cells=tuple(map(_sayable, block.cells)),
            header=tuple(map(_sayable, block.header)),
            place=msgspec.structs.replace(block.place, heading=tuple(map(_sayable, block.place.heading))),
        )
        for block in document.blocks
    )
    return msgspec.structs.replace(document, blocks=blocks, title=_sayable(document.title), properties={})


def _sayable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
