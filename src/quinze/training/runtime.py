"""How PyTorch is set up for a run: threads, determinism, compiled code; and what time and memory it takes."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from quinze.training import measuring
from quinze.training.building import Parts
from quinze.training.distributed import World
from quinze.training.losses import Tensors
from quinze.training.run_config import RunConfig

COMPILE_FROM_SECONDS = 600.0
"""Shorter runs do not earn back what compiling costs."""
TRIAL_STEPS = 8


class Clock:
    """Seconds of training, and of all work: pauses are in neither."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self.training = self.work = self.waited = 0.0
        """waited: for batches, part of training."""

    def go_on(self, training: float, work: float) -> None:
        self.training, self.work = training, work

    def stepped(self, seconds: float) -> tuple[float, float]:
        self.training += seconds
        return self.training, self.worked(seconds)

    def worked(self, seconds: float) -> float:
        self.work += seconds
        return self.work

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        began = self.now()
        yield
        self.waited += self.now() - began


@contextlib.contextmanager
def prepare_runtime(config: RunConfig, world: World) -> Iterator[None]:
    """Threads and determinism within the block; as they were after it."""
    table = config.runtime
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    if table.threads:
        torch.set_num_threads(table.threads)
    if table.deterministic:
        if world.device.type == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as PyTorch asks for
        torch.use_deterministic_algorithms(True)
    # Numbers too small to matter would be computed a hundred times slower.
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)
        torch.set_flush_denormal(False)


def step_seed(seed: int, step: int, rank: int) -> int:
    """Every random number of a step follows from these three, so that none has to be saved."""
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + rank * 0x94D049BB133111EB) % 2**64
    return (mixed ^ (mixed >> 31)) % 2**63


def try_compile(parts: Parts) -> None:
    """torch.compile where it is wanted; with "auto", only if a trial on real batches shows it faster."""
    table, minutes = parts.config.runtime, parts.config.schedule.minutes
    if table.compile == "off" or table.deterministic:
        return
    stack = parts.transformer.model
    if table.compile == "on":
        stack.compile()
        return
    if minutes is None or minutes * 60 < COMPILE_FROM_SECONDS or parts.world.size > 1:
        return
    plain = _seconds(parts)
    stack.compile()
    try:
        _seconds(parts)  # compiles
        faster = _seconds(parts) < 0.98 * plain
    except (RuntimeError, torch._dynamo.exc.TorchDynamoException):
        faster = False  # no compiler on this machine, or a model it cannot handle
    if not faster:
        stack._compiled_call_impl = None


def _seconds(parts: Parts) -> float:
    """Of some forward and backward passes; weights stay, gradients are thrown away."""
    began = 0.0
    for i in range(TRIAL_STEPS + 1):
        if i == 1:
            began = time.perf_counter()  # the first one warms up
        batch = parts.batches.at(i)
        with measuring.precision(parts):
            found = parts.method.measure(parts.transformer, Tensors.of(batch, parts.world.device))
        found.total.backward()  # type: ignore[no-untyped-call]
        parts.optimizer.zero_grad()
    if parts.world.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def memory_bytes() -> int | None:
    """Of this process, now; its peak where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
