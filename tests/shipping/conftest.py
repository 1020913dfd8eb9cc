"""A small chat model with a tokenizer and a template of its own, and an adapter for it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from quinze.models.adapters import LowRank, write_adapter
from quinze.models.base_mark import mark_of
from quinze.models.config import ModelConfig
from quinze.models.save import save_model
from quinze.models.transformer import Transformer
from quinze.models.weights import load_model
from quinze.shipping.probes import TEXTS

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONFIG = ModelConfig(
    name="base", architecture="qwen3", vocab_size=384, hidden_size=64, intermediate_size=96,
    num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
    max_position_embeddings=512, rms_norm_eps=1e-6, rope_theta=10_000.0, rope_interleaved=False,
    tie_word_embeddings=True, qk_norm="head",
)  # fmt: skip

# Matrices of 64 numbers: on a busy machine a second thread is waited for longer than it computes.
torch.set_num_threads(1)


@dataclass(frozen=True)
class Made:
    base: Path
    adapter: Path
    """As large as the base itself: it changes most of what is said."""


def write_tokenizer(folder: Path) -> None:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG.vocab_size, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    made.train_from_iterator(TEXTS, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    said = {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "chat_template": TEMPLATE,
        "add_bos_token": False,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(said))


def low_ranks(size: float, seed: int = 5, rank: int = 4) -> dict[str, LowRank]:
    """For every linear layer of CONFIG; `size` of what it adds beside the weights' own 0.2."""
    rng = np.random.default_rng(seed)
    sizes = {
        "self_attn.q_proj": (64, 64), "self_attn.k_proj": (32, 64), "self_attn.v_proj": (32, 64),
        "self_attn.o_proj": (64, 64), "mlp.gate_proj": (96, 64), "mlp.up_proj": (96, 64),
        "mlp.down_proj": (64, 96),
    }  # fmt: skip
    return {
        f"model.layers.{i}.{name}": LowRank(
            rng.normal(size=(rank, cols)).astype("f4"),
            (size * rng.normal(size=(rows, rank))).astype("f4"),
            0.5,
        )
        for i in range(CONFIG.num_hidden_layers)
        for name, (rows, cols) in sizes.items()
    }


def write_tune(folder: Path, base: Path, size: float, seed: int = 5) -> Path:
    write_adapter(folder, low_ranks(size, seed), base=str(base), mark=mark_of(load_model(base)))
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("shipping")
    write_tokenizer(folder / "words")
    model = Transformer(CONFIG)
    model.initialize(15, std=0.2)
    weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    save_model(folder / "base", CONFIG, weights, tokenizer=folder / "words", eos_ids=(2,))
    return Made(folder / "base", write_tune(folder / "tune", folder / "base", 0.1))


@pytest.fixture
def tuned_by(made: Made, tmp_path: Path) -> Callable[[float], Path]:
    """`tuned_by(0.002)`: an adapter of that size on the base."""
    return lambda size: write_tune(tmp_path / f"tune-{size}", made.base, size)


@pytest.fixture(scope="session")
def families() -> ModuleType:
    """engine/peer_families.py: random models of every family by transformers, and their GGUF files."""
    path = Path(__file__).resolve().parents[1] / "engine" / "peer_families.py"
    spec = importlib.util.spec_from_file_location("shipping_peer_families", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
