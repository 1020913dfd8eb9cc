"""/api/pull: bring a model here from a hub, watched as it comes. A client that hangs up stops it; the next
request goes on from there."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from queue import SimpleQueue

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from quinze.hub.hub import Hub
from quinze.server.body import json_body
from quinze.server.errors import error_body, log
from quinze.server.events import EventStream, event
from quinze.server.threads import Pump
from quinze.service import pulls
from quinze.service.pulls import Pulled, PullProgress
from quinze.service.service import Service


class PullRequest(msgspec.Struct):
    """`model` as for `quinze pull`: hf.co/ORG/NAME:Q4_K_M. The mirror is the server's own setting."""

    model: str
    name: str | None = None


async def pull_model(request: Request) -> Response:
    service: Service = request.app.state.service
    asked = await json_body(request, PullRequest)
    reference = pulls.read_reference(asked.model)
    mirror = service.settings.hub_mirror if reference.kind == "huggingface" else None
    hub = Hub(reference.kind, mirror)

    def work(cancel: threading.Event) -> Iterator[PullProgress | Pulled]:
        return _pulling(service, hub, reference, asked.name, cancel)

    pump = Pump(request, work)
    try:
        await pump.first(service.settings.ping_seconds)
    except BaseException:
        pump.close()
        raise
    return EventStream(
        request, _events(pump.items()), farewell=lambda body: event("error", body), on_close=pump.close
    )


def _pulling(
    service: Service, hub: Hub, reference: pulls.Reference, name: str | None, cancel: threading.Event
) -> Iterator[PullProgress | Pulled]:
    """The pull runs in a thread of its own, so that its progress can be drawn here."""
    found: SimpleQueue[PullProgress | Pulled | BaseException | None] = SimpleQueue()

    def run() -> None:
        try:
            done = pulls.pull(service.home, hub, reference, name=name, progress=found.put, cancel=cancel)
        except BaseException as error:
            found.put(error)
        else:
            found.put(done)

    threading.Thread(target=run, name="quinze-pull", daemon=True).start()
    while (item := found.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item
        if isinstance(item, Pulled):
            return


async def _events(found: AsyncIterator[PullProgress | Pulled]) -> AsyncGenerator[bytes, None]:
    try:
        async for item in found:
            yield event("progress" if isinstance(item, PullProgress) else "pulled", item)
    except Exception as error:
        body = error_body(error)
        if body["error"]["code"] == "internal_error":
            log.exception("a pull failed")
        yield event("error", body)
