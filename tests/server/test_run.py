"""Starting and stopping: an address of this machine, a port that may be taken, an end to everything."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from quinze.errors import ConflictError
from quinze.server.run import LocalServer
from quinze.service.service import Service
from quinze.service.settings import Settings


def test_a_port_that_is_taken_is_named_with_the_way_out(running: Any, tmp_path: Path) -> None:
    port = running.server.socket.getsockname()[1]
    with pytest.raises(ConflictError, match=str(port)) as caught:
        LocalServer(Service(tmp_path, Settings(port=port)))
    assert "--port 0" in caught.value.hint


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_every_loopback_address_serves_under_its_own_name(tmp_path: Path, host: str) -> None:
    if host == "::1" and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        server = LocalServer(Service(tmp_path, Settings(host=host, port=0)))
    except ConflictError as error:
        if host != "::1":
            raise
        pytest.skip(f"IPv6 is switched off here: {error}")
    told = threading.Event()
    server.when_ready(lambda url: told.set() if url == server.url else None)
    url = server.url
    thread = threading.Thread(target=lambda: server.run(sockets=[server.socket]), daemon=True)
    thread.start()
    assert told.wait(10)
    assert httpx.get(f"{url}/health").json()["status"] == "ok"
    server.stop()
    thread.join(10)
    assert not thread.is_alive()


def test_small_answers_are_not_held_back(running: Any) -> None:
    """asyncio sets TCP_NODELAY only on sockets that state their protocol; else each answer waits 40 ms."""
    assert running.server.socket.proto == socket.IPPROTO_TCP


def test_a_service_that_closes_ends_the_jobs_stream(serve: Any, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(300):
        (folder / f"{i}.txt").write_text(f"Note {i}.")
    running = serve()
    running.http.post("/api/knowledge", json={"name": "notes"})
    job = running.http.post("/api/knowledge/notes/paths", json={"paths": [str(folder)]}).json()["id"]
    with running.http.stream("GET", f"/api/jobs/{job}/events") as stream:
        lines = stream.iter_lines()
        next(line for line in lines if line.startswith("event: progress"))
        running.server.stop()
        kinds = [line for line in lines if line.startswith("event: ")]
    assert kinds[-1] == "event: error"
