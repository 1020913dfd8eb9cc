"""A small head: logistic regression on the vectors of an embedder, trained from labelled examples in seconds.

    head = train_head(vectors, numbers, labels, embedder)
    save_head(head, path);  load_head(path).classifier(embedder).probabilities(texts)

A head is one safetensors file: `weight` (K, D), `bias` (K,), both float32, and a JSON text in its metadata
that says the labels and of which embedder the vectors must be. N texts, K labels, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from quinze.embeddings.embedder import Embedder, Vectors
from quinze.embeddings.lbfgs import minimize
from quinze.errors import FileFormatError, InvalidRequestError
from quinze.evaluation.classification import MOST_LABELS, Label, Probabilities, labels_of, softmax
from quinze.formats.checkpoint import TensorType
from quinze.formats.quants import decode, encode
from quinze.formats.safetensors import read_metadata, read_safetensors, write_safetensors

STRENGTH = 3.0
"""C of scikit-learn's LogisticRegression: the larger, the closer to the examples. Chosen on the training
halves of FewCLUE (docs/explanation/starter.md)."""
MOST_BYTES = 64 * 2**20
_KEY = "quinze.head"

Numbers = npt.NDArray[np.intp]


class HeadCard(msgspec.Struct, frozen=True):
    """What a head says of itself."""

    labels: list[str]
    embedder: str
    """Its id (`Embedder.id`): of another's vectors the weights know nothing."""
    examples: int = 0
    accuracy: float | None = None
    """Cross-validated on the examples that it was made from; None: too few to tell."""


@dataclass(frozen=True, slots=True)
class Head:
    card: HeadCard
    weight: Vectors
    """(K, D)"""
    bias: Vectors
    """(K,)"""

    def of_vectors(self, vectors: Vectors) -> Probabilities:
        """(N, D) -> (N, K)."""
        return softmax(vectors.astype(np.float64) @ self.weight.T + self.bias)

    def classifier(self, embedder: Embedder) -> HeadClassifier:
        """InvalidRequestError where it was made for another embedder."""
        if embedder.id != self.card.embedder or embedder.dimensions != self.weight.shape[1]:
            raise InvalidRequestError(
                f"The head was trained on vectors of {self.card.embedder[:80]}, not of {embedder.id}.",
                hint="Name that embedder, or train a head with this one.",
                param="head",
            )
        return HeadClassifier(self, embedder)


@dataclass(frozen=True, slots=True)
class HeadClassifier:
    head: Head
    embedder: Embedder

    @property
    def labels(self) -> Sequence[Label]:
        return [Label(name) for name in self.head.card.labels]

    def probabilities(self, texts: Sequence[str], *, multi: bool = False) -> Probabilities:
        if multi:
            raise InvalidRequestError(
                "A head was trained to choose one label; it cannot give several.", param="multi"
            )
        vectors = self.embedder.embed(list(texts))
        found = self.head.of_vectors(vectors)
        found[~vectors.any(1)] = np.nan
        return found


def train_head(
    vectors: Vectors, numbers: Numbers, labels: Sequence[str], embedder: str, *, strength: float = STRENGTH
) -> Head:
    """vectors (N, D), numbers (N,) each one's place among the labels.

    Minimizes  sum of -log p(label)  +  |W|^2 / (2 strength); the bias is free. As scikit-learn does.
    InvalidRequestError where a label has no example.
    """
    counts = np.bincount(numbers, minlength=len(labels))
    if len(labels) < 2 or not counts.all():
        missing = labels[int(counts.argmin())] if len(labels) > 1 else "a second one"
        raise InvalidRequestError(
            f"There is no example of the label {missing[:80]!r}.", hint="Every label needs one at least."
        )
    weight, bias = fit(np.asarray(vectors, np.float64), numbers, len(labels), strength)
    card = HeadCard(list(labels), embedder, len(numbers))
    return Head(card, weight.astype(np.float32), bias.astype(np.float32))


def fit(
    x: npt.NDArray[np.float64], numbers: Numbers, labels: int, strength: float = STRENGTH
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(weight (K, D), bias (K,)) of the minimum; the biases sum to 0."""
    examples, dimensions = x.shape
    truth = np.zeros((examples, labels))
    truth[np.arange(examples), numbers] = 1
    # Centered, for otherwise bias and weights pull at each other and the descent takes far more steps.
    middle = x.mean(0)
    centered = x - middle

    def loss(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        w, b = flat[:-labels].reshape(labels, dimensions), flat[-labels:]
        scores = centered @ w.T + b
        top = scores.max(1, keepdims=True)
        powers = np.exp(scores - top)
        total = powers.sum(1, keepdims=True)
        nats = float((np.log(total) + top)[:, 0].sum() - (scores * truth).sum())
        error = powers / total - truth  # (N, K)
        gradient = np.concatenate([(error.T @ centered + w / strength).ravel(), error.sum(0)])
        return nats / examples + float((w * w).sum()) / (2 * strength * examples), gradient / examples

    flat = minimize(loss, np.zeros(labels * dimensions + labels))
    w, b = flat[:-labels].reshape(labels, dimensions), flat[-labels:]
    b = b - w @ middle
    return w, b - b.mean()


def save_head(head: Head, path: Path) -> None:
    """The file appears whole or not at all."""
    tensors = [encode("weight", head.weight, TensorType.F32), encode("bias", head.bias, TensorType.F32)]
    write_safetensors(path, tensors, {_KEY: msgspec.json.encode(head.card).decode()})


def load_head(path: Path) -> Head:
    """FileFormatError for what is no head, or one whose parts do not fit."""
    try:
        size = path.stat().st_size if path.is_file() else -1
    except OSError:
        size = -1
    if size < 0:
        raise FileFormatError(
            f"There is no file {str(path)[:300]}.", hint="quinze classify --train makes one."
        )
    if size > MOST_BYTES:
        raise FileFormatError(f"{path.name} has {size:,} bytes; a head has at most {MOST_BYTES:,}.")
    told, tensors = read_metadata(path).get(_KEY), read_safetensors(path)
    try:
        card = msgspec.json.decode(told or "", type=HeadCard)
        labels_of(card.labels)  # none empty, none twice, not too many
    except (msgspec.MsgspecError, InvalidRequestError) as error:
        raise _no_head(path, f"its card is wrong ({error})" if told else "it has no card") from error
    if set(tensors) != {"weight", "bias"} or any(t.type is not TensorType.F32 for t in tensors.values()):
        raise _no_head(path, "it must hold weight and bias in F32, and nothing else")
    weight, bias = tensors["weight"], tensors["bias"]
    count = len(card.labels)
    if bias.shape != (count,) or len(weight.shape) != 2 or weight.shape[0] != count or count > MOST_LABELS:
        raise _no_head(path, f"weight {weight.shape} and bias {bias.shape} do not fit {count} labels")
    head = Head(card, np.asarray(decode(weight), np.float32), np.asarray(decode(bias), np.float32))
    if not (np.isfinite(head.weight).all() and np.isfinite(head.bias).all()):
        raise _no_head(path, "it holds numbers that are none")
    return head


def _no_head(path: Path, why: str) -> FileFormatError:
    return FileFormatError(
        f"{path.name} is no head: {why}.", hint="quinze classify --train FILE -o HEAD makes one."
    )
