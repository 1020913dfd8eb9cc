"""Real runs of a tiny transformer, some seconds at most, with the doctor at their side.

`bedside(...)` is a plain training loop that calls the doctor as watch.py says; each planted failure changes
one thing of it.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from quinze.models.config import ModelConfig
from quinze.models.transformer import Transformer
from quinze.training.batch import IGNORE, Batch
from quinze.training.doctor import Doctor, DoctorSettings
from quinze.training.events import EvaluationReport, Finding, RunEnd, StepReport
from quinze.training.watch import Plan, Probe, Setup, SplitFacts, TokenizerFacts

QUICK = DoctorSettings(counted_tokens=200_000, scored_tokens=20_000)


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Tiny products are slower on two threads, and much slower on two busy ones."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(vocab_size: int = 96, hidden: int = 64, layers: int = 2, **changes: Any) -> ModelConfig:
    return ModelConfig(
        name="tiny", vocab_size=vocab_size, hidden_size=hidden, intermediate_size=2 * hidden,
        num_hidden_layers=layers, num_attention_heads=hidden // 32, num_key_value_heads=hidden // 32,
        head_dim=32, max_position_embeddings=512, rms_norm_eps=1e-5, rope_theta=10_000.0,
        rope_interleaved=False,
        **{"qk_norm": "head", "tie_word_embeddings": True, **changes},
    )  # fmt: skip


@dataclass
class Rows:
    """(N, T) ids and labels as a split, visited in an order that depends on seed and epoch."""

    ids: np.ndarray
    labels: np.ndarray
    seed: int = 0
    segments: np.ndarray | None = None
    reshuffle: bool = True
    """False: the planted failure "each epoch in the same order"."""

    @classmethod
    def of(cls, tokens: np.ndarray, length: int, **more: Any) -> Rows:
        count = (len(tokens) - 1) // length
        ids = tokens[: count * length].reshape(count, length)
        return cls(ids, tokens[1 : count * length + 1].reshape(count, length), **more)

    def facts(self) -> SplitFacts:
        return SplitFacts(len(self.ids), self.ids.size, int((self.labels != IGNORE).sum()))

    def batch(self, number: int, size: int) -> Batch:
        per_epoch = max(1, len(self.ids) // size)
        epoch, at = divmod(number, per_epoch)
        order = np.random.default_rng((self.seed, epoch if self.reshuffle else 0)).permutation(len(self.ids))
        rows = order[at * size : (at + 1) * size]
        segments = None if self.segments is None else self.segments[rows]
        return Batch(self.ids[rows], self.labels[rows], segments, rows, epoch)


@dataclass
class Run:
    """What came out."""

    findings: list[Finding]
    losses: list[float]
    doctor: Doctor
    overhead: float
    setup: Setup
    evaluations: list[EvaluationReport]

    def ids(self, *severities: str) -> set[str]:
        return {one.id for one in self.findings if one.severity in (severities or ("warning", "stop"))}


@dataclass
class Bed:
    """One run's knobs; the defaults are healthy."""

    train: Rows
    validation: Rows
    config: ModelConfig
    steps: int = 100
    batch: int = 16
    rate: float = 4e-3
    seed: int = 0
    method: str = "pretrain"
    tokenizer: TokenizerFacts | None = None
    evaluate_every: int = 25
    settings: DoctorSettings = QUICK
    prepare: Callable[[Transformer], None] | None = None
    """Done to the model before the run."""
    at_step: Callable[[int, Transformer], None] | None = None
    """Done before each step."""
    batches: Callable[[int, int], Batch] | None = None
    transformer: torch.nn.Module | None = None
    setup: dict[str, Any] = field(default_factory=dict)

    def run(self) -> Run:  # noqa: C901, a loop is read best in one piece
        torch.manual_seed(self.seed)
        model = self.transformer
        if model is None:
            model = Transformer(self.config, context_length=512)
            model.initialize(self.seed)
        if self.prepare:
            self.prepare(model)
        weights = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=self.rate, betas=(0.9, 0.95), weight_decay=0.0)
        per_step = self.batch * self.train.ids.shape[1]
        given = self.batches or (lambda step, micro: self.train.batch(step, self.batch))

        def loss_of(batch: Batch) -> torch.Tensor:
            segments = None if batch.segments is None else torch.from_numpy(batch.segments)
            logits = model(torch.from_numpy(batch.ids), segments)
            return F.cross_entropy(
                logits.flatten(0, 1), torch.from_numpy(batch.labels).flatten(), ignore_index=IGNORE
            )

        setup = Setup(
            method=self.method, model=self.config, transformer=model, batches=given, loss=loss_of,
            plan=Plan(
                steps=self.steps, tokens=self.steps * per_step, tokens_per_step=per_step, warmup=0.1,
                decay=0.3, peak_learning_rates={"matrices": self.rate}, evaluate_every=self.evaluate_every,
            ),
            train=self.train.facts(), validation=self.validation.facts(),
            validation_batches=lambda number: self.validation.batch(number, self.batch),
            tokenizer=self.tokenizer,
        )  # fmt: skip
        setup = dataclasses.replace(setup, **self.setup)
        doctor = Doctor(self.settings)
        findings = doctor.before(setup)
        losses: list[float] = []
        evaluations: list[EvaluationReport] = []
        overhead = started = 0.0
        began = time.perf_counter()
        best = math.inf
        for step in range(1, self.steps + 1):
            if any(one.severity == "stop" for one in findings):
                break
            started = time.perf_counter()
            progress = step / self.steps
            scale = min(1.0, progress / 0.1, max(0.02, (1 - progress) / 0.3))
            for group in optimizer.param_groups:
                group["lr"] = self.rate * scale
            if self.at_step:
                self.at_step(step, model)
            batch = given(step - 1, 0)
            waited = time.perf_counter() - started
            optimizer.zero_grad()
            loss = loss_of(batch)
            if loss.requires_grad:
                loss.backward()
            norm = float(torch.nn.utils.clip_grad_norm_(weights, 1.0)) if weights else 0.0
            looked = time.perf_counter()
            allowed = doctor.allow(step, float(loss.detach()), norm)
            overhead += time.perf_counter() - looked
            if allowed:
                optimizer.step()
            losses.append(float(loss.detach()))
            evaluation = None
            if step % self.evaluate_every == 0:
                with torch.no_grad():
                    held = float(
                        np.mean([float(loss_of(self.validation.batch(i, self.batch))) for i in (0, 1)])
                    )
                evaluation = EvaluationReport(
                    step=step, seconds=0.0, split="validation", loss=held, bits_per_byte=None,
                    best=held < best, train_loss=float(np.mean(losses[-self.evaluate_every :])),
                )  # fmt: skip
                best = min(best, held)
                evaluations.append(evaluation)
            took = time.perf_counter() - started
            report = StepReport(
                step=step, tokens=step * per_step, epoch=step * self.batch / len(self.train.ids),
                seconds=time.perf_counter() - began, loss=losses[-1], learning_rate=scale, grad_norm=norm,
                tokens_per_second=per_step / took, progress=progress, eta_seconds=0.0,
            )  # fmt: skip
            probe = Probe(
                report, skipped=not allowed, rows=batch.rows.tolist(), epoch=batch.epoch, data_seconds=waited,
                step_seconds=took, evaluation=evaluation,
            )  # fmt: skip
            looked = time.perf_counter()
            findings += doctor.step(probe)
            overhead += time.perf_counter() - looked
        spent = time.perf_counter() - began
        findings += doctor.after(
            RunEnd(
                reason="finished", step=len(losses), seconds=spent, best_step=None, best_loss=None, model=None
            )
        )
        return Run(findings, losses, doctor, overhead / max(spent, 1e-9), setup, evaluations)


@pytest.fixture(scope="package")
def sentences() -> str:
    """Text with the order of language: a small grammar's sentences, 500,000 characters."""
    rng = np.random.default_rng(1)
    nouns = [
        "king",
        "queen",
        "ship",
        "garden",
        "river",
        "letter",
        "soldier",
        "morning",
        "candle",
        "stranger",
        "brother",
        "mountain",
    ]
    verbs = ["sees", "follows", "forgets", "carries", "answers", "praises", "leaves", "remembers"]
    adjectives = ["old", "silent", "golden", "bitter", "gentle", "broken", "distant", "proud"]
    places = ["in the hall", "by the sea", "before dawn", "without a word", "at the gate", "under the oak"]

    def noun() -> str:
        name = rng.choice(nouns)
        return f"the {rng.choice(adjectives)} {name}" if rng.random() < 0.5 else f"the {name}"

    lines: list[str] = []
    length = 0
    while length < 500_000:
        line = f"{noun()} {rng.choice(verbs)} {noun()}"
        line += f" {rng.choice(places)}." if rng.random() < 0.6 else "."
        lines.append(line.capitalize())
        length += len(line) + 1
    return "\n".join(lines)


@pytest.fixture(scope="package")
def characters(sentences: str) -> Callable[[str], np.ndarray]:
    """Text -> ids (N,), a character each."""
    table = {c: i + 2 for i, c in enumerate(sorted(set(sentences)))}
    return lambda text: np.array([table.get(c, 1) for c in text], np.int64)


@pytest.fixture(scope="package")
def plain_text(sentences: str) -> TokenizerFacts:
    """What the doctor may know of that tokenizer."""
    names = ["", "?", *sorted(set(sentences))]
    return TokenizerFacts(len(names), decode=lambda ids: "".join(names[i] for i in ids))


@pytest.fixture(scope="package")
def bed(
    sentences: str, characters: Callable[[str], np.ndarray], plain_text: TokenizerFacts
) -> Callable[..., Bed]:
    """`bed(length=64, text=..., **knobs)`: a healthy run, to be changed."""

    def make(length: int = 64, text: str = sentences, held: str | None = None, **knobs: Any) -> Bed:
        cut = len(text) * 9 // 10
        train, validation = (text[:cut], text[cut:]) if held is None else (text, held)
        seed = knobs.get("seed", 0)
        given = {
            "train": Rows.of(characters(train), length, seed=seed),
            "validation": Rows.of(characters(validation), length, seed=seed),
            "config": tiny(vocab_size=plain_text.vocab_size),
            "tokenizer": plain_text,
        }
        return Bed(**{**given, **knobs})

    return make


@pytest.fixture(scope="package")
def shape(plain_text: TokenizerFacts) -> Callable[..., ModelConfig]:
    """`shape(hidden=64, layers=2, **changes)`: a config with the vocabulary of the test text."""
    return lambda **changes: tiny(vocab_size=plain_text.vocab_size, **changes)
