"""The hashing embedder: alike spellings, alike vectors; the same numbers everywhere."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quinze.embeddings.folding import fold
from quinze.embeddings.han import SIMPLIFIED, TRADITIONAL
from quinze.embeddings.hashing import BATCH_CHARACTERS, HashingEmbedder
from quinze.embeddings.loading import load_embedder
from quinze.errors import InvalidRequestError

EMBEDDER = HashingEmbedder()


def likeness(a: str, b: str) -> float:
    left, right = EMBEDDER.embed([a, b])
    return float(left @ right)


@settings(deadline=None)
@given(st.lists(st.text(), max_size=8))
def test_every_vector_has_length_one_or_is_zero(texts: list[str]) -> None:
    vectors = EMBEDDER.embed(texts)
    assert vectors.shape == (len(texts), 512)
    assert vectors.dtype == np.float32
    norms = np.linalg.norm(vectors, axis=1)
    assert all(abs(norm - 1) < 1e-5 or norm == 0 for norm in norms)


@settings(deadline=None)
@given(st.lists(st.text(min_size=1), min_size=1, max_size=6))
def test_a_text_has_the_same_vector_in_any_company(texts: list[str]) -> None:
    together = EMBEDDER.embed(texts)
    alone = np.concatenate([EMBEDDER.embed([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_more_than_a_batch_is_the_same_as_its_parts() -> None:
    texts = [f"text number {i} 第{i}段文字" * 40 for i in range(300)]
    assert sum(map(len, texts)) > 2 * BATCH_CHARACTERS
    np.testing.assert_allclose(
        EMBEDDER.embed(texts), np.concatenate([EMBEDDER.embed([t]) for t in texts]), atol=1e-6
    )


@pytest.mark.parametrize(
    ("near", "text", "far"),
    [
        ("the dough is provng overnigth", "The dough is proving overnight.", "the train leaves at eight"),
        ("refund of the deposit", "the deposit is refunded", "the weather is fine"),
        ("面团发酵", "面团需要发酵九十分钟", "列车上午八点出发"),
        ("臺灣的資料庫", "台湾的资料库", "日本的铁路"),
        ("ＡＢＣ１２３", "abc123", "xyz789"),
        ("Café Zürich", "cafe zurich", "bar berlin"),
    ],
)
def test_what_is_spelled_alike_is_near(near: str, text: str, far: str) -> None:
    assert likeness(near, text) > likeness(far, text) + 0.25


def test_unrelated_texts_are_about_orthogonal() -> None:
    texts = ["bread dough", "quantum theory", "railway timetable", "量子力学", "面包制作", "铁路时刻表"]
    vectors = EMBEDDER.embed(texts)
    assert np.abs(vectors @ vectors.T - np.eye(len(texts))).max() < 0.25


def test_another_process_computes_the_same() -> None:
    """Nothing depends on the seed of Python's own hash."""
    texts = ["The dough is proving. 面团正在发酵。", "max_tokens=3"]
    program = (
        "import sys; from quinze.embeddings.hashing import HashingEmbedder;"
        f" sys.stdout.buffer.write(HashingEmbedder().embed({texts!r}).tobytes())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    other = np.frombuffer(done.stdout, np.float32).reshape(2, 512)
    np.testing.assert_allclose(other, EMBEDDER.embed(texts), atol=1e-6)


STRONGEST = [416, 443, 256, 236, 155]
VALUES = [-0.3319, 0.3319, 0.3319, -0.3319, -0.3319]


def test_the_numbers_are_those_of_version_1() -> None:
    """Stored vectors are compared with new ones for years: a change here needs another VERSION."""
    (vector,) = EMBEDDER.embed(["The dough is proving. 面团正在发酵。"])
    strongest = np.argsort(-np.abs(vector))[:5]
    assert strongest.tolist() == STRONGEST
    np.testing.assert_allclose(vector[strongest], VALUES, atol=1e-4)


def test_tokens_are_words_and_characters() -> None:
    assert EMBEDDER.count_tokens("Hello, 世界! max_tokens") == 4


def test_an_unknown_embedder_is_named() -> None:
    assert load_embedder("hashing").id == load_embedder("hashing-v1-512").id == "hashing-v1-512"
    with pytest.raises(InvalidRequestError, match="word2vec"):
        load_embedder("word2vec")


def test_simplified_characters_are_final() -> None:
    """Folding twice is folding once, and no character has two simplified forms."""
    assert len(set(TRADITIONAL)) == len(TRADITIONAL) == len(SIMPLIFIED)
    assert not set(TRADITIONAL) & set(SIMPLIFIED)


@settings(deadline=None)
@given(st.text())
def test_folding_twice_is_folding_once(text: str) -> None:
    once = fold(text)
    assert fold(once) == once
