"""Each kernel, scalar and AVX2, against others' arithmetic: numpy's, and the gguf package's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gguf
import numpy as np
import pytest

from quinze import native

F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K, Q2_K, Q3_K = range(13)
NAMES = [
    "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K", "Q2_K", "Q3_K",
]  # fmt: skip
GGML = [gguf.GGMLQuantizationType[name] for name in NAMES]
TYPES = pytest.mark.parametrize("kind", range(13), ids=[name.lower() for name in NAMES])
HALVES = {Q4_K: (0, 2), Q5_K: (0, 2), Q6_K: (208,), Q2_K: (80, 82), Q3_K: (108,)}
"""Where the float16 numbers of the K formats lie in a block."""
KERNELS = pytest.mark.parametrize("name", ["scalar", "avx2"])
ANY_COLS = [(1, 32), (5, 64), (16, 96), (17, 160), (40, 544), (33, 1056)]
ODD_COLS = [(3, 1), (7, 9), (18, 43), (2, 300)]

Make = Callable[[str], Any]


@pytest.fixture(scope="module")
def kernels() -> Make:
    """`kernels("avx2")`, or a skip where the CPU has none."""

    def find(name: str) -> Any:
        if name == "avx2" and not native.cpu_has_avx2():
            pytest.skip("this CPU has no AVX2")
        return native.kernels(name)

    return find


def encode(weights: np.ndarray, kind: int) -> np.ndarray:
    """Weights in a file's own bytes, by the gguf package.

    It has no encoder for the K formats: for them any bytes will do, with scales of both signs.
    """
    if kind not in HALVES:
        return np.frombuffer(gguf.quantize(weights, GGML[kind]).tobytes(), np.uint8)
    block, size = gguf.GGML_QUANT_SIZES[GGML[kind]]
    rng = np.random.default_rng(weights.size)
    data = rng.integers(0, 256, (weights.size // block, size), dtype=np.uint8)
    for at in HALVES[kind]:
        halves = rng.standard_normal((len(data), 1)).astype(np.float16) / np.float16(500)
        data[:, at : at + 2] = halves.view(np.uint8)
    return data.reshape(-1)


def decode(data: np.ndarray, kind: int, shape: tuple[int, int]) -> np.ndarray:
    """What those bytes mean, by the gguf package."""
    return np.asarray(gguf.dequantize(data.reshape(shape[0], -1), GGML[kind])).view(np.float32).reshape(shape)


def shapes(kind: int) -> list[tuple[int, int]]:
    if kind in HALVES:
        return [(1, 256), (5, 512), (33, 768), (40, 2816)]
    return ANY_COLS if kind >= Q8_0 else ANY_COLS + ODD_COLS


@KERNELS
@TYPES
def test_dequantized_rows_are_those_of_the_gguf_package(
    kernels: Make, name: str, kind: int, rng: np.random.Generator
) -> None:
    k = kernels(name)
    for _, cols in shapes(kind):
        data = encode(rng.standard_normal((1, cols), dtype=np.float32), kind)
        np.testing.assert_array_equal(k.dequantize(kind, data, cols), decode(data, kind, (1, cols))[0])


@KERNELS
def test_every_float16_is_read_exactly(kernels: Make, name: str) -> None:
    halves = np.arange(65536, dtype=np.uint16)
    read = kernels(name).dequantize(F16, halves.view(np.uint8), halves.size)
    np.testing.assert_array_equal(read, halves.view(np.float16).astype(np.float32))


@KERNELS
def test_float16_is_written_to_nearest_even(kernels: Make, name: str, rng: np.random.Generator) -> None:
    bits = rng.integers(0, 2**32, 100_003, dtype=np.uint32)
    x = np.concatenate([bits.view(np.float32), np.float32([0, -0.0, 1, 65504, 65519.9, 65520, 6e-8, 2.9e-8])])
    x = x[~np.isnan(x)]
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16)
    np.testing.assert_array_equal(kernels(name).store_f16(x).view(np.float16), expected)


def reconstructed(k: Any, x: np.ndarray, kind: int) -> np.ndarray:
    """The activations as the product of this kind reads them."""
    if kind < Q8_0:
        return x.astype(np.float64)
    q8, _, scale, *_ = k.quantize(x)
    return (q8.reshape(-1, 32) * scale[:, None].astype(np.float64)).reshape(-1)


def product_tolerance(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Rounding of a float32 sum: some units in the last place of the sum of magnitudes."""
    return 1e-6 * (np.abs(weights.astype(np.float64)) @ np.abs(x.astype(np.float64))) + 1e-30


@KERNELS
@TYPES
def test_gemv_is_the_product_of_dequantized_weights(
    kernels: Make, name: str, kind: int, rng: np.random.Generator
) -> None:
    k = kernels(name)
    for rows, cols in shapes(kind):
        data = encode(rng.standard_normal((rows, cols), dtype=np.float32), kind)
        weights = decode(data, kind, (rows, cols))
        x = rng.standard_normal(cols, dtype=np.float32)
        read = reconstructed(k, x, kind)
        error = np.abs(k.gemv(kind, data, rows, x) - weights.astype(np.float64) @ read)
        assert (error <= product_tolerance(weights, read)).all()


@KERNELS
@TYPES
def test_gemm_is_gemv_of_each_token(kernels: Make, name: str, kind: int, rng: np.random.Generator) -> None:
    """For any number of tokens, and pieces that begin and end at any row."""
    k = kernels(name)
    for rows, cols in shapes(kind):
        data = encode(rng.standard_normal((rows, cols), dtype=np.float32), kind)
        weights = decode(data, kind, (rows, cols))
        for tokens in (1, 2, 3, 5, 7, 64, 67, 131):
            row0 = int(rng.integers(0, rows))
            row1 = int(rng.integers(row0 + 1, rows + 1))
            x = rng.standard_normal((tokens, cols), dtype=np.float32)
            y = k.gemm(kind, data, rows, x, row0, row1)
            for t in range(tokens):
                expected = k.gemv(kind, data, rows, x[t])[row0:row1]
                tolerance = product_tolerance(weights[row0:row1], x[t])
                assert (np.abs(y[t] - expected) <= tolerance).all(), (rows, cols, tokens, t)


@TYPES
def test_products_of_extreme_weights_do_not_overflow(kernels: Make, kind: int) -> None:
    """All weights and activations at their largest, signs alike: the widest integer sums there can be."""
    rows, cols = 17, 4096
    one, full = np.float16([1]).view(np.uint8), np.full(256, 0xFF, np.uint8)
    blocks = {
        Q8_0: (one, np.full(32, 0x80, np.uint8)),
        Q4_0: (one, np.zeros(16, np.uint8)),
        Q4_1: (one, one, full[:16]),
        Q5_0: (one, np.zeros(20, np.uint8)),
        Q5_1: (one, one, full[:20]),
        Q4_K: (one, one, full[:140]),
        Q5_K: (one, one, full[:172]),
        Q6_K: (np.zeros(192, np.uint8), np.full(16, 0x80, np.uint8), one),  # -128 * -32
        Q2_K: (full[:80], one, np.zeros(2, np.uint8)),  # 15 * 3
        Q3_K: (np.zeros(108, np.uint8), one),  # -32 * -4
    }
    block = (
        np.concatenate(blocks[kind]) if kind in blocks else encode(np.full((1, 32), -128, np.float32), kind)
    )
    data = np.tile(block, rows * cols // (256 if kind in HALVES else 32))
    weight = decode(data, kind, (rows, cols))[0, 0]
    assert weight in {-128, -8, 15 + 1, -16, 31 + 1, 63 * 15 - 63, 63 * 31 - 63, 4096, 15 * 3, 128}
    for sign in (1, -1):
        x = np.full((5, cols), sign, np.float32)
        for name in ("scalar", "avx2"):
            k = kernels(name)
            expected = np.full((5, rows), sign * weight * cols, np.float32)
            np.testing.assert_allclose(k.gemm(kind, data, rows, x, 0, rows), expected, rtol=1e-5)
            np.testing.assert_allclose(k.gemv(kind, data, rows, x[0]), expected[0], rtol=1e-5)


def test_both_sets_quantize_alike(kernels: Make, rng: np.random.Generator) -> None:
    x = rng.standard_normal(32 * 500, dtype=np.float32) * np.exp(rng.uniform(-30, 30, 32 * 500)).astype(
        np.float32
    )
    x[:32] = 0
    for scalar, fast in zip(kernels("scalar").quantize(x), kernels("avx2").quantize(x), strict=True):
        np.testing.assert_array_equal(scalar, fast)


@KERNELS
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_spoils_its_product_rather_than_vanish(
    kernels: Make, name: str, poison: float, rng: np.random.Generator
) -> None:
    k = kernels(name)
    for kind in (F16, *range(Q8_0, 11)):
        data = encode(rng.standard_normal((16, 256), dtype=np.float32), kind)
        x = rng.standard_normal((4, 256), dtype=np.float32)
        x[:, 40] = poison
        assert not np.isfinite(k.gemv(kind, data, 16, x[0])).any()
        assert not np.isfinite(k.gemm(kind, data, 16, x, 0, 16)).any()


SIZES = pytest.mark.parametrize("n", [1, 7, 8, 31, 64, 1000, 4099])


@KERNELS
@SIZES
def test_rms_norm_is_numpys(kernels: Make, name: str, n: int, rng: np.random.Generator) -> None:
    x, w = rng.standard_normal((2, n), dtype=np.float32)
    expected = x / np.sqrt(np.mean(x.astype(np.float64) ** 2) + 1e-5) * w
    np.testing.assert_allclose(kernels(name).rms_norm(x, w, 1e-5), expected, rtol=3e-6, atol=1e-7)


@KERNELS
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dim", [2, 6, 8, 20, 64, 80, 128])
def test_rope_turns_complex_numbers(
    kernels: Make, name: str, interleaved: bool, dim: int, rng: np.random.Generator
) -> None:
    x = rng.standard_normal((3, dim), dtype=np.float32)
    angle = rng.uniform(0, 6, dim // 2)
    turned = kernels(name).rope(
        x, np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32), interleaved
    )

    def pairs(a: np.ndarray) -> np.ndarray:
        return a[:, 0::2] + 1j * a[:, 1::2] if interleaved else a[:, : dim // 2] + 1j * a[:, dim // 2 :]

    np.testing.assert_allclose(pairs(turned), pairs(x) * np.exp(1j * angle), atol=2e-6)


@KERNELS
@SIZES
def test_softmax_silu_add_and_sum_exp_are_numpys(
    kernels: Make, name: str, n: int, rng: np.random.Generator
) -> None:
    k = kernels(name)
    x = (rng.standard_normal(n) * 20).astype(np.float32)
    y = rng.standard_normal(n, dtype=np.float32)
    wide = x.astype(np.float64)
    odds = np.exp(wide - wide.max())
    np.testing.assert_allclose(k.softmax(x), odds / odds.sum(), rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(k.silu_mul(x, y), wide / (1 + np.exp(-wide)) * y, rtol=2e-6, atol=1e-9)
    np.testing.assert_array_equal(k.add(x, y), x + y)
    assert k.max(x) == x.max()
    assert k.sum_exp(x, x.max()) == pytest.approx(odds.sum(), rel=2e-6)
    assert np.isnan(k.sum_exp(np.append(x, np.float32(np.nan)), x.max()))


@KERNELS
def test_silu_has_its_limits(kernels: Make, name: str) -> None:
    gate = np.float32([-1e4, -200, -90, -88, 0, 88, 200, 1e4])
    with np.errstate(over="ignore"):
        expected = gate / (1 + np.exp(-gate.astype(np.float64)))
    np.testing.assert_allclose(
        kernels(name).silu_mul(gate, np.ones(8, np.float32)), expected, rtol=1e-5, atol=1e-30
    )


def attention_by_numpy(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """q (T, H, D), k and v (N, K, D) -> (T, H, D): token t sees the keys 0 .. N - T + t."""
    T, H, D = q.shape
    N, K, _ = k.shape
    k, v = np.repeat(k, H // K, axis=1), np.repeat(v, H // K, axis=1)  # (N, H, D)
    scores = np.einsum("thd,nhd->htn", q.astype(np.float64), k) / np.sqrt(D)
    scores = np.where(np.arange(N) <= N - T + np.arange(T)[:, None], scores, -np.inf)
    odds = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("htn,nhd->thd", odds / odds.sum(-1, keepdims=True), v)


@KERNELS
@pytest.mark.parametrize("kind", ["f16", "f32", "q8_0"])
@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("part", [0, 128, 50])
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 1, 8), (1, 300, 9, 3, 64), (1, 129, 4, 4, 20), (1, 200, 14, 1, 24), (5, 5, 2, 1, 2),
     (70, 190, 6, 2, 64), (33, 257, 8, 8, 40), (3, 128, 32, 1, 256), (60, 60, 4, 2, 6)],
)  # fmt: skip
def test_attention_is_numpys(
    kernels: Make,
    name: str,
    kind: str,
    few: bool,
    part: int,
    shape: tuple[int, int, int, int, int],
    rng: np.random.Generator,
) -> None:
    T, N, H, K, D = shape
    q = rng.standard_normal((T, H, D), dtype=np.float32) * 2
    k, v = rng.standard_normal((2, N, K, D), dtype=np.float32)
    if kind == "f16":
        k, v = k.astype(np.float16).astype(np.float32), v.astype(np.float16).astype(np.float32)
    elif kind == "q8_0":
        k, v = kept_in_q8_0(kernels(name), k), kept_in_q8_0(kernels(name), v)
    found = kernels(name).attention(q, k, v, kind, part, few=few)
    np.testing.assert_allclose(found, attention_by_numpy(q, k, v), atol=3e-6, rtol=1e-5)


def kept_in_q8_0(k: Any, x: np.ndarray) -> np.ndarray:
    """x (..., D) after a cache of Q8_0 has had it, by the gguf package."""
    D = x.shape[-1]
    rows = [k.store_q8_0(row) for row in x.reshape(-1, D)]
    return gguf.dequantize(np.stack(rows), GGML[Q8_0])[:, :D].reshape(x.shape)


@KERNELS
@pytest.mark.parametrize("size", [32, 64, 80, 20, 1])
def test_a_cache_row_in_q8_0_is_ggmls(kernels: Make, name: str, size: int, rng: np.random.Generator) -> None:
    """The bytes of gguf's own encoder, but for numbers that lie between two codes."""
    x = rng.standard_normal(size, dtype=np.float32)
    x[size // 2 :: 7] *= 50
    padded = np.zeros(-(-size // 32) * 32, np.float32)
    padded[:size] = x
    expected = gguf.quantize(padded, GGML[Q8_0]).view(np.int8).reshape(-1, 34)
    found = kernels(name).store_q8_0(x).view(np.int8).reshape(-1, 34)
    assert (found[:, :2] == expected[:, :2]).all()
    assert np.abs(found[:, 2:].astype(int) - expected[:, 2:]).max() <= 1
    assert (kernels("scalar").store_q8_0(x) == found.view(np.uint8).reshape(-1)).all()


@KERNELS
def test_no_number_is_kept_as_none_in_q8_0(kernels: Make, name: str) -> None:
    for bad in (np.nan, np.inf):
        x = np.full(40, 1.0, np.float32)
        x[35] = bad
        kept = gguf.dequantize(kernels(name).store_q8_0(x), GGML[Q8_0])
        assert np.isfinite(kept[:32]).all()
        assert np.isnan(kept[32:]).all()


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
@pytest.mark.parametrize("few", [False, True])
def test_what_a_row_attends_to_hangs_on_no_other_row(
    kernels: Make, kind: str, few: bool, rng: np.random.Generator
) -> None:
    """Bit for bit, wherever a prompt is cut: with a window too."""
    for window in (0, 150):
        q = rng.standard_normal((64, 6, 64), dtype=np.float32)
        k, v = rng.standard_normal((2, 400, 2, 64), dtype=np.float32)
        whole = kernels("auto").attention(q, k, v, kind, 0, window, few=few)
        for first, last in ((0, 1), (1, 9), (9, 63)):
            part = kernels("auto").attention(
                q[first:last], k[: 336 + last], v[: 336 + last], kind, 0, window, few=few
            )
            assert (part == whole[first:last]).all()


def test_shapes_that_do_not_fit_are_refused(kernels: Make, rng: np.random.Generator) -> None:
    k = kernels("scalar")
    x = np.zeros(64, np.float32)
    good = encode(rng.standard_normal((2, 64), dtype=np.float32), Q8_0)
    for kind, data, rows, vector in [
        (Q8_0, good[:-1], 2, x),
        (Q8_0, good, 3, x),
        (Q8_0, good, 0, x),
        (Q8_0, good, -1, x),
        (Q8_0, good, 2**62, x),
        (Q8_0, good, 2, x[:33]),
        (Q8_0, good, 2, x[:0]),
        (19, good, 2, x),
        (-1, good, 2, x),
    ]:
        with pytest.raises(ValueError, match="tensor w"):
            k.gemv(kind, data, rows, vector)
    with pytest.raises(ValueError, match="out of range"):
        k.gemm(Q8_0, good, 2, np.zeros((257, 64), np.float32), 0, 2)
    with pytest.raises(ValueError, match="out of range"):
        k.gemm(Q8_0, good, 2, np.zeros((1, 64), np.float32), 1, 3)
    with pytest.raises(ValueError, match="blocks of 32"):
        k.quantize(x[:40])
    with pytest.raises(ValueError, match="no kernels named"):
        native.kernels("cuda")
