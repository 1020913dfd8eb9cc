"""Generations: their ends, their turns, what they share, and what is refused."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quinze import native
from quinze.engine.engine import Engine
from quinze.engine.sampling import SamplingParams
from quinze.errors import ContextLengthError, FileFormatError, InvalidRequestError, UnsupportedModelError
from quinze.formats.checkpoint import Tensor, TensorType
from quinze.models.weights import Model, load_model

GREEDY = SamplingParams(temperature=0)


@pytest.fixture
def engine(stories: Model) -> Engine:
    return Engine(stories, threads=2, kv_type="f32")


def test_it_ends_at_max_tokens_and_counts(engine: Engine, greedy_ids: list[int]) -> None:
    generation = engine.generate([1], SamplingParams(temperature=0, max_tokens=10))
    assert generation.finish_reason is None
    assert list(generation) == greedy_ids[:10]
    assert generation.finish_reason == "length"
    assert (generation.prompt_tokens, generation.completion_tokens) == (1, 10)
    assert generation.prefill_seconds > 0
    assert generation.decode_seconds > 0


def test_a_stop_id_ends_it_and_is_not_given(engine: Engine, greedy_ids: list[int]) -> None:
    stop = next(i for i in greedy_ids[5:] if i not in greedy_ids[:5])
    generation = engine.generate([1], GREEDY, stop_ids={stop})
    assert list(generation) == greedy_ids[: greedy_ids.index(stop)]
    assert generation.finish_reason == "stop"


def test_it_ends_when_the_context_is_full(stories: Model, greedy_ids: list[int]) -> None:
    engine = Engine(stories, context_length=20)
    generation = engine.generate([1, *greedy_ids[:9]], GREEDY)
    assert list(generation) == greedy_ids[9:19]
    assert generation.finish_reason == "length"
    full = engine.generate([1, *greedy_ids[:19]], GREEDY)
    assert list(full) == []
    assert full.finish_reason == "length"


def test_the_next_prompt_recomputes_only_what_is_new(engine: Engine, greedy_ids: list[int]) -> None:
    params = SamplingParams(temperature=0, max_tokens=30)
    list(engine.generate([1], params))
    second = engine.generate([1, *greedy_ids[:60]], params)
    assert list(second) == greedy_ids[60:90]
    assert second.cached_tokens == 30  # BOS and the 29 that were passed on; the last was never computed
    again = engine.generate([1, *greedy_ids[:60]], params)
    assert list(again) == greedy_ids[60:90]
    assert again.cached_tokens == 60  # one id at least passes through
    other = engine.generate([1, *greedy_ids[:5], 7, 8, 9], params)
    first = list(other)
    assert other.cached_tokens == 6
    fresh = Engine(engine._model, threads=1, kv_type="f32")  # type: ignore[arg-type]
    assert first == list(fresh.generate([1, *greedy_ids[:5], 7, 8, 9], params))


def test_two_generations_in_one_thread_do_not_wait_for_each_other(
    engine: Engine, greedy_ids: list[int]
) -> None:
    one, two = (engine.generate([1], SamplingParams(temperature=0, max_tokens=40)) for _ in range(2))
    assert [token for pair in zip(one, two, strict=True) for token in pair[:1]] == greedy_ids[:40]


def test_generations_from_many_threads_take_turns(engine: Engine, greedy_ids: list[int]) -> None:
    results: dict[int, list[int]] = {}
    order: list[int] = []

    def write(me: int) -> None:
        mine = results.setdefault(me, [])
        for token in engine.generate([1], SamplingParams(temperature=0, max_tokens=100)):
            mine.append(token)
            order.append(me)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == dict.fromkeys(range(4), greedy_ids[:100])
    # Nobody had to wait for the whole of another: before the first was through, each had begun.
    assert len(set(order[: order.index(order[-1]) + 100])) > 1


def test_cancel_before_the_first_token(engine: Engine) -> None:
    cancel = threading.Event()
    cancel.set()
    generation = engine.generate([1], GREEDY, cancel=cancel)
    assert list(generation) == []
    assert generation.finish_reason == "cancelled"


def test_cancel_between_tokens(engine: Engine, greedy_ids: list[int]) -> None:
    cancel = threading.Event()
    generation = engine.generate([1], GREEDY, cancel=cancel)
    written = []
    for token in generation:
        written.append(token)
        if len(written) == 12:
            cancel.set()
    assert written == greedy_ids[:12]
    assert generation.finish_reason == "cancelled"
    # What it had computed serves the next.
    following = engine.generate([1, *greedy_ids[:12]], SamplingParams(temperature=0, max_tokens=5))
    assert list(following) == greedy_ids[12:17]
    assert following.cached_tokens == 12


class SetWhenAskedAgain(threading.Event):
    """An event that someone sets between the first time it is looked at and the second."""

    asked = 0

    def is_set(self) -> bool:
        self.asked += 1
        return self.asked > 1


def test_cancel_within_a_prefill(random_gguf: Callable[[str], Path]) -> None:
    """It stops at a layer, before the block is through, and nothing half computed is used afterwards."""
    model = load_model(random_gguf("f32"))
    engine = Engine(
        model, kernels="scalar", threads=1
    )  # a layer takes far longer than the 20 ms between looks
    ids = np.random.default_rng(0).integers(0, 1024, 256).tolist()
    generation = engine.generate(ids, GREEDY, cancel=SetWhenAskedAgain())
    assert list(generation) == []
    assert generation.finish_reason == "cancelled"
    short = SamplingParams(temperature=0, max_tokens=3)
    following = engine.generate(ids[:40], short)
    assert list(following) == list(Engine(model, kernels="scalar", threads=1).generate(ids[:40], short))
    assert following.cached_tokens == 0


def test_close_from_another_thread_ends_the_iteration(engine: Engine) -> None:
    generation = engine.generate([1], GREEDY)
    next(generation)
    closer = threading.Thread(target=generation.close)
    closer.start()
    closer.join(10)
    assert list(generation) == []
    assert generation.finish_reason == "cancelled"
    generation.close()


def test_a_generation_left_behind_gives_its_cache_back(engine: Engine, greedy_ids: list[int]) -> None:
    generation = engine.generate([1], GREEDY)
    for _ in range(20):
        next(generation)
    del generation
    gc.collect()
    following = engine.generate([1, *greedy_ids[:20]], SamplingParams(temperature=0, max_tokens=3))
    list(following)
    assert following.cached_tokens == 20


def test_the_cache_grows_with_use_and_shrinks_with_truncate(engine: Engine) -> None:
    decoder = engine._running()
    cache = decoder.cache("f16")
    assert cache.bytes == 0
    decoder.forward(cache, np.ones(10, np.int32))
    page = cache.bytes
    assert page == 5 * 2 * 4 * 128 * 8 * 2  # layers, keys and values, heads, positions, head size, bytes
    decoder.forward(cache, np.ones(200, np.int32))
    assert (cache.length, cache.bytes) == (210, 2 * page)
    decoder.truncate(cache, 128)
    assert (cache.length, cache.bytes) == (128, page)


def test_bad_requests_are_refused(engine: Engine) -> None:
    with pytest.raises(InvalidRequestError, match="empty"):
        engine.generate([], GREEDY)
    with pytest.raises(InvalidRequestError, match="id 512 is outside"):
        engine.generate([1, 512], GREEDY)
    with pytest.raises(InvalidRequestError, match="id -1 is outside"):
        engine.logits([-1])
    with pytest.raises(InvalidRequestError, match="outside"):
        engine.generate([2**70], GREEDY)
    with pytest.raises(ContextLengthError, match="513 tokens; stories260K reads at most 512"):
        engine.generate([1] * 513, GREEDY)


def test_a_closed_engine_says_so(stories: Model) -> None:
    engine = Engine(stories)
    generation = engine.generate([1], GREEDY)
    next(generation)
    engine.close()
    with pytest.raises(InvalidRequestError, match="closed"):
        next(generation)
    with pytest.raises(InvalidRequestError, match="closed"):
        engine.logits([1])


def test_bad_settings_are_refused(stories: Model) -> None:
    for settings, match in (
        ({"threads": 0}, "threads"),
        ({"threads": 5000}, "threads"),
        ({"kernels": "cuda"}, "cuda"),
        ({"kv_type": "q4"}, "q4"),
        ({"context_length": 0}, "context length"),
    ):
        with pytest.raises(InvalidRequestError, match=match):
            Engine(stories, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("kernels", ["scalar", "auto"])
def test_weights_that_are_no_numbers_give_a_clear_error(stories: Model, kernels: str) -> None:
    nan = np.full(512 * 64, np.nan, np.float32).view(np.uint8)
    broken = {**stories.tensors, "model.embed_tokens.weight": Tensor("", TensorType.F32, (512, 64), nan)}
    engine = Engine(replace(stories, tensors=broken), kernels=kernels)
    for params in (GREEDY, SamplingParams(), SamplingParams(top_k=0, repetition_penalty=1.2)):
        with pytest.raises(FileFormatError, match="NaN"):
            list(engine.generate([1], params))


def test_tensors_of_the_wrong_size_are_refused_before_anything_is_read(stories: Model) -> None:
    name = "model.layers.3.mlp.down_proj.weight"
    right = stories.tensors[name]
    for wrong in (
        None,
        Tensor(name, right.type, (64, 171), right.data),
        Tensor(name, right.type, right.shape, right.data[:-4]),
        Tensor(name, TensorType.F16, right.shape, right.data),
        Tensor(name, TensorType.Q8_0, right.shape, right.data),
        Tensor(name, right.type, right.shape[::-1], right.data),
    ):
        tensors = {key: value for key, value in stories.tensors.items() if key != name}
        if wrong is not None:
            tensors[name] = wrong
        with pytest.raises(UnsupportedModelError, match="down_proj"):
            Engine(replace(stories, tensors=tensors))


def test_a_cache_of_another_model_is_refused(stories: Model, random_gguf: Callable[[str], Path]) -> None:
    mine, other = Engine(stories)._running(), Engine(load_model(random_gguf("q4_0")))._running()
    with pytest.raises(ValueError, match="another model"):
        mine.forward(other.cache(), np.ones(1, np.int32))
    with pytest.raises(ValueError, match="no logits yet"):
        mine.sample(
            mine.cache(),
            native.sampler(temperature=0, top_k=0, top_p=1, min_p=0, repetition_penalty=1, seed=0),
        )


def test_threads_sleep_when_nothing_is_asked(stories: Model) -> None:
    engine = Engine(stories, threads=4)
    engine.logits([1, 2, 3])
    time.sleep(0.1)
    used = []
    for _ in range(5):  # others' threads in this process may be busy for a moment
        before = time.process_time()
        time.sleep(0.1)
        used.append(time.process_time() - before)
    assert min(used) < 0.05  # four that spin would use 0.2 or more
