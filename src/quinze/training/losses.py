"""What a run makes smaller: the cross-entropy of next tokens, or the loss of preferences.

A method gives a sum and its weight, never a mean: micro-batches and processes then add up to exactly the loss
of the one large batch, however many supervised tokens each of them holds.

B rows, T time, C hidden size, V vocabulary, N supervised tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quinze.models.transformer import Transformer
from quinze.training.batch import IGNORE, Batch
from quinze.training.dpo import DpoConfig, dpo_loss

CHUNK_NUMBERS = 2**22
"""Logits of so many numbers (16 MB) exist at one time; more tokens x vocabulary are taken in parts."""


@dataclass(frozen=True, slots=True)
class Tensors:
    """A Batch on its device."""

    ids: Tensor
    """(B, T)"""
    labels: Tensor
    """(B, T)"""
    segments: Tensor | None

    @classmethod
    def of(cls, batch: Batch, device: torch.device) -> Tensors:
        ids, labels = (torch.from_numpy(x).to(device, non_blocking=True) for x in (batch.ids, batch.labels))
        segments = None if batch.segments is None else torch.from_numpy(batch.segments).to(device)
        return cls(ids, labels, segments)


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one micro-batch."""

    total: Tensor
    """A sum over what `weight` counts, with its graph."""
    extra: dict[str, float] = field(default_factory=dict)
    """Means over the same, for StepReport.extra."""


class Method(Protocol):
    """The seam for new methods: one of these is all the trainer needs (`method_of`)."""

    def weight(self, batch: Batch) -> int:
        """Over how many the sum of this batch goes: supervised tokens, or pairs."""
        ...

    def measure(self, transformer: Transformer, tensors: Tensors) -> Measured: ...


class NextToken:
    """Pre-training, and SFT, whose labels are IGNORE where nothing is learned."""

    def weight(self, batch: Batch) -> int:
        return int((batch.labels != IGNORE).sum())

    def measure(self, transformer: Transformer, tensors: Tensors) -> Measured:
        hidden = transformer.hidden(tensors.ids, tensors.segments)
        return Measured(cross_entropy_sum(transformer, hidden, tensors.labels))


class Preferences:
    """DPO: rows in pairs, chosen before rejected."""

    def __init__(self, config: DpoConfig, reference: nn.Module | None) -> None:
        self.config, self.reference = config, reference

    def weight(self, batch: Batch) -> int:
        return len(batch.ids) // 2

    def measure(self, transformer: Transformer, tensors: Tensors) -> Measured:
        found = dpo_loss(
            transformer,
            tensors.ids,
            tensors.labels,
            self.config,
            segments=tensors.segments,
            reference=self.reference,
        )
        return Measured(found.loss * found.pairs, found.extra)


def cross_entropy_sum(transformer: Transformer, hidden: Tensor, labels: Tensor) -> Tensor:
    """Sum of nats over the labels that are not IGNORE. hidden (B, T, C), labels (B, T).

    Logits of supervised tokens only; in parts where (N, V) would be large, each part's gradient taken at once
    so that none of its logits are kept.
    """
    states, targets = hidden.flatten(0, 1), labels.flatten()
    told = targets != IGNORE
    if not bool(told.all()):
        states, targets = states[told], targets[told]
    head, cap = transformer.head(), transformer.config.logit_softcap
    if targets.numel() * head.shape[0] <= CHUNK_NUMBERS:
        return F.cross_entropy(transformer.logits(states).float(), targets, reduction="sum")
    if torch.is_autocast_enabled(states.device.type):
        states = states.to(torch.get_autocast_dtype(states.device.type))
    total: Tensor = _InParts.apply(states, head, targets, cap)  # type: ignore[no-untyped-call]
    return total


class _InParts(torch.autograd.Function):
    """Linear layer and cross-entropy in one, gradients computed on the way forward."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, head: Tensor, targets: Tensor, cap: float) -> Tensor:
        rows = max(1, CHUNK_NUMBERS // head.shape[0])
        wide = head.to(states.dtype)
        total = states.new_zeros((), dtype=torch.float32)
        wanted = any(ctx.needs_input_grad)
        to_states = torch.empty_like(states) if wanted else None
        to_head = torch.zeros_like(head, dtype=torch.float32) if wanted else None
        for at in range(0, len(targets), rows):
            part, target = states[at : at + rows], targets[at : at + rows]
            logits = (part @ wide.T).float()
            bent = torch.tanh(logits / cap) if cap else logits
            logits = bent * cap if cap else logits
            logs = logits.log_softmax(-1)
            total -= logs.gather(-1, target[:, None]).sum()
            if to_states is not None and to_head is not None:
                slope = logs.exp_()  # softmax - one-hot
                slope[torch.arange(len(target), device=target.device), target] -= 1
                slope = (slope * (1 - bent * bent) if cap else slope).to(states.dtype)
                to_states[at : at + rows] = slope @ wide
                to_head += slope.T @ part
        ctx.save_for_backward(to_states, to_head)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        to_states, to_head = ctx.saved_tensors
        return to_states * grads[0], to_head * grads[0], None, None
