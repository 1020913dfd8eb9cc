"""Multiple choice by likelihood: the answer that the model would rather write is the one it has chosen.

Three ways to compare answers of different length, all from the same scores:

    sum         log p(answer | question): favors short answers
    normalized  divided by the answer's UTF-8 bytes, as lm-evaluation-harness' acc_norm does
    calibrated  minus log p(answer | a question without content): what is likely anyway counts for nothing
                (contextual calibration by Zhao et al. 2021; PMI_DC of Holtzman et al. 2021)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from quinze.errors import InvalidRequestError
from quinze.evaluation.bootstrap import Interval, interval
from quinze.evaluation.calibration import expected_calibration_error
from quinze.evaluation.likelihood import Score

Encode = Callable[[str], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Question:
    """`context + choices[answer]` is the whole text; a choice usually begins with a space."""

    context: str
    choices: tuple[str, ...]
    answer: int
    empty_context: str = "Answer:"
    """The same question without its content, for the calibrated way."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Log-probabilities (choices,) of one question."""

    sums: tuple[float, ...]
    bytes: tuple[int, ...]
    empty_sums: tuple[float, ...]
    answer: int

    def chosen(self, way: str) -> int:
        return int(np.argmax(self.values(way)))

    def values(self, way: str) -> np.ndarray:
        sums = np.array(self.sums)
        if way == "sum":
            return sums
        if way == "normalized":
            return np.asarray(sums / np.maximum(np.array(self.bytes), 1))
        if way == "calibrated":
            return np.asarray(sums - np.array(self.empty_sums))
        raise InvalidRequestError(f"{way!r} is none of: sum, normalized, calibrated.", param="way")

    def probabilities(self, way: str) -> np.ndarray:
        """(choices,) that sum to 1."""
        values = self.values(way)
        powers = np.exp(values - values.max())
        return np.asarray(powers / powers.sum())


@dataclass(frozen=True, slots=True)
class ChoiceReport:
    """Accuracy in each of the three ways, with its interval; and how honest the certainty is."""

    questions: int
    guessing: float
    """What blind guessing would reach."""
    accuracy: dict[str, Interval]
    calibration_error: dict[str, float]


WAYS = ("sum", "normalized", "calibrated")


def answer(score: Score, encode: Encode, question: Question) -> Answered:
    """Scores every choice after the question, and after the empty one."""
    _check(question)
    return Answered(
        sums=tuple(_log_probability(score, encode, question.context, c) for c in question.choices),
        bytes=tuple(len(choice.encode("utf-8")) for choice in question.choices),
        empty_sums=tuple(
            _log_probability(score, encode, question.empty_context, c) for c in question.choices
        ),
        answer=question.answer,
    )


def multiple_choice(score: Score, encode: Encode, questions: Iterable[Question]) -> ChoiceReport:
    """Raises InvalidRequestError where there are no questions, or one makes no sense."""
    answered = [answer(score, encode, question) for question in questions]
    if not answered:
        raise InvalidRequestError("There are no questions.")
    right = {way: [float(one.chosen(way) == one.answer) for one in answered] for way in WAYS}
    return ChoiceReport(
        questions=len(answered),
        guessing=float(np.mean([1 / len(one.sums) for one in answered])),
        accuracy={way: interval(values) for way, values in right.items()},
        calibration_error={
            way: expected_calibration_error(
                [float(one.probabilities(way).max()) for one in answered], right[way]
            )
            for way in WAYS
        },
    )


def split(encode: Encode, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Ids of both together, cut where the context ends.

    Spaces at the context's end move to the continuation, as lm-evaluation-harness does: most vocabularies
    write a word together with the space before it.
    """
    bare = context.rstrip()
    moved = context[len(bare) :] + continuation
    whole, before = list(encode(bare + moved)), list(encode(bare))
    return before, whole[len(before) :]


def _log_probability(score: Score, encode: Encode, context: str, continuation: str) -> float:
    before, after = split(encode, context, continuation)
    if not before or not after:
        raise InvalidRequestError(f"Nothing is left to score of {continuation[:40]!r}.")
    return float(np.sum(score(before, after)))


def _check(question: Question) -> None:
    if len(question.choices) < 2 or not 0 <= question.answer < len(question.choices):
        raise InvalidRequestError(
            f"A question needs two choices or more and the number of the right one; got"
            f" {len(question.choices)} and {question.answer}."
        )
