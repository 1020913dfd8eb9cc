"""DPO: preferences learned directly from pairs of replies, without a reward model (Rafailov et al. 2023).

    loss = -log sigmoid(beta * ((log p(chosen) - log r(chosen)) - (log p(rejected) - log r(rejected))))

p is the model, r the reference it started from: the model itself with its adapter switched off, or a frozen
copy. Rows of a batch come in pairs, chosen before rejected. Both log-probabilities are reported as they are,
for the loss falls happily while both replies grow unlikely, and so are the lengths, which DPO likes to learn
instead of quality.

B rows, P pairs (B = 2 P), T time, C hidden size, V vocabulary, N supervised tokens.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Protocol

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from quinze.errors import InvalidRequestError
from quinze.training.batch import IGNORE
from quinze.training.lora import lora_layers, without_adapter

CHUNK = 1024
"""Supervised tokens whose logits (CHUNK, V) exist at one time."""


class DpoConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[dpo]` table of a run."""

    beta: Annotated[float, msgspec.Meta(gt=0)] = 0.1
    """How closely the model is held to its reference; smaller lets it go further."""
    label_smoothing: Annotated[float, msgspec.Meta(ge=0, lt=0.5)] = 0.0
    """Share of pairs that are taken to be labeled the wrong way round."""
    sft_weight: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Adds so much of the mean cross-entropy of the chosen replies, which keeps them likely."""


class Language(Protocol):
    """What is needed of Transformer."""

    def hidden(self, ids: Tensor, segments: Tensor | None = None) -> Tensor: ...
    def logits(self, hidden: Tensor) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class LogProbs:
    """Of the supervised tokens of each row."""

    total: Tensor
    """(B,) nats, a sum; it carries the gradient."""
    tokens: Tensor
    """(B,) how many they are."""


@dataclass(frozen=True, slots=True)
class DpoLoss:
    loss: Tensor
    """Mean over the pairs; its gradient is that of the model alone."""
    extra: dict[str, float]
    """For StepReport.extra; see `_measured`."""
    pairs: int


def dpo_loss(
    model: nn.Module,
    ids: Tensor,
    labels: Tensor,
    config: DpoConfig,
    *,
    segments: Tensor | None = None,
    reference: nn.Module | None = None,
) -> DpoLoss:
    """One batch of pairs: rows 0, 2, 4 ... chosen, 1, 3, 5 ... rejected; labels as in Batch.

    reference  None: the model with its adapter off; else a frozen copy (`frozen_copy`)
    """
    if ids.shape[0] % 2:
        raise InvalidRequestError(f"A batch of pairs has an even number of rows; this has {ids.shape[0]}.")
    with torch.no_grad(), _reference(model, reference) as other:
        theirs = log_probs(other, ids, labels, segments)
    mine = log_probs(model, ids, labels, segments)
    chosen, rejected = mine.total[::2] - theirs.total[::2], mine.total[1::2] - theirs.total[1::2]  # (P,)
    losses = sigmoid_loss(chosen, rejected, config.beta, config.label_smoothing)
    loss = losses.mean()
    if config.sft_weight:
        tokens = mine.tokens[::2].sum().clamp(min=1)
        loss = loss - config.sft_weight * mine.total[::2].sum() / tokens
    return DpoLoss(loss, _measured(chosen, rejected, mine, config.beta), len(chosen))


def sigmoid_loss(chosen: Tensor, rejected: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """(P,) from log p - log r of both replies (P,); equation 7 of the paper, smoothed as in cDPO."""
    margin = beta * (chosen - rejected)
    return -F.logsigmoid(margin) * (1 - label_smoothing) - F.logsigmoid(-margin) * label_smoothing


def log_probs(model: nn.Module, ids: Tensor, labels: Tensor, segments: Tensor | None = None) -> LogProbs:
    """log p of the supervised tokens of each row. ids, labels (B, T).

    Logits are computed for supervised tokens only, some at a time, and again in the backward pass.
    """
    language: Language = model  # type: ignore[assignment]  # a Transformer, by its shape
    hidden = language.hidden(ids, segments)  # (B, T, C)
    told = labels != IGNORE
    rows = torch.arange(len(ids), device=ids.device)[:, None].expand_as(labels)[told]  # (N,)
    states, wanted = hidden[told], labels[told]

    def some(state: Tensor, target: Tensor) -> Tensor:
        logits = language.logits(state).float()
        return logits.gather(-1, target[:, None])[:, 0] - logits.logsumexp(-1)

    parts = [
        checkpoint(some, states[at : at + CHUNK], wanted[at : at + CHUNK], use_reentrant=False)
        for at in range(0, len(wanted), CHUNK)
    ]
    total = torch.zeros(len(ids), device=ids.device)
    if parts:
        total = total.index_add(0, rows, torch.cat(parts))
    return LogProbs(total, told.sum(dim=1))


def frozen_copy(model: nn.Module) -> nn.Module:
    """The reference of a full fine-tuning: as large as the model, so count it in the memory."""
    return copy.deepcopy(model).requires_grad_(False).eval()


@contextlib.contextmanager
def _reference(model: nn.Module, reference: nn.Module | None) -> Iterator[nn.Module]:
    if reference is not None:
        yield reference
        return
    if not lora_layers(model):
        raise InvalidRequestError(
            "DPO without an adapter needs a reference of its own.",
            hint="Give it a [lora] table, or a frozen copy of the model.",
        )
    was, _ = model.training, model.eval()  # no dropout in what the model is measured against
    try:
        with without_adapter(model):
            yield model
    finally:
        model.train(was)


def _measured(chosen: Tensor, rejected: Tensor, mine: LogProbs, beta: float) -> dict[str, float]:
    """What tells whether a run goes well.

    chosen, rejected                  rewards: beta * (log p - log r); margin: their difference
    accuracy                          share of pairs with a positive margin
    chosen_logprob, rejected_logprob  log p of whole replies, mean; both falling is the known failure
    chosen_tokens, rejected_tokens    mean lengths
    length_bias                       correlation of margin and difference in length, -1 to 1; near 1
                                      the model learns to be long; 0 where all differences are alike
    """
    c, r = chosen.detach().double(), rejected.detach().double()
    lengths = mine.tokens.double()
    total = mine.total.detach().double()
    margin = beta * (c - r)
    return {
        "chosen": float(beta * c.mean()),
        "rejected": float(beta * r.mean()),
        "margin": float(margin.mean()),
        "accuracy": float((margin > 0).double().mean()),
        "chosen_logprob": float(total[::2].mean()),
        "rejected_logprob": float(total[1::2].mean()),
        "chosen_tokens": float(lengths[::2].mean()),
        "rejected_tokens": float(lengths[1::2].mean()),
        "length_bias": _correlation(margin, lengths[::2] - lengths[1::2]),
    }


def _correlation(a: Tensor, b: Tensor) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(a.norm() * b.norm())
    found = float(a @ b) / size if size > 0 else 0.0
    return found if math.isfinite(found) else 0.0
