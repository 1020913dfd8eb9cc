"""From hf.co/ORG/NAME:QUANT to a model that appears under its name, whole; over HTTP too."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from quinze.cli.main import run
from quinze.errors import (
    BusyError,
    ConflictError,
    HubError,
    InvalidRequestError,
    NotFoundError,
    StorageError,
)
from quinze.hub.hub import Hub
from quinze.hub.part import RemoteFile
from quinze.server.run import LocalServer
from quinze.service import pulls
from quinze.service.pulls import PullProgress, choose, pull, read_reference
from quinze.service.service import Service
from quinze.service.settings import Settings

SHA = "0" * 64


def files(*names: str) -> list[RemoteFile]:
    return [RemoteFile(name, 1000, SHA, f"https://hub.example/{name}") for name in names]


def chosen(reference: str, *names: str) -> list[str]:
    return [file.path for file in choose(read_reference(reference), files(*names)).files]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf.co/org/name", ("huggingface", "org/name", "")),
        ("org/Name-1.5B:q4_k_m", ("huggingface", "org/Name-1.5B", "q4_k_m")),
        ("https://huggingface.co/org/name/", ("huggingface", "org/name", "")),
        ("modelscope.cn/org/name:Q8_0", ("modelscope", "org/name", "Q8_0")),
        ("https://www.modelscope.cn/models/org/name", ("modelscope", "org/name", "")),
        ("hf.co/org/name:model-Q4_0.gguf", ("huggingface", "org/name", "model-Q4_0.gguf")),
    ],
)
def test_a_reference_is_read(text: str, expected: tuple[str, str, str]) -> None:
    found = read_reference(text)
    assert (found.kind, found.repository, found.quant) == expected


@pytest.mark.parametrize(
    "text",
    ["", "name", "hf.co/name", "a/b/c", "../../etc", "a/..", "evil.com/a/b", "a/b:../x", "a/b?x", "a b/c",
     "file:///etc/passwd", "http://127.0.0.1/a/b"],
)  # fmt: skip
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        read_reference(text)


NAMES = ("m-Q2_K.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf", "m-f16.gguf", "mmproj-f16.gguf", "m.imatrix.gguf")


@pytest.mark.parametrize(
    ("quant", "expected"),
    [("", "m-Q4_K_M.gguf"), (":q8_0", "m-Q8_0.gguf"), (":Q2_K", "m-Q2_K.gguf"), (":fp16", "m-f16.gguf"),
     (":q4_k", "m-Q4_K_M.gguf"), (":m-Q8_0.gguf", "m-Q8_0.gguf"), (":m-Q8_0", "m-Q8_0.gguf")],
)  # fmt: skip
def test_the_file_of_the_asked_quant_is_chosen(quant: str, expected: str) -> None:
    assert chosen(f"a/b{quant}", "README.md", *NAMES) == [expected]


def test_where_the_usual_quant_is_missing_the_nearest_is_taken() -> None:
    assert chosen("a/b", "m-Q2_K.gguf", "m-Q6_K.gguf", "m-Q8_0.gguf") == ["m-Q6_K.gguf"]


def test_a_quant_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(NotFoundError) as raised:
        chosen("a/b:Q5_0", *NAMES)
    assert "Q4_K_M" in raised.value.hint


def test_several_models_of_one_quant_are_told_apart() -> None:
    with pytest.raises(InvalidRequestError, match="2 models"):
        chosen("a/b:q8_0", "one-Q8_0.gguf", "two-Q8_0.gguf")
    assert chosen("a/b:two-Q8_0.gguf", "one-Q8_0.gguf", "two-Q8_0.gguf") == ["two-Q8_0.gguf"]


def test_all_parts_are_taken_and_a_missing_one_is_noticed() -> None:
    parts = [f"Q4_K_M/m-Q4_K_M-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    assert chosen("a/b", *reversed(parts)) == parts
    with pytest.raises(NotFoundError, match="not whole"):
        chosen("a/b", parts[0], parts[2])


def test_a_folder_of_safetensors_is_taken_without_pickles_and_code() -> None:
    there = ("config.json", "tokenizer.json", "model-00001-of-00002.safetensors", "pytorch_model.bin",
             "model-00002-of-00002.safetensors", "model.safetensors.index.json", "modeling_x.py",
             "consolidated.safetensors", "onnx/model.onnx", "tokenizer_config.json")  # fmt: skip
    found = chosen("a/b", *there)
    assert set(found) == {there[0], there[1], there[2], there[4], there[5], there[9]}


def test_a_repository_of_pickles_alone_is_refused_with_the_reason() -> None:
    with pytest.raises(NotFoundError, match="only pickles") as raised:
        chosen("a/b", "config.json", "pytorch_model.bin")
    assert "author's code" in raised.value.hint


def reference() -> pulls.Reference:
    return read_reference("org/name")


def test_a_model_appears_whole_with_speed_and_time_told(fake: Any, hub: Hub, home: Path) -> None:
    fake.files = {"m-Q4_K_M.gguf": b"x" * 900_000, "m-Q8_0.gguf": b"y"}
    fake.tricks = [fake.trickling(5, 0.12)]
    told: list[PullProgress] = []
    done = pull(home, hub, reference(), progress=told.append)
    assert done is not None
    assert (done.name, done.quantization, done.verified, done.already) == ("m-Q4_K_M", "Q4_K_M", 1, False)
    assert (home / "models" / "m-Q4_K_M.gguf").read_bytes() == b"x" * 900_000
    assert {path.name for path in (home / "models").iterdir()} == {".incoming", "m-Q4_K_M.gguf"}
    assert list((home / "models" / ".incoming").iterdir()) == []
    assert (told[-1].done, told[-1].total) == (900_000, 900_000)
    assert any(event.bytes_per_second > 0 and event.seconds_left is not None for event in told)


def test_a_second_pull_finds_it_and_another_model_of_that_name_is_not_replaced(
    fake: Any, hub: Hub, home: Path
) -> None:
    fake.files = {"m-Q4_K_M.gguf": b"x" * 900}
    assert pull(home, hub, reference()) is not None
    again = pull(home, hub, reference())
    assert again is not None
    assert again.already
    fake.files = {"m-Q4_K_M.gguf": b"other"}
    with pytest.raises(ConflictError, match="another model"):
        pull(home, hub, reference())
    named = pull(home, hub, reference(), name="second")
    assert named is not None
    assert (home / "models" / "second.gguf").read_bytes() == b"other"


def test_nothing_appears_before_all_of_it_is_here_and_the_rest_comes_later(
    fake: Any, hub: Hub, home: Path
) -> None:
    fake.files = {f"m-Q4_0-0000{i}-of-00003.gguf": bytes([i]) * 300_000 for i in (1, 2, 3)}
    fake.tricks = [lambda *_: False, fake.dropping(1000), *[fake.refusing(500)] * 9]
    with pytest.raises(HubError):
        pull(home, hub, reference())
    assert [path.name for path in (home / "models").iterdir() if not path.name.startswith(".")] == []
    fake.tricks, fake.requests = [], []
    done = pull(home, hub, reference())
    assert done is not None
    assert sorted(path.name for path in Path(done.path).iterdir()) == sorted(fake.files)
    assert [headers.get("range") for headers in fake.file_requests()] == ["bytes=1000-", None]


def test_a_cancelled_pull_returns_none_and_goes_on_later(fake: Any, home: Path) -> None:
    hub = Hub("huggingface", fake.url, idle_timeout=30)
    fake.files = {"m-Q4_0.gguf": b"z" * 800_000}
    fake.tricks = [fake.stalling(200_000)]
    stop = threading.Event()
    threading.Timer(0.4, stop.set).start()
    assert pull(home, hub, reference(), cancel=stop) is None
    assert pull(home, hub, reference()) is not None
    assert fake.file_requests()[-1]["range"] == "bytes=200000-"


def test_a_disk_that_is_too_small_is_noticed_before_anything_comes(
    fake: Any, hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.files = {"m-Q4_0.gguf": b"z" * 800_000}
    usage = shutil.disk_usage(Path("/"))._replace(free=10_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match=r"0\.01 GB free"):
        pull(home, hub, reference())
    assert fake.file_requests() == []


def test_the_same_model_is_pulled_once_at_a_time(fake: Any, hub: Hub, home: Path) -> None:
    fake.files = {"m-Q4_0.gguf": b"z" * 800_000}
    fake.tricks = [fake.trickling(4, 0.2)]
    inside = threading.Event()
    told = {"progress": lambda _: inside.set()}
    first = threading.Thread(target=pull, args=(home, hub, reference()), kwargs=told)
    first.start()
    assert inside.wait(10)
    with pytest.raises(BusyError):
        pull(home, hub, reference())
    first.join()
    assert (home / "models" / "m-Q4_0.gguf").exists()


@pytest.mark.parametrize(
    "name", ["../../evil-Q4_0.gguf", "x/\n-Q4_0.gguf", "..\\evil-Q4_0.gguf", ".evil-Q4_0.gguf"]
)
def test_a_hub_cannot_choose_where_a_file_lies(fake: Any, hub: Hub, home: Path, name: str) -> None:
    fake.files = {name: b"x"}
    with contextlib.suppress(InvalidRequestError, HubError, NotFoundError):
        pull(home, hub, reference())
    there = [path for path in home.parent.rglob("*evil*") if home / "models" not in path.parents]
    assert there == []


def test_the_command_pulls_and_ls_shows_it(fake: Any, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake.files = {"m-Q4_0.gguf": b"GGUF, but not really"}
    assert run(["pull", "hf.co/org/name", "--mirror", fake.url, "--json"]) == 0
    out = capsys.readouterr()
    assert json.loads(out.out)["name"] == "m-Q4_0"
    progress = [json.loads(line)["progress"] for line in out.err.splitlines()]
    assert progress[-1]["done"] == progress[-1]["total"] == 20
    assert run(["ls"]) == 0
    assert "m-Q4_0" in capsys.readouterr().out


def test_the_command_takes_its_mirror_from_setting_and_environment_and_sends_it_no_token(
    fake: Any, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.files = {"m-Q4_0.gguf": b"1"}
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("QUINZE_HUB_MIRROR", fake.url)
    assert run(["pull", "org/name"]) == 0
    assert "not sent" in capsys.readouterr().err
    assert not any("authorization" in headers for _, headers in fake.requests)
    monkeypatch.delenv("QUINZE_HUB_MIRROR")
    monkeypatch.setenv("HF_ENDPOINT", fake.url)
    assert run(["pull", "org/name", "--name", "two"]) == 0


def test_over_http_a_pull_is_watched_as_it_comes(fake: Any, home: Path) -> None:
    fake.files = {"m-Q4_0.gguf": b"x" * 500_000}
    fake.tricks = [fake.trickling(3, 0.25)]
    service = Service(home, Settings(port=0, hub_mirror=fake.url))
    server = LocalServer(service)
    thread = threading.Thread(target=lambda: server.run(sockets=[server.socket]), daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.02)
    try:
        with httpx.Client(base_url=server.url, timeout=30) as http:
            answer = http.post("/api/pull", json={"model": "org/name"})
            events = [line.removeprefix("event: ") for line in answer.text.splitlines() if "event:" in line]
            assert answer.status_code == 200
            assert events[-1] == "pulled"
            assert "progress" in events
            assert http.get("/api/models").json()["models"][0]["name"] == "m-Q4_0"
            refused = http.post("/api/pull", json={"model": "not a name"})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "model")
            fake.list_tricks = [fake.refusing(404)]
            assert http.post("/api/pull", json={"model": "org/name"}).status_code == 404
    finally:
        server.stop()
        thread.join(20)
        service.close()
