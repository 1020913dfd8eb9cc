"""Twelve planted failures, each in a real run, each named; and the sentence names the cause with numbers."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from quinze.models.transformer import Transformer
from quinze.training.batch import IGNORE, Batch
from quinze.training.watch import TokenizerFacts

EOS, PAD = 1, 0


@pytest.fixture
def quick(bed: Callable[..., Any]) -> Callable[..., Any]:
    """A run as short as its failure allows."""
    return lambda **knobs: bed(**{"length": 32, "steps": 60, **knobs})


def verdict(run: Any, id_: str) -> str:
    found = [one for one in run.findings if one.id == id_]
    assert found, [one.id for one in run.findings]
    assert found[0].why
    assert found[0].fix
    return str(found[0].verdict)


def test_nan_is_caught_before_weights_move_and_its_place_is_named(quick: Callable[..., Any]) -> None:
    def plant(step: int, model: Transformer) -> None:
        if step == 12:
            with torch.no_grad():
                model.model.layers[1].mlp.up_proj.weight[3, 5] = float("nan")

    run = quick(at_step=plant, steps=40).run()
    assert "model.layers.1.mlp.up_proj.weight" in verdict(run, "D1.non-finite")
    assert "3 steps in a row" in verdict(run, "D1.non-finite-again")
    assert len(run.losses) == 14, "stopped at the third"
    assert torch.isfinite(run.setup.transformer.model.layers[0].mlp.up_proj.weight).all()


def test_a_batch_that_is_infinite_once_is_left_out_and_the_run_goes_on(quick: Callable[..., Any]) -> None:
    def plant(step: int, model: Transformer) -> None:
        cap = float("inf") if step == 12 else 0.0
        object.__setattr__(model.config, "logit_softcap", cap)

    run = quick(at_step=plant, steps=40).run()
    assert "At step 12 the loss is nan" in verdict(run, "D1.non-finite")
    assert "stop" not in {one.severity for one in run.findings}
    assert len(run.losses) == 40


def test_too_high_a_rate_is_named_before_and_during_the_run(quick: Callable[..., Any]) -> None:
    run = quick(rate=3.0).run()
    assert "The learning rate of matrices is 3" in verdict(run, "B6.rate-high")
    assert "blind guessing gives 3.37" in verdict(run, "D2.diverging")
    assert len(run.losses) < 60, "it was stopped"


def test_a_rate_that_keeps_a_model_from_settling_is_named(quick: Callable[..., Any]) -> None:
    run = quick(rate=0.3, steps=100).run()
    named = [one for one in run.findings if one.id in ("D3.rate-too-high", "D2.diverging")]
    assert named
    assert all("ach step changes the weights by" in one.verdict for one in named)


def chat(bed: Any, masked: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Any:
    """Rows of question, answer, end, padding; labels as `masked(ids, answer)` makes them."""
    ids = bed.train.ids.copy() % 20 + 5
    answer = np.zeros(ids.shape, bool)
    answer[:, 10:20] = True
    ids[:, 20] = EOS
    ids[:, 21:] = PAD
    answer[:, 20] = True
    labels = np.full(ids.shape, IGNORE)
    labels[:, :-1] = masked(ids, answer)[:, 1:]
    rows = replace(bed.train, ids=ids, labels=labels)
    return replace(bed, train=rows, validation=rows, method="sft", steps=5)


def test_labels_that_are_all_masked_stop_the_run_before_it_begins(quick: Callable[..., Any]) -> None:
    run = chat(quick(), lambda ids, answer: np.full(ids.shape, IGNORE)).run()
    assert "every label is masked" in verdict(run, "B8.no-labels")
    assert run.losses == []


def test_pad_that_is_eos_is_named(quick: Callable[..., Any]) -> None:
    tokenizer = TokenizerFacts(25, eos_ids=(EOS,), pad_id=EOS)
    plain = quick(tokenizer=tokenizer)
    run = chat(plain, lambda ids, answer: np.where(answer & (ids != EOS), ids, IGNORE)).run()
    assert "the same token (1)" in verdict(run, "B8.pad-is-eos")
    healthy = chat(plain, lambda ids, answer: np.where(answer, ids, IGNORE)).run()
    assert healthy.ids() & {"B8.pad-is-eos", "B8.no-eos", "B8.learns-padding"} == set()


def test_shuffled_text_is_named(quick: Callable[..., Any], sentences: str) -> None:
    letters = list(sentences)
    random.Random(0).shuffle(letters)
    run = quick(text="".join(letters), steps=5).run()
    assert "in random order" in verdict(run, "B2.no-order")
    words = sentences.split()
    random.Random(0).shuffle(words)
    run = quick(text=" ".join(words), steps=5).run()
    assert "the words of this text stand in random order" in verdict(run, "B2.no-word-order")


def test_a_wrong_tokenizer_is_named_by_how_little_a_token_says(
    bed: Callable[..., Any],
    characters: Callable[[str], np.ndarray],
    shape: Callable[..., Any],
    sentences: str,
) -> None:
    """4,096 tokens, of which this text can use the single letters only."""
    names = [chr(0x4E00 + i) * 2 for i in range(4096)]
    names[: len(set(sentences)) + 2] = ["", "?", *sorted(set(sentences))]
    tokenizer = TokenizerFacts(4096, decode=lambda ids: "".join(names[i] for i in ids))
    run = bed(length=32, steps=3, tokenizer=tokenizer, config=replace(shape(), vocab_size=4096)).run()
    assert "only 1.00 bytes" in verdict(run, "B1.fertility")


def test_a_base_model_with_another_tokenizer_knows_less_than_frequencies(quick: Callable[..., Any]) -> None:
    healthy = quick(steps=80)
    model = Transformer(healthy.config, context_length=512)
    model.initialize(0)
    replace(healthy, transformer=model).run()
    mixed = np.random.default_rng(3).permutation(healthy.config.vocab_size)
    wrong = replace(healthy.train, ids=mixed[healthy.train.ids], labels=mixed[healthy.train.labels])
    tuned = replace(
        healthy, transformer=model, steps=3, rate=1e-4, setup={"base_loaded": True}, tokenizer=None
    )
    run = replace(tuned, train=wrong, validation=wrong).run()
    assert "made with another tokenizer" in next(
        one.why for one in run.findings if one.id == "B9.base-knows-nothing"
    )
    assert "B9.base-knows-nothing" not in tuned.run().ids()


def test_duplicated_data_is_named_with_its_share(quick: Callable[..., Any], sentences: str) -> None:
    text = sentences[:100_000] + sentences[:30_000]
    run = quick(text=text, held=sentences[400_000:420_000], steps=3, length=128, batch=4).run()
    assert "About 23% of the training text" in verdict(run, "B3.duplicates")
    assert "B3.leak" not in run.ids()


def test_a_leak_is_named_with_its_share(quick: Callable[..., Any], sentences: str) -> None:
    held = sentences[400_000:410_000] + sentences[50_000:60_000]
    run = quick(text=sentences[:200_000], held=held, steps=3, length=128, batch=4).run()
    assert "B3.duplicates" not in run.ids()
    share = next(one.evidence["share"] for one in run.findings if one.id == "B3.leak")
    assert share == pytest.approx(0.5, abs=0.08)


def test_a_frozen_layer_is_named_in_each_way_of_freezing_it(quick: Callable[..., Any]) -> None:
    def frozen(model: Transformer) -> None:
        model.model.layers[1].requires_grad_(False)

    assert "model.layers.1" in verdict(quick(prepare=frozen, steps=3).run(), "B9.frozen")

    def detached(model: Transformer) -> None:
        up = model.model.layers[0].mlp.up_proj
        up.register_forward_hook(lambda module, inputs, output: output.detach())

    assert "model.layers.0.mlp.up_proj" in verdict(quick(prepare=detached, steps=3).run(), "B9.no-gradient")


def test_a_layer_that_no_optimizer_moves_is_named(quick: Callable[..., Any]) -> None:
    plain = quick(steps=3)
    model = Transformer(plain.config, context_length=512)
    model.initialize(0)
    known = [p for name, p in model.named_parameters() if ".layers.1." not in name]
    run = replace(plain, transformer=model, setup={"groups": {"all": known}}).run()
    assert "model.layers.1" in verdict(run, "B9.not-optimized")


def test_a_layer_that_stops_moving_during_the_run_is_named(quick: Callable[..., Any]) -> None:
    def freeze(step: int, model: Transformer) -> None:
        if step == 1:  # to AdamW as good as a group whose rate is 0
            for parameter in model.model.layers[1].parameters():
                parameter.register_hook(torch.zeros_like)

    run = quick(at_step=freeze, steps=20).run()
    assert "model.layers.1" in verdict(run, "D7.frozen")


def test_the_same_order_in_each_epoch_is_named(quick: Callable[..., Any], sentences: str) -> None:
    plain = quick(text=sentences[:20_000], steps=60)
    fixed = replace(plain, train=replace(plain.train, reshuffle=False))
    assert "Epoch 2" in verdict(fixed.run(), "B3.same-order")
    assert plain.run().ids() & {"B3.same-order", "D13.replayed"} == set()


def test_rows_in_the_order_of_the_file_and_one_batch_for_all_steps_are_named(
    quick: Callable[..., Any],
) -> None:
    plain = quick(steps=3)

    def in_order(step: int, micro: int) -> Batch:
        rows = np.arange(step * 16, step * 16 + 16) % len(plain.train.ids)
        return Batch(plain.train.ids[rows], plain.train.labels[rows], None, rows, 0)

    assert "in which they were stored" in verdict(replace(plain, batches=in_order).run(), "B3.not-shuffled")
    run = replace(plain, batches=lambda step, micro: in_order(0, micro)).run()
    assert "exactly the same rows" in verdict(run, "B3.same-batch")


def test_a_starving_loader_is_named_with_the_share_of_time_lost(quick: Callable[..., Any]) -> None:
    plain = quick(steps=30)

    def slow(step: int, micro: int) -> Batch:
        if running:
            time.sleep(0.1)
        return plain.train.batch(step, 16)

    running: list[bool] = []
    run = replace(plain, batches=slow, at_step=lambda step, model: running.append(True)).run()
    assert "waiting for data" in verdict(run, "D10.starving")


def test_overfitting_is_named_with_the_step_to_keep(quick: Callable[..., Any], sentences: str) -> None:
    run = quick(
        text=sentences[:1500], held=sentences[400_000:410_000], steps=120, evaluate_every=10, rate=1e-2
    ).run()
    assert "keep step" in next(one.fix for one in run.findings if one.id == "D6.overfitting")
    assert "B5.epochs" in run.ids()
