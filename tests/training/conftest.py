"""For the tests of training: models of every family, a tokenizer, some prepared text, and a tiny run."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from quinze.models.save import save_model
from quinze.models.transformer import Transformer
from quinze.tokenizer.tokenizer import load_tokenizer
from quinze.tokenizer.training import TokenizerSettings, train_characters, train_tokenizer
from quinze.training.building import new_config
from quinze.training.data.manifest import PrepareSettings
from quinze.training.data.prepare import prepare
from quinze.training.data.sources import Source
from quinze.training.run_config import ModelTable, RunConfig, run_config

# Matrices of 64 numbers: on a busy machine a second thread is waited for longer than it computes.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def families() -> ModuleType:
    """engine/peer_families.py: random models of every family by transformers, and their GGUF files."""
    path = Path(__file__).resolve().parents[1] / "engine" / "peer_families.py"
    spec = importlib.util.spec_from_file_location("training_peer_families", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WORDS = ("the", "a", "cat", "dog", "river", "house", "of", "and", "to", "in", "small", "red", "saw", "took")
TINY: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1,
}  # fmt: skip

_END = {
    "content": "<|end|>", "special": True, "single_word": False, "lstrip": False, "rstrip": False,
    "normalized": False,
}  # fmt: skip


def story(seed: int, words: int = 12) -> str:
    chosen = random.Random(seed)
    return " ".join(chosen.choice(WORDS) for _ in range(words)) + ".\n"


@pytest.fixture(scope="session")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of single characters, and of an end."""
    folder = tmp_path_factory.mktemp("letters")
    size = train_characters(["\n" + "".join(map(chr, range(32, 127)))], folder)
    for name, more in {
        "tokenizer.json": {"added_tokens": [dict(_END, id=size)]},
        "tokenizer_config.json": {"eos_token": _END["content"]},
    }.items():
        told = json.loads((folder / name).read_text("utf-8"))
        (folder / name).write_text(json.dumps(told | more), "utf-8")
    return folder


@pytest.fixture(scope="session")
def tales(tmp_path_factory: pytest.TempPathFactory, letters: Path) -> Path:
    """Prepared text: 60 documents of 12 words, rows of 32 tokens, of which tokens see their own document."""
    folder = tmp_path_factory.mktemp("tales") / "data"
    source = Source.of_documents("tales", lambda: [story(i) for i in range(60)])
    settings = PrepareSettings(
        sequence_length=32,
        val_fraction=0.2,
        split="documents",
        workers=1,
        isolate_documents=True,
        near_duplicates="off",
    )
    prepare([source], letters, folder, settings)
    return folder


@pytest.fixture(scope="session")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights, with a small byte-level tokenizer that has a chat template."""
    folder = tmp_path_factory.mktemp("chatty")
    texts = [story(i, 40) for i in range(50)]
    train_tokenizer({"stories": texts}, folder / "tokenizer", TokenizerSettings(vocab_size=300))
    size = load_tokenizer(folder / "tokenizer").vocab_size
    model = Transformer(new_config(ModelTable(**TINY), size, 64, "chatty"))
    model.initialize(seed=1)
    weights = {name: weight.numpy() for name, weight in model.state_dict().items()}
    save_model(folder / "model", model.config, weights, tokenizer=folder / "tokenizer")
    return folder / "model"


@pytest.fixture(scope="session")
def talks(tmp_path_factory: pytest.TempPathFactory, chatty: Path) -> dict[str, Path]:
    """ "sft": conversations, packed; "dpo": pairs of replies."""
    folder = tmp_path_factory.mktemp("talks")
    replies = [story(i, 3 + i % 5) for i in range(40)]
    records: dict[str, tuple[str, list[dict[str, Any]]]] = {
        "sft": ("chat", [{"prompt": f"say {i}", "response": reply} for i, reply in enumerate(replies)]),
        "dpo": (
            "preference",
            [{"prompt": "say", "chosen": reply, "rejected": f"no {i}"} for i, reply in enumerate(replies)],
        ),
    }
    for method, (kind, told) in records.items():
        chosen = PrepareSettings(kind=kind, sequence_length=64, val_fraction=0.2, workers=1)  # type: ignore[arg-type]
        source = Source.of_documents(method, lambda told=told: told)  # type: ignore[misc]
        prepare([source], chatty, folder / method, chosen)
    return {method: folder / method for method in records}


@pytest.fixture
def settings(tales: Path) -> Callable[..., RunConfig]:
    """`settings(schedule={"steps": 20}, ...)`: a tiny run on one thread, the same bytes every time."""

    def make(**tables: Any) -> RunConfig:
        table: dict[str, Any] = {
            "data": {"folder": str(tales)},
            "model": TINY,
            "batch": {"rows": 4},
            "schedule": {"steps": 20, "warmup": 0.1, "decay": 0.5},
            "evaluation": {"times": 2},
            "runtime": {"deterministic": True, "threads": 1, "device": "cpu"},
        }
        for name, values in tables.items():
            together = isinstance(values, dict) and isinstance(table.get(name), dict) and name != "schedule"
            table[name] = {**table[name], **values} if together else values
        return run_config(table)

    return make
