"""A small tokenizer and small corpora, made once a session."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from quinze.tokenizer.training import TokenizerSettings, train_tokenizer
from quinze.training.data.dataset import TokenData
from quinze.training.data.manifest import PrepareSettings
from quinze.training.data.prepare import prepare
from quinze.training.data.sources import Source

WORDS = ("the", "a", "cat", "dog", "river", "house", "of", "and", "to", "in", "small", "red", "saw", "took")


def story(seed: int, words: int = 60) -> str:
    chosen = random.Random(seed)
    return " ".join(chosen.choice(WORDS) for _ in range(words)) + ".\n"


@pytest.fixture(scope="session")
def characters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of the 95 printable ASCII characters and the line end."""
    folder = tmp_path_factory.mktemp("characters")
    letters = "\n" + "".join(map(chr, range(32, 127)))
    train_tokenizer({"letters": [letters]}, folder, TokenizerSettings(kind="characters"))
    return folder


@pytest.fixture(scope="session")
def stories(tmp_path_factory: pytest.TempPathFactory, characters: Path) -> TokenData:
    """200 documents of 60 random words."""
    folder = tmp_path_factory.mktemp("stories") / "data"
    source = Source.of_documents("stories", lambda: [story(i) for i in range(200)])
    settings = PrepareSettings(sequence_length=32, val_fraction=0.1, workers=1)
    prepare([source], characters, folder, settings)
    return TokenData.open(folder, verify=True)


@pytest.fixture(scope="session")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small byte-level tokenizer with a chat template."""
    folder = tmp_path_factory.mktemp("chatty")
    train_tokenizer({"stories": [story(i) for i in range(50)]}, folder, TokenizerSettings(vocab_size=300))
    return folder
