"""Cross-entropy in parts is PyTorch's on the whole; micro-batches add up to the large batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from quinze.models.transformer import Transformer
from quinze.training import losses
from quinze.training.batch import IGNORE
from quinze.training.building import build, new_config
from quinze.training.distributed import World
from quinze.training.run_config import ModelTable, RunConfig
from quinze.training.runtime import Clock
from quinze.training.stepping import compute_gradients

ALONE = World(0, 1, torch.device("cpu"))


@pytest.mark.parametrize("cap", [0.0, 2.0])
@pytest.mark.parametrize("chunk", [2**24, 500])
@pytest.mark.parametrize("tied", [True, False])
def test_cross_entropy_and_its_gradients_are_those_of_pytorch(
    cap: float, chunk: int, tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "CHUNK_NUMBERS", chunk)
    table = ModelTable(hidden_size=16, num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=tied)
    model = Transformer(replace(new_config(table, 50, 32, "tiny"), logit_softcap=cap))
    model.initialize(1, std=0.5)
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(2, 30, 16, generator=generator, requires_grad=True)
    labels = torch.randint(0, 50, (2, 30), generator=generator)
    labels[0, :9] = IGNORE
    found = losses.cross_entropy_sum(model, hidden, labels)
    mine = torch.autograd.grad(found / 7, [hidden, model.head()])
    wanted = F.cross_entropy(model.logits(hidden).flatten(0, 1), labels.flatten(), reduction="sum")
    theirs = torch.autograd.grad(wanted / 7, [hidden, model.head()])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_micro_batches_add_up_to_the_large_batch(settings: Callable[..., RunConfig]) -> None:
    """Also where some rows teach fewer tokens than others: documents end, and their ends teach nothing."""
    large = build(settings(batch={"rows": 8}).resolved(), ALONE)
    small = build(settings(batch={"rows": 2, "micro_batches": 4}).resolved(), ALONE)
    weights = {small.method.weight(small.batches.at(0, micro)) for micro in range(4)}
    assert len(weights) > 1
    one, other = compute_gradients(large, 0, Clock()), compute_gradients(small, 0, Clock())
    assert one.rows == other.rows
    assert one.loss == pytest.approx(other.loss, rel=1e-5)
    for name, parameter in large.trained.items():
        torch.testing.assert_close(
            parameter.grad,
            small.trained[name].grad,
            rtol=1e-3,
            atol=1e-6,
            msg=lambda said, n=name: f"{n}: {said}",
        )


def test_a_batch_without_a_label_teaches_nothing() -> None:
    model = Transformer(
        new_config(ModelTable(hidden_size=16, num_attention_heads=2, num_key_value_heads=2), 50, 8, "t")
    )
    model.initialize(0)
    labels = torch.full((1, 8), IGNORE)
    loss = losses.cross_entropy_sum(model, torch.randn(1, 8, 16, requires_grad=True), labels)
    assert float(loss.detach()) == 0
    loss.backward()
