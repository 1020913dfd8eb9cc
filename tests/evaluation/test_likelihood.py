"""Bits a byte and multiple choice, against torch, sums by hand and sklearn-like definitions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from quinze.errors import InvalidRequestError
from quinze.evaluation.bootstrap import interval, paired_interval, standard_error
from quinze.evaluation.calibration import expected_calibration_error
from quinze.evaluation.choice import Question, answer, multiple_choice, split
from quinze.evaluation.likelihood import likelihood, scored_by, windows

V = 50


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    """(V, V) logits of the next id after each."""
    return np.random.default_rng(0).normal(size=(V, V)) * 3


def test_a_score_is_torchs_log_softmax(table: np.ndarray) -> None:
    ids = list(np.random.default_rng(1).integers(0, V, 12))
    found = scored_by(lambda x: table[x])(ids[:5], ids[5:])
    logits = torch.from_numpy(table[np.array(ids[4:-1])])
    wanted = -torch.nn.functional.cross_entropy(logits, torch.tensor(ids[5:]), reduction="none")
    assert found == pytest.approx(wanted.numpy(), abs=1e-12)


@pytest.mark.parametrize(
    ("count", "length", "stride"), [(1, 4, None), (5, 4, None), (29, 8, 3), (30, 7, 1), (9, 8, 8)]
)
def test_windows_judge_each_id_but_the_first_once(count: int, length: int, stride: int | None) -> None:
    ids = list(range(count))
    found = list(windows(ids, length, stride))
    assert [i for _, judged in found for i in judged] == ids[1:]
    for context, judged in found:
        assert len(context) + len(judged) <= length + 1
        assert [*context, *judged] == ids[context[0] : judged[-1] + 1]


def test_bits_a_byte_do_not_depend_on_windows_where_the_model_sees_one_id_only(table: np.ndarray) -> None:
    ids, text = list(np.random.default_rng(2).integers(0, V, 100)), "ein ungefähr langer Text"
    score = scored_by(lambda x: table[x])
    whole = likelihood(score, ids, text, 200)
    parts = likelihood(score, ids, text, 16, stride=5)
    assert parts.nats == pytest.approx(whole.nats, rel=1e-12)
    assert whole.bits_per_byte == pytest.approx(whole.nats / math.log(2) / len(text.encode()))
    assert whole.perplexity == pytest.approx(math.exp(whole.nats / 99))
    assert (whole + parts).bits_per_byte == pytest.approx(whole.bits_per_byte)


def test_a_uniform_model_needs_log2_v_bits_a_token() -> None:
    found = likelihood(scored_by(lambda x: np.zeros((len(x), 256))), list(b"abcd"), "abcd", 8, bos_id=0)
    assert found.bits_per_byte == pytest.approx(8.0)


def letters(text: str) -> list[int]:
    return [ord(c) % V for c in text]


def test_the_three_ways_compare_what_they_say(table: np.ndarray) -> None:
    score = scored_by(lambda x: table[x])
    question = Question("What is it?", (" a dog", " an elephant"), 1, empty_context="?")
    found = answer(score, letters, question)

    def by_hand(text: str, tail: str) -> float:
        ids = letters(text + tail)
        log_p = torch.log_softmax(torch.from_numpy(table), -1).numpy()
        return float(sum(log_p[ids[i - 1], ids[i]] for i in range(len(text), len(ids))))

    sums = [by_hand("What is it?", choice) for choice in question.choices]
    assert found.sums == pytest.approx(sums)
    assert found.values("normalized") == pytest.approx([sums[0] / 6, sums[1] / 12])
    empty = [by_hand("?", choice) for choice in question.choices]
    assert found.values("calibrated") == pytest.approx(np.array(sums) - empty)
    assert found.probabilities("sum").sum() == pytest.approx(1)


def test_a_model_that_knows_the_answers_has_all_right_and_is_rightly_sure() -> None:
    words = (" yes", " no", " maybe")
    questions = [Question("?" * (i % 3 + 1), words, i % 3, empty_context="!") for i in range(30)]

    def knowing(context: Sequence[int], continuation: Sequence[int]) -> np.ndarray:
        right = words[len(context) - 1] if context[0] == ord("?") else None
        good = list(continuation) == list_of(right or "")
        return np.full(len(continuation), -0.1 if good else -9.0)

    found = multiple_choice(knowing, list_of, questions)
    assert found.questions == 30
    assert found.guessing == pytest.approx(1 / 3)
    assert {way: accuracy.mean for way, accuracy in found.accuracy.items()} == {
        "sum": 1.0, "normalized": 1.0, "calibrated": 1.0,
    }  # fmt: skip
    assert found.calibration_error["sum"] < 1e-4


def test_spaces_belong_to_the_word_that_follows() -> None:
    assert split(list_of, "Answer: ", "cat") == split(list_of, "Answer:", " cat")


def list_of(text: str) -> list[int]:
    return [ord(c) for c in text]


def test_calibration_error_is_the_mean_distance_by_hand() -> None:
    sure = [0.95, 0.95, 0.55, 0.55]
    right = [1.0, 0.0, 1.0, 1.0]
    # Two bins of two: |0.5 - 0.95| and |1 - 0.55|, each half of the examples.
    assert expected_calibration_error(sure, right) == pytest.approx(0.45)
    rng = np.random.default_rng(0)
    honest = rng.random(20_000)
    assert expected_calibration_error(honest, rng.random(20_000) < honest) < 0.02
    with pytest.raises(InvalidRequestError):
        expected_calibration_error([1.2], [1.0])


def test_intervals_agree_with_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    mean, error = standard_error(values)
    found = interval(values)
    assert (found.low, found.high) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.03)
    better = paired_interval(values + 0.1, values)
    assert better.low == pytest.approx(0.1) == better.high
    with pytest.raises(InvalidRequestError):
        interval([])
