"""The guard before every route: who may ask, and what every answer carries.

Loopback alone protects from other machines, not from web pages: a page of any site can have the browser of
this machine send requests here. So the Host must be ours (against DNS rebinding), an Origin must be ours or
allowed, and no answer may be framed, sniffed or read across origins. Pure ASGI: it buffers nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quinze.server.errors import ClientGoneError, RefusedError, error_response
from quinze.service.settings import Settings

log = logging.getLogger(__name__)

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_ALWAYS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_OWN_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
_DRAIN_BYTES, _DRAIN_SECONDS, _DRAIN_PAUSE = 64 * 2**20, 5.0, 1.0
_METHODS = "GET, POST, DELETE, OPTIONS"


class Guard:
    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._hosts = frozenset(name.lower() for name in settings.allowed_hosts)
        self._own_names = _OWN_NAMES | {f"[{settings.host}]" if ":" in settings.host else settings.host}
        self._origins = frozenset(origin.lower().rstrip("/") for origin in settings.allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = f"req_{secrets.token_hex(12)}"
        foreign_origin = ""
        started = False

        body = _Body(headers, receive)

        async def guarded_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if message["status"] >= 400 and message["status"] != 408:
                    await body.drain()
                _finish(MutableHeaders(scope=message), scope["path"], request_id, foreign_origin)
            await send(message)

        try:
            self._check_host(headers)
            foreign_origin = self._check_origin(headers)
            if foreign_origin and scope["method"] == "OPTIONS":
                await _preflight(headers)(scope, body.receive, guarded_send)
                return
            await self._app(scope, body.receive, guarded_send)
        except ClientGoneError:
            return
        except Exception as error:
            if started:
                # Too late to say so in the status: the broken connection says it.
                log.exception("%s %s failed after its answer had begun", request_id, scope["path"])
                raise
            await error_response(error)(scope, body.receive, guarded_send)

    def _check_host(self, headers: Headers) -> None:
        """Against DNS rebinding: another site's name that suddenly points here."""
        hosts = headers.getlist("host")
        host = hosts[0].lower() if len(hosts) == 1 else ""
        found = _HOST.fullmatch(host)
        if found and (found[1] in self._own_names or host in self._hosts or found[1] in self._hosts):
            return
        raise RefusedError(
            403,
            "This service answers on localhost only; the Host header names another.",
            hint="Ask http://127.0.0.1, or add the name to allowed_hosts in settings.json.",
            code="forbidden_host",
        )

    def _check_origin(self, headers: Headers) -> str:
        """The origin when it is another one that is allowed; "" when it is ours or none; refused
        otherwise."""
        origins = headers.getlist("origin")
        if not origins:
            # Images and scripts of other sites send no Origin, but browsers say where they come from.
            if (
                headers.get("sec-fetch-site") == "cross-site"
                and headers.get("sec-fetch-mode", "") != "navigate"
            ):
                raise _foreign("another site")
            return ""
        origin = origins[0].lower()
        if len(origins) == 1 and origin in {
            f"http://{headers['host']}".lower(),
            f"https://{headers['host']}".lower(),
        }:
            return ""
        if len(origins) == 1 and origin in self._origins:
            return origins[0]
        raise _foreign(origin[:100])


class _Body:
    """The body of a request, of which the rest is read before a refusal is sent.

    To close a connection with bytes unread resets it, and the client may never see why it was refused.
    """

    def __init__(self, headers: Headers, receive: Receive) -> None:
        self._receive = receive
        self._ended = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._ended = True
        return message

    async def drain(self) -> None:
        """Read on, but neither much nor for long."""
        came = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while not self._ended and came < _DRAIN_BYTES:
                    message = await asyncio.wait_for(self.receive(), _DRAIN_PAUSE)
                    came += len(message.get("body", b""))


def _foreign(origin: str) -> RefusedError:
    return RefusedError(
        403,
        f"A page of {origin!r} may not ask this service.",
        hint="Add the origin to allowed_origins in settings.json if you trust that page.",
        code="forbidden_origin",
    )


def _preflight(headers: Headers) -> Response:
    asked = headers.get("access-control-request-headers", "")
    allowed = asked if re.fullmatch(r"[A-Za-z0-9, _-]{0,1000}", asked) else "content-type"
    return Response(
        status_code=204,
        headers={
            "access-control-allow-methods": _METHODS,
            "access-control-allow-headers": allowed or "content-type",
            "access-control-max-age": "600",
        },
    )


def _finish(headers: MutableHeaders, path: str, request_id: str, foreign_origin: str) -> None:
    """Headers that every answer carries; a route may have set a stricter one itself."""
    for name, value in _ALWAYS.items():
        headers.setdefault(name, value)
    headers["x-request-id"] = request_id
    if path.startswith(("/api/", "/v1/")):
        headers.setdefault("cache-control", "no-store")
    headers.add_vary_header("Origin")
    if foreign_origin:
        headers["access-control-allow-origin"] = foreign_origin
        headers["access-control-expose-headers"] = "x-request-id, retry-after, content-disposition"
        headers["cross-origin-resource-policy"] = "cross-origin"
