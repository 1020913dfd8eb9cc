"""Quantized types: bit for bit those of ggml's own package."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from quinze.formats.checkpoint import TensorType
from quinze.formats.quants import decode, encode


@pytest.mark.parametrize("kind", list(TensorType))
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


def test_columns_that_are_not_whole_blocks_are_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="33 columns"):
        encode("w", np.zeros((2, 33)), TensorType.Q4_0)
