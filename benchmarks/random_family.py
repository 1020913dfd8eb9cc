"""A GGUF file of random weights in Q8_0 for each family besides Llama, for measuring speed.

    python benchmarks/random_family.py qwen3 /tmp/qwen3.gguf

Half a gigabyte at most in float32: the widths of small known models, six layers (GPT-2: all twelve), 8,000
tokens. Made by transformers, written as the tests write theirs.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from pathlib import Path
from typing import Any

PEERS = Path(__file__).resolve().parents[1] / "tests" / "engine" / "peer_families.py"
ALL: dict[str, Any] = {"vocab_size": 8000, "initializer_range": 0.02}
SIX: dict[str, Any] = ALL | {"max_position_embeddings": 2048, "num_hidden_layers": 6}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("qwen2", SIX | {
        "hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14, "num_key_value_heads": 2}),
    "qwen3": ("qwen3", SIX | {
        "hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 16, "num_key_value_heads": 8,
        "head_dim": 128}),
    "phi3": ("phi3", SIX | {
        "hidden_size": 1536, "intermediate_size": 4096, "num_attention_heads": 16,
        "num_key_value_heads": 16}),
    "gemma2": ("gemma2", SIX | {
        "hidden_size": 1152, "intermediate_size": 4608, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 256, "sliding_window": 256}),
    "gemma3": ("gemma3_text", SIX | {
        "hidden_size": 1152, "intermediate_size": 6912, "num_attention_heads": 4, "num_key_value_heads": 1,
        "head_dim": 256, "sliding_window": 256}),
    "olmo2": ("olmo2", SIX | {
        "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 8, "num_key_value_heads": 8}),
    "gpt2": ("gpt2", ALL | {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 2048}),
}  # fmt: skip


def write(path: Path, name: str) -> None:
    spec = importlib.util.spec_from_file_location("peer_families", PEERS)
    assert spec is not None
    assert spec.loader is not None
    peers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peers)
    family, numbers = SHAPES[name]
    with tempfile.TemporaryDirectory() as folder:
        peers.write_gguf(path, peers.make(family, Path(folder), **numbers), "Q8_0")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family", choices=SHAPES)
    parser.add_argument("path", type=Path)
    given = parser.parse_args()
    write(given.path, given.family)
