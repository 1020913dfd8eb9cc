"""How well a head would do with so many labelled examples, and how many it takes to beat something.

Given vectors and labels; cross-validated, so every number is of texts that the head has not seen.
N texts, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from quinze.embeddings.embedder import Vectors
from quinze.embeddings.head import STRENGTH, Numbers, fit
from quinze.errors import InvalidRequestError

FOLDS = 5
MOST_FITTED = 4000
"""Examples of one fit: more would take minutes and hardly change the curve."""
FARTHEST = 20
"""Times the examples at hand: a curve foretells no farther."""


class CurvePoint(msgspec.Struct, frozen=True):
    examples: int
    """Of all labels together."""
    accuracy: float
    spread: float
    """Standard deviation over the folds."""


class Needed(msgspec.Struct, frozen=True):
    """How many labelled examples a head would need to beat an accuracy."""

    beat: float
    examples: int | None
    """None: farther than the curve can be drawn on."""
    measured: bool
    """Whether the curve reaches it; False: drawn on beyond the examples at hand."""
    words: str


def folds_of(numbers: Numbers, folds: int, seed: int = 0) -> Numbers:
    """A fold for each example (N,): each label is spread over all of them."""
    rng = np.random.default_rng(seed)
    placed, at = np.zeros(len(numbers), np.intp), 0
    for label in np.unique(numbers):
        members = rng.permutation(np.flatnonzero(numbers == label))
        placed[members] = (np.arange(len(members)) + at) % folds
        at += len(members)
    return placed


def balanced(numbers: Numbers, seed: int = 0) -> Numbers:
    """An order of the examples (N,) of which every beginning holds about as many of each label."""
    rng = np.random.default_rng(seed)
    turn, chance = np.zeros(len(numbers)), rng.random(len(numbers))
    for label in np.unique(numbers):
        members = rng.permutation(np.flatnonzero(numbers == label))
        turn[members] = np.arange(len(members))
    return np.lexsort((chance, turn))


def learning_curve(
    vectors: Vectors, numbers: Numbers, labels: int, *, strength: float = STRENGTH, seed: int = 0
) -> list[CurvePoint]:
    """Accuracy with 1, 2, 4, ... examples a label, up to what is there; the last point is all of it.

    InvalidRequestError for fewer than two examples a label on the average.
    """
    if len(numbers) < 2 * labels:
        raise InvalidRequestError(
            f"{len(numbers)} examples of {labels} labels are too few for a learning curve.",
            hint=f"It takes {2 * labels} at least, better {10 * labels}.",
        )
    x = np.asarray(vectors, np.float64)
    placed = folds_of(numbers, FOLDS, seed)
    most = min(MOST_FITTED, min(int((placed != fold).sum()) for fold in range(FOLDS)))
    sizes = [labels * 2**i for i in range(32) if labels * 2**i < most] + [most]
    found = {size: [0.0] * FOLDS for size in sizes}
    for fold in range(FOLDS):
        inside, outside = np.flatnonzero(placed != fold), np.flatnonzero(placed == fold)
        order = inside[balanced(numbers[inside], seed + fold)]
        for size in sizes:
            chosen = order[:size]
            # Labels that no chosen example bears are never said.
            known, own = np.unique(numbers[chosen], return_inverse=True)
            if len(known) < 2:
                said = np.full(len(outside), known[0])
            else:
                weight, bias = fit(x[chosen], own, len(known), strength)
                said = known[(x[outside] @ weight.T + bias).argmax(1)]
            found[size][fold] = float((said == numbers[outside]).mean())
    return [CurvePoint(size, float(np.mean(a)), float(np.std(a))) for size, a in found.items()]


def needed_to_beat(curve: Sequence[CurvePoint], accuracy: float) -> Needed:
    """The examples at which the curve passes `accuracy` and stays above.

    Between two points and beyond the last one the error is taken for a power of the number of examples
    (Hestness et al. 2017), from the last three points.
    """
    above = len(curve)
    while above and curve[above - 1].accuracy > accuracy:
        above -= 1
    if above == 0:
        first = curve[0].examples
        return Needed(accuracy, first, True, f"A head beats {accuracy:.1%} with {first:,} examples already.")
    if above < len(curve):
        low, high = curve[above - 1], curve[above]
        share = (accuracy - low.accuracy) / max(high.accuracy - low.accuracy, 1e-9)
        count = math.ceil(low.examples * (high.examples / low.examples) ** min(max(share, 0.0), 1.0))
        return Needed(
            accuracy, count, True, f"You would need about {count:,} labelled examples to beat {accuracy:.1%}."
        )
    here = curve[-1]
    last = [(math.log(p.examples), math.log(max(1 - p.accuracy, 1e-6))) for p in curve[-3:]]
    slope = float(np.polyfit([a for a, _ in last], [b for _, b in last], 1)[0]) if len(last) > 1 else 0.0
    wanted = math.log(max(1 - accuracy, 1e-6))
    log_count = last[-1][0] + (wanted - last[-1][1]) / slope if slope < -1e-3 else math.inf
    if log_count > math.log(FARTHEST * here.examples):
        return Needed(
            accuracy, None, False,
            f"With {here.examples:,} examples a head reaches {here.accuracy:.1%}; how many it takes to beat "
            f"{accuracy:.1%} cannot be told from these.",
        )  # fmt: skip
    count = math.ceil(math.exp(log_count))
    return Needed(
        accuracy, count, False,
        f"With {here.examples:,} examples a head reaches {here.accuracy:.1%}; drawn on, it would take about "
        f"{count:,} to beat {accuracy:.1%}.",
    )  # fmt: skip
