"""How fast this machine trains and how much memory a shape takes, by trying: a second or two.

`measure` times bare products at several widths, enough to choose a shape; `try_shape` runs one and two layers
of the real decoder forth and back, so that any number of layers follows by adding.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch.nn import functional as F

from quinze.models.config import ModelConfig
from quinze.models.transformer import Transformer
from quinze.training.optim import Optimizer, groups_of
from quinze.training.run_config import OptimizerTable

WIDTHS = (64, 128, 256, 512, 1024)
ROWS = 1024
"""Rows of the products that are timed: enough to hide their beginning, few enough for a second in all."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A device, as training sees it."""

    device: str
    threads: int
    rates: dict[int, float]
    """Width -> floating-point operations a second of a linear layer (width -> 3 width), forth and back."""
    bandwidth: float
    """Bytes a second of an operation on each number alone, read and written."""
    memory_bytes: int
    program_bytes: int
    """What this process takes before there is a model."""

    def rate(self, width: int) -> float:
        """Between what was measured, in a straight line; beyond, the nearest."""
        known = sorted(self.rates)
        if width <= known[0] or width >= known[-1]:
            return self.rates[known[0] if width <= known[0] else known[-1]]
        above = next(k for k in known if k >= width)
        below = max(k for k in known if k < width)
        share = (width - below) / (above - below)
        return self.rates[below] * (1 - share) + self.rates[above] * share


class ShapeCost(msgspec.Struct, frozen=True, kw_only=True):
    """Of one token, forth and back, and of one step of the optimizer, measured on the shape itself."""

    layer_seconds: float
    ends_seconds: float
    """Embedding, last norm, head and loss."""
    layer_bytes: float
    """Kept in memory until the way back."""
    ends_bytes: float
    layer_step_seconds: float
    """Of the optimizer (Muon), for one layer."""
    ends_step_seconds: float


def measure(device: str = "cpu", seconds: float = 1.0) -> Machine:
    """About so long. Whatever else runs on the machine is measured with it."""
    where = torch.device(device)
    each = seconds / (len(WIDTHS) + 1)
    return Machine(
        device=device,
        threads=torch.get_num_threads(),
        rates={width: _rate(width, where, each) for width in WIDTHS},
        bandwidth=_bandwidth(where, each),
        memory_bytes=_memory(where),
        program_bytes=resident_bytes(),
    )


def try_shape(
    config: ModelConfig, rows: int, length: int, *, device: str = "cpu", seconds: float = 2.0
) -> ShapeCost:
    """Layers and ends of this config, each by itself; up to `rows` rows of `length` tokens at once."""
    where = torch.device(device)
    rows = max(1, min(rows, 4096 // length))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size, (rows, length + 1), generator=generator).to(where)
    tried: list[tuple[float, float]] = []
    runs: list[Callable[[], None]] = []
    steps: list[Callable[[], None]] = []
    for layers in (1, 3):
        transformer = Transformer(replace(config, num_hidden_layers=layers, windows=()), length)
        transformer.initialize(0)
        transformer.to(where)
        runs.append(_pass(transformer, ids))
        steps.append(_step(transformer))
        tried.append((0.0, _kept_bytes(transformer, ids)))
    # Taken in turns, so that another program's noise falls on both alike.
    one, three, step_one, step_three = _in_turns([*runs, *steps], where, seconds)
    tokens = rows * length
    layer_bytes = (tried[1][1] - tried[0][1]) / 2
    layer = max((three - one) / 2, 1e-9)
    layer_step = max((step_three - step_one) / 2, 0.0)
    return ShapeCost(
        layer_seconds=layer / tokens,
        ends_seconds=max(one - layer, 1e-9) / tokens,
        layer_bytes=layer_bytes / tokens,
        ends_bytes=max(tried[0][1] - layer_bytes, 0.0) / tokens,
        layer_step_seconds=layer_step,
        ends_step_seconds=max(step_one - layer_step, 0.0),
    )


def _pass(transformer: Transformer, ids: torch.Tensor) -> Callable[[], None]:
    def run() -> None:
        for parameter in transformer.parameters():
            parameter.grad = None
        _loss(transformer, ids).backward()  # type: ignore[no-untyped-call]

    return run


def _step(transformer: Transformer) -> Callable[[], None]:
    """With the gradients of the pass before."""
    named = dict(transformer.named_parameters())
    optimizer = Optimizer(groups_of(named, OptimizerTable(kind="muon", lr=3e-3)))
    return lambda: optimizer.step(1e-3)


def _loss(transformer: Transformer, ids: torch.Tensor) -> torch.Tensor:
    logits = transformer(ids[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def _kept_bytes(transformer: Transformer, ids: torch.Tensor) -> float:
    """Bytes of everything that autograd keeps for the way back, weights left out, each storage once."""
    weights = {p.untyped_storage().data_ptr() for p in transformer.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = _loss(transformer, ids)
        found = float(sum(kept.values()))
        del loss
    return found


def _rate(width: int, device: torch.device, seconds: float) -> float:
    x, w = torch.randn(ROWS, width, device=device), torch.randn(3 * width, width, device=device)
    back = torch.randn(ROWS, 3 * width, device=device)

    def products() -> Any:
        return x @ w.T, back @ w, back.T @ x

    return 3 * 2 * ROWS * width * 3 * width / _in_turns([products], device, seconds)[0]


def _bandwidth(device: torch.device, seconds: float) -> float:
    x = torch.randn(4_000_000, device=device)
    return 2 * 4 * x.numel() / _in_turns([lambda: x.mul_(0.999)], device, seconds)[0]


def _in_turns(runs: list[Callable[[], Any]], device: torch.device, seconds: float) -> list[float]:
    """Median seconds of each, one after the other again and again for so long; three times at least."""
    for run in runs:
        run()
    taken: list[list[float]] = [[] for _ in runs]
    end = time.perf_counter() + seconds
    while len(taken[0]) < 3 or time.perf_counter() < end:
        for run, times in zip(runs, taken, strict=True):
            _wait(device)
            began = time.perf_counter()
            run()
            _wait(device)
            times.append(time.perf_counter() - began)
    return [statistics.median(times) for times in taken]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _memory(device: torch.device) -> int:
    """Free of a GPU; of the machine what programs can have."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def resident_bytes() -> int:
    """Of this process, now; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
