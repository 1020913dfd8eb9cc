"""How well a model foretells text: nats, bits a byte, perplexity. Of any callable that scores.

    Score = (context ids, continuation ids) -> log-probability of each continuation id, natural logarithm

Text longer than the model's window is read in overlapping windows: each token is judged once, with as much
before it as `stride` leaves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quinze.errors import InvalidRequestError

Floats = npt.NDArray[np.floating]
Score = Callable[[Sequence[int], Sequence[int]], Floats]
Logits = Callable[[npt.NDArray[np.int64]], Floats]
"""ids (T,) -> logits (T, V)."""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Sums over a text, so that parts can be added."""

    nats: float
    """Minus the log-probability of all tokens together."""
    tokens: int
    bytes: int
    characters: int

    @property
    def loss(self) -> float:
        """Nats a token."""
        return self.nats / max(1, self.tokens)

    @property
    def perplexity(self) -> float:
        """exp(loss): of this tokenizer's tokens, so not comparable with another's."""
        return math.exp(min(self.loss, 700.0))

    @property
    def bits_per_byte(self) -> float:
        """Comparable between tokenizers: bits for each UTF-8 byte of the text."""
        return self.nats / math.log(2) / max(1, self.bytes)

    @property
    def byte_perplexity(self) -> float:
        return math.exp2(min(self.bits_per_byte, 1000.0))

    def __add__(self, other: Likelihood) -> Likelihood:
        return Likelihood(
            self.nats + other.nats,
            self.tokens + other.tokens,
            self.bytes + other.bytes,
            self.characters + other.characters,
        )


def scored_by(logits: Logits) -> Score:
    """Any callable from ids (T,) to logits (T, V), as a Score."""

    def score(context: Sequence[int], continuation: Sequence[int]) -> Floats:
        if not context:
            raise InvalidRequestError("A first token has nothing before it; begin with the begin token.")
        ids = np.asarray([*context, *continuation], np.int64)
        return gathered(np.asarray(logits(ids[:-1]))[len(context) - 1 :], continuation)

    return score


def gathered(logits: Floats, ids: Sequence[int]) -> Floats:
    """Log-probability (T,) of each id, of the logits (T, V) that foretell it."""
    rows = np.asarray(logits, np.float64)
    top = rows.max(1, keepdims=True)
    log_z = top[:, 0] + np.log(np.exp(rows - top).sum(1))
    found: Floats = rows[np.arange(len(ids)), np.asarray(ids)] - log_z
    return found


def windows(
    ids: Sequence[int], length: int, stride: int | None = None
) -> Iterator[tuple[list[int], list[int]]]:
    """(context, continuation) pairs that judge every id but the first once; together at most length + 1 ids.

    stride  new ids a window, the rest of it is context; None: as many as fit, so that the context is short
            at each window's beginning. Smaller is slower and nearer to what the model knows.
    """
    step = length if stride is None else stride
    if not 1 <= step <= length:
        raise InvalidRequestError(f"A stride of {step} does not lie between 1 and {length}.", param="stride")
    ids = list(ids)
    done = 1
    while done < len(ids):
        # The first window has nothing before it, so it may judge as many as it holds.
        end = min(len(ids), done + (length if done == 1 else step))
        start = max(0, end - length - 1)
        yield ids[start:done], ids[done:end]
        done = end


def likelihood(
    score: Score,
    ids: Sequence[int],
    text: str,
    length: int,
    *,
    stride: int | None = None,
    bos_id: int | None = None,
) -> Likelihood:
    """Of one text. With `bos_id` its first token is judged too; without, it is not, while its bytes count."""
    whole = list(ids) if bos_id is None or (len(ids) and ids[0] == bos_id) else [bos_id, *ids]
    nats, tokens = 0.0, 0
    for context, continuation in windows(whole, length, stride):
        nats -= float(np.sum(score(context, continuation)))
        tokens += len(continuation)
    return Likelihood(nats, tokens, len(text.encode("utf-8")), len(text))
