"""Turns: who waits, who is loaded, who makes room."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from quinze.errors import BusyError
from quinze.service.turns import Turns

A, B = Path("a"), Path("b")


class Thing:
    def __init__(self, path: Path) -> None:
        self.path, self.closed = path, False

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True


class Loader:
    def __init__(self) -> None:
        self.made: list[Thing] = []

    def __call__(self, path: Path) -> Thing:
        time.sleep(0.01)
        self.made.append(Thing(path))
        return self.made[-1]


@pytest.fixture
def loader() -> Loader:
    return Loader()


def turns(
    loader: Callable[[Path], Thing], *, loaded: int = 1, users: int = 2, waiting: int = 100, after: float = 0
) -> Turns[Thing]:
    return Turns(loader, most_loaded=loaded, most_users=users, most_waiting=waiting, unload_after=after)


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_it_is_loaded_once_and_kept(loader: Loader) -> None:
    held = turns(loader)
    for _ in range(3):
        with held.use(A) as thing:
            assert not thing.closed
    assert len(loader.made) == 1
    assert held.loaded() == {A}


def test_twenty_threads_at_once_load_it_once_and_never_more_than_two_use_it(loader: Loader) -> None:
    held, at_once, most, lock = turns(loader), 0, 0, threading.Lock()

    def work() -> None:
        nonlocal at_once, most
        with held.use(A):
            with lock:
                at_once += 1
                most = max(most, at_once)
            time.sleep(0.002)
            with lock:
                at_once -= 1

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (len(loader.made), most) == (1, 2)


def test_another_one_takes_the_place_of_the_idle_one(loader: Loader) -> None:
    held = turns(loader)
    with held.use(A) as first:
        pass
    with held.use(B):
        assert first.closed
        assert held.loaded() == {B}


def test_the_one_unused_for_longest_makes_room(loader: Loader) -> None:
    held = turns(loader, loaded=2)
    for path in (A, B, A):
        with held.use(path):
            pass
    with held.use(Path("c")):
        assert held.loaded() == {A, Path("c")}


def test_a_request_for_another_one_is_not_overtaken_for_ever(loader: Loader) -> None:
    """While B waits for A's users to leave, later requests for A stand behind it."""
    held, order = turns(loader), []
    begun = threading.Event()

    def work(path: Path, name: str) -> None:
        begun.set()
        with held.use(path):
            order.append(name)

    with held.use(A):
        waits = [threading.Thread(target=work, args=(B, "b"))]
        waits[0].start()
        until(lambda: held.waiting() == 1)
        waits.append(threading.Thread(target=work, args=(A, "a")))
        waits[1].start()
        until(lambda: held.waiting() == 2)
        assert order == []
    for thread in waits:
        thread.join(10)
    assert order == ["b", "a"]


def test_when_the_line_is_full_the_next_is_told(loader: Loader) -> None:
    held = turns(loader, users=1, waiting=1)
    with held.use(A):
        waits = threading.Thread(target=lambda: held.use(A).__enter__())
        waits.start()
        until(lambda: held.waiting() == 1)
        with pytest.raises(BusyError, match="1 requests wait"), held.use(A):
            pass
    waits.join(10)


def test_one_who_waits_can_be_cancelled(loader: Loader) -> None:
    held, cancel, told = turns(loader, users=1), threading.Event(), []

    def work() -> None:
        try:
            with held.use(A, cancel=cancel):
                pass
        except BusyError as error:
            told.append(error)

    with held.use(A):
        waits = threading.Thread(target=work)
        waits.start()
        until(lambda: held.waiting() == 1)
        cancel.set()
        waits.join(10)
    assert len(told) == 1
    assert held.waiting() == 0


def test_what_is_idle_leaves_memory(loader: Loader) -> None:
    held = turns(loader, after=0.05)
    with held.use(A) as thing:
        time.sleep(0.15)
        assert not thing.closed, "it was in use all the time"
    until(lambda: thing.closed)
    assert held.loaded() == frozenset()


def test_a_changed_file_is_loaded_anew(loader: Loader) -> None:
    held = turns(loader)
    with held.use(A, stamp=1) as old:
        pass
    with held.use(A, stamp=2) as new:
        assert old.closed
        assert new is not old


def test_a_load_that_fails_leaves_the_place_free(loader: Loader) -> None:
    def fail(path: Path) -> Thing:
        raise BusyError("no")

    held = turns(fail, users=1)
    for _ in range(2):
        with pytest.raises(BusyError, match="no"), held.use(A):
            pass


def test_closing_waits_for_nobody_and_leaves_nothing_open(loader: Loader) -> None:
    held = turns(loader)
    with held.use(A) as thing:
        held.close()
        assert not thing.closed
        with pytest.raises(BusyError, match="shutting down"), held.use(A):
            pass
    assert thing.closed
