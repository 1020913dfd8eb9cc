"""Plans, against published arithmetic, PyTorch's own counting, and a config that is read back."""

from __future__ import annotations

import math
import tomllib

import msgspec
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from quinze.errors import InvalidRequestError
from quinze.models.transformer import Transformer
from quinze.training.doctor import Floors
from quinze.training.expectation import BAND, REFERENCE_XZ, expected
from quinze.training.forecast import (
    SHAPES,
    DataFacts,
    flops_per_token,
    memory,
    model_config,
    multiplied,
    parts_of,
    plan,
)
from quinze.training.machine import Machine, measure, try_shape
from quinze.training.run_config import run_config

MACHINE = Machine(
    device="cpu", threads=2, rates={64: 3e10, 256: 6e10, 1024: 1e11}, bandwidth=1e10, memory_bytes=16 * 10**9,
    program_bytes=4 * 10**8,
)  # fmt: skip
FLOORS = Floors(
    vocab_size=4096, uniform=8.3, unigram=6.9, bigram=5.3, trigram=4.8, tokens_counted=10**6,
    tokens_scored=10**5, all_counted=True, bytes_per_token=3.4, compressor_bits_per_byte=2.5,
)  # fmt: skip


def test_parameters_are_those_of_the_model_itself() -> None:
    for hidden, layers in SHAPES[:6]:
        config = model_config(hidden, layers, 4096, 256)
        with torch.device("meta"):
            real = Transformer(config)
        assert sum(parts_of(config).values()) == sum(p.numel() for p in real.parameters())


def test_operations_are_what_pytorch_counts_on_the_way_forth_and_back() -> None:
    config = model_config(64, 3, 1024, 64)
    model = Transformer(config)
    model.initialize(0)
    ids = torch.randint(1024, (2, 64))
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        model(ids).sum().backward()
    attention = 6 * 3 * 64 * 64  # we count the half that a causal mask leaves; PyTorch counts all of it
    assert counter.get_total_flops() / ids.numel() == pytest.approx(
        flops_per_token(config, 64) + attention, rel=0.02
    )


def test_the_published_budget_gives_the_published_shape() -> None:
    """At 1e15 operations about 4 to 6 M multiplied weights, a vocabulary of 4,096, 8 to 16 thousand tokens a
    step: what nanochat's table, llama2.c and parameter-golf agree on."""
    found = plan(MACHINE, minutes=1e15 / 6e10 / 0.55 / 60, try_it=False)
    assert (found.hidden_size, found.num_hidden_layers, found.vocab_size) == (256, 6, 4096)
    assert found.rows * found.sequence_length * found.micro_batches in (8192, 16384)
    assert 1000 <= found.steps <= 3000


@pytest.mark.parametrize("wish", [{"minutes": 5}, {"parameters": 10_000_000}, {"tokens": 3_000_000}, {}])
def test_every_plan_is_a_run_that_the_trainer_reads(wish: dict[str, int]) -> None:
    found = plan(MACHINE, **wish, data=DataFacts(vocab_size=4096, floors=FLOORS), try_it=False)  # type: ignore[arg-type]
    config = run_config(tomllib.loads(found.run_toml)).resolved()
    assert config.model.hidden_size == found.hidden_size
    assert (
        config.batch.rows * config.batch.micro_batches * found.sequence_length * found.steps == found.tokens
    )
    assert found.hidden_size % 32 == found.intermediate_size % 32 == 0
    if minutes := wish.get("minutes"):
        assert found.seconds <= minutes * 60 * 1.01
        assert config.schedule.minutes == minutes
    if parameters := wish.get("parameters"):
        assert abs(math.log(found.parameters / parameters)) < math.log(2)
    assert found.memory.total < MACHINE.memory_bytes
    msgspec.json.encode(found)


def test_a_small_text_shortens_the_run_and_says_so() -> None:
    found = plan(MACHINE, minutes=600, data=DataFacts(tokens=300_000, vocab_size=256), try_it=False)
    assert found.epochs == pytest.approx(4, rel=0.01)
    assert "shorter than the time granted" in found.notes[0]
    assert "tokens = " in found.run_toml


def test_what_does_not_fit_into_memory_is_added_up_in_parts() -> None:
    tight = msgspec.structs.replace(MACHINE, memory_bytes=10**9)
    found = plan(tight, tokens=30_000_000, try_it=False)
    assert found.micro_batches > 1
    assert plan(MACHINE, tokens=30_000_000, try_it=False).micro_batches == 1
    tiny = plan(msgspec.structs.replace(MACHINE, memory_bytes=10**8), tokens=30_000_000, try_it=False)
    assert any("take a smaller one" in " ".join(note.split()) for note in tiny.notes)


def test_expectations_pass_through_the_runs_they_rest_on() -> None:
    assert expected(1e18, None).bits_per_byte == pytest.approx(0.8972, rel=0.01)
    assert expected(1.35e12, None).bits_per_byte == pytest.approx(2.43, rel=0.01)
    told, blind = expected(1e15, FLOORS), expected(1e15, None)
    assert told.bits_per_byte / blind.bits_per_byte == pytest.approx(2.5 / REFERENCE_XZ)
    assert told.high / told.bits_per_byte == pytest.approx(1 + BAND)
    assert blind.high / blind.bits_per_byte == pytest.approx(1 + 2 * BAND)


def test_the_trial_weighs_what_autograd_keeps() -> None:
    """Of layers alone it is linear: what one and three layers say holds for six."""
    config = model_config(64, 6, 256, 32)
    cost = try_shape(config, 2, 32, seconds=0.05)
    assert cost.layer_seconds > 0
    from quinze.training.machine import _kept_bytes

    model = Transformer(config)
    model.initialize(0)
    kept = _kept_bytes(model, torch.randint(256, (2, 33)))
    assert kept == pytest.approx((cost.layer_bytes * 6 + cost.ends_bytes) * 64, rel=0.01)
    assert memory(MACHINE, config, 2, 32, cost).activations >= kept


def test_a_machine_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure(seconds=0.05)
    assert all(rate > 1e8 for rate in found.rates.values())
    assert found.rate(64) == found.rates[64] == found.rate(1)
    assert (
        min(found.rates[128], found.rates[256]) <= found.rate(200) <= max(found.rates[128], found.rates[256])
    )
    assert found.memory_bytes > 1e8
    assert multiplied(model_config(64, 3, 1000, 64)) == 3 * (4 * 64 * 64 + 3 * 64 * 192) + 64_000


def test_what_cannot_be_is_refused() -> None:
    for wish in (
        {"parameters": 5},
        {"minutes": 0.0},
        {"tokens": 10},
        {"parameters": 10**6, "minutes": 5, "tokens": 10**6},
    ):
        with pytest.raises(InvalidRequestError):
            plan(MACHINE, **wish, try_it=False)  # type: ignore[arg-type]
