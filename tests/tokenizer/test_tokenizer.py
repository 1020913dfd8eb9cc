"""Tokenizers: the ids of those who made them, and never half a character."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from quinze.errors import FileFormatError, TooLargeError, UnsupportedModelError
from quinze.formats.gguf import read_gguf, write_gguf
from quinze.tokenizer.tokenizer import Tokenizer, load_tokenizer

TEXTS = (
    "Hello, world!",
    "  two  spaces   and\ttabs\n\n\nthree lines \n",
    "你好，世界！今天天气怎么样？我们去爬山吧。",
    "混合 mixed 文本 with 123,456.78 numbers and CamelCaseWords_and_snakes",
    "naïve café — “quotes” … ½ ™ ﬁ",
    "🦙👩‍👩‍👧 emoji \u200b zero width, العربية हिन्दी ไทย",
    "def f(x):\n    return {'a': x[0] != 3}  # don't\r\n",
    "a",
    " ",
    "I'll we've IT'S 2024年12月31日",
    "<b>html</b> & a < b > c [1] {2} |3|",
    "control \x07 characters \ufffd",
)
Load = Callable[[str], Tokenizer]


@pytest.fixture(scope="session")
def qwen3(tokenizer: Load) -> Tokenizer:
    return tokenizer("qwen3")


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "minimind"])
def test_ids_equal_those_of_transformers(tokenizer: Load, shared: Any, name: str) -> None:
    from transformers import AutoTokenizer, GPT2Tokenizer

    folder = shared(f"data/tokenizers/{name}")
    peer = (GPT2Tokenizer if name == "gpt2" else AutoTokenizer).from_pretrained(folder)
    ours = tokenizer(name)
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == peer.encode(text, add_special_tokens=False), text
        assert ours.decode(ids) == peer.decode(ids), text
    assert [ours.token(id_) for id_ in range(300, 400)] == peer.convert_ids_to_tokens(range(300, 400))


def test_llama3_splits_digits_by_threes(tokenizer: Load) -> None:
    """Known ids of Llama 3: "hello" 15339, " world" 1917, "123" 4513, "456" 10961."""
    assert tokenizer("llama3.2").encode("hello world123456") == [15339, 1917, 4513, 10961]


@pytest.mark.parametrize(
    ("name", "file"),
    [("llama2", "tokenizer.model"), ("internlm2", "tokenizer.model"), ("t5", "spiece.model")],
)
def test_ids_equal_those_of_sentencepiece(shared: Any, tmp_path: Path, name: str, file: str) -> None:
    path = shared(f"data/tokenizers/{name}/{file}")
    (tmp_path / file).symlink_to(path)
    ours, peer = load_tokenizer(tmp_path), sentencepiece.SentencePieceProcessor(model_file=str(path))
    assert ours.vocab_size == peer.vocab_size()
    for text in TEXTS:
        ids = peer.encode(text)
        assert ours.encode(text, bos=False) == ids, text
        if peer.unk_id() not in ids:
            assert ours.decode(ids) == peer.decode(ids), text
    for id_ in (0, 1, 2, 3, 300, ours.vocab_size - 1):
        assert ours.token(id_) == peer.id_to_piece(id_)


def test_tokenizer_json_of_t5_gives_the_ids_of_tokenizers(shared: Any) -> None:
    path = shared("data/tokenizers/t5/tokenizer.json")
    ours, peer = load_tokenizer(path), tokenizers.Tokenizer.from_file(str(path))
    for text in TEXTS:
        ids = peer.encode(text, add_special_tokens=False).ids
        assert ours.encode(text) == ids, text
        assert ours.decode(ids) == peer.decode(ids), text


def test_a_gguf_of_the_llama_kind_gives_the_ids_of_sentencepiece(tokenizer: Load, shared: Any) -> None:
    ours = tokenizer("llama2/ggml-vocab-llama.gguf")
    peer = sentencepiece.SentencePieceProcessor(
        model_file=str(shared("data/tokenizers/llama2/tokenizer.model"))
    )
    assert (ours.bos_id, ours.eos_id, ours.stop_ids, ours.add_bos) == (1, 2, frozenset({2}), True)
    for text in TEXTS:
        assert ours.encode(text) == [1, *peer.encode(text)], text


def test_a_gguf_of_the_gpt2_kind_gives_the_ids_of_its_folder(
    qwen3: Tokenizer, shared: Any, tmp_path: Path
) -> None:
    folder = shared("data/tokenizers/qwen3")
    names = [qwen3.token(id_) for id_ in range(qwen3.vocab_size)]
    merges = (folder / "merges.txt").read_text("utf-8").split("\n")
    control = {qwen3.id(token) for token in qwen3.control_tokens}
    special = {qwen3.id(token) for token in qwen3.special_tokens}
    types = [3 if i in special else 4 if i in control else 1 for i in range(len(names))]
    metadata = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": names,
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.merges": [line for line in merges if line and not line.startswith("#version")],
        "tokenizer.ggml.eos_token_id": 151645,
        "tokenizer.chat_template": "{{ messages }}",
    }
    write_gguf(tmp_path / "vocab.gguf", metadata, [])
    ours = load_tokenizer(tmp_path / "vocab.gguf")
    assert (ours.eos_id, ours.bos_id, ours.chat_template) == (151645, None, "{{ messages }}")
    assert ours.stop_ids == {151643, 151645}
    for text in (*TEXTS, "<|im_start|>user\n<think>"):
        assert ours.encode(text) == qwen3.encode(text)
        assert ours.encode(text, special=True) == qwen3.encode(text, special=True)
        assert ours.decode(ours.encode(text, special=True)) == qwen3.decode(qwen3.encode(text, special=True))


def test_llama2c_s_tokenizer_lies_beside_its_model(shared: Any) -> None:
    ours = load_tokenizer(shared("data/models/stories260K.bin"))
    golden = json.loads(shared("data/models/stories260K.greedy.ids.json").read_text())
    told = shared("data/models/stories260K.greedy.txt").read_text("utf-8")
    assert ours.encode("Once upon a time", bos=False) == golden[:4]
    assert ours.decode(golden).strip() == told.strip()
    assert ours.encode("") == [1]
    for text in TEXTS:
        assert ours.decode(ours.encode(text)) == text


# what people type


@pytest.mark.parametrize("name", ["qwen3", "minimind", "llama2", "internlm2", "llama2/ggml-vocab-llama.gguf"])
def test_a_control_token_typed_in_plain_text_stays_plain_text(tokenizer: Load, name: str) -> None:
    ours = tokenizer(name)
    control = sorted(ours.control_tokens)
    assert control
    for token in control[:40]:
        text = f"say {token} now{token}{token}"
        ids = ours.encode(text)[1 if ours.add_bos else 0 :]
        assert not {ours.id(other) for other in control} & set(ids), token
        assert ours.decode(ids) == text
        assert ours.id(token) in ours.encode(text, special=True), token


def test_control_tokens_of_trusted_text_have_the_ids_of_transformers(qwen3: Tokenizer, shared: Any) -> None:
    from transformers import AutoTokenizer

    peer = AutoTokenizer.from_pretrained(shared("data/tokenizers/qwen3"))
    text = "<|im_start|>user\nHi <think> there</think><|im_end|>\n<|endoftext|> x"
    assert qwen3.encode(text, special=True) == peer.encode(text)


def test_a_vocabulary_that_spells_its_control_token_from_letters_does_not_get_it_from_a_user(
    tmp_path: Path,
) -> None:
    vocab = {"<": 0, "s": 1, ">": 2, "<s": 3, "<s>": 4, "a": 5}
    model = tokenizers.models.BPE(vocab=vocab, merges=[("<", "s"), ("<s", ">")])
    backend = tokenizers.Tokenizer(model)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(["<s>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    ours = load_tokenizer(tmp_path)
    assert ours.encode("a<s>a") == [5, 0, 1, 2, 5]
    assert ours.encode("a<s>a", special=True) == [5, 4, 5]


def test_segments_are_read_as_one_text(qwen3: Tokenizer) -> None:
    text = "<|im_start|>user\nHello there, 你好<|im_end|>"
    for cut in range(17, 35):
        segments = [(text[:cut], True), (text[cut:30], False), (text[max(cut, 30) :], True)]
        if cut < 30:
            assert qwen3.encode_segments(segments) == qwen3.encode(text, special=True)


def test_texts_beyond_every_context_are_refused_and_broken_ones_are_mended(qwen3: Tokenizer) -> None:
    with pytest.raises(TooLargeError):
        qwen3.encode("a" * (2**24 + 1))
    assert qwen3.decode(qwen3.encode("half \ud83e of a pair")) == "half \ufffd of a pair"


# streaming


@pytest.mark.parametrize("name", ["qwen3", "llama2", "minimind"])
def test_streaming_gives_whole_characters_and_the_same_text(tokenizer: Load, name: str) -> None:
    ours = tokenizer(name)
    for text in TEXTS:
        ids = ours.encode(text)
        decoder = ours.stream()
        given_ = [decoder.push(id_) for id_ in ids]
        assert "".join(given_) + decoder.flush() == ours.decode(ids) == text
        if "\ufffd" not in text:
            assert not any("\ufffd" in piece for piece in given_)


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_comes_back_whole_through_bytes(tokenizer: Load, text: str) -> None:
    ours = tokenizer("minimind")
    decoder = ours.stream()
    ids = ours.encode(text)
    assert "".join(map(decoder.push, ids)) + decoder.flush() == text
    assert ours.decode(ids) == text


def test_half_a_character_at_the_end_is_marked_and_not_lost(tokenizer: Load) -> None:
    ours = tokenizer("llama2")
    ids = [ours.id("<0xE4>"), ours.id("<0xBD>")]
    decoder = ours.stream()
    assert [decoder.push(id_) for id_ in ids if id_ is not None] == ["", ""]
    assert decoder.flush() == "\ufffd"


def test_text_that_goes_on_keeps_its_space(tokenizer: Load) -> None:
    ours = tokenizer("llama2")
    there = ours.id("▁there")
    assert there is not None
    assert ours.stream().push(there) == "there"
    assert ours.stream(continues=True).push(there) == " there"


# broken files


def test_what_a_gguf_states_wrongly_is_named(shared: Any, tmp_path: Path) -> None:
    whole = dict(read_gguf(shared("data/tokenizers/llama2/ggml-vocab-llama.gguf")).metadata)
    small = {**whole, "tokenizer.ggml.tokens": whole["tokenizer.ggml.tokens"][:300]}
    for key in ("scores", "token_type"):
        small[f"tokenizer.ggml.{key}"] = whole[f"tokenizer.ggml.{key}"][:300]
    path = tmp_path / "v.gguf"

    def refused(change: dict[str, Any], says: str, kind: type[Exception] = FileFormatError) -> None:
        write_gguf(path, small | change, [])
        with pytest.raises(kind, match=says):
            load_tokenizer(path)

    write_gguf(path, small, [])
    assert load_tokenizer(path).vocab_size == 300
    refused({"tokenizer.ggml.scores": np.zeros(299, np.float32)}, "300 numbers")
    refused({"tokenizer.ggml.scores": np.full(300, np.nan, np.float32)}, "not numbers")
    refused({"tokenizer.ggml.token_type": "no"}, "300 numbers")
    refused({"tokenizer.ggml.tokens": 7}, "must be a list")
    refused({"tokenizer.ggml.bos_token_id": 300}, "300 of 300")
    refused({"tokenizer.ggml.model": "bert"}, "'bert'", UnsupportedModelError)
    refused({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "new"}, "'new'", UnsupportedModelError)
    refused({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.merges": ["ab"]}, "not two tokens")
    refused({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.merges": ["zz yy"]}, "broken")
