"""Invisible characters cannot smuggle words in, and scripts that need joiners keep them."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quinze.knowledge.document import Block, BlockKind, Document, Place
from quinze.knowledge.readers.hidden import visible, visible_document


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("in\u200bvis\u2060ible", "invisible"), ("a\u202egnp.exe", "agnp.exe"), ("\ufeffstart", "start"),
        ("so\xadft", "soft"), ("bell\x07 \x1b[31mred", "bell [31mred"), ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
        ("tab\tstays", "tab\tstays"), ("half \ud83d pair", "half  pair"),
        ("hi" + "".join(chr(0xE0000 + ord(c)) for c in "do evil"), "hi"),
        ("x" + "".join(chr(0xE0100 + n) for n in (3, 9, 200)), "x"), ("a\u200c\u200d\u200db", "ab"),
        ("می\u200cخواهم", "می\u200cخواهم"), ("क्\u200dष", "क्\u200dष"),
        ("👩\u200d🔬", "👩\u200d🔬"), ("❤\ufe0f", "❤\ufe0f"),
        ("中文，标点。", "中文，标点。"), ("e\u0301", "e\u0301"),
    ],
)  # fmt: skip
def test_what_is_seen_stays_and_what_is_not_goes(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_a_second_look_changes_nothing_and_no_letter_is_lost(text: str) -> None:
    once = visible(text)
    assert visible(once) == once
    kept = ("L", "N", "P", "S")
    letters = [
        each
        for each in text
        if unicodedata.category(each)[0] in kept and each not in "\u115f\u1160\u3164\uffa0"
    ]
    assert [each for each in once if unicodedata.category(each)[0] in kept] == letters


@given(st.text(max_size=50))
def test_every_text_can_be_stored_afterwards(text: str) -> None:
    visible(text).encode("utf-8")


def test_places_cells_and_titles_are_cleaned_too_and_empty_blocks_go() -> None:
    place = Place(sheet="Pr\u200bices", heading=("A\u2060",))
    document = visible_document(
        Document(
            "xlsx",
            (
                Block(
                    BlockKind.TABLE_ROW, "a\u200b | b", place, cells=("a\u200b", "b"), header=("x\ufeff", "y")
                ),
                Block(BlockKind.PARAGRAPH, "\u200b\u2060", Place()),
            ),
            title="T\u200b",
        )
    )
    (row,) = document.blocks
    assert (row.text, row.cells, row.header) == ("a | b", ("a", "b"), ("x", "y"))
    assert (row.place.sheet, row.place.heading, document.title) == ("Prices", ("A",), "T")
