"""A model hub on 127.0.0.1 that can be told to drop, to lie, to stall, to refuse and to send elsewhere.

Its answers have the shapes that huggingface.co and modelscope.cn document.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from quinze.hub.hub import Hub

COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"
Trick = Callable[["Handler", bytes, int], bool]
"""Given the whole file and where the client wants to begin; True: it has answered."""


@dataclass
class FakeHub:
    files: dict[str, bytes] = field(default_factory=dict)
    plain: set[str] = field(default_factory=set)
    """Files of which no sha256 is stated."""
    etags: dict[str, str] = field(default_factory=dict)
    tricks: list[Trick] = field(default_factory=list)
    """Each is used up by one request for a file."""
    list_tricks: list[Trick] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    stated: dict[str, Any] = field(default_factory=dict)
    """Over what the list states of a file: {"model.gguf": {"size": 5}}."""
    url: str = ""
    done: threading.Event = field(default_factory=threading.Event)

    def huggingface(self) -> dict[str, Any]:
        siblings = []
        for path, data in self.files.items():
            entry: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": "b" * 40}
            if path not in self.plain:
                sha = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"sha256": sha, "size": len(data), "pointerSize": 135}
            siblings.append(entry | self.stated.get(path, {}))
        return {"id": "org/name", "sha": COMMIT, "private": False, "gated": False, "siblings": siblings}

    def modelscope(self) -> dict[str, Any]:
        files: list[dict[str, Any]] = [
            {"Name": "sub", "Path": "sub", "Type": "tree", "Size": 0, "Sha256": ""}
        ]
        for path, data in self.files.items():
            sha = hashlib.sha256(data).hexdigest()
            files.append(
                {"Name": path, "Path": path, "Type": "blob", "Size": len(data), "Sha256": sha, "IsLFS": True}
            )
        return {"Code": 200, "Success": True, "Message": "success", "Data": {"Files": files}}

    def file_requests(self) -> list[dict[str, str]]:
        return [headers for path, headers in self.requests if "/api/" not in path or "FilePath" in path]

    # --- tricks

    @staticmethod
    def dropping(after: int) -> Trick:
        """The connection ends in the middle."""

        def trick(handler: Handler, data: bytes, start: int) -> bool:
            handler.send_from(data, start, most=after)
            return True

        return trick

    @staticmethod
    def stalling(after: int) -> Trick:
        """Bytes stop coming, and the connection stays."""

        def trick(handler: Handler, data: bytes, start: int) -> bool:
            handler.send_from(data, start, most=after)
            handler.wfile.flush()
            handler.hub.done.wait(10)
            return True

        return trick

    @staticmethod
    def refusing(status: int, headers: dict[str, str] | None = None) -> Trick:
        def trick(handler: Handler, data: bytes, start: int) -> bool:
            handler.answer(status, b"no", headers)
            return True

        return trick

    @staticmethod
    def sending_to(url: str) -> Trick:
        return FakeHub.refusing(302, {"Location": url})

    @staticmethod
    def trickling(pieces: int, pause: float) -> Trick:
        def trick(handler: Handler, data: bytes, start: int) -> bool:
            handler.send_from(data, start, most=0)
            step = max(1, (len(data) - start) // pieces)
            for at in range(start, len(data), step):
                handler.wfile.write(data[at : at + step])
                handler.wfile.flush()
                time.sleep(pause)
            return True

        return trick


class Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def do_GET(self) -> None:
        hub = self.hub
        hub.requests.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
        target = urlsplit(self.path)
        if re.fullmatch(r"/api/models/org/name/revision/main", target.path):
            self._list(hub.huggingface())
        elif target.path == "/api/v1/models/org/name/repo/files":
            self._list(hub.modelscope())
        elif target.path == "/api/v1/models/org/name/repo":
            self._file(parse_qs(target.query)["FilePath"][0])
        elif target.path.startswith(f"/org/name/resolve/{COMMIT}/"):
            self._file(unquote(target.path.partition(f"/{COMMIT}/")[2]))
        elif target.path.startswith("/cdn/"):
            self._file(unquote(target.path.removeprefix("/cdn/")))
        else:
            self.answer(404, b"{}")

    def _list(self, told: Any) -> None:
        if self.hub.list_tricks and self.hub.list_tricks.pop(0)(self, b"", 0):
            return
        self.answer(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def _file(self, path: str) -> None:
        data = self.hub.files.get(path)
        if data is None:
            return self.answer(404, b"")
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        etag = self.hub.etags.get(path, '"one"')
        if self.headers.get("If-Range") not in (None, etag):
            start = 0
        if self.hub.tricks and self.hub.tricks.pop(0)(self, data, start):
            return None
        return self.send_from(data, start, etag)

    def send_from(self, data: bytes, start: int, etag: str = '"one"', most: int | None = None) -> None:
        head = {"ETag": etag, "Content-Length": str(len(data) - start)}
        if start:
            head["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.answer(206 if start else 200, data[start:][:most], head)

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        head = {"Content-Length": str(len(body))} | (headers or {})
        self.send_response(status)
        for name, value in head.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def _serve(address: str, hub: FakeHub) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer((address, 0), type("Its", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    hub.url = f"http://{address}:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


@pytest.fixture
def fake() -> Iterator[FakeHub]:
    hub = FakeHub()
    server = _serve("127.0.0.1", hub)
    yield hub
    hub.done.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def elsewhere() -> Iterator[FakeHub]:
    """Another machine, so to speak."""
    hub = FakeHub()
    server = _serve("127.0.0.2", hub)
    yield hub
    hub.done.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub(fake: FakeHub) -> Hub:
    return Hub("huggingface", fake.url, idle_timeout=0.5, pause=0.01, attempts=4)
