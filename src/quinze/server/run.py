"""Serve until Ctrl-C: one process, one address on this machine.

Given a Service. A first Ctrl-C ends the streams, keeps what is not read yet for the next start, and goes; a
second one goes at once (nothing finished is lost by it: every document is one transaction).
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from quinze.errors import ConflictError, InvalidRequestError
from quinze.server.app import create_app
from quinze.service.service import Service

log = logging.getLogger(__name__)

_SECONDS_TO_END_STREAMS = 5
_MOST_CONNECTIONS = 800


def run(service: Service, *, open_page: bool = False, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve in this thread. `on_ready` is given the address once requests are answered."""
    server = LocalServer(service, on_ready=on_ready or _say)
    if open_page:
        server.when_ready(
            lambda url: threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        )
    service.resume()
    server.run(sockets=[server.socket])


class LocalServer(uvicorn.Server):
    """uvicorn on a loopback socket of our own; its streams end when it does.

    `stop` may be called from any thread.
    """

    def __init__(self, service: Service, *, on_ready: Callable[[str], None] | None = None) -> None:
        self.socket = _listen(service.settings.host, service.settings.port)
        self.app: Starlette = create_app(service)
        super().__init__(
            uvicorn.Config(
                self.app,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                ws="none",
                limit_concurrency=_MOST_CONNECTIONS,
                timeout_graceful_shutdown=_SECONDS_TO_END_STREAMS,
            )
        )
        self._on_ready = [on_ready] if on_ready else []

    @property
    def url(self) -> str:
        host, port = self.socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def when_ready(self, call: Callable[[str], None]) -> None:
        self._on_ready.append(call)

    def stop(self) -> None:
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        url = self.url
        await super().startup(sockets)
        for call in self._on_ready:
            call(url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.app.state.closing.set()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            os._exit(130)
        super().handle_exit(sig, frame)


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket, on this machine only."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host.strip("[]"))
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise InvalidRequestError(
            f"Quinze does not listen on {host!r}: it has no login yet, and would be open to all.",
            hint="Use 127.0.0.1, ::1 or localhost; from another machine: ssh -L 1515:127.0.0.1:1515 HOST",
            param="host",
        )
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    # The protocol by name: asyncio sends small answers at once (TCP_NODELAY) only on sockets that state it.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((str(address), port))
    except OSError as error:
        bound.close()
        raise ConflictError(
            f"Port {port} of {address} cannot be used: {error.strerror}.",
            hint="Is Quinze running already? Else take another port: quinze serve --port 0",
            param="port",
        ) from error
    bound.set_inheritable(False)
    return bound


def _say(url: str) -> None:
    sys.stdout.write(f"Quinze is at {url}   (Ctrl-C stops it)\n")
    sys.stdout.flush()
