"""Every rule that no planted run covers: something that triggers it, and the same without, which must not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quinze.models import transformer
from quinze.models.transformer import Transformer
from quinze.training.batch import IGNORE, Batch
from quinze.training.doctor import before_data, before_labels, before_plan, before_wiring
from quinze.training.doctor.look import Look, RowText, look
from quinze.training.events import Finding
from quinze.training.watch import TokenizerFacts

EOS, PAD, BOS = 1, 0, 2


@pytest.fixture(scope="module")
def base(bed: Callable[..., Any], sentences: str) -> Look:
    """A healthy look at a small model, to be changed in one thing."""
    plain = bed(length=32, text=sentences[:60_000], batch=4, steps=0)
    run = replace(plain, config=replace(plain.config, num_hidden_layers=1)).run()
    return look(run.setup, replace(run.doctor.settings, counted_tokens=8_000, scored_tokens=2_000))


def ids(rule: Callable[[Look], Iterator[Finding]], at: Look) -> set[str]:
    return {one.id for one in rule(at)}


def changed(at: Look, **setup: Any) -> Look:
    return replace(at, setup=replace(at.setup, **setup))


def planned(at: Look, **plan: Any) -> Look:
    return changed(at, plan=replace(at.setup.plan, **plan))


def chat(labels: Callable[[np.ndarray], np.ndarray], rows: int = 8, **setup: Any) -> Callable[[Look], Look]:
    """Rows of begin, question, answer, end, padding, with labels made by a function of the ids."""
    made = np.full((rows, 16), PAD)
    made[:, 0], made[:, 1:5], made[:, 5:10], made[:, 10] = BOS, 7, np.arange(5) + 9, EOS
    following = np.concatenate([made[:, 1:], np.full((rows, 1), PAD)], 1)
    batch = Batch(made, np.where(labels(made), following, IGNORE), None, np.arange(rows), 0)
    facts = TokenizerFacts(29, eos_ids=(EOS,), pad_id=PAD, bos_id=BOS)
    return lambda at: changed(replace(at, train=[batch]), method="sft", tokenizer=facts, **setup)


def answers(made: np.ndarray) -> np.ndarray:
    """Learned: what follows places 4 to 9, which is the answer and its end."""
    learned = np.zeros(made.shape, bool)
    learned[:, 4:10] = True
    return learned


def test_a_healthy_look_says_nothing_but_information(base: Look) -> None:
    from quinze.training.doctor.doctor import BEFORE

    assert [one.id for rule in BEFORE for one in rule(base) if one.severity != "info"] == []


def test_tokens(base: Look) -> None:
    few = [RowText(40, "x" * 200)] * 10
    assert ids(before_data.fertility, base) == set()
    wide = changed(base, model=replace(base.setup.model, vocab_size=4096))
    mixed = replace(wide, texts=[RowText(1000, "word" * 900)] * 9 + [RowText(1000, "文" * 300)])
    assert ids(before_data.fertility, mixed) == {"B1.foreign-rows"}
    assert ids(before_data.fertility, replace(wide, texts=few * 30)) == set()
    common = int(base.train[0].ids[0, 0])
    unknown = changed(base, tokenizer=TokenizerFacts(29, unk_id=common))
    assert ids(before_data.unknown_tokens, unknown) == {"B1.unknown"}
    assert ids(before_data.unknown_tokens, base) == set()
    large = changed(base, model=replace(base.setup.model, vocab_size=600))
    many = replace(large, train=base.train * 10)
    assert ids(before_data.unused_vocabulary, many) == {"B1.unused-vocabulary"}
    assert ids(before_data.unused_vocabulary, base) == set()


def test_ids_and_vocabularies(base: Look) -> None:
    assert ids(before_data.ids_fit, replace(base, largest_id=40)) == {"B11.ids-outside"}
    bigger = changed(base, model=replace(base.setup.model, vocab_size=4096))
    assert ids(before_data.ids_fit, bigger) == {"B11.vocabulary-differs"}
    assert ids(before_data.ids_fit, base) == set()


def test_validation_of_another_kind(base: Look) -> None:
    assert ids(before_data.validation_is_alike, base) == set()
    other = [replace(b, ids=28 - b.ids, labels=28 - b.labels) for b in base.validation]
    assert base.floors is not None
    odd = replace(base, validation=other * 3, floors=replace_floor(base, unigram=base.floors.unigram + 2))
    assert ids(before_data.validation_is_alike, odd) == {"B4.validation-differs"}


def replace_floor(at: Look, **values: float) -> Any:
    import msgspec

    return msgspec.structs.replace(at.floors, **values)


def test_the_plan(base: Look, tmp_path: Path) -> None:
    sound = planned(base, steps=400, tokens=51_200)
    assert ids(before_plan.budget, sound) == set()
    assert ids(before_plan.budget, planned(base, steps=20, tokens=2560)) == {"B5.few-tokens", "B5.short"}
    assert ids(before_plan.budget, planned(base, tokens=10_000_000, steps=9000)) == {"B5.epochs"}
    assert ids(before_plan.disk, planned(changed(base, folder=tmp_path), checkpoint_bytes=10**15)) == {
        "B5.disk"
    }
    assert ids(before_plan.disk, planned(changed(base, folder=tmp_path), checkpoint_bytes=1)) == set()
    assert ids(before_plan.schedule, base) == set()
    assert ids(before_plan.schedule, planned(base, warmup=0.5, decay=0.8)) == {"B6.schedule"}
    assert ids(before_plan.schedule, planned(base, final_learning_rate=0.5)) == {"B6.no-decay"}
    for rates, wanted in (
        ({"muon matrices": 0.02, "adamw embeddings": 0.3, "adamw vectors": 0.3}, set()),
        ({"muon matrices": 3.0}, {"B6.rate-high"}),
        ({"adamw matrices": 1e-6}, {"B6.rate-low"}),
    ):
        assert ids(before_plan.learning_rates, planned(base, peak_learning_rates=rates)) == wanted
    tuned = changed(planned(base, peak_learning_rates={"adamw matrices": 2e-5}), base_loaded=True)
    assert ids(before_plan.learning_rates, tuned) == set()


def test_shapes(base: Look) -> None:
    for hidden, wanted in ((64, {"B7.no-k-quants"}), (48, {"B7.not-quantizable"})):
        model = replace(base.setup.model, hidden_size=hidden)
        assert ids(before_plan.shapes, changed(base, model=model)) == wanted
    large = replace(
        base.setup.model, hidden_size=256, intermediate_size=768, num_attention_heads=8, num_key_value_heads=8
    )
    assert ids(before_plan.shapes, changed(base, model=large)) == set()


def test_labels(base: Look) -> None:
    healthy = chat(answers)(base)
    for rule in (before_labels.supervised, before_labels.ends, before_labels.begins, before_labels.shifted):
        assert ids(rule, healthy) == set()
    everything = chat(lambda made: np.ones(made.shape, bool))(base)
    assert ids(before_labels.ends, everything) == {"B8.learns-padding"}
    endless = chat(lambda made: answers(made) & (np.arange(16) < 9))(base)
    assert ids(before_labels.ends, endless) == {"B8.no-eos"}
    rare = np.zeros((64, 16), bool)
    rare[0, 4] = True
    assert ids(before_labels.supervised, chat(lambda made: rare, rows=64)(base)) == {
        "B8.few-labels",
        "B8.empty-rows",
    }
    twice = chat(answers)(base)
    twice.train[0].ids[:, 1] = BOS
    assert ids(before_labels.begins, twice) == {"B8.bos-twice"}
    batch = healthy.train[0]
    cut = replace(healthy, train=[replace(batch, ids=batch.ids[:, :8], labels=batch.labels[:, :8]), batch])
    assert ids(before_labels.ends, cut) == {"B8.truncated"}


@pytest.mark.parametrize("ahead", [0, 2])
def test_labels_that_are_not_what_follows(base: Look, ahead: int) -> None:
    moved = [replace(b, labels=np.roll(b.ids, -ahead, 1)) for b in base.train]
    assert ids(before_labels.shifted, replace(base, train=moved)) == {"B8.shift"}
    assert ids(before_labels.shifted, base) == set()


def with_model(at: Look, change: Callable[[Transformer], None], seed: int = 0, **setup: Any) -> Look:
    model = Transformer(at.setup.model, 512)
    model.initialize(seed)
    change(model)

    def loss(batch: Batch) -> torch.Tensor:
        segments = None if batch.segments is None else torch.from_numpy(batch.segments)
        logits = model(torch.from_numpy(batch.ids), segments)
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), torch.from_numpy(batch.labels).flatten(), ignore_index=IGNORE
        )

    return changed(at, **{"transformer": model, "loss": loss, "groups": {}, **setup})


def test_what_was_loaded(base: Look) -> None:
    assert ids(before_wiring.loaded, base) == set()
    lost = changed(base, missing_keys=("a", "b", "c", "d"), unexpected_keys=("x",))
    assert ids(before_wiring.loaded, lost) == {"B11.missing-weights", "B11.unexpected-weights"}
    assert "a, b, c, ... 1 more" in next(before_wiring.loaded(lost)).verdict


def test_weights_that_are_no_numbers(base: Look) -> None:
    def plant(model: Transformer) -> None:
        with torch.no_grad():
            model.model.norm.weight[0] = math.inf

    broken = with_model(base, plant)
    assert ids(before_wiring.trainable, broken) == {"B9.not-finite"}
    assert ids(before_wiring.first_loss, broken) == {"B9.loss-not-finite"}
    assert "model.norm" in next(before_wiring.first_loss(broken)).why
    assert ids(before_wiring.trainable, base) == ids(before_wiring.first_loss, base) == set()


def test_a_first_loss_that_a_fresh_model_cannot_have(base: Look) -> None:
    def wild(model: Transformer) -> None:
        with torch.no_grad():
            model.model.embed_tokens.weight.mul_(100)

    assert ids(before_wiring.first_loss, with_model(base, wild)) == {"B9.initial-loss-high"}
    # Where the head is tied and layers add little, a token predicts itself: labels that are the input.
    itself = replace(base, train=[replace(b, labels=b.ids) for b in base.train])

    def tied(model: Transformer) -> None:
        with torch.no_grad():
            model.model.embed_tokens.weight.mul_(20)

    assert ids(before_wiring.first_loss, with_model(itself, tied)) == {"B9.initial-loss-low"}


def test_adapters_that_are_not_neutral(base: Look) -> None:
    from quinze.training.lora import LoraConfig, apply_lora

    neutral = with_model(
        base, lambda model: apply_lora(model, LoraConfig(rank=2)), lora=True, base_loaded=True
    )
    assert ids(before_wiring.trainable, neutral) == set()
    assert ids(before_wiring.gradients, neutral) == set()
    with torch.no_grad():
        for name, parameter in neutral.setup.transformer.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.1)
    assert ids(before_wiring.trainable, neutral) == {"B9.adapter-not-neutral"}


def both_ways(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention whose mask was forgotten."""
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def test_masks_that_let_answers_through(base: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = np.repeat([[0] * 16 + [1] * 16], 4, 0).astype(np.int32)
    rows = [replace(b, segments=packed) for b in base.train]
    assert ids(before_wiring.masks, with_model(replace(base, train=rows), lambda model: None)) == set()
    sighted = with_model(base, lambda model: None)
    honest = sighted.setup.loss
    monkeypatch.setattr(transformer, "attend", lambda q, k, v, seen, scale, cap: both_ways(q, k, v))
    assert ids(before_wiring.masks, sighted) == {"B9.sees-ahead"}
    monkeypatch.undo()
    blind = with_model(replace(base, train=rows), lambda model: None)
    told = blind.setup.loss
    deaf = changed(blind, loss=lambda batch: told(replace(batch, segments=None)))
    assert ids(before_wiring.masks, deaf) == {"B9.sees-other-document"}
    summed = changed(sighted, loss=lambda batch: honest(batch) * len(batch.ids))
    assert ids(before_wiring.masks, summed) == {"B9.batch-split"}


def test_a_model_that_cannot_learn_by_heart(base: Look) -> None:
    assert ids(before_wiring.memorizes, with_model(base, lambda model: None)) == set()
    stuck = with_model(base, lambda model: None)
    honest = stuck.setup.loss
    dull = changed(stuck, loss=lambda batch: honest(batch) * 1e-12 + 3.4)
    assert ids(before_wiring.memorizes, dull) == {"B10.cannot-memorize"}


def test_looking_changes_nothing(base: Look) -> None:
    from quinze.training.doctor.doctor import BEFORE

    at = with_model(base, lambda model: None)
    model = at.setup.transformer
    model.train()
    weights = [p.detach().clone() for p in model.parameters()]
    torch.manual_seed(11)
    state = torch.get_rng_state()
    for rule in BEFORE:
        list(rule(at))
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_the_share_of_rows_that_were_read_is_known(base: Look) -> None:
    assert base.share_read == pytest.approx(8_000 / base.setup.train.tokens, rel=0.1)
