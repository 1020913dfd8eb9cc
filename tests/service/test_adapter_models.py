"""Adapters under names of their own: linked with their base, asked for by model+adapter, shown as models."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from quinze.errors import FileFormatError, InvalidRequestError, ModelNotFoundError
from quinze.models.save import save_model
from quinze.models.transformer import Transformer
from quinze.service.adapter_models import parted
from quinze.service.registry import Registry
from quinze.service.rooms import Rooms
from quinze.service.settings import Settings


def shipping() -> ModuleType:
    """shipping/conftest.py: a small chat model, and adapters of any size for it."""
    path = Path(__file__).resolve().parents[1] / "shipping" / "conftest.py"
    spec = importlib.util.spec_from_file_location("service_shipping", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    importlib.import_module("sys").modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `base`, and `bread` and `stone` for it."""
    peer, folder = shipping(), tmp_path_factory.mktemp("adapters")
    peer.write_tokenizer(folder / "words")
    model = Transformer(peer.CONFIG)
    model.initialize(15, std=0.2)
    weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    save_model(folder / "base", peer.CONFIG, weights, tokenizer=folder / "words", eos_ids=(2,))
    for seed, name in enumerate(("bread", "stone")):
        peer.write_tune(folder / name, folder / "base", 0.1, seed)
    return folder


@pytest.fixture
def registry(home: Path, made: Path) -> Iterator[Registry]:
    found = Registry(home, Settings(threads=1), Rooms())
    found.add(made / "base", "llama")
    yield found
    found.close()


def said(registry: Registry, name: str) -> str:
    with registry.use(name) as llm:
        return str(llm.complete("Once upon a time there was ", max_tokens=8, temperature=0).text)


def test_an_adapter_is_a_model_that_runs_on_its_base(registry: Registry, made: Path, home: Path) -> None:
    info = registry.add(made / "bread", base="llama")
    assert (info.name, info.base, info.format, info.can_chat) == ("bread", "llama", "adapter", True)
    assert info.parameters < registry.info("llama").parameters
    assert json.loads((home / "models.json").read_text())["bread"]["base"] == "llama"
    assert [one.name for one in registry.list()] == ["bread", "llama"]
    assert said(registry, "bread") != said(registry, "llama")


def test_model_plus_adapter_is_asked_for_without_a_link_of_its_own(registry: Registry, made: Path) -> None:
    for name in ("bread", "stone"):
        registry.add(made / name, base="llama")
    assert registry.require("llama+stone") == "llama+stone"
    assert said(registry, "llama+stone") == said(registry, "stone")
    assert said(registry, "llama+stone") != said(registry, "llama+bread")
    with pytest.raises(ModelNotFoundError):
        registry.require("llama+nothing")
    with pytest.raises(ModelNotFoundError):
        registry.require("+")


def test_all_share_one_model_in_memory(registry: Registry, made: Path) -> None:
    registry.add(made / "bread", base="llama")
    registry.add(made / "stone", base="llama")
    with registry.use("bread") as a, registry.use("stone") as b, registry.use("llama") as c:
        assert a._engine is b._engine is c._engine  # type: ignore[attr-defined]
        assert {a.name, b.name} == {"bread", "stone"}


def test_the_base_in_its_own_config_will_do(registry: Registry, made: Path) -> None:
    assert registry.add(made / "bread").base == "llama"


def test_an_adapter_without_a_base_says_what_to_do(registry: Registry, made: Path, tmp_path: Path) -> None:
    lost = tmp_path / "lost"
    lost.mkdir()
    for file in (made / "bread").iterdir():
        (lost / file.name).write_bytes(file.read_bytes())
    config = json.loads((lost / "adapter_config.json").read_text())
    (lost / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "some/hub"}))
    with pytest.raises(FileFormatError, match="--base MODEL"):
        registry.add(lost)
    assert registry.add(lost, base="llama").base == "llama"


def test_the_wrong_base_is_refused_when_it_is_linked(registry: Registry, made: Path, tmp_path: Path) -> None:
    peer = shipping()
    model = Transformer(peer.CONFIG)
    model.initialize(16, std=0.2)
    weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    save_model(tmp_path / "other", peer.CONFIG, weights, tokenizer=made / "words", eos_ids=(2,))
    registry.add(tmp_path / "other", "other")
    with pytest.raises(FileFormatError, match="trained on another base"):
        registry.add(made / "bread", base="other")
    assert registry.names() == ["llama", "other"]


def test_a_whole_model_has_no_base(registry: Registry, made: Path) -> None:
    with pytest.raises(InvalidRequestError, match="whole model"):
        registry.add(made / "base", "again", base="llama")


def test_a_base_that_is_gone_is_told(registry: Registry, made: Path) -> None:
    registry.add(made / "bread", base="llama")
    registry.remove("llama")
    assert "llama" in registry.info("bread").error


def test_both_parts_of_a_joined_name_must_be_known() -> None:
    assert parted("a+b", {"a", "b"}) == ("a", "b")
    assert parted("a+b+c", {"a", "b+c"}) == ("a", "b+c")
    assert parted("a+b", {"a"}) is None
    assert parted("a", {"a"}) is None
