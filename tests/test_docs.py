"""The documentation is true: generated parts are fresh, links lead somewhere, nothing is left out."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from quinze.cli.reference import commands
from quinze.errors import QuinzeError
from quinze.service.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*.md"))]
REFERENCE = ROOT / "docs" / "reference"


def test_generated_parts_are_fresh() -> None:
    written = [str(page) for page in PAGES if "[[[cog" in page.read_text("utf-8")]
    assert written
    done = subprocess.run(
        [sys.executable, "-m", "cogapp", "--check", *written], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", page.read_text("utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_command_and_option_is_in_the_reference() -> None:
    page = (REFERENCE / "cli.md").read_text("utf-8")
    for context in commands():
        assert f"## `{context.command_path}`" in page
        for parameter in context.command.params:
            for name in parameter.opts:
                assert name.upper() in page.upper(), f"{context.command_path} {name}"


def test_every_setting_is_in_the_reference() -> None:
    page = (REFERENCE / "settings.md").read_text("utf-8")
    assert [field.name for field in fields(Settings) if f"`{field.name}`" not in page] == []


def test_every_error_is_in_the_reference() -> None:
    page = (REFERENCE / "errors.md").read_text("utf-8")

    def below(kind: type[QuinzeError]) -> list[type[QuinzeError]]:
        return [kind, *(found for child in kind.__subclasses__() for found in below(child))]

    ours = [kind for kind in below(QuinzeError) if kind.__module__.startswith("quinze.")]
    assert len(ours) > 10
    assert [kind.__name__ for kind in ours if f"`{kind.__name__}`" not in page] == []


def test_every_route_is_in_the_reference() -> None:
    from quinze.server.routes import routes

    page = (REFERENCE / "http.md").read_text("utf-8")
    paths = {route.path for route in routes() if route.path.startswith(("/api", "/v1", "/health"))}
    assert len(paths) > 15
    plain = {re.sub(r":\w+\}", "}", path) for path in paths}
    assert sorted(path for path in plain if path not in page) == []


def test_english_and_chinese_pages_stand_side_by_side() -> None:
    guides = {page.name for page in (ROOT / "docs" / "guides").glob("*.md")}
    assert guides
    assert guides <= {page.name for page in (ROOT / "docs" / "zh" / "guides").glob("*.md")}
