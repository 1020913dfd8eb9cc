"""`quantize`: what it writes, llama.cpp reads and continues in the same way."""

from __future__ import annotations

import ctypes
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quinze.cli.main import run
from quinze.engine.engine import Engine
from quinze.engine.sampling import SamplingParams
from quinze.errors import InvalidRequestError, UnsupportedModelError
from quinze.formats.checkpoint import TensorType, open_checkpoint
from quinze.formats.gguf import read_gguf
from quinze.models.weights import load_model
from quinze.quantization.calibration import text_ids
from quinze.quantization.levels import LEVELS, level, needs_more_bits, type_of
from quinze.quantization.quantize import quantize
from quinze.quantization.report import compare
from quinze.quantization.source import open_source
from quinze.tokenizer.tokenizer import load_tokenizer

GREEDY = SamplingParams(temperature=0, max_tokens=40)


@pytest.mark.parametrize("name", LEVELS)
def test_every_level_is_read_by_llama_cpp_with_the_same_logits(
    tiny_f16: Path, tmp_path: Path, llama_cpp: Callable[..., Any], name: str, rng: np.random.Generator
) -> None:
    out = tmp_path / "out.gguf"
    done = quantize(open_source(tiny_f16), level(name), out)
    assert done.bytes == out.stat().st_size
    before, after = read_gguf(tiny_f16), read_gguf(out)
    assert after.metadata["general.file_type"] == LEVELS[name].number
    for key, value in before.metadata.items():
        np.testing.assert_array_equal(after.metadata[key], value)
    ids = rng.integers(3, 1024, 64).tolist()
    peer = llama_cpp(out, context_length=256, threads=2)
    theirs = peer.forward(ids).copy()
    peer.close()
    mine = Engine(load_model(out), threads=2).logits(ids)[-1]
    assert np.linalg.norm(mine - theirs) < 0.07 * np.linalg.norm(theirs)
    original = Engine(load_model(tiny_f16), threads=2).logits(ids)[-1]
    assert np.linalg.norm(mine - original) < (1.0 if name == "q2_k" else 0.5) * np.linalg.norm(original)


@pytest.mark.parametrize("name", ["f32", "q8_0"])
def test_llama2c_becomes_a_gguf_that_tells_the_same_story(
    stories: Path, tmp_path: Path, llama_cpp: Callable[..., Any], name: str
) -> None:
    out = tmp_path / "stories.gguf"
    quantize(open_source(stories), level(name), out)
    ids = list(Engine(load_model(stories)).generate([1], GREEDY))
    assert list(Engine(load_model(out)).generate([1], GREEDY)) == ids
    peer = llama_cpp(out, context_length=256, threads=2)
    last = 1
    for token in ids:
        assert int(peer.forward([last]).argmax()) == token
        last = token
    peer.close()
    text = "Once upon a time, Lily saw 你好 €."
    assert load_tokenizer(out).encode(text) == load_tokenizer(stories).encode(text)
    assert load_tokenizer(out).decode(ids) == load_tokenizer(stories).decode(ids)


LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
FOLDERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("Llama", "minimind", {"rope_scaling": LLAMA3, "rope_theta": 5e5}),
    "llama with biases": ("Llama", "minimind", {"attention_bias": True, "tie_word_embeddings": True}),
    "sentencepiece": ("Llama", "llama2", {"vocab_size": 32000, "hidden_size": 64, "intermediate_size": 96}),
    "mistral": ("Mistral", "minimind", {"sliding_window": 128}),
    "qwen2": ("Qwen2", "minimind", {}),
    "qwen3": ("Qwen3", "minimind", {"head_dim": 32}),
}


def make_folder(folder: Path, tokenizer: Path, family: str, changes: dict[str, Any]) -> Path:
    """A model of transformers with random weights, and a tokenizer."""
    import torch
    import transformers

    torch.manual_seed(15)
    numbers: dict[str, Any] = {
        "vocab_size": 6400, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
        "initializer_range": 0.2,
    }  # fmt: skip
    config = getattr(transformers, f"{family}Config")(**(numbers | changes))
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name:
            parameter.data.add_(torch.randn_like(parameter) * 0.2)
    model.to(torch.bfloat16).save_pretrained(folder)
    for item in tokenizer.iterdir():
        if item.suffix != ".gguf":
            shutil.copy(item, folder)
    return folder


@pytest.mark.parametrize("case", FOLDERS)
def test_a_hugging_face_folder_becomes_a_gguf(
    shared: Callable[[str], Path],
    tmp_path: Path,
    llama_cpp: Callable[..., Any],
    case: str,
    rng: np.random.Generator,
) -> None:
    """With the same logits and the same ids for a text, here and in llama.cpp."""
    family, tokenizer, changes = FOLDERS[case]
    folder = make_folder(tmp_path / "model", shared(f"data/tokenizers/{tokenizer}"), family, changes)
    out = tmp_path / "model.gguf"
    quantize(open_source(folder), level("f32"), out)
    ids = rng.integers(3, 6400, 100).tolist()
    expected = Engine(load_model(folder), kv_type="f32").logits(ids)[-1]
    mine = Engine(load_model(out), kv_type="f32").logits(ids)[-1]
    assert np.linalg.norm(mine - expected) < 1e-4 * np.linalg.norm(expected)
    peer = llama_cpp(out, context_length=256, threads=2)
    assert np.linalg.norm(peer.forward(ids) - expected) < 0.03 * np.linalg.norm(expected)
    ours, before = load_tokenizer(out), load_tokenizer(folder)
    for text in ("Hello, 世界! def f(x):\n    return x ** 2  # 1234567 naïve", "<|im_start|>user\n</s>"):
        assert ours.encode(text, special=True) == before.encode(text, special=True)
        assert ours.encode(text, special=True) == peer_ids(peer, text)
    assert ours.chat_template == before.chat_template
    assert (ours.bos_id, ours.eos_id, ours.stop_ids) == (before.bos_id, before.eos_id, before.stop_ids)
    peer.close()


def peer_ids(peer: Any, text: str) -> list[int]:
    """llama.cpp's ids for a text, control tokens among them."""
    data, ids = text.encode(), (ctypes.c_int32 * 256)()
    tokenize = peer._c.llama_tokenize
    tokenize.argtypes = [
        ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32, ctypes.c_bool,
        ctypes.c_bool,
    ]  # fmt: skip
    count = tokenize(peer._c.llama_model_get_vocab(peer._model), data, len(data), ids, 256, True, True)
    return list(ids[:count])


def test_what_a_gguf_cannot_say_is_refused(shared: Callable[[str], Path], tmp_path: Path) -> None:
    tokenizer = shared("data/tokenizers/minimind")
    scaled = {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}
    with pytest.raises(UnsupportedModelError, match="rotary positions"):
        open_source(make_folder(tmp_path / "scaled", tokenizer, "Qwen2", scaled))
    with pytest.raises(UnsupportedModelError, match="converts llama, mistral, qwen2, qwen3"):
        open_source(make_folder(tmp_path / "gemma", tokenizer, "Gemma", {"head_dim": 64}))
    other = make_folder(tmp_path / "other", shared("data/tokenizers/t5"), "Llama", {"vocab_size": 32100})
    with pytest.raises(UnsupportedModelError, match=r"unigram|not byte-level"):
        open_source(other)


def test_mixtures_give_more_bits_where_llama_cpp_does() -> None:
    """Of 16 layers: the first and last two, and of those between every third."""
    assert [i for i in range(16) if needs_more_bits(i, 16)] == [0, 1, 4, 7, 10, 13, 14, 15]

    def types(name: str, tensor: str, cols: int = 256, tied: bool = False, pure: bool = False) -> str:
        return type_of(tensor, (64, cols), level(name), layers=16, tied=tied, pure=pure).name

    table = {
        ("q3_k_m", "blk.5.attn_v.weight"): "Q4_K", ("q3_k_m", "blk.5.attn_output.weight"): "Q4_K",
        ("q3_k_m", "blk.0.ffn_down.weight"): "Q4_K", ("q3_k_m", "blk.2.ffn_down.weight"): "Q3_K",
        ("q3_k_s", "blk.0.ffn_down.weight"): "Q3_K", ("q3_k_s", "output.weight"): "Q6_K",
        ("q2_k", "blk.2.ffn_down.weight"): "Q3_K", ("q2_k", "blk.2.attn_q.weight"): "Q2_K",
        ("q2_k", "blk.2.attn_v.weight"): "Q4_K", ("q2_k", "blk.2.attn_output.weight"): "Q3_K",
        ("q4_k_m", "output.weight"): "Q6_K", ("q4_k_m", "token_embd.weight"): "Q4_K",
        ("q4_k_m", "blk.0.attn_v.weight"): "Q6_K", ("q4_k_m", "blk.2.attn_v.weight"): "Q4_K",
        ("q4_k_m", "blk.15.ffn_down.weight"): "Q6_K", ("q4_k_m", "blk.0.ffn_up.weight"): "Q4_K",
        ("q4_k_s", "blk.3.attn_v.weight"): "Q5_K", ("q4_k_s", "blk.4.attn_v.weight"): "Q4_K",
        ("q4_k_s", "blk.1.ffn_down.weight"): "Q5_K", ("q4_k_s", "blk.2.ffn_down.weight"): "Q4_K",
        ("q5_k_m", "blk.0.ffn_down.weight"): "Q6_K", ("q5_k_s", "blk.0.ffn_down.weight"): "Q5_K",
        ("q4_0", "output.weight"): "Q6_K", ("q4_0", "blk.0.attn_v.weight"): "Q4_0",
        ("q8_0", "output.weight"): "Q8_0", ("f16", "output.weight"): "F16",
        ("q4_k_m", "blk.0.attn_qkv.weight"): "Q5_K", ("q4_k_m", "blk.0.ffn_gate_inp.weight"): "F32",
        ("q4_k", "output.weight"): "Q6_K", ("Q4_K_M", "output.weight"): "Q6_K",
    }  # fmt: skip
    assert {key: types(*key) for key in table} == table
    assert types("q4_k_m", "token_embd.weight", tied=True) == "Q6_K"
    narrow = [types("q4_k_m", "output.weight", 576), types("q4_k_m", "blk.2.attn_q.weight", 576)]
    assert narrow == ["Q8_0", "Q5_0"]
    assert types("q5_k_m", "blk.2.attn_q.weight", 576) == "Q5_1"
    assert types("q4_0", "blk.2.attn_q.weight", 100) == "F16"
    assert types("q4_k_m", "output.weight", pure=True) == "Q4_K"
    with pytest.raises(InvalidRequestError, match="'q9'"):
        level("q9")


def test_the_report_tells_what_llama_cpp_tells(
    stories: Path, tmp_path: Path, llama_cpp: Callable[..., Any]
) -> None:
    text = "Once upon a time, there was a little girl named Lily. She loved to play outside. " * 3
    ids = text_ids(stories, [text])
    original, f16, q8, q4 = compare(stories, [level(n) for n in ("f16", "q8_0", "q4_0")], ids)
    assert (original.level, original.divergence, original.flipped, original.error) == ("original", 0, 0, 0)
    assert original.bytes > f16.bytes > q8.bytes > q4.bytes
    assert f16.error < q8.error < q4.error < q4.worst_error < 0.2
    assert f16.divergence < q8.divergence < q4.divergence
    assert f16.flipped <= q8.flipped <= q4.flipped < 0.3
    assert q4.tensors["blk.0.attn_q.weight"][0] == "Q4_0"

    out = tmp_path / "f32.gguf"
    quantize(open_source(stories), level("f32"), out)
    assert original.tokens == len(ids) - 1
    peer = llama_cpp(out, context_length=512, threads=2)
    surprise = 0.0
    for token, following in itertools.pairwise(ids):
        logits = peer.forward([token]).astype(np.float64)
        surprise -= logits[following] - logits.max() - np.log(np.exp(logits - logits.max()).sum())
    peer.close()
    assert original.perplexity == pytest.approx(np.exp(surprise / original.tokens), rel=2e-3)


def test_the_command_writes_tells_and_refuses(
    tiny_f16: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "small.gguf"
    assert run(["quantize", str(tiny_f16), "Q4_K_M", "-o", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bytes"] == out.stat().st_size
    assert told["types"] == {"F32": 5, "Q4_K": 12, "Q6_K": 3}
    assert told["rounded_twice"] == 0
    assert run(["quantize", str(out), "q4_0", "-o", str(tmp_path / "twice.gguf"), "--pure"]) == 0
    spoken = capsys.readouterr()
    assert "bits a weight" in spoken.out
    assert "15 tensors were quantized before" in " ".join(spoken.err.split())
    assert {t.type for t in open_checkpoint(tmp_path / "twice.gguf").tensors.values()} == {
        TensorType.F32,
        TensorType.Q4_0,
    }
    for wrong in (
        [str(tiny_f16)],
        [str(tiny_f16), "q9"],
        [str(tiny_f16), "q4_0", "-o", str(tiny_f16)],
        [str(tiny_f16), "q4_0", "-o", str(tmp_path)],
        [str(tiny_f16), "q4_0", "--text", str(tiny_f16)],
    ):
        assert run(["quantize", *wrong]) == 2
        assert capsys.readouterr().err.startswith("quinze: ")
    assert run(["quantize", str(tmp_path / "nothing.gguf"), "q4_0"]) == 3


def test_the_command_reports_as_a_table_and_as_json(
    stories: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUINZE_HOME", str(tmp_path / "home"))
    text = tmp_path / "text.txt"
    text.write_text("Once upon a time there was a dog. He was happy. " * 4)
    assert run(["quantize", str(stories), "q4_0", "--report", "--text", str(text)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "LEVEL",
        "SIZE",
        "BITS",
        "ERROR",
        "WORST",
        "TENSOR",
        "PERPLEXITY",
        "KL",
        "FLIPPED",
    ]
    assert [line.split()[0] for line in lines[1:]] == ["original", "q4_0"]
    assert run(["quantize", str(stories), "q4_0", "--report", "--json"]) == 0
    assert [row["level"] for row in json.loads(capsys.readouterr().out)] == ["original", "q4_0"]


def test_stopping_leaves_no_file_behind(tiny_f16: Path, tmp_path: Path) -> None:
    def stop(name: str, done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    out = tmp_path / "out.gguf"
    out.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        quantize(open_source(tiny_f16), level("q4_0"), out, progress=stop)
    assert [item.name for item in tmp_path.iterdir()] == ["out.gguf"]
    assert out.read_bytes() == b"old"
