"""What a run shows to the one who watches it, and when. The trainer calls; the doctor (doctor/) answers.

    findings = watcher.before(setup)            once, before a weight moves
    each step:
        ... gradients are there, clipped or not ...
        if watcher.allow(step, loss, norm):     before the optimizer moves; False: leave this step out
            optimizer.step()
        findings = watcher.step(probe)          after it, always, also after a step that was left out
    findings = watcher.after(end)

A finding of severity "stop" ends the run, with its best checkpoint kept. On several processes each has its
own watcher; the numbers handed over are those of all processes together, so all decide alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from quinze.models.config import ModelConfig
from quinze.training.batch import Batch
from quinze.training.events import EvaluationReport, Finding, RunEnd, SampleReport, StepReport

if TYPE_CHECKING:
    import torch

Method = Literal["pretrain", "sft", "dpo"]


@dataclass(frozen=True, slots=True)
class SplitFacts:
    """What is known of one part of the data, from its manifest."""

    rows: int
    tokens: int
    """All that are read, padding left out."""
    supervised_tokens: int
    bytes: int | None = None
    """UTF-8 bytes of its text; None where nobody counted."""
    documents: int | None = None


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """What the doctor asks of a tokenizer."""

    vocab_size: int
    eos_ids: tuple[int, ...] = ()
    pad_id: int | None = None
    """None: rows are packed, or padded with a label of IGNORE only."""
    bos_id: int | None = None
    unk_id: int | None = None
    sha256: str = ""
    decode: Callable[[Sequence[int]], str] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """How long the run shall be and how fast it learns. What is not known is None."""

    steps: int | None
    """The whole run; None: until `seconds` are over."""
    tokens: int | None = None
    seconds: float | None = None
    tokens_per_step: int = 0
    """Of all processes and micro-batches."""
    warmup: float = 0.0
    """Share of the run, 0 to 1."""
    decay: float = 0.0
    """Share of the run in which the rate falls, at its end; 1 - warmup for a cosine."""
    final_learning_rate: float = 0.0
    """As a share of the peak."""
    peak_learning_rates: dict[str, float] = field(default_factory=dict)
    """Of each group of weights, by its name; a group of Muon's has a name that begins with "muon"."""
    optimizer: str = "adamw"
    evaluate_every: int | None = None
    checkpoint_bytes: int | None = None
    """One checkpoint on disk."""
    checkpoints_kept: int = 2


@dataclass(frozen=True, slots=True)
class Setup:
    """A run before it begins."""

    method: Method
    model: ModelConfig
    transformer: torch.nn.Module
    """`transformer(ids (B, T)) -> logits (B, T, V)`; on its device, in training mode or not."""
    batches: Callable[[int, int], Batch]
    """(step from 0, micro) -> what it learns from: exactly what the run will see."""
    loss: Callable[[Batch], torch.Tensor]
    """The method's own mean loss of a batch, with its graph; nothing is kept of the call."""
    plan: Plan
    train: SplitFacts
    validation: SplitFacts | None = None
    validation_batches: Callable[[int], Batch] | None = None
    """Number from 0 -> a batch of the validation split; deterministic."""
    tokenizer: TokenizerFacts | None = None
    groups: dict[str, list[torch.nn.Parameter]] = field(default_factory=dict)
    """Trainable parameters by group; empty: all together."""
    base_loaded: bool = False
    """The weights come from a model that was trained before."""
    missing_keys: tuple[str, ...] = ()
    """Weights of the model that the file loaded did not have."""
    unexpected_keys: tuple[str, ...] = ()
    lora: bool = False
    rank: int = 0
    world_size: int = 1
    folder: Path | None = None
    """Of the run, to look how much disk is free."""
    resumed_step: int = 0


@dataclass(frozen=True, slots=True)
class Probe:
    """One step, just after it."""

    report: StepReport
    skipped: bool = False
    """`allow` said no, or something else kept the optimizer from moving."""
    rows: Sequence[int] = ()
    """Which rows of the split were read (this process's)."""
    epoch: int | None = None
    """Of these rows, from 0 (`Batch.epoch`); None: as the report rounds it."""
    data_seconds: float = 0.0
    """Of this step, waited for its batches."""
    step_seconds: float = 0.0
    """Of this step in all, waiting included."""
    evaluation: EvaluationReport | None = None
    """If one was made after this step."""
    samples: Sequence[SampleReport] = ()
    memory_bytes: int | None = None
    """Of this process, now."""


class Watcher(Protocol):
    """Whoever sees all of it and may stop it."""

    def before(self, setup: Setup) -> list[Finding]:
        """Looks at everything before the first step, and leaves every weight and random state as it was."""
        ...

    def allow(self, step: int, loss: float, grad_norm: float | None) -> bool:
        """Whether the optimizer may take this step (from 1); gradients are there, weights have not moved."""
        ...

    def step(self, probe: Probe) -> list[Finding]: ...

    def after(self, end: RunEnd) -> list[Finding]: ...

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts: what a resumed run needs to judge as an unbroken one."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Call after `before`."""
        ...
