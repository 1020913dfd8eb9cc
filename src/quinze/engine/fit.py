"""Does a model fit, and how fast will it be? Told from its shape before anything is loaded.

Given a Model (no weight of it touched), a length of context, and for speeds a Profile of the machine.
The sizes are those that the engine really takes (csrc/decoder.cpp), and a test holds them to
the measured growth of a process. T tokens at once, C hidden size, F intermediate size, V vocabulary.
"""

from __future__ import annotations

import collections
import math
import sys
from collections.abc import Mapping

import msgspec

from quinze.engine.engine import PREFILL_STEP
from quinze.engine.profile import NARROW, WIDE, Profile, Rates, elements, read_whole
from quinze.formats.checkpoint import TensorType
from quinze.models.config import ModelConfig
from quinze.models.shapes import shapes
from quinze.models.weights import Model

PAGE_TOKENS = 128
"""Tokens for which room is made at once in the cache of keys and values (csrc/kernels.h)."""
SCRATCH = 512 * 1024
"""Bytes that each thread computes in (csrc/kernels.h)."""
FAULT_AROUND = 64 * 1024
"""Bytes of a mapped file that come into a process with each touch (Linux)."""
KV_BYTES: Mapping[str, float] = {"f16": 2, "f32": 4}
Q8_0_BLOCK = (32, 34)
"""Numbers of a block of Q8_0, and its bytes; the rows of a head are whole blocks (csrc/kernels.h)."""
TYPICAL_PROMPT = 512
"""Tokens of the prompt for which the speed of reading is told."""
SMALL, LARGE = 8e6, 64e6
"""Bytes of weights up to which all of them stay in a processor's caches, and from which none does."""


class Memory(msgspec.Struct, frozen=True):
    """Bytes, by what they are for."""

    weights: int
    """Mapped from the file: the system takes them back when it must, and reads them again."""
    kv_cache: int
    """Keys and values of every token of the context."""
    activations: int
    """What is computed for the tokens at hand, and one row of logits."""
    tokenizer: int
    """The vocabulary that stands in the file, and what is made of it."""
    total: int


class Parameters(msgspec.Struct, frozen=True):
    """How many numbers were learned, by where they are."""

    embedding: int
    """A vector for each token of the vocabulary."""
    attention: int
    mlp: int
    norms: int
    output: int
    """The way from the last vector to the next token; 0 where the embedding is used for it again."""
    total: int
    active: int
    """That a token passes through: of a mixture of experts, those of its chosen ones."""


class Speed(msgspec.Struct, frozen=True):
    """Tokens a second."""

    prefill: float
    """Reading a prompt of `prompt` tokens."""
    prompt: int
    decode: float
    """Writing, at the beginning of a context."""
    decode_full: float
    """Writing, where the context is full."""


def parameters(config: ModelConfig) -> Parameters:
    found: collections.Counter[str] = collections.Counter()
    for name, shape in shapes(config).items():
        found[_part(name)] += math.prod(shape)
    return Parameters(
        found["embedding"], found["attention"], found["mlp"], found["norms"], found["output"],
        found.total(), config.active_parameters,
    )  # fmt: skip


def _part(name: str) -> str:
    if name.startswith("model.embed"):
        return "embedding"
    if name.startswith("lm_head"):
        return "output"
    if "self_attn." in name and "_norm." not in name:
        return "attention"
    return "mlp" if ".mlp." in name else "norms"


def memory(model: Model, context: int, threads: int, *, kv_type: str = "f16", tokenizer: int = 0) -> Memory:
    """What a process takes to run this model with a context that is full."""
    weights = _weights(model, context)
    kv = kv_cache(model.config, context, kv_type)
    active = activations(model.config, context, threads)
    words = tokenizer + _vocabulary(model)
    return Memory(weights, kv, active, words, weights + kv + active + words)


def kv_cache(config: ModelConfig, context: int, kv_type: str = "f16") -> int:
    """Whole pages: keys and values of each layer and each key/value head."""
    tokens = math.ceil(context / PAGE_TOKENS) * PAGE_TOKENS
    if kv_type == "q8_0":
        row = math.ceil(config.head_dim / Q8_0_BLOCK[0]) * Q8_0_BLOCK[1]
    else:
        row = int(config.head_dim * KV_BYTES[kv_type])
    return tokens * 2 * config.num_hidden_layers * config.num_key_value_heads * row


def activations(config: ModelConfig, context: int, threads: int) -> int:
    """The buffers of Decoder::resize for one block of a prompt, and what stands beside them."""
    T, C, F, V = min(context, PREFILL_STEP), config.hidden_size, config.intermediate_size, config.vocab_size
    queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    widest = max(C, F, queries)
    floats = T * (3 * C + 2 * queries + 2 * keys + 2 * F + 2 * config.rotated)
    quantized = T * (widest + 2 * widest + 4 * 4 * widest // 32)
    pieces = T * (queries + 2 * config.num_attention_heads)  # parts of each softmax, merged at the end
    if config.num_experts:  # what Mixture holds (csrc/experts.h): rows of each token for each of its experts
        K, inner = config.num_experts_per_tok + 1, config.moe_intermediate_size
        floats += T * (config.num_experts + K * (2 * C + 3 * inner))
        quantized += T * K * (C + inner) * 7 // 2
    vectors = sum(math.prod(shape) for shape in shapes(config).values() if len(shape) == 1)
    logits = 3 * V  # of the last token, and what choosing among them takes
    return 4 * (floats + pieces + vectors + logits) + quantized + threads * SCRATCH


def _vocabulary(model: Model) -> int:
    """Of the tokens that a file lists, as they lie in memory, and of the pages that they were read from."""
    total = 0
    for value in model.checkpoint.metadata.values():
        if isinstance(value, (list, tuple)):
            texts = [text for text in value if isinstance(text, str)]
            total += 8 * len(value) + sum(map(sys.getsizeof, texts)) + sum(map(len, texts)) + 8 * len(texts)
    return total


def _weights(model: Model, context: int) -> int:
    """All of them; of an embedding that is not the output too, only the rows of tokens that occur."""
    total = sum(tensor.data.nbytes for tensor in model.tensors.values())
    if model.config.tie_word_embeddings:
        return total
    rows = sum(t.data.nbytes for name, t in model.tensors.items() if name.startswith("model.embed"))
    read = rows * (1 - math.exp(-context * FAULT_AROUND / rows))
    return int(total - rows + read)


def largest_context(
    model: Model, free: int, threads: int, *, kv_type: str = "f16", tokenizer: int = 0
) -> int:
    """The longest context with which it fits into so much memory; 0 if it fits with none."""
    low, high = 0, model.config.max_position_embeddings
    while low < high:
        middle = (low + high + 1) // 2
        needed = memory(model, middle, threads, kv_type=kv_type, tokenizer=tokenizer).total
        low, high = (middle, high) if needed <= free else (low, middle - 1)
    return low


def types(model: Model) -> list[TensorType]:
    """Of its matrices, those of the most bytes first; what hardly counts is left out."""
    found = _matrix_bytes(model)
    return [kind for kind, size in found.most_common() if size > 0.05 * found.total()]


def speed(model: Model, profile: Profile, context: int, *, prompt: int = TYPICAL_PROMPT) -> Speed:
    """A forecast from the rates of this machine. The profile must know the types of the model."""
    config = model.config
    prompt = max(1, min(prompt, context))
    heads = config.num_attention_heads * config.head_dim
    bytes_of = _matrix_bytes(model)
    once = sum(size / _decode_rate(profile, kind, bytes_of.total()) for kind, size in bytes_of.items())
    once += config.num_hidden_layers * profile.layer_seconds + elements(config) * profile.element_seconds
    seen = _seen(config, context)
    share = _from_memory(bytes_of.total() + kv_cache(config, int(seen)))
    attention = share * profile.attention_decode + (1 - share) * profile.attention_cached
    deep = once + attention * config.num_hidden_layers * heads * seen

    counts: collections.Counter[TensorType] = collections.Counter()
    for name in read_whole(config):
        counts[model.tensors[name].type] += int(math.prod(model.tensors[name].shape) * _share(config, name))
    rates = ((count, _prefill_rate(profile, kind, config.hidden_size)) for kind, count in counts.items())
    each = sum(count / rate for count, rate in rates)
    pairs = prompt * prompt / 2 * (config.num_hidden_layers - 1)
    reading = prompt * each + pairs * heads * profile.attention_prefill
    output = model.tensors.get("lm_head.weight", model.tensors["model.embed_tokens.weight"])
    reading += output.data.nbytes / _decode_rate(profile, output.type, bytes_of.total())
    return Speed(prompt / reading, prompt, 1 / once, 1 / deep)


def _seen(config: ModelConfig, context: int) -> float:
    """Keys that a token looks at behind so many others, on average over the layers."""
    if not config.windows:
        return context
    return sum(min(context, window or context) for window in config.windows) / len(config.windows)


def _matrix_bytes(model: Model) -> collections.Counter[TensorType]:
    """Bytes that are read for each token that is written, by type."""
    found: collections.Counter[TensorType] = collections.Counter()
    for name, tensor in model.tensors.items():
        embedding = name.startswith("model.embed")
        if len(tensor.shape) == 2 and (not embedding or _is_output(model, name)):
            found[tensor.type] += int(tensor.data.nbytes * _share(model.config, name))
    return found


def _share(config: ModelConfig, name: str) -> float:
    """How much of a matrix is computed with for a token, on average: of an expert, its chance."""
    return config.num_experts_per_tok / config.num_experts if ".mlp.experts." in name else 1.0


def _is_output(model: Model, name: str) -> bool:
    return name == "model.embed_tokens.weight" and "lm_head.weight" not in model.tensors


def _decode_rate(profile: Profile, kind: TensorType, size: float) -> float:
    """Between the rate of the caches and the rate of memory, by how large all of the weights are."""
    rates = _rates(profile, kind)
    share = _from_memory(size)
    return 1 / (share / rates.decode + (1 - share) / rates.decode_cached)


def _from_memory(size: float) -> float:
    """The share of so many bytes, read over and over, that no cache keeps."""
    share = (math.log(max(size, 1)) - math.log(SMALL)) / (math.log(LARGE) - math.log(SMALL))
    return min(1.0, max(0.0, share))


def _prefill_rate(profile: Profile, kind: TensorType, hidden: int) -> float:
    """What is done beside a multiplication shrinks as the hidden size grows: a + b / hidden seconds each."""
    rates = _rates(profile, kind)
    wide, narrow = 1 / rates.prefill, 1 / rates.prefill_narrow
    per = (narrow - wide) / (1 / NARROW - 1 / WIDE)
    return 1 / max(0.5 * wide, wide + per * (1 / hidden - 1 / WIDE))


def _rates(profile: Profile, kind: TensorType) -> Rates:
    """A type that hardly counts was not measured; another stands in."""
    return profile.rates.get(kind.name) or next(iter(profile.rates.values()))
