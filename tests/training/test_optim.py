"""AdamW and Muon against PyTorch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from quinze.errors import CheckpointError
from quinze.training.optim import Group, Optimizer, groups_of, orthogonalize
from quinze.training.run_config import OptimizerTable


def made(shape: tuple[int, ...], seed: int) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


def train(parameters: list[torch.nn.Parameter], step: Any) -> None:
    for turn in range(6):
        for i, parameter in enumerate(parameters):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(100 * turn + i))
            parameter.grad = noise + 0.3 * parameter.detach()
        step()


def test_adamw_is_that_of_pytorch() -> None:
    mine, theirs = ([made((5, 7), 1), made((9,), 2)] for _ in range(2))
    group = Group("all", "adamw", ["a", "b"], list(mine), 0.01, 0.1, (0.9, 0.95), 1e-8)
    optimizer = Optimizer([group])
    peer = torch.optim.AdamW(theirs, lr=0.01, weight_decay=0.1, betas=(0.9, 0.95), eps=1e-8)
    train(mine, lambda: optimizer.step(1.0))
    train(theirs, peer.step)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_muon_is_that_of_pytorch() -> None:
    """PyTorch's runs Newton-Schulz in bfloat16, ours in float32."""
    shapes = [(16, 8), (8, 16), (8, 16), (12, 12)]
    mine, theirs = ([made(shape, i) for i, shape in enumerate(shapes)] for _ in range(2))
    group = Group("all", "muon", [str(i) for i in range(4)], list(mine), 0.02, 0.1, (0.95, 0.0))
    optimizer = Optimizer([group])
    peer = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=0.95)
    train(mine, lambda: optimizer.step(1.0))
    train(theirs, peer.step)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=0.02 * 0.06 * 6, rtol=0)


@pytest.mark.parametrize("shape", [(3, 20, 20), (1, 8, 64), (2, 64, 8)])
def test_newton_schulz_finds_the_nearest_orthogonal_matrix(shape: tuple[int, ...]) -> None:
    """The singular vectors are those of the matrix, the values near 1, as its author says: 0.7 to 1.2."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalize(x, steps=12)
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    torch.testing.assert_close(
        found, u @ torch.diag_embed(torch.linalg.svdvals(found)) @ v, atol=0.35, rtol=0
    )
    values = torch.linalg.svdvals(orthogonalize(x))
    assert float(values.max()) < 1.25
    assert float(values.median()) > 0.65


def test_every_parameter_is_in_one_group() -> None:
    shapes = {
        "model.embed_tokens.weight": (9, 4), "model.layers.0.mlp.up_proj.weight": (8, 4),
        "model.layers.0.input_layernorm.weight": (4,), "lm_head.weight": (9, 4),
    }  # fmt: skip
    named = {name: made(shape, 0) for name, shape in shapes.items()}
    groups = groups_of(named, OptimizerTable(kind="muon", lr=0.003, weight_decay=0.1))
    found = {name: group for group in groups for name in group.names}
    assert found.keys() == named.keys()
    assert [name for name in named if found[name].kind == "muon"] == ["model.layers.0.mlp.up_proj.weight"]
    assert [name for name in named if found[name].weight_decay] == ["model.layers.0.mlp.up_proj.weight"]


def test_moments_go_on_where_they_were() -> None:
    whole, parted = made((6, 6), 1), made((6, 6), 1)
    groups = [[Group("m", "muon", ["w"], [p], 0.02, 0.0, (0.95, 0.9))] for p in (whole, parted)]
    first = Optimizer(groups[0])
    train([whole], lambda: first.step(1.0))
    train([whole], lambda: first.step(0.5))
    before = Optimizer(groups[1])
    train([parted], lambda: before.step(1.0))
    after = Optimizer(groups[1])
    after.load(before.state(), before.steps)
    train([parted], lambda: after.step(0.5))
    assert torch.equal(whole, parted)
    with pytest.raises(CheckpointError, match="no such parameter"):
        after.load({"stranger:momentum": torch.zeros(6, 6)}, 1)
