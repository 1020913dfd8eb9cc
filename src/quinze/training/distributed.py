"""Several processes, one run: `torchrun --nproc-per-node 2 -m quinze.training.worker run.toml folder`.

Each process reads its own rows and sums its own gradients; the sums meet here. With "fsdp" each holds only
its part of every layer (PyTorch's fully_shard) and gathers a layer as it is needed. One process alone passes
through all of it unchanged.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from quinze.errors import InvalidRequestError
from quinze.models.transformer import Transformer


@dataclass(frozen=True, slots=True)
class World:
    """Who else trains, and on what."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def join(cls, device: str = "auto", environ: Mapping[str, str] | None = None) -> Self:
        """Meet the others that torchrun started (by its variables), or be alone."""
        environ = os.environ if environ is None else environ
        rank, size = int(environ.get("RANK", 0)), int(environ.get("WORLD_SIZE", 1))
        here = _device(device, int(environ.get("LOCAL_RANK", 0)))
        if size > 1 and not dist.is_initialized():
            # Plain numbers are exchanged through gloo also where tensors lie on GPUs.
            dist.init_process_group("cpu:gloo,cuda:nccl" if here.type == "cuda" else "gloo")
        return cls(rank, size, here)

    @property
    def first(self) -> bool:
        """It writes the files."""
        return self.rank == 0

    def summed(self, numbers: Iterable[float]) -> list[float]:
        """Element by element over all processes, in float64."""
        values = torch.tensor(list(numbers), dtype=torch.float64)
        if self.size > 1:
            dist.all_reduce(values)
        return values.tolist()

    def of_first(self, numbers: Iterable[float]) -> list[float]:
        """What process 0 says, so that all decide alike."""
        values = torch.tensor(list(numbers), dtype=torch.float64)
        if self.size > 1:
            dist.broadcast(values, 0)
        return values.tolist()

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Of parameters that every process holds; FSDP has summed its own."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None and not isinstance(p.grad, DTensor)]
        if gradients:
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            dist.all_reduce(flat)
            parts = torch.split(flat, [gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def leave(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()


def _device(wanted: str, local_rank: int) -> torch.device:
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise InvalidRequestError("There is no CUDA device here.", hint='device = "cpu"', param="device")
    if wanted == "cuda":
        wanted = f"cuda:{local_rank}"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise InvalidRequestError(f"{wanted!r} is no device: {error}.", param="device") from None
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def shard(transformer: Transformer) -> None:
    """Each process keeps its part of every layer. The head of an untied model stays whole everywhere."""
    for layer in transformer.model.layers:
        fully_shard(layer)
    fully_shard(transformer.model)


def gather_no_more(transformer: Transformer) -> None:
    """After a forward pass without a backward one, what FSDP has gathered of the ends is still there."""
    if isinstance(transformer.model, FSDPModule):
        transformer.model.reshard()


def gradient_norm(parameters: Iterable[Tensor], world: World) -> float:
    """Length of all gradients together, over all processes."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    mine = [g.to_local() for g in gradients if isinstance(g, DTensor)]
    shared = [g for g in gradients if not isinstance(g, DTensor)]
    square = _square(shared)
    if mine:
        square += world.summed([_square(mine)])[0]
    return float(square**0.5)


def _square(tensors: list[Tensor]) -> float:
    return float(torch.stack(torch._foreach_norm(tensors)).double().square().sum()) if tensors else 0.0
