"""/api/runs: training runs, started, watched live, steered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from quinze.errors import InvalidRequestError, RunNotFoundError
from quinze.server.body import json_body
from quinze.server.encoding import Json
from quinze.server.errors import error_body
from quinze.server.events import EventStream, event
from quinze.server.routes.given import given_path
from quinze.server.threads import in_thread
from quinze.service.run_events import RunEvents
from quinze.service.run_info import RunInfo
from quinze.service.runs import ACTIVE
from quinze.service.service import Service

POLL_SECONDS = 0.4
"""How often the log of a watched run is looked at."""
MOST_STEPS = 100_000
_PATHS = (("data", "folder"), ("data", "tokenizer"), ("model", "base"))


class RunList(msgspec.Struct):
    runs: list[RunInfo]


class NewRun(msgspec.Struct):
    """`config` is a run.toml as JSON: {"data": {"folder": ...}, "schedule": {"minutes": 30}, ...}."""

    method: Literal["pretrain", "sft", "dpo"]
    config: dict[str, Any]
    name: str | None = None


class AddRun(msgspec.Struct):
    """The folder of a run on this machine. It stays where it is."""

    path: str
    name: str | None = None


async def list_runs(request: Request) -> Response:
    return Json(RunList(await in_thread(_service(request).runs.list)))


async def start_run(request: Request) -> Response:
    asked = await json_body(request, NewRun)
    for section, key in _PATHS:
        _check_path(asked.config, section, key)
    found = await in_thread(_service(request).runs.start, asked.method, asked.config, asked.name)
    return Json(found, 201)


async def add_folder(request: Request) -> Response:
    asked = await json_body(request, AddRun)
    path = given_path(asked.path, "path")
    return Json(await in_thread(_service(request).runs.add, path, asked.name), 201)


async def show_run(request: Request) -> Response:
    runs, name = _service(request).runs, request.path_params["name"]
    return Json(await in_thread(runs.get, name, _language(request)))


async def forget_run(request: Request) -> Response:
    await in_thread(_service(request).runs.forget, request.path_params["name"])
    return Response(status_code=204)


async def pause_run(request: Request) -> Response:
    return Json(await in_thread(_service(request).runs.pause, request.path_params["name"]), 202)


async def resume_run(request: Request) -> Response:
    return Json(await in_thread(_service(request).runs.resume, request.path_params["name"]), 202)


async def stop_run(request: Request) -> Response:
    return Json(await in_thread(_service(request).runs.stop, request.path_params["name"]), 202)


async def run_events(request: Request) -> Response:
    """From the beginning, or from after Last-Event-ID, until the run is over."""
    service, name = _service(request), request.path_params["name"]
    last = request.headers.get("last-event-id", "")
    after = int(last) if last.isascii() and last.isdigit() and len(last) <= 18 else 0
    language, steps = _language(request), _steps(request)
    found = await in_thread(service.runs.events, name, after, language=language, steps=steps)
    pieces = _events(service, name, found)
    return EventStream(request, pieces, farewell=lambda body: event("error", body))


async def _events(service: Service, name: str, found: RunEvents) -> AsyncGenerator[bytes, None]:
    shown = ""
    while True:
        # Asked before the log is read: whatever a run that is over has written is then read too.
        try:
            run = await in_thread(service.runs.look, name)
        except RunNotFoundError as error:  # taken from the list meanwhile
            yield event("error", error_body(error))
            return
        anew, new = await in_thread(found.more)
        if anew:
            yield event("restart", {})
        if new:
            yield b"".join(event(_kind(one), one, number) for number, one in new)
            continue
        if run.state not in ACTIVE:
            yield event("over", run)
            return
        if run.state != shown:
            shown = run.state
            yield event("state", run)
        await asyncio.sleep(POLL_SECONDS)


def _kind(one: msgspec.Struct) -> str:
    return str(one.__struct_config__.tag)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _language(request: Request) -> Literal["en", "zh"]:
    asked = request.query_params.get("language", "en")
    if asked not in ("en", "zh"):
        raise InvalidRequestError(f"The language is {asked[:20]!r}; it may be en or zh.", param="language")
    return "zh" if asked == "zh" else "en"


def _steps(request: Request) -> int | None:
    asked = request.query_params.get("steps")
    if asked is None:
        return None
    if not (asked.isascii() and asked.isdigit() and len(asked) <= 6 and 1 <= int(asked) <= MOST_STEPS):
        raise InvalidRequestError(f"steps must lie between 1 and {MOST_STEPS:,}.", param="steps")
    return int(asked)


def _check_path(config: dict[str, Any], section: str, key: str) -> None:
    """What a request names must be absolute and there: a run that cannot begin is refused at once."""
    table = config.get(section)
    text = table.get(key) if isinstance(table, dict) else None
    if isinstance(text, str):
        param = f"{section}.{key}"
        try:
            there = given_path(text, param).exists()
        except OSError:  # too long a name
            there = False
        if not there:
            raise InvalidRequestError(
                f"There is no file or folder {text[:300]!r}.", hint="Check the path.", param=param
            )
