"""How fast this machine computes, measured in a second or two with the engine's own kernels.

Given types of weights and a number of threads; runs small decoders and returns rates. What they tell about a
model is said in fit.py. Knows nothing of files: who keeps a profile is told when it is stale.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from quinze import native
from quinze.engine.engine import Engine
from quinze.engine.packed import packed_in_memory
from quinze.formats.checkpoint import Bytes, Checkpoint, Tensor, TensorType
from quinze.models.config import ModelConfig
from quinze.models.shapes import shapes
from quinze.models.weights import Model

Clock = Callable[[], float]

BLOCK = 256
"""Tokens that are read at once."""
LARGE_BYTES, SMALL_BYTES = 80e6, 6e6
"""Weights of the two decoders of each type: larger than a processor's caches, and small enough for them."""
WIDE, NARROW = 2048, 512
"""Their hidden sizes."""
DEPTH = 1024
"""Tokens of context at which attention is measured."""


class Rates(msgspec.Struct, frozen=True):
    """Of one type of weights."""

    decode: float
    """Bytes of weights a second, read for one token after the other, from memory."""
    decode_cached: float
    """The same where all weights lie in the processor's caches."""
    prefill: float
    """Multiplications a second, many tokens at once, in a model of hidden size WIDE."""
    prefill_narrow: float
    """The same at NARROW, where norms and activations count for more."""


class Profile(msgspec.Struct, frozen=True):
    """A machine, as the engine sees it."""

    processor: str
    threads: int
    version: int
    rates: dict[str, Rates]
    layer_seconds: float
    """Of one token in one layer that is as thin as can be."""
    element_seconds: float
    """Of one more number in it, beside the matrices: norms, rotations, activations."""
    attention_decode: float
    """Seconds for one number of one query and one key, one token after the other, from memory."""
    attention_cached: float
    """The same where the keys lie in the processor's caches."""
    attention_prefill: float
    """The same, many tokens at once."""


VERSION = 5
"""Of the way in which it is measured; another makes kept profiles stale."""


@dataclass(frozen=True, slots=True)
class Shape:
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int


def measure(
    types: Iterable[TensorType],
    threads: int,
    before: Profile | None = None,
    *,
    clock: Clock = time.perf_counter,
) -> Profile:
    """A profile that knows these types too. What `before` knows of the same machine is taken over."""
    name = processor()
    known = before if before and is_of(before, name, threads) else None
    rates = dict(known.rates) if known else {}
    for kind in types:
        if kind.name not in rates:
            rates[kind.name] = _rates(kind, threads, clock)
    if known:
        return msgspec.structs.replace(known, rates=rates)
    layer, element = _overheads(threads, clock)
    decode, _ = _attention(16, threads, layer, clock)
    cached, prefill = _attention(3, threads, layer, clock)
    return Profile(name, threads, VERSION, rates, layer, element, decode, cached, prefill)


def is_of(profile: Profile, name: str, threads: int) -> bool:
    """Whether it was measured on this processor, in this way, with so many threads."""
    return (profile.processor, profile.threads, profile.version) == (name, threads, VERSION)


def processor() -> str:
    """Its name as the system tells it, with what else tells two of them apart."""
    fields: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    except OSError:
        return "unknown"
    family = f"family {fields.get('cpu family', '?')} model {fields.get('model', '?')}"
    kernels = "avx2" if native.cpu_has_avx2() else "scalar"
    return f"{fields.get('model name', 'unknown')} ({family}, {kernels})"


def elements(shape: Shape | ModelConfig) -> float:
    """Numbers that are handled beside the matrices for one token, over all layers."""
    if isinstance(shape, ModelConfig):
        shape = shape_of(shape)
    heads = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    return shape.layers * (4 * shape.hidden + 2 * heads + 3 * shape.intermediate)


def read_whole(config: ModelConfig) -> list[str]:
    """The matrices that every token of a prompt passes through.

    Of the last layer only keys and values are wanted of all tokens, and the output is for the last one alone.
    """
    last = f"model.layers.{config.num_hidden_layers - 1}."
    skipped = tuple(f"{last}{part}" for part in ("self_attn.o_proj", "mlp."))
    return [
        name
        for name, shape in shapes(config).items()
        if len(shape) == 2 and name.startswith("model.layers.") and not name.startswith(skipped)
    ]


def shape_of(config: ModelConfig) -> Shape:
    return Shape(
        config.num_hidden_layers,
        config.hidden_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
        config.num_experts_per_tok * config.moe_intermediate_size or config.intermediate_size,
    )


def _rates(kind: TensorType, threads: int, clock: Clock) -> Rates:
    per_weight = kind.bytes / kind.block
    large = Shape(2, WIDE, 32, 8, 64, _inner(LARGE_BYTES / per_weight / 2, WIDE))
    small = Shape(2, NARROW, 8, 2, 64, _inner(SMALL_BYTES / per_weight / 2, NARROW))
    probe = _Probe(large, kind, threads, clock)
    decode = probe.weight_bytes / probe.decode_seconds()
    prefill = probe.read_weights * BLOCK / probe.prefill_seconds()
    probe = _Probe(small, kind, threads, clock)
    cached = probe.weight_bytes / probe.decode_seconds()
    return Rates(decode, cached, prefill, probe.read_weights * BLOCK / probe.prefill_seconds())


def _inner(weights: float, hidden: int) -> int:
    """The intermediate size that gives a layer so many weights."""
    return max(512, round((weights - 2.5 * hidden**2) / (3 * hidden) / 256) * 256)


def _overheads(threads: int, clock: Clock) -> tuple[float, float]:
    """Seconds a layer, and a number in it, while decoding, where matrices cost next to nothing."""
    thin = _Probe(Shape(48, 64, 2, 1, 32, 64), TensorType.Q8_0, threads, clock)
    broad = _Probe(Shape(16, 4096, 1, 1, 32, 32), TensorType.Q8_0, threads, clock)
    layer = thin.decode_seconds() / 48
    more = broad.decode_seconds() - 16 * layer - broad.weight_bytes / _CACHE_RATE
    return layer, max(0.0, more) / elements(broad.shape)


_CACHE_RATE = 20e9
"""Bytes a second out of the caches, in the one probe where they hardly count."""


def _attention(layers: int, threads: int, layer_seconds: float, clock: Clock) -> tuple[float, float]:
    shape = Shape(layers, 64, 12, 4, 64, 64)
    probe = _Probe(shape, TensorType.F32, threads, clock)
    unit = shape.layers * shape.heads * shape.head_dim
    # The last layer attends for the last token alone.
    reading = (shape.layers - 1) * shape.heads * shape.head_dim
    short = probe.prefill_seconds()
    cache = probe.decoder.cache("f16")
    blocks = DEPTH // BLOCK

    def read_all() -> None:
        probe.decoder.truncate(cache, 0)
        for _ in range(blocks):
            probe.forward(cache, BLOCK)

    whole = _seconds(read_all, 0.0, clock)
    # A block by itself costs `short`; what more it costs behind others is attention to them.
    more = max(1e-9, whole - blocks * short)
    prefill = more / (reading * BLOCK * BLOCK * blocks * (blocks - 1) / 2)

    def once() -> None:
        probe.decoder.truncate(cache, DEPTH)
        probe.forward(cache, 1)

    deep = _seconds(once, 0.05, clock)
    decode = max(1e-13, deep - shape.layers * layer_seconds) / (unit * DEPTH)
    return decode, prefill


class _Probe:
    """A decoder of random weights, all of one type."""

    def __init__(self, shape: Shape, kind: TensorType, threads: int, clock: Clock) -> None:
        self.shape, self._clock = shape, clock
        config = ModelConfig(
            name="probe", vocab_size=256, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
            num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads, head_dim=shape.head_dim, max_position_embeddings=4096,
            rms_norm_eps=1e-5, rope_theta=10000.0, rope_interleaved=False, tie_word_embeddings=True,
        )  # fmt: skip
        pieces = {cols: _random_row(kind, cols) for cols in (shape.hidden, shape.intermediate, _query(shape))}
        tensors = {}
        for name, size in shapes(config).items():
            if len(size) == 1:
                data = np.ones(size, np.float32).view(np.uint8)
                tensors[name] = Tensor(name, TensorType.F32, size, data)
            else:
                data = np.tile(pieces[size[1]], -(-size[0] // 16))[: kind.size(size)]
                tensors[name] = Tensor(name, kind, size, data)
        self.read_weights = sum(math.prod(tensors[name].shape) for name in read_whole(config))
        self.weight_bytes = sum(t.data.nbytes for t in tensors.values())
        checkpoint = Checkpoint(Path("probe"), "gguf", tensors, {}, self.weight_bytes)
        model = Model(config, tensors, checkpoint)
        packed = packed_in_memory(model) if native.cpu_has_avx2() else {}
        engine = Engine(model, threads=threads, packed=packed)
        self.decoder = engine._running()

    def forward(self, cache: native.Cache, count: int) -> None:
        self.decoder.forward(cache, np.arange(count, dtype=np.int32) % 256)

    def decode_seconds(self) -> float:
        """Of one token."""
        cache = self.decoder.cache("f16")
        self.forward(cache, 1)
        return _seconds(lambda: self.forward(cache, 1), 0.1, self._clock)

    def prefill_seconds(self) -> float:
        """Of a block of tokens by itself."""

        def once() -> None:
            self.forward(self.decoder.cache("f16"), BLOCK)

        once()
        return _seconds(once, 0.12, self._clock)


def _query(shape: Shape) -> int:
    return shape.heads * shape.head_dim


def _random_row(kind: TensorType, cols: int) -> Bytes:
    """16 rows of weights. How fast they are computed with does not hang on what they are."""
    if kind.block > 1:
        return np.full(16 * cols // kind.block * kind.bytes, 0x22, np.uint8)  # scales of about 0.01
    rng = np.random.default_rng(15)
    weights = (rng.standard_normal(16 * cols, dtype=np.float32) * cols**-0.5).astype(np.float32)
    if kind is TensorType.BF16:
        weights = (weights.view(np.uint32) >> 16).astype(np.uint16).view(np.float16)
    elif kind is TensorType.F16:
        return np.frombuffer(weights.astype(np.float16).tobytes(), np.uint8)
    return np.frombuffer(weights.tobytes(), np.uint8)


def _seconds(work: Callable[[], object], enough: float, clock: Clock) -> float:
    """Of one call: the least of at least five, for about so many seconds.

    Whoever else is at work only makes a call longer: the least is what the machine itself takes.
    """
    found: list[float] = []
    end = time.perf_counter() + enough
    while len(found) < 5 or time.perf_counter() < end:
        began = clock()
        work()
        found.append(clock() - began)
    return min(found)
