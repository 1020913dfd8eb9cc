"""Models by name: links that survive, files that appear by themselves, reasons for what cannot be used."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from quinze.errors import (
    ConflictError,
    FileFormatError,
    InvalidRequestError,
    ModelNotFoundError,
    QuinzeError,
    StorageError,
)
from quinze.service.registry import Registry
from quinze.service.rooms import Rooms
from quinze.service.settings import Settings


class FakeLLM:
    device = "cpu"

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


class FakeRooms(Rooms):
    """Models whose file holds "chat" can chat, "plain" cannot; everything else is broken."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[Path] = []
        self.looks = 0

    def load_llm(self, path: Path, **_: Any) -> Any:
        self.loads.append(path)
        return FakeLLM()

    def describe_model(self, path: Path) -> dict[str, Any]:
        self.looks += 1
        text = (path / "config.json" if path.is_dir() else path).read_text()
        if text not in {"chat", "plain"}:
            raise FileFormatError(f"{path.name} is not a model.")
        return {"format": "gguf", "can_chat": text == "chat"}


@pytest.fixture
def rooms() -> FakeRooms:
    return FakeRooms()


@pytest.fixture
def registry(home: Path, rooms: FakeRooms) -> Registry:
    return Registry(home, Settings(), rooms)


def model(folder: Path, name: str, text: str = "plain") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def test_a_link_survives_and_nothing_is_copied(registry: Registry, home: Path, tmp_path: Path) -> None:
    path = model(tmp_path, "tiny.gguf")
    assert registry.add(path).name == "tiny"
    assert registry.add(path, "另一个").name == "另一个"
    again = Registry(home, Settings(), FakeRooms())
    assert again.names() == ["tiny", "另一个"]
    assert again.info("tiny").path == str(path)
    assert sorted(found.name for found in home.rglob("*")) == [".models.json.lock", "models.json"]
    assert json.loads((home / "models.json").read_text())["tiny"] == {"path": str(path)}


def test_models_in_the_models_folder_appear_by_themselves(registry: Registry, home: Path) -> None:
    model(home / "models", "one.gguf")
    model(home / "models" / "two", "config.json", "chat")
    model(home / "models", "notes.txt")
    model(home / "models", ".hidden.gguf")
    assert [(info.name, info.can_chat) for info in registry.list()] == [("one", False), ("two", True)]


def test_a_model_in_parts_is_one_model_by_whichever_part_it_is_named(
    registry: Registry, home: Path, tmp_path: Path
) -> None:
    for folder in (home / "models", tmp_path / "elsewhere"):
        for i in (1, 2, 3):
            model(folder, f"big-{i:05}-of-00003.gguf")
    assert registry.names() == ["big"]
    added = registry.add(tmp_path / "elsewhere" / "big-00002-of-00003.gguf", "other")
    assert added.path.endswith("elsewhere/big-00001-of-00003.gguf")
    assert registry.info(tmp_path / "elsewhere" / "big-00003-of-00003.gguf").name == "other"


def test_a_broken_model_is_listed_with_its_reason(registry: Registry, home: Path) -> None:
    model(home / "models", "bad.gguf", "???")
    assert registry.info("bad").error == "bad.gguf is not a model."


def test_a_model_that_has_gone_says_so(registry: Registry, tmp_path: Path) -> None:
    path = model(tmp_path, "tiny.gguf")
    registry.add(path)
    path.unlink()
    assert "no longer there" in registry.info("tiny").error


def test_a_header_is_read_once_and_again_when_the_file_changes(
    registry: Registry, rooms: FakeRooms, home: Path
) -> None:
    path = model(home / "models", "one.gguf")
    registry.list()
    registry.list()
    assert rooms.looks == 1
    path.write_text("chat")
    assert registry.info("one").can_chat
    assert rooms.looks == 2


@pytest.mark.parametrize(
    ("given", "error"),
    [("nowhere.gguf", ModelNotFoundError), ("bad.gguf", FileFormatError), ("a\x00b", InvalidRequestError)],
)
def test_what_is_no_model_is_not_linked(
    registry: Registry, tmp_path: Path, given: str, error: type[QuinzeError]
) -> None:
    model(tmp_path, "bad.gguf", "???")
    with pytest.raises(error):
        registry.add(tmp_path / given)
    assert registry.names() == []


def test_a_name_is_not_taken_twice(registry: Registry, tmp_path: Path) -> None:
    registry.add(model(tmp_path, "a.gguf"), "x")
    registry.add(tmp_path / "a.gguf", "x")
    with pytest.raises(ConflictError):
        registry.add(model(tmp_path, "b.gguf"), "x")


def test_two_programs_that_link_at_once_lose_no_link(registry: Registry, home: Path, tmp_path: Path) -> None:
    """A second process keeps linking while this one does; both find all links in the end."""
    path = model(tmp_path, "a.gguf")
    program = (
        "import sys; from pathlib import Path; from quinze.service.registry import Registry;"
        "from quinze.service.rooms import Rooms; from quinze.service.settings import Settings;"
        "Rooms.describe_model = lambda self, path: {'format': 'gguf'};"
        "registry = Registry(Path(sys.argv[1]), Settings(), Rooms());"
        "print('ready', flush=True);"
        "[registry.add(sys.argv[2], f'other{i}') for i in range(40)]"
    )
    command = [sys.executable, "-c", program, str(home), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        for i in range(40):
            registry.add(path, f"mine{i}")
        assert other.wait(60) == 0
    assert len(registry.names()) == 80


def test_removing_forgets_the_link_and_leaves_the_file(registry: Registry, tmp_path: Path) -> None:
    path = model(tmp_path, "a.gguf")
    registry.add(path)
    registry.remove("a")
    assert registry.names() == []
    assert path.exists()
    with pytest.raises(ModelNotFoundError):
        registry.remove("a")


def test_what_was_packed_of_a_model_is_told_and_goes_with_its_name(
    registry: Registry, tmp_path: Path
) -> None:
    path = model(tmp_path, "a.gguf")
    registry.add(path)
    assert registry.info("a").packed_bytes == 0
    packed = path.with_name(".a.gguf.packed")
    packed.write_bytes(bytes(100))
    assert registry.info("a").packed_bytes == 100
    assert registry.names() == ["a"]
    registry.remove("a")
    assert path.exists()
    assert not packed.exists()


def test_a_file_of_the_models_folder_is_never_deleted(registry: Registry, home: Path) -> None:
    path = model(home / "models", "one.gguf")
    with pytest.raises(ConflictError, match="is no link"):
        registry.remove("one")
    assert path.exists()


def test_the_default_prefers_what_can_chat(registry: Registry, home: Path, rooms: FakeRooms) -> None:
    assert registry.default() is None
    model(home / "models", "a-bad.gguf", "???")
    model(home / "models", "b-plain.gguf")
    assert registry.default() == "b-plain"
    model(home / "models", "c-chat.gguf", "chat")
    assert registry.default() == "c-chat"
    assert Registry(home, Settings(default_model="b-plain"), rooms).default() == "b-plain"


def test_a_default_that_is_a_path_gets_a_name(home: Path, rooms: FakeRooms, tmp_path: Path) -> None:
    registry = Registry(home, Settings(default_model=str(model(tmp_path, "mine.gguf"))), rooms)
    assert registry.names() == ["mine"]
    assert registry.default() == "mine"


def test_over_a_wire_only_names_are_models(registry: Registry, home: Path, tmp_path: Path) -> None:
    model(home / "models", "one.gguf")
    assert registry.require("one") == "one"
    with pytest.raises(ModelNotFoundError):
        registry.require(str(model(tmp_path, "other.gguf")))


def test_a_path_can_be_used_without_a_link(registry: Registry, rooms: FakeRooms, tmp_path: Path) -> None:
    path = model(tmp_path, "a.gguf")
    for given in (path, str(path)):
        with registry.use(given):
            pass
    assert rooms.loads == [path]


@pytest.mark.parametrize(
    "name", ["", "unknown", "../unknown", "x" * 5000, "/nowhere" * 900, "a\x00b", "~nobody-here/x"]
)
def test_an_unknown_model_is_not_found(registry: Registry, name: str) -> None:
    with pytest.raises((ModelNotFoundError, InvalidRequestError)), registry.use(name):
        pass


def test_a_word_is_not_taken_for_a_path(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of the same name in the current directory is not what was meant by a name."""
    (tmp_path / "word").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError):
        registry.path_of("word")


def test_a_models_file_that_is_broken_is_named(registry: Registry, home: Path) -> None:
    home.mkdir()
    (home / "models.json").write_text("{")
    with pytest.raises(StorageError, match=r"models\.json"):
        registry.names()


def test_loaded_models_are_told(registry: Registry, home: Path) -> None:
    model(home / "models", "one.gguf")
    with registry.use("one") as llm:
        assert registry.loaded() == ["one"]
        assert registry.info("one").loaded
    registry.close()
    assert llm.closed  # type: ignore[attr-defined]
    assert registry.loaded() == []


def test_two_links_written_at_once_are_both_kept(registry: Registry, tmp_path: Path) -> None:
    paths = [model(tmp_path, f"m{i}.gguf") for i in range(8)]
    threads = [threading.Thread(target=registry.add, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert registry.names() == sorted(path.stem for path in paths)
