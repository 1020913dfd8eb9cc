"""Optimizers: AdamW for vectors, embeddings and heads, Muon for the matrices between them.

Given a module's parameters; changes them in place. Which parameter is whose is decided here by its name
and shape, and nowhere else. Moments are kept and saved by the names of their parameters, so that a checkpoint
does not depend on any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from quinze.errors import CheckpointError
from quinze.training.run_config import OptimizerTable

Kind = Literal["muon", "adamw"]

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Jordan's quintic: its slope at 0 is as great as it may be while singular values of 1 stay within 0.7 to
1.2 (https://kellerjordan.github.io/posts/muon, 2024)."""
NEWTON_SCHULZ_STEPS = 5


@dataclass(slots=True)
class Group:
    """Parameters that are treated alike."""

    name: str
    kind: Kind
    names: list[str]
    parameters: list[Tensor]
    lr: float
    """At its peak; the schedule multiplies it."""
    weight_decay: float
    betas: tuple[float, float] = (0.9, 0.95)
    """Muon's momentum is the first."""
    eps: float = 1e-10


def groups_of(named: Mapping[str, Tensor], table: OptimizerTable) -> list[Group]:
    """Who moves what: matrices of layers (Muon, or AdamW with decay), embeddings and heads, vectors.

    named  the trainable parameters; an adapter's matrices count as layers' matrices
    """
    matrices = {n: p for n, p in named.items() if p.ndim == 2 and ".layers." in n}
    vectors = {n: p for n, p in named.items() if p.ndim != 2}
    ends = {n: p for n, p in named.items() if n not in matrices and n not in vectors}
    lr = table.lr
    if lr is None or table.kind is None:
        raise ValueError("a run's config is resolved first")
    by_muon = table.kind == "muon"
    beta = table.muon_momentum if by_muon else table.betas[0]

    def group(name: str, kind: Kind, of: Mapping[str, Tensor], peak: float, **more: Any) -> Group:
        return Group(name, kind, list(of), list(of.values()), peak, eps=table.eps, **more)

    return [
        group(
            "muon matrices" if by_muon else "adamw matrices",
            table.kind,
            matrices,
            table.muon_lr if by_muon else lr,
            weight_decay=table.weight_decay,
            betas=(beta, table.betas[1]),
        ),
        group("adamw embeddings", "adamw", ends, lr, weight_decay=0.0, betas=table.betas),
        group("adamw vectors", "adamw", vectors, lr, weight_decay=0.0, betas=table.betas),
    ]


class Optimizer:
    """All groups of a run. `step(share)` moves every parameter that has a gradient."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = [group for group in groups if group.parameters]
        self.moments: dict[str, dict[str, Tensor]] = {}
        self.steps = 0

    def parameters(self) -> Iterable[Tensor]:
        return (parameter for group in self.groups for parameter in group.parameters)

    def zero_grad(self) -> None:
        for parameter in self.parameters():
            parameter.grad = None

    @torch.no_grad()
    def step(self, share: float) -> None:
        """share  of each group's peak learning rate"""
        self.steps += 1
        for group in self.groups:
            lr = group.lr * share
            live = [
                (name, p) for name, p in zip(group.names, group.parameters, strict=True) if p.grad is not None
            ]
            if group.weight_decay and live:
                torch._foreach_mul_([p for _, p in live], 1 - lr * group.weight_decay)
            if group.kind == "muon":
                self._muon(group, live, lr)
            elif live:
                self._adamw(group, live, lr)

    def _adamw(self, group: Group, live: list[tuple[str, Tensor]], lr: float) -> None:
        """Kingma & Ba 2015; decay apart from it, Loshchilov & Hutter 2019."""
        first, second = group.betas
        states = [self._state(name, p, ("exp_avg", "exp_avg_sq")) for name, p in live]
        parameters = [p for _, p in live]
        gradients = [_gradient(p) for p in parameters]
        averages, squares = [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states]
        torch._foreach_lerp_(averages, gradients, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
        scales = torch._foreach_sqrt(squares)
        torch._foreach_div_(scales, (1 - second**self.steps) ** 0.5)
        torch._foreach_add_(scales, group.eps)
        torch._foreach_addcdiv_(parameters, averages, scales, -lr / (1 - first**self.steps))

    def _muon(self, group: Group, live: list[tuple[str, Tensor]], lr: float) -> None:
        """Momentum made orthogonal: every direction of the update weighs the same (Jordan et al. 2024).

        Matrices of one shape are made orthogonal together. Scaled by sqrt(rows / columns) where that is more
        than 1, so that one rate fits all shapes.
        """
        momentum = group.betas[0]
        updates: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
        for name, parameter in live:
            average = self._state(name, parameter, ("momentum",))["momentum"]
            gradient = _gradient(parameter)
            average.lerp_(gradient, 1 - momentum)
            ahead = whole(gradient.lerp(average, momentum))  # Nesterov
            updates.setdefault(tuple(ahead.shape), []).append((parameter, ahead))
        for shape, alike in updates.items():
            turned = orthogonalize(torch.stack([ahead for _, ahead in alike]))
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            for (parameter, _), update in zip(alike, turned, strict=True):
                parameter.add_(like(update.to(parameter.dtype), parameter), alpha=-lr * scale)

    def _state(self, name: str, parameter: Tensor, kinds: Iterable[str]) -> dict[str, Tensor]:
        found = self.moments.get(name)
        if found is None:
            found = self.moments[name] = {kind: torch.zeros_like(parameter) for kind in kinds}
        return found

    def state(self) -> dict[str, Tensor]:
        """ "name:kind" -> tensor, whole whatever the world is."""
        return {
            f"{name}:{kind}": whole(tensor)
            for name, kinds in self.moments.items()
            for kind, tensor in kinds.items()
        }

    def load(self, state: Mapping[str, Tensor], steps: int) -> None:
        """CheckpointError where it is of another model."""
        known = {n: p for group in self.groups for n, p in zip(group.names, group.parameters, strict=True)}
        self.steps, self.moments = steps, {}
        for key, tensor in state.items():
            name, _, kind = key.rpartition(":")
            parameter = known.get(name)
            if parameter is None or parameter.shape != tensor.shape:
                raise CheckpointError(
                    f"The saved state has a moment {key!r:.120} of the shape {tuple(tensor.shape)}; "
                    "this run has no such parameter."
                )
            placed = like(tensor.to(parameter.device), parameter)
            self.moments.setdefault(name, {})[kind] = placed.clone() if placed is tensor else placed


def orthogonalize(matrices: Tensor, steps: int = NEWTON_SCHULZ_STEPS) -> Tensor:
    """(N, rows, cols) -> nearly U V^T of each one's singular value decomposition U S V^T.

    In bfloat16 on CUDA, where it is precise enough and several times faster; in float32 elsewhere.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    found: Tensor = x.mT if tall else x
    return found


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def whole(tensor: Tensor) -> Tensor:
    """A tensor that is spread over several processes, gathered; any other as it is."""
    if isinstance(tensor, DTensor):
        gathered: Tensor = tensor.full_tensor()
        return gathered
    return tensor


def like(tensor: Tensor, model: Tensor) -> Tensor:
    """Spread as `model` is."""
    if isinstance(model, DTensor):
        spread: Tensor = distribute_tensor(tensor, model.device_mesh, model.placements)
        return spread
    return tensor
