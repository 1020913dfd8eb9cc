"""Encoders: as good as ggml's reference, whatever the weights look like."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import gguf
import numpy as np
import pytest

from quinze import native
from quinze.errors import FileFormatError
from quinze.formats.checkpoint import Tensor, TensorType
from quinze.formats.quants import decode, encode
from quinze.quantization.encoder import encode_rows, recode

SEARCHED = [kind for kind in TensorType if kind >= TensorType.Q4_0]


def spread(name: str, rng: np.random.Generator) -> np.ndarray:
    shape = (64, 512)
    return {
        "normal": lambda: rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02),
        "heavy tails": lambda: rng.standard_t(3, shape).astype(np.float32),
        "uniform": lambda: rng.uniform(-1, 1, shape).astype(np.float32),
        "all positive": lambda: np.abs(rng.standard_normal(shape, dtype=np.float32)) + np.float32(0.5),
        "mostly zero": lambda: (rng.standard_normal(shape) * (rng.random(shape) < 0.05)).astype(np.float32),
    }[name]()


def error(weights: np.ndarray, data: np.ndarray, kind: TensorType) -> float:
    return float(np.linalg.norm(decode(Tensor("w", kind, weights.shape, data)) - weights))


@pytest.mark.parametrize("kind", SEARCHED)
@pytest.mark.parametrize("name", ["normal", "heavy tails", "uniform", "all positive", "mostly zero"])
def test_the_error_is_no_larger_than_ggmls(
    ggml_quantize: Callable[..., np.ndarray], kind: TensorType, name: str, rng: np.random.Generator
) -> None:
    weights = spread(name, rng)
    ours, theirs = encode_rows(weights, kind), ggml_quantize(weights, kind)
    assert len(ours) == len(theirs)
    assert error(weights, ours, kind) <= 1.02 * error(weights, theirs, kind)


@pytest.mark.parametrize("kind", SEARCHED)
def test_the_gguf_package_decodes_what_we_encode(kind: TensorType, rng: np.random.Generator) -> None:
    weights = spread("normal", rng)
    data = encode_rows(weights, kind).reshape(64, -1)
    values = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind.name])
    np.testing.assert_array_equal(values, decode(Tensor("w", kind, weights.shape, data.reshape(-1))))
    bits = {
        TensorType.Q6_K: 0.02, TensorType.Q5_0: 0.05, TensorType.Q5_1: 0.04, TensorType.Q5_K: 0.04,
        TensorType.Q3_K: 0.18, TensorType.Q2_K: 0.3,
    }  # fmt: skip
    assert np.linalg.norm(values - weights) < bits.get(kind, 0.09) * np.linalg.norm(weights)


@pytest.mark.parametrize("kind", SEARCHED)
def test_easy_weights_come_back_exactly(kind: TensorType) -> None:
    """Zeros, one value everywhere, and extremes that must not become infinite or NaN."""
    weights = np.zeros((4, 512), np.float32)
    np.testing.assert_array_equal(decode(Tensor("w", kind, (4, 512), encode_rows(weights, kind))), weights)
    for value in (1.0, -2.0, 1e-30, -1e-38, 3e4):
        weights[:] = value
        read = decode(Tensor("w", kind, (4, 512), encode_rows(weights, kind)))
        np.testing.assert_allclose(read, weights, rtol=0.02, atol=1e-7)


@pytest.mark.parametrize("kind", SEARCHED)
def test_columns_that_matter_get_the_smaller_error(kind: TensorType, rng: np.random.Generator) -> None:
    weights = spread("normal", rng)
    importance = np.where(np.arange(512) % 8 == 0, np.float32(50), np.float32(1)).astype(np.float32)
    plain = decode(Tensor("w", kind, weights.shape, encode_rows(weights, kind))) - weights
    minded = decode(Tensor("w", kind, weights.shape, encode_rows(weights, kind, importance))) - weights
    assert np.linalg.norm(minded[:, ::8]) < 0.98 * np.linalg.norm(plain[:, ::8])
    assert (importance * minded**2).sum() < (importance * plain**2).sum()


def test_a_tensor_in_pieces_is_the_tensor_in_one(rng: np.random.Generator) -> None:
    weights = rng.standard_normal((5000, 512), dtype=np.float32)
    tensor = encode("w", weights, TensorType.F16)
    with ThreadPoolExecutor(3) as pool:
        parts = list(recode(tensor, TensorType.Q4_K, pool))
        assert len(parts) == 3
        np.testing.assert_array_equal(np.concatenate(parts), encode_rows(decode(tensor), TensorType.Q4_K))
        assert next(iter(recode(tensor, TensorType.F16, pool))) is tensor.data


def test_weights_that_are_no_numbers_are_refused(rng: np.random.Generator) -> None:
    weights = rng.standard_normal((2, 256), dtype=np.float32)
    weights[1, 100] = np.nan
    with ThreadPoolExecutor(1) as pool, pytest.raises(FileFormatError, match="w holds weights that are not"):
        list(recode(encode("w", weights, TensorType.F32), TensorType.Q4_0, pool))


def test_shapes_that_do_not_fit_are_refused() -> None:
    weights = np.zeros((2, 256), np.float32)
    for kind, x, importance in [
        (TensorType.F16, weights, None),
        (13, weights, None),
        (-1, weights, None),
        (TensorType.Q4_K, weights[:, :32].copy(), None),
        (TensorType.Q4_0, weights, np.ones(255, np.float32)),
        (TensorType.Q4_0, weights[:0], None),
    ]:
        with pytest.raises(ValueError, match=r"encoded|blocks|column"):
            native.encode(kind, x, importance)
