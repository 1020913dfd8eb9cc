"""What the watcher is shown before a run begins (watch.py's Setup)."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from quinze.training import measuring
from quinze.training.batch import Batch
from quinze.training.building import Parts
from quinze.training.losses import Tensors
from quinze.training.watch import Plan, Setup, SplitFacts, TokenizerFacts


def setup_of(parts: Parts, resumed_step: int, folder: Path) -> Setup:
    """Everything of it is what the run itself will use."""
    config = parts.config
    rows = measuring.validation_rows(parts)

    def validation_batch(number: int) -> Batch:
        turns = max(1, math.ceil(len(rows) / config.batch.rows))
        return measuring.validation_batch(parts, rows, number % turns)

    def loss(batch: Batch) -> torch.Tensor:
        with measuring.precision(parts):
            found = parts.method.measure(parts.transformer, Tensors.of(batch, parts.world.device))
        return found.total / max(parts.method.weight(batch), 1)

    return Setup(
        method=config.method,
        model=parts.transformer.config,
        transformer=parts.transformer,
        batches=parts.batches.at,
        loss=loss,
        plan=_plan(parts),
        train=_facts(parts, config.data.train),
        validation=_facts(parts, config.data.validation) if len(rows) else None,
        validation_batches=validation_batch if len(rows) else None,
        tokenizer=_tokenizer(parts),
        groups={
            group.name: [p for p in group.parameters if isinstance(p, torch.nn.Parameter)]
            for group in parts.optimizer.groups
        },
        base_loaded=parts.base is not None,
        lora=parts.lora is not None,
        rank=parts.world.rank,
        world_size=parts.world.size,
        folder=folder,
        resumed_step=resumed_step,
    )


def _plan(parts: Parts) -> Plan:
    config = parts.config
    schedule, each = config.schedule, parts.tokens_per_step
    steps = schedule.steps or (math.ceil(schedule.tokens / each) if schedule.tokens else None)
    trained = sum(p.numel() for p in parts.trained.values())
    return Plan(
        steps=steps,
        tokens=None if steps is None else steps * each,
        seconds=None if schedule.minutes is None else schedule.minutes * 60,
        tokens_per_step=each,
        warmup=schedule.warmup,
        decay=1 - schedule.warmup if schedule.kind == "cosine" else schedule.decay,
        final_learning_rate=schedule.final,
        peak_learning_rates={group.name: group.lr for group in parts.optimizer.groups},
        optimizer=config.optimizer.kind or "adamw",
        evaluate_every=None if steps is None else max(1, steps // config.evaluation.times),
        checkpoint_bytes=12 * trained,
        checkpoints_kept=config.checkpoints.keep + 2,
    )


def _facts(parts: Parts, split: str) -> SplitFacts:
    counts = parts.data.manifest.splits[split]
    return SplitFacts(
        rows=counts.rows,
        tokens=counts.tokens,
        supervised_tokens=counts.supervised_tokens,
        bytes=counts.bytes,
        documents=counts.documents,
    )


def _tokenizer(parts: Parts) -> TokenizerFacts:
    manifest, tokenizer = parts.data.manifest, parts.tokenizer
    if tokenizer is None:
        ends = () if manifest.eos_id is None else (manifest.eos_id,)
        return TokenizerFacts(manifest.vocab_size, ends, sha256=manifest.tokenizer_sha256)
    return TokenizerFacts(
        vocab_size=manifest.vocab_size,
        eos_ids=tuple(sorted(tokenizer.stop_ids)),
        bos_id=tokenizer.bos_id,
        unk_id=tokenizer.id("<unk>"),
        sha256=manifest.tokenizer_sha256,
        decode=tokenizer.decode,
    )
