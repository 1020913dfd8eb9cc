"""Models for the engine's tests: one with a known answer, and random ones by transformers and in GGUF."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from quinze import native
from quinze.models.weights import Model, load_model

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def need_kernels(name: str) -> None:
    if name == "avx2" and not native.cpu_has_avx2():
        pytest.skip("this CPU has no AVX2")


def _benchmark(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    importlib.import_module("sys").modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["scalar", "avx2"])
def kernels(request: pytest.FixtureRequest) -> str:
    need_kernels(request.param)
    return str(request.param)


@pytest.fixture(scope="session")
def stories(shared: Callable[[str], Path]) -> Model:
    """260K trained parameters in float32."""
    return load_model(shared("data/models/stories260K.bin"))


@pytest.fixture(scope="session")
def greedy_ids(shared: Callable[[str], Path]) -> list[int]:
    """The 256 ids that follow BOS, by an independent implementation in numpy."""
    return list(json.loads(shared("data/models/stories260K.greedy.ids.json").read_text()))


@pytest.fixture(scope="session")
def random_gguf(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`random_gguf("q8_0")`: a tiny model of random weights, written by the gguf package."""
    folder, module = tmp_path_factory.mktemp("gguf"), _benchmark("random_model")

    def make(kind: str) -> Path:
        path = folder / f"tiny-{kind}.gguf"
        if not path.exists():
            module.write(path, "tiny", kind)
        return path

    return make


@pytest.fixture(scope="session")
def llama_cpp() -> Callable[..., Any]:
    """`llama_cpp(path, context_length=..., threads=...)`: the file in llama.cpp."""
    make: Callable[..., Any] = _benchmark("llamacpp").LlamaCpp
    return make


@pytest.fixture(scope="session")
def transformers_llama(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Any, Path]]:
    """`transformers_llama(**config)`: a LlamaForCausalLM with random weights, and the folder it lies in."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    def make(**changes: Any) -> tuple[Any, Path]:
        numbers: dict[str, Any] = {
            "vocab_size": 300,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "initializer_range": 0.2,
        }
        torch.manual_seed(15)
        model = LlamaForCausalLM(LlamaConfig(**(numbers | changes))).eval()
        folder = tmp_path_factory.mktemp("llama")
        model.save_pretrained(folder)
        return model, folder

    return make


@pytest.fixture(scope="session")
def families() -> ModuleType:
    """peer_families.py: models of every family, by transformers and in GGUF."""
    path = Path(__file__).with_name("peer_families.py")
    spec = importlib.util.spec_from_file_location("peer_families", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
