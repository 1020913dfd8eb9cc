"""What a model can do so far: its loss on text that it does not learn from, and how it continues a prompt."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt
import torch

from quinze.tokenizer.tokenizer import Tokenizer
from quinze.training.batch import IGNORE, Batch
from quinze.training.building import Parts
from quinze.training.distributed import gather_no_more
from quinze.training.losses import Preferences, Tensors

Rows = npt.NDArray[np.int64]


def precision(parts: Parts) -> AbstractContextManager[object]:
    """In which products are computed: bfloat16 on CUDA unless told otherwise; weights stay float32."""
    wanted, device = parts.config.runtime.precision, parts.world.device.type
    if wanted == "bfloat16" or (wanted == "auto" and device == "cuda"):
        return torch.autocast(device, torch.bfloat16)
    return contextlib.nullcontext()


def affordable_rows(parts: Parts) -> int | None:
    """Rows of an evaluation for which the share of the deadline suffices; None: all that were asked for."""
    table, minutes = parts.config.evaluation, parts.config.schedule.minutes
    if minutes is None or not rows_of(parts):
        return None
    size = parts.config.batch.rows
    seconds = min(_seconds_of_a_batch(parts) for _ in range(2))  # the first one warms up
    most = table.share * minutes * 60 / (table.times + 2)
    count = size * max(1, int(most / max(seconds, 1e-9)))
    (count,) = map(int, parts.world.of_first([float(count)]))
    asked = table.rows or rows_of(parts)
    return count if count < min(asked, rows_of(parts)) else None


@torch.no_grad()
def _seconds_of_a_batch(parts: Parts) -> float:
    began = time.perf_counter()
    with _at_rest(parts), precision(parts):
        batch = validation_batch(parts, np.arange(parts.config.batch.rows) % rows_of(parts), 0)
        float(parts.method.measure(parts.transformer, Tensors.of(batch, parts.world.device)).total)
    return time.perf_counter() - began


def validation_rows(parts: Parts, most: int | None = None) -> Rows:
    """Which rows are read: evenly spread, always the same; `most`: instead of what the settings say. Pairs
    stay together."""
    total, most = rows_of(parts), most or parts.config.evaluation.rows
    pair = 2 if parts.data.manifest.kind == "preference" else 1
    units = total // pair
    count = units if most is None else min(units, max(1, most // pair))
    chosen = np.linspace(0, units - 1, count).round().astype(np.int64) if count else np.empty(0, np.int64)
    return (chosen[:, None] * pair + np.arange(pair)).reshape(-1)


def rows_of(parts: Parts) -> int:
    """Rows of the validation split; 0 where there is none."""
    split = parts.config.data.validation
    return parts.data.rows(split) if split in parts.data.manifest.splits else 0


def validation_batch(parts: Parts, rows: Rows, number: int) -> Batch:
    """All have one shape, for compiled code: what is missing in the last is filled with rows of no labels."""
    size = parts.config.batch.rows
    mine = rows[number * size : (number + 1) * size]
    filled = np.resize(mine, size)
    ids, labels, segments = parts.data.stack(parts.config.data.validation, filled, np.zeros(size, np.int64))
    labels = np.array(labels)
    if not isinstance(parts.method, Preferences):
        labels[len(mine) :] = IGNORE
    return Batch(ids, labels, segments, filled, epoch=0)


@torch.no_grad()
def evaluate(parts: Parts, most: int | None = None) -> tuple[float, float | None]:
    """(mean loss, bits per byte or None) of the validation rows, shared out among the processes; of `most`
    rows where the settings ask for too many."""
    rows, world = validation_rows(parts, most), parts.world
    count = math.ceil(len(rows) / parts.config.batch.rows)
    total = weight = size = 0.0
    with _at_rest(parts):
        for turn in range(math.ceil(count / world.size)):
            number = turn * world.size + world.rank
            batch = validation_batch(parts, rows, min(number, count - 1))
            with precision(parts):  # all take part in every turn: FSDP gathers its layers together
                found = float(parts.method.measure(parts.transformer, Tensors.of(batch, world.device)).total)
            if number < count:
                total += found
                weight += parts.method.weight(batch)
                size += float(parts.data.token_bytes[batch.labels[batch.labels != IGNORE]].sum())
    total, weight, size = world.summed([total, weight, size])
    bits = total / math.log(2) / size if size and not isinstance(parts.method, Preferences) else None
    return total / max(weight, 1), bits


@torch.no_grad()
def sample(parts: Parts, tokenizer: Tokenizer, prompt: str, seed: int) -> str:
    """How the model goes on from `prompt`; the same seed gives the same text."""
    settings, context = parts.config.evaluation, parts.data.manifest.sequence_length
    generator = torch.Generator().manual_seed(seed)
    ids = tokenizer.encode(prompt)
    written: list[int] = []
    with _at_rest(parts), torch.compiler.set_stance("force_eager"):
        while len(written) < settings.sample_tokens:
            seen = torch.tensor([(ids + written)[-context:] or [0]], device=parts.world.device)
            with precision(parts):
                logits = parts.transformer(seen)[0, -1].float().cpu()
            if settings.temperature:
                weights = (logits / settings.temperature).softmax(-1)
                found = int(torch.multinomial(weights, 1, generator=generator))
            else:
                found = int(logits.argmax())
            if found in tokenizer.stop_ids:
                break
            written.append(found)
    return tokenizer.decode(written)


@contextlib.contextmanager
def _at_rest(parts: Parts) -> Iterator[None]:
    """Without dropout."""
    was = parts.transformer.training
    parts.transformer.eval()
    try:
        yield
    finally:
        parts.transformer.train(was)
        gather_no_more(parts.transformer)
