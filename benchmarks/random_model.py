"""A GGUF file of random weights in the shape of a known model, for measuring speed.

    python benchmarks/random_model.py smol135 q4_0 /tmp/smol135-q4_0.gguf

The packed blocks are drawn directly (random weights, scales that give them the usual spread), so that even a
large file takes seconds. All matrices have one type, or those of a mixture that people really have: q4_0_real
(with a q6_K embedding), q4_k_m, q5_k_m. Norms are float32; the vocabulary is placeholders.
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
    "q4_1": GGMLQuantizationType.Q4_1,
    "q5_0": GGMLQuantizationType.Q5_0,
    "q5_1": GGMLQuantizationType.Q5_1,
    "q4_k": GGMLQuantizationType.Q4_K,
    "q5_k": GGMLQuantizationType.Q5_K,
    "q6_k": GGMLQuantizationType.Q6_K,
}
PACKED = {
    "q8_0": ((0,), 1 / 73.9, 0), "q4_0": ((0,), 1 / 4.61, 0), "q4_1": ((0, 2), 1 / 4.61, -7.5),
    "q5_0": ((0,), 1 / 9.23, 0), "q5_1": ((0, 2), 1 / 9.23, -15.5), "q4_k": ((0, 2), 1 / 191, 7.5),
    "q5_k": ((0, 2), 1 / 383, 15.5), "q6_k": ((208,), 1 / 1367, 0),
}  # fmt: skip
"""Where the float16 scale (and minimum) of a block lies, the scale that gives uniformly drawn bytes a
standard deviation of about 1, and the minimum in units of the scale that makes their mean 0."""
MIXTURES = {"q4_0_real": ("q4_0", "q6_k"), "q4_k_m": ("q4_k", "q6_k"), "q5_k_m": ("q5_k", "q6_k")}
"""(most matrices; embedding and head and, in the _m ones, half of ffn_down and attn_v), as files are."""
NARROW = {"q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0"}
"""What stands in for a K format where the columns are not a multiple of 256."""


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
    block, size = gguf.GGML_QUANT_SIZES[TYPES[kind]]
    places, scale, least = PACKED[kind]
    blocks = rows * cols // block
    data = np.frombuffer(rng.bytes(blocks * size), np.uint8).reshape(blocks, size).copy()
    scales = spread * scale * (0.7 + 0.6 * rng.random(blocks))
    for at, factor in zip(places, (1.0, least), strict=False):
        data[:, at : at + 2] = (scales * factor).astype(np.float16).view(np.uint8).reshape(blocks, 2)
    return data.reshape(rows, -1)


def kind_of(tensor: str, cols: int, mixture: str, layers: int) -> str:
    """The type of one matrix. More bits for the first and last eighth of the layers, every third between."""
    if mixture not in MIXTURES:
        return mixture
    kind, better = MIXTURES[mixture]
    if tensor == "token_embd":
        kind = better
    elif mixture.endswith("_m") and tensor.endswith(("attn_v", "ffn_down")):
        layer = int(tensor.split(".")[1])
        if layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2:
            kind = better
    return NARROW.get(kind, kind) if cols % 256 else kind


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
        one = kind_of(tensor, cols, kind, shape.layers)
        data = matrix(rng, rows, cols, one, spread)
        writer.add_tensor(f"{tensor}.weight", data, raw_dtype=TYPES[one] if one.startswith("q") else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("type", choices=[*TYPES, *MIXTURES])
    parser.add_argument("path", type=Path)
    given = parser.parse_args()
    write(given.path, given.shape, given.type)
