"""Labels, abstaining and reliability, counted by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from quinze.errors import InvalidRequestError
from quinze.evaluation.classification import Label, check, classify, labels_of, split_labels


class Fixed:
    """Says of each text what stands in the table."""

    labels = (Label("a"), Label("b"), Label("c"))
    table = {  # noqa: RUF012
        "sure": [0.1, 0.8, 0.1],
        "close": [0.45, 0.4, 0.15],
        "flat": [0.34, 0.33, 0.33],
        "unknown": [np.nan] * 3,
    }

    def probabilities(self, texts: Sequence[str], *, multi: bool = False) -> np.ndarray:
        del multi
        return np.array([self.table[text] for text in texts])


def test_it_abstains_below_a_probability_or_a_margin_and_says_why() -> None:
    said = classify(Fixed(), ["sure", "close", "flat", "unknown"], abstain=0.4, margin=0.1)
    assert [one.label for one in said] == ["b", None, None, None]
    assert "0.05 ahead of b" in said[1].reason
    assert "0.34; 0.4" in said[2].reason
    assert said[3].probabilities == {}
    assert "no word" in said[3].reason
    assert list(said[0].probabilities) == ["b", "a", "c"]


def test_several_labels_are_those_that_reach_the_threshold() -> None:
    said = classify(Fixed(), ["close", "sure"], multi=True, threshold=0.4)
    assert [one.labels for one in said] == [["a", "b"], ["b"]]
    none = classify(Fixed(), ["flat"], multi=True)[0]
    assert (none.label, none.labels) == (None, [])
    assert "no label reaches 0.5" in none.reason


def test_reliability_is_what_counting_by_hand_gives() -> None:
    texts = ["sure", "sure", "close", "close", "flat"]
    told = check(Fixed(), texts, ["b", "b", "a", "b", "c"], abstain=0.4)
    assert told.accuracy.mean == pytest.approx(3 / 5)
    assert (told.chance, told.majority) == (pytest.approx(1 / 3), pytest.approx(3 / 5))
    assert not told.better_than_chance
    assert (told.answered, told.accuracy_answered) == (4, pytest.approx(3 / 4))
    assert told.confusion == {"b": {"b": 2, "a": 1}, "a": {"a": 1}, "c": {"a": 1}}
    # Bins (0.7, 0.8], (0.4, 0.5] and (0.3, 0.4]: two of 5, two of 5, one of 5.
    assert told.calibration_error == pytest.approx((2 * 0.2 + 2 * 0.05 + 0.34) / 5)
    assert told.unsure[0].text == "flat"
    assert told.unsure[0].guess is None


@pytest.mark.parametrize("given", [["a"], ["a", "a"], ["a", "=x"], ["a", "b" * 3000], ["x"] * 1001])
def test_labels_that_make_no_sense_are_refused(given: list[str]) -> None:
    with pytest.raises(InvalidRequestError):
        labels_of(given)


def test_labels_are_split_at_western_and_chinese_commas() -> None:
    assert split_labels("体育，财经, news,,") == ["体育", "财经", "news"]
    assert labels_of(["a=one = 1", "b"])[0] == Label("a", "one = 1")


def test_wrong_numbers_and_unknown_labels_are_refused() -> None:
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(InvalidRequestError, match="abstain"):
            classify(Fixed(), ["sure"], abstain=wrong)
    with pytest.raises(InvalidRequestError, match="'d'"):
        check(Fixed(), ["sure"], ["d"])
