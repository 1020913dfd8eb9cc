"""Tokenizers made here, read by everybody else."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quinze.errors import ConflictError, InvalidRequestError
from quinze.quantization.vocabulary import vocabulary_keys
from quinze.tokenizer.chat_template import ChatTemplate
from quinze.tokenizer.sources import from_gguf
from quinze.tokenizer.tokenizer import Tokenizer, load_tokenizer
from quinze.tokenizer.training import SPECIAL, TokenizerReport, TokenizerSettings, train_tokenizer

TEXTS = {
    "english": ["The cat sat on the mat in 1984, and the other cat sat on 2,048 mats.\n"] * 30,
    "chinese": ["中华人民共和国的首都是北京，人口两千万。\n他们在北京大学学习中文。"] * 30,
}
PROBES = [
    "The other cat", "  two  spaces\n\n\nand lines\r\n", "3.14159 and 1234567890", "北京大学，中文！",
    "café naïve 🙂 한국어 العربية", "don't can't I'LL", "<|im_end|> typed by a user", "",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TokenizerReport]:
    folder = tmp_path_factory.mktemp("trained")
    return folder, train_tokenizer(TEXTS, folder, TokenizerSettings(vocab_size=400, min_frequency=2))


@pytest.fixture(scope="module")
def ours(trained: tuple[Path, TokenizerReport]) -> Tokenizer:
    return load_tokenizer(trained[0])


@pytest.fixture(scope="module")
def peer(trained: tuple[Path, TokenizerReport]):
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(trained[0])


@pytest.mark.parametrize("text", PROBES)
def test_ids_equal_those_of_transformers(ours: Tokenizer, peer, text):
    wanted = peer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert ours.encode(text) == wanted
    assert ours.decode(wanted) == text


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=40))
def test_every_text_comes_back(ours: Tokenizer, text):
    assert ours.decode(ours.encode(text)) == unicodedata.normalize("NFC", text)


def test_digits_stand_alone_and_special_tokens_come_first(ours: Tokenizer):
    assert [ours.id(token) for token in SPECIAL] == [0, 1, 2]
    for id_ in range(ours.vocab_size):
        piece = ours.piece(id_).decode("utf-8", "replace")
        assert len(piece) == 1 or not any(c.isdigit() for c in piece)


def test_a_gguf_file_of_it_gives_the_same_ids(
    trained: tuple[Path, TokenizerReport], ours: Tokenizer, tmp_path
):
    folder, report = trained
    keys = vocabulary_keys(folder, SimpleNamespace(format="safetensors"), report.vocab_size)  # type: ignore[arg-type]
    assert keys["tokenizer.ggml.pre"] == "qwen2"
    read = Tokenizer(from_gguf(keys))
    assert [read.encode(text) for text in PROBES] == [ours.encode(text) for text in PROBES]
    assert read.stop_ids == ours.stop_ids == {0, 2}
    assert read.chat_template == ours.chat_template


def test_the_same_texts_give_the_same_bytes(trained: tuple[Path, TokenizerReport], tmp_path: Path):
    folder, report = trained
    again = train_tokenizer(TEXTS, tmp_path, TokenizerSettings(vocab_size=400, min_frequency=2))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    assert again.held_out == report.held_out


def test_the_report_measures_each_source(trained: tuple[Path, TokenizerReport], ours: Tokenizer):
    _, report = trained
    assert set(report.held_out) == {"english", "chinese"}
    worth = report.held_out["chinese"]
    assert worth.bytes_per_token == worth.bytes / worth.tokens > 3
    assert report.vocab_size == ours.vocab_size


CONVERSATIONS = {
    "plain": {"messages": [{"role": "user", "content": "Hi."}]},
    "system": {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi <|im_end|>"},
            {"role": "assistant", "content": "Hello", "reasoning_content": "A greeting."},
            {"role": "user", "content": "你好"},
        ]
    },
    "tools": {
        "messages": [
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"type": "function", "function": {"name": "weather", "arguments": {"city": "北京"}}}
                ],
            },
            {"role": "tool", "content": "sunny"},
        ],
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}],
    },
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_template_renders_as_transformers_renders_it(ours: Tokenizer, peer, name):
    conversation = CONVERSATIONS[name]
    template = ChatTemplate.of(ours)
    assert template is not None
    for ask in (False, True):
        segments = template.render(
            conversation["messages"], add_generation_prompt=ask, tools=conversation.get("tools")
        )
        wanted = peer.apply_chat_template(
            conversation["messages"],
            tools=conversation.get("tools"),
            add_generation_prompt=ask,
            tokenize=False,
        )
        assert "".join(text for text, _ in segments) == wanted
    template.close()


def test_characters_have_the_ids_of_nanogpt(shared: Callable[[str], Path], tmp_path: Path):
    text = shared("data/corpora/tinyshakespeare.txt").read_text("utf-8")
    report = train_tokenizer({"play": [text]}, tmp_path, TokenizerSettings(kind="characters"))
    characters = sorted(set(text))
    assert report.vocab_size == len(characters) == 65
    tokenizer = load_tokenizer(tmp_path)
    piece = text[:5000]
    assert tokenizer.encode(piece) == [characters.index(c) for c in piece]
    peer = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(tmp_path)
    assert peer(piece)["input_ids"] == tokenizer.encode(piece)
    assert peer.decode(tokenizer.encode(piece)) == piece


def test_characters_beyond_ascii_are_one_token_each(tmp_path: Path):
    text = "床前明月光，疑是地上霜。🙂 café"
    train_tokenizer({"poem": [text]}, tmp_path, TokenizerSettings(kind="characters"))
    tokenizer = load_tokenizer(tmp_path)
    ids = tokenizer.encode(text)
    assert [tokenizer.piece(id_).decode() for id_ in ids] == list(text)
    assert ids == [sorted(set(text)).index(c) for c in text]
    keys = vocabulary_keys(tmp_path, SimpleNamespace(format="safetensors"), tokenizer.vocab_size)  # type: ignore[arg-type]
    assert Tokenizer(from_gguf(keys)).encode(text) == ids


def test_a_model_keeps_its_tokenizer(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConflictError, match="holds a model"):
        train_tokenizer({"a": ["a"]}, tmp_path)
    with pytest.raises(InvalidRequestError, match="no text"):
        train_tokenizer({"a": []}, tmp_path / "new")


def test_a_vocabulary_smaller_than_its_bytes_is_refused(tmp_path: Path):
    with pytest.raises(InvalidRequestError, match="265"):
        train_tokenizer({"a": ["a"]}, tmp_path, TokenizerSettings(vocab_size=100))


def test_a_character_is_one_token_however_its_accent_is_written(tmp_path: Path):
    """GGUF's readers compose a text before they look at it: the folder must do the same."""
    train_tokenizer({"a": ["cafe\u0301 crème"]}, tmp_path, TokenizerSettings(kind="characters"))
    tokenizer = load_tokenizer(tmp_path)
    keys = vocabulary_keys(tmp_path, SimpleNamespace(format="safetensors"), tokenizer.vocab_size)  # type: ignore[arg-type]
    for written in ("é", "e\u0301"):
        assert len(tokenizer.encode(written)) == 1
        assert tokenizer.encode(written) == Tokenizer(from_gguf(keys)).encode(written)
    assert tokenizer.encode("é") == tokenizer.encode("e\u0301")
