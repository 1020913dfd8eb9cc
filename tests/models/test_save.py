"""Folders that we write, read by transformers: the same logits, for every family."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from quinze.errors import FileFormatError, UnsupportedModelError
from quinze.models.config import ModelConfig
from quinze.models.save import CLASSES, save_model
from quinze.models.transformer import Transformer
from quinze.models.weights import load_model

PORTABLE = ModelConfig(
    name="portable", architecture="qwen3", vocab_size=300, hidden_size=64, intermediate_size=96,
    num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
    max_position_embeddings=128, rms_norm_eps=1e-6, rope_theta=10_000.0, rope_interleaved=False,
    tie_word_embeddings=True, qk_norm="head",
)  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "llama": {"qk_norm": "none", "tie_word_embeddings": False},
    "mistral": {"qk_norm": "none", "windows": (8, 8)},
    "qwen2": {"qk_norm": "none", "qkv_bias": True},
    "phi3": {"qk_norm": "none"},
    "olmo2": {"pre_norms": False, "post_norms": True, "qk_norm": "all"},
    "gemma": {"activation": "gelu", "norm_offset": 1.0, "qk_norm": "none", "embedding_scale": 8.0},
    "gemma2": {
        "activation": "gelu", "norm_offset": 1.0, "qk_norm": "none", "embedding_scale": 8.0,
        "post_norms": True, "attention_scale": 16.0**-0.5, "attention_softcap": 50.0, "logit_softcap": 30.0,
        "windows": (8, 0),
    },
    "gemma3": {
        "activation": "gelu", "norm_offset": 1.0, "embedding_scale": 8.0, "post_norms": True,
        "attention_scale": 16.0**-0.5, "windows": (8, 0), "local_rope_theta": 10_000.0, "rope_theta": 1e6,
    },
    "gpt2": {
        "qk_norm": "none", "norm": "layer", "activation": "gelu", "gated": False, "qkv_bias": True,
        "output_bias": True, "mlp_bias": True, "learned_positions": True, "rotary_dim": 0,
        "num_key_value_heads": 4,
    },
}  # fmt: skip


def made(config: ModelConfig) -> tuple[Transformer, dict[str, Any]]:
    model = Transformer(config)
    model.initialize(15, std=0.2)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    return model.eval(), {name: value.detach().numpy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("family", sorted(CLASSES))
def test_transformers_loads_the_folder_and_gives_the_same_logits(family: str, tmp_path: Path) -> None:
    config = replace(PORTABLE, architecture=family, name=tmp_path.name, **FAMILIES[family])
    model, weights = made(config)
    save_model(tmp_path, config, weights, eos_ids=(2,))
    theirs, notes = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation="eager", output_loading_info=True
    )
    assert not notes["missing_keys"]
    assert not notes["unexpected_keys"]
    assert type(theirs).__name__ == CLASSES[family]
    ids = torch.arange(40).reshape(2, 20) * 11 % 300
    with torch.no_grad():
        assert (theirs.eval()(ids).logits - model(ids)).abs().max() < 1e-4
    # And our own reader agrees with what was written.
    again = load_model(tmp_path)
    assert replace(again.config, name=config.name) == config
    assert theirs.generation_config.eos_token_id == 2


def test_sixteen_bits_are_written_as_such(tmp_path: Path) -> None:
    _, weights = made(PORTABLE)
    save_model(tmp_path, PORTABLE, weights, dtype="bfloat16")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert theirs.dtype == torch.bfloat16
    wanted = torch.from_numpy(weights["model.norm.weight"]).bfloat16()
    assert torch.equal(theirs.model.norm.weight, wanted)


def test_the_bases_own_config_is_kept(tmp_path: Path) -> None:
    base = {
        **json.loads(transformers.Qwen3Config(
            vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=16, max_position_embeddings=128, tie_word_embeddings=True,
        ).to_json_string()),
        "somebody": "was here",
    }  # fmt: skip
    _, weights = made(PORTABLE)
    save_model(tmp_path, PORTABLE, weights, base_config=base)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["somebody"] == "was here"
    assert written["dtype"] == "float32"


def test_what_config_json_cannot_say_is_refused(tmp_path: Path) -> None:
    _, weights = made(PORTABLE)
    odd = replace(PORTABLE, rope_factors=(1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0))
    with pytest.raises(UnsupportedModelError, match="rope_factors"):
        save_model(tmp_path, odd, weights)
    assert not (tmp_path / "model.safetensors").exists()
    with pytest.raises(UnsupportedModelError, match="folders of llama"):
        save_model(tmp_path, replace(PORTABLE, architecture="other"), weights)


def test_weights_that_are_wrong_are_not_written(tmp_path: Path) -> None:
    _, weights = made(PORTABLE)
    for broken, told in (
        ({**weights, "extra.weight": np.ones(3, "f4")}, "too many"),
        ({**weights, "model.norm.weight": np.ones(3, "f4")}, "shape"),
        ({**weights, "model.norm.weight": np.full(64, np.nan, "f4")}, "NaN"),
    ):
        with pytest.raises(FileFormatError, match=told):
            save_model(tmp_path, PORTABLE, broken)
    assert not (tmp_path / "model.safetensors").exists()


def test_the_tokenizer_comes_along(tmp_path: Path, shared: Callable[[str], Path]) -> None:
    source = shared("data/tokenizers/minimind")
    _, weights = made(PORTABLE)
    save_model(tmp_path, PORTABLE, weights, tokenizer=source)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (
        theirs("hello 你好").input_ids
        == transformers.AutoTokenizer.from_pretrained(source)("hello 你好").input_ids
    )
    with pytest.raises(FileFormatError, match="no tokenizer"):
        save_model(tmp_path / "b", PORTABLE, weights, tokenizer=tmp_path / "nothing")
