"""A real model that tells stories, and a tiny random one with Qwen3's tokens and chat template."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from quinze.formats.checkpoint import TensorType
from quinze.formats.gguf import write_gguf
from quinze.formats.quants import encode
from quinze.llm.llm import LLM
from quinze.models.config import ModelConfig
from quinze.models.names import gguf_name
from quinze.models.shapes import shapes
from quinze.tokenizer.tokenizer import load_tokenizer

CONTEXT = 128


@pytest.fixture(scope="session")
def stories(shared: Callable[[str], Path]) -> Iterator[LLM]:
    shared("data/models/tok512.bin")
    with LLM(shared("data/models/stories260K.bin"), threads=1) as llm:
        yield llm


@pytest.fixture(scope="session")
def chatty_path(shared: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 16 dimensions in one GGUF, with all of Qwen3's vocabulary and its template."""
    folder = shared("data/tokenizers/qwen3")
    tokenizer = load_tokenizer(folder)
    config = ModelConfig(
        name="chatty", vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=32,
        num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        max_position_embeddings=CONTEXT, rms_norm_eps=1e-5, rope_theta=1e4,
        rope_interleaved=True, tie_word_embeddings=True,
    )  # fmt: skip
    rng = np.random.default_rng(15)
    tensors = [
        encode(gguf_name(name, config), rng.standard_normal(shape) * 0.2, _type(shape))
        for name, shape in shapes(config).items()
    ]
    control = {tokenizer.id(token) for token in tokenizer.control_tokens}
    special = {tokenizer.id(token) for token in tokenizer.special_tokens}
    ids = range(tokenizer.vocab_size)
    merges = (folder / "merges.txt").read_text("utf-8").split("\n")
    metadata = {
        "general.architecture": "llama",
        "llama.context_length": CONTEXT,
        "llama.embedding_length": 32,
        "llama.block_count": 1,
        "llama.feed_forward_length": 32,
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": 16,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": [tokenizer.token(id_) for id_ in ids],
        "tokenizer.ggml.token_type": np.array(
            [3 if i in special else 4 if i in control else 1 for i in ids], np.int32
        ),
        "tokenizer.ggml.merges": [line for line in merges if line and not line.startswith("#version")],
        "tokenizer.ggml.eos_token_id": tokenizer.id("<|im_end|>"),
        "tokenizer.chat_template": tokenizer.chat_template,
    }
    path = tmp_path_factory.mktemp("models") / "chatty.gguf"
    write_gguf(path, metadata, tensors)
    return path


@pytest.fixture(scope="session")
def chatty(chatty_path: Path) -> Iterator[LLM]:
    with LLM(chatty_path, threads=1) as llm:
        yield llm


def _type(shape: tuple[int, ...]) -> TensorType:
    return TensorType.Q8_0 if len(shape) == 2 else TensorType.F32
