"""A real service behind the built page, and a headless Chromium that watches what the page does."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from quinze.llm.messages import Delta, Timings, Usage
from quinze.server import static_files
from quinze.server.run import LocalServer
from quinze.service.rooms import Rooms
from quinze.service.service import Service
from quinze.service.settings import Settings

ROOT = Path(__file__).resolve().parent.parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="session")
def page_folder() -> Path:
    """The built page: that of the installed package, else of the source tree."""
    for folder in (static_files.FOLDER, ROOT / "web" / "dist"):
        if (folder / "index.html").is_file():
            return folder
    pytest.skip("the page is not built: run `npm ci && npm run build` in web/, or install with pip")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield chromium
        chromium.close()


@dataclass
class ScriptedLLM:
    """Says `words`, one a delta; once `slow` is set it waits for the test, or for the end of the request."""

    name: str
    words: list[str] = field(default_factory=lambda: ["Hello", " there", "."])
    can_chat: bool = True
    context_length: int = 4096
    device: str = "cpu"
    slow: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def chat(self, messages: Any, **options: Any) -> Iterator[Delta]:
        self.asked.append({"messages": list(messages), **options})
        return self._deltas(options.get("cancel") or threading.Event())

    def count_tokens(self, text: str) -> int:
        return len(text)

    def count_chat_tokens(self, messages: Any) -> int:
        return sum(len(message.content) for message in messages)

    def close(self) -> None:
        """Nothing is held."""

    def _deltas(self, cancel: threading.Event) -> Iterator[Delta]:
        ledger = {"granted": 4096, "used": 24, "parts": {"history": 4, "prompt": 8, "reply": 12}}
        usage, timings = Usage(12, 12, 4), Timings(0.1, 0.5)
        for word in self.words:
            yield Delta(word)
            if self.slow and cancel.wait(30):
                self.cancelled.set()
                yield Delta(finish_reason="cancelled", usage=usage, timings=timings, context=ledger)
                return
        yield Delta(finish_reason="stop", usage=usage, timings=timings, context=ledger)


class ScriptedRooms(Rooms):
    """Rooms whose every *.gguf is the one scripted model; everything else is real."""

    def __init__(self) -> None:
        super().__init__()
        self.llm = ScriptedLLM("scripted")

    def load_llm(self, path: Path, **options: Any) -> Any:
        return self.llm if path.suffix == ".gguf" else super().load_llm(path, **options)

    def describe_model(self, path: Path) -> dict[str, Any]:
        if path.suffix != ".gguf":
            return super().describe_model(path)
        return {"format": "gguf", "architecture": "llama", "parameters": 15_000_000, "can_chat": True}


@dataclass
class Site:
    """The service at work."""

    url: str
    service: Service
    rooms: ScriptedRooms

    def add_scripted_model(self, home: Path, *words: str) -> ScriptedLLM:
        models = home / "models"
        models.mkdir(parents=True, exist_ok=True)
        (models / "scripted.gguf").write_bytes(b"GGUF")
        self.rooms.llm.words = list(words) or self.rooms.llm.words
        return self.rooms.llm


@pytest.fixture
def site(home: Path, page_folder: Path) -> Iterator[Site]:
    rooms = ScriptedRooms()
    service = Service(home, Settings(port=0), rooms)
    server = LocalServer(service)
    server.app.state.page_folder = page_folder
    thread = threading.Thread(target=lambda: server.run(sockets=[server.socket]), daemon=True)
    url = server.url
    thread.start()
    end = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < end, "the server did not start"
        time.sleep(0.02)
    yield Site(url, service, rooms)
    server.stop()
    thread.join(20)
    service.close()


@dataclass
class Watch:
    """What the pages of one test asked for, and what they complained of."""

    host: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()
    """Parts of complaints that the test provokes."""

    def heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def check(self) -> None:
        strangers = [url for url in self.requests if urlsplit(url).netloc != self.host and url[:5] != "blob:"]
        assert not strangers, "the page asked another host"
        assert not [text for text in self.complaints if not any(part in text for part in self.expected)]


REPORT_POLICY = """
document.addEventListener('securitypolicyviolation', (event) =>
  console.error('policy violated: ' + event.violatedDirective + ' by ' + event.blockedURI))
"""


@pytest.fixture
def watch(site: Site) -> Watch:
    return Watch(urlsplit(site.url).netloc)


@pytest.fixture
def visit(browser: Browser, site: Site, watch: Watch) -> Iterator[Callable[..., Page]]:
    """`visit("/chat", locale="zh-CN", dark=True, width=390)`: a page, watched until the test ends."""
    contexts = []

    def open_page(path: str = "/", locale: str = "zh-CN", dark: bool = False, width: int = 1280) -> Page:
        context = browser.new_context(
            base_url=site.url,
            locale=locale,
            color_scheme="dark" if dark else "light",
            viewport={"width": width, "height": 860},
            has_touch=width < 700,
        )
        contexts.append(context)
        context.add_init_script(REPORT_POLICY)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("request", lambda request: watch.requests.append(request.url))
        page.on("console", watch.heard)
        page.on("pageerror", lambda error: watch.complaints.append(str(error)))
        page.goto(path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    watch.check()
