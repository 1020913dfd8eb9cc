"""A tokenizer and a model that do not count the same tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from quinze.errors import FileFormatError
from quinze.formats.gguf import read_gguf, write_gguf
from quinze.llm.llm import LLM
from quinze.llm.messages import Message


def without_last_rows(path: Path, to: Path, count: int) -> Path:
    checkpoint = read_gguf(path)
    tensors = dict(checkpoint.tensors)
    embedding = tensors["token_embd.weight"]
    rows, cols = embedding.shape
    row_bytes = len(embedding.data) // rows
    tensors[embedding.name] = replace(
        embedding, shape=(rows - count, cols), data=embedding.data[: (rows - count) * row_bytes]
    )
    write_gguf(to, checkpoint.metadata, tensors.values())
    return to


def test_a_control_token_that_the_model_has_not_does_no_harm(chatty_path: Path, tmp_path: Path) -> None:
    """Gemma 3's smallest lacks the one that stands for a picture."""
    with LLM(without_last_rows(chatty_path, tmp_path / "it.gguf", 2), threads=1) as llm:
        assert llm.chat([Message(role="user", content="Hello")], max_tokens=2).text is not None


def test_words_that_the_model_has_not_are_refused(chatty_path: Path, tmp_path: Path) -> None:
    path = without_last_rows(chatty_path, tmp_path / "it.gguf", 100)
    with pytest.raises(FileFormatError, match="the model knows"):
        LLM(path, threads=1)
