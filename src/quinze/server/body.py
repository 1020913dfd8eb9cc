"""Bodies of requests, read within limits: so many bytes, no longer pause than so many seconds.

A Content-Length that lies is found out, because what comes is counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from starlette.requests import Request

from quinze.errors import TooLargeError
from quinze.server.encoding import decode
from quinze.server.errors import ClientGoneError, RefusedError
from quinze.service.settings import Settings

T = TypeVar("T")


async def json_body(request: Request, kind: type[T]) -> T:
    """The JSON body as a `kind`. Its Content-Type must say so: a web form of another site cannot send
    that unasked."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise RefusedError(
            415,
            f"The Content-Type is {media_type[:80] or 'missing'}; it must be application/json.",
            hint="With curl: -H 'Content-Type: application/json'",
        )
    settings: Settings = request.app.state.service.settings
    pieces = [piece async for piece in body_pieces(request, settings.max_body_bytes)]
    return decode(b"".join(pieces), kind)


async def body_pieces(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body piece by piece. TooLargeError beyond `limit` bytes, 408 when it pauses for too long."""
    settings: Settings = request.app.state.service.settings
    stated = request.headers.get("content-length", "")
    if stated.isascii() and stated.isdigit() and (len(stated) > 18 or int(stated) > limit):
        raise _too_large(limit)
    came = 0
    while True:
        try:
            message = await asyncio.wait_for(request.receive(), settings.body_timeout)
        except TimeoutError:
            raise RefusedError(
                408, f"The body paused for more than {settings.body_timeout:g} seconds after {came:,} bytes."
            ) from None
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        piece = message.get("body", b"")
        came += len(piece)
        if came > limit:
            raise _too_large(limit)
        if piece:
            yield piece
        if not message.get("more_body", False):
            return


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(
        f"The body is larger than the {limit:,} bytes that are taken.",
        hint="max_body_bytes and max_upload_bytes in settings.json set the limits.",
    )
