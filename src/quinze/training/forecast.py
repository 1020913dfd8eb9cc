"""Before a run: what shape of model fits the time, text or size that you name, and what will come of it.

    machine = measure()                                     one second
    proposal = plan(machine, minutes=90, data=DataFacts(tokens=27_000_000, bytes=90_000_000))
    proposal.run_toml                                       the beginning of a run's file

Rules of thumb of others are named where they stand; the expected bits a byte rest on EXPECTED, a handful of
real runs (expectation.py), and on the triples table of your own text. See docs/explanation/forecasts.md.

N weights that are multiplied (layers and head), D tokens read, about 6 N D operations in all.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import msgspec

from quinze.errors import InvalidRequestError
from quinze.models.config import ModelConfig
from quinze.models.shapes import shapes
from quinze.training.doctor.floors import Floors
from quinze.training.expectation import Expectation, expected
from quinze.training.machine import Machine, ShapeCost, try_shape

TOKENS_PER_WEIGHT = 5.0
"""D / N that is aimed at in a given time. nanochat measured 10.5 as the best; too large a model costs
little, and may be trained on."""
BEST_TOKENS_PER_WEIGHT = 10.0
"""Where the size is named, and nothing limits the tokens."""
EPOCHS = 4.0
"""Repeating text up to four times is nearly as good as new text (Muennighoff et al. 2023)."""
USED = 0.93
"""Of the time granted: the rest goes to evaluations and checkpoints."""
EFFICIENCY = 0.55
"""Speed of a whole step by that of its products alone, until the shape itself was tried."""
SHAPES = (
    (64, 3),
    (96, 4),
    (128, 4),
    (192, 5),
    (256, 6),
    (384, 8),
    (512, 8),
    (768, 12),
    (1024, 16),
    (1536, 20),
)
"""(hidden size, layers): multiples of 32, so that every row can be quantized; from 256 mostly of 256, which
the K formats of GGUF need."""


class DataFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the text; None where it is not prepared yet."""

    tokens: int | None = None
    bytes: int | None = None
    vocab_size: int | None = None
    floors: Floors | None = None
    sequence_length: int | None = None
    """Tokens of a row, fixed when the text was prepared."""
    folder: Path | None = None


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes at the fullest moment."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    program: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.program


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """A run that can be begun."""

    name: str
    parts: dict[str, int]
    """Parameters: embedding, attention, mlp, norms, head (0 if tied)."""
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    sequence_length: int
    rows: int
    micro_batches: int
    steps: int
    tokens: int
    epochs: float | None
    flops_per_token: float
    tokens_per_second: float
    seconds: float
    memory: Memory
    disk_bytes: int
    expected: Expectation
    notes: tuple[str, ...]
    run_toml: str

    @property
    def parameters(self) -> int:
        return sum(self.parts.values())


def plan(
    machine: Machine,
    *,
    parameters: int | None = None,
    minutes: float | None = None,
    tokens: int | None = None,
    data: DataFacts | None = None,
    try_it: bool = True,
) -> Proposal:
    """A run for one of: so many parameters, so many minutes, so many tokens; nothing named: an hour.

    try_it  measures the chosen shape (two seconds or so) instead of guessing its speed and memory
    Raises InvalidRequestError for what cannot be.
    """
    data = data or DataFacts()
    _check(parameters, minutes, tokens)
    if parameters is None and minutes is None and tokens is None:
        minutes = 60.0
    config = _choose(machine, parameters, minutes, tokens, data)
    rows, length = _rows(_tokens(machine, config, minutes, tokens, data, None), config, data.sequence_length)
    cost = try_shape(config, rows, length, device=machine.device) if try_it else None
    read = _tokens(machine, config, minutes, tokens, data, cost)
    rows, length = _rows(read, config, data.sequence_length)
    return _proposal(machine, config, rows, length, read, data, cost, minutes)


def _check(parameters: int | None, minutes: float | None, tokens: int | None) -> None:
    for name, value, least in (("parameters", parameters, 10_000), ("minutes", minutes, 0.1)):
        if value is not None and not (least <= value < 1e12):
            raise InvalidRequestError(f"{value:,} {name} are too few or too many to plan for.", param=name)
    if tokens is not None and tokens < 10_000:
        raise InvalidRequestError(f"From {tokens:,} tokens no model can be trained.", param="tokens")
    if parameters is not None and minutes is not None and tokens is not None:
        raise InvalidRequestError("Size, time and tokens together leave nothing to plan; name two at most.")


def model_config(hidden: int, layers: int, vocab_size: int, length: int) -> ModelConfig:
    """The portable shape (Qwen 3's): SwiGLU three times as wide, heads of 64 (of 32 in narrow models), half
    as many key/value heads from four heads on, the embedding shared with the head."""
    head = 64 if hidden >= 256 else 32
    heads = hidden // head
    inner = 3 * hidden
    return ModelConfig(
        name=f"d{hidden}-L{layers}", vocab_size=vocab_size, hidden_size=hidden, intermediate_size=inner,
        num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=heads // 2 if heads >= 4 and heads % 2 == 0 else heads, head_dim=head,
        max_position_embeddings=length, rms_norm_eps=1e-6, rope_theta=10_000.0, rope_interleaved=False,
        tie_word_embeddings=hidden < 1024, architecture="qwen3", qk_norm="head",
    )  # fmt: skip


def multiplied(config: ModelConfig) -> int:
    """N: weights that every token is multiplied with; a head that is tied counts, a mere look-up does not."""
    table = config.vocab_size * config.hidden_size
    matrices = sum(math.prod(s) for s in shapes(config).values() if len(s) == 2)
    return matrices if config.tie_word_embeddings else matrices - table


def flops_per_token(config: ModelConfig, length: int) -> float:
    """6 N, and causal attention's 6 L d T (each score and each sum of values, forth and twice back)."""
    width = config.num_attention_heads * config.head_dim
    return 6.0 * multiplied(config) + 6.0 * config.num_hidden_layers * width * length


def vocabulary(operations: float, blocks: int) -> int:
    """Tokens of a new tokenizer: the head must not eat the budget (32,768 take 62% of it at width 256)."""
    if blocks < 500_000:
        return 1024
    if blocks < 2_000_000:
        return 2048
    return next((v for limit, v in ((3e15, 4096), (1e17, 8192), (1e19, 16384)) if operations < limit), 32768)


def _choose(
    machine: Machine, parameters: int | None, minutes: float | None, tokens: int | None, data: DataFacts
) -> ModelConfig:
    """Of SHAPES the one whose tokens a weight come nearest to TOKENS_PER_WEIGHT, or whose size is named."""
    found: list[tuple[float, ModelConfig]] = []
    for hidden, layers in SHAPES:
        blocks = multiplied(model_config(hidden, layers, 1, 256))
        rate = machine.rate(hidden) * EFFICIENCY
        budget = (
            (minutes or 60.0) * 60 * USED * rate if minutes else 6.0 * blocks * TOKENS_PER_WEIGHT * blocks
        )
        size = data.vocab_size or vocabulary(budget, blocks)
        config = model_config(hidden, layers, size, 256)
        if parameters is not None:
            found.append((abs(math.log(config.parameters / parameters)), config))
            continue
        read = _tokens(machine, config, minutes, tokens, data, None)
        found.append((abs(math.log(read / multiplied(config) / TOKENS_PER_WEIGHT)), config))
    return min(found, key=lambda one: one[0])[1]


def _tokens(
    machine: Machine,
    config: ModelConfig,
    minutes: float | None,
    tokens: int | None,
    data: DataFacts,
    cost: ShapeCost | None,
) -> int:
    """D, in time and in text."""
    if tokens is not None:
        return tokens
    if minutes is not None:
        read = minutes * 60 * USED * speed(machine, config, 256, 16_384, cost)
    else:
        read = multiplied(config) * BEST_TOKENS_PER_WEIGHT
    if data.tokens:
        read = min(read, EPOCHS * data.tokens)
    return max(int(read), 10_000)


def _rows(tokens: int, config: ModelConfig, fixed: int | None = None) -> tuple[int, int]:
    """(rows, tokens of a row): some 1,500 steps, 1,024 to 16,384 tokens each on small machines; rows of 128
    tokens while everything is short, then 256, and more where width makes attention cheap. `fixed`: the rows
    that there are already."""
    length = fixed or (128 if tokens < 4_000_000 else 256 if config.hidden_size < 512 else 512)
    per_step = 2 ** round(math.log2(max(tokens / 1500, 1)))
    per_step = min(max(per_step, 1024), 16_384 if config.hidden_size < 512 else 262_144)
    return max(1, per_step // length), length


def speed(machine: Machine, config: ModelConfig, length: int, per_step: int, cost: ShapeCost | None) -> float:
    """Tokens a second, the optimizer (Muon) included."""
    if cost is None:
        each = flops_per_token(config, length) / (machine.rate(config.hidden_size) * EFFICIENCY)
    else:
        each = cost.layer_seconds * config.num_hidden_layers + cost.ends_seconds
    return 1.0 / (each + _optimizer_seconds(machine, config, cost) / per_step)


def _optimizer_seconds(machine: Machine, config: ModelConfig, cost: ShapeCost | None) -> float:
    """Of one step. Untried: Muon's five Newton-Schulz iterations for the layers' matrices (4 aab + 2 aaa, a
    the shorter side), and reading and writing weights, gradients and moments."""
    if cost is not None:
        return cost.layer_step_seconds * config.num_hidden_layers + cost.ends_step_seconds
    operations = 0.0
    for name, shape in shapes(config).items():
        if len(shape) == 2 and ".layers." in name:
            a, b = sorted(shape)
            operations += 5 * (4.0 * a * a * b + 2.0 * a**3)
    moved = 4 * 7 * config.parameters
    return operations / machine.rate(config.hidden_size) + moved / machine.bandwidth


def memory(machine: Machine, config: ModelConfig, rows: int, length: int, cost: ShapeCost | None) -> Memory:
    """float32: weights, gradients, Muon's one moment (AdamW's two), and what the way back needs."""
    total = config.parameters
    blocks = sum(math.prod(s) for n, s in shapes(config).items() if len(s) == 2 and ".layers." in n)
    if cost is None:
        layer = 4.0 * (14 * config.hidden_size + 5 * config.intermediate_size)
        ends = 4.0 * (3 * config.hidden_size + 2 * config.vocab_size)
    else:
        layer, ends = cost.layer_bytes, cost.ends_bytes + 4.0 * config.vocab_size
    kept = rows * length * (layer * config.num_hidden_layers + ends)
    return Memory(
        weights=4 * total,
        gradients=4 * total,
        optimizer=4 * blocks + 8 * (total - blocks),
        activations=int(kept),
        program=machine.program_bytes,
    )


def parts_of(config: ModelConfig) -> dict[str, int]:
    """Parameters by part."""
    found = dict.fromkeys(("embedding", "attention", "mlp", "norms", "head"), 0)
    for name, shape in shapes(config).items():
        part = (
            "embedding" if "embed" in name
            else "head" if name.startswith("lm_head")
            else "norms" if "norm" in name
            else "attention" if "self_attn" in name
            else "mlp"
        )  # fmt: skip
        found[part] += math.prod(shape)
    return found


def _proposal(
    machine: Machine,
    config: ModelConfig,
    rows: int,
    length: int,
    read: int,
    data: DataFacts,
    cost: ShapeCost | None,
    minutes: float | None,
) -> Proposal:
    config = replace(config, max_position_embeddings=length)
    per_step = rows * length
    steps = max(1, read // per_step)
    rate = speed(machine, config, length, per_step, cost)
    micro = 1
    used = memory(machine, config, rows, length, cost)
    while used.total > 0.8 * machine.memory_bytes and rows // micro > 1:
        micro *= 2
        used = memory(machine, config, max(1, rows // micro), length, cost)
    operations = flops_per_token(config, length) * steps * per_step
    return Proposal(
        name=config.name,
        parts=parts_of(config),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        vocab_size=config.vocab_size,
        sequence_length=length,
        rows=max(1, rows // micro),
        micro_batches=micro,
        steps=steps,
        tokens=steps * per_step,
        epochs=steps * per_step / data.tokens if data.tokens else None,
        flops_per_token=flops_per_token(config, length),
        tokens_per_second=rate,
        seconds=steps * per_step / rate / USED,
        memory=used,
        disk_bytes=4 * config.parameters + 5 * 12 * config.parameters,
        expected=expected(operations, data.floors),
        notes=tuple(_notes(machine, config, steps * per_step, data, used, minutes, rate)),
        run_toml=_toml(config, max(1, rows // micro), micro, steps * per_step, data, minutes),
    )


def _notes(
    machine: Machine,
    config: ModelConfig,
    read: int,
    data: DataFacts,
    used: Memory,
    minutes: float | None,
    rate: float,
) -> list[str]:
    found: list[str] = []
    if data.tokens and read > EPOCHS * data.tokens * 0.99:
        shorter = minutes is not None and read / rate < minutes * 60 * 0.8
        found.append(
            f"The text's {data.tokens:,} tokens are read {read / data.tokens:.1f} times; more teaches little"
            + (", so the run is shorter than the time granted." if shorter else ".")
        )
    if used.total > 0.8 * machine.memory_bytes:
        found.append(
            f"It needs {used.total / 1e9:.1f} GB, and {machine.memory_bytes / 1e9:.1f} GB are free: take a"
            " smaller one."
        )
    ratio = read / multiplied(config)
    if ratio < 1:
        found.append(f"Only {ratio:.1f} tokens a weight: a smaller model would end lower.")
    return found


def _toml(
    config: ModelConfig, rows: int, micro: int, tokens: int, data: DataFacts, minutes: float | None
) -> str:
    """The tables of a run's file that the plan decides; everything else keeps its default."""
    folder = str(data.folder) if data.folder else "DATA"
    escaped = folder.replace("\\", "\\\\").replace('"', '\\"')
    short = minutes is not None and data.tokens is not None and tokens >= 0.99 * EPOCHS * data.tokens
    length = f"minutes = {minutes:g}" if minutes is not None and not short else f"tokens = {tokens}"
    return "\n".join(
        [
            'method = "pretrain"',
            "",
            "[data]",
            f'folder = "{escaped}"',
            "",
            "[model]",
            *(
                f"{name} = {getattr(config, name)}"
                for name in (
                    "hidden_size",
                    "intermediate_size",
                    "num_hidden_layers",
                    "num_attention_heads",
                    "num_key_value_heads",
                    "head_dim",
                )
            ),
            f"tie_word_embeddings = {str(config.tie_word_embeddings).lower()}",
            "",
            "[batch]",
            f"rows = {rows}",
            f"micro_batches = {micro}",
            "",
            "[schedule]",
            length,
            "",
        ]
    )
