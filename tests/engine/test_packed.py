"""Packed weights: the same words as from the model's own file, and a cached file that survives everything."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from quinze import native
from quinze.engine import packed
from quinze.engine.engine import Engine
from quinze.engine.packed import packed_in_memory, packed_weights
from quinze.engine.packing import packed_bytes, packed_paths, packing_of, part_of, remove_packed
from quinze.engine.sampling import SamplingParams
from quinze.errors import InvalidRequestError
from quinze.models.weights import load_model

pytestmark = pytest.mark.skipif(not native.cpu_has_avx2(), reason="packing is for AVX2")


@pytest.fixture
def source(
    random_gguf: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A model small enough for a test, which would not be packed were it not asked for."""
    monkeypatch.setattr(packed, "LEAST_BYTES", 1)
    monkeypatch.setattr(packed, "SPARE_BYTES", 0)
    path = tmp_path / "models" / "model.gguf"
    path.parent.mkdir()
    path.write_bytes(random_gguf("q4_k_m").read_bytes())
    monkeypatch.setenv("QUINZE_HOME", str(tmp_path / "home"))
    yield path
    settled()


def settled() -> None:
    """Until the threads that put files onto the disk are done."""
    for thread in threading.enumerate():
        if thread.name == "quinze-packed":
            thread.join()


def same(a: packed.Packed, b: packed.Packed) -> bool:
    return a.keys() == b.keys() and all(a[n][:3] == b[n][:3] and np.array_equal(a[n][3], b[n][3]) for n in a)


KINDS = ["q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k", "q5_k", "q6_k", "q4_0_real", "q4_k_m"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_model_says_what_the_file_says(
    random_gguf: Callable[[str], Path], kind: str, rng: np.random.Generator
) -> None:
    """A prompt gives the very same logits; what follows differs by the rounding of sums, not more."""
    model = load_model(random_gguf(kind))
    found = packed_in_memory(model)
    assert len(found) > 10
    own, mine = Engine(model, threads=2), Engine(model, threads=2, packed=found)
    ids = rng.integers(3, 1024, 80).tolist()
    a, b = own.logits(ids), mine.logits(ids)
    np.testing.assert_array_equal(a, b)

    # Token by token: packed weights give the bits of the prompt, the file's own nearly so.
    step = [int(i) for i in ids[:40]]
    whole = mine.logits(step)
    decoder = mine._running()
    cache = decoder.cache("f16")
    single = [decoder.forward_all(cache, np.asarray([i], np.int32))[0] for i in step]
    assert np.linalg.norm(np.asarray(single) - whole) <= 0.02 * np.linalg.norm(whole)

    greedy = SamplingParams(temperature=0, max_tokens=12)
    assert list(mine.generate(ids, greedy)) == list(
        Engine(model, threads=1, packed=found).generate(ids, greedy)
    )


def test_the_first_load_leaves_a_file_that_the_next_one_maps(source: Path) -> None:
    model = load_model(source)
    told: list[tuple[int, int]] = []
    first = packed_weights(model, 2, lambda done, total: told.append((done, total)))
    settled()
    assert told[-1][0] == told[-1][1] > 0
    assert same(first, packed_in_memory(model))
    beside = packed_paths(source)[0]
    assert beside.parent == source.parent
    assert beside.stat().st_size == packed_bytes(source)
    assert not part_of(beside).exists()
    again = packed_weights(load_model(source), 2, lambda *_: pytest.fail("it was packed twice"))
    assert same(first, again)


@pytest.mark.parametrize("damage", ["cut", "head", "tail", "empty", "foreign", "longer"])
def test_a_damaged_file_is_made_anew(source: Path, damage: str) -> None:
    model = load_model(source)
    first = packed_weights(model, 2)
    settled()
    place = packed_paths(source)[0]
    whole = bytearray(place.read_bytes())
    place.unlink()  # who has it mapped keeps it
    if damage == "cut":
        whole = whole[:-100]
    if damage == "head":
        whole[100] ^= 1
    if damage == "tail":
        whole[-1] ^= 1
    if damage == "longer":
        whole += b"x"
    place.write_bytes({"empty": b"", "foreign": bytes(len(whole))}.get(damage, bytes(whole)))
    again = packed_weights(model, 2)
    settled()
    assert same(first, again)
    assert same(packed_weights(model, 2, lambda *_: pytest.fail("packed twice")), first)


def test_another_model_under_the_same_name_is_packed_anew(
    source: Path, random_gguf: Callable[[str], Path]
) -> None:
    packed_weights(load_model(source), 2)
    settled()
    source.write_bytes(random_gguf("q5_k").read_bytes())
    model = load_model(source)
    assert same(packed_weights(model, 2), packed_in_memory(model))
    settled()
    os.utime(source, ns=(1, 1))  # the same bytes, but who knows
    model = load_model(source)
    told: list[int] = []
    packed_weights(model, 2, lambda done, _: told.append(done))
    assert told


def test_where_the_folder_may_not_be_written_to_quinze_keeps_the_file_itself(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = packed._locked

    def refuse(part: Path) -> object:
        if part.parent == source.parent:
            raise PermissionError(13, "read-only", str(part))
        return real(part)

    monkeypatch.setattr(packed, "_locked", refuse)
    model = load_model(source)
    assert same(packed_weights(model, 2), packed_in_memory(model))
    settled()
    beside, kept = packed_paths(source)
    assert kept.is_file()
    assert not beside.exists()


def test_a_full_disk_leaves_nothing_behind_and_the_model_runs_from_its_own_file(
    source: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    written: list[int] = []
    real = os.pwrite

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        if len(written) > 3:
            raise OSError(28, "No space left on device")
        written.append(offset)
        return real(descriptor, data, offset)

    monkeypatch.setattr(packed, "PIECE_BYTES", 1)
    monkeypatch.setattr(packed.os, "pwrite", full)
    model = load_model(source)
    assert packed_weights(model, 2) == {}
    assert packed_bytes(source) == 0
    assert [p.name for p in source.parent.iterdir()] == [source.name]
    monkeypatch.setattr(packed, "SPARE_BYTES", 2**60)
    assert packed_weights(model, 2) == {}
    ids = rng.integers(3, 1024, 20).tolist()
    np.testing.assert_array_equal(
        Engine(model, threads=2, packed=packed_weights(model, 2)).logits(ids),
        Engine(model, threads=2).logits(ids),
    )


def test_little_is_not_packed_and_off_is_off(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "LEAST_BYTES", 2**40)
    assert packed_weights(load_model(source), 2) == {}
    assert packing_of("off") == "off"
    with pytest.raises(InvalidRequestError, match="auto or off") as refused:
        packing_of("yes")
    assert refused.value.param == "pack_weights"


SLOW = """
    import os, sys, time
    from pathlib import Path
    from quinze.engine import packed
    from quinze.models.weights import load_model

    packed.LEAST_BYTES = 1
    packed.PIECE_BYTES = 1
    packed.SPARE_BYTES = 0
    real = os.pwrite
    def slow(descriptor, data, offset):
        time.sleep(0.02)
        return real(descriptor, data, offset)
    os.pwrite = slow
    model = load_model(Path(sys.argv[1]))
    print("begun", flush=True)
    print(len(packed.packed_weights(model, 1)), flush=True)
"""


def test_a_process_killed_while_packing_leaves_nothing_that_is_believed(source: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SLOW), str(source)], stdout=subprocess.PIPE, text=True
    )
    part = part_of(packed_paths(source)[0])
    while not (part.exists() and part.stat().st_size > 0):
        assert child.poll() is None
        time.sleep(0.01)
    model = load_model(source)
    # Meanwhile another process runs from the model's own file, and waits for nobody.
    assert packed_weights(model, 2) == {}
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()  # type: ignore[union-attr]
    assert not packed_paths(source)[0].exists()
    remove_packed(source.with_name("other.gguf"))
    assert part.exists()
    assert same(packed_weights(model, 2), packed_in_memory(model))
    settled()
    assert packed_paths(source)[0].is_file()
    assert not part.exists()


def _load(path: str, ready: object, found: object) -> None:
    packed.LEAST_BYTES, packed.SPARE_BYTES = 1, 0
    model = load_model(Path(path))
    ready.wait()  # type: ignore[attr-defined]
    mine = packed_weights(model, 1)
    found.put(not mine or same(mine, packed_in_memory(model)))  # type: ignore[attr-defined]


def test_processes_that_pack_at_the_same_time_do_each_other_no_harm(source: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, found = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_load, args=(str(source), ready, found)) for _ in range(4)]
    for process in processes:
        process.start()
    assert all(found.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert same(packed_weights(load_model(source), 2), packed_in_memory(load_model(source)))


def test_of_a_model_in_parts_every_part_counts(source: Path, tmp_path: Path) -> None:
    """Any part, or the folder, names the model; a change of any makes the packed file anew."""
    folder = tmp_path / "parts"
    folder.mkdir()
    parts = [folder / f"big[1]-{i:05}-of-00002.gguf" for i in (1, 2)]
    for part in parts:
        part.write_bytes(source.read_bytes())
    packed_paths(parts[0])[0].write_bytes(bytes(50))
    assert [packed_bytes(path) for path in (folder, *parts)] == [50, 50, 50]
    plan = packed._plan(load_model(source))
    before = packed._head(parts[0], plan)
    os.utime(parts[1], ns=(1, 1))
    assert packed._head(parts[0], plan) != before
    remove_packed(parts[1])
    assert packed_bytes(folder) == 0
    assert all(part.exists() for part in parts)


def test_what_was_packed_is_removed_whole(source: Path) -> None:
    model = load_model(source)
    found = packed_weights(model, 2)
    settled()
    part_of(packed_paths(source)[0]).write_bytes(b"left by a killed process")
    remove_packed(source)
    assert [p.name for p in source.parent.iterdir()] == [source.name]
    assert packed_bytes(source) == 0
    Engine(model, threads=1, packed=found).logits([5, 6, 7])  # who has it mapped keeps it
    remove_packed(source)
