"""Sentences, in Chinese and English."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quinze.knowledge.sentences import estimate_tokens, sentence_spans, sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dough rises. Then it rests.", ["Dough rises.", "Then it rests."]),
        ("Dr. Li paid 3.50, e.g. in Rome. Mr. Wu left.", ["Dr. Li paid 3.50, e.g. in Rome.", "Mr. Wu left."]),
        ("See Fig. 3 of J. Smith et al. for more.", ["See Fig. 3 of J. Smith et al. for more."]),
        ("他来了。“真的吗？”她问。是的！", ["他来了。", "“真的吗？”", "她问。", "是的！"]),
        ("为3.5度；湿度为40%。Open file.txt now.", ["为3.5度；", "湿度为40%。", "Open file.txt now."]),
        ('He said "stop." Nobody did.', ['He said "stop."', "Nobody did."]),
        ("First line\n\nSecond paragraph", ["First line", "Second paragraph"]),
        ("To buy:\n- flour\n- salt\n1. mix", ["To buy:", "- flour", "- salt", "1. mix"]),
        ("Is it? Yes! Good...  Fine.", ["Is it?", "Yes!", "Good...", "Fine."]),
        ("", []),
    ],
)  # fmt: skip
def test_sentences_end_where_a_reader_ends_them(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@settings(deadline=None)
@given(st.text())
def test_spans_follow_each_other_without_a_gap(text: str) -> None:
    spans = sentence_spans(text)
    assert "".join(text[start:end] for start, end in spans) == text
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(spans))


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("面包", 2), ("bread and salt.", 4), ("x" * 80, 10)])
def test_tokens_are_estimated_by_characters_and_words(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens
