"""The forecast of memory is held to what a process really takes, and the count of parameters to the file."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from quinze.engine import fit
from quinze.engine.profile import Profile, Rates, is_of, measure, processor
from quinze.formats.checkpoint import TensorType
from quinze.models.weights import Model, load_model

TOLERANCE = 0.05
"""Of the measured growth."""

MEASURE = """
import json, sys
from pathlib import Path
import numpy as np
from quinze.engine.engine import Engine
from quinze.engine.sampling import SamplingParams
from quinze.models.weights import load_model

def resident():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))

def use(path, context):
    model = load_model(Path(path))
    engine = Engine(model, threads=2)
    ids = np.random.default_rng(1).integers(0, model.config.vocab_size, context - 4).tolist()
    with engine.generate(ids, SamplingParams(max_tokens=4)) as generation:
        assert len(list(generation)) == 4
    return model, engine

small = use(sys.argv[1], 16)  # what Python and its libraries take is there before we count
before = resident()
large = use(sys.argv[2], int(sys.argv[3]))
print(json.dumps(resident() - before))
"""


@pytest.fixture(scope="module")
def shapes() -> ModuleType:
    """benchmarks/random_model.py"""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "random_model.py"
    spec = importlib.util.spec_from_file_location("random_model_for_fit", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    # layers, hidden, heads, kv_heads, intermediate, vocabulary
    module.SHAPES["deep"] = module.Shape(24, 384, 6, 2, 1024, 8192, 10000.0, 4096)
    module.SHAPES["wide"] = module.Shape(4, 1024, 16, 16, 4096, 16384, 10000.0, 4096)
    module.SHAPES["wordy"] = module.Shape(6, 512, 8, 4, 1536, 65536, 10000.0, 4096)
    return module


@pytest.fixture(scope="module")
def made(shapes: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    folder = tmp_path_factory.mktemp("fit")

    def make(shape: str, kind: str) -> Path:
        path = folder / f"{shape}-{kind}.gguf"
        if not path.exists():
            shapes.write(path, shape, kind)
        return path

    return make


@pytest.mark.parametrize(
    ("shape", "kind", "context"),
    [("deep", "q8_0", 512), ("deep", "f16", 2048), ("wide", "q4_0", 300), ("wide", "q8_0", 1500),
     ("wordy", "q4_k_m", 1024), ("wordy", "q8_0", 128)],
)  # fmt: skip
def test_the_memory_that_is_told_is_the_memory_that_is_taken(
    made: Callable[[str, str], Path], shape: str, kind: str, context: int
) -> None:
    path = made(shape, kind)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(made("tiny", "q8_0")), str(path), str(context)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    grown = json.loads(done.stdout)
    told = fit.memory(load_model(path), context, 2).total
    assert 15e6 < grown < 400e6
    assert math.isclose(told, grown, rel_tol=TOLERANCE), (
        f"told {told / 1e6:.1f} MB, taken {grown / 1e6:.1f} MB"
    )


def test_parameters_are_counted_by_part(made: Callable[[str, str], Path]) -> None:
    """Llama 2 7B has 6,738,415,616 of them (its paper's table, and every file of it)."""
    import dataclasses

    tiny = load_model(made("tiny", "q4_0"))
    found = fit.parameters(tiny.config)
    assert found.total == tiny.config.parameters
    assert found.output == 0
    seven = dataclasses.replace(
        tiny.config, vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=32, head_dim=128, tie_word_embeddings=False,
    )  # fmt: skip
    found = fit.parameters(seven)
    assert found.total == 6_738_415_616
    assert (found.embedding, found.output) == (131_072_000, 131_072_000)
    assert (found.attention, found.mlp, found.norms) == (2_147_483_648, 4_328_521_728, 266_240)


def test_the_cache_of_a_known_model_has_its_known_size(made: Callable[[str, str], Path]) -> None:
    """Llama 2 7B takes half a megabyte a token in F16."""
    import dataclasses

    config = dataclasses.replace(
        load_model(made("tiny", "q4_0")).config, num_hidden_layers=32, num_key_value_heads=32,
        num_attention_heads=32, head_dim=128,
    )  # fmt: skip
    assert fit.kv_cache(config, 128) == 128 * 2**19
    assert fit.kv_cache(config, 129) == 256 * 2**19


@pytest.fixture(scope="module")
def tiny(made: Callable[[str, str], Path]) -> Model:
    return load_model(made("deep", "q4_k_m"))


def test_the_largest_context_fits_and_one_more_does_not(tiny: Model) -> None:
    free = fit.memory(tiny, 1000, 2).total
    found = fit.largest_context(tiny, free, 2)
    assert fit.memory(tiny, found, 2).total <= free < fit.memory(tiny, found + 1, 2).total
    assert fit.largest_context(tiny, 10**6, 2) == 0
    assert fit.largest_context(tiny, 10**12, 2) == tiny.config.max_position_embeddings


def profile(**rates: float) -> Profile:
    known = {name: Rates(rate, rate, rate, rate) for name, rate in rates.items()}
    return Profile("x", 2, 1, known, 0.0, 0.0, 0.0, 0.0, 0.0)


def test_a_machine_twice_as_fast_is_told_to_be_so(tiny: Model) -> None:
    one, two = (fit.speed(tiny, profile(Q4_K=rate, Q6_K=rate, Q5_0=rate), 512) for rate in (1e9, 2e9))
    assert math.isclose(two.decode, 2 * one.decode)
    assert math.isclose(two.prefill, 2 * one.prefill)


def test_a_long_context_is_told_to_be_slower(tiny: Model) -> None:
    import msgspec

    known = msgspec.structs.replace(
        profile(Q5_0=1e9, Q4_K=1e9, Q6_K=1e9), attention_decode=1e-10, attention_cached=1e-10
    )
    short, long = fit.speed(tiny, known, 16), fit.speed(tiny, known, 4096)
    assert short.decode == long.decode
    assert long.decode_full < short.decode_full < short.decode


def test_the_machine_is_measured_and_what_is_known_is_not_measured_again() -> None:
    first = measure([TensorType.Q4_0], 1)
    assert is_of(first, processor(), 1)
    rates = first.rates["Q4_0"]
    assert rates.decode > 0
    assert rates.decode_cached > 0
    assert rates.prefill > 0
    assert rates.prefill_narrow > 0
    assert min(first.layer_seconds, first.attention_decode, first.attention_prefill) > 0
    again: Any = measure([TensorType.Q4_0], 1, first)
    assert again == first
    assert set(measure([TensorType.Q8_0], 1, first).rates) == {"Q4_0", "Q8_0"}


def test_of_a_mixture_only_the_chosen_experts_are_read_for_a_token(
    families: ModuleType, tmp_path: Path
) -> None:
    families.make(
        "qwen3_moe", tmp_path, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=32, head_dim=16
    )
    model = load_model(tmp_path)
    told = fit.parameters(model.config)
    assert told.total == model.config.parameters
    assert told.total - told.active == 3 * (8 - 2) * 3 * 64 * 32  # layers, idle experts, matrices
    read = sum(fit._matrix_bytes(model).values()) / 4
    assert read == told.active - told.norms - told.embedding  # float32; an embedding is only looked up in


@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "f32"])
def test_the_memory_of_a_context_is_what_its_pages_take(
    made: Callable[[str, str], Path], kv_type: str
) -> None:
    import numpy as np

    from quinze.engine.engine import Engine

    model = load_model(made("deep", "q4_0"))
    decoder = Engine(model, kv_type=kv_type)._running()
    cache = decoder.cache(kv_type)
    decoder.forward(cache, np.full(200, 5, np.int32))
    assert cache.bytes == fit.kv_cache(model.config, 200, kv_type)
