"""Vocabularies of Gemma's kind: SentencePiece's letters, no space before a text; tokenizer.json or GGUF."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from quinze.tokenizer import spm
from quinze.tokenizer.sources import from_gguf
from quinze.tokenizer.tokenizer import Tokenizer, load_tokenizer

CORPUS = ["The quick brown fox jumps over the lazy dog. ", "你好，世界！ ", "def f(x):\n\n\treturn x\n"] * 40
TEXTS = (
    "The quick fox",
    "  two  spaces",
    "line\n\nline\n",
    "你好 world 🙂",
    "",
    " ",
    "<b>bold</b>",
    "dog.\tend ",
)
CHAT = "<bos><start_of_turn>user\nHello  there\n\nfox<end_of_turn>\n<start_of_turn>model\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small vocabulary, trained and saved as Gemma's makers do it."""
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    letters = [f"<0x{byte:02X}>" for byte in range(256)]
    backend.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=600, special_tokens=[*special, *letters], show_progress=False)
    )
    made = json.loads(backend.to_str())
    made["added_tokens"] = made["added_tokens"][: len(special)]
    backend = tokenizers.Tokenizer.from_str(json.dumps(made))
    backend.add_tokens([AddedToken("\n\n", normalized=False), AddedToken("<b>", normalized=False)])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", backend.token_to_id("<bos>"))]
    )
    path = tmp_path_factory.mktemp("gemma")
    backend.save(str(path / "tokenizer.json"))
    words = {"bos_token": "<bos>", "eos_token": "<eos>", "add_bos_token": True}
    (path / "tokenizer_config.json").write_text(json.dumps(words))
    return path


def test_a_folder_gives_the_ids_of_tokenizers(folder: Path) -> None:
    peer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    own = load_tokenizer(folder)
    assert own.add_bos
    assert own.id("<end_of_turn>") in own.stop_ids
    for text in TEXTS:
        if "<b>" not in text:  # for Quinze a mark in a text is never a control token
            assert own.encode(text) == peer.encode(text).ids, text
        assert own.decode(own.encode(text)) == text
    trusted = own.encode(CHAT, special=True, bos=False)
    assert trusted == peer.encode(CHAT, add_special_tokens=False).ids
    assert own.decode(trusted, skip_special=False) == CHAT


def test_streaming_keeps_the_first_space(folder: Path) -> None:
    own = load_tokenizer(folder)
    stream = own.stream()
    ids = own.encode(" two 你好🙂", bos=False)
    assert "".join(stream.push(id_) for id_ in ids) + stream.flush() == " two 你好🙂"


def test_a_gguf_without_a_space_before_the_text_gives_the_ids_of_sentencepiece(shared: Any) -> None:
    import sentencepiece

    path = shared("data/tokenizers/llama2/tokenizer.model")
    pieces = spm.read_model(path)
    own = Tokenizer(
        from_gguf(
            {
                "tokenizer.ggml.model": "llama",
                "tokenizer.ggml.tokens": pieces.texts,
                "tokenizer.ggml.scores": np.array(pieces.scores, np.float32),
                "tokenizer.ggml.token_type": np.array(pieces.types, np.int32),
                "tokenizer.ggml.add_space_prefix": False,
            }
        )
    )
    peer = sentencepiece.SentencePieceProcessor(model_file=str(path))
    for text in TEXTS:
        # The peer puts a space before a text; after a line end it has put one there already.
        expected = peer.encode("\n" + text)[2:]
        assert peer.encode("\n" + text)[0] == peer.piece_to_id("\u2581")
        assert own.encode(text, bos=False) == expected, text
        assert own.decode(own.encode(text, bos=False)) == text
