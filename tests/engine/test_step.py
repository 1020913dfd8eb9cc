"""Steps: what many sequences get that share a pass over the weights is, bit for bit, what each gets alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quinze import native
from quinze.engine.engine import Engine
from quinze.models.weights import load_model


def greedy(**changes: Any) -> native.Sampler:
    numbers: dict[str, Any] = {
        "temperature": 0,
        "top_k": 0,
        "top_p": 1,
        "min_p": 0,
        "repetition_penalty": 1,
        "seed": 0,
    }
    return native.sampler(**(numbers | changes), logprobs=2)


class Alone:
    """One sequence, stepped by itself."""

    def __init__(
        self, decoder: native.Decoder, prompt: Sequence[int], cut: int = 256, kind: str = "f16"
    ) -> None:
        self.decoder, self.cache, self.sampler = decoder, decoder.cache(kind), greedy()
        for start in range(0, len(prompt), cut):
            ids = np.asarray(prompt[start : start + cut], np.int32)
            last = start + cut >= len(prompt)
            found = decoder.step([(self.cache, ids, True, 0, self.sampler if last else None, None, -1)])
        assert found is not None
        self.chosen = list(found[0][0])
        self.logprobs = list(found[0][1])

    def piece(self, guesses: Sequence[int] = ()) -> native.Piece:
        ids = np.asarray([self.chosen[-1], *guesses], np.int32)
        return (self.cache, ids, False, len(guesses), self.sampler, None, -1)

    def take(self, found: native.Chosen) -> None:
        assert found[2] is None
        self.chosen += found[0]
        self.logprobs += found[1]

    def write(self, count: int) -> None:
        while len(self.chosen) < count:
            found = self.decoder.step([self.piece()])
            assert found is not None
            self.take(found[0])


@pytest.fixture(scope="module", params=["q4_0", "q8_0", "q4_k_m", "f16"])
def decoder(request: pytest.FixtureRequest, random_gguf: Callable[[str], Path]) -> native.Decoder:
    return Engine(load_model(random_gguf(request.param)), threads=2)._running()


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, 1000, rng.integers(2, 180)).tolist() for _ in range(count)]


def test_alone_and_with_others_are_the_same_to_the_last_bit(decoder: native.Decoder) -> None:
    alone = [Alone(decoder, prompt) for prompt in prompts(9)]
    for one in alone:
        one.write(20)
    many = [Alone(decoder, prompt) for prompt in prompts(9)]
    late = decoder.cache("f16")
    while any(len(one.chosen) < 20 for one in many):
        # Somebody else's prompt is computed in between, piece by piece.
        ids = np.random.default_rng(late.length).integers(3, 1000, 30).astype(np.int32)
        found = decoder.step([*(one.piece() for one in many), (late, ids, True, 0, None, None, -1)])
        assert found is not None
        for one, chosen in zip(many, found, strict=False):
            one.take(chosen)
    assert [one.chosen for one in many] == [one.chosen for one in alone]
    assert [one.logprobs for one in many] == [one.logprobs for one in alone]


def test_it_does_not_matter_how_a_prompt_is_cut(decoder: native.Decoder) -> None:
    prompt = np.random.default_rng(1).integers(3, 1000, 400).tolist()
    whole = Alone(decoder, prompt)
    whole.write(8)
    for cut in (1, 33, 128):
        other = Alone(decoder, prompt[:100] if cut == 1 else prompt, cut)
        expected = Alone(decoder, prompt[:100]) if cut == 1 else whole
        expected.write(8)
        other.write(8)
        assert other.logprobs == expected.logprobs


def test_guesses_change_nothing(decoder: native.Decoder) -> None:
    expected = Alone(decoder, prompts(1)[0])
    expected.write(40)
    guessing = Alone(decoder, prompts(1)[0])
    rng, calls = np.random.default_rng(2), 0
    while len(guessing.chosen) < 36:
        guesses = expected.chosen[len(guessing.chosen) :][: rng.integers(1, 5)]
        right = int(rng.integers(0, len(guesses) + 1))
        wrong = [(token + 1) % 1000 for token in guesses[right:]]
        before = guessing.cache.length
        found = decoder.step([guessing.piece([*guesses[:right], *wrong])])
        assert found is not None
        assert len(found[0][0]) == right + 1
        assert guessing.cache.length == before + right + 1
        guessing.take(found[0])
        calls += 1
    assert guessing.chosen == expected.chosen[: len(guessing.chosen)]
    assert guessing.logprobs == expected.logprobs[: len(guessing.chosen)]
    assert calls < 30


def test_a_shared_beginning_is_the_same_beginning(decoder: native.Decoder) -> None:
    """Pages are shared, and copied by whoever writes into one: neither sequence notices the other."""
    prompt = np.random.default_rng(3).integers(3, 1000, 300).tolist()
    first, expected = Alone(decoder, prompt), Alone(decoder, [*prompt[:200], 5, 6, 7])
    expected.write(10)
    used = decoder.cache_bytes
    cache = decoder.share(first.cache, 200)
    assert decoder.cache_bytes == used
    page = first.cache.bytes // 3
    assert cache.missing(3) == page
    second = Alone.__new__(Alone)
    second.decoder, second.cache, second.sampler = decoder, cache, greedy()
    found = decoder.step([(cache, np.int32([5, 6, 7]), True, 0, second.sampler, None, -1)])
    assert found is not None
    assert decoder.cache_bytes == used + page
    second.chosen, second.logprobs = list(found[0][0]), list(found[0][1])
    first.write(10)
    second.write(10)
    assert second.logprobs == expected.logprobs
    unshared = Alone(decoder, prompt)
    unshared.write(10)
    assert first.logprobs == unshared.logprobs
    del cache, first, second, expected, unshared, found
    assert decoder.cache_bytes == 0


def test_bad_steps_are_refused(decoder: native.Decoder) -> None:
    one, other = (Alone(decoder, [5, 6, 7]) for _ in range(2))
    cache, ids, _, _, sampler, _, _ = one.piece()
    for pieces, match in (
        ([], "1 to 256"),
        ([one.piece(), one.piece()], "same cache"),
        ([one.piece(), (other.cache, ids, False, 0, sampler, None, -1)], "same sampler"),
        ([(cache, ids, False, 1, sampler, None, -1)], "guesses"),
        ([(cache, np.int32([1, 2]), True, 1, sampler, None, -1)], "guesses"),
        ([(cache, np.int32([1024]), False, 0, sampler, None, -1)], "vocabulary"),
        ([(cache, np.zeros(257, np.int32), True, 0, None, None, -1)], "1 to 256"),
    ):
        with pytest.raises(ValueError, match=match):
            decoder.step(pieces)
    with pytest.raises(ValueError, match="cannot be shared"):
        decoder.share(cache, 400)
    assert cache.length == 3


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_other_cache_types_hold_to_it_too(decoder: native.Decoder, kind: str) -> None:
    alone = Alone(decoder, prompts(1)[0], kind=kind)
    alone.write(12)
    pair = [Alone(decoder, prompt, kind=kind) for prompt in prompts(2)]
    while len(pair[0].chosen) < 12:
        found = decoder.step([one.piece() for one in pair])
        assert found is not None
        for one, chosen in zip(pair, found, strict=True):
            one.take(chosen)
    assert pair[0].logprobs == alone.logprobs


def test_keys_and_values_in_q8_0_are_close_to_float16(random_gguf: Callable[[str], Path]) -> None:
    """Logits differ by less than 2 % of their spread, where float16 itself differs from float32 by 0.1 %."""
    ids = np.random.default_rng(8).integers(3, 1000, 600).tolist()
    model = load_model(random_gguf("f32"))
    exact, half, eighth = (Engine(model, kv_type=kind).logits(ids) for kind in ("f32", "f16", "q8_0"))
    spread = exact.std()
    assert np.abs(half - exact).max() < 0.001 * spread * 5
    assert np.sqrt(np.mean((eighth - exact) ** 2)) < 0.02 * spread


def test_pages_behind_every_window_are_given_back(families: Any, tmp_path: Path) -> None:
    """And what is written then is what transformers writes: nothing that a window sees was lost."""
    import torch

    torch.manual_seed(15)
    peer = families.make("mistral", tmp_path, sliding_window=40, max_position_embeddings=1024)
    engine = Engine(load_model(tmp_path), threads=2, kv_type="f32")
    decoder = engine._running()
    cache = decoder.cache("f32")
    ids = np.random.default_rng(4).integers(3, 90, 900).astype(np.int32)
    found = np.concatenate([decoder.forward_all(cache, piece) for piece in np.split(ids, 9)])
    with torch.no_grad():
        expected = peer(torch.tensor(ids[None].astype(np.int64))).logits[0].numpy()
    np.testing.assert_allclose(found, expected, atol=3e-4 * expected.std())
    whole = decoder.cache("f32")
    decoder.forward(whole, ids[:100])
    assert cache.length == 900
    assert cache.bytes <= 3 * whole.bytes
    assert not cache.can_share(500)
    assert cache.can_share(890)
