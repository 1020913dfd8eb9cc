"""Jobs: one after another, watched by as many as like to, cancelled at any moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from quinze.errors import BusyError, InvalidRequestError, JobNotFoundError
from quinze.service.jobs import Failure, Job, Jobs


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    jobs = Jobs()
    yield jobs
    jobs.close()


def event(
    document: str, stage: str, page: int | None = None, done: int = 0, total: int = 0
) -> dict[str, object]:
    return {"document": document, "path": "", "stage": stage, "page": page, "done": done, "total": total}


def test_jobs_run_one_after_another_in_their_order(jobs: Jobs) -> None:
    order: list[str] = []

    def work(job: Job) -> list[Failure]:
        order.append(f"{job.title} begins")
        order.append(f"{job.title} ends")
        return []

    for job in [jobs.submit("kb", work, title=str(i)) for i in range(5)]:
        assert job.wait(10)
    assert order == [f"{i} {what}" for i in range(5) for what in ("begins", "ends")]
    assert [job.title for job in jobs.all()] == ["4", "3", "2", "1", "0"]


def test_a_late_listener_is_told_the_past_in_short(jobs: Jobs) -> None:
    def work(job: Job) -> list[Failure]:
        for page in range(1, 1001):
            job.progress(event("book.pdf", "reading", page, 0, 1))
        job.progress(event("book.pdf", "ready", None, 1, 1))
        return []

    job = jobs.submit("kb", work, title="book")
    assert job.wait(10)
    found, ended = job.events_after(0)
    assert ended
    assert [(told["stage"], told["page"]) for _, told in found] == [("reading", 1000), ("ready", None)]
    assert job.events_after(found[0][0])[0] == found[1:]
    state = job.snapshot()
    assert (state.state, state.done, state.total) == ("done", 1, 1)


def test_listeners_are_woken(jobs: Jobs) -> None:
    go, woken = threading.Event(), threading.Event()

    def work(job: Job) -> list[Failure]:
        go.wait(10)
        job.progress(event("a", "ready"))
        return [Failure("b", "It is broken.")]

    job = jobs.submit("kb", work, title="a")
    with job.listening(woken.set):
        go.set()
        assert woken.wait(10)
        assert job.wait(10)
    assert job.snapshot().failed == [Failure("b", "It is broken.")]


def test_what_follows_a_job_and_fails_does_not_end_the_others(jobs: Jobs) -> None:
    def fail(_: Job) -> None:
        raise RuntimeError("the folder has gone")

    first = jobs.submit("notes", lambda _: [], title="one", on_end=fail)
    second = jobs.submit("notes", lambda _: [], title="two")
    assert first.wait(10)
    assert second.wait(10)
    assert second.snapshot().state == "done"


def test_a_job_that_waits_ends_at_once_when_cancelled_and_a_running_one_when_it_looks(jobs: Jobs) -> None:
    begun, ended = threading.Event(), []

    def work(job: Job) -> list[Failure]:
        begun.set()
        assert job.cancel.wait(10)
        return []

    first = jobs.submit("kb", work, title="first", on_end=ended.append)
    second = jobs.submit("kb", work, title="second", on_end=ended.append)
    assert begun.wait(10)
    jobs.cancel(second)
    assert second.snapshot().state == "cancelled"
    jobs.cancel(first)
    assert first.wait(10)
    assert first.snapshot().state == "cancelled"
    jobs.close()
    assert ended == [second, first]


def test_a_fault_of_ours_in_one_job_spares_the_others(jobs: Jobs) -> None:
    def wrong(job: Job) -> list[Failure]:
        raise ZeroDivisionError("a secret of the inside")

    def mistaken(job: Job) -> list[Failure]:
        raise InvalidRequestError("That is no folder.", hint="Name a folder.")

    first, second = jobs.submit("kb", wrong, title="1"), jobs.submit("kb", mistaken, title="2")
    third = jobs.submit("kb", lambda _: [], title="3")
    assert third.wait(10)
    assert first.snapshot().state == "failed"
    assert "secret" not in str(first.snapshot().error)
    assert second.snapshot().error == {
        "message": "That is no folder.", "code": "invalid_request", "hint": "Name a folder.",
    }  # fmt: skip
    assert third.snapshot().state == "done"


def test_an_unknown_job_is_not_found_and_a_closed_queue_takes_none(jobs: Jobs) -> None:
    with pytest.raises(JobNotFoundError):
        jobs.get("job_nothing")
    jobs.close()
    with pytest.raises(BusyError):
        jobs.submit("kb", lambda _: [], title="late")
