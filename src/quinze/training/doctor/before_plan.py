"""Before the run, the plan: B5 budget, B6 schedule and rates, B7 shapes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from quinze.training.doctor.look import Look
from quinze.training.doctor.words import finding
from quinze.training.events import Finding


def budget(look: Look) -> Iterator[Finding]:
    """B5: epochs, tokens for each weight, steps."""
    setup, plan = look.setup, look.setup.plan
    tokens = plan.tokens or (plan.steps or 0) * plan.tokens_per_step
    if not tokens:
        return
    epochs = tokens / max(1, setup.train.tokens)
    if setup.method == "pretrain" and epochs > look.settings.epochs:
        far = epochs > 4 * look.settings.epochs
        yield finding("B5.epochs", "warning" if far else "info", tokens=setup.train.tokens, epochs=epochs)
    if setup.method == "pretrain" and not setup.base_loaded:
        multiplied = matmul_parameters(look)
        if tokens < multiplied / 2:
            yield finding(
                "B5.few-tokens", "info", tokens=tokens, parameters=multiplied, ratio=tokens / multiplied
            )
    steps = plan.steps or (tokens // plan.tokens_per_step if plan.tokens_per_step else 0)
    if setup.method == "pretrain" and 0 < steps < 200:
        yield finding("B5.short", "info", steps=steps, batch=max(1, tokens // 400))


def matmul_parameters(look: Look) -> int:
    """Weights that every token is multiplied with: all but an embedding that is only looked up."""
    model = look.setup.model
    table = model.vocab_size * model.hidden_size
    return model.parameters - (0 if model.tie_word_embeddings else table)


def disk(look: Look) -> Iterator[Finding]:
    """B5: room for one checkpoint more than are kept, for the new one is written before an old one goes."""
    setup = look.setup
    if setup.folder is None or not setup.plan.checkpoint_bytes:
        return
    place = next((p for p in (setup.folder, *setup.folder.parents) if p.exists()), None)
    needed = setup.plan.checkpoint_bytes * (setup.plan.checkpoints_kept + 2)
    if place is not None and (free := shutil.disk_usage(place).free) < needed:
        yield finding("B5.disk", "stop", free=free / 1e9, needed=needed / 1e9)


def schedule(look: Look) -> Iterator[Finding]:
    """B6: warm-up and decay fit into the run, and the rate comes down in the end."""
    plan = look.setup.plan
    if plan.warmup + plan.decay > 1.0001:
        yield finding("B6.schedule", "warning", warmup=plan.warmup, decay=plan.decay)
    if plan.final_learning_rate > 0.3:
        yield finding("B6.no-decay", "info", final=plan.final_learning_rate)


ADAM_BEST = 3e-3
"""A good AdamW peak for matrices at width 256; it falls with 1 / width (Yang et al. 2022, muP)."""
MUON_BEST = 0.02
"""Muon's updates are scaled to their matrix, so width hardly matters (nanochat, modded-nanogpt)."""
LENIENT = ("embed", "vector", "scalar", "norm", "head")
BAND = 30.0
"""A rate that many times above or below is no choice but a slip."""


def learning_rates(look: Look) -> Iterator[Finding]:
    """B6: each group's peak within a wide band around what works at this width."""
    setup, width = look.setup, look.setup.model.hidden_size
    for group, rate in setup.plan.peak_learning_rates.items():
        muon = group.lower().startswith("muon")
        best = MUON_BEST if muon else ADAM_BEST * 256 / width
        if setup.base_loaded and not setup.lora:
            best /= 30
        # An embedding or a norm bears more than a matrix does.
        high = best * BAND if muon or setup.base_loaded else max(best * 10, 0.1)
        if any(kind in group for kind in LENIENT):
            high = max(high * 10, 1.5)
        low = best / (BAND * 10)
        if rate > high:
            yield finding(
                "B6.rate-high", "warning", group=group, rate=rate, width=width, limit=high, suggested=best
            )
        elif 0 < rate < low:
            yield finding(
                "B6.rate-low", "info", group=group, rate=rate, width=width, limit=low, suggested=best
            )


def shapes(look: Look) -> Iterator[Finding]:
    """B7: rows that GGUF's small formats can hold."""
    model = look.setup.model
    rows = {
        "hidden_size": model.hidden_size,
        "intermediate_size": model.intermediate_size,
        "heads * head_dim": model.num_attention_heads * model.head_dim,
    }
    for id_, block in (("B7.not-quantizable", 32), ("B7.no-k-quants", 256)):
        wrong = {name: size for name, size in rows.items() if size % block}
        if wrong:
            sizes = ", ".join(str(size) for size in sorted(set(wrong.values())))
            yield finding(id_, "info", sizes=sizes, names=", ".join(wrong))
            return
