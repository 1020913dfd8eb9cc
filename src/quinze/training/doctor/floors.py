"""What a table can do: the losses that a model must beat before it has learned anything.

    uniform    ln V: it knows the size of the vocabulary
    unigram    it knows how frequent each token is
    bigram     it knows which token follows which
    trigram    it knows what follows each pair
    compressor xz on the text itself, in bits a byte: what a general program finds in it

All but the last are nats a token, so they stand on the same axis as a training loss. Bigram and trigram are
interpolated Kneser-Ney models (Kneser & Ney 1995, in the interpolated form of Chen & Goodman 1999, equation
21, one discount n1 / (n1 + 2 n2) an order), trained on the training rows and scored on the validation rows.
Contexts and targets are taken where the run itself learns: masked labels do not count.
Numpy only; keys are sorted arrays, so memory is some 50 bytes for each token counted.
"""

from __future__ import annotations

import lzma
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from quinze.training.batch import IGNORE, Batch

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

COUNTED_TOKENS = 2_000_000
"""Training tokens that are counted at most; a second and 100 MB or so."""
SCORED_TOKENS = 200_000
COMPRESSED_BYTES = 200_000
"""xz does better on more text, so everybody's is cut to the same length."""
MOST_BATCHES = 8192


class Floors(msgspec.Struct, frozen=True, kw_only=True):
    """Losses of tables, in nats a token, and of a compressor, in bits a byte."""

    vocab_size: int
    uniform: float
    unigram: float
    bigram: float
    trigram: float
    tokens_counted: int
    """The tables were made from so many."""
    tokens_scored: int
    all_counted: bool
    """False: the training data is larger, so a table of all of it would be somewhat better."""
    bytes_per_token: float | None = None
    """Of the validation text."""
    compressor_bits_per_byte: float | None = None

    def bits_per_byte(self, nats_per_token: float) -> float | None:
        """A loss in the unit that tokenizers can be compared in."""
        return None if not self.bytes_per_token else nats_per_token / math.log(2) / self.bytes_per_token

    def lines(self) -> dict[str, float]:
        """Name -> height, for a plot of the loss."""
        return {name: getattr(self, name) for name in ("uniform", "unigram", "bigram", "trigram")}


@dataclass(frozen=True, slots=True)
class Steps:
    """N places at which something is predicted: from `before` and `last`, the `target`. Each (N,)."""

    before: Ints
    last: Ints
    target: Ints

    def __len__(self) -> int:
        return len(self.target)


def floors(train: Steps, scored: Steps, vocab_size: int, *, all_counted: bool = True) -> Floors:
    """The four tables of `train`, scored on `scored`. ValueError when one of them is empty."""
    if not len(train) or not len(scored):
        raise ValueError("nothing to count")
    tables = KneserNey(train, vocab_size)
    return Floors(
        vocab_size=vocab_size,
        uniform=math.log(vocab_size),
        unigram=_nats(unigram(train, scored, vocab_size)),
        bigram=_nats(tables.bigram(scored)),
        trigram=_nats(tables.trigram(scored)),
        tokens_counted=len(train),
        tokens_scored=len(scored),
        all_counted=all_counted,
    )


def steps_of(batches: Sequence[Batch]) -> Steps:
    """Every supervised place of the batches that has two tokens before it."""
    parts: list[tuple[Ints, Ints, Ints]] = []
    for batch in batches:
        ids, labels = batch.ids, batch.labels
        learned = labels[:, 1:] != IGNORE
        if batch.segments is not None:  # what another document ends with is no context
            learned = learned & (batch.segments[:, 1:] == batch.segments[:, :-1])
        parts.append((ids[:, :-1][learned], ids[:, 1:][learned], labels[:, 1:][learned]))
    if not parts:
        empty: Ints = np.empty(0, np.int64)
        return Steps(empty, empty, empty)
    before, last, target = (np.concatenate(column).astype(np.int64) for column in zip(*parts, strict=True))
    return Steps(before, last, target)


def steps_of_ids(ids: Sequence[int] | Ints) -> Steps:
    """The same for one plain text."""
    array = np.asarray(ids, np.int64)
    return Steps(array[:-2], array[1:-1], array[2:])


def gather(
    batches: Callable[[int], Batch], tokens: int, rows: int, *, distinct: bool = False
) -> tuple[list[Batch], bool]:
    """Batches 0, 1, ... until so many tokens are there, or every row was. Second: whether every row was.

    distinct  ends where rows come again, as those of an evaluation do
    """
    found: list[Batch] = []
    read, seen = 0, 0
    known: set[int] = set()
    for number in range(MOST_BATCHES):
        if read >= tokens or seen >= rows:
            break
        batch = batches(number)
        if distinct and known.issuperset(batch.rows.tolist()):
            break
        known.update(batch.rows.tolist())
        found.append(batch)
        read, seen = read + batch.ids.size, seen + len(batch.rows)
    return found, seen >= rows


def unigram(train: Steps, scored: Steps, vocab_size: int) -> Floats:
    """Probability of each scored target: (count + 1) / (N + V), Laplace's rule."""
    counts = np.bincount(train.target, minlength=vocab_size) + 1.0
    found: Floats = counts[scored.target] / (len(train) + vocab_size)
    return found


class KneserNey:
    """Interpolated Kneser-Ney of two and three tokens.

    highest order   P(w|h) = max(c(h w) - D, 0) / c(h) + D N1+(h .) / c(h) P'(w|h')
    lower orders    the same, with N1+(. h' w), the number of tokens seen before, in place of counts
    lowest          interpolated with 1 / V in the same way
    """

    def __init__(self, train: Steps, vocab_size: int) -> None:
        v = self._v = vocab_size
        pairs, pair_counts = np.unique(train.last * v + train.target, return_counts=True)
        triples, triple_counts = np.unique(
            (train.before * v + train.last) * v + train.target, return_counts=True
        )
        kinds, kind_counts = np.unique(pairs % v, return_counts=True)  # N1+(. w)
        middles, middle_counts = np.unique(triples % (v * v), return_counts=True)  # N1+(. v w)
        self._one = _Order(kinds, kind_counts, v)
        self._two = _Order(pairs, pair_counts, v)
        self._two_lower = _Order(middles, middle_counts, v)
        self._three = _Order(triples, triple_counts, v)

    def bigram(self, scored: Steps) -> Floats:
        """(N,) probabilities of the targets."""
        return self._two.mix(scored.last, scored.target, self._lowest(scored.target))

    def trigram(self, scored: Steps) -> Floats:
        lower = self._two_lower.mix(scored.last, scored.target, self._lowest(scored.target))
        return self._three.mix(scored.before * self._v + scored.last, scored.target, lower)

    def _lowest(self, target: Ints) -> Floats:
        return self._one.mix(np.zeros_like(target), target, np.full(len(target), 1.0 / self._v))


class _Order:
    """Counts of (context, token), sorted by context * V + token."""

    def __init__(self, keys: Ints, counts: Ints, vocab_size: int) -> None:
        self._keys, self._counts, self._v = keys, counts.astype(np.float64), vocab_size
        ones, twos = int((counts == 1).sum()), int((counts == 2).sum())
        self._discount = ones / (ones + 2 * twos) if ones and twos else 0.5
        context = keys // vocab_size
        self._contexts, starts, self._kinds = np.unique(context, return_index=True, return_counts=True)
        self._totals = np.add.reduceat(self._counts, starts) if len(starts) else self._counts

    def mix(self, context: Ints, token: Ints, lower: Floats) -> Floats:
        """Probabilities of the tokens; of contexts never seen, those of the order below."""
        counts = _look_up(self._keys, self._counts, context * self._v + token)
        totals = _look_up(self._contexts, self._totals, context)
        kinds = _look_up(self._contexts, self._kinds.astype(np.float64), context)
        safe = np.maximum(totals, 1.0)
        mixed = np.maximum(counts - self._discount, 0.0) / safe + self._discount * kinds / safe * lower
        return np.where(totals > 0, mixed, lower)


def _look_up(keys: Ints, values: Floats, wanted: Ints) -> Floats:
    if not len(keys):
        return np.zeros(len(wanted))
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0.0)


def compressor(text: str) -> float | None:
    """Bits that xz (preset 9, extreme, no container) needs for each byte of the text; None of no text."""
    raw = text.encode("utf-8")[:COMPRESSED_BYTES]
    if not raw:
        return None
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    return 8 * len(lzma.compress(raw, format=lzma.FORMAT_RAW, filters=filters)) / len(raw)


def relevance(sources: dict[str, Ints], target: Ints, vocab_size: int) -> dict[str, float]:
    """How much a table of each source knows of the target text: nats a token that its pairs are better than
    the target's own frequencies. Below 0: that source teaches it nothing.

    sources  name -> ids (N,)   target  ids (M,) of what the model shall be good at
    """
    scored = steps_of_ids(target)
    own = _nats(unigram(scored, scored, vocab_size))
    return {
        name: own - _nats(KneserNey(steps_of_ids(ids), vocab_size).bigram(scored))
        for name, ids in sources.items()
        if len(ids) > 2
    }


def _nats(probabilities: Floats) -> float:
    return float(-np.log(probabilities).mean())
