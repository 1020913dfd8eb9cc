"""Sentences over the edge of a page or a column are whole; list items stand at their level.

The oracle is the author of each file: the blind text of LaTeX's blindtext package and lipsum is known, and so
is which answers belong to which question of a questionnaire.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quinze.knowledge.document import Block, BlockKind, Box, Place
from quinze.knowledge.readers.pdf_breaks import mend, nest
from quinze.knowledge.readers.workers import Readers


def test_a_sentence_over_the_foot_of_a_page_stands_on_the_page_where_it_begins(
    readers: Readers, shared: Callable[[str], Path]
) -> None:
    path = next(shared("data/documents/py-pdf").rglob("pdflatex-4-pages.pdf"))
    document = readers.read(path)
    for page, sentence in (
        (1, "If you read this text, you will get no information."),
        (2, "gives you information about the selected font, how the letters are written and an"),
        (3, "all letters of the alphabet and it should be written in of the original language."),
    ):  # fmt: skip
        assert any(sentence in block.text for block in document.blocks if block.place.page == page)
    assert {block.place.page for block in document.blocks} == {1, 2, 3, 4}


def test_a_paragraph_over_the_foot_of_a_column_is_one_with_a_box_in_each(
    readers: Readers, shared: Callable[[str], Path], one: Callable[..., Block]
) -> None:
    path = next(shared("data/documents/py-pdf").rglob("multicolumn.pdf"))
    block = one(readers.read(path), "Donec nonummy pellentesque ante.")
    left, right = block.place.boxes
    assert left.right < 0.55 < right.right
    assert right.top < left.top


def test_answers_stand_a_level_below_their_question(readers: Readers, shared: Callable[[str], Path]) -> None:
    path = shared("data/documents/docling/pdf/sources/table_mislabeled_as_picture.pdf")
    items = [block for block in readers.read(path).blocks if block.kind is BlockKind.LIST_ITEM]
    at = next(i for i, item in enumerate(items) if item.text.startswith("24."))
    assert [item.level for item in items[at : at + 5]] == [1, 2, 2, 2, 2]


def paragraph(text: str, page: int) -> Block:
    return Block(BlockKind.PARAGRAPH, text, Place(page=page, boxes=(Box(0.1, 0.8, 0.9, 0.9),)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("It ends on this page, as all good paragraphs do.", "and this one begins small."),
        ("A heading of no great length", "and what follows."),
        ("Lines that stop without a mark, as in an address of", "Someone Else, Another Road 5"),
    ],
)
def test_what_is_whole_is_left_alone(before: str, after: str) -> None:
    blocks = [paragraph(before, 1), paragraph(after, 2)]
    assert mend(blocks) == blocks


def test_footers_between_do_not_matter_and_the_rest_stays_on_its_page() -> None:
    foot = Block(BlockKind.PARAGRAPH, "12", Place(page=1, part="footer"))
    begun = "水泵每运行两千五百小时或者运行满十八个月之后，必须由经过培训的技术人员进行一次全面的"
    blocks = [paragraph(begun, 1), foot, paragraph("保养。以先到者为准。", 2)]
    texts = [(block.text, block.place.page) for block in mend(blocks)]
    assert texts == [(blocks[0].text + "保养。", 1), ("12", 1), ("以先到者为准。", 2)]


WORDS = st.lists(
    st.sampled_from(["bread", "dough.", "It", "Why?", "oven", "的", "。"]), min_size=1, max_size=30
)


@given(st.lists(st.tuples(WORDS.map(" ".join), st.integers(1, 3)), max_size=8))
def test_no_word_is_lost_or_moved_past_another(pieces: list[tuple[str, int]]) -> None:
    blocks = [paragraph(text, page) for text, page in sorted(pieces, key=lambda piece: piece[1])]
    assert letters(mend(blocks)) == letters(blocks)


def letters(blocks: list[Block]) -> str:
    return "".join("".join(block.text.split()) for block in blocks)


@given(st.lists(st.floats(0.05, 0.6), max_size=12))
def test_levels_never_jump_and_deeper_is_further_right(lefts: list[float]) -> None:
    items = [
        Block(
            BlockKind.LIST_ITEM,
            "x",
            Place(page=1, boxes=(Box(left, 0.01 * n, 0.9, 0.01 * n + 0.01),)),
            level=1,
        )
        for n, left in enumerate(lefts)
    ]
    levels = [item.level for item in nest(items)]
    for at in range(1, len(levels)):
        assert levels[at] <= levels[at - 1] + 1
        assert levels[at] <= levels[at - 1] or lefts[at] > lefts[at - 1]
