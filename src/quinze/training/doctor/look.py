"""What all rules of "before the run" look at, gathered once: batches, floors, a sample of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from quinze.training.batch import IGNORE, Batch
from quinze.training.doctor.floors import Floors, compressor, floors, gather, steps_of
from quinze.training.doctor.settings import DoctorSettings
from quinze.training.watch import Setup

TEXT_TOKENS = 150_000
"""That are decoded at most."""


@dataclass(frozen=True, slots=True)
class RowText:
    """One row (or what of it was read) as its reader sees it."""

    tokens: int
    text: str

    @property
    def bytes(self) -> int:
        return len(self.text.encode("utf-8", "replace"))


@dataclass(frozen=True, slots=True)
class Look:
    setup: Setup
    settings: DoctorSettings
    train: list[Batch]
    """Batches 0, 1, ... of the run."""
    all_read: bool
    """Whether every training row is among them."""
    validation: list[Batch]
    floors: Floors | None
    """None where nothing is learned, or no id fits the vocabulary."""
    texts: list[RowText]
    """Some training rows, decoded; [] without a decoder."""
    largest_id: int

    @property
    def share_read(self) -> float:
        """Of the training rows."""
        rows = sum(len(batch.rows) for batch in self.train)
        return 1.0 if self.all_read else min(1.0, rows / max(1, self.setup.train.rows))

    @property
    def bytes_per_token(self) -> float | None:
        tokens = sum(row.tokens for row in self.texts)
        return sum(row.bytes for row in self.texts) / tokens if tokens else None


def look(setup: Setup, settings: DoctorSettings) -> Look:
    """Reads at most `settings.counted_tokens`; no weight is touched."""
    train, all_read = gather(
        lambda number: setup.batches(number, 0), settings.counted_tokens, setup.train.rows
    )
    if len(train) > 1:  # an epoch's last batch may reach into the next one
        first = train[0].epoch
        train = [batch for batch in train if batch.epoch == first] or train[:1]
    validation: list[Batch] = []
    if setup.validation_batches and setup.validation:
        validation, _ = gather(
            setup.validation_batches, settings.scored_tokens, setup.validation.rows, distinct=True
        )
    largest = max((int(batch.ids.max()) for batch in [*train, *validation]), default=0)
    texts = _texts(setup, train)
    found = None
    if largest < setup.model.vocab_size:
        found = _floors(setup, train, validation, all_read)
    return Look(setup, settings, train, all_read, validation, found, texts, largest)


def _floors(setup: Setup, train: list[Batch], validation: list[Batch], all_read: bool) -> Floors | None:
    counted, scored = steps_of(train), steps_of(validation)
    if len(scored) < 100:  # no validation split: the last tenth of what was counted is kept apart
        cut = max(1, len(train) // 10)
        counted, scored = steps_of(train[:-cut]), steps_of(train[-cut:])
    if not len(counted) or not len(scored):
        return None
    found = floors(counted, scored, setup.model.vocab_size, all_counted=all_read)
    rows = _texts(setup, validation)
    tokens, length = sum(row.tokens for row in rows), sum(row.bytes for row in rows)
    known = setup.validation
    per_token = known.bytes / known.tokens if known and known.bytes and known.tokens else None
    if per_token is None and tokens:
        per_token = length / tokens
    squeezed = compressor("".join(row.text for row in rows)) if rows else None
    return msgspec.structs.replace(found, bytes_per_token=per_token, compressor_bits_per_byte=squeezed)


def _texts(setup: Setup, batches: Sequence[Batch]) -> list[RowText]:
    decode = setup.tokenizer.decode if setup.tokenizer else None
    if decode is None:
        return []
    pad = setup.tokenizer.pad_id if setup.tokenizer else None
    length = batches[0].ids.shape[1] if batches else 1
    rows = [row for batch in batches for row in batch.ids][: max(1, TEXT_TOKENS // length)]
    kept = [row[row != pad] if pad is not None else row for row in rows]
    return [RowText(len(row), decode(row.tolist())) for row in kept if len(row)]


def learned(batch: Batch) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """(B, T) where something is learned."""
    return np.asarray(batch.labels != IGNORE)
