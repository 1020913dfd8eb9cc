"""A server on 127.0.0.1 that answers as vLLM, llama.cpp or Ollama do, or drops, stalls and lies.

The chunks have the shapes that these servers send (vLLM's entrypoints/openai/protocol.py, llama.cpp's
tools/server/README.md, Ollama's docs/openai.md).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from quinze.hub.upstream import Upstream
from quinze.llm.upstream import UpstreamLLM
from quinze.llm.upstream_request import Served
from quinze.service.service import Service
from quinze.service.settings import Settings

KEY = "sk-secret-0123456789"
Answer = Callable[["Handler", dict[str, Any]], None]


@dataclass
class FakeServer:
    url: str = ""
    owner: str = "vllm"
    models: list[dict[str, Any]] = field(default_factory=lambda: [{"id": "big", "max_model_len": 4096}])
    answers: list[Answer] = field(default_factory=list)
    """Each is used up by one request for a reply; the last one stays."""
    routes: dict[str, Any] = field(default_factory=dict)
    """Path -> JSON, or a function of the body, beside OpenAI's."""
    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    hung_up: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)

    def asked(self) -> dict[str, Any]:
        """The body of the last request for a reply."""
        return next(body for path, _, body in reversed(self.requests) if "completions" in path)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def fake(self) -> FakeServer:
        found: FakeServer = self.server.fake  # type: ignore[attr-defined]
        return found

    def do_GET(self) -> None:
        self._note({})
        if self.path == "/v1/models":
            data = [{"object": "model", "owned_by": self.fake.owner, **one} for one in self.fake.models]
            self.json({"object": "list", "data": data})
        elif self.path in self.fake.routes:
            self.json(self.fake.routes[self.path])
        else:
            self.json({"detail": "Not Found"}, 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._note(body)
        if self.path in self.fake.routes:
            found = self.fake.routes[self.path]
            self.json(found(body) if callable(found) else found)
        elif "completions" not in self.path:
            self.json({"detail": "Not Found"}, 404)
        else:
            answers = self.fake.answers
            (answers.pop(0) if len(answers) > 1 else answers[0])(self, body)

    def json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.raw(json.dumps(value).encode(), "application/json", status, headers)

    def raw(self, data: bytes, kind: str, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def event(self, value: Any) -> None:
        self.chunk(f"data: {value if isinstance(value, str) else json.dumps(value)}\n\n")

    def end(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def _note(self, body: dict[str, Any]) -> None:
        self.fake.requests.append((self.path, dict(self.headers), body))

    def log_message(self, *_: Any) -> None:
        """Silence."""


def delta(**fields: Any) -> dict[str, Any]:
    """A chunk of a chat."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": None}
    for name in ("finish_reason", "stop_reason", "logprobs"):
        if name in fields:
            choice[name] = fields.pop(name)
    return {
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "big",
        "choices": [{**choice, "delta": fields}],
    }  # fmt: skip


def usage(prompt: int, completion: int, **more: Any) -> dict[str, Any]:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {**delta(), "choices": [], "usage": counts | more}


def saying(*events: Any, last: str | None = "[DONE]") -> Answer:
    """A stream of these events, and what ends it."""

    def answer(handler: Handler, body: dict[str, Any]) -> None:
        handler.begin()
        for event in events:
            handler.event(event)
        if last is not None:
            handler.event(last)
        handler.end()

    return answer


def refusing(status: int, body: Any, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, _: handler.json(body, status, named)


def endless(handler: Handler, body: dict[str, Any]) -> None:
    """Words until the client hangs up."""
    handler.begin()
    try:
        while not handler.fake.done.wait(0.01):
            handler.event(delta(content="word "))
    except OSError:
        handler.fake.hung_up.set()


def silent(handler: Handler, body: dict[str, Any]) -> None:
    """One word, and then nothing."""
    handler.begin()
    handler.event(delta(content="word "))
    handler.fake.done.wait(30)


HELLO = saying(
    delta(role="assistant", content=""), delta(content="Hello"), delta(content=", 世界"),
    delta(content="", finish_reason="stop"), usage(21, 5, prompt_tokens_details={"cached_tokens": 16}),
)  # fmt: skip


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer(answers=[HELLO])
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.fake = fake  # type: ignore[attr-defined]
    fake.url = f"http://127.0.0.1:{listening.server_port}/v1"
    thread = threading.Thread(target=lambda: listening.serve_forever(0.02), daemon=True)
    thread.start()
    yield fake
    fake.done.set()
    listening.shutdown()
    listening.server_close()
    thread.join(10)


@pytest.fixture
def llm(server: FakeServer) -> Callable[..., UpstreamLLM]:
    """`llm(kind="vllm", key=None, context_length=4096, idle_timeout=5)`: the fake server's model."""

    def make(
        kind: str = "", key: str | None = None, context_length: int = 4096, **options: Any
    ) -> UpstreamLLM:
        upstream = Upstream(server.url, key=key, idle_timeout=options.pop("idle_timeout", 5.0))
        return UpstreamLLM("far", upstream, Served("big", context_length, kind), **options)

    return make


@pytest.fixture
def service(home: Path) -> Iterator[Service]:
    found = Service(home, Settings(port=0, upstream_timeout=5.0))
    yield found
    found.close()


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)
