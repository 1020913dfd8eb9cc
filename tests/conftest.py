"""What every test may ask for: a home of its own, and the shared third-party data."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent

# In CI the same cases every time: a red run can be repeated. At home hypothesis goes on looking for new ones.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("repeatable")


def shared_folder() -> Path:
    return (ROOT / os.environ.get("QUINZE_SHARED", "../shared")).resolve()


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """`shared("data/models/stories260K.bin")`: a file of the shared data, or a skip that says what is
    missing."""

    def find(relative: str) -> Path:
        path = shared_folder() / relative
        if not path.exists():
            pytest.skip(f"{relative} is not in QUINZE_SHARED ({shared_folder()})")
        return path

    return find


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A QUINZE_HOME that belongs to this test alone."""
    folder = tmp_path / "home"
    monkeypatch.setenv("QUINZE_HOME", str(folder))
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(15)
