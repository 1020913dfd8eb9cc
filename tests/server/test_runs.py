"""/api/runs over HTTP: lists, live events that can be taken up again, steering, and what is refused."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from quinze.training.control import holding, wanted
from quinze.training.doctor.words import finding
from quinze.training.events import RunEnd, StepReport, TrainingEvent


def step(number: int) -> StepReport:
    return StepReport(
        step=number, tokens=100 * number, epoch=0.1, seconds=float(number), loss=4.0, learning_rate=1.0,
        grad_norm=1.0, tokens_per_second=100.0, progress=number / 10, eta_seconds=10.0 - number,
    )  # fmt: skip


END = RunEnd(reason="finished", step=3, seconds=3.0, best_step=3, best_loss=2.0, model=None)


def write(folder: Path, *events: TrainingEvent) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.toml").write_text('method = "pretrain"\n[data]\nfolder = "/data"\n')
    with (folder / "metrics.jsonl").open("ab") as file:
        file.writelines(msgspec.json.encode(event) + b"\n" for event in events)
    return folder


@pytest.fixture
def http(serve: Callable[..., Any]) -> httpx.Client:
    client: httpx.Client = serve().http
    return client


@pytest.fixture
def folder(home: Path) -> Path:
    return write(home / "runs" / "one", finding("B5.short", "warning", steps=12, batch=80), step(1), step(2))


def events(http: httpx.Client, path: str, after: int | None = None) -> Iterator[tuple[str, str, Any]]:
    """(name, id, data) of each."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    with http.stream("GET", path, headers=headers, timeout=30) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        for line in response.iter_lines():
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                yield fields["event"], fields.get("id", ""), json.loads(fields["data"])
                fields = {}


def test_a_run_is_listed_and_shown_in_the_language_asked_for(http: httpx.Client, folder: Path) -> None:
    (listed,) = http.get("/api/runs").json()["runs"]
    assert (listed["name"], listed["state"], listed["step"]) == ("one", "interrupted", 2)
    shown = http.get("/api/runs/one", params={"language": "zh"}).json()
    assert shown["path"] == str(folder)
    assert "优化" in shown["findings"][0]["verdict"]
    assert shown["config"]["data"]["folder"] == "/data"
    refused = http.get("/api/runs/one", params={"language": "xx"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "language")


def test_events_come_as_they_are_written_until_the_run_is_over(http: httpx.Client, folder: Path) -> None:
    with contextlib.ExitStack() as alive:
        alive.enter_context(holding(folder))
        coming = events(http, "/api/runs/one/events?language=zh")
        told = [next(coming) for _ in range(4)]
        assert [(name, number) for name, number, _ in told] == [
            ("finding", "1"), ("step", "2"), ("step", "3"), ("state", ""),
        ]  # fmt: skip
        assert "优化" in told[0][2]["verdict"]
        assert told[3][2]["state"] == "running"
        write(folder, step(3))
        assert next(coming)[1:] == ("4", {"type": "step", **msgspec.to_builtins(step(3))})
        http.post("/api/runs/one/pause")
        assert next(coming)[2]["state"] == "paused"
        write(folder, END)
        assert next(coming)[0] == "end"
    name, _, run = next(coming)
    assert (name, run["state"]) == ("over", "finished")
    assert list(coming) == []


def test_a_listener_that_comes_back_is_told_what_is_new(http: httpx.Client, folder: Path) -> None:
    told = [(name, number) for name, number, _ in events(http, "/api/runs/one/events", after=2)]
    assert told == [("step", "3"), ("over", "")]
    told = [(name, number) for name, number, _ in events(http, "/api/runs/one/events", after=99)]
    assert [name for name, _ in told] == ["restart", "finding", "step", "step", "over"]


def test_a_run_taken_from_the_list_ends_its_streams(http: httpx.Client, home: Path, folder: Path) -> None:
    with holding(folder):
        coming = events(http, "/api/runs/one/events?steps=1")
        while next(coming)[0] != "state":
            pass
        (home / "runs.json").write_text('{"folders": {}, "hidden": ["one"]}')
        name, _, body = next(coming)
        assert (name, body["error"]["code"]) == ("error", "run_not_found")


def test_a_run_is_steered(http: httpx.Client, folder: Path) -> None:
    with holding(folder):
        for verb, state in (("pause", "paused"), ("resume", "running"), ("stop", "running")):
            answer = http.post(f"/api/runs/one/{verb}")
            assert (answer.status_code, answer.json()["state"]) == (202, state)
            assert wanted(folder) == verb
        assert http.delete("/api/runs/one").status_code == 409
    assert http.post("/api/runs/one/stop").status_code == 409
    assert http.delete("/api/runs/one").status_code == 204
    assert http.get("/api/runs/one").status_code == 404
    assert folder.is_dir()


def test_a_folder_is_added(http: httpx.Client, tmp_path: Path) -> None:
    far = write(tmp_path / "far", END)
    added = http.post("/api/runs/folders", json={"path": str(far), "name": "mine"})
    assert (added.status_code, added.json()["name"], added.json()["state"]) == (201, "mine", "finished")


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("", {"method": "pretrain", "config": {"data": {"folder": "relative"}}}, 400, "data.folder"),
        ("", {"method": "pretrain", "config": {"data": {"folder": "/no/such"}}}, 400, "data.folder"),
        ("", {"method": "pretrain", "config": {"data": {"folder": "/a\x00b"}}}, 400, "data.folder"),
        ("", {"method": "pretrain", "config": {"data": {"folder": "/" + "x" * 5000}}}, 400, "data.folder"),
        ("", {"method": "pretrain", "config": {"data": {"folder": "/", "x": 1}}}, 400, "data.x"),
        ("", {"method": "pretrain", "config": {"data": 5}}, 400, None),
        ("", {"method": "guess", "config": {}}, 400, "method"),
        ("", {"method": "pretrain", "config": {"data": {"folder": "/"}}, "name": "../x"}, 400, "name"),
        ("/folders", {"path": "relative"}, 400, "path"),
        ("/folders", {"path": "/no/such"}, 404, "path"),
        ("/%2e%2e/pause", {}, 404, None),
        ("/..%2Fone/stop", {}, 405, None),
    ],
)
def test_what_cannot_be_is_refused(
    http: httpx.Client, home: Path, path: str, body: Any, status: int, param: str | None
) -> None:
    answer = http.post(f"/api/runs{path}", json=body)
    assert answer.status_code == status, answer.text
    if param is not None:
        assert answer.json()["error"]["param"] == param
    assert not (home / "runs").exists()


def test_listeners_do_not_keep_others_waiting(http: httpx.Client, folder: Path) -> None:
    """Twenty streams of a run that says nothing, and the service answers all the same."""
    with holding(folder):
        leave = threading.Event()

        def listen() -> None:
            for _ in events(http, "/api/runs/one/events"):
                if leave.is_set():
                    return

        threads = [threading.Thread(target=listen, daemon=True) for _ in range(20)]
        for thread in threads:
            thread.start()
        assert http.get("/health", timeout=10).status_code == 200
        leave.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
