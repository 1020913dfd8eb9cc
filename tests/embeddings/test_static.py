"""The static embedder: the sum that it says it computes, alone or among others, and files that do not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tokenizers

import quinze.starter
from quinze.embeddings.folding import fold
from quinze.embeddings.loading import STARTER, load_embedder
from quinze.embeddings.static import BATCH_PIECES, StaticEmbedder
from quinze.errors import FileFormatError

STARTER_FOLDER = Path(quinze.starter.__file__).parent / "embedder"
TEXTS = [
    "The warranty covers repairs for three years.",
    "保修期为三年。",
    "",
    "…!?",
    "Ｃａｆé 臺灣 12345",
    "word " * 5000,
    "\ud800 broken",
]


def by_hand(text: str) -> np.ndarray:
    """As the module's first lines say it, piece by piece, in float64."""
    backend = tokenizers.Tokenizer.from_file(str(STARTER_FOLDER / "tokenizer.json"))
    vectors, scales = np.load(STARTER_FOLDER / "vectors.npy"), np.load(STARTER_FOLDER / "scales.npy")
    total = np.zeros(vectors.shape[1])
    for piece in backend.encode(fold(text.replace("\ud800", "")), add_special_tokens=False).ids:
        if piece:
            total += vectors[piece].astype(np.float64) * float(scales[piece])
    length = np.linalg.norm(total)
    return total / length if length else total


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_a_vector_is_the_mean_of_the_pieces_brought_to_length_one(text: str) -> None:
    found = load_embedder("starter").embed([text])[0]
    np.testing.assert_allclose(found, by_hand(text), atol=2e-5)


def test_a_text_has_the_same_vector_alone_and_among_others() -> None:
    starter = load_embedder(STARTER)
    many = TEXTS * (BATCH_PIECES // 5000)
    together = starter.embed(many)
    for text, vector in zip(TEXTS, together[-len(TEXTS) :], strict=True):
        np.testing.assert_allclose(starter.embed([text])[0], vector, atol=1e-6)
    assert starter.embed([]).shape == (0, 256)


def test_words_of_the_same_meaning_are_near_across_the_languages() -> None:
    starter = load_embedder("starter")
    questions = starter.embed_queries(["工作流节点", "知识库检索", "医生的权利"])
    passages = starter.embed(
        ["workflow node", "retrieval from the knowledge base", "医师在执业活动中享有下列权利", "a sunny day"]
    )
    assert (questions @ passages.T).argmax(axis=1).tolist() == [0, 1, 2]


def test_the_card_tells_the_truth_about_its_id() -> None:
    assert json.loads((STARTER_FOLDER / "card.json").read_text("utf-8"))["id"] == STARTER
    assert load_embedder("starter").id == STARTER


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _pickle(path: Path) -> None:
    np.save(path, np.array([object()]), allow_pickle=True)


DAMAGE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "cut off vectors": ("vectors.npy", _cut),
    "a pickle": ("vectors.npy", _pickle),
    "float vectors": ("vectors.npy", lambda path: np.save(path, np.zeros((8, 4)))),
    "other vectors": ("vectors.npy", lambda path: np.save(path, np.zeros((8, 4), np.int8))),
    "scales that are none": ("scales.npy", lambda path: np.save(path, np.full(40_000, np.nan, "<f2"))),
    "no tokenizer": ("tokenizer.json", lambda path: path.write_text("{}")),
    "no card": ("card.json", Path.unlink),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_folder_is_named(what: str, tmp_path: Path) -> None:
    shutil.copytree(STARTER_FOLDER, tmp_path / "embedder")
    name, damage = DAMAGE[what]
    damage(tmp_path / "embedder" / name)
    with pytest.raises(FileFormatError):
        StaticEmbedder(tmp_path / "embedder")
