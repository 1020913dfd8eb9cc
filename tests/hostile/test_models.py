"""Hostile model files: every one a clear error; never a crash, a hang or a huge allocation."""

from __future__ import annotations

import contextlib
import json
import pickle
import resource
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quinze.errors import FileFormatError, QuinzeError, UnsupportedModelError
from quinze.formats.checkpoint import TensorType, open_checkpoint
from quinze.formats.gguf import read_gguf, write_gguf
from quinze.formats.quants import encode
from quinze.models.weights import load_model
from quinze.tokenizer.tokenizer import load_tokenizer

HUGE = (2**63 - 1, 2**63, 2**64 - 1, 2**40)


@pytest.fixture(autouse=True)
def memory_limit() -> Iterator[None]:
    """No more than a gigabyte beyond what this process has: a huge allocation fails the test."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = {kind: resource.getrlimit(kind) for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)}
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[resource.RLIMIT_AS][1]))
    yield
    for kind, limits in before.items():
        resource.setrlimit(kind, limits)


# GGUF, built by hand so that every number can lie


def text(value: str | bytes, size: int | None = None) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data) if size is None else size) + data


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str, dims: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def gguf_file(
    *parts: bytes,
    tensors: int = 0,
    pairs: int = 0,
    version: int = 3,
    magic: bytes = b"GGUF",
    data: int = 4096,
) -> bytes:
    return struct.pack("<4sIQQ", magic, version, tensors, pairs) + b"".join(parts) + bytes(data)


LYING: dict[str, bytes] = {
    "empty": b"",
    "magic alone": b"GGUF",
    "version 0": gguf_file(version=0),
    "version 1": gguf_file(version=1),
    "version 4": gguf_file(version=4),
    "big-endian": gguf_file(version=3 << 24),
    "a key of 2^63 bytes": gguf_file(text(b"k", 2**63), pairs=1),
    "a string of 2^63 bytes": gguf_file(pair("k", 8, text(b"v", 2**63)), pairs=1),
    "an array of 2^63 bytes": gguf_file(pair("k", 9, struct.pack("<IQ", 0, 2**63)), pairs=1),
    "an array of 2^61 doubles": gguf_file(pair("k", 9, struct.pack("<IQ", 12, 2**61)), pairs=1),
    "an array of 2^63 strings": gguf_file(pair("k", 9, struct.pack("<IQ", 8, 2**63)), pairs=1),
    "nested arrays": gguf_file(pair("k", 9, struct.pack("<IQ", 9, 1) * 50), pairs=1),
    "an unknown value type": gguf_file(pair("k", 13, bytes(8)), pairs=1),
    "an unknown array type": gguf_file(pair("k", 9, struct.pack("<IQ", 99, 1)), pairs=1),
    "a boolean of 2": gguf_file(pair("k", 7, b"\2"), pairs=1),
    "the same key twice": gguf_file(pair("k", 0, b"\1") * 2, pairs=2),
    "the same tensor twice": gguf_file(tensor("t", (8,)), tensor("t", (8,), 0, 32), tensors=2),
    "overlapping tensors": gguf_file(tensor("t", (16,)), tensor("u", (8,), 0, 32), tensors=2),
    "no dimensions": gguf_file(tensor("t", ()), tensors=1),
    "five dimensions": gguf_file(tensor("t", (1,) * 5), tensors=1),
    "a billion dimensions": gguf_file(text("t") + struct.pack("<I", 10**9), tensors=1),
    "a dimension of zero": gguf_file(tensor("t", (8, 0)), tensors=1),
    "a negative dimension": gguf_file(tensor("t", (2**64 - 8,)), tensors=1),
    "dimensions that overflow to 0": gguf_file(tensor("t", (2**32, 2**32)), tensors=1),
    "dimensions that overflow to 4": gguf_file(tensor("t", (2**62 + 1, 4)), tensors=1),
    "a block that is not whole": gguf_file(tensor("t", (33,), 8), tensors=1),
    "an offset beyond the file": gguf_file(tensor("t", (8,), 0, 2**20), tensors=1),
    "an offset that wraps around": gguf_file(tensor("t", (8,), 0, 2**64 - 32), tensors=1),
    "an offset out of step": gguf_file(tensor("t", (8,), 0, 4), tensors=1),
    "more data than the file": gguf_file(tensor("t", (2048,)), tensors=1),
    "an unknown tensor type": gguf_file(tensor("t", (8,), 999), tensors=1),
    "a removed tensor type": gguf_file(tensor("t", (8,), 4), tensors=1),
    "an alignment of 0": gguf_file(pair("general.alignment", 4, bytes(4)), pairs=1),
    "an alignment of 3": gguf_file(pair("general.alignment", 4, struct.pack("<I", 3)), pairs=1),
    "an alignment that is a text": gguf_file(pair("general.alignment", 8, text("32")), pairs=1),
    "an alignment that is true": gguf_file(pair("general.alignment", 7, b"\1"), pairs=1),
    **{f"{n:,} pairs": gguf_file(pairs=n) for n in HUGE},
    **{f"{n:,} tensors": gguf_file(tensors=n) for n in HUGE},
}


@pytest.mark.parametrize("what", LYING)
def test_a_gguf_that_lies_is_refused(what: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(LYING[what])
    with pytest.raises(FileFormatError) as caught:
        read_gguf(path)
    assert "model.gguf" in caught.value.message


def test_a_sparse_terabyte_is_mapped_but_not_read_into_memory(tmp_path: Path) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**41, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_DATA, (used + 2**30, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    for kind in (0, 8):
        path = tmp_path / f"{kind}.gguf"
        with path.open("wb") as file:
            file.write(gguf_file(pair("k", 9, struct.pack("<IQ", kind, 2**33)), pairs=1, data=0))
            file.truncate(2**40)
        with pytest.raises(FileFormatError, match="k"):
            read_gguf(path)


def whole_gguf(path: Path) -> bytes:
    """A tiny Llama with a vocabulary, valid in every byte."""
    rng = np.random.default_rng(15)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "a"]
    types = [2, 3, 3] + [6] * 256 + [1, 1]
    shapes = {"token_embd": (len(tokens), 32), "output_norm": (32,)}
    shapes |= {f"blk.0.{name}": (32, 32) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
    shapes |= {f"blk.0.{name}": (32, 32) for name in ("ffn_gate", "ffn_up", "ffn_down")}
    shapes |= {f"blk.0.{name}": (32,) for name in ("attn_norm", "ffn_norm")}
    kinds = {1: TensorType.F32, 2: TensorType.Q4_0}
    metadata = {
        "general.architecture": "llama",
        "llama.context_length": 64,
        "llama.embedding_length": 32,
        "llama.block_count": 1,
        "llama.feed_forward_length": 32,
        "llama.attention.head_count": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": np.zeros(len(tokens), np.float32),
        "tokenizer.ggml.token_type": np.array(types, np.int32),
    }
    tensors = [encode(f"{n}.weight", rng.standard_normal(s), kinds[len(s)]) for n, s in shapes.items()]
    write_gguf(path, metadata, tensors)
    return path.read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return whole_gguf(tmp_path_factory.mktemp("whole") / "model.gguf")


def opened(path: Path) -> None:
    load_model(path)
    load_tokenizer(path).encode("a text")


def test_a_gguf_cut_off_at_any_byte_is_refused(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(whole)
    opened(path)
    # Every byte of the fixed parts and of the tensors' table; the long vocabulary between them in steps.
    names = whole.index(b"token_embd")
    start = whole.index(b"blk.0.ffn_norm") + 64
    for size in [*range(600), *range(600, names - 40, 97), *range(names - 40, start), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(FileFormatError):
            open_checkpoint(path) if size >= 4 else read_gguf(path)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_give_a_model_or_a_clear_error(
    whole: bytes, tmp_path: Path, data: st.DataObject
) -> None:
    flipped = bytearray(whole)
    end = whole.index(b"blk.0.ffn_norm") + 64
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, end - 1))
        flipped[at] = data.draw(st.integers(0, 255))
    path = tmp_path / "model.gguf"
    path.write_bytes(flipped)
    with contextlib.suppress(QuinzeError):
        opened(path)


@pytest.mark.parametrize(
    "change",
    [
        {"llama.attention.head_count": 0},
        {"llama.attention.head_count": 2**31},
        {"llama.attention.head_count": "two"},
        {"llama.attention.head_count": True},
        {"llama.attention.head_count": np.array([2, 1], np.int32)},
        {"llama.attention.head_count_kv": 0},
        {"llama.embedding_length": 0},
        {"llama.block_count": 0},
        {"llama.block_count": 2**32 - 1},
        {"llama.context_length": 0},
        {"llama.attention.layer_norm_rms_epsilon": float("nan")},
        {"llama.attention.layer_norm_rms_epsilon": -1.0},
        {"llama.rope.freq_base": 0.0},
        {"llama.rope.freq_base": float("inf")},
        {"llama.rope.dimension_count": 0},
        {"llama.attention.key_length": 2**31},
        {"llama.expert_count": 8},
        {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 0.0},
        {"general.architecture": "gpt4"},
        {"general.architecture": 7},
        {"split.count": 3},
    ],
)
def test_impossible_values_of_known_keys_are_refused(
    whole: bytes, tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(whole)
    checkpoint = read_gguf(path)
    write_gguf(tmp_path / "changed.gguf", {**checkpoint.metadata, **change}, checkpoint.tensors.values())
    with pytest.raises(FileFormatError, match="changed"):
        load_model(tmp_path / "changed.gguf")


# safetensors


def safetensors_file(header: Any, data: bytes = bytes(64), size: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if size is None else size) + raw + data


def entry(begin: int, end: int, shape: Any = (8,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


GOOD = {"a": entry(0, 32), "b": entry(32, 64)}
BROKEN: dict[str, bytes] = {
    "nothing": b"",
    "seven bytes": bytes(7),
    "a header of 2^63 bytes": safetensors_file(GOOD, size=2**63),
    "a header over the file": safetensors_file(GOOD, size=10**6),
    "a header of 101 MB": safetensors_file(b"{" + b" " * 101 * 2**20 + b"}"),
    "no JSON": safetensors_file(b"{]"),
    "no object": safetensors_file([1]),
    "invalid UTF-8": safetensors_file(b'{"\xff": 1}'),
    "deep JSON": safetensors_file(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "a number of 100,000 digits": safetensors_file(b'{"a": ' + b"9" * 100_000 + b"}"),
    "not a number": safetensors_file(b'{"a": NaN}'),
    "a name twice": safetensors_file(json.dumps(GOOD).replace('"b"', '"a"').encode()),
    "an entry that is none": safetensors_file({"a": 7}),
    "an entry too long": safetensors_file({"a": entry(0, 64, [16]) | {"x": 1}}),
    "overlapping data": safetensors_file({"a": entry(0, 40, [10]), "b": entry(32, 64)}),
    "a hole": safetensors_file({"a": entry(0, 28, [7]), "b": entry(32, 64)}),
    "unused bytes at the end": safetensors_file({"a": entry(0, 32)}),
    "data over the file": safetensors_file({"a": entry(0, 128, [32])}),
    "a shape that does not fit": safetensors_file({"a": entry(0, 64, [15])}),
    "a shape that overflows": safetensors_file({"a": entry(0, 64, [2**32, 2**32, 16])}),
    "a negative shape": safetensors_file({"a": entry(0, 64, [-16])}),
    "a shape that is a text": safetensors_file({"a": entry(0, 64, "16")}),
    "a shape of true": safetensors_file({"a": entry(0, 4, [True])}, bytes(4)),
    "negative offsets": safetensors_file({"a": entry(-64, 0, [16])}),
    "offsets backwards": safetensors_file({"a": entry(64, 0, [16])}),
    "offsets that are fractions": safetensors_file({"a": entry(0.0, 64.0, [16])}),  # type: ignore[arg-type]
    "an unknown dtype": safetensors_file({"a": entry(0, 64, [16], "F5")}),
    "a dtype that is a list": safetensors_file({"a": entry(0, 64, [16], ["F32"])}),
    "a dtype that we cannot run": safetensors_file({"a": entry(0, 64, [8], "I64")}),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_safetensors_file_is_refused(what: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_file(GOOD))
    assert set(open_checkpoint(tmp_path).tensors) == {"a", "b"}
    path.write_bytes(BROKEN[what])
    with pytest.raises(FileFormatError):
        open_checkpoint(tmp_path)


def test_a_safetensors_file_cut_off_at_any_byte_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    whole = safetensors_file(GOOD)
    for size in range(len(whole)):
        (tmp_path / "model.safetensors").write_bytes(whole[:size])
        with pytest.raises(FileFormatError):
            open_checkpoint(tmp_path)


# JSON around them


BAD_JSON = {
    "deep": b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "cut off": b'{"model_type": "lla',
    "twice": b'{"model_type": "llama", "model_type": "llama"}',
    "huge": b'{"a": "' + b"x" * (5 * 2**20) + b'"}',
    "a list": b"[]",
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("what", BAD_JSON)
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "vocab.json"])
def test_broken_json_beside_a_model_is_refused(what: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "merges.txt").write_text("")
    (tmp_path / "model.safetensors").write_bytes(safetensors_file(GOOD))
    (tmp_path / name).write_bytes(BAD_JSON[what])
    with pytest.raises(FileFormatError):
        load_model(tmp_path) if name == "config.json" else load_tokenizer(tmp_path)


def test_a_device_and_a_loop_of_links_are_no_files(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(FileFormatError):
        load_model(tmp_path)
    with pytest.raises(FileFormatError, match="regular"):
        open_checkpoint(Path("/dev/zero"))
    (tmp_path / "loop.gguf").symlink_to(tmp_path / "loop.gguf")
    with pytest.raises(QuinzeError):
        open_checkpoint(tmp_path / "loop.gguf")


# tokenizers


def tokenizer_json(change: Callable[[dict[str, Any]], None]) -> str:
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    made = json.loads(backend.to_str())
    change(made)
    return json.dumps(made)


def splits_by(pattern: str) -> str:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return tokenizer_json(lambda made: made.update(pre_tokenizer=split))


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(a*)*b",
        "(a|aa)+$",
        "(?:a+)*$",
        "(a+){10,}$",
        "(a{1,99}){1,99}$",
        r"\s*\s*\s*x",
        r"(\w)\1+",
        r"(?<n>a)\k<n>",
        "a" * 5000,
    ],
)
def test_expressions_that_could_run_for_ever_are_refused(pattern: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(splits_by(pattern))
    with pytest.raises(FileFormatError, match="run for ever"):
        load_tokenizer(tmp_path)


def test_a_text_cannot_be_made_to_explode(tmp_path: Path) -> None:
    replace = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    bomb = {"type": "Sequence", "normalizers": [replace] * 40}
    (tmp_path / "tokenizer.json").write_text(tokenizer_json(lambda made: made.update(normalizer=bomb)))
    with pytest.raises(FileFormatError, match="times as long"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda made: made.pop("model"),
        lambda made: made["model"].update(vocab={"a": -1}),
        lambda made: made["model"].update(vocab={"a": 2**32 - 1}),
        lambda made: made["model"].update(vocab={}),
        lambda made: made["model"].update(vocab=7),
        lambda made: made["model"].update(merges=["a z"]),
        lambda made: made["model"].update(type="Other"),
        lambda made: made.update(added_tokens=[{"id": 10**9, "content": "<x>"}]),
        lambda made: made.update(added_tokens=7),
        lambda made: made.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "!!"}),
        lambda made: made.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "/////w=="}),
        lambda made: made.update(pre_tokenizer={"type": "Split", "pattern": {"Regex": "("}}),
    ],
)
def test_a_broken_tokenizer_json_is_refused(change: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(tokenizer_json(change))
    with pytest.raises(FileFormatError):
        load_tokenizer(tmp_path).encode("ab")


def test_a_sentencepiece_model_cut_off_or_flipped_is_refused_or_read(tmp_path: Path) -> None:
    def piece(word: bytes, score: float, kind: int) -> bytes:
        body = (
            b"\x0a" + bytes([len(word)]) + word + b"\x15" + struct.pack("<f", score) + b"\x18" + bytes([kind])
        )
        return b"\x0a" + bytes([len(body)]) + body

    words = [(b"<unk>", 0.0, 2), (b"<s>", 0.0, 3), (b"</s>", 0.0, 3), (b"a", -1.0, 1), (b"ab", -2.0, 1)]
    whole = b"".join(piece(*word) for word in words) + b"\x12\x02\x18\x02"
    path = tmp_path / "tokenizer.model"
    path.write_bytes(whole)
    assert load_tokenizer(tmp_path).vocab_size == 5
    for at in range(len(whole)):
        for changed in (whole[:at], whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]):
            path.write_bytes(changed)
            with contextlib.suppress(QuinzeError):
                load_tokenizer(tmp_path).encode("abc")


@pytest.mark.parametrize("cut", [0, 3, 4, 11, 12, 100, -1])
def test_a_llama2c_tokenizer_that_is_cut_off_is_refused(cut: int, shared: Any, tmp_path: Path) -> None:
    (tmp_path / "model.bin").symlink_to(shared("data/models/stories260K.bin"))
    (tmp_path / "tokenizer.bin").write_bytes(shared("data/models/tok512.bin").read_bytes()[:cut])
    with pytest.raises(FileFormatError):
        load_tokenizer(tmp_path / "model.bin")


# pickles


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["model.pt", "pytorch_model.bin", "model.bin", "model.ckpt", "weights"])
@pytest.mark.parametrize("protocol", [2, 4, 5, "zip"])
def test_a_pickle_is_refused_and_never_opened(name: str, protocol: int | str, tmp_path: Path) -> None:
    path, mark = tmp_path / name, tmp_path / "was-here"
    if protocol == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Bomb(mark)))
    else:
        path.write_bytes(pickle.dumps(Bomb(mark), protocol=int(protocol)))
    with pytest.raises(UnsupportedModelError, match="pickle") as caught:
        load_model(path)
    assert "safetensors" in caught.value.hint
    assert not mark.exists()


def test_a_folder_of_pickles_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(UnsupportedModelError, match="pickle"):
        load_model(tmp_path)


# what only shows while computing


@pytest.mark.parametrize("scale", [0x7E00, 0x7C00, 0xFC00])
def test_scales_that_are_no_numbers_end_in_a_clear_error(whole: bytes, tmp_path: Path, scale: int) -> None:
    """NaN and both infinities as the scales of every block of a matrix."""
    from quinze.llm.llm import LLM

    path = tmp_path / "model.gguf"
    path.write_bytes(whole)
    checkpoint = read_gguf(path)
    tensors = dict(checkpoint.tensors)
    hurt = tensors["blk.0.ffn_up.weight"]
    blocks = hurt.data.copy().reshape(-1, hurt.type.bytes)
    blocks[:, :2] = np.array([scale], "<u2").view(np.uint8)
    tensors[hurt.name] = replace(hurt, data=blocks.reshape(-1))
    write_gguf(path, checkpoint.metadata, tensors.values())
    with LLM(path, threads=1) as llm, pytest.raises(FileFormatError, match="no usable probabilities"):
        llm.complete("a", max_tokens=4)
