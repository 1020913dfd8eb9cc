"""A linear layer whose frozen weights lie in quantized blocks: the base of QLoRA.

The blocks are Quinze's own, so a GGUF file serves as the base where it is mapped: no second copy in memory.
Each forward and each backward dequantizes the layer once more, and keeps nothing; gradients pass through to
the input and never to the weights. x (..., in), W (out, in), y (..., out).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from quinze import native
from quinze.errors import InvalidRequestError
from quinze.formats.checkpoint import Tensor, TensorType
from quinze.formats.quants import decode, encode

TYPES = {"q8_0": TensorType.Q8_0, "q4_0": TensorType.Q4_0, "q4_k": TensorType.Q4_K}


class QuantizedLinear(nn.Module):
    """Stands where an nn.Linear stood. It has no trainable parameter."""

    def __init__(self, weight: Tensor, bias: torch.Tensor | None = None) -> None:
        """weight: (out, in) in any type, where the file has it."""
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.blocks = weight
        self.bias: torch.Tensor | None
        self.register_buffer("bias", None if bias is None else bias.detach().float())

    @classmethod
    def of(cls, linear: nn.Linear, kind: str, name: str = "") -> QuantizedLinear:
        """A layer's weights, rounded; InvalidRequestError where its rows are not made of whole blocks."""
        chosen = TYPES[kind]
        if linear.in_features % chosen.block:
            raise InvalidRequestError(
                f"{name or 'A layer'} has rows of {linear.in_features:,} weights; {kind} needs a multiple of "
                f"{chosen.block}.",
                hint='Take quantize = "q8_0" or "q4_0" (multiples of 32), or "none".',
                param="lora.quantize",
            )
        weights = linear.weight.detach().float().cpu().numpy()
        if chosen is TensorType.Q8_0:
            tensor = encode(name, weights, chosen)
        else:
            data = native.encode(chosen, np.ascontiguousarray(weights))
            tensor = Tensor(name, chosen, weights.shape, data)
        return cls(tensor, linear.bias)

    @property
    def bytes(self) -> int:
        return len(self.blocks.data)

    def dense(self) -> torch.Tensor:
        """The weights (out, in) in float32, freshly dequantized."""
        with warnings.catch_warnings():
            # A float32 file is read where it is mapped, and torch warns that it must not be written to.
            warnings.simplefilter("ignore", UserWarning)
            return torch.from_numpy(decode(self.blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.blocks.type.name}"


class _Product(torch.autograd.Function):
    """y = x W^T, remembering the blocks instead of W."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: QuantizedLinear) -> torch.Tensor:
        ctx.layer = layer
        return F.linear(x, layer.dense().to(x.device, x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient,) = gradients
        return gradient @ ctx.layer.dense().to(gradient.device, gradient.dtype), None
