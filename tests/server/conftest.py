"""A real server on a free port, over a service whose language model speaks from a script."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from quinze.engine.sampling import SamplingParams
from quinze.errors import ContextLengthError, QuinzeError
from quinze.llm.messages import Completion, Delta, Message, Timings, Usage
from quinze.server.run import LocalServer
from quinze.service.rooms import Rooms
from quinze.service.service import Service
from quinze.service.settings import Settings

WORDS = ("Quinze", " means", " fifteen", "，十五", ".")
USAGE, TIMINGS, LEDGER = Usage(7, 5, 3), Timings(0.1, 0.2), {"granted": 64, "used": 12}


@dataclass
class ScriptedLLM:
    """Speaks WORDS. Remembers what it was asked; waits for `go` before each word once `slow` is set."""

    name: str
    can_chat: bool = True
    can_call_tools: bool = True
    context_length: int = 64
    device: str = "cpu"
    slow: threading.Event = field(default_factory=threading.Event)
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    asked: list[dict[str, Any]] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    at_work: int = 0
    closed: bool = False

    def chat(self, messages: Sequence[Message], **options: Any) -> Any:
        return self._reply({"messages": list(messages), **options})

    def complete(self, prompt: str, **options: Any) -> Any:
        return self._reply({"prompt": prompt, **options})

    def close(self) -> None:
        self.closed = True

    def _reply(self, asked: dict[str, Any]) -> Any:
        self.asked.append(asked)
        text = str(asked.get("prompt") or asked["messages"])
        if "TOO LONG" in text:
            raise ContextLengthError(
                "The prompt has 99 tokens; scripted reads at most 64.", hint="Shorten it."
            )
        deltas = self._deltas(asked, fail="FAIL" in text)
        if asked.get("stream"):
            return deltas
        found = list(deltas)
        ending = found[-1]
        assert ending.finish_reason is not None
        return Completion("".join(d.text for d in found), ending.finish_reason, USAGE, TIMINGS, LEDGER)

    def _deltas(self, asked: dict[str, Any], fail: bool) -> Iterator[Delta]:
        params: SamplingParams = asked["params"]
        cancel: threading.Event = asked["cancel"]
        self.at_work += 1
        try:
            for i, word in enumerate(WORDS):
                while self.slow.is_set() and not self.go.acquire(timeout=0.02):
                    if cancel.is_set():
                        self.cancelled.set()
                        yield Delta(finish_reason="cancelled", usage=USAGE, timings=TIMINGS, context=LEDGER)
                        return
                if i == params.max_tokens:
                    yield Delta(finish_reason="length", usage=USAGE, timings=TIMINGS, context=LEDGER)
                    return
                if fail and i == 2:
                    raise RuntimeError("a secret of the inside")
                if any(stop in word for stop in asked["stop"]):
                    break
                yield Delta(word)
            yield Delta(finish_reason="stop", usage=USAGE, timings=TIMINGS, context=LEDGER)
        finally:
            self.at_work -= 1
            if cancel.is_set():
                self.cancelled.set()


class ScriptedRooms(Rooms):
    """Every file ending in .gguf is a scripted model; its name says what it can do."""

    def __init__(self) -> None:
        super().__init__()
        self.llms: dict[str, ScriptedLLM] = {}

    def load_llm(self, path: Path, **_: Any) -> Any:
        llm = self.llms.setdefault(path.stem, ScriptedLLM(path.stem))
        llm.can_chat, llm.closed = path.stem != "base", False
        return llm

    def describe_model(self, path: Path) -> dict[str, Any]:
        if path.stem == "broken":
            raise QuinzeError("broken.gguf is not a GGUF file.")
        return {"format": "gguf", "architecture": "llama", "parameters": 15, "can_chat": path.stem != "base"}


@dataclass
class Running:
    """A server at work, and clients for it."""

    service: Service
    server: LocalServer
    rooms: ScriptedRooms
    http: httpx.Client
    openai: openai.OpenAI

    @property
    def llm(self) -> ScriptedLLM:
        return self.rooms.llms.setdefault("scripted", ScriptedLLM("scripted"))

    def until(self, true: Callable[[], bool], seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "it did not come true in time"
            time.sleep(0.02)


@contextlib.contextmanager
def serving(home: Path, rooms: Any = None, **settings: Any) -> Iterator[Running]:
    if rooms is None:
        rooms = ScriptedRooms()
        models = home / "models"
        models.mkdir(parents=True, exist_ok=True)
        for name in ("scripted", "base", "broken"):
            (models / f"{name}.gguf").write_bytes(b"GGUF")
    service = Service(home, Settings(**{"port": 0, **settings}), rooms)
    server = LocalServer(service)
    thread = threading.Thread(target=lambda: server.run(sockets=[server.socket]), daemon=True)
    url = server.url
    thread.start()
    http = httpx.Client(base_url=url, timeout=30)
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30)
    running = Running(service, server, rooms, http, client)
    try:
        running.until(lambda: server.started)
        yield running
    finally:
        http.close()
        client.close()
        server.stop()
        thread.join(20)
        service.close()
        assert not thread.is_alive(), "the server did not stop"


@pytest.fixture
def serve(home: Path) -> Iterator[Callable[..., Running]]:
    """`serve(ping_seconds=0.1)`: a server with these settings, stopped after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(serving(home, **settings))


@pytest.fixture(scope="module")
def serving_with() -> Iterator[Callable[..., Running]]:
    """`serving_with(home, rooms, threads=1)`: a server over these rooms, for the tests of one file."""
    with contextlib.ExitStack() as stack:
        yield lambda home, rooms, **more: stack.enter_context(serving(home, rooms, **more))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with the default settings, shared by the tests of one file."""
    with serving(tmp_path_factory.mktemp("home")) as found:
        yield found
