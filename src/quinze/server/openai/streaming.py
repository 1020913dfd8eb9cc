"""What chat and completions share: run a generation, and send it whole or as OpenAI's stream of chunks.

Given a function that starts the generation in a loaded model; knows the shapes around it only by `Shape`.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from quinze import __version__
from quinze.errors import BusyError
from quinze.llm.messages import Completion, Delta, TokenLogprobs, ToolCall, Usage
from quinze.server.encoding import Json
from quinze.server.errors import error_body, log
from quinze.server.events import EventStream, data_event
from quinze.server.openai.protocol import ChatRequest, CompletionRequest, plain, together, usage_body
from quinze.server.threads import Pump, cancellable, in_thread
from quinze.service.service import Service

if TYPE_CHECKING:
    from quinze.llm.model import LanguageModel

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
    of_whole: Callable[[Completion], dict[str, Any]]
    of_logprobs: Callable[[Sequence[TokenLogprobs], int], dict[str, Any]]
    """Given with the characters that came before."""
    of_calls: Callable[[Sequence[ToolCall], int], dict[str, Any]] | None = None
    """The choice that carries calls of tools, given with how many came before."""
    of_reasoning: Callable[[str], dict[str, Any]] | None = None
    """The choice that carries an upstream model's thoughts."""
    with_logprobs: bool = False
    replies: int = 1
    """n: they are made one after the other, on the same prompt in the cache."""
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def logprobs(self, told: Sequence[TokenLogprobs], offset: int = 0) -> dict[str, Any] | None:
        return self.of_logprobs(told, offset) if self.with_logprobs else None

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
    whole: Callable[[LanguageModel, threading.Event, int], Completion],
    stream: Callable[[LanguageModel, threading.Event, int], Iterator[Delta]],
) -> Response:
    """`whole` and `stream` are given the number of the reply, from 0."""
    service: Service = request.app.state.service
    await in_thread(service.models.require, asked.model)
    if asked.stream:
        return await _streamed(request, service, asked, shape, stream)

    def work(cancel: threading.Event) -> list[Completion]:
        done: list[Completion] = []
        with service.models.use(asked.model, cancel=cancel) as llm:
            for index in range(shape.replies):
                done.append(whole(llm, cancel, index))
                if done[-1].finish_reason == "cancelled":
                    raise BusyError("The generation was cancelled.", hint="Ask again.")
        return done

    replies = await cancellable(request, work)
    choices = [
        {
            "index": index,
            **shape.of_whole(reply),
            "logprobs": shape.logprobs(reply.logprobs),
            "finish_reason": reply.finish_reason,
            "stop_reason": reply.stop,
        }
        for index, reply in enumerate(replies)
    ]
    return Json(
        {
            **shape.body(shape.whole, choices),
            "usage": usage_body(together([reply.usage for reply in replies])),
            "timings": plain(replies[0].timings),
            "context": plain(replies[0].context),
        }
    )


async def _streamed(
    request: Request,
    service: Service,
    asked: ChatRequest | CompletionRequest,
    shape: Shape,
    stream: Callable[[LanguageModel, threading.Event, int], Iterator[Delta]],
) -> Response:
    def work(cancel: threading.Event) -> Iterator[tuple[int, Delta]]:
        with service.models.use(asked.model, cancel=cancel) as llm:
            for index in range(shape.replies):
                for delta in stream(llm, cancel, index):
                    yield index, delta

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
    deltas: AsyncIterator[tuple[int, Delta]], shape: Shape, with_usage: bool
) -> AsyncGenerator[bytes, None]:
    """Chunks as OpenAI sends them: role, texts, the finish reason, the usage if asked for, [DONE]."""
    chunks = _Chunks(shape, with_usage)
    try:
        if shape.first is not None:
            yield chunks.first(0)
        async for index, delta in deltas:
            if index > 0 and chunks.begins(index) and shape.first is not None:
                yield chunks.first(index)
            for piece in chunks.pieces(index, delta):
                yield piece
            if delta.finish_reason == "cancelled":
                raise BusyError("The generation was cancelled.", hint="Ask again.")
            if delta.finish_reason is not None:
                yield chunks.ending(index, delta)
        if with_usage:
            yield chunks.usage()
        yield DONE
    except Exception as error:
        body = error_body(error)
        if body["error"]["code"] == "internal_error":
            log.exception("a stream failed")
        # The official clients raise on an event with `error`; a cut stream must not look like an end.
        yield data_event(body)


class _Chunks:
    """Each kind of chunk of one stream, as the bytes that are sent."""

    def __init__(self, shape: Shape, with_usage: bool) -> None:
        self._shape = shape
        # Once usage is asked for, every chunk has the key, and all but the last of them hold null.
        self._no_usage: dict[str, Any] = {"usage": None} if with_usage else {}
        self._index = 0
        self._shown = 0
        self._called = 0
        self._ended: list[Usage] = []
        self._account: dict[str, Any] = {}

    def begins(self, index: int) -> bool:
        """Whether this is the first delta of reply `index`."""
        if index == self._index:
            return False
        self._index, self._shown, self._called = index, 0, 0
        return True

    def first(self, index: int) -> bytes:
        return self._chunk(index, self._shape.first or {})

    def pieces(self, index: int, delta: Delta) -> Iterator[bytes]:
        if delta.reasoning and self._shape.of_reasoning is not None:
            yield self._chunk(index, self._shape.of_reasoning(delta.reasoning))
        if delta.text or delta.logprobs:
            logprobs = self._shape.logprobs(delta.logprobs, self._shown)
            self._shown += len(delta.text)
            yield self._chunk(index, {**self._shape.of_text(delta.text), "logprobs": logprobs})
        if delta.tool_calls and self._shape.of_calls is not None:
            yield self._chunk(index, self._shape.of_calls(delta.tool_calls, self._called))
            self._called += len(delta.tool_calls)

    def ending(self, index: int, delta: Delta) -> bytes:
        self._account = {"timings": plain(delta.timings), "context": plain(delta.context)}
        self._ended.append(delta.usage or Usage())
        reason = {"finish_reason": delta.finish_reason, "stop_reason": delta.stop}
        return self._chunk(index, {**self._shape.of_ending, **reason}, **self._account)

    def usage(self) -> bytes:
        body = self._shape.body(self._shape.chunk, [])
        return data_event({**body, "usage": usage_body(together(self._ended)), **self._account})

    def _chunk(self, index: int, choice: dict[str, Any], **more: Any) -> bytes:
        whole = {"index": index, "logprobs": None, "finish_reason": None, **choice}
        return data_event({**self._shape.body(self._shape.chunk, [whole]), **self._no_usage, **more})
