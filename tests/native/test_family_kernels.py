"""The kernels that some families want besides Llama's, scalar and AVX2, against torch's arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from quinze import native

SIZES = (1, 7, 8, 31, 64, 100, 768)


@pytest.fixture(params=["scalar", "avx2"])
def k(request: pytest.FixtureRequest) -> Any:
    if request.param == "avx2" and not native.cpu_has_avx2():
        pytest.skip("this CPU has no AVX2")
    return native.kernels(request.param)


@pytest.mark.parametrize("n", SIZES)
def test_layer_norm_is_torch_s(k: Any, n: int, rng: np.random.Generator) -> None:
    x = (rng.standard_normal(n) * 3 + 5).astype(np.float32)
    weight, bias = rng.standard_normal((2, n)).astype(np.float32)
    expected = torch.nn.functional.layer_norm(
        torch.tensor(x, dtype=torch.float64),
        (n,),
        torch.tensor(weight).double(),
        torch.tensor(bias).double(),
        1e-5,
    )
    np.testing.assert_allclose(k.layer_norm(x, weight, bias, 1e-5), expected.numpy(), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("n", SIZES)
def test_gelu_is_torch_s_tanh_formula(k: Any, n: int, rng: np.random.Generator) -> None:
    x = np.concatenate([np.float32([0, -0.0, 1, -1, 30, -30, 1e4, -1e4]), rng.standard_normal(n) * 4])
    x = x.astype(np.float32)
    expected = torch.nn.functional.gelu(torch.tensor(x, dtype=torch.float64), approximate="tanh").numpy()
    np.testing.assert_allclose(k.gelu(x), expected, rtol=1e-5, atol=1e-6)
    up = rng.standard_normal(x.size).astype(np.float32)
    np.testing.assert_allclose(k.gelu_mul(x, up), expected * up, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cap", [0.5, 30.0, 50.0])
def test_softcap_is_a_scaled_tanh(k: Any, cap: float, rng: np.random.Generator) -> None:
    x = np.concatenate([np.float32([0, 1e-3, 1e6, -1e6]), rng.standard_normal(61) * cap * 2]).astype(
        np.float32
    )
    np.testing.assert_allclose(
        k.softcap(x, cap), cap * np.tanh(x.astype(np.float64) / cap), rtol=1e-5, atol=2e-7 * cap
    )


def test_what_is_no_number_stays_none(k: Any) -> None:
    x = np.full(9, np.nan, np.float32)
    one = np.ones(9, np.float32)
    for y in (k.gelu(x), k.gelu_mul(x, one), k.softcap(x, 30.0), k.layer_norm(x, one, one, 1e-5)):
        assert np.isnan(y).all()


@pytest.mark.parametrize(("f16", "few"), [(False, False), (True, True)])
@pytest.mark.parametrize(
    ("tokens", "keys", "heads", "kv_heads", "size"),
    [(1, 300, 4, 1, 64), (40, 300, 4, 2, 16), (5, 260, 2, 2, 12), (130, 130, 2, 1, 8)],
)
@pytest.mark.parametrize(
    ("window", "softcap", "part"), [(1, 0, 0), (7, 0, 64), (128, 5.0, 0), (129, 0, 128), (0, 2.0, 0)]
)
def test_attention_looks_through_a_window_and_under_a_cap(
    k: Any, tokens: int, keys: int, heads: int, kv_heads: int, size: int, f16: bool, few: bool,
    window: int, softcap: float, part: int, rng: np.random.Generator,
) -> None:  # fmt: skip
    q = rng.standard_normal((tokens, heads, size)).astype(np.float32) * 2
    rows, values = (rng.standard_normal((keys, kv_heads, size)).astype(np.float32) for _ in range(2))
    if f16:
        rows, values = (x.astype(np.float16).astype(np.float32) for x in (rows, values))
    wide_k, wide_v = (np.repeat(x, heads // kv_heads, axis=1).astype(np.float64) for x in (rows, values))
    scores = np.einsum("thd,nhd->htn", q.astype(np.float64), wide_k) / np.sqrt(size)
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    at, key = np.arange(keys - tokens, keys)[:, None], np.arange(keys)[None]
    hidden = (key > at) | ((key <= at - window) if window else False)
    weights = torch.softmax(torch.tensor(np.where(hidden, -np.inf, scores)), -1).numpy()
    expected = np.einsum("htn,nhd->thd", weights, wide_v)
    found = k.attention(q, rows, values, "f16" if f16 else "f32", part, window, softcap, few)
    np.testing.assert_allclose(found, expected, atol=2e-5)
