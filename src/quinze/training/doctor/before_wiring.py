"""Before the run, the wiring: B9 gradients, first loss and masks, B10 learning by heart, B11 files.

Everything is tried with the method's own loss on a few rows, and every weight is put back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from quinze.training.batch import IGNORE, Batch
from quinze.training.doctor.look import Look, learned
from quinze.training.doctor.untouched import first_broken, looking, naming, untouched
from quinze.training.doctor.words import finding
from quinze.training.events import Finding

ROWS = 4
"""Rows that are tried: every connection shows on them."""
NAMED = 3
"""Weights that a sentence names; the rest are counted."""


def loaded(look: Look) -> Iterator[Finding]:
    """B11: what the file of the base model did not have, and what nobody wanted of it."""
    setup = look.setup
    if setup.missing_keys:
        yield finding(
            "B11.missing-weights", "stop", count=len(setup.missing_keys), names=some(setup.missing_keys)
        )
    if setup.unexpected_keys:
        yield finding(
            "B11.unexpected-weights",
            "warning",
            count=len(setup.unexpected_keys),
            names=some(setup.unexpected_keys),
        )


def trainable(look: Look) -> Iterator[Finding]:
    """B9: numbers are numbers; what shall learn can, and is in the optimizer; adapters begin neutral."""
    setup = look.setup
    named = dict(setup.transformer.named_parameters())
    if broken := first_broken(setup.transformer):
        yield finding("B9.not-finite", "stop", tensor=broken)
        return
    frozen = [name for name, parameter in named.items() if not parameter.requires_grad]
    if frozen and not setup.lora:
        yield finding(
            "B9.frozen",
            "info" if setup.base_loaded else "warning",
            count=len(frozen),
            total=len(named),
            names=some(frozen),
        )
    grouped = {id(parameter) for group in setup.groups.values() for parameter in group}
    left_out = [name for name, p in named.items() if p.requires_grad and id(p) not in grouped]
    if setup.groups and left_out:
        yield finding(
            "B9.not-optimized",
            "warning",
            count=len(left_out),
            total=len(named) - len(frozen),
            names=some(left_out),
        )
    if setup.lora and not setup.resumed_step:
        moved = [name for name, p in named.items() if "lora_B" in name and bool((p != 0).any())]
        if moved:
            yield finding("B9.adapter-not-neutral", "warning", count=len(moved), names=some(moved))


def gradients(look: Look) -> Iterator[Finding]:
    """B9: one pass forth and back reaches every weight that shall learn."""
    setup, batch = look.setup, _some_rows(look)
    if batch is None:
        return
    model = setup.transformer
    with untouched(model, training=True):
        _fill_zeros(model)
        loss = setup.loss(batch)
        if not math.isfinite(float(loss.detach())):
            return  # first_loss speaks of it
        loss.backward()  # type: ignore[no-untyped-call]
        asked = {name: p for name, p in model.named_parameters() if p.requires_grad}
        without = [name for name, p in asked.items() if p.grad is None or not bool((p.grad != 0).any())]
        broken = first_broken(model)
    if broken:
        yield finding("B9.not-finite", "stop", tensor=broken)
    elif without:
        yield finding(
            "B9.no-gradient",
            "stop" if len(without) == len(asked) else "warning",
            count=len(without),
            total=len(asked),
            names=some(without),
        )


def _fill_zeros(model: torch.nn.Module) -> None:
    """Matrices that begin with zeros (output projections, lora_B) let no gradient through to what stands
    before them in the first step; that is meant so. A little noise shows the connection."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2 and parameter.requires_grad and not bool((parameter != 0).any()):
                parameter.normal_(0.0, 0.02)


def _amplify(model: torch.nn.Module) -> None:
    """In a fresh model tokens hardly heed each other; ten times larger matrices make every look show."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and "embed" not in name:
                parameter.mul_(10)


def first_loss(look: Look) -> Iterator[Finding]:
    """B9: a fresh model guesses blindly; a trained one does better than a table of frequencies."""
    setup, batch = look.setup, _some_rows(look)
    if batch is None or setup.resumed_step:
        return
    with looking(setup.transformer):
        loss = float(setup.loss(batch))
        if not math.isfinite(loss):
            places: list[str] = []
            with naming(setup.transformer, places):
                setup.loss(batch)
            yield finding(
                "B9.loss-not-finite", "stop", loss=str(loss), place=places[0] if places else "the loss itself"
            )
            return
    uniform = math.log(setup.model.vocab_size)
    if setup.method == "dpo":
        return
    if setup.base_loaded:
        if look.floors and look.floors.tokens_counted >= 5000 and loss > look.floors.unigram:
            yield finding("B9.base-knows-nothing", "warning", loss=loss, unigram=look.floors.unigram)
    elif loss > uniform * 1.1 + 0.1:
        yield finding("B9.initial-loss-high", "warning", loss=loss, uniform=uniform)
    elif loss < uniform * 0.9 - 0.1:
        yield finding("B9.initial-loss-low", "warning", loss=loss, uniform=uniform)


def masks(look: Look) -> Iterator[Finding]:
    """B9: later tokens, other documents and other rows leave a loss as it is."""
    setup, batch = look.setup, _some_rows(look)
    if batch is None or setup.method == "dpo":
        return
    with untouched(setup.transformer, training=False), torch.no_grad():
        _fill_zeros(setup.transformer)
        if not setup.base_loaded:
            _amplify(setup.transformer)
        whole = float(setup.loss(batch))
        if not math.isfinite(whole):
            return
        if pair := _changed_later(batch, setup.model.vocab_size):
            before, after = (float(setup.loss(each)) for each in pair)
            if _differ(before, after, 1e-3):
                yield finding("B9.sees-ahead", "stop", before=before, after=after)
        if pair := _changed_document(batch, setup.model.vocab_size):
            before, after = (float(setup.loss(each)) for each in pair)
            if _differ(before, after, 1e-3):
                yield finding("B9.sees-other-document", "warning", before=before, after=after)
        counts = learned(batch).sum(1)
        alone = sum(
            float(setup.loss(rows_of(batch, [i]))) * count for i, count in enumerate(counts) if count
        ) / int(counts.sum())
        if _differ(whole, alone, 5e-3):  # in half precision other sums round otherwise
            yield finding("B9.batch-split", "warning", rows=len(counts), together=whole, alone=alone)


def _differ(a: float, b: float, share: float) -> bool:
    return abs(a - b) > share * max(abs(a), abs(b), 0.1)


def _changed_later(batch: Batch, vocab_size: int) -> tuple[Batch, Batch] | None:
    """The batch learning only its first half, and the same with other tokens in the second."""
    half = batch.ids.shape[1] // 2
    labels, ids = batch.labels.copy(), batch.ids.copy()
    labels[:, half:] = IGNORE
    ids[:, half:] = (ids[:, half:] + 1) % vocab_size
    if not (labels != IGNORE).any() or half == 0:
        return None
    return replace(batch, labels=labels), replace(batch, labels=labels, ids=ids)


def _changed_document(batch: Batch, vocab_size: int) -> tuple[Batch, Batch] | None:
    """The batch learning all but each row's first document, and the same with other tokens in that one."""
    if batch.segments is None:
        return None
    first = batch.segments == batch.segments[:, :1]
    labels = np.where(first, IGNORE, batch.labels)
    if not (labels != IGNORE).any():
        return None
    ids = np.where(first, (batch.ids + 1) % vocab_size, batch.ids)
    return replace(batch, labels=labels), replace(batch, labels=labels, ids=ids)


def memorizes(look: Look) -> Iterator[Finding]:
    """B10: a few rows are learned by heart in a few steps, or nothing can be."""
    setup, settings, batch = look.setup, look.settings, _some_rows(look)
    if batch is None or setup.method == "dpo" or setup.base_loaded:
        return
    batch = _shortened(batch, 128)
    steps = settings.memorize_steps
    weights = [p for p in setup.transformer.parameters() if p.requires_grad]
    with untouched(setup.transformer, training=False):
        optimizer = torch.optim.AdamW(weights, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0)
        before = after = float("nan")
        began = time.monotonic()
        for step in range(steps):
            optimizer.zero_grad()
            loss = setup.loss(batch)
            after = float(loss.detach())
            before = after if step == 0 else before
            if not math.isfinite(after):
                return
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if after < before * 0.75:
                return
            if (time.monotonic() - began) / (step + 1) * steps > settings.wiring_seconds:
                return  # too slow to be worth it here; the run itself will show it
    yield finding("B10.cannot-memorize", "warning", steps=steps, before=before, after=after)


def _some_rows(look: Look) -> Batch | None:
    """A few rows that learn something; of DPO whole batches, for their rows belong together. None: none do,
    or their ids do not fit."""
    if look.largest_id >= look.setup.model.vocab_size:
        return None
    for batch in look.train[:8]:
        rows = np.flatnonzero(learned(batch).any(1))
        if look.setup.method == "dpo" and len(rows):
            return batch
        if len(rows):
            return rows_of(batch, rows[:ROWS].tolist())
    return None


def rows_of(batch: Batch, rows: list[int]) -> Batch:
    return replace(
        batch,
        ids=batch.ids[rows],
        labels=batch.labels[rows],
        segments=None if batch.segments is None else batch.segments[rows],
        rows=batch.rows[rows],
    )


def _shortened(batch: Batch, length: int) -> Batch:
    short = replace(
        batch,
        ids=batch.ids[:, :length],
        labels=batch.labels[:, :length],
        segments=None if batch.segments is None else batch.segments[:, :length],
    )
    return short if learned(short).any() else batch


def some(names: list[str] | tuple[str, ...]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f", ... {more} more" if more > 0 else "")
