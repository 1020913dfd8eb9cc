"""Packed weights: the same numbers as the file's own, and the same products, bit for bit where promised."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.native.test_kernels import (
    HALVES,
    KERNELS,
    NAMES,
    Q8_0,
    Make,
    decode,
    encode,
    kernels,
    product_tolerance,
    reconstructed,
    shapes,
)

__all__ = ["kernels"]  # the fixture

QUANTIZED = pytest.mark.parametrize("kind", range(Q8_0, 11), ids=[name.lower() for name in NAMES[Q8_0:11]])
PANEL = 16


def pack(k: Any, kind: int, data: np.ndarray, rows: int, cols: int) -> tuple[int, np.ndarray]:
    """(type, bytes)"""
    packed, found = k.pack(kind, data, rows, cols, 0, -(-rows // PANEL))
    return int(packed), np.asarray(found)


@QUANTIZED
def test_packed_rows_are_those_of_the_gguf_package(
    kernels: Make, kind: int, rng: np.random.Generator
) -> None:
    k = kernels("scalar")
    for rows, cols in [*shapes(kind), (17, shapes(kind)[-1][1])]:
        data = encode(rng.standard_normal((rows, cols), dtype=np.float32), kind)
        packed, found = pack(k, kind, data, rows, cols)
        np.testing.assert_array_equal(k.unpack(packed, found, rows, cols), decode(data, kind, (rows, cols)))


@QUANTIZED
def test_both_sets_pack_alike_in_any_pieces(kernels: Make, kind: int, rng: np.random.Generator) -> None:
    for rows, cols in shapes(kind):
        data = encode(rng.standard_normal((rows, cols), dtype=np.float32), kind)
        packed, whole = pack(kernels("scalar"), kind, data, rows, cols)
        panels = -(-rows // PANEL)
        pieces = [
            np.asarray(kernels("avx2").pack(kind, data, rows, cols, i, i + 1)[1]) for i in range(panels)
        ]
        np.testing.assert_array_equal(np.concatenate(pieces), whole)
        assert packed >= len(NAMES)


@KERNELS
@QUANTIZED
def test_packed_gemv_is_the_product_of_dequantized_weights(
    kernels: Make, name: str, kind: int, rng: np.random.Generator
) -> None:
    k = kernels(name)
    for rows, cols in shapes(kind):
        data = encode(rng.standard_normal((rows, cols), dtype=np.float32), kind)
        weights = decode(data, kind, (rows, cols))
        x = rng.standard_normal(cols, dtype=np.float32)
        read = reconstructed(k, x, kind)
        error = np.abs(k.gemv(*pack(k, kind, data, rows, cols), rows, x) - weights.astype(np.float64) @ read)
        assert (error <= product_tolerance(weights, read)).all()


@QUANTIZED
def test_one_token_and_many_packed_or_not_give_the_same_bits(
    kernels: Make, kind: int, rng: np.random.Generator
) -> None:
    """Packed gemv, packed gemm and gemm of the file add up in one order. gemv of the file does not: a few
    units in the last place (the test above)."""
    k = kernels("avx2")
    for rows, cols in shapes(kind):
        data = encode(rng.standard_normal((rows, cols), dtype=np.float32), kind)
        packed, found = pack(k, kind, data, rows, cols)
        for tokens in (1, 3, 4, 67):
            x = rng.standard_normal((tokens, cols), dtype=np.float32)
            y = k.gemm(packed, found, rows, x, 0, rows)
            np.testing.assert_array_equal(y, k.gemm(kind, data, rows, x, 0, rows))
            for t in range(tokens):
                np.testing.assert_array_equal(y[t], k.gemv(packed, found, rows, x[t]))
            if rows > PANEL:
                np.testing.assert_array_equal(y[:, PANEL:], k.gemm(packed, found, rows, x, PANEL, rows))


@QUANTIZED
def test_packed_products_of_extreme_weights_do_not_overflow(kernels: Make, kind: int) -> None:
    """Every byte at its largest or smallest, activations at theirs: the widest integer sums there can be."""
    rows, cols = 17, 4096
    one = np.float16([1]).view(np.uint8)
    for byte in (0x00, 0x7F, 0x80, 0xFF):
        block = 256 if kind in HALVES else 32
        size = len(encode(np.ones((1, block), np.float32), kind))
        raw = np.full(size, byte, np.uint8)
        for at in HALVES.get(kind, (0, 2) if NAMES[kind] in ("Q4_1", "Q5_1") else (0,)):
            raw[at : at + 2] = one
        data = np.tile(raw, rows * cols // block)
        weights = decode(data, kind, (rows, cols)).astype(np.float64)
        for signs in (np.ones(cols), -np.ones(cols), np.sign(weights[0]) + (weights[0] == 0)):
            x = np.tile(signs.astype(np.float32), (5, 1))
            expected = (weights @ x[0]).astype(np.float32)
            for name in ("scalar", "avx2"):
                k = kernels(name)
                packed, found = pack(k, kind, data, rows, cols)
                scale = np.abs(weights).sum(1).max()
                np.testing.assert_allclose(
                    k.gemv(packed, found, rows, x[0]), expected, rtol=1e-5, atol=2e-7 * scale
                )
                np.testing.assert_allclose(
                    k.gemm(packed, found, rows, x, 0, rows),
                    np.tile(expected, (5, 1)),
                    rtol=1e-5,
                    atol=2e-7 * scale,
                )


@KERNELS
@QUANTIZED
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_number_that_is_none_spoils_packed_products_too(
    kernels: Make, name: str, kind: int, poison: float, rng: np.random.Generator
) -> None:
    k = kernels(name)
    data = encode(rng.standard_normal((16, 256), dtype=np.float32), kind)
    packed, found = pack(k, kind, data, 16, 256)
    x = rng.standard_normal((4, 256), dtype=np.float32)
    x[:, 40] = poison
    assert not np.isfinite(k.gemv(packed, found, 16, x[0])).any()
    assert not np.isfinite(k.gemm(packed, found, 16, x, 0, 16)).any()


def test_columns_beyond_what_is_looked_at_together_are_added_in_the_same_order(
    kernels: Make, rng: np.random.Generator
) -> None:
    """gemv looks at 16,384 columns at a time."""
    k = kernels("avx2")
    rows, cols = 5, 40_960
    for kind in (NAMES.index("Q4_1"), NAMES.index("Q4_K"), NAMES.index("Q6_K")):
        data = encode(rng.standard_normal((rows, cols), dtype=np.float32), kind)
        packed, found = pack(k, kind, data, rows, cols)
        x = rng.standard_normal((1, cols), dtype=np.float32)
        np.testing.assert_array_equal(
            k.gemv(packed, found, rows, x[0]), k.gemm(packed, found, rows, x, 0, rows)[0]
        )


def test_what_cannot_be_packed_is_refused(kernels: Make, rng: np.random.Generator) -> None:
    k = kernels("scalar")
    data = encode(rng.standard_normal((17, 64), dtype=np.float32), Q8_0)
    packed, found = pack(k, Q8_0, data, 17, 64)
    with pytest.raises(ValueError, match="not packed"):
        k.pack(1, np.zeros(128, np.uint8), 1, 64, 0, 1)
    with pytest.raises(ValueError, match="not packed"):
        k.pack(packed, found, 17, 64, 0, 2)
    with pytest.raises(ValueError, match="panels are out of range"):
        k.pack(Q8_0, data, 17, 64, 0, 3)
    with pytest.raises(ValueError, match="tensor w"):
        k.gemv(packed, found[:-1], 17, np.zeros(64, np.float32))
    with pytest.raises(ValueError, match="panel of 16 rows"):
        k.gemm(packed, found, 17, np.zeros((1, 64), np.float32), 1, 17)
