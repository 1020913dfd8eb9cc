"""/api/jobs: what is being read, watched live, cancelled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from quinze.server.encoding import Json
from quinze.server.events import EventStream, event
from quinze.server.threads import in_thread
from quinze.service.jobs import Job, JobState
from quinze.service.service import Service


class JobList(msgspec.Struct):
    jobs: list[JobState]


async def list_jobs(request: Request) -> Response:
    service: Service = request.app.state.service
    return Json(JobList([job.snapshot() for job in service.jobs.all()]))


async def show_job(request: Request) -> Response:
    return Json(_job(request).snapshot())


async def cancel_job(request: Request) -> Response:
    service: Service = request.app.state.service
    job = _job(request)
    await in_thread(service.jobs.cancel, job)
    return Json(job.snapshot(), 202)


async def job_events(request: Request) -> Response:
    """Its progress from the beginning, or from after Last-Event-ID, until it ends."""
    job = _job(request)
    last = request.headers.get("last-event-id", "")
    after = int(last) if last.isascii() and last.isdigit() and len(last) <= 18 else 0
    return EventStream(request, _events(job, after), farewell=lambda body: event("error", body))


async def _events(job: Job, after: int) -> AsyncGenerator[bytes, None]:
    loop, news = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody listens
            loop.call_soon_threadsafe(news.set)

    with job.listening(wake):
        while True:
            news.clear()
            found, ended = job.events_after(after)
            for number, progress in found:
                yield event("progress", progress, number)
                after = number
            if ended:
                yield event("end", job.snapshot())
                return
            await news.wait()


def _job(request: Request) -> Job:
    service: Service = request.app.state.service
    return service.jobs.get(request.path_params["id"])
