"""The weight types in numpy: the readable twin of csrc/blocks.h.

Encode float32 to bytes and decode bytes to float32, for every TensorType. 32 weights share a float16 scale d:

    Q8_0  d, 32 int8       weight i = d * q[i]
    Q4_0  d, 16 bytes      weight i = d * (low nibble of byte i - 8), weight 16 + i = d * (high nibble - 8)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from quinze.formats.checkpoint import Bytes, Tensor, TensorType

Floats = npt.NDArray[np.float32]


def decode(tensor: Tensor) -> Floats:
    """The tensor as float32, in its shape. Copies: for tests, tools and small tensors."""
    kind, data = tensor.type, tensor.data
    if kind is TensorType.F32:
        flat = np.frombuffer(data.tobytes(), "<f4").astype(np.float32)
    elif kind is TensorType.F16:
        flat = np.frombuffer(data.tobytes(), "<f2").astype(np.float32)
    elif kind is TensorType.BF16:
        # bfloat16 is the upper half of a float32.
        flat = (np.frombuffer(data.tobytes(), "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        blocks = data.reshape(-1, kind.bytes)  # (blocks, bytes)
        scales = blocks[:, :2].copy().view("<f2").astype(np.float32)  # (blocks, 1)
        codes: Bytes = blocks[:, 2:]
        if kind is TensorType.Q8_0:
            quants = codes.view(np.int8).astype(np.float32)  # (blocks, 32)
        else:
            quants = np.concatenate([codes & 15, codes >> 4], axis=1).astype(np.float32) - 8  # (blocks, 32)
        flat = scales * quants
    return flat.reshape(tensor.shape)


def encode(name: str, weights: npt.ArrayLike, kind: TensorType) -> Tensor:
    """Weights (..., cols) as a tensor of the kind; cols must hold whole blocks."""
    values = np.ascontiguousarray(weights, dtype=np.float32)
    if values.shape[-1] % kind.block:
        raise ValueError(f"{values.shape[-1]} columns are not a multiple of {kind.block}")
    return Tensor(
        name, kind, values.shape, np.ascontiguousarray(_encoded(values, kind)).view(np.uint8).reshape(-1)
    )


def _encoded(values: Floats, kind: TensorType) -> npt.NDArray[np.generic]:
    if kind is TensorType.F32:
        return values.astype("<f4")
    if kind is TensorType.F16:
        return values.astype("<f2")
    if kind is TensorType.BF16:
        return _bfloat16(values)
    blocks = values.reshape(-1, kind.block)  # (blocks, 32)
    if kind is TensorType.Q8_0:
        scales = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)  # (blocks, 1)
        codes: Bytes = _nearest(blocks * _inverse(scales)).astype(np.int8).view(np.uint8)
    else:
        # The weight of the largest magnitude gets code 0, which is -8: the end of the range without a twin.
        largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1, keepdims=True), axis=1)
        scales = largest / np.float32(-8)  # (blocks, 1)
        levels = np.trunc(blocks.astype(np.float64) * _inverse(scales).astype(np.float64) + 8.5)
        nibbles = levels.clip(0, 15).astype(np.uint8)  # (blocks, 32)
        codes = np.bitwise_or(nibbles[:, :16], nibbles[:, 16:] * np.uint8(16), dtype=np.uint8)
    return np.concatenate([scales.astype("<f2").view(np.uint8), codes], axis=1)


def _inverse(scales: Floats) -> Floats:
    """1 / scale, and 0 where a block is all zeros."""
    return np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales != 0)


def _nearest(values: Floats) -> Floats:
    """To the nearest integer, halves away from zero, as C's roundf."""
    return np.asarray(np.copysign(np.floor(np.abs(values) + np.float32(0.5)), values), dtype=np.float32)


def _bfloat16(values: Floats) -> Bytes:
    """To nearest, ties to even; NaN stays NaN."""
    bits = values.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    quiet = ((bits >> 16) | 64).astype("<u2")
    return np.where(np.isnan(values), quiet, rounded).astype("<u2").view(np.uint8)
