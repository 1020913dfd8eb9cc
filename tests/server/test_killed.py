"""A real `quinze serve`, killed while it reads, and started again: nothing that was accepted is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

FILES, UPLOADS = 300, 10


@pytest.fixture
def start(home: Path) -> Iterator[Callable[[], tuple[subprocess.Popen[str], httpx.Client]]]:
    """Starts `quinze serve` on a free port; whatever still runs afterwards is ended."""
    started: list[tuple[subprocess.Popen[str], httpx.Client]] = []

    def begin() -> tuple[subprocess.Popen[str], httpx.Client]:
        process = subprocess.Popen(
            [sys.executable, "-m", "quinze.cli", "serve", "--port", "0"],
            env={**os.environ, "QUINZE_HOME": str(home), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        url = next(word for line in process.stdout for word in line.split() if word.startswith("http://"))
        client = httpx.Client(base_url=url.strip(), timeout=30)
        started.append((process, client))
        return process, client

    yield begin
    for process, client in started:
        client.close()
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()


def ready(client: httpx.Client) -> int:
    found = client.get("/api/knowledge/notes").json()["ready"]
    assert isinstance(found, int)
    return found


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that takes a while to read."""
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(FILES):
        (folder / f"{i}.txt").write_text(f"Note {i}. The word of this note is quinze{i:03}.\n" * 20)
    return folder


@pytest.mark.slow
def test_a_server_killed_while_it_reads_goes_on_at_the_next_start(
    start: Callable[[], tuple[subprocess.Popen[str], httpx.Client]], home: Path, folder: Path
) -> None:
    process, client = start()
    assert client.post("/api/knowledge", json={"name": "notes"}).status_code == 201
    assert client.post("/api/knowledge/notes/paths", json={"paths": [str(folder)]}).status_code == 202
    for i in range(UPLOADS):
        content = f"Upload {i} holds the word upload{i:03}."
        reply = client.post("/api/knowledge/notes/documents", params={"name": f"u{i}.txt"}, content=content)
        assert reply.status_code == 202
    until(lambda: ready(client) >= 1)
    process.kill()
    process.wait(20)
    pending = home / "knowledge" / "notes" / "pending"
    assert list(pending.glob("*.json")), "it had finished before it was killed"

    _, client = start()
    until(lambda: ready(client) == FILES + UPLOADS)
    until(lambda: not list(pending.glob("*.json")))
    hit = client.post("/api/knowledge/notes/search", json={"query": "upload009"}).json()["hits"][0]
    assert hit["document"] == "u9.txt"


@pytest.mark.slow
def test_ctrl_c_ends_a_server_with_an_open_stream(
    start: Callable[[], tuple[subprocess.Popen[str], httpx.Client]], folder: Path
) -> None:
    process, client = start()
    client.post("/api/knowledge", json={"name": "notes"})
    job = client.post("/api/knowledge/notes/paths", json={"paths": [str(folder)]}).json()["id"]
    with client.stream("GET", f"/api/jobs/{job}/events") as stream:
        lines = stream.iter_lines()
        next(line for line in lines if line.startswith("event: progress"))
        process.send_signal(signal.SIGINT)
        assert [line for line in lines if line.startswith("event: ")][-1] in {"event: error", "event: end"}
    assert process.wait(30) in {0, 130}

    _, client = start()
    until(lambda: ready(client) == FILES)
