"""How words are split, by each name that a GGUF may give (tokenizer.ggml.pre): the ids of llama.cpp."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from quinze.errors import UnsupportedModelError
from quinze.tokenizer.patterns import PRE_TOKENIZERS, SAME, check_pattern
from quinze.tokenizer.tokenizer import load_tokenizer

TEXTS = (
    "Hello, world! It's 12345 o'clock; I'LL say we've DON'T'S.",
    "camelCaseWords and HTTPServer2Go, XMLHttpRequest",
    "  leading,   inner \t tabs\n\n\nlines \r\n end   ",
    "def f(x):\n    return x**2  # comment\n",
    "你好，世界！今天是2024年10月15日。",
    "Grüße, naïve café; Ελληνικά, русский ТЕКСТ",
    "ünïcode e\u0301 a\u0308 हिन्दी ไทย 日本語テキスト",
    "a/b/c // http://x.y/z?q=1&r=2 <tag attr='v'/>",
    "$100.00 + 50% = ??? ... --- ___ ^~| `code`",
    "🙂👍🏽 emoji 🇩🇪",
    "1 22 333 4444 55555 3.14159",
)
# Qwen's makers compose letters and their accents first (NFC); llama.cpp does not.
DIFFERS = {"qwen2": (6,), "stablelm2": (6,)}


@pytest.fixture(scope="module")
def library() -> Any:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "llamacpp.py"
    spec = importlib.util.spec_from_file_location("benchmark_llamacpp_split", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(path: Path, folder: Path, splits: str) -> Path:
    """A Llama of next to nothing with all of a real vocabulary."""
    own = load_tokenizer(folder)
    size, hidden = own.vocab_size, 32
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(hidden)
    writer.add_block_count(1)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splits)
    writer.add_token_list([own.token(i) for i in range(size)])
    writer.add_token_types([3 if own.token(i) in own.special_tokens else 1 for i in range(size)])
    lines = (folder / "merges.txt").read_text("utf-8").split("\n")
    writer.add_token_merges([line for line in lines if line and not line.startswith("#version")])
    writer.add_tensor("token_embd.weight", np.zeros((size, hidden), np.float16))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(hidden, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros((hidden, hidden), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def ids_of_llama_cpp(peer: Any, text: str) -> list[int]:
    call = peer._c.llama_tokenize
    call.restype = ctypes.c_int32
    data, room = text.encode(), 4096
    array = (ctypes.c_int32 * room)()
    vocabulary = ctypes.c_void_p(peer._c.llama_model_get_vocab(peer._model))
    count = call(vocabulary, data, len(data), array, room, ctypes.c_bool(False), ctypes.c_bool(False))
    return list(array[:count])


@pytest.mark.parametrize("splits", [*PRE_TOKENIZERS, "falcon3", "stablelm2"])
def test_ids_are_those_of_llama_cpp(
    shared: Callable[[str], Path], library: Any, tmp_path: Path, splits: str
) -> None:
    path = write(tmp_path / "it.gguf", shared("data/tokenizers/gpt2"), splits)
    own = load_tokenizer(path)
    peer = library.LlamaCpp(path, context_length=64, threads=1)
    try:
        for number, text in enumerate(TEXTS):
            if number not in DIFFERS.get(splits, ()):
                assert own.encode(text, bos=False) == ids_of_llama_cpp(peer, text), text
    finally:
        peer.close()


@pytest.mark.parametrize("splits", sorted({*PRE_TOKENIZERS, *SAME}))
def test_no_known_expression_is_taken_for_a_hostile_one(splits: str) -> None:
    """They come in tokenizer.json too."""
    for expression in PRE_TOKENIZERS[SAME.get(splits, splits)]:
        check_pattern(expression)


def test_an_unknown_name_is_refused_with_the_known_ones(
    shared: Callable[[str], Path], tmp_path: Path
) -> None:
    path = write(tmp_path / "it.gguf", shared("data/tokenizers/gpt2"), "spiral")
    with pytest.raises(UnsupportedModelError, match="'spiral'") as caught:
        load_tokenizer(path)
    assert "qwen2" in caught.value.hint
