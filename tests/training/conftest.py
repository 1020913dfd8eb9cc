"""Models for the tests of training: those of every family that the engine's tests make."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

# Matrices of 64 numbers: on a busy machine a second thread is waited for longer than it computes.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def families() -> ModuleType:
    """engine/peer_families.py: random models of every family by transformers, and their GGUF files."""
    path = Path(__file__).resolve().parents[1] / "engine" / "peer_families.py"
    spec = importlib.util.spec_from_file_location("training_peer_families", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
