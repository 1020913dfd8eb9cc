"""Server-sent events: a stream that pings while it is silent, and ends when the client or the server does.

Given pieces of bytes that are whole events already; knows nothing of what they mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from quinze.server.encoding import encode
from quinze.server.errors import error_body
from quinze.server.threads import gone, shutting_down

PING = b": ping\n\n"


def event(name: str, data: Any, number: int | None = None) -> bytes:
    """One event as bytes. JSON holds no raw line break, so one data line is enough."""
    head = f"id: {number}\n" if number is not None else ""
    return f"{head}event: {name}\ndata: ".encode() + encode(data) + b"\n\n"


def data_event(data: Any) -> bytes:
    """One nameless event, as OpenAI streams them."""
    return b"data: " + encode(data) + b"\n\n"


class EventStream(Response):
    """Sends `pieces` as they come. `on_close` is called however it ends."""

    def __init__(
        self,
        request: Request,
        pieces: AsyncGenerator[bytes, None],
        *,
        farewell: Callable[[Any], bytes] = data_event,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(media_type="text/event-stream")
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-store"
        self.headers["x-accel-buffering"] = "no"
        self._pieces = pieces
        self._ping: float = request.app.state.service.settings.ping_seconds
        self._closing: asyncio.Event = request.app.state.closing
        self._farewell, self._on_close = farewell, on_close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        async def next_piece() -> bytes | None:
            return await anext(self._pieces, None)

        async def send_body(piece: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": piece, "more_body": more})

        leave = asyncio.create_task(gone(receive, self._closing))
        coming = asyncio.create_task(next_piece())
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            while True:
                await asyncio.wait({coming, leave}, timeout=self._ping, return_when=asyncio.FIRST_COMPLETED)
                if coming.done():
                    piece = coming.result()
                    if piece is None:
                        break
                    await send_body(piece)
                    coming = asyncio.create_task(next_piece())
                elif leave.done():
                    if leave.result():
                        return
                    await send_body(self._farewell(error_body(shutting_down())))
                    break
                else:
                    await send_body(PING)
            await send_body(b"", more=False)
        finally:
            self._on_close()
            leave.cancel()
            coming.cancel()
            await asyncio.gather(leave, coming, return_exceptions=True)
            await self._pieces.aclose()
