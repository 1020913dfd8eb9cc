"""Quantized types: bit for bit those of ggml's own package."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from quinze.formats.checkpoint import Tensor, TensorType
from quinze.formats.quants import decode, encode

PLAIN = [TensorType.F32, TensorType.F16, TensorType.BF16, TensorType.Q8_0, TensorType.Q4_0]
HALVES = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
"""Where float16 numbers lie in a block, where it is not only at its beginning."""


@pytest.mark.parametrize("kind", PLAIN)
def test_bytes_and_numbers_are_those_of_the_gguf_package(kind: TensorType, rng: np.random.Generator) -> None:
    weights = (rng.standard_normal((16, 96)) * np.exp(rng.standard_normal((16, 1)) * 3)).astype(np.float32)
    weights[3] = 0
    weights[4, :32] = np.linspace(-127, 127, 32)
    ours = encode("w", weights, kind)
    theirs = gguf.quants.quantize(weights, gguf.GGMLQuantizationType[kind.name])
    np.testing.assert_array_equal(ours.data, np.ascontiguousarray(theirs).view(np.uint8).reshape(-1))
    values = gguf.quants.dequantize(theirs, gguf.GGMLQuantizationType[kind.name])
    np.testing.assert_array_equal(decode(ours), values)
    assert len(ours.data) == kind.size(weights.shape)


@pytest.mark.parametrize("kind", [kind for kind in TensorType if kind >= TensorType.Q8_0])
def test_any_bytes_mean_what_the_gguf_package_says(kind: TensorType, rng: np.random.Generator) -> None:
    theirs = gguf.GGMLQuantizationType[kind.name]
    assert (kind.block, kind.bytes) == gguf.GGML_QUANT_SIZES[theirs]
    shape = (7, 6 * kind.block)
    blocks = rng.integers(0, 256, (42, kind.bytes), dtype=np.uint8)
    for at in HALVES.get(kind.name, (0,)):
        blocks[:, at : at + 2] = rng.standard_normal((42, 1)).astype(np.float16).view(np.uint8)
    expected = gguf.quants.dequantize(blocks.reshape(7, -1), theirs)
    np.testing.assert_array_equal(decode(Tensor("w", kind, shape, blocks.reshape(-1))), expected)


def test_columns_that_are_not_whole_blocks_are_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="33 columns"):
        encode("w", np.zeros((2, 33)), TensorType.Q4_0)
    with pytest.raises(ValueError, match="Q4_K has no plain rule"):
        encode("w", np.zeros((2, 256)), TensorType.Q4_K)
