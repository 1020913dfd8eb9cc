"""Many requests at once: each gets what it gets alone, nobody starves, and memory ends where it began."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from quinze.engine.engine import Engine
from quinze.engine.sampling import SamplingParams
from quinze.errors import InvalidRequestError, TooLargeError
from quinze.models.weights import Model, load_model

PAGE = 2 * 2 * 2 * 128 * 64 * 2
"""Bytes of the tiny model's pages: layers, keys and values, heads, positions, head size, bytes of float16."""


@pytest.fixture(scope="module")
def tiny(random_gguf: Callable[[str], Path]) -> Model:
    return load_model(random_gguf("q4_0"))


@pytest.fixture
def engine(tiny: Model) -> Iterator[Engine]:
    engine = Engine(tiny, threads=2, prefix_bytes=0)
    yield engine
    engine.close()


def prompts(count: int, longest: int = 120) -> list[list[int]]:
    rng = np.random.default_rng(7)
    return [rng.integers(3, 1000, rng.integers(2, longest)).tolist() for _ in range(count)]


def params(i: int, most: int = 24) -> SamplingParams:
    """Greedy, or drawn with a seed of its own."""
    return SamplingParams(temperature=i % 2 * 0.9, seed=i, max_tokens=most)


def at_once(engine: Engine, asked: list[tuple[list[int], SamplingParams]]) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in asked]

    def ask(i: int) -> None:
        found[i] += engine.generate(*asked[i])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return found


def settled(engine: Engine) -> int:
    """Bytes of caches once nobody computes any more."""
    deadline = time.monotonic() + 10
    while engine._scheduler._thread is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engine._scheduler._thread is None
    return engine._running().cache_bytes


def test_sixteen_at_once_get_what_each_gets_alone(tiny: Model, engine: Engine) -> None:
    asked = [(prompt, params(i)) for i, prompt in enumerate(prompts(16))]
    alone = Engine(tiny, threads=1, prefix_bytes=0)
    expected = [list(alone.generate(*one)) for one in asked]
    assert at_once(engine, asked) == expected
    assert settled(engine) == 0


def test_cancels_at_any_moment_leave_memory_where_it_began(engine: Engine) -> None:
    chance = random.Random(3)

    def ask(i: int, prompt: list[int]) -> None:
        cancel = threading.Event()
        after = chance.randrange(12)
        generation = engine.generate(prompt, params(i, 200), cancel=cancel)
        if i % 4 == 0:
            threading.Timer(chance.random() * 0.1, cancel.set).start()
        for count, _ in enumerate(generation):
            if count == after and i % 4 == 1:
                cancel.set()
            if count == after and i % 4 == 2:
                generation.close()
            if count == after and i % 4 == 3:
                break
        # The last of each four is simply left behind.

    threads = [threading.Thread(target=ask, args=(i, one)) for i, one in enumerate(prompts(32, 600))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert settled(engine) == 0


@pytest.mark.parametrize("prefix_bytes", [0, 4 * PAGE])
def test_who_is_sent_away_for_want_of_memory_gets_the_same_tokens(tiny: Model, prefix_bytes: int) -> None:
    """Eight texts of up to four pages each, and room for six pages."""
    asked = [(prompt, params(i, 200)) for i, prompt in enumerate(prompts(8, 300))]
    alone = Engine(tiny, threads=1, prefix_bytes=0)
    expected = [list(alone.generate(*one)) for one in asked]
    engine = Engine(tiny, threads=2, kv_bytes=6 * PAGE, prefix_bytes=prefix_bytes)
    sent_away = []
    preempt = engine._scheduler._preempt
    engine._scheduler._preempt = lambda one: (sent_away.append(one.order), preempt(one))  # type: ignore[method-assign, func-returns-value, assignment, return-value]
    assert at_once(engine, asked) == expected
    assert sent_away
    assert engine._running().cache_bytes <= 6 * PAGE
    engine.close()


def test_what_never_fits_is_refused_and_what_no_longer_fits_ends(tiny: Model) -> None:
    engine = Engine(tiny, kv_bytes=2 * PAGE)
    with pytest.raises(TooLargeError, match=r"0\.2 MiB are too little for 257 tokens") as refused:
        engine.generate([5] * 257, SamplingParams())
    assert "q8_0" in refused.value.hint
    written: list[int] = []
    with pytest.raises(TooLargeError, match="too little for 257 tokens"):
        written.extend(engine.generate([5] * 200, SamplingParams(temperature=0)))
    assert len(written) == 57
    assert len(list(engine.generate([5, 6], SamplingParams(max_tokens=4)))) == 4


def test_writing_goes_on_while_a_long_prompt_is_read(tiny: Model) -> None:
    """Between two tokens of one answer lies at most one piece of the other's prompt."""
    engine = Engine(tiny, threads=1, kernels="scalar")
    engine._scheduler._pace.prompt_rate = 1.0  # a machine so slow that pieces are smallest
    writing = engine.generate([1, 2, 3], SamplingParams(temperature=0, max_tokens=400))
    next(writing)
    reader = engine.generate([7] * 700, SamplingParams(temperature=0, max_tokens=1))
    seen: list[int] = []
    done = threading.Event()

    def read() -> None:
        seen.extend(reader)
        done.set()

    thread = threading.Thread(target=read)
    thread.start()
    meanwhile = 0
    for _ in writing:
        if done.is_set():
            break
        meanwhile += 1
    writing.close()
    thread.join(60)
    assert len(seen) == 1
    # 700 tokens in pieces of at most 256, or of 16 to 32 as measured: many tokens were written in between.
    assert meanwhile >= 5


def test_short_prompts_overtake_a_long_one(engine: Engine) -> None:
    """Pieces go round: eight short requests are through before one of 1,900 tokens has been read."""
    order: list[str] = []

    def ask(name: str, prompt: list[int]) -> None:
        list(engine.generate(prompt, SamplingParams(temperature=0, max_tokens=2)))
        order.append(name)

    rng = np.random.default_rng(0)
    jobs = [("long", rng.integers(3, 1000, 1900).tolist())]
    jobs += [(f"short {i}", rng.integers(3, 1000, 20).tolist()) for i in range(8)]
    with engine._scheduler._changed:  # all of them come at the same moment
        threads = [threading.Thread(target=ask, args=job) for job in jobs]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
    for thread in threads:
        thread.join(60)
    assert order[-1] == "long"


def test_a_common_beginning_is_computed_once(tiny: Model) -> None:
    """Though all who share it come at the same moment; and afterwards whoever comes finds it."""
    engine = Engine(tiny, threads=2)
    system = np.random.default_rng(5).integers(3, 1000, 700).tolist()
    fresh = Engine(tiny, threads=1, prefix_bytes=0)
    asked = [[*system, 10 + i, 20 + i] for i in range(6)]
    expected = [list(fresh.generate(one, params(0, 8))) for one in asked]
    generations = [engine.generate(one, params(0, 8)) for one in asked]
    found: dict[int, list[int]] = {}
    threads = [
        threading.Thread(target=lambda i=i, g=g: found.update({i: list(g)}))
        for i, g in enumerate(generations)
    ]
    with engine._scheduler._changed:
        for thread in threads:
            thread.start()
        time.sleep(0.2)
    for thread in threads:
        thread.join(60)
    assert [found[i] for i in range(6)] == expected
    assert sorted(g.cached_tokens for g in generations) == [0, 700, 700, 700, 700, 700]
    assert settled(engine) <= (6 + 2 * 6) * PAGE
    for document in range(3):  # others between do not drive it out
        list(engine.generate([30 + document] * 200, params(0, 2)))
    later = engine.generate([*system, 99], params(0, 2))
    list(later)
    assert later.cached_tokens == 700
    engine.close()


def test_kept_beginnings_go_when_there_is_no_room_for_them(tiny: Model) -> None:
    engine = Engine(tiny, prefix_bytes=4 * PAGE)
    for prompt in prompts(12, 300):
        list(engine.generate(prompt, params(0, 4)))
    assert 0 < settled(engine) <= 4 * PAGE
    engine.close()


def test_guessing_changes_no_token_and_saves_steps(tiny: Model) -> None:
    """A text that repeats itself, as this tiny model's greedy answers do in the end."""
    prompt = prompts(1)[0] * 3
    for i in (0, 1):
        asked = SamplingParams(temperature=0.4 * i, seed=5, max_tokens=300, repetition_penalty=1 + 0.05 * i)
        plain = Engine(tiny, threads=1, speculation="off")
        guessing = Engine(tiny, threads=1)
        guessing._scheduler._pace.cost = lambda _: 1.0  # type: ignore[method-assign]  # as if all lengths cost the same
        expected, generation = list(plain.generate(prompt, asked)), guessing.generate(prompt, asked)
        assert list(generation) == expected
        assert generation.accepted_tokens <= generation.guessed_tokens
        if not i:
            assert generation.accepted_tokens > 100
        off = guessing.generate(prompt, SamplingParams(temperature=0, max_tokens=50, speculation="off"))
        list(off)
        assert off.guessed_tokens == 0


def test_guesses_end_where_the_text_does(tiny: Model) -> None:
    engine, plain = Engine(tiny, threads=1), Engine(tiny, threads=1, speculation="off", prefix_bytes=0)
    engine._scheduler._pace.cost = lambda _: 1.0  # type: ignore[method-assign]
    prompt = prompts(1)[0] * 3
    whole = list(plain.generate(prompt, params(0, 300)))
    for most in (250, 253, 257):
        assert list(engine.generate(prompt, params(0, most))) == whole[:most]
    stop = whole[280]
    until = whole.index(stop)
    generation = engine.generate(prompt, params(0, 300), stop_ids={stop})
    assert list(generation) == whole[:until]
    assert generation.finish_reason == "stop"
    following = engine.generate([*prompt, *whole[:200]], params(0, 3))
    assert list(following) == list(plain.generate([*prompt, *whole[:200]], params(0, 3)))


def test_closing_the_engine_wakes_whoever_waits(engine: Engine) -> None:
    errors: list[BaseException] = []

    def ask(prompt: list[int]) -> None:
        try:
            list(engine.generate(prompt, SamplingParams(temperature=0, max_tokens=1900)))
        except InvalidRequestError as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(one,)) for one in prompts(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    engine.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert len(errors) == 4
    assert all("closed" in str(error) for error in errors)


def test_a_program_may_end_in_the_middle_of_everything(random_gguf: Callable[[str], Path]) -> None:
    """Answers just finished, under way and left behind: no crash, and no waiting for them."""
    code = """
import sys, threading
from pathlib import Path
from quinze.engine.engine import Engine
from quinze.engine.sampling import SamplingParams
from quinze.models.weights import load_model
engine = Engine(load_model(Path(sys.argv[1])), threads=2)
def ask(most): return engine.generate([5] * 400, SamplingParams(max_tokens=most))
left = ask(500)
next(left)
threading.Thread(target=lambda: list(ask(1500)), daemon=True).start()
print(len(list(ask(3))))
"""
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code, str(random_gguf("q4_0"))], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


def test_a_slow_reader_is_not_run_ahead_of_without_end(engine: Engine) -> None:
    generation = engine.generate([1, 2, 3], params(0, 400))
    next(generation)
    time.sleep(0.3)
    assert generation._sequence.written <= 6
    assert len(list(generation)) == 399


def test_a_program_that_closes_nothing_ends_in_peace(shared: Callable[[str], Path]) -> None:
    """Its last line may be reached while the engine's thread is within C++."""
    program = (
        "import sys; from pathlib import Path; from quinze.engine.engine import Engine\n"
        "from quinze.engine.sampling import SamplingParams; from quinze.models.weights import load_model\n"
        "engine = Engine(load_model(Path(sys.argv[1])), threads=2)\n"
        "asked = engine.generate([1], SamplingParams(max_tokens=200)); print(next(asked) >= 0)\n"
    )
    for _ in range(4):
        done = subprocess.run(
            [sys.executable, "-c", program, str(shared("data/models/stories260K.bin"))],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr
