"""The order of rows: a permutation, shared out without gaps, and a function of the step alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quinze.errors import InvalidRequestError
from quinze.training.data.dataset import TokenData
from quinze.training.data.order import Batches, permuted


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 3000), seed=st.integers(-(2**70), 2**70), epoch=st.integers(0, 10**6))
def test_every_epoch_is_a_permutation(size, seed, epoch):
    order = permuted(np.arange(size), size, seed, np.full(size, epoch))
    assert sorted(order.tolist()) == list(range(size))


def test_epochs_and_seeds_differ_and_look_random():
    size = 10_000
    orders = [
        permuted(np.arange(size), size, seed, np.full(size, epoch)) for seed in (0, 1) for epoch in (0, 1)
    ]
    for i, one in enumerate(orders):
        # Of a random permutation one place is expected to stay, and neighbors are n / 3 apart on average.
        assert (one == np.arange(size)).sum() < 12
        assert abs(np.abs(np.diff(one)).mean() / (size / 3) - 1) < 0.03
        for other in orders[:i]:
            assert (one == other).sum() < 12


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**63),
    batch=st.integers(1, 7),
    micro=st.integers(1, 3),
    world=st.integers(1, 5),
    first=st.integers(0, 500),
)
def test_the_ranks_together_read_each_row_of_an_epoch_once(
    stories: TokenData, seed, batch, micro, world, first
):
    rows = stories.rows("val")
    ranks = [Batches(stories, "val", batch, seed, rank, world, micro) for rank in range(world)]
    each = batch * micro * world
    # From the beginning of some epoch that a step begins with, to its end.
    start = first * rows
    seen: list[int] = []
    for step in range(start // each, (start + rows) // each + 1):
        for part in range(micro):
            for rank in ranks:
                seen += rank.at(step, part).rows.tolist()
    skip = start - start // each * each
    assert sorted(seen[skip : skip + rows]) == list(range(rows))


def test_a_step_reads_the_same_rows_with_one_process_or_with_four(stories: TokenData):
    alone = Batches(stories, "train", 2, 5, micro_batches=4)
    four = [Batches(stories, "train", 2, 5, rank, 4) for rank in range(4)]
    for step in (0, 3, 1000):
        one = [alone.at(step, micro) for micro in range(4)]
        shared = [rank.at(step) for rank in four]
        for a, b in zip(one, shared, strict=True):
            assert a.rows.tolist() == b.rows.tolist()
            assert np.array_equal(a.ids, b.ids)


def test_a_batch_depends_on_nothing_but_its_step(stories: TokenData):
    batches = Batches(stories, "train", 4, seed=3)
    later = batches.at(777)
    for step in range(5):
        batches.at(step)
    again = Batches(stories, "train", 4, seed=3).at(777)
    assert np.array_equal(later.ids, again.ids)
    assert np.array_equal(later.labels, again.labels)
    assert later.epoch == again.epoch == 777 * 4 // stories.rows("train")


def test_later_epochs_cut_the_text_at_other_places(stories: TokenData):
    rows = stories.rows("train")
    batches = Batches(stories, "train", rows, seed=0)
    tokens = np.asarray(stories.tokens("train"), np.int64)
    starts = {}
    for epoch in (0, 1, 2):
        batch = batches.at(epoch)
        windows = {tuple(row) for row in batch.ids.tolist()}
        starts[epoch] = {tuple(tokens[i : i + 32].tolist()) for i in range(0, rows * 32, 32)} & windows
    assert len(starts[0]) == len({tuple(tokens[i : i + 32].tolist()) for i in range(0, rows * 32, 32)})
    assert len(starts[1]) < 3
    assert len(starts[2]) < 3


def test_what_cannot_be_a_batch_is_refused(stories: TokenData):
    with pytest.raises(InvalidRequestError, match="0 rows"):
        Batches(stories, "train", 0, 1)
    with pytest.raises(InvalidRequestError, match="process 2 of 2"):
        Batches(stories, "train", 1, 1, 2, 2)
    with pytest.raises(InvalidRequestError, match="no split 'test'"):
        Batches(stories, "test", 1, 1)
