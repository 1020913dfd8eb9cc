"""Chunks: together they are the document, apart each is a passage that can be cited."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from quinze.knowledge.chunking import ChunkSizes, chunk_document, cut, span
from quinze.knowledge.document import Block, BlockKind, Box, Document, Place
from quinze.knowledge.sentences import estimate_tokens

SIZES = ChunkSizes()
WORDS = st.sampled_from(
    [
        "bread",
        "dough",
        "e.g. ",
        "3.5",
        "Why?",
        "It ends.",
        "好。",
        "面包",
        "！",
        "；",
        "\n",
        "\n\n",
        "- item\n",
        " ",
        "x" * 60,
    ]
)
TEXT = st.lists(WORDS, min_size=1, max_size=60).map(" ".join).filter(str.strip)
LONG = st.tuples(TEXT, st.integers(1, 30)).map(lambda pair: pair[0] * pair[1])
HEADER = st.sampled_from([(), ("name", "price"), ("a", "b", "c")])


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    kind = draw(st.sampled_from(list(BlockKind)))
    text = draw(LONG if kind is not BlockKind.HEADING else TEXT)
    lines = draw(st.none() | st.integers(1, 500))
    place = Place(
        page=draw(st.none() | st.integers(1, 3)),
        slide=draw(st.none() | st.integers(1, 2)),
        sheet=draw(st.none() | st.sampled_from(["A", "B"])),
        table=draw(st.none() | st.integers(1, 2)),
        heading=draw(st.sampled_from([(), ("One",), ("One", "Two")])),
        lines=(lines, lines + text.count("\n")) if lines else None,
    )
    header = draw(HEADER) if kind is BlockKind.TABLE_ROW else ()
    cells = tuple(f"{text[:20]} {i}" for i, _ in enumerate(header))
    return Block(kind, text, place, level=draw(st.integers(0, 3)), header=header, cells=cells)


documents = st.lists(blocks(), max_size=25).map(lambda found: Document("text", tuple(found), title="T"))


@settings(max_examples=150, deadline=None)
@given(documents)
def test_joined_the_chunks_are_the_document(document: Document) -> None:
    """Every character of every block is in exactly one chunk, in order."""
    texts: dict[int, list[str]] = {}
    for chunk in chunk_document(document):
        for piece in chunk.pieces:
            texts.setdefault(piece.block, []).append(cut(document.blocks[piece.block], piece).text)
    assert list(texts) == list(range(len(document.blocks)))
    assert ["".join(parts) for parts in texts.values()] == [block.text for block in document.blocks]


@settings(max_examples=150, deadline=None)
@given(documents)
def test_no_chunk_is_too_long_nor_crosses_a_sheet_or_a_slide(document: Document) -> None:
    for chunk in chunk_document(document):
        own = [cut(document.blocks[piece.block], piece) for piece in chunk.pieces]
        longest = SIZES.row_most if own[0].kind is BlockKind.TABLE_ROW else SIZES.most
        # A heading's own text and the block that it stands over may together go beyond.
        assert sum(estimate_tokens(block.text) for block in own) <= longest + SIZES.most
        assert len({(block.place.sheet, block.place.slide) for block in own}) == 1
        # One that is a part is alone, and its lines are those of its text.
        if any(piece.end is not None for piece in chunk.pieces):
            assert len(own) == 1
            whole = document.blocks[chunk.first_block]
            if own[0].place.lines and whole.place.lines:
                first, last = own[0].place.lines
                assert whole.place.lines[0] <= first <= last <= whole.place.lines[1]
                lines = whole.text.split("\n")[first - whole.place.lines[0] : last - whole.place.lines[0] + 1]
                assert own[0].text.rstrip("\n") in "\n".join(lines) + "\n"


@settings(max_examples=100, deadline=None)
@given(documents)
def test_rows_of_two_tables_and_running_text_are_never_mixed(document: Document) -> None:
    for chunk in chunk_document(document):
        own = [document.blocks[piece.block] for piece in chunk.pieces]
        rows = [block for block in own if block.kind is BlockKind.TABLE_ROW]
        others = [block for block in own if block.kind not in (BlockKind.TABLE_ROW, BlockKind.HEADING)]
        assert not (rows and others)
        assert len({(row.header, row.place.table) for row in rows}) <= 1


def row(number: int, *cells: str) -> Block:
    place = Place(sheet="Prices", cells=f"A{number}:B{number}", row=number)
    return Block(
        BlockKind.TABLE_ROW, " | ".join(cells), place, cells=cells, header=("Article", "Price (EUR)")
    )


def test_the_names_of_the_columns_are_indexed_with_every_row() -> None:
    document = Document("xlsx", tuple(row(n, f"bolt M{n}", f"{n}.50") for n in range(2, 5)))
    (chunk,) = chunk_document(document)
    assert chunk.body.splitlines()[0] == "Article: bolt M2; Price (EUR): 2.50"
    assert span(document.blocks).cells == "A2:B4"
    assert document.blocks[0].text == "bolt M2 | 2.50"


def test_a_long_table_becomes_small_chunks_of_whole_rows() -> None:
    document = Document("xlsx", tuple(row(n, f"bolt of size {n}", f"{n}.50") for n in range(2, 300)))
    chunks = chunk_document(document)
    assert all(piece.end is None for chunk in chunks for piece in chunk.pieces)
    assert max(len(chunk.pieces) for chunk in chunks) <= 30


def test_a_section_begins_a_chunk_and_its_heading_stays_with_it() -> None:
    text = "A sentence that says something about the matter at hand. " * 15
    headings = [("Guide", "One"), ("Guide", "Two")]
    parts = [
        block
        for path in headings
        for block in (
            Block(BlockKind.HEADING, path[-1], Place(heading=path), level=2),
            Block(BlockKind.PARAGRAPH, text, Place(heading=path)),
        )
    ]
    chunks = chunk_document(Document("markdown", tuple(parts)))
    assert [chunk.first_block for chunk in chunks] == [0, 2]
    assert [chunk.headings for chunk in chunks] == [("Guide",), ("Guide",)]


def test_a_long_paragraph_is_cut_between_sentences() -> None:
    sentence = "第三条规定了合同双方的权利和义务，任何一方不得擅自变更。"
    chunks = chunk_document(Document("text", (Block(BlockKind.PARAGRAPH, sentence * 60, Place()),)))
    assert len(chunks) > 3
    assert all(chunk.body.startswith("第三条") and chunk.body.endswith("。") for chunk in chunks)


def test_several_places_become_one_that_says_where_they_agree() -> None:
    box = Box(0.1, 0.2, 0.3, 0.4)
    first = Place(page=3, heading=("A", "B"), lines=(4, 6), boxes=(box,))
    second = Place(page=4, heading=("A", "C"), lines=(7, 9), boxes=(box,))
    whole = span([Block(BlockKind.PARAGRAPH, "x", first), Block(BlockKind.PARAGRAPH, "y", second)])
    assert whole == Place(page=3, heading=("A",), lines=(4, 9), boxes=(box,))


def test_a_passage_without_headings_says_at_which_paragraph_it_begins() -> None:
    texts = [Block(BlockKind.PARAGRAPH, "x", Place(paragraph=n)) for n in (12, 13)]
    assert span(texts).label() == "paragraph 12"
    under = [Block(BlockKind.HEADING, t, Place(paragraph=n, heading=(t,))) for n, t in ((3, "A"), (4, "B"))]
    assert span(under).label() == "paragraph 3"
