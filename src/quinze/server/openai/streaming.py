"""What chat and completions share: run a generation, and send it whole or as OpenAI's stream of chunks.

Given a function that starts the generation in a loaded model; knows the shapes around it only by `Shape`.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from quinze import __version__
from quinze.errors import BusyError
from quinze.llm.messages import Completion, Delta
from quinze.server.encoding import Json
from quinze.server.errors import error_body, log
from quinze.server.events import EventStream, data_event
from quinze.server.openai.protocol import ChatRequest, CompletionRequest, plain, usage_body
from quinze.server.threads import Pump, cancellable, in_thread
from quinze.service.service import Service

if TYPE_CHECKING:
    from quinze.llm.llm import LLM

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Shape:
    """How one of the two kinds of reply is dressed."""

    model: str
    prefix: str
    """Of its id: "chatcmpl-"."""
    whole: str
    """`object` of a whole reply."""
    chunk: str
    """`object` of a chunk."""
    first: dict[str, Any] | None
    """The choice of the chunk before any text, if there is one."""
    of_text: Callable[[str], dict[str, Any]]
    """The choice that carries a piece of text."""
    of_ending: dict[str, Any]
    """The choice that carries the finish reason and no text."""
    of_whole: Callable[[str], dict[str, Any]]
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def body(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.prefix + self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": f"quinze-{__version__}",
            "choices": choices,
        }


async def respond(
    request: Request,
    asked: ChatRequest | CompletionRequest,
    shape: Shape,
    *,
    whole: Callable[[LLM, threading.Event], Completion],
    stream: Callable[[LLM, threading.Event], Iterator[Delta]],
) -> Response:
    service: Service = request.app.state.service
    await in_thread(service.models.require, asked.model)
    if asked.stream:
        return await _streamed(request, service, asked, shape, stream)

    def work(cancel: threading.Event) -> Completion:
        with service.models.use(asked.model, cancel=cancel) as llm:
            return whole(llm, cancel)

    done = await cancellable(request, work)
    if done.finish_reason == "cancelled":
        raise BusyError("The generation was cancelled.", hint="Ask again.")
    choice = {"index": 0, **shape.of_whole(done.text), "logprobs": None, "finish_reason": done.finish_reason}
    return Json(
        {
            **shape.body(shape.whole, [choice]),
            "usage": usage_body(done.usage),
            "timings": plain(done.timings),
            "context": plain(done.context),
        }
    )


async def _streamed(
    request: Request,
    service: Service,
    asked: ChatRequest | CompletionRequest,
    shape: Shape,
    stream: Callable[[LLM, threading.Event], Iterator[Delta]],
) -> Response:
    def work(cancel: threading.Event) -> Iterator[Delta]:
        with service.models.use(asked.model, cancel=cancel) as llm:
            yield from stream(llm, cancel)

    pump = Pump(request, work)
    try:
        # What fails at once still gets its own status; what takes longer begins to stream, and pings.
        await pump.first(service.settings.ping_seconds)
    except BaseException:
        pump.close()
        raise
    with_usage = asked.stream_options is not None and asked.stream_options.include_usage
    return EventStream(request, _chunks(pump.items(), shape, with_usage), on_close=pump.close)


async def _chunks(
    deltas: AsyncIterator[Delta], shape: Shape, with_usage: bool
) -> AsyncGenerator[bytes, None]:
    """Chunks as OpenAI sends them: role, texts, the finish reason, the usage if asked for, [DONE]."""

    def chunk(choice: dict[str, Any] | None, finish: str | None = None, **more: Any) -> bytes:
        choices = (
            [] if choice is None else [{"index": 0, **choice, "logprobs": None, "finish_reason": finish}]
        )
        # Once usage is asked for, every chunk has the key, and all but the last of them hold null.
        usage = {"usage": None} if with_usage else {}
        return data_event({**shape.body(shape.chunk, choices), **usage, **more})

    try:
        if shape.first is not None:
            yield chunk(shape.first)
        async for delta in deltas:
            if delta.text:
                yield chunk(shape.of_text(delta.text))
            if delta.finish_reason == "cancelled":
                raise BusyError("The generation was cancelled.", hint="Ask again.")
            if delta.finish_reason is not None:
                account: dict[str, Any] = {"timings": plain(delta.timings), "context": plain(delta.context)}
                yield chunk(shape.of_ending, delta.finish_reason, **account)
                if with_usage:
                    yield chunk(None, usage=usage_body(delta.usage), **account)
        yield DONE
    except Exception as error:
        body = error_body(error)
        if body["error"]["code"] == "internal_error":
            log.exception("a stream failed")
        # The official clients raise on an event with `error`; a cut stream must not look like an end.
        yield data_event(body)
