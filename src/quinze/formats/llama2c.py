"""llama2.c's first format: seven numbers, then every tensor in float32, one after the other.

    int32 each: dim, hidden_dim, layers, heads, kv_heads, vocabulary (negative: the head is not tied), length

The file names nothing; the tensors get their Hugging Face names here. https://github.com/karpathy/llama2.c
"""

from __future__ import annotations

import struct
from pathlib import Path

from quinze.errors import FileFormatError
from quinze.formats.checkpoint import Checkpoint, Tensor, TensorType, map_file

FIELDS = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len")
HEADER = struct.Struct("<7i")
MAGIC_V1 = 0x616B3432
"""Later versions begin with "ak42"."""


def read_llama2c(path: Path) -> Checkpoint:
    """The file's tensors; metadata holds FIELDS and `tied`."""
    data = map_file(path)
    if len(data) < HEADER.size:
        raise _broken(path, f"has {len(data):,} bytes, fewer than a header")
    numbers = HEADER.unpack(data[: HEADER.size].tobytes())
    if numbers[0] == MAGIC_V1:
        raise _broken(path, "is of a later llama2.c version; Quinze reads the first, in float32")
    header = dict(zip(FIELDS, numbers, strict=True))
    tied, header["vocab_size"] = header["vocab_size"] > 0, abs(header["vocab_size"])
    dim, hidden, layers, heads, kv_heads, vocab, length = header.values()
    if not all(1 <= number <= 2**24 for number in header.values()) or layers > 1024:
        raise _broken(path, "has impossible numbers in its header")
    if dim % heads or heads % kv_heads or dim // heads % 2:
        raise _broken(
            path,
            f"has {heads} heads over {dim} dimensions and {kv_heads} key/value heads, which do not divide",
        )
    kv = dim // heads * kv_heads
    plan: list[tuple[str, tuple[int, ...]]] = [("model.embed_tokens.weight", (vocab, dim))]

    def each_layer(name: str, *shape: int) -> None:
        plan.extend((f"model.layers.{layer}.{name}.weight", shape) for layer in range(layers))

    each_layer("input_layernorm", dim)
    each_layer("self_attn.q_proj", dim, dim)
    each_layer("self_attn.k_proj", kv, dim)
    each_layer("self_attn.v_proj", kv, dim)
    each_layer("self_attn.o_proj", dim, dim)
    each_layer("post_attention_layernorm", dim)
    each_layer("mlp.gate_proj", hidden, dim)
    each_layer("mlp.down_proj", dim, hidden)
    each_layer("mlp.up_proj", hidden, dim)
    plan.append(("model.norm.weight", (dim,)))
    # Cosines and sines of RoPE follow, which whoever runs the model computes anew.
    plan.append(("", (length * (dim // heads),)))
    if not tied:
        plan.append(("lm_head.weight", (vocab, dim)))

    tensors: dict[str, Tensor] = {}
    at = HEADER.size
    for name, shape in plan:
        begin, at = at, at + TensorType.F32.size(shape)
        if name:
            tensors[name] = Tensor(name, TensorType.F32, shape, data[begin:at])
    if at != len(data):
        raise _broken(path, f"should have {at:,} bytes by its header and has {len(data):,}")
    return Checkpoint(path, "llama2c", tensors, {**header, "tied": tied}, len(data))


def _broken(path: Path, what: str) -> FileFormatError:
    return FileFormatError(
        f"{path.name}, read as a llama2.c model, {what}.", hint="Check that it is one, and whole."
    )
