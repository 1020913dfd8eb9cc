"""The weight types in numpy: the readable twin of csrc/blocks.h.

Decode the bytes of any TensorType to float32. Encode float32 by plain rules for F64, F32, F16, BF16, Q8_0 and
Q4_0; `quinze.quantization` searches for better scales, in every type. Blocks as they lie in a file:

    Q8_0  d, 32 int8             weight i = d * q[i]
    Q4_0  d, 16 bytes            weight i = d * (low nibble of byte i - 8), 16 + i: the high nibble
    Q4_1  d, m, 16 bytes         d * code + m
    Q5_0  d, 4, 16 bytes         d * (code - 16): the four bytes hold the fifth bit of each code
    Q5_1  d, m, 4, 16 bytes      d * code + m
    Q4_K  d, least, 12, 128      256 weights: each 32 have a scale and a minimum of six bits,
    Q5_K  d, least, 12, 32, 128  d * scale * code - least * minimum
    Q6_K  128, 64, 16 int8, d    256 weights: each 16 have a scale of eight, d * scale * (code - 32)
    Q2_K  16, 64, d, least       256 weights: each 16 have a scale and a minimum of four bits
    Q3_K  32, 64, 12, d          256 weights: each 16 have a scale of six, d * (scale - 32) * (code - 4)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from quinze.formats.checkpoint import Bytes, Tensor, TensorType

Floats = npt.NDArray[np.float32]


def decode(tensor: Tensor) -> Floats:
    """The tensor as float32, in its shape. Copies: for tests, tools and small tensors."""
    kind, data = tensor.type, tensor.data
    if kind is TensorType.F64:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused later
            flat = np.frombuffer(data.tobytes(), "<f8").astype(np.float32)
    elif kind is TensorType.F32:
        flat = np.frombuffer(data.tobytes(), "<f4").astype(np.float32)
    elif kind is TensorType.F16:
        flat = np.frombuffer(data.tobytes(), "<f2").astype(np.float32)
    elif kind is TensorType.BF16:
        # bfloat16 is the upper half of a float32.
        flat = (np.frombuffer(data.tobytes(), "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        flat = _DECODE[kind](data.reshape(-1, kind.bytes))
    return flat.reshape(tensor.shape)


def _halves(data: Bytes) -> Floats:
    """Float16 numbers (blocks, 2 n) -> (blocks, n)."""
    return np.ascontiguousarray(data).view("<f2").astype(np.float32)


def _nibbles(data: Bytes) -> Floats:
    """(blocks, 16) -> (blocks, 32): all the low ones, then all the high ones."""
    return np.concatenate([data & 15, data >> 4], axis=1).astype(np.float32)


def _fifths(data: Bytes) -> Floats:
    """Bit i of four bytes -> 16 or 0. (blocks, 4) -> (blocks, 32)"""
    return np.unpackbits(data, axis=1, bitorder="little").astype(np.float32) * 16


def _q8_0(blocks: Bytes) -> Floats:
    return _halves(blocks[:, :2]) * blocks[:, 2:].view(np.int8).astype(np.float32)


def _q4_0(blocks: Bytes) -> Floats:
    return _halves(blocks[:, :2]) * (_nibbles(blocks[:, 2:]) - 8)


def _q4_1(blocks: Bytes) -> Floats:
    return _halves(blocks[:, :2]) * _nibbles(blocks[:, 4:]) + _halves(blocks[:, 2:4])


def _q5_0(blocks: Bytes) -> Floats:
    return _halves(blocks[:, :2]) * (_nibbles(blocks[:, 6:]) + _fifths(blocks[:, 2:6]) - 16)


def _q5_1(blocks: Bytes) -> Floats:
    codes = _nibbles(blocks[:, 8:]) + _fifths(blocks[:, 4:8])
    return _halves(blocks[:, :2]) * codes + _halves(blocks[:, 2:4])


def _k_scales(blocks: Bytes) -> tuple[Floats, Floats]:
    """Scales and mins (blocks, 8, 1) of Q4_K and Q5_K, from 2 float16 and 16 numbers of six bits."""
    a, b, c = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = np.concatenate([a & 63, (c & 15) | (a >> 6) << 4], axis=1)
    mins = np.concatenate([b & 63, (c >> 4) | (b >> 6) << 4], axis=1)
    d, least = _halves(blocks[:, :2]), _halves(blocks[:, 2:4])
    return (d * scales.astype(np.float32))[..., None], (least * mins.astype(np.float32))[..., None]


def _k_nibbles(data: Bytes) -> Bytes:
    """(blocks, 128) -> (blocks, 8, 32): 32 bytes hold two blocks."""
    pairs = data.reshape(-1, 4, 1, 32)
    return np.concatenate([pairs & 15, pairs >> 4], axis=2).reshape(-1, 8, 32)


def _q4_k(blocks: Bytes) -> Floats:
    scales, mins = _k_scales(blocks)
    return scales * _k_nibbles(blocks[:, 16:]).astype(np.float32) - mins


def _q5_k(blocks: Bytes) -> Floats:
    scales, mins = _k_scales(blocks)
    bits = blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1  # (blocks, 8, 32)
    return scales * (_k_nibbles(blocks[:, 48:]) + bits * np.uint8(16)).astype(np.float32) - mins


def _q6_k(blocks: Bytes) -> Floats:
    low = blocks[:, :128].reshape(-1, 2, 1, 2, 32)  # half, -, which 32, weight
    low = np.concatenate([low & 15, low >> 4], axis=2).reshape(-1, 2, 4, 32)
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts & 3  # (blocks, 2, 4, 32)
    codes = (low | high << 4).astype(np.float32) - 32
    scales = _halves(blocks[:, 208:]) * blocks[:, 192:208].view(np.int8).astype(np.float32)  # (blocks, 16)
    return scales[..., None] * codes.reshape(-1, 16, 16)


def _two_bits(data: Bytes) -> Bytes:
    """(blocks, 64) -> (blocks, 8, 32): 32 bytes hold four blocks of 32."""
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    codes: Bytes = (data.reshape(-1, 2, 1, 32) >> shifts & np.uint8(3)).reshape(-1, 8, 32)
    return codes


def _q2_k(blocks: Bytes) -> Floats:
    d, least = _halves(blocks[:, 80:82]), _halves(blocks[:, 82:])
    scales, mins = blocks[:, :16] & 15, blocks[:, :16] >> 4
    codes = _two_bits(blocks[:, 16:80]).reshape(-1, 16, 16).astype(np.float32)
    steps, offsets = d * scales.astype(np.float32), least * mins.astype(np.float32)  # (blocks, 16)
    values: Floats = steps[..., None] * codes - offsets[..., None]
    return values


def _q3_k(blocks: Bytes) -> Floats:
    third = blocks[:, None, :32] >> np.arange(8, dtype=np.uint8)[:, None] & 1  # (blocks, 8, 32)
    codes = (_two_bits(blocks[:, 32:96]) | third << 2).astype(np.float32) - 4
    packed = blocks[:, 96:108]
    low = np.concatenate([packed[:, :8] & 15, packed[:, :8] >> 4], axis=1)  # (blocks, 16)
    high = packed[:, None, 8:] >> np.arange(0, 8, 2, dtype=np.uint8)[:, None] & 3  # (blocks, 4, 4)
    scales = (low | high.reshape(-1, 16) << 4).astype(np.float32) - np.float32(32)
    values: Floats = (_halves(blocks[:, 108:]) * scales)[..., None] * codes.reshape(-1, 16, 16)
    return values


_DECODE: dict[TensorType, Callable[[Bytes], Floats]] = {
    TensorType.Q8_0: _q8_0,
    TensorType.Q4_0: _q4_0,
    TensorType.Q4_1: _q4_1,
    TensorType.Q5_0: _q5_0,
    TensorType.Q5_1: _q5_1,
    TensorType.Q4_K: _q4_k,
    TensorType.Q5_K: _q5_k,
    TensorType.Q6_K: _q6_k,
    TensorType.Q2_K: _q2_k,
    TensorType.Q3_K: _q3_k,
}


def encode(name: str, weights: npt.ArrayLike, kind: TensorType) -> Tensor:
    """Weights (..., cols) as a tensor of a kind that has a plain rule; cols must hold whole blocks."""
    if kind > TensorType.Q4_0:
        raise ValueError(f"{kind.name} has no plain rule: quinze.quantization encodes it")
    values = np.ascontiguousarray(weights, dtype=np.float32)
    if values.shape[-1] % kind.block:
        raise ValueError(f"{values.shape[-1]} columns are not a multiple of {kind.block}")
    return Tensor(
        name, kind, values.shape, np.ascontiguousarray(_encoded(values, kind)).view(np.uint8).reshape(-1)
    )


def _encoded(values: Floats, kind: TensorType) -> npt.NDArray[np.generic]:
    if kind is TensorType.F64:
        return values.astype("<f8")
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
