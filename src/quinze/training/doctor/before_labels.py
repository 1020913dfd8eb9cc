"""Before the run, the labels (B8): what is learned, where it ends, and that it is what follows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from quinze.training.batch import IGNORE, Batch
from quinze.training.doctor.look import Look, learned
from quinze.training.doctor.words import finding
from quinze.training.events import Finding


def supervised(look: Look) -> Iterator[Finding]:
    """How many tokens are learned, in all and row by row."""
    tokens = sum(batch.labels.size for batch in look.train)
    kept = sum(int(learned(batch).sum()) for batch in look.train)
    if not kept:
        yield finding("B8.no-labels", "stop", tokens=tokens)
        return
    if kept / tokens < look.settings.few_labels:
        yield finding("B8.few-labels", "warning", share=kept / tokens)
    empty = float(np.mean(np.concatenate([~learned(batch).any(1) for batch in look.train])))
    if empty > 0.01:
        yield finding("B8.empty-rows", "warning", share=empty)


def ends(look: Look) -> Iterator[Finding]:
    """That a chat model learns to stop, and does not learn padding."""
    tokenizer = look.setup.tokenizer
    kept = sum(int(learned(batch).sum()) for batch in look.train)
    if tokenizer is None or not tokenizer.eos_ids or not kept:
        return
    eos, pad = np.array(tokenizer.eos_ids), tokenizer.pad_id
    ends_learned = sum(int(np.isin(batch.labels, eos).sum()) for batch in look.train)
    if look.setup.method == "sft" and not ends_learned:
        if pad in tokenizer.eos_ids:
            rows = sum(len(batch.rows) for batch in look.train)
            yield finding("B8.pad-is-eos", "warning", token=pad, rows=rows)
        else:
            yield finding("B8.no-eos", "warning", token=tokenizer.eos_ids[0], labels=kept)
    if pad is not None:
        repeated = sum(
            int(((batch.labels[:, 1:] == pad) & (batch.labels[:, :-1] == pad)).sum()) for batch in look.train
        )
        if repeated / kept > 0.02:
            yield finding("B8.learns-padding", "warning", share=repeated / kept, token=pad)
    if look.setup.method == "sft" and ends_learned:
        yield from _cut_off(look, np.append(eos, pad) if pad is not None else eos)


def _cut_off(look: Look, ends: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Iterator[Finding]:
    last = np.concatenate([batch.labels[:, -1] for batch in look.train])
    share = float(((last != IGNORE) & ~np.isin(last, ends)).mean())
    if share > 0.1:
        yield finding("B8.truncated", "info", share=share, length=look.train[0].ids.shape[1])


def begins(look: Look) -> Iterator[Finding]:
    """One begin token, not two."""
    bos = look.setup.tokenizer.bos_id if look.setup.tokenizer else None
    if bos is None or bos in (look.setup.tokenizer.eos_ids if look.setup.tokenizer else ()):
        return
    twice = np.concatenate(
        [((batch.ids[:, 1:] == bos) & (batch.ids[:, :-1] == bos)).any(1) for batch in look.train]
    )
    if twice.mean() > 0.01:
        yield finding("B8.bos-twice", "warning", share=float(twice.mean()), token=bos)


def shifted(look: Look) -> Iterator[Finding]:
    """labels[t] is ids[t + 1] wherever both are there and belong to one document."""
    follows, itself = _agreement(look.train, 1), _agreement(look.train, 0)
    if follows is not None and follows < 0.9:
        yield finding("B8.shift", "stop", share=follows, same=itself or 0.0)


def _agreement(batches: list[Batch], ahead: int) -> float | None:
    same, total = 0, 0
    for batch in batches:
        length = batch.ids.shape[1] - ahead
        counted = learned(batch)[:, :length]
        if batch.segments is not None:
            counted = counted & (batch.segments[:, ahead:] == batch.segments[:, :length])
        same += int(((batch.labels[:, :length] == batch.ids[:, ahead:]) & counted).sum())
        total += int(counted.sum())
    return same / total if total else None
