"""GGUF: what we write, llama.cpp's own package reads, and the other way round."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from quinze import native
from quinze.errors import UnsupportedModelError
from quinze.formats.checkpoint import Tensor, TensorType, open_checkpoint
from quinze.formats.gguf import read_gguf, write_gguf
from quinze.formats.quants import decode, encode
from quinze.models.weights import load_model

METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.name": "名字 name",
    "a.count": 7,
    "a.negative": -7,
    "a.large": 2**40,
    "a.real": 0.5,
    "a.double": np.float64(0.1),
    "a.byte": np.uint8(200),
    "a.flag": True,
    "a.texts": ["", "一", "two"],
    "a.floats": np.array([1.5, -2.5], np.float32),
    "a.ints": np.array([1, -1], np.int32),
    "a.flags": np.array([True, False]),
}


@pytest.fixture
def tensors(rng: np.random.Generator) -> list[Any]:
    made = []
    for kind in TensorType:
        weights = rng.standard_normal((5, 256), dtype=np.float32)
        if kind <= TensorType.Q4_0:
            made.append(encode(f"t.{kind.name}", weights, kind))
        else:
            made.append(Tensor(f"t.{kind.name}", kind, weights.shape, native.encode(kind, weights)))
    return made


def test_the_gguf_package_reads_what_we_write(tmp_path: Path, tensors: list[Any]) -> None:
    path = tmp_path / "ours.gguf"
    write_gguf(path, METADATA, tensors)
    peer = gguf.GGUFReader(path)
    for key, value in METADATA.items():
        read = peer.fields[key].contents()
        expected = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
        assert read == expected, key
    assert [tensor.name for tensor in peer.tensors] == [tensor.name for tensor in tensors]
    for theirs, ours in zip(peer.tensors, tensors, strict=True):
        assert theirs.tensor_type.name == ours.type.name
        np.testing.assert_array_equal(theirs.data.reshape(-1).view(np.uint8), ours.data)
        double = ours.type is TensorType.F64  # which the package does not decode, and numpy does
        values = theirs.data if double else gguf.quants.dequantize(theirs.data, theirs.tensor_type)
        np.testing.assert_array_equal(values, decode(ours))


def test_we_read_what_we_write(tmp_path: Path, tensors: list[Any]) -> None:
    path = tmp_path / "ours.gguf"
    write_gguf(path, METADATA, tensors)
    checkpoint = open_checkpoint(path)
    assert checkpoint.format == "gguf"
    assert checkpoint.bytes == path.stat().st_size
    assert list(checkpoint.metadata) == list(METADATA)
    for key, value in METADATA.items():
        np.testing.assert_array_equal(checkpoint.metadata[key], value, err_msg=key)
    for ours in tensors:
        read = checkpoint.tensors[ours.name]
        assert (read.type, read.shape) == (ours.type, ours.shape)
        assert not read.data.flags.writeable
        np.testing.assert_array_equal(read.data, ours.data)


def test_we_read_what_the_gguf_package_writes(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "theirs.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("tokenizer.ggml.tokens", ["a", "二", "c"])
    writer.add_float64("x", 0.1)
    writer.add_custom_alignment(128)
    weights = rng.standard_normal((4, 32)).astype(np.float32)
    writer.add_tensor("plain", weights)
    writer.add_tensor("half", weights.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    checkpoint = read_gguf(path)
    assert checkpoint.metadata["tokenizer.ggml.tokens"] == ["a", "二", "c"]
    assert checkpoint.metadata["x"] == 0.1
    np.testing.assert_array_equal(decode(checkpoint.tensors["plain"]), weights)
    np.testing.assert_array_equal(decode(checkpoint.tensors["half"]), weights.astype(np.float16))


def test_llama_cpp_s_own_vocabulary_file_is_read_whole(shared: Any) -> None:
    path = shared("data/tokenizers/llama2/ggml-vocab-llama.gguf")
    ours, peer = read_gguf(path).metadata, gguf.GGUFReader(path).fields
    for key, value in ours.items():
        theirs = peer[key].contents()
        assert (value.tolist() if isinstance(value, np.ndarray) else value) == theirs, key
    assert len(ours["tokenizer.ggml.tokens"]) == 32000


def test_unknown_types_are_refused_by_name_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "k.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("w", np.zeros((1, 136), np.uint8), raw_dtype=gguf.GGMLQuantizationType.IQ4_XS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedModelError, match=r"w in IQ4_XS.*F32, F16, BF16, Q8_0, Q4_0") as caught:
        read_gguf(path)
    assert "quinze quantize" in caught.value.hint


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, tensors: list[Any]) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, METADATA, tensors)
    before = path.read_bytes()
    with pytest.raises(TypeError, match="no value type"):
        write_gguf(path, {"a": object()}, tensors)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


PEER = """
import json, sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.warmup = False
params.n_ctx = 256
params.cpuparams.n_threads = 1
server = xllamacpp.Server(params)
reply = server.handle_completions({"prompt": [1], "max_tokens": 60, "temperature": 0})
print("TEXT", json.dumps(reply["choices"][0]["text"]))
"""


@pytest.mark.slow
def test_llama_cpp_tells_the_same_story_from_a_file_that_we_wrote(tmp_path: Path, shared: Any) -> None:
    """stories260K converted to GGUF, with its vocabulary: llama.cpp continues it as the golden text does."""
    model = load_model(shared("data/models/stories260K.bin"))
    config = model.config
    tokens, scores = llama2c_vocabulary(shared("data/models/tok512.bin"), config.vocab_size)
    metadata = {
        "general.architecture": "llama",
        "llama.context_length": config.max_position_embeddings,
        "llama.embedding_length": config.hidden_size,
        "llama.block_count": config.num_hidden_layers,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads,
        "llama.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "llama.rope.dimension_count": config.head_dim,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": np.array([2, 3, 3] + [6] * 256 + [1] * (len(tokens) - 259), np.int32),
    }
    path = tmp_path / "stories.gguf"
    write_gguf(path, metadata, [replace(t, name=gguf_name(n)) for n, t in model.tensors.items()])
    assert load_model(path).config.parameters == config.parameters
    script = [sys.executable, "-c", PEER, str(path)]
    ran = subprocess.run(script, capture_output=True, text=True, timeout=120, check=False)
    told = [json.loads(line[5:]) for line in ran.stdout.splitlines() if line.startswith("TEXT ")]
    assert told, ran.stderr[-2000:]
    golden = shared("data/models/stories260K.greedy.txt").read_text("utf-8")
    assert len(told[0]) > 100
    assert golden.strip().startswith(told[0].strip())


def llama2c_vocabulary(path: Path, size: int) -> tuple[list[str], np.ndarray]:
    """(tokens, scores) as GGUF states them: spaces are U+2581, bytes <0x..>."""
    data, at = path.read_bytes(), 4
    tokens, scores = [], []
    for _ in range(size):
        score, length = struct.unpack_from("<fi", data, at)
        tokens.append(data[at + 8 : at + 8 + length].decode().strip("\n").replace(" ", "\u2581"))
        scores.append(score)
        at += 8 + length
    return tokens, np.array(scores, np.float32)


def gguf_name(name: str) -> str:
    return gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 8).get_name(name, (".weight",))
