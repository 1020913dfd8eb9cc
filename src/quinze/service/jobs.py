"""Jobs: long work in one thread of its own, watched by as many listeners as like to.

A Jobs is given functions to run; it knows their state, their events and how to cancel them, but not what they
do. Jobs run one after another. A listener that comes late is told the past first: events of one document's
same stage replace each other, so the past of a thousand-page book is one line.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from quinze.errors import BusyError, JobNotFoundError, QuinzeError
from quinze.knowledge.results import Failure as Failure

log = logging.getLogger(__name__)

State = Literal["queued", "running", "done", "failed", "cancelled"]
Event = dict[str, Any]
"""An IngestEvent as plain data: {document, path, stage, page, pages, error, hint, code, seconds, done,
total}."""

EVENTS_KEPT = 5_000
"""Events of one job that a late listener is told; older ones are forgotten (the job keeps its failures)."""
JOBS_KEPT = 500
"""Ended jobs that are remembered."""
MOST_QUEUED = 10_000


class JobState(msgspec.Struct, frozen=True):
    """A job at one moment, as every face shows it."""

    id: str
    kind: str
    knowledge_base: str
    title: str
    state: State
    done: int
    total: int
    current: Event | None
    failed: list[Failure]
    created_at: str
    started_at: str | None
    ended_at: str | None
    error: dict[str, Any] | None


class Job:
    """One piece of work. Its own thread writes, everybody reads; `cancel` asks it to stop soon."""

    def __init__(self, knowledge_base: str, title: str, total: int) -> None:
        self.id = f"job_{secrets.token_hex(8)}"
        self.kind = "ingest"
        self.knowledge_base = knowledge_base
        self.title = title
        self.cancel = threading.Event()
        self.kept_for_next_start = False
        """The service closes: what is not done yet is taken up again at the next start."""
        self._lock = threading.Lock()
        self._state: State = "queued"
        self._done, self._total = 0, total
        self._current: Event | None = None
        self._failed: list[Failure] = []
        self._created_at, self._started_at, self._ended_at = now(), None, None
        self._error: dict[str, Any] | None = None
        self._events: collections.deque[tuple[int, Event]] = collections.deque(maxlen=EVENTS_KEPT)
        self._numbers = itertools.count(1)
        self._listeners: set[Callable[[], None]] = set()
        self._ended = threading.Event()

    _started_at: str | None
    _ended_at: str | None

    def snapshot(self) -> JobState:
        with self._lock:
            return JobState(
                id=self.id, kind=self.kind, knowledge_base=self.knowledge_base, title=self.title,
                state=self._state, done=self._done, total=self._total, current=self._current,
                failed=list(self._failed), created_at=self._created_at, started_at=self._started_at,
                ended_at=self._ended_at, error=self._error,
            )  # fmt: skip

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        return self._ended.wait(timeout)

    def progress(self, event: Mapping[str, Any] | Any) -> None:
        """Take note of an event of the work and wake the listeners."""
        plain: Event = msgspec.to_builtins(event, enc_hook=str)
        with self._lock:
            self._current = plain
            # While a listener watches, done and total only grow: a folder is counted as it is walked.
            self._done = max(self._done, plain.get("done") or 0)
            self._total = max(self._total, plain.get("total") or 0)
            if self._events and _same_step(self._events[-1][1], plain):
                self._events.pop()
            self._events.append((next(self._numbers), plain))
        self._wake()

    def events_after(self, number: int) -> tuple[list[tuple[int, Event]], bool]:
        """The events with a greater number, and whether the job has ended (then there will be no more)."""
        with self._lock:
            ended = self.ended
            return [(n, event) for n, event in self._events if n > number], ended

    @contextlib.contextmanager
    def listening(self, wake: Callable[[], None]) -> Iterator[None]:
        """`wake` is called from the job's thread whenever something is new; it must not block."""
        with self._lock:
            self._listeners.add(wake)
        try:
            yield
        finally:
            with self._lock:
                self._listeners.discard(wake)

    def begin(self) -> bool:
        """From queued to running; False when it was cancelled before its turn came."""
        with self._lock:
            if self._state != "queued":
                return False
            self._state, self._started_at = "running", now()
        self._wake()
        return True

    def end(
        self, state: State, failed: list[Failure] | None = None, error: QuinzeError | None = None
    ) -> None:
        with self._lock:
            if self.ended:
                return
            self._state, self._ended_at = state, now()
            self._failed = failed if failed is not None else self._failed
            if state == "done":
                self._done = self._total = max(self._done, self._total)
            if error is not None:
                self._error = {"message": error.message, "code": error.code, "hint": error.hint}
            self._ended.set()
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for wake in listeners:
            wake()


Work = Callable[[Job], list[Failure]]
"""What a job does: it reports to `job.progress`, heeds `job.cancel`, returns the documents that failed."""


class Jobs:
    """A queue of jobs and the one thread that runs them; the thread begins with the first job."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._jobs: dict[str, Job] = {}
        self._queue: collections.deque[tuple[Job, Work, Callable[[Job], None]]] = collections.deque()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(
        self,
        knowledge_base: str,
        work: Work,
        *,
        title: str,
        total: int = 0,
        on_end: Callable[[Job], None] = lambda _: None,
    ) -> Job:
        """Put `work` at the end of the queue. `on_end` is called once, however it ends."""
        job = Job(knowledge_base, title, total)
        with self._lock:
            if self._closed:
                raise BusyError("Quinze is shutting down.", hint="Start it again; nothing is lost.")
            if len(self._queue) >= MOST_QUEUED:
                raise BusyError(f"{MOST_QUEUED:,} jobs are waiting already.", hint="Try again in a moment.")
            self._forget_old()
            self._jobs[job.id] = job
            self._queue.append((job, work, on_end))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="quinze-jobs", daemon=True)
                self._thread.start()
            self._lock.notify_all()
        return job

    def all(self) -> list[Job]:
        """Every job remembered, newest first."""
        with self._lock:
            return list(reversed(self._jobs.values()))

    def get(self, job_id: str) -> Job:
        with self._lock:
            job = self._jobs.get(job_id)
        if job is None:
            raise JobNotFoundError(
                f"There is no job {job_id[:80]!r}.",
                hint="Jobs are remembered until Quinze is restarted.",
                param="id",
            )
        return job

    def cancel(self, job: Job) -> None:
        """Ask `job` to stop. One that waits ends at once; a running one as soon as it looks."""
        job.cancel.set()
        with self._lock:
            waiting = next((entry for entry in self._queue if entry[0] is job), None)
            if waiting is None:
                return
            self._queue.remove(waiting)
        job.end("cancelled")
        waiting[2](job)

    def close(self, timeout: float = 20.0) -> None:
        """Cancel what runs and what waits, keeping it for the next start, and wait for the thread."""
        with self._lock:
            self._closed = True
            for job in self._jobs.values():
                job.kept_for_next_start = not job.ended
            self._lock.notify_all()
        for job in self.all():
            if not job.ended:
                self.cancel(job)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._queue and not self._closed:
                    self._lock.wait()
                if not self._queue:
                    return
                job, work, on_end = self._queue.popleft()
            if job.begin():
                _run_one(job, work)
            try:
                on_end(job)
            except Exception:  # the same: the thread lives on
                log.exception("what follows job %s on %r failed", job.id, job.knowledge_base)

    def _forget_old(self) -> None:
        ended = [job.id for job in self._jobs.values() if job.ended]
        for job_id in ended[: max(0, len(ended) - JOBS_KEPT)]:
            del self._jobs[job_id]


def _run_one(job: Job, work: Work) -> None:
    try:
        failed = work(job)
    except QuinzeError as error:
        job.end("cancelled" if job.cancel.is_set() else "failed", error=error)
    except Exception:  # a fault of ours in one job must not end the thread of all the others
        log.exception("job %s on %r failed", job.id, job.knowledge_base)
        fault = QuinzeError("Quinze made a mistake of its own.", hint="The log holds the details.")
        job.end("failed", error=fault)
    else:
        job.end("cancelled" if job.cancel.is_set() else "done", failed)


def _same_step(older: Event, newer: Event) -> bool:
    return all(older.get(key) == newer.get(key) for key in ("document", "path", "stage"))


def now() -> str:
    """This moment, as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
