"""Peers for the tests of quantization: ggml's own encoders, and llama.cpp on the files that we write."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf
import numpy as np
import pytest
import xllamacpp

from quinze.formats.checkpoint import TensorType

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def _benchmark(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"quantization_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def llama_cpp() -> Callable[..., Any]:
    """`llama_cpp(path, context_length=..., threads=...)`: the file in llama.cpp."""
    make: Callable[..., Any] = _benchmark("llamacpp").LlamaCpp
    return make


@pytest.fixture(scope="session")
def tiny_f16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF of random float16 weights, 256 wide, so that every K format fits."""
    path = tmp_path_factory.mktemp("source") / "tiny.gguf"
    _benchmark("random_model").write(path, "tiny", "f16")
    return path


@pytest.fixture(scope="session")
def stories(shared: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained llama2.c model beside its tokenizer."""
    folder = tmp_path_factory.mktemp("stories")
    for name in ("stories260K.bin", "tok512.bin"):
        shutil.copy(shared(f"data/models/{name}"), folder)
    return folder / "stories260K.bin"


@pytest.fixture(scope="session")
def ggml_quantize() -> Callable[..., np.ndarray]:
    """ggml's reference encoder, through the library inside xllamacpp; `importance` (cols,) as it takes it."""
    library = ctypes.CDLL(str(next(Path(str(xllamacpp.__file__)).parent.glob("xllamacpp*.so"))))
    chunk = library.ggml_quantize_chunk
    chunk.restype = ctypes.c_size_t
    chunk.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3, ctypes.c_void_p]

    def encode(weights: np.ndarray, kind: TensorType, importance: np.ndarray | None = None) -> np.ndarray:
        data = np.zeros(kind.size(weights.shape), np.uint8)
        given = None if importance is None else importance.ctypes.data
        number = gguf.GGMLQuantizationType[kind.name]
        chunk(number, weights.ctypes.data, data.ctypes.data, 0, *weights.shape, given)
        return data

    return encode
