"""Real vocabularies, loaded once a session."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from quinze.tokenizer.tokenizer import Tokenizer, load_tokenizer


@pytest.fixture(scope="session")
def tokenizer(shared: Callable[[str], Path]) -> Callable[[str], Tokenizer]:
    """`tokenizer("qwen3")`"""

    @cache
    def load(name: str) -> Tokenizer:
        return load_tokenizer(shared(f"data/tokenizers/{name}"))

    return load
