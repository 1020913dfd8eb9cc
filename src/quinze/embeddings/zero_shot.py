"""Zero-shot classification by embeddings: a text belongs to the label whose description it is most like.

Given any embedder; nothing is trained. N texts, K labels, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quinze.embeddings.embedder import Embedder
from quinze.errors import InvalidRequestError
from quinze.evaluation.classification import Label, Probabilities, sigmoid, softmax

TEMPERATURE = 0.1
"""Likeness is divided by it: the smaller, the surer. Among the best of 0.02 to 0.2 by log-likelihood on the
training halves of FewCLUE's topics (benchmarks/zero_shot.py temperature)."""
RELATED = 0.15
"""Likeness from which on a text has a label, when it may have several: by the starter one wrong label in
twenty reaches it on the training halves of FewCLUE's topics (0.12 to 0.15)."""


@dataclass(frozen=True, slots=True)
class EmbeddingClassifier:
    """Immutable; may be shared by threads as its embedder may."""

    embedder: Embedder
    labels: Sequence[Label]
    template: str = "{label}"
    """What is embedded of a label: "This text is about {label}."."""
    temperature: float = TEMPERATURE

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise InvalidRequestError(
                f"The temperature is {self.temperature:g}; it must be above 0.", param="temperature"
            )
        if "{label}" not in self.template:
            raise InvalidRequestError("The template holds no {label}.", param="template")

    def probabilities(self, texts: Sequence[str], *, multi: bool = False) -> Probabilities:
        """(N, K): softmax of likeness / temperature, or the sigmoid of each when several may hold.

        A text of which the embedder knows no word has a row of NaN. InvalidRequestError for such a label.
        """
        shown = [self.template.replace("{label}", label.text) for label in self.labels]
        sides = self.embedder.embed(shown)
        empty = np.flatnonzero(~sides.any(1))
        if len(empty):
            raise InvalidRequestError(
                f"{self.embedder.id} knows no word of the label {self.labels[empty[0]].name[:80]!r}.",
                hint="Describe it in words: name=description.",
                param="labels",
            )
        vectors = self.embedder.embed(list(texts))
        likeness = vectors.astype(np.float64) @ sides.T.astype(np.float64)
        if multi:
            found = sigmoid((likeness - RELATED) / self.temperature)
        else:
            found = softmax(likeness / self.temperature) if len(texts) else likeness
        found[~vectors.any(1)] = np.nan
        return found
