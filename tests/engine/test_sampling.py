"""Sampling: the odds are those of transformers' own warpers, seeds reproduce, NaN is refused."""

from __future__ import annotations

import numpy as np
import pytest

from quinze import native
from quinze.engine.engine import Engine
from quinze.engine.sampling import SamplingParams
from quinze.errors import InvalidRequestError
from quinze.models.weights import Model

DRAWS = 20_000


def sampler(**changes: float | int | str) -> native.Sampler:
    numbers = {
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "seed": 15,
    }
    return native.sampler(**(numbers | changes))  # type: ignore[arg-type]


def by_transformers(logits: np.ndarray, said: list[int], **params: float) -> np.ndarray:
    """The odds of each token, by the processors of transformers in the order of its `generate`."""
    import torch
    from transformers.generation import logits_process as warpers

    scores = torch.tensor(logits)[None].double()
    chain = []
    if params.get("repetition_penalty", 1.0) != 1.0:
        chain.append(warpers.RepetitionPenaltyLogitsProcessor(params["repetition_penalty"]))
    chain.append(warpers.TemperatureLogitsWarper(float(params.get("temperature", 1.0))))
    if params.get("top_k", 0):
        chain.append(warpers.TopKLogitsWarper(int(params["top_k"])))
    if params.get("top_p", 1.0) < 1.0:
        chain.append(warpers.TopPLogitsWarper(params["top_p"]))
    if params.get("min_p", 0.0):
        chain.append(warpers.MinPLogitsWarper(params["min_p"]))
    if params.get("typical_p", 1.0) < 1.0:
        chain.append(warpers.TypicalLogitsWarper(params["typical_p"]))
    for warper in chain:
        scores = warper(torch.tensor([said]), scores)
    return scores.softmax(-1)[0].numpy()


@pytest.mark.parametrize("kernels", ["scalar", "auto"])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 3.0, "top_k": 7},
        {"top_k": 1},
        {"top_p": 0.8},
        {"top_p": 0.999},
        {"top_p": 0.0},
        {"min_p": 0.1},
        {"min_p": 0.2, "temperature": 2.0},
        {"top_p": 0.9, "min_p": 0.05},
        {"temperature": 0.7, "top_k": 40, "top_p": 0.95, "min_p": 0.05},
        {"repetition_penalty": 1.5, "top_k": 20},
        {"repetition_penalty": 0.7, "top_p": 0.7},
        {"typical_p": 0.9},
        {"typical_p": 0.2, "temperature": 0.6},
        {"typical_p": 0.01},
        {"typical_p": 0.8, "top_k": 30, "top_p": 0.95, "min_p": 0.02, "temperature": 1.5},
    ],
)
def test_draws_have_the_odds_of_transformers(
    params: dict[str, float], kernels: str, rng: np.random.Generator
) -> None:
    logits = (rng.standard_normal(300) * 3).astype(np.float32)
    said = [int(i) for i in np.argsort(logits)[-10::2]] + [3, 4, 5, 5]
    odds = by_transformers(logits, said, **params)
    s = sampler(**params, kernels=kernels)
    for token in said:
        s.accept(token)
    counts = np.bincount([s.sample(logits) for _ in range(DRAWS)], minlength=logits.size)
    assert not counts[odds == 0].any()
    # Pearson's chi-square over the tokens expected often enough, the rest as one.
    expected = odds * DRAWS
    often = expected >= 5
    observed, wanted = counts[often].astype(float), expected[often]
    if (~often).any() and expected[~often].sum() >= 1:
        observed, wanted = (
            np.append(observed, counts[~often].sum()),
            np.append(wanted, expected[~often].sum()),
        )
    freedom = len(wanted) - 1
    assert ((observed - wanted) ** 2 / wanted).sum() <= freedom + 5 * np.sqrt(2 * freedom + 1)


def log_odds(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    return np.asarray(wide - np.log(np.exp(wide - wide.max()).sum()) - wide.max())


def test_presence_and_frequency_count_the_reply_and_not_the_prompt(rng: np.random.Generator) -> None:
    """OpenAI: mu[j] -= c[j] * frequency_penalty + (c[j] > 0) * presence_penalty."""
    logits = rng.standard_normal(50).astype(np.float32)
    prompt, reply = [1, 2, 2, 2, 7], [7, 7, 7, 9] * 100
    s = sampler(presence_penalty=0.7, frequency_penalty=0.01)
    for token in prompt:
        s.read(token)
    for token in reply:
        s.accept(token)
    counts = np.bincount(reply, minlength=50)
    wanted = np.exp(log_odds(logits - 0.01 * counts - 0.7 * (counts > 0)))
    drawn = np.bincount([s.sample(logits) for _ in range(DRAWS)], minlength=50) / DRAWS
    assert np.abs(drawn - wanted).max() < 5 * np.sqrt(0.25 / DRAWS)
    greedy = sampler(temperature=0, presence_penalty=2.0)
    best = int(logits.argmax())
    greedy.read(best)
    assert greedy.sample(logits) == best
    greedy.accept(best)
    assert greedy.sample(logits) == (logits - 2 * (np.arange(50) == best)).argmax()


def test_a_bias_is_that_of_transformers(rng: np.random.Generator) -> None:
    import torch
    from transformers.generation.logits_process import SequenceBiasLogitsProcessor

    logits = rng.standard_normal(80).astype(np.float32)
    bias = {3: 2.5, 10: -100.0, 79: 1.0}
    scores = torch.tensor(logits)[None].double()
    peer = SequenceBiasLogitsProcessor([[[id_], b] for id_, b in bias.items()])
    wanted = peer(torch.tensor([[0]]), scores).softmax(-1)[0].numpy()
    s = sampler(logit_bias=list(bias.items()))
    drawn = np.bincount([s.sample(logits) for _ in range(DRAWS)], minlength=80) / DRAWS
    assert np.abs(drawn - wanted).max() < 5 * np.sqrt(0.25 / DRAWS)
    assert drawn[10] == 0
    only = sampler(logit_bias=[(10, 100.0)], top_p=0.9)
    assert {only.sample(logits) for _ in range(100)} == {10}


@pytest.mark.parametrize("kernels", ["scalar", "auto"])
@pytest.mark.parametrize("n", [1, 31, 32, 33, 1000])
def test_a_mask_lets_only_its_ids_through(n: int, kernels: str, rng: np.random.Generator) -> None:
    logits = rng.standard_normal(n, dtype=np.float32)
    allowed = rng.random(n) < 0.3
    allowed[rng.integers(n)] = True
    bits = np.packbits(allowed, bitorder="little")
    mask = np.frombuffer(bits.tobytes().ljust((n + 31) // 32 * 4, b"\0"), np.uint32)
    for params in ({}, {"top_k": 50}, {"top_p": 0.99}, {"typical_p": 0.9}):
        s = sampler(temperature=5.0, kernels=kernels, **params)
        assert {s.sample(logits, mask) for _ in range(300)} <= set(np.flatnonzero(allowed).tolist())
    masked = np.where(allowed, logits, -np.inf)
    assert sampler(temperature=0, kernels=kernels).sample(logits, mask) == masked.argmax()


def test_ids_beyond_a_short_mask_are_not_allowed_and_a_mask_of_nothing_is_an_error() -> None:
    logits = np.arange(100, dtype=np.float32)
    assert sampler(temperature=0).sample(logits, np.array([0xFFFFFFFF], np.uint32)) == 31
    for nothing in (np.zeros(4, np.uint32), np.zeros(0, np.uint32)):
        with pytest.raises(ArithmeticError, match="allowed"):
            sampler().sample(logits, nothing)


@pytest.mark.parametrize("kernels", ["scalar", "auto"])
def test_logprobs_are_the_models_own_whatever_is_asked_of_the_choice(
    kernels: str, rng: np.random.Generator
) -> None:
    import torch

    logits = (rng.standard_normal(1001) * 4).astype(np.float32)
    wanted = torch.tensor(logits).double().log_softmax(-1)
    top = wanted.topk(5)
    s = sampler(temperature=0.3, top_p=0.9, presence_penalty=1.0, logit_bias=[(7, 100.0)], logprobs=5,
                kernels=kernels)  # fmt: skip
    assert s.sample(logits) == 7
    chosen, likeliest = s.logprobs()
    assert chosen == pytest.approx(float(wanted[7]), abs=1e-5)
    assert [id_ for id_, _ in likeliest] == top.indices.tolist()
    assert [logprob for _, logprob in likeliest] == pytest.approx(top.values.tolist(), abs=1e-5)
    none = sampler(logprobs=0)
    none.sample(logits)
    assert none.logprobs()[1] == []


def test_the_engines_logprobs_are_those_of_its_own_logits(stories: Model) -> None:
    engine = Engine(stories, threads=1, kv_type="f32")
    with engine.generate(
        [1, 403], SamplingParams(temperature=1.0, seed=3, max_tokens=12, logprobs=3)
    ) as generation:
        told = [generation.logprobs for _ in generation]
    ids = [1, 403, *(found.id for found in told)]
    for row, found in zip(engine.logits(ids)[1:], told, strict=False):
        wanted = log_odds(row)
        assert found.logprob == pytest.approx(wanted[found.id], abs=1e-3)
        assert [id_ for id_, _ in found.most_likely] == np.argsort(-wanted)[:3].tolist()


@pytest.mark.parametrize("kernels", ["scalar", "auto"])
@pytest.mark.parametrize("n", [1, 63, 64, 65, 1000, 49152])
def test_greedy_takes_the_largest_and_the_first_of_equals(
    kernels: str, n: int, rng: np.random.Generator
) -> None:
    logits = rng.standard_normal(n, dtype=np.float32)
    greedy = sampler(temperature=0, kernels=kernels)
    assert greedy.sample(logits) == logits.argmax()
    assert sampler(temperature=1e-9, kernels=kernels).sample(logits) == logits.argmax()
    assert greedy.sample(np.round(logits)) == np.round(logits).argmax()


@pytest.mark.parametrize("k", [1, 2, 40, 999, 1000, 5000])
def test_top_k_keeps_exactly_the_k_largest(k: int, rng: np.random.Generator) -> None:
    logits = rng.standard_normal(1000, dtype=np.float32)
    flat = sampler(temperature=100.0, top_k=k)
    seen = {flat.sample(logits) for _ in range(DRAWS)}
    largest = set(np.argsort(-logits)[:k].tolist())
    assert seen == largest if k <= 40 else seen <= largest


def test_the_penalty_forgets_after_256_tokens() -> None:
    logits = np.zeros(10, np.float32)
    logits[3], logits[4] = 2.0, 1.9
    s = sampler(temperature=0, repetition_penalty=1.5)
    s.accept(3)
    assert s.sample(logits) == 4
    for _ in range(255):
        s.accept(9)
    assert s.sample(logits) == 4
    s.accept(9)
    assert s.sample(logits) == 3


def test_the_same_seed_gives_the_same_tokens_and_another_does_not(stories: Model) -> None:
    engine = Engine(stories, threads=2)

    def write(seed: int | None) -> list[int]:
        return list(engine.generate([1], SamplingParams(temperature=1.0, seed=seed, max_tokens=60)))

    assert write(7) == write(7)
    assert write(-7) == write(-7)
    assert len({tuple(write(seed)) for seed in (1, 2, 2**64 - 1)}) == 3
    assert write(None) != write(None)


@pytest.mark.parametrize("params", [{"temperature": 0}, {"top_k": 5}, {"top_p": 0.5}, {"min_p": 0.1}, {}])
def test_nan_is_an_error_and_no_token(params: dict[str, float], rng: np.random.Generator) -> None:
    for where in (0, 500, 999):
        logits = rng.standard_normal(1000, dtype=np.float32)
        logits[where] = np.nan
        with pytest.raises(ArithmeticError, match="NaN"):
            sampler(**params).sample(logits)
    for value in (np.inf, -np.inf):
        with pytest.raises(ArithmeticError, match="infinite"):
            sampler(**params).sample(np.full(1000, value, np.float32))


def test_tokens_of_no_odds_are_never_drawn(rng: np.random.Generator) -> None:
    logits = np.full(1000, -np.inf, np.float32)
    logits[[5, 900]] = 1.0
    for params in ({}, {"top_k": 10}, {"top_p": 0.99}, {"min_p": 0.01}):
        s = sampler(**params)
        assert {s.sample(logits) for _ in range(200)} == {5, 900}


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 1.1},
        {"min_p": -0.5},
        {"repetition_penalty": 0.0},
        {"presence_penalty": 2.1},
        {"frequency_penalty": float("inf")},
        {"typical_p": 0.0},
        {"logit_bias": {3: 101.0}},
        {"logit_bias": dict.fromkeys(range(1025), 0.0)},
        {"logprobs": 21},
        {"seed": 2**64},
        {"max_tokens": 0},
    ],
)
def test_params_out_of_range_are_refused_by_name(params: dict[str, float]) -> None:
    (name,) = params
    with pytest.raises(InvalidRequestError, match=name):
        SamplingParams(**params)  # type: ignore[arg-type]


def test_a_bias_for_a_token_that_the_model_has_not_is_refused(stories: Model) -> None:
    with pytest.raises(InvalidRequestError, match="512"):
        Engine(stories, threads=1).generate([1], SamplingParams(logit_bias={512: 1.0}))
