"""One step's work on the weights: gradients of the whole batch, their length, and weights put back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from quinze.training import measuring
from quinze.training.building import Parts
from quinze.training.losses import Tensors
from quinze.training.optim import like
from quinze.training.runtime import Clock


@dataclass(frozen=True, slots=True)
class Gradients:
    """What was found on the way."""

    loss: float
    """Mean over the supervised tokens, or pairs, of all micro-batches and processes."""
    extra: dict[str, float]
    rows: list[int]
    """Of this process."""
    epoch: int


def compute_gradients(parts: Parts, step: int, clock: Clock) -> Gradients:
    """Those of the mean loss of step `step` (from 0), left in `.grad` of what is trained.

    Each micro-batch weighs as many tokens as it holds, so that they add up to the one large batch.
    """
    world, batch = parts.world, parts.config.batch
    with clock.waiting():
        batches = [parts.batches.at(step, micro) for micro in range(batch.micro_batches)]
    weights = [parts.method.weight(batch) for batch in batches]
    (all_,) = world.summed([float(sum(weights))])
    all_ = max(all_, 1.0)
    # FSDP makes a mean over processes of what is a sum here.
    scale = (world.size if parts.config.runtime.sharding == "fsdp" else 1) / all_
    sums: dict[str, float] = {}
    loss = 0.0
    for batch_, weight in zip(batches, weights, strict=True):
        with measuring.precision(parts):
            found = parts.method.measure(parts.transformer, Tensors.of(batch_, world.device))
        (found.total * scale).backward()  # type: ignore[no-untyped-call]
        loss += float(found.total.detach())
        for name, value in found.extra.items():
            sums[name] = sums.get(name, 0.0) + value * weight
    world.sum_gradients(parts.trained.values())
    loss, *values = world.summed([loss, *sums.values()])
    extra = {name: value / all_ for name, value in zip(sums, values, strict=True)}
    rows = [int(row) for batch_ in batches for row in batch_.rows]
    return Gradients(loss / all_, extra, rows, batches[0].epoch)


def put_weights(parts: Parts, weights: Mapping[str, torch.Tensor]) -> None:
    """Saved weights into the model."""
    with torch.no_grad():
        for name, parameter in parts.trained.items():
            parameter.copy_(like(weights[name].to(parameter.device), parameter))


def clip_gradients(parts: Parts, norm: float, limit: float | None) -> None:
    """Shorten all gradients together to `limit`, where they are longer."""
    if limit is not None and norm > limit:
        for parameter in parts.trained.values():
            if parameter.grad is not None:
                parameter.grad.mul_(limit / norm)
