"""Trying things on a model and leaving it as it was: weights, buffers, gradients, mode and random state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def untouched(transformer: torch.nn.Module, *, training: bool) -> Iterator[None]:
    """Inside, the model is in that mode; afterwards nothing but time has passed. A copy of every weight is
    kept meanwhile."""
    mode = {name: module.training for name, module in transformer.named_modules()}
    tensors = [*transformer.parameters(), *transformer.buffers()]
    kept = [tensor.detach().clone() for tensor in tensors]
    gradients = [parameter.grad for parameter in transformer.parameters()]
    devices = [tensors[0].device] if tensors and tensors[0].is_cuda else []
    transformer.train(training)
    with torch.random.fork_rng(devices=devices):
        try:
            for parameter in transformer.parameters():
                parameter.grad = None
            yield
        finally:
            with torch.no_grad():
                for tensor, before in zip(tensors, kept, strict=True):
                    tensor.copy_(before)
            for parameter, gradient in zip(transformer.parameters(), gradients, strict=True):
                parameter.grad = gradient
            for name, module in transformer.named_modules():
                module.training = mode[name]


@contextmanager
def looking(transformer: torch.nn.Module) -> Iterator[None]:
    """For passes that change nothing: evaluation mode, no graph, the random state kept."""
    mode = {name: module.training for name, module in transformer.named_modules()}
    first = next(transformer.parameters(), None)
    transformer.eval()
    with torch.random.fork_rng(devices=[first.device] if first is not None and first.is_cuda else []):
        try:
            with torch.no_grad():
                yield
        finally:
            for name, module in transformer.named_modules():
                module.training = mode[name]


def first_broken(transformer: torch.nn.Module) -> str:
    """The first weight, else the first gradient, that holds a value that is no number; "" if none does."""
    for name, parameter in transformer.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            return name
    for name, parameter in transformer.named_parameters():
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            return f"{name}.grad"
    return ""


@contextmanager
def naming(transformer: torch.nn.Module, found: list[str]) -> Iterator[None]:
    """While it runs, appends the names of modules whose output holds a value that is no number, in the order
    in which they were computed."""

    def hook(name: str) -> Callable[[Any, Any, Any], None]:
        def see(_module: Any, _inputs: Any, output: Any) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            if torch.is_tensor(tensor) and not bool(torch.isfinite(tensor).all()):
                found.append(name)

        return see

    handles = [
        module.register_forward_hook(hook(name)) for name, module in transformer.named_modules() if name
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
