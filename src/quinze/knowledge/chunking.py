"""From blocks to chunks: the passages that are searched, ranked and cited.

Neighbouring blocks are packed until a chunk has some 350 tokens. A chunk never crosses a sheet, a slide, a
chapter or another part of the document, begins anew at a heading, and holds either running text, or rows of
one table, or code. A table row is not cut, a definition of code only when it is very long, a paragraph
between sentences. No text is in two chunks and none in no chunk: joined, the chunks are the document.

What is *indexed* of a chunk is more than what it holds: the names of the columns stand before each cell, and
`context` repeats the document's title and the headings above, so that "price" finds a row whose cells are
numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from quinze.knowledge.document import Block, BlockKind, Box, Document, Place
from quinze.knowledge.sentences import estimate_tokens, sentence_spans


class ChunkSizes(msgspec.Struct, frozen=True):
    """All in estimated tokens."""

    target: int = 350
    """A chunk is closed when the next block would carry it beyond this."""
    most: int = 450
    """A block longer than this is split at its sentences or lines."""
    table: int = 160
    """Rows are packed up to this: few enough that one row stands out in its chunk."""
    row_most: int = 2000
    """A row longer than this, which is no row for a reader, is split like a paragraph."""
    section: int = 100
    """A section shorter than this may share its chunk with the next one under the same heading."""


class Piece(msgspec.Struct, frozen=True):
    """One block of a chunk, or the part of it from `start` to `end` (end None: the whole block)."""

    block: int
    start: int = 0
    end: int | None = None


class Chunk(msgspec.Struct, frozen=True):
    """A run of whole blocks, or a part of a single one."""

    pieces: tuple[Piece, ...]
    headings: tuple[str, ...]
    """Those that stand above its first block and are not themselves in it."""
    body: str
    """What is indexed of its blocks."""

    @property
    def first_block(self) -> int:
        return self.pieces[0].block


def chunk_document(document: Document, sizes: ChunkSizes | None = None) -> list[Chunk]:
    """The chunks of a document, in order. Every character of every block is in exactly one of them."""
    sizes = sizes or ChunkSizes()
    return [_finish(group, document.blocks) for group in _groups(document.blocks, sizes)]


def cut(block: Block, piece: Piece) -> Block:
    """The block that a piece stands for, its place narrowed to the lines it keeps where the block counts
    lines."""
    if piece.end is None:
        return block
    text = block.text[piece.start : piece.end]
    place = block.place
    lines = place.lines
    if lines and lines[1] - lines[0] == block.text.count("\n"):
        first = lines[0] + block.text.count("\n", 0, piece.start)
        last = first + text.rstrip("\n").count("\n")
        place = msgspec.structs.replace(place, lines=(first, last))
    return msgspec.structs.replace(block, text=text, cells=(), place=place)


def span(blocks: Sequence[Block]) -> Place:
    """The one place of several blocks: where they agree, that; of lines and cells, from the first to the
    last."""
    places = [block.place for block in blocks]
    first = places[0]
    if len(places) == 1:
        return first
    alike = {
        name: getattr(first, name)
        for name in ("slide", "sheet", "table", "row", "symbol", "chapter", "part")
        if all(getattr(place, name) == getattr(first, name) for place in places)
    }
    lines = [place.lines for place in places if place.lines]
    on_page = [box for place in places if place.page == first.page for box in place.boxes]
    return Place(
        page=first.page,
        # Where the blocks have nothing else in common, the first one still says where to look.
        paragraph=first.paragraph,
        cells=_cell_range([place.cells for place in places if place.cells]),
        lines=(min(a for a, _ in lines), max(b for _, b in lines)) if lines else None,
        heading=_common_heading([place.heading for place in places]),
        boxes=tuple(on_page) if len(on_page) <= 40 else (_around(on_page),),
        **alike,
    )


def indexed_text(block: Block) -> str:
    """A block as it is indexed: before each cell of a row, the name of its column."""
    if block.kind is not BlockKind.TABLE_ROW or not block.cells or not block.header:
        return block.text
    named = []
    for i, cell in enumerate(block.cells):
        name = block.header[i].strip() if i < len(block.header) else ""
        if cell.strip():
            named.append(f"{name}: {cell}" if name and name != cell else cell)
    return "; ".join(named)


# -- packing


def _groups(blocks: Sequence[Block], sizes: ChunkSizes) -> Iterator[list[Piece]]:
    group: list[Piece] = []
    size = 0
    for i, block in enumerate(blocks):
        tokens = estimate_tokens(block.text)
        if group and _must_break(blocks, group, i, size, tokens, sizes):
            yield group
            group, size = [], 0
        most = sizes.row_most if block.kind is BlockKind.TABLE_ROW else sizes.most
        if tokens > most:
            if group:
                yield group
                group, size = [], 0
            for start, end in _split(block, sizes.target):
                yield [Piece(i, start, end)]
            continue
        group.append(Piece(i))
        size += tokens
    if group:
        yield group


def _must_break(
    blocks: Sequence[Block], group: list[Piece], i: int, size: int, tokens: int, sizes: ChunkSizes
) -> bool:
    block, before = blocks[i], blocks[i - 1]
    if _room(block) != _room(before):
        return True
    only_headings = all(blocks[piece.block].kind is BlockKind.HEADING for piece in group)
    if only_headings:
        return size + tokens > sizes.most
    if block.kind is BlockKind.HEADING:
        first = blocks[group[0].block]
        outer = first.kind is BlockKind.HEADING and 0 < block.level < first.level
        return outer or size >= sizes.section
    if _substance(block.kind) != _substance(before.kind):
        return True
    if block.kind is BlockKind.TABLE_ROW:
        another = block.place.table != before.place.table or block.header != before.header
        return another or size + tokens > sizes.table
    if block.place.heading != before.place.heading and before.kind is not BlockKind.HEADING:
        return size >= sizes.section
    return size + tokens > sizes.target


def _room(block: Block) -> tuple[object, ...]:
    """What a chunk may not cross."""
    place = block.place
    return place.slide, place.sheet, place.chapter, place.part if place.slide is None else None


def _substance(kind: BlockKind) -> str:
    if kind in (BlockKind.TABLE_ROW, BlockKind.CODE):
        return kind.value
    return "text"


def _split(block: Block, target: int) -> Iterator[tuple[int, int]]:
    """Parts of a long block, of about `target` tokens: whole sentences, of code whole lines."""
    start = end = size = 0
    for a, b in _atoms(block, target):
        tokens = estimate_tokens(block.text[a:b])
        if end > start and size + tokens > target:
            yield start, end
            start, size = a, 0
        end = b
        size += tokens
    yield start, len(block.text)


def _atoms(block: Block, target: int) -> Iterator[tuple[int, int]]:
    spans = _lines(block.text) if block.kind is BlockKind.CODE else sentence_spans(block.text)
    for start, end in spans:
        # One token has at least one character, so this many characters are never too much.
        step = target if estimate_tokens(block.text[start:end]) > target else end - start
        for a in range(start, end, max(step, 1)):
            yield a, min(a + step, end)


def _lines(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for line in text.splitlines(keepends=True):
        yield start, start + len(line)
        start += len(line)


def _finish(group: list[Piece], blocks: Sequence[Block]) -> Chunk:
    own = [cut(blocks[piece.block], piece) for piece in group]
    headings = own[0].place.heading
    if own[0].kind is BlockKind.HEADING and headings and headings[-1] == own[0].text:
        headings = headings[:-1]
    return Chunk(tuple(group), headings, "\n".join(indexed_text(block) for block in own))


# -- places


def _cell_range(ranges: list[str]) -> str | None:
    if not ranges:
        return None
    first, last = ranges[0].split(":")[0], ranges[-1].split(":")[-1]
    return first if first == last else f"{first}:{last}"


def _common_heading(headings: list[tuple[str, ...]]) -> tuple[str, ...]:
    shortest = min(headings, key=len)
    for depth in range(len(shortest), 0, -1):
        if all(heading[:depth] == shortest[:depth] for heading in headings):
            return shortest[:depth]
    return ()


def _around(boxes: list[Box]) -> Box:
    return Box(
        min(box.left for box in boxes), min(box.top for box in boxes),
        max(box.right for box in boxes), max(box.bottom for box in boxes),
    )  # fmt: skip
