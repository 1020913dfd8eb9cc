"""Settings: file over defaults, environment over file, every wrong value named with its source."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from quinze.api import Embedder
from quinze.embeddings.loading import load_embedder
from quinze.errors import InvalidRequestError
from quinze.knowledge.knowledge_base import KnowledgeBase
from quinze.rag import pipeline as rag
from quinze.service import settings
from quinze.service.settings import Settings, load_settings


def test_a_later_one_wins(home: Path) -> None:
    home.mkdir()
    (home / "settings.json").write_text('{"port": 1, "threads": 3, "allowed_hosts": ["a.local"]}')
    found = load_settings(
        home, {"QUINZE_PORT": "2", "QUINZE_ALLOWED_ORIGINS": "http://a:1, http://b:2", "PATH": "x"}
    )
    assert (found.port, found.threads) == (2, 3)
    assert found.allowed_hosts == ("a.local",)
    assert found.allowed_origins == ("http://a:1", "http://b:2")
    assert load_settings(home / "nowhere", {}) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 65_536),
        ("port", -1),
        ("body_timeout", 0),
        ("max_loaded_models", 0),
        ("port", "1515"),
        ("port", True),
        ("threads", 1.5),
        ("allowed_hosts", "a"),
        ("nothing", 1),
    ],
)
def test_a_wrong_value_in_the_file_is_named(home: Path, name: str, value: Any) -> None:
    home.mkdir()
    (home / "settings.json").write_text(json.dumps({name: value}))
    with pytest.raises(InvalidRequestError, match=name) as caught:
        load_settings(home, {})
    assert caught.value.param == name


@pytest.mark.parametrize("text", ["{", "[]", "\xff", '{"port": NaN}', "[" * 100_000])
def test_a_broken_file_is_named(home: Path, text: str) -> None:
    home.mkdir()
    (home / "settings.json").write_text(text, "latin-1")
    with pytest.raises(InvalidRequestError, match=r"settings\.json"):
        load_settings(home, {})


def test_a_wrong_variable_is_named() -> None:
    with pytest.raises(InvalidRequestError, match="QUINZE_PORT"):
        load_settings(Path("/nowhere"), {"QUINZE_PORT": "many"})


def test_every_setting_has_its_line_of_documentation() -> None:
    tree = ast.parse(inspect.getsource(settings))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef)).body
    documented = {
        ast.unparse(before.target)
        for before, after in itertools.pairwise(body)
        if isinstance(before, ast.AnnAssign)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
    }
    assert documented == {field.name for field in dataclasses.fields(Settings)}


def test_a_room_and_the_settings_share_their_defaults(home: Path, tmp_path: Path) -> None:
    """Python's own doors ask for what the faces ask for when nothing is said."""
    for door in (KnowledgeBase.search, KnowledgeBase.search_account, rag.answer, rag.stream_answer):
        assert inspect.signature(door).parameters["k"].default == Settings().search_results
    with KnowledgeBase.open(tmp_path / "notes", embedder=None, create=True) as base:
        assert base.embedder.id == Embedder().id == load_embedder(Settings().embedder).id
