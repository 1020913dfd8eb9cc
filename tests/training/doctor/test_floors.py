"""The floors, counted another way: with dictionaries, straight from the formula."""

from __future__ import annotations

import lzma
import math
import random
from collections import Counter, defaultdict

import numpy as np
import pytest

from quinze.training.batch import IGNORE, Batch
from quinze.training.doctor.floors import KneserNey, compressor, floors, relevance, steps_of, steps_of_ids

V = 7


def some_ids(length: int, seed: int) -> list[int]:
    """A chain that favors some successors, so that pairs tell something."""
    chance, ids = random.Random(seed), [0]
    while len(ids) < length:
        ids.append((ids[-1] * 3 + 1) % V if chance.random() < 0.6 else chance.randrange(V))
    return ids


def peer(train: list[int], order: int, total: int) -> dict[tuple[int, ...], list[float]]:
    """Interpolated Kneser-Ney by recursion over dictionaries (Chen & Goodman 1999, eq. 21)."""
    grams = [tuple(train[i - 2 : i + 1]) for i in range(2, len(train))]

    def counts(n: int) -> Counter[tuple[int, ...]]:
        if n == order:
            return Counter(gram[-n:] for gram in grams)
        longer: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)
        for gram in grams:
            longer[gram[-n:]].add(gram[-n - 1])
        return Counter({key: len(before) for key, before in longer.items()})

    def probability(n: int, gram: tuple[int, ...]) -> float:
        if n == 0:
            return 1 / total
        c = counts(n)
        ones, twos = sum(x == 1 for x in c.values()), sum(x == 2 for x in c.values())
        d = ones / (ones + 2 * twos) if ones and twos else 0.5
        mine = {key: x for key, x in c.items() if key[:-1] == gram[:-1]}
        lower = probability(n - 1, gram[1:])
        if not mine:
            return lower
        whole = sum(mine.values())
        return max(c[gram] - d, 0) / whole + d * len(mine) / whole * lower

    contexts = {gram[-order:-1] for gram in grams} | {(V - 1,) * (order - 1)}
    return {h: [probability(order, (*h, w)) for w in range(V)] for h in contexts}


@pytest.mark.parametrize("order", [2, 3])
def test_kneser_ney_agrees_with_the_formula_written_with_dictionaries(order: int) -> None:
    train = some_ids(120, 1)
    table = KneserNey(steps_of_ids(train), V)
    for context, wanted in peer(train, order, V).items():
        assert sum(wanted) == pytest.approx(1, abs=1e-9)
        scored = [steps_of_ids([0, *context, w][-3:]) for w in range(V)]
        found = [float((table.bigram if order == 2 else table.trigram)(step)[0]) for step in scored]
        assert found == pytest.approx(wanted, abs=1e-12)


def test_each_longer_context_helps_where_text_has_order() -> None:
    found = floors(steps_of_ids(some_ids(20_000, 1)), steps_of_ids(some_ids(5_000, 2)), V)
    assert found.uniform == pytest.approx(math.log(V))
    # The chain's own entropy: 0.6 + 0.4/7 of one token, 0.4/7 of each other one.
    p, q = 0.6 + 0.4 / V, 0.4 / V
    entropy = -p * math.log(p) - (V - 1) * q * math.log(q)
    assert found.bigram == pytest.approx(entropy, abs=0.03)
    assert found.bigram < found.unigram <= found.uniform + 0.01


def test_shuffled_tokens_leave_nothing_to_pairs() -> None:
    ids = some_ids(20_000, 1)
    random.Random(3).shuffle(ids)
    found = floors(steps_of_ids(ids[:15_000]), steps_of_ids(ids[15_000:]), V)
    assert found.bigram == pytest.approx(found.unigram, abs=0.01)


def test_masked_labels_and_other_documents_are_not_counted() -> None:
    ids = np.array([[1, 2, 3, 4, 5, 6]])
    labels = np.array([[2, IGNORE, 4, 5, 6, IGNORE]])
    segments = np.array([[0, 0, 0, 1, 1, 1]], np.int32)
    found = steps_of([Batch(ids, labels, segments, np.array([0]), 0)])
    assert list(zip(found.before, found.last, found.target, strict=True)) == [(2, 3, 4), (4, 5, 6)]


def test_the_compressor_is_xz() -> None:
    text = "the cat sat on the mat. " * 300
    own = 8 * len(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME)) / len(text)
    found = compressor(text)
    assert found is not None
    assert own * 0.4 < found < own  # without xz's 60-byte container
    assert compressor("") is None


def test_a_source_that_teaches_the_target_nothing_scores_below_one_that_does() -> None:
    like, unlike = np.array(some_ids(5_000, 1)), np.random.default_rng(0).integers(0, V, 5_000)
    found = relevance({"like": like, "unlike": unlike}, np.array(some_ids(2_000, 2)), V)
    assert found["like"] > 0.3
    assert found["unlike"] < 0.05
