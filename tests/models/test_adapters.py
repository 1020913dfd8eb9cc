"""Adapters in the layouts of PEFT and mlx-lm; those that belong to another model, or are more than LoRA."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quinze.errors import FileFormatError, QuinzeError, UnsupportedModelError
from quinze.formats.checkpoint import TensorType
from quinze.formats.quants import encode
from quinze.formats.safetensors import read_safetensors, write_safetensors
from quinze.models.adapters import LowRank, fitted, is_adapter, read_adapter, write_adapter
from quinze.models.base_mark import mark_of
from quinze.models.weights import Model, load_model

SIZES: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip


def make(folder: Path, kind: str = "llama", seed: int = 15, **changes: Any) -> Model:
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(kind, **(SIZES | changes))
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return load_model(folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return make(tmp_path_factory.mktemp("base"))


def low(rows: int = 64, cols: int = 64, rank: int = 2) -> LowRank:
    rng = np.random.default_rng(7)
    return LowRank(
        rng.normal(size=(rank, cols)).astype("f4"), rng.normal(size=(rows, rank)).astype("f4"), 1.0
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "adapter"
    layers = {"model.layers.0.self_attn.q_proj": low(), "model.layers.1.mlp.down_proj": low(64, 96)}
    write_adapter(path, layers, rslora=False)
    return path


def change(folder: Path, **fields: Any) -> Path:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    return folder


def test_safetensors_reads_what_we_write(tmp_path: Path, rng: np.random.Generator) -> None:
    values = {f"t{i}": rng.normal(size=(3, i + 1)).astype(np.float32) for i in range(4)}
    path = tmp_path / "x.safetensors"
    write_safetensors(path, [encode(k, v, TensorType.F32) for k, v in values.items()], {"made": "here"})
    theirs = safetensors.numpy.load_file(path)
    assert all(np.array_equal(theirs[k], v) for k, v in values.items())
    assert len(read_safetensors(path)) == 4


def test_mlx_lms_own_adapter_is_read(shared: Callable[[str], Path]) -> None:
    adapter = read_adapter(shared("data/models/lora_mlx_qwen2.5-0.5b_dpo"))
    assert adapter.base == "mlx-community/Qwen2.5-0.5B-Instruct-4bit"
    assert sorted(adapter.layers) == [
        f"model.layers.{i}.self_attn.{p}_proj" for i in (22, 23) for p in ("q", "v")
    ]
    value = adapter.layers["model.layers.22.self_attn.v_proj"]
    assert (value.a.shape, value.b.shape, value.scale) == ((8, 896), (128, 8), 20.0)
    theirs = safetensors.numpy.load_file(adapter.path / "adapters.safetensors")
    assert np.array_equal(value.a.T, theirs["model.layers.22.self_attn.v_proj.lora_a"])


def test_what_is_written_is_read_again(folder: Path) -> None:
    adapter = read_adapter(folder)
    assert is_adapter(folder)
    assert np.array_equal(adapter.layers["model.layers.1.mlp.down_proj"].b, low(64, 96).b)
    assert adapter.layers["model.layers.0.self_attn.q_proj"].scale == 1.0
    assert adapter.parameters == 2 * (64 + 64) + 2 * (64 + 96)


def test_it_fits_its_base(folder: Path, base: Model) -> None:
    assert set(fitted(read_adapter(folder), base)) == set(read_adapter(folder).layers)


def test_a_fused_layers_adapter_is_parted(tmp_path: Path) -> None:
    model = make(tmp_path / "phi", "phi3")
    write_adapter(tmp_path / "a", {"model.layers.0.self_attn.qkv_proj": low(64 + 32 + 32)}, rslora=False)
    found = fitted(read_adapter(tmp_path / "a"), model)
    whole = low(128)
    assert [found[f"model.layers.0.self_attn.{p}_proj"].b.shape[0] for p in "qkv"] == [64, 32, 32]
    assert np.array_equal(found["model.layers.0.self_attn.k_proj"].b, whole.b[64:96])


@pytest.mark.parametrize(
    ("name", "rows", "told"),
    [
        ("model.layers.9.self_attn.q_proj", 64, "layers.9.*has not"),
        ("model.layers.0.self_attn.q_proj", 48, r"48 x 64.*64 x 64"),
        ("model.embed_tokens", 300, "embed_tokens"),
    ],
)
def test_an_adapter_for_another_shape_is_refused(
    tmp_path: Path, base: Model, name: str, rows: int, told: str
) -> None:
    write_adapter(tmp_path, {name: low(rows)}, rslora=False, base="some/base")
    with pytest.raises(UnsupportedModelError, match=f"(?s){told}.*some/base"):
        fitted(read_adapter(tmp_path), base)


def test_the_base_is_known_again_when_it_is_quantized(base: Model, tmp_path: Path) -> None:
    """Norms stay exact in a file of four bits, and the direction of a row stays too."""
    tensors = {
        name: encode(name, np.asarray(decoded(t)), TensorType.Q4_0) if "proj" in name else t
        for name, t in base.tensors.items()
    }
    write_adapter(tmp_path, {"model.layers.0.self_attn.q_proj": low()}, rslora=False, mark=mark_of(base))
    assert fitted(read_adapter(tmp_path), Model(base.config, tensors, base.checkpoint))


def decoded(tensor: Any) -> Any:
    from quinze.formats.quants import decode

    return decode(tensor)


def test_another_base_of_the_same_shape_is_refused(base: Model, tmp_path: Path) -> None:
    write_adapter(
        tmp_path / "a", {"model.layers.0.self_attn.q_proj": low()}, rslora=False, mark=mark_of(base)
    )
    other = make(tmp_path / "other", seed=16)
    with pytest.raises(UnsupportedModelError, match=r"trained on another base.*likeness"):
        fitted(read_adapter(tmp_path / "a"), other)
    further = dict(base.tensors)
    norm = "model.layers.0.input_layernorm.weight"
    further[norm] = encode(norm, decoded(further[norm]) * np.float32(1.01), TensorType.F32)
    with pytest.raises(UnsupportedModelError, match="trained further"):
        fitted(read_adapter(tmp_path / "a"), Model(base.config, further, base.checkpoint))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "lm_head"),
        ({"r": "many"}, "must be a number"),
        ({"lora_alpha": 1e300}, "must be a number"),
        ({"r": 8}, "rank"),
        ({"use_dora": True}, "use_dora"),
    ],
)
def test_more_or_less_than_lora_is_refused(folder: Path, fields: dict[str, Any], told: str) -> None:
    with pytest.raises(FileFormatError, match=told):
        read_adapter(change(folder, **fields))


def test_half_of_a_layer_and_nan_are_refused(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    tensors = list(read_safetensors(file).values())
    write_safetensors(folder / "x.safetensors", tensors[1:])
    (folder / "x.safetensors").replace(file)
    with pytest.raises(FileFormatError, match="only one of its two"):
        read_adapter(folder)
    bad = {"model.layers.0.self_attn.q_proj": LowRank(low().a * np.float32("nan"), low().b, 1.0)}
    write_adapter(folder, bad, rslora=False)
    with pytest.raises(FileFormatError, match="NaN"):
        read_adapter(folder)


def test_a_pickle_is_never_opened(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(QuinzeError, match="pickle"):
        read_adapter(folder)


def test_a_folder_without_a_config_is_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"adapter_config\.json"):
        read_adapter(tmp_path)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
FIELDS = (
    "r", "lora_alpha", "alpha_pattern", "rank_pattern", "use_rslora", "use_dora", "peft_type", "bias",
    "modules_to_save", "base_model_name_or_path", "fine_tune_type", "lora_parameters",
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(st.sampled_from(FIELDS), ANY, max_size=3))
def test_any_config_is_read_or_refused_in_words(folder: Path, base: Model, changes: dict[str, Any]) -> None:
    file = folder / "adapter_config.json"
    before = file.read_bytes()
    with contextlib.suppress(QuinzeError):
        fitted(read_adapter(change(folder, **changes)), base)
    file.write_bytes(before)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 2000), at=st.integers(0, 2000), byte=st.integers(0, 255))
def test_any_damage_to_the_weights_is_refused_in_words(folder: Path, cut: int, at: int, byte: int) -> None:
    file = folder / "adapter_model.safetensors"
    before = file.read_bytes()
    damaged = bytearray(before[: len(before) - cut] if cut < 1000 else before)
    if damaged:
        damaged[at % len(damaged)] = byte
    file.write_bytes(damaged)
    with contextlib.suppress(QuinzeError):
        read_adapter(folder)
    file.write_bytes(before)


def test_a_mark_with_infinite_numbers_matches_nothing(base: Model, tmp_path: Path) -> None:
    write_adapter(tmp_path, {"model.layers.0.self_attn.q_proj": low()}, mark=mark_of(base))
    said = json.loads((tmp_path / "quinze_base.json").read_text())
    said["rows"] = {name: [1e308] * len(row) for name, row in said["rows"].items()}
    (tmp_path / "quinze_base.json").write_text(json.dumps(said))
    with pytest.raises(UnsupportedModelError, match="another base"):
        fitted(read_adapter(tmp_path), base)
