"""Search and questions: /api/knowledge/{name}/search and /api/ask."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from quinze.knowledge.results import Dropped, Hit, Unread
from quinze.server.body import json_body
from quinze.server.encoding import Json
from quinze.server.errors import error_body, log
from quinze.server.events import EventStream, event
from quinze.server.threads import Pump, cancellable, in_thread
from quinze.service.service import Service

if TYPE_CHECKING:
    from quinze.rag.pipeline import Answer, AnswerEvent


class SearchRequest(msgspec.Struct):
    query: str
    k: int | None = None


class AskRequest(msgspec.Struct):
    knowledge_base: str
    question: str
    model: str | None = None
    k: int | None = None
    stream: bool = False


class LabelledHit(Hit, frozen=True, kw_only=True):
    """A hit, with its place in words."""

    label: str


class SearchReply(msgspec.Struct):
    hits: list[LabelledHit]
    documents: int
    chunks: int
    unread: list[Unread]
    terms: list[str]
    dropped: list[Dropped]
    notes: list[str]
    seconds: float


async def search(request: Request) -> Response:
    service: Service = request.app.state.service
    asked = await json_body(request, SearchRequest)
    found = await in_thread(service.search, request.path_params["name"], asked.query, asked.k)
    return Json(
        SearchReply(
            hits=[_labelled(hit) for hit in found.hits],
            documents=found.documents,
            chunks=found.chunks,
            unread=found.unread,
            terms=found.terms,
            dropped=found.dropped,
            notes=found.notes,
            seconds=found.seconds,
        )
    )


async def ask(request: Request) -> Response:
    service: Service = request.app.state.service
    asked = await json_body(request, AskRequest)
    if asked.model:
        await in_thread(service.models.require, asked.model)

    def work(cancel: threading.Event) -> Iterator[AnswerEvent]:
        return service.stream_ask(
            asked.knowledge_base, asked.question, model=asked.model, k=asked.k, cancel=cancel
        )

    if not asked.stream:
        return Json(await cancellable(request, lambda cancel: _whole(work(cancel))))
    pump = Pump(request, work)
    try:
        await pump.first(service.settings.ping_seconds)
    except BaseException:
        pump.close()
        raise
    return EventStream(
        request, _events(pump.items()), farewell=lambda body: event("error", body), on_close=pump.close
    )


def _labelled(hit: Hit) -> LabelledHit:
    fields = {name: getattr(hit, name) for name in hit.__struct_fields__}
    return LabelledHit(**fields, label=hit.place.label())


def _whole(events: Iterator[AnswerEvent]) -> Answer:
    """Drawn from the stream, so that a client that hangs up is noticed between two pieces."""
    answer = None
    for found in events:
        answer = found.answer or answer
    assert answer is not None, "a stream of an answer ends with the answer"
    return answer


async def _events(found: AsyncIterator[AnswerEvent]) -> AsyncGenerator[bytes, None]:
    try:
        async for item in found:
            if item.type == "searched":
                yield event("searched", item.searched)
            elif item.type == "delta":
                yield event("delta", {"text": item.text})
            else:
                yield event("answer", item.answer)
    except Exception as error:
        body = error_body(error)
        if body["error"]["code"] == "internal_error":
            log.exception("an answer failed")
        yield event("error", body)
