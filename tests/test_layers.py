"""The house stays in order: imports go down, types are complete, the linter has nothing to say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_imports_go_down() -> None:
    """The contracts of pyproject.toml, checked on the package as it is imported here."""
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [("check", "."), ("format", "--check", ".")], ids=["lint", "format"])
def test_ruff_has_nothing_to_say(arguments: tuple[str, ...]) -> None:
    done = run("ruff", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_types_are_complete() -> None:
    done = run("mypy")
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_but_the_native_door_imports_the_extension() -> None:
    guilty = [
        path.relative_to(ROOT)
        for path in (ROOT / "src").rglob("*.py")
        if "quinze._C" in path.read_text("utf-8") and path.name != "native.py"
    ]
    assert guilty == []
