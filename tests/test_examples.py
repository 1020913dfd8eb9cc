"""The examples do what they say."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ask_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bread.md").write_text("# Bread\n\nThe dough is proved for ninety minutes.\n", "utf-8")
    example("ask_documents").main(str(tmp_path), "How long is the dough proved?")
    out = capsys.readouterr().out
    assert "ninety minutes" in out
    assert "bread.md" in out


def test_complete(shared: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    example("complete").main(str(shared("data/models/stories260K.bin")), "Once upon a time")
    golden = shared("data/models/stories260K.greedy.txt").read_text("utf-8")
    out = capsys.readouterr().out.strip()
    assert len(out) > 60
    assert golden.strip().startswith(out)


def test_similar(capsys: pytest.CaptureFixture[str]) -> None:
    example("similar").main("rent of the flat", "The flat's rent is due.", "Tomatoes like sun.")
    first, second = capsys.readouterr().out.splitlines()
    assert "rent" in first
    assert float(first.split()[0]) > float(second.split()[0])


def test_prepare_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(60):
        text = f"Story {i}: " + " ".join(f"word{(i * j) % 97} and" for j in range(80))
        (tmp_path / f"{i}.txt").write_text(text, "utf-8")
    example("prepare_data").main(str(tmp_path), str(tmp_path / "out"))
    out = capsys.readouterr().out
    assert "bytes a token" in out
    assert "train: " in out
    assert "Story" in out


def test_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(60):
        text = f"Story {i}: " + " ".join(f"word{(i * j) % 97} and" for j in range(80))
        (tmp_path / f"{i}.txt").write_text(text, "utf-8")
    example("prepare_data").main(str(tmp_path), str(tmp_path / "out"))
    example("train").main(str(tmp_path / "out"), 0.1, "Story 7", hidden_size=32)
    out = capsys.readouterr().out
    assert "nats a token" in out
    assert "finished after" in out
    assert (tmp_path / "out" / "run" / "final" / "model.safetensors").exists()


def test_openai_client(
    shared: Callable[[str], Path],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import threading

    from quinze.server.run import LocalServer
    from quinze.service.service import Service
    from quinze.service.settings import Settings

    service = Service(home, Settings(port=0))
    service.models.add(shared("data/models/stories260K.bin"), "stories260K")
    ready = threading.Event()
    address: list[str] = []
    server = LocalServer(service, on_ready=lambda url: (address.append(url), ready.set())[-1])
    thread = threading.Thread(target=lambda: server.run(sockets=[server.socket]), daemon=True)
    thread.start()
    try:
        assert ready.wait(30)
        monkeypatch.setenv("OPENAI_BASE_URL", f"{address[0].rstrip('/')}/v1")
        example("openai_client").main("stories260K", "Once upon a time")
    finally:
        server.stop()
        thread.join(30)
        service.close()
    assert "there was a little girl" in capsys.readouterr().out
