"""A random model with a real tokenizer and chat template behind every door of Quinze."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file

from quinze.server.run import LocalServer
from quinze.service.service import Service
from quinze.service.settings import Settings

VOCABULARY, HIDDEN, GRANTED = 6400, 32, 1024


@pytest.fixture(scope="session")
def babbler(shared: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of random weights that reads 1,024 tokens, with the tokens and the template of MiniMind."""
    folder = tmp_path_factory.mktemp("models") / "babbler"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(shared(f"data/tokenizers/minimind/{name}"), folder)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN, "intermediate_size": HIDDEN, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "max_position_embeddings": GRANTED, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": True, "hidden_act": "silu",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(15)
    square, row = (HIDDEN, HIDDEN), (HIDDEN,)
    layer = "model.layers.0"
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": row}
    shapes |= {f"{layer}.self_attn.{name}_proj.weight": square for name in "qkvo"}
    shapes |= {f"{layer}.mlp.{name}_proj.weight": square for name in ("gate", "up", "down")}
    shapes |= {f"{layer}.{name}_layernorm.weight": row for name in ("input", "post_attention")}
    tensors = {name: rng.standard_normal(shape).astype(np.float32) * 0.3 for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="session")
def http(babbler: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server with the model "babbler" and, in the knowledge base "rules", more than it can read."""
    home = tmp_path_factory.mktemp("home")
    (home / "models").mkdir()
    (home / "models" / "babbler").symlink_to(babbler)
    notes = home / "notes"
    notes.mkdir()
    for number in range(8):
        text = f"Rule {number}: the secret password of room {number} is written on the door. " * 12
        (notes / f"rule-{number}.txt").write_text(text)
    service = Service(home, Settings(port=0, threads=1))
    service.ingest("rules", [notes])
    server = LocalServer(service)
    thread = threading.Thread(target=lambda: server.run(sockets=[server.socket]), daemon=True)
    url = server.url
    thread.start()
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client
    server.stop()
    thread.join(20)
    service.close()
