"""DPO against its formula, worked out by hand, and what it reports."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from quinze.errors import InvalidRequestError
from quinze.models.config import ModelConfig
from quinze.models.transformer import Transformer
from quinze.training.batch import IGNORE
from quinze.training.dpo import DpoConfig, dpo_loss, frozen_copy, log_probs, sigmoid_loss
from quinze.training.lora import LoraConfig, adapter_state, apply_lora

CONFIG = ModelConfig(
    name="tiny", architecture="qwen3", vocab_size=50, hidden_size=32, intermediate_size=48,
    num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
    max_position_embeddings=32, rms_norm_eps=1e-6, rope_theta=10_000.0, rope_interleaved=False,
    tie_word_embeddings=True, qk_norm="head",
)  # fmt: skip


@pytest.fixture
def model() -> Transformer:
    made = Transformer(CONFIG)
    made.initialize(15, std=0.2)
    return made


@pytest.fixture
def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    """Two pairs: a prompt of 4 tokens, replies of different lengths, padding that is not learned."""
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(0, 50, (4, 12), generator=generator)
    labels = torch.full_like(ids, IGNORE)
    for row, end in enumerate((9, 6, 11, 7)):
        labels[row, 3:end] = torch.randint(0, 50, (end - 3,), generator=generator)
    return ids, labels


def test_the_loss_is_the_published_one_on_fixed_numbers() -> None:
    """Rafailov et al. 2023, equation 7, with a calculator: beta 0.1, margins 0.2 and -0.3."""
    chosen, rejected = torch.tensor([-1.0, 2.0]), torch.tensor([-3.0, 5.0])
    wanted = [-math.log(1 / (1 + math.exp(-0.2))), -math.log(1 / (1 + math.exp(0.3)))]
    assert sigmoid_loss(chosen, rejected, 0.1).tolist() == pytest.approx(wanted, rel=1e-6)
    smoothed = [
        0.9 * a - 0.1 * math.log(1 / (1 + math.exp(m))) for a, m in zip(wanted, (0.2, -0.3), strict=True)
    ]
    assert sigmoid_loss(chosen, rejected, 0.1, 0.1).tolist() == pytest.approx(smoothed, rel=1e-6)


def test_log_probs_are_those_of_a_plain_softmax(
    model: Transformer, pairs: tuple[torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, labels = pairs
    monkeypatch.setattr("quinze.training.dpo.CHUNK", 5)  # several chunks
    found = log_probs(model, ids, labels)
    logits = F.log_softmax(model(ids), dim=-1)
    kept = labels != IGNORE
    wanted = torch.where(kept, logits.gather(-1, labels.clamp(min=0)[..., None])[..., 0], 0).sum(1)
    assert torch.allclose(found.total, wanted, atol=1e-5)
    assert found.tokens.tolist() == [6, 3, 8, 4]


def test_the_loss_and_its_gradient_are_those_of_the_formula_with_a_frozen_copy(
    model: Transformer, pairs: tuple[torch.Tensor, torch.Tensor]
) -> None:
    ids, labels = pairs
    reference = frozen_copy(model)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    plain = copy.deepcopy(model)
    found = dpo_loss(model, ids, labels, DpoConfig(beta=0.3), reference=reference)
    found.loss.backward()

    def total(m: Transformer) -> torch.Tensor:
        kept = labels != IGNORE
        logps = F.log_softmax(m(ids), dim=-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        return (logps * kept).sum(1)

    ratio = total(plain) - total(reference).detach()  # type: ignore[arg-type]
    wanted = -F.logsigmoid(0.3 * (ratio[0::2] - ratio[1::2])).mean()
    wanted.backward()
    assert float(found.loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(mine.grad, theirs.grad, atol=1e-6)
    assert all(p.grad is None for p in reference.parameters())


def test_before_the_first_step_the_loss_is_ln_2(
    model: Transformer, pairs: tuple[torch.Tensor, torch.Tensor]
) -> None:
    apply_lora(model, LoraConfig(rank=2, dropout=0.0))
    found = dpo_loss(model, *pairs, DpoConfig())
    assert float(found.loss.detach()) == pytest.approx(math.log(2), abs=1e-6)
    assert found.extra["margin"] == 0
    assert found.pairs == 2


def test_training_prefers_what_was_chosen_and_tells_both_log_probs(
    model: Transformer, pairs: tuple[torch.Tensor, torch.Tensor]
) -> None:
    ids, labels = pairs
    apply_lora(model, LoraConfig(rank=4))
    before = dpo_loss(model, ids, labels, DpoConfig()).extra
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        dpo_loss(model, ids, labels, DpoConfig()).loss.backward()
        optimizer.step()
    after = dpo_loss(model, ids, labels, DpoConfig()).extra
    assert after["accuracy"] == 1.0
    assert after["margin"] > 0.5
    assert after["chosen"] > after["rejected"]
    change = {key: after[key] - before[key] for key in ("chosen_logprob", "rejected_logprob")}
    assert change["chosen_logprob"] > change["rejected_logprob"]
    assert after["chosen_logprob"] == pytest.approx(
        float(log_probs(model, ids, labels).total[::2].mean().detach())
    )
    assert (after["chosen_tokens"], after["rejected_tokens"]) == (7.0, 3.5)
    assert -1 <= after["length_bias"] <= 1


def test_a_model_that_learns_length_is_seen_by_its_length_bias() -> None:
    from quinze.training.dpo import LogProbs, _measured

    lengths = torch.tensor([10, 2, 4, 2, 8, 8])  # differences 8, 2, 0
    chosen, rejected = torch.tensor([8.0, 2.0, 0.0]), torch.zeros(3)
    assert _measured(chosen, rejected, LogProbs(torch.zeros(6), lengths), 0.1)["length_bias"] > 0.99


def test_cross_entropy_of_the_chosen_can_be_added(
    model: Transformer, pairs: tuple[torch.Tensor, torch.Tensor]
) -> None:
    apply_lora(model, LoraConfig(rank=2))
    plain = dpo_loss(model, *pairs, DpoConfig()).loss
    added = dpo_loss(model, *pairs, DpoConfig(sft_weight=0.5)).loss
    totals = log_probs(model, *pairs)
    entropy = -totals.total[::2].sum() / totals.tokens[::2].sum()
    assert float((added - plain).detach()) == pytest.approx(0.5 * float(entropy.detach()), rel=1e-5)


def test_the_reference_has_no_dropout_and_the_model_keeps_its_mode(
    model: Transformer, pairs: tuple[torch.Tensor, torch.Tensor]
) -> None:
    apply_lora(model, LoraConfig(rank=2, dropout=0.5))
    model.train()
    dpo_loss(model, *pairs, DpoConfig())
    assert model.training
    assert all(value.shape for value in adapter_state(model).values())


def test_without_adapter_or_reference_it_is_refused(
    model: Transformer, pairs: tuple[torch.Tensor, torch.Tensor]
) -> None:
    with pytest.raises(InvalidRequestError, match="reference"):
        dpo_loss(model, *pairs, DpoConfig())
    with pytest.raises(InvalidRequestError, match="even"):
        dpo_loss(model, pairs[0][:3], pairs[1][:3], DpoConfig())
