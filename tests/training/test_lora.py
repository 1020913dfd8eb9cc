"""LoRA against PEFT on tiny random models, and what it promises of itself."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers

from quinze.errors import CheckpointError, InvalidRequestError
from quinze.models.adapters import Adapter, LowRank, fitted, read_adapter, write_adapter
from quinze.models.base_mark import mark_of
from quinze.models.transformer import Transformer
from quinze.models.weights import load_model
from quinze.training.lora import (
    LoraConfig,
    adapter_state,
    apply_adapter,
    apply_lora,
    load_adapter_state,
    lora_layers,
    merge_lora,
    remove_lora,
    to_low_rank,
    without_adapter,
)
from quinze.training.qlora import quantized_base
from quinze.training.quantized_linear import QuantizedLinear

CLOSE = 2e-5
"""Logits are of the order of 1 here; float32 sums taken in another order differ by some 1e-6."""


def tiny(**changes: Any) -> Any:
    torch.manual_seed(15)
    numbers: dict[str, Any] = {
        "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64,
        "initializer_range": 0.2, "tie_word_embeddings": True,
    }  # fmt: skip
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**(numbers | changes))).eval()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    model, folder = tiny(), tmp_path_factory.mktemp("base")
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture
def model(base: tuple[Any, Path]) -> Any:
    return copy.deepcopy(base[0])


IDS = torch.arange(24).reshape(2, 12) * 7 % 300


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def shake(model: Any, seed: int = 3) -> None:
    """Random numbers in the place of training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in adapter_state(model).values():
            value.add_(0.1 * torch.randn(value.shape, generator=generator))


def write(model: Any, folder: Path, config: LoraConfig) -> None:
    write_adapter(folder, to_low_rank(model), rslora=config.rslora)


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(rank=4),
        LoraConfig(rank=4, rslora=False, targets=["q_proj", "v_proj"]),
        LoraConfig(rank=4, dora=True),
    ],
    ids=["rslora", "plain", "dora"],
)
def test_peft_loads_our_adapter_and_gives_the_same_logits(
    model: Any, base: tuple[Any, Path], tmp_path: Path, config: LoraConfig
) -> None:
    apply_lora(model, config)
    shake(model)
    write(model, tmp_path, config)
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base[0]), tmp_path).eval()
    assert (logits(model) - logits(base[0])).abs().max() > 0.01
    assert (logits(theirs) - logits(model)).abs().max() < CLOSE


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_we_load_pefts_adapter_and_give_the_same_logits(
    model: Any, base: tuple[Any, Path], tmp_path: Path, dora: bool
) -> None:
    config = peft.LoraConfig(
        r=4, lora_alpha=12, use_rslora=True, use_dora=dora, target_modules="all-linear",
        init_lora_weights=False, rank_pattern={"q_proj": 2}, alpha_pattern={"down_proj": 3},
        task_type="CAUSAL_LM",
    )  # fmt: skip
    theirs = peft.get_peft_model(copy.deepcopy(base[0]), config).eval()
    theirs.save_pretrained(tmp_path)
    apply_adapter(model, fitted(read_adapter(tmp_path), load_model(base[1])))
    assert (logits(model) - logits(base[0])).abs().max() > 0.01
    assert (logits(theirs) - logits(model)).abs().max() < CLOSE


def test_a_fresh_adapter_changes_nothing(model: Any, base: tuple[Any, Path]) -> None:
    apply_lora(model, LoraConfig(rank=4))
    assert torch.equal(logits(model), logits(base[0]))


def test_all_linear_layers_but_the_head_are_trained_and_nothing_else(model: Any) -> None:
    apply_lora(model, LoraConfig(rank=4))
    assert len(lora_layers(model)) == 2 * 7
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == set(adapter_state(model))


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_merged_is_the_same_as_adapted(model: Any, dora: bool) -> None:
    apply_lora(model, LoraConfig(rank=4, dora=dora))
    shake(model)
    adapted = logits(model)
    merge_lora(model)
    assert not lora_layers(model)
    assert (logits(model) - adapted).abs().max() < CLOSE


def test_off_for_a_moment_it_is_the_base_to_the_bit(model: Any, base: tuple[Any, Path]) -> None:
    apply_lora(model, LoraConfig(rank=4))
    shake(model)
    adapted = logits(model)
    with without_adapter(model):
        assert torch.equal(logits(model), logits(base[0]))
    assert torch.equal(logits(model), adapted)
    remove_lora(model)
    assert torch.equal(logits(model), logits(base[0]))


def test_a_checkpoint_of_the_adapter_alone_restores_it(model: Any, base: tuple[Any, Path]) -> None:
    apply_lora(model, LoraConfig(rank=4))
    shake(model)
    state = {name: value.clone() for name, value in adapter_state(model).items()}
    other = copy.deepcopy(base[0])
    apply_lora(other, LoraConfig(rank=4))
    load_adapter_state(other, state)
    assert torch.equal(logits(other), logits(model))
    wrong = copy.deepcopy(base[0])
    apply_lora(wrong, LoraConfig(rank=8))
    with pytest.raises(CheckpointError, match="rank"):
        load_adapter_state(wrong, state)


def test_a_target_that_is_no_layer_is_named(model: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"q_projj.*down_proj"):
        apply_lora(model, LoraConfig(targets=["q_projj"]))


def test_gradients_reach_the_adapter_and_never_the_base(model: Any) -> None:
    apply_lora(model, LoraConfig(rank=4))
    shake(model)
    model(IDS, labels=IDS).loss.backward()
    for name, p in model.named_parameters():
        assert (p.grad is not None and bool(p.grad.abs().sum() > 0)) == ("lora_" in name), name


@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_qlora_computes_and_learns_as_lora_on_the_dequantized_base(base: tuple[Any, Path], kind: str) -> None:
    quantized, plain = copy.deepcopy(base[0]), copy.deepcopy(base[0])
    apply_lora(quantized, LoraConfig(rank=4, quantize=kind))  # type: ignore[arg-type]
    shake(quantized)
    with torch.no_grad():
        for name, layer in lora_layers(quantized).items():
            assert isinstance(layer.base, QuantizedLinear)
            plain.get_submodule(name).weight.copy_(layer.base.dense())
    apply_lora(plain, LoraConfig(rank=4))
    load_adapter_state(plain, adapter_state(quantized))
    losses = [m(IDS, labels=IDS).loss for m in (quantized, plain)]
    for loss in losses:
        loss.backward()
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-6)
    theirs = dict(plain.named_parameters())
    for name, mine in quantized.named_parameters():
        if mine.requires_grad:
            assert torch.allclose(mine.grad, theirs[name].grad, atol=1e-6), name


def test_qlora_keeps_the_blocks_and_no_float_weights(model: Any) -> None:
    wide = tiny(hidden_size=256, intermediate_size=256, num_attention_heads=4, head_dim=64)
    before = sum(p.numel() * 4 for p in wide.model.layers.parameters())
    apply_lora(wide, LoraConfig(rank=2, quantize="q4_k"))
    kept = sum(layer.base.bytes for layer in lora_layers(wide).values())  # type: ignore[union-attr]
    floats = sum(p.numel() * 4 for p in wide.model.layers.parameters())
    assert kept == pytest.approx(before * 4.5 / 32, rel=0.01)
    assert floats < before / 20


def test_rows_that_are_no_whole_blocks_are_refused_beforehand(model: Any) -> None:
    with pytest.raises(InvalidRequestError, match="multiple of 256"):
        apply_lora(model, LoraConfig(quantize="q4_k"))


def test_merging_a_quantized_base_gives_float32_and_keeps_the_tune(model: Any) -> None:
    apply_lora(model, LoraConfig(rank=4, quantize="q8_0"))
    shake(model)
    adapted = logits(model)
    merge_lora(model)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert (logits(model) - adapted).abs().max() < CLOSE


def test_a_quantized_file_serves_as_the_base_where_it_is_mapped(model: Any, base: tuple[Any, Path]) -> None:
    opened = load_model(base[1])
    name = "model.layers.0.mlp.down_proj"
    layer = QuantizedLinear(opened.tensors[f"{name}.weight"])
    x = torch.randn(3, 96, requires_grad=True)
    assert torch.allclose(layer(x), model.get_submodule(name)(x), atol=1e-5)
    layer(x).sum().backward()
    assert x.grad is not None
    assert not list(layer.parameters())


def test_dropout_leaves_inputs_out_while_training_only(model: Any) -> None:
    apply_lora(model, LoraConfig(rank=4, dropout=0.5))
    shake(model)
    still = logits(model)
    assert torch.equal(still, logits(model))
    model.train()
    assert not torch.equal(still, logits(model))


def test_an_adapter_fits_an_interleaved_file_by_its_rows(shared: Any) -> None:
    """llama2.c has RoPE's pairs side by side: of a head of 8, number 1 is the folder's number 4."""
    opened = load_model(shared("data/models/stories260K.bin"))
    assert opened.config.rope_interleaved
    rng = np.random.default_rng(1)
    name = "model.layers.0.self_attn.q_proj"
    low = LowRank(rng.normal(size=(2, 64)).astype("f4"), rng.normal(size=(64, 2)).astype("f4"), 1.0)
    found = fitted(Adapter(Path("a"), {name: low}), opened)[name]
    assert np.array_equal(found.b[1], low.b[4])
    assert np.array_equal(found.b[8], low.b[8])
    assert np.array_equal(fitted(Adapter(Path("a"), {name: low}), opened, as_folder=True)[name].b, low.b)


def test_the_mark_of_a_base_is_kept_beside_its_adapter(
    model: Any, base: tuple[Any, Path], tmp_path: Path
) -> None:
    config = LoraConfig(rank=2)
    apply_lora(model, config)
    opened = load_model(base[1])
    write_adapter(tmp_path, to_low_rank(model), rslora=True, mark=mark_of(opened), base="tiny")
    assert read_adapter(tmp_path).base == "tiny"
    assert len(fitted(read_adapter(tmp_path), opened)) == 14


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_qlora_over_a_gguf_file_is_the_transformer_of_that_file(
    family: str, families: Any, tmp_path: Path
) -> None:
    """Also where the file has the rows of queries and keys in another order, and biases."""
    peer = families.make(family, tmp_path, vocab_size=300)
    opened = load_model(families.write_gguf(tmp_path / "m.gguf", peer, "Q8_0"))
    quantized, plain = quantized_base(opened), Transformer.of(opened)
    with torch.no_grad():
        assert (quantized(IDS) - plain(IDS)).abs().max() < CLOSE
    apply_lora(quantized, LoraConfig(rank=2))
    assert len(lora_layers(quantized)) == 7 * opened.config.num_hidden_layers
    quantized(IDS).sum().backward()
    assert all(p.grad is not None for p in quantized.parameters() if p.requires_grad)
