"""A GGUF file of random weights in the shape of a known model, for measuring speed.

    python benchmarks/random_model.py smol135 q4_0 /tmp/smol135-q4_0.gguf

The packed blocks are drawn directly (random weights, scales that give them the usual spread), so that even a
large file takes seconds. All matrices have one type; norms are float32; the vocabulary is placeholders.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType

TYPES = {
    "f32": GGMLQuantizationType.F32,
    "f16": GGMLQuantizationType.F16,
    "q8_0": GGMLQuantizationType.Q8_0,
    "q4_0": GGMLQuantizationType.Q4_0,
}


@dataclass(frozen=True, slots=True)
class Shape:
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int
    rope_theta: float
    context: int


SHAPES = {
    "tiny": Shape(2, 256, 4, 2, 512, 1024, 10000.0, 2048),
    "smol135": Shape(30, 576, 9, 3, 1536, 49152, 100000.0, 8192),
    "llama1b": Shape(16, 2048, 32, 8, 8192, 128256, 500000.0, 8192),
}


def matrix(rng: np.random.Generator, rows: int, cols: int, kind: str, spread: float) -> np.ndarray:
    """(rows, cols) random weights of standard deviation `spread`, as they lie in the file."""
    if kind in ("f32", "f16"):
        number = np.float32 if kind == "f32" else np.float16
        return (rng.standard_normal((rows, cols), dtype=np.float32) * np.float32(spread)).astype(number)
    size, deviation = {"q4_0": (18, 4.61), "q8_0": (34, 73.9)}[kind]  # of uniform nibbles and bytes
    blocks = rows * cols // 32
    data = np.frombuffer(rng.bytes(blocks * size), np.uint8).reshape(blocks, size).copy()
    scales = spread / deviation * (0.7 + 0.6 * rng.random(blocks))
    data[:, :2] = scales.astype(np.float16).view(np.uint8).reshape(blocks, 2)
    return data.reshape(rows, -1)


def tensors(shape: Shape) -> Iterator[tuple[str, int, int, float]]:
    """(name, rows, cols, spread) of every matrix; the head is tied to the embedding."""
    hidden, head_dim = shape.hidden, shape.hidden // shape.heads
    spread = hidden**-0.5
    out = spread / (2 * shape.layers) ** 0.5
    yield "token_embd", shape.vocab, hidden, 0.02
    for i in range(shape.layers):
        yield f"blk.{i}.attn_q", hidden, hidden, spread
        yield f"blk.{i}.attn_k", shape.kv_heads * head_dim, hidden, spread
        yield f"blk.{i}.attn_v", shape.kv_heads * head_dim, hidden, spread
        yield f"blk.{i}.attn_output", hidden, hidden, out
        yield f"blk.{i}.ffn_gate", shape.intermediate, hidden, spread
        yield f"blk.{i}.ffn_up", shape.intermediate, hidden, spread
        yield f"blk.{i}.ffn_down", hidden, shape.intermediate, out * (hidden / shape.intermediate) ** 0.5


def write(path: Path, name: str, kind: str, *, seed: int = 15) -> None:
    shape, rng = SHAPES[name], np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(f"random {name} {kind}")
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_rope_dimension_count(shape.hidden // shape.heads)
    writer.add_vocab_size(shape.vocab)
    writer.add_tokenizer_model("llama")
    special = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
    writer.add_token_list([*special, *(f"t{i}".encode() for i in range(shape.vocab - len(special)))])
    writer.add_token_scores([0.0] * shape.vocab)
    writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * (shape.vocab - len(special))])
    for norm in ("output_norm", *(f"blk.{i}.{n}_norm" for i in range(shape.layers) for n in ("attn", "ffn"))):
        writer.add_tensor(f"{norm}.weight", np.ones(shape.hidden, np.float32))
    for tensor, rows, cols, spread in tensors(shape):
        data = matrix(rng, rows, cols, kind, spread)
        writer.add_tensor(f"{tensor}.weight", data, raw_dtype=TYPES[kind] if kind.startswith("q") else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("type", choices=TYPES)
    parser.add_argument("path", type=Path)
    given = parser.parse_args()
    write(given.path, given.shape, given.type)
