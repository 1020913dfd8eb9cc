"""Adapters in the engine: what PEFT computes, over any weights, several in one step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch

from quinze import native
from quinze.engine.adapters import NONE, load_adapter
from quinze.engine.engine import _decoder
from quinze.errors import UnsupportedModelError
from quinze.formats.checkpoint import TensorType
from quinze.formats.quants import decode, encode
from quinze.models.adapters import fitted, read_adapter
from quinze.models.weights import Model, load_model

IDS = np.arange(3, 43, dtype=np.int32)


def tune(model: Any, folder: Path, seed: int, **changes: Any) -> Any:
    """A random adapter by PEFT, saved; the base beneath it is not changed."""
    torch.manual_seed(seed)
    config = peft.LoraConfig(
        r=5,
        lora_alpha=9,
        target_modules="all-linear",
        init_lora_weights=False,
        task_type="CAUSAL_LM",
        **changes,
    )
    theirs = peft.get_peft_model(model, config)
    theirs.save_pretrained(folder)
    with torch.no_grad():
        wanted = theirs.eval()(torch.from_numpy(IDS.astype(np.int64))[None]).logits[0].numpy()
    theirs.unload()
    return wanted


def opened(path: Path, kernels: str, threads: int = 2, packed: Any = None) -> tuple[native.Decoder, Model]:
    model = load_model(path)
    return _decoder(model, 256, threads, kernels, packed or {}), model


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "phi3", "olmo2"])
@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_the_logits_are_pefts(kernels: str, families: Any, tmp_path: Path, family: str, dora: bool) -> None:
    base = families.make(family, tmp_path / "base", num_hidden_layers=2)
    wanted = tune(base, tmp_path / "tune", 1, use_dora=dora)
    for path in (tmp_path / "base", families.write_gguf(tmp_path / "base.gguf", base)):
        decoder, model = opened(path, kernels)
        number = load_adapter(decoder, model, read_adapter(tmp_path / "tune"))
        found = decoder.forward_all(decoder.cache("f32"), IDS, number)
        assert np.abs(found - wanted).max() < 2e-3 * np.abs(wanted).max()


def test_over_quantized_weights_it_is_the_adapter_on_the_dequantized_base(
    kernels: str, families: Any, tmp_path: Path
) -> None:
    """Exact to what activations of eight bits leave: the adapter itself is computed in float32."""
    base = families.make("llama", tmp_path / "base", num_hidden_layers=2)
    tune(base, tmp_path / "tune", 1)
    decoder, model = opened(families.write_gguf(tmp_path / "q8.gguf", base, "Q8_0"), kernels)
    plain = {name: encode(name, decode(t), TensorType.F32) for name, t in model.tensors.items()}
    merged = {
        f"{name}.weight": encode(
            f"{name}.weight", low.merged(decode(plain[f"{name}.weight"])), TensorType.F32
        )
        for name, low in fitted(read_adapter(tmp_path / "tune"), model).items()
    }
    wanted_decoder = _decoder(Model(model.config, plain | merged, model.checkpoint), 256, 2, kernels, {})
    wanted = wanted_decoder.forward_all(wanted_decoder.cache("f32"), IDS)
    base_decoder = _decoder(Model(model.config, plain, model.checkpoint), 256, 2, kernels, {})
    bare = base_decoder.forward_all(base_decoder.cache("f32"), IDS)
    number = load_adapter(decoder, model, read_adapter(tmp_path / "tune"))
    found = decoder.forward_all(decoder.cache("f32"), IDS, number)
    rounding = decoder.forward_all(decoder.cache("f32"), IDS)
    assert np.abs(found - wanted).mean() < 3 * np.abs(rounding - bare).mean()
    assert np.abs(found - wanted).mean() < 0.05 * np.abs(bare - wanted).mean()


def test_sequences_of_one_step_each_have_their_own_adapter(
    kernels: str, families: Any, tmp_path: Path
) -> None:
    """Prompts and single tokens of three adapters and none, together, to the bit as each by itself."""
    base = families.make("qwen3", tmp_path / "base", num_hidden_layers=2)
    decoder, model = opened(tmp_path / "base", kernels)
    numbers = [NONE]
    for seed in (1, 2, 3):
        tune(base, tmp_path / f"{seed}", seed)
        numbers.append(load_adapter(decoder, model, read_adapter(tmp_path / f"{seed}")))

    def continued(chosen: list[int]) -> dict[int, list[int]]:
        """Greedy continuations of all at once."""
        caches = {n: decoder.cache("f32") for n in chosen}
        samplers = {n: greedy() for n in chosen}
        said: dict[int, list[int]] = {n: [] for n in chosen}
        for step in range(6):
            pieces: list[native.Piece] = []
            for n in chosen:
                ids = IDS[: 20 + n] if step == 0 else np.array(said[n][-1:], np.int32)
                pieces.append((caches[n], ids, step == 0, 0, samplers[n], None, n))
            results = decoder.step(pieces)
            assert results is not None
            for n, (ids_, _, error) in zip(chosen, results, strict=True):
                assert error is None
                said[n] += ids_
        return said

    together = continued(numbers)
    alone = {n: continued([n])[n] for n in numbers}
    assert together == alone
    assert len({tuple(said) for said in together.values()}) == 4


def greedy() -> native.Sampler:
    return native.sampler(
        temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0, seed=1
    )  # fmt: skip


def test_without_an_adapter_nothing_changes_when_others_have_one(families: Any, tmp_path: Path) -> None:
    base = families.make("llama", tmp_path / "base", num_hidden_layers=2)
    tune(base, tmp_path / "tune", 1)
    decoder, model = opened(tmp_path / "base", "auto")
    before = decoder.forward_all(decoder.cache("f32"), IDS)
    number = load_adapter(decoder, model, read_adapter(tmp_path / "tune"))
    decoder.forward_all(decoder.cache("f32"), IDS, number)
    assert np.array_equal(decoder.forward_all(decoder.cache("f32"), IDS), before)


def test_one_that_was_removed_is_refused_and_its_number_given_again(families: Any, tmp_path: Path) -> None:
    base = families.make("llama", tmp_path / "base", num_hidden_layers=2)
    tune(base, tmp_path / "tune", 1)
    decoder, model = opened(tmp_path / "base", "auto")
    adapter = read_adapter(tmp_path / "tune")
    number = load_adapter(decoder, model, adapter)
    decoder.remove_adapter(number)
    decoder.remove_adapter(99)
    for wrong in (number, 99, -2):
        with pytest.raises(ValueError, match="no adapter"):
            decoder.forward_all(decoder.cache("f32"), IDS, wrong)
    with pytest.raises(ValueError, match="no adapter"):
        decoder.step([(decoder.cache("f32"), IDS, True, 0, greedy(), None, number)])
    assert load_adapter(decoder, model, adapter) == number


def test_matrices_of_a_wrong_size_never_reach_the_kernels(families: Any, tmp_path: Path) -> None:
    families.make("llama", tmp_path / "base", num_hidden_layers=2)
    decoder, _ = opened(tmp_path / "base", "auto")
    name = "model.layers.0.self_attn.q_proj.weight"
    a, b = np.ones((2, 64), np.float32), np.ones((64, 2), np.float32)
    wrong: list[dict[str, Any]] = [
        {name: (a[:, :32].copy(), b, None)}, {name: (a, b[:32], None)}, {name: (a, b[:, :1].copy(), None)},
        {name: (a, b, np.ones(3, np.float32))}, {name: (a, b)}, {"model.norm.weight": (a, b, None)}, {},
        {name: (a, b, None), "nothing": (a, b, None)},
    ]  # fmt: skip
    for given in wrong:
        with pytest.raises(ValueError):
            decoder.add_adapter(given)


def test_an_adapter_of_another_model_is_refused(families: Any, tmp_path: Path) -> None:
    tune(families.make("llama", tmp_path / "a", hidden_size=32), tmp_path / "tune", 1)
    families.make("llama", tmp_path / "b")
    decoder, model = opened(tmp_path / "b", "auto")
    with pytest.raises(UnsupportedModelError, match="not made for"):
        load_adapter(decoder, model, read_adapter(tmp_path / "tune"))
