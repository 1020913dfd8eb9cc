"""Sorting texts under labels: what a label is, when to rather not answer, how far answers can be trusted.

Given anything that turns texts into probabilities (`Classifier`); knows nothing of how it does so.
N texts, K labels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from quinze.errors import InvalidRequestError
from quinze.evaluation.bootstrap import Interval, interval
from quinze.evaluation.calibration import expected_calibration_error

Probabilities = npt.NDArray[np.float64]

MOST_LABELS = 1000
MOST_LABEL_CHARACTERS = 2000
UNSURE_SHOWN = 10


class Label(msgspec.Struct, frozen=True):
    """A name, and what it means in more words where the name alone says too little."""

    name: str
    description: str = ""

    @property
    def text(self) -> str:
        """What a model is shown."""
        return self.description or self.name


class Classifier(Protocol):
    @property
    def labels(self) -> Sequence[Label]: ...

    def probabilities(self, texts: Sequence[str], *, multi: bool = False) -> Probabilities:
        """(N, K): each row sums to 1; with `multi` each number stands alone, 0 to 1.

        A row of a text that says nothing to the classifier is NaN.
        """
        ...


class Classification(msgspec.Struct, frozen=True):
    """What was said of one text."""

    text: str
    label: str | None
    """The most probable one; None: it abstained, and `reason` says why."""
    labels: list[str]
    """With `multi` all that reach the threshold; else the one."""
    probabilities: dict[str, float]
    """Label -> probability, most probable first. Empty where the text says nothing to the model."""
    reason: str = ""


class Unsure(msgspec.Struct, frozen=True):
    text: str
    label: str
    guess: str | None
    probability: float


class Reliability(msgspec.Struct, frozen=True):
    """Answers beside the true labels of some examples."""

    examples: int
    accuracy: Interval
    """Of all examples, abstentions taken as what it would have said; 95 %, bootstrap."""
    chance: float
    """Blind guessing: 1 / K."""
    majority: float
    """Always the commonest label of these very examples."""
    better_than_chance: bool
    """Whether the interval lies above both."""
    calibration_error: float
    """Expected, ten bins: how far the probabilities are from the share that is right."""
    answered: int
    """Where it did not abstain."""
    accuracy_answered: float | None
    confusion: dict[str, dict[str, int]]
    """True label -> said label -> count; only what occurs."""
    unsure: list[Unsure]
    """Least sure first."""


def labels_of(given: Sequence[str]) -> list[Label]:
    """Labels written "name" or "name=description".

    InvalidRequestError for fewer than two, one that is empty or too long, or two of the same name.

    >>> labels_of(["sports=football and other games", "politics"])[0].description
    'football and other games'
    """
    found = []
    for text in given:
        name, _, description = text.partition("=")
        found.append(Label(name.strip(), description.strip()))
    names = [label.name for label in found]
    if len(names) < 2 or len(names) > MOST_LABELS:
        raise InvalidRequestError(
            f"There are {len(names):,} labels; it takes 2 to {MOST_LABELS:,}.",
            hint='Write them with commas between: --labels "sports,politics".',
            param="labels",
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not all(names):
        what = (
            f"The label {twice[0][:80]!r} stands there twice." if twice and twice[0] else "A label is empty."
        )
        raise InvalidRequestError(what, param="labels")
    if max(len(text) for text in given) > MOST_LABEL_CHARACTERS:
        raise InvalidRequestError(
            f"A label has more than {MOST_LABEL_CHARACTERS:,} characters.", param="labels"
        )
    return found


def split_labels(text: str) -> list[str]:
    """At commas, Western or Chinese.

    >>> split_labels("体育，财经, news")
    ['体育', '财经', 'news']
    """
    return [part.strip() for part in re.split("[,，]", text) if part.strip()]


def classify(
    classifier: Classifier,
    texts: Sequence[str],
    *,
    multi: bool = False,
    threshold: float = 0.5,
    abstain: float = 0.0,
    margin: float = 0.0,
) -> list[Classification]:
    """One answer a text.

    multi      any number of labels, each that reaches `threshold`
    abstain    no answer where the most probable label has less than this
    margin     nor where it is less than this ahead of the second
    """
    for name, value in (("threshold", threshold), ("abstain", abstain), ("margin", margin)):
        if not 0 <= value <= 1:
            raise InvalidRequestError(f"{name} is {value:g}; it must lie between 0 and 1.", param=name)
    names = [label.name for label in classifier.labels]
    rows = classifier.probabilities(texts, multi=multi)
    if not multi:
        return [_one(text, names, row, abstain, margin) for text, row in zip(texts, rows, strict=True)]
    # Several labels may well be equally probable there, so a margin has no meaning.
    return [
        _several(text, names, row, max(threshold, abstain)) for text, row in zip(texts, rows, strict=True)
    ]


def check(
    classifier: Classifier,
    texts: Sequence[str],
    truth: Sequence[str],
    *,
    abstain: float = 0.0,
    margin: float = 0.0,
) -> Reliability:
    """Ask for every text and compare. InvalidRequestError for no examples, or a label that is not among
    those of the classifier."""
    names = [label.name for label in classifier.labels]
    answers = classify(classifier, texts, abstain=abstain, margin=margin)
    true = numbers_of(truth, names)
    rows = _rows(answers, names)
    said, sure = rows.argmax(1), rows.max(1)
    right = (said == true).astype(np.float64)
    mean, majority = interval(list(right)), float(np.bincount(true).max() / len(true))
    kept = [i for i, answer in enumerate(answers) if answer.label is not None]
    confusion: dict[str, dict[str, int]] = {}
    for i, j in zip(true, said, strict=True):
        row = confusion.setdefault(names[i], {})
        row[names[j]] = row.get(names[j], 0) + 1
    order = np.argsort(sure, kind="stable")[:UNSURE_SHOWN]
    return Reliability(
        examples=len(true),
        accuracy=mean,
        chance=1 / len(names),
        majority=majority,
        better_than_chance=mean.low > max(majority, 1 / len(names)),
        calibration_error=expected_calibration_error(list(np.clip(sure, 0, 1)), list(right)),
        answered=len(kept),
        accuracy_answered=float(right[kept].mean()) if kept else None,
        confusion=confusion,
        unsure=[Unsure(texts[i], truth[i], answers[i].label, float(sure[i])) for i in order],
    )


def numbers_of(truth: Sequence[str], names: Sequence[str]) -> npt.NDArray[np.intp]:
    """Each label's place among `names` (N,)."""
    if not truth:
        raise InvalidRequestError("There are no labelled examples.", hint="The file is empty.")
    place = {name: i for i, name in enumerate(names)}
    unknown = next((label for label in truth if label not in place), None)
    if unknown is not None:
        raise InvalidRequestError(
            f"An example has the label {unknown[:80]!r}, which is none of the {len(names)} labels.",
            hint="Write labels as they stand in the file; a name may be explained: name=description.",
            param="labels",
        )
    return np.array([place[label] for label in truth], np.intp)


def softmax(scores: npt.NDArray[np.floating]) -> Probabilities:
    """Over the last axis."""
    powers = np.exp(np.asarray(scores, np.float64) - scores.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def sigmoid(scores: npt.NDArray[np.floating]) -> Probabilities:
    # By tanh, which does not overflow.
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(scores, np.float64))))


def _rows(answers: Sequence[Classification], names: Sequence[str]) -> Probabilities:
    even = 1 / len(names)
    return np.array([[answer.probabilities.get(name, even) for name in names] for answer in answers])


def _one(
    text: str, names: Sequence[str], row: Probabilities, abstain: float, margin: float
) -> Classification:
    if not np.isfinite(row).all():
        return Classification(text, None, [], {}, "no word of the text is known to the model")
    order = np.argsort(-row, kind="stable")
    told = {names[i]: float(row[i]) for i in order}
    best, second = float(row[order[0]]), float(row[order[1]])
    reason = ""
    if best < abstain:
        reason = f"{names[order[0]]} is the most probable, with {best:.2f}; {abstain:g} was asked for"
    elif best - second < margin:
        reason = (
            f"{names[order[0]]} is {best - second:.2f} ahead of {names[order[1]]}; {margin:g} was asked for"
        )
    label = None if reason else names[order[0]]
    return Classification(text, label, [label] if label else [], told, reason)


def _several(text: str, names: Sequence[str], row: Probabilities, threshold: float) -> Classification:
    if not np.isfinite(row).all():
        return Classification(text, None, [], {}, "no word of the text is known to the model")
    order = np.argsort(-row, kind="stable")
    told = {names[i]: float(row[i]) for i in order}
    kept = [name for name, p in told.items() if p >= threshold]
    reason = "" if kept else f"no label reaches {threshold:g}"
    return Classification(text, kept[0] if kept else None, kept, told, reason)
