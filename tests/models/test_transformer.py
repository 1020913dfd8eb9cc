"""The PyTorch reference: logits of transformers, family by family, and of our own engine."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quinze.engine.engine import Engine
from quinze.errors import UnsupportedModelError
from quinze.models.shapes import shapes
from quinze.models.transformer import Transformer, rms_norm
from quinze.models.weights import load_model


def _beside(name: str) -> Any:
    """A module of tests/engine, which is no package."""
    path = Path(__file__).parent.parent / "engine" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"engine_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PEERS = _beside("peer_families")
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = _beside("test_families").FAMILIES
OUR_OWN_NAMES = ("phi3", "gpt2")
"""Families whose folders have fused or turned matrices; the engine and we hold them parted."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=FAMILIES)
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Path]:
    folder = tmp_path_factory.mktemp("family")
    kind, changes = FAMILIES[request.param]
    return request.param, PEERS.make(kind, folder, **changes), folder


def granted(name: str) -> int | None:
    return 512 if name.endswith(", short") else None


def test_logits_are_those_of_transformers_and_of_the_engine(
    peer: tuple[str, Any, Path], rng: np.random.Generator
) -> None:
    name, model, folder = peer
    loaded = load_model(folder)
    ids = rng.integers(0, 300, 150)
    with torch.no_grad():
        mine = Transformer.of(loaded, granted(name))(torch.from_numpy(ids)[None])[0].numpy()
        theirs = model(torch.from_numpy(ids)[None]).logits[0].numpy()
    np.testing.assert_allclose(mine, theirs, atol=1e-4 * theirs.std(), rtol=1e-4)
    engine = Engine(loaded, kv_type="f32", threads=1, context_length=granted(name))
    np.testing.assert_allclose(mine, engine.logits(ids.tolist()), atol=3e-4 * mine.std(), rtol=1e-4)


def test_its_state_is_a_checkpoint_of_transformers(peer: tuple[str, Any, Path]) -> None:
    name, model, folder = peer
    made = Transformer.of(load_model(folder))
    assert {name: tuple(weight.shape) for name, weight in made.state_dict().items()} == shapes(made.config)
    if not name.startswith(OUR_OWN_NAMES):
        theirs = {name: weight for name, weight in model.state_dict().items() if name != "lm_head.weight"}
        mine = {name: weight for name, weight in made.state_dict().items() if name != "lm_head.weight"}
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("name", ["llama with biases", "qwen3", "gemma3", "phi3, partial"])
def test_a_gguf_gives_the_model_of_its_folder(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """There RoPE's pairs lie side by side, and Gemma's norms have 1 added."""
    kind, changes = FAMILIES[name]
    model = PEERS.make(kind, tmp_path / "folder", **changes)
    made = Transformer.of(load_model(PEERS.write_gguf(tmp_path / "model.gguf", model)))
    ids = torch.from_numpy(rng.integers(0, 300, (1, 60)))
    with torch.no_grad():
        expected = model(ids).logits
        torch.testing.assert_close(made(ids), expected, atol=1e-4 * float(expected.std()), rtol=1e-4)


@pytest.mark.parametrize("name", ["qwen3", "gemma2", "mistral, window", "gpt2"])
def test_documents_packed_into_a_row_are_read_as_if_alone(
    name: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    kind, changes = FAMILIES[name]
    PEERS.make(kind, tmp_path, **changes)
    made = Transformer.of(load_model(tmp_path))
    first, second = (torch.from_numpy(rng.integers(0, 300, (1, n))) for n in (30, 60))
    segments = torch.tensor([[0] * 30 + [1] * 60])
    with torch.no_grad():
        packed = made(torch.cat([first, second], dim=1), segments)
        alone = torch.cat([made(first), made(second)], dim=1)
    torch.testing.assert_close(packed, alone, atol=1e-4 * float(alone.std()), rtol=1e-3)


@pytest.mark.parametrize("shape", [(3, 7, 16), (2, 5, 3, 8)])
def test_the_gradient_of_rms_norm_is_that_of_pytorch(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(shape[-1], generator=generator, dtype=torch.float64, requires_grad=True)
    mine, theirs = rms_norm(x, weight, 1e-5), torch.nn.functional.rms_norm(x, weight.shape, weight, 1e-5)
    torch.testing.assert_close(mine, theirs)
    above = torch.randn(shape, generator=generator, dtype=torch.float64)
    for a, b in zip(*(torch.autograd.grad(y, [x, weight], above) for y in (mine, theirs)), strict=True):
        torch.testing.assert_close(a, b)


def test_a_new_model_knows_nothing_and_has_gradients_everywhere(tmp_path: Path) -> None:
    """Its loss is that of guessing, ln V; and the same seed makes the same weights."""
    PEERS.make("qwen3", tmp_path, head_dim=16)
    config = load_model(tmp_path).config
    first, second = Transformer(config), Transformer(config)
    first.initialize(seed=3)
    second.initialize(seed=3)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    ids = torch.randint(0, 300, (2, 40), generator=torch.Generator().manual_seed(0))
    logits = first(ids)
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert float(loss.detach()) == pytest.approx(np.log(300), rel=0.01)
    loss.backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in first.parameters())


def test_mixtures_of_experts_are_refused_by_name(tmp_path: Path) -> None:
    PEERS.make("mixtral", tmp_path, num_local_experts=4, num_experts_per_tok=2)
    with pytest.raises(UnsupportedModelError, match="is a mixture of experts"):
        Transformer(load_model(tmp_path).config)
