"""The vectors in memory are those of the store, whatever was added, replaced and removed, by whomever."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from quinze.knowledge.document import Block, BlockKind, Place
from quinze.knowledge.stores.records import ChunkRow, Entry
from quinze.knowledge.stores.sqlite import SQLiteStore
from quinze.knowledge.vector_index import VectorIndex

D = 8


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vectors.sqlite"


def put(store: SQLiteStore, name: str, vectors: np.ndarray) -> int:
    rows = [ChunkRow(0, 1, 0, None, (), "", "word", None, 1, i) for i in range(len(vectors))]
    entry = Entry(f"path:/{name}", name, f"/{name}", "", name, 0, 0, "ready", "")
    return store.put(entry, [Block(BlockKind.PARAGRAPH, "word", Place())], rows, vectors)


def test_after_any_changes_the_index_is_what_a_fresh_one_would_be(
    path: Path, rng: np.random.Generator
) -> None:
    chance = random.Random(15)
    store, other = SQLiteStore.create(path, {}), SQLiteStore(path)
    index = VectorIndex(D)
    expected: dict[int, np.ndarray] = {}
    for step in range(120):
        writer = chance.choice([store, other])
        if expected and chance.random() < 0.3:
            gone = chance.choice(list(expected))
            writer.remove([gone])
            del expected[gone]
        else:
            vectors = rng.standard_normal((chance.randint(1, 20), D)).astype(np.float16).astype(np.float32)
            expected[put(writer, f"d{chance.randint(0, 12)}", vectors)] = vectors
        if step % 3 == 0:
            assert index.refresh(store)
            assert not index.refresh(store)
            query = rng.standard_normal(D).astype(np.float32)
            ids, scores = index.scores(query)
            fresh = VectorIndex(D)
            fresh.refresh(store)
            again, same = fresh.scores(query)
            assert ids.tolist() == again.tolist() == sorted(ids.tolist())
            np.testing.assert_allclose(scores, same, rtol=1e-5)
            plain = np.concatenate([np.zeros((0, D), np.float32), *expected.values()]) @ query
            np.testing.assert_allclose(np.sort(scores), np.sort(plain), rtol=1e-3, atol=1e-3)
    store.close()
    other.close()


def test_an_empty_index_answers(path: Path) -> None:
    store = SQLiteStore.create(path, {})
    index = VectorIndex(D)
    index.refresh(store)
    ids, scores = index.scores(np.ones(D, np.float32))
    assert len(ids) == len(scores) == len(index) == 0
    store.close()
