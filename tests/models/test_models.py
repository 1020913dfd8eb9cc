"""Models from every format: the same numbers and the same weights as their makers gave them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors.numpy

from quinze.errors import FileFormatError, UnsupportedModelError
from quinze.formats.checkpoint import TensorType
from quinze.formats.quants import decode
from quinze.models.hugging_face_config import from_hugging_face
from quinze.models.weights import load_model

NUMBERS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps"),
)
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def test_a_folder_written_by_transformers_has_its_config_and_weights(tmp_path: Path, make_llama: Any) -> None:
    peer = make_llama(tie_word_embeddings=False)
    peer.save_pretrained(tmp_path / "tiny")
    model = load_model(tmp_path / "tiny")
    config = peer.config
    for field in NUMBERS:
        assert getattr(model.config, field) == getattr(config, field), field
    assert model.config.name == "tiny"
    assert not model.config.rope_interleaved
    assert model.config.parameters == peer.num_parameters()
    assert set(model.tensors) == set(peer.state_dict())
    for name, tensor in peer.state_dict().items():
        np.testing.assert_array_equal(decode(model.tensors[name]), tensor.numpy(), err_msg=name)


def test_tied_weights_are_read_once_from_shards(tmp_path: Path, make_llama: Any) -> None:
    peer = make_llama(tie_word_embeddings=True)
    peer.save_pretrained(tmp_path / "tiny", max_shard_size="100KB")
    assert len(list((tmp_path / "tiny").glob("*.safetensors"))) > 1
    model = load_model(tmp_path / "tiny")
    assert model.config.tie_word_embeddings
    assert "lm_head.weight" not in model.tensors
    assert model.config.parameters == peer.num_parameters()


@pytest.mark.parametrize("kind", [TensorType[name] for name in ("F32", "F16", "BF16", "Q8_0", "Q4_0")])
def test_a_gguf_written_by_its_own_package_has_the_model_s_numbers(
    tmp_path: Path, make_llama: Any, write_peer_gguf: Any, kind: TensorType
) -> None:
    peer = make_llama(tie_word_embeddings=kind is TensorType.F16)
    path = write_peer_gguf(tmp_path / "tiny.gguf", peer, kind)
    model = load_model(path)
    assert model.config.rope_interleaved
    assert model.config.tie_word_embeddings == peer.config.tie_word_embeddings
    assert model.config.parameters == peer.num_parameters()
    assert model.config.rope_theta == peer.config.rope_parameters["rope_theta"]
    for tensor in gguf.GGUFReader(path).tensors:
        name = next(n for n in peer.state_dict() if _gguf_name(n) == tensor.name)
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(
            decode(model.tensors[name]), expected.reshape(model.tensors[name].shape)
        )


def _gguf_name(name: str) -> str:
    from gguf import MODEL_ARCH, get_tensor_name_map

    return get_tensor_name_map(MODEL_ARCH.LLAMA, 8).get_name(name, try_suffixes=(".weight",)) or ""


def test_llama2c_has_the_numbers_of_its_header(shared: Any) -> None:
    path = shared("data/models/stories260K.bin")
    model = load_model(path)
    assert (model.config.hidden_size, model.config.num_hidden_layers, model.config.vocab_size) == (64, 5, 512)
    assert model.config.tie_word_embeddings
    assert model.config.rope_interleaved
    raw = np.fromfile(path, "<f4")
    np.testing.assert_array_equal(
        decode(model.tensors["model.embed_tokens.weight"]).ravel(), raw[7 : 7 + 512 * 64]
    )
    # The final norm stands just before the two RoPE tables of 512 x 4 numbers each.
    np.testing.assert_array_equal(decode(model.tensors["model.norm.weight"]), raw[-512 * 8 - 64 : -512 * 8])


def test_llama3_s_rope_factors_are_those_of_transformers(make_llama: Any) -> None:
    peer = make_llama(rope_parameters=LLAMA3_ROPE, hidden_size=256)
    config = from_hugging_face("tiny", json.loads(peer.config.to_json_string()))
    plain = 500000.0 ** (-np.arange(0, 64, 2) / 64)
    scaled = peer.model.rotary_emb.inv_freq.numpy()
    assert config.rope_factors is not None
    assert len({round(factor, 3) for factor in config.rope_factors}) > 2
    np.testing.assert_allclose(plain / np.array(config.rope_factors), scaled, rtol=1e-5)


def test_rope_factors_of_a_gguf_come_from_its_tensor(
    tmp_path: Path, make_llama: Any, write_peer_gguf: Any
) -> None:
    from quinze.formats.gguf import read_gguf, write_gguf
    from quinze.formats.quants import encode

    checkpoint = read_gguf(write_peer_gguf(tmp_path / "plain.gguf", make_llama()))
    factors = np.linspace(1, 8, 8, dtype=np.float32)
    tensors = [*checkpoint.tensors.values(), encode("rope_freqs.weight", factors, TensorType.F32)]
    write_gguf(tmp_path / "scaled.gguf", checkpoint.metadata, tensors)
    assert load_model(tmp_path / "scaled.gguf").config.rope_factors == tuple(factors.tolist())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "mamba"}, "'mamba'"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ({"sliding_window": 8, "layer_types": ["full_attention", "linear_attention"]}, "linear_attention"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"rope_scaling": {"rope_type": "spiral", "factor": 4.0}}, "spiral"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
    ],
)
def test_what_the_engine_cannot_run_is_refused_by_name(
    change: dict[str, Any], says: str, llama_json: dict[str, Any]
) -> None:
    with pytest.raises(UnsupportedModelError, match=says) as caught:
        from_hugging_face("it", llama_json | change)
    assert "llama" in caught.value.hint


@pytest.mark.parametrize(
    "change",
    [
        {"num_attention_heads": 0},
        {"num_attention_heads": -4},
        {"num_key_value_heads": 0},
        {"num_key_value_heads": 3},
        {"hidden_size": 2**63},
        {"hidden_size": "64"},
        {"vocab_size": 0},
        {"vocab_size": True},
        {"num_hidden_layers": 10**9},
        {"head_dim": 7},
        {"rms_norm_eps": 1e400},
        {"rms_norm_eps": -1.0},
        {"rope_theta": 0.0},
        {"rope_scaling": {"rope_type": "linear", "factor": 0}},
        {"rope_scaling": {**LLAMA3_ROPE, "high_freq_factor": 1.0}},
        {"rope_scaling": [1]},
        {"max_position_embeddings": None},
    ],
)
def test_impossible_numbers_are_refused(change: dict[str, Any], llama_json: dict[str, Any]) -> None:
    with pytest.raises(FileFormatError):
        from_hugging_face("it", llama_json | change)


@pytest.fixture
def llama_json() -> dict[str, Any]:
    return {
        "model_type": "llama",
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
    }


def test_missing_extra_and_misshapen_tensors_are_named(tmp_path: Path, make_llama: Any) -> None:
    folder = tmp_path / "tiny"
    make_llama().save_pretrained(folder)
    whole = safetensors.numpy.load_file(folder / "model.safetensors")
    norm = "model.layers.1.input_layernorm.weight"

    def saved(tensors: dict[str, np.ndarray]) -> Path:
        safetensors.numpy.save_file(tensors, folder / "model.safetensors")
        return folder

    with pytest.raises(FileFormatError, match=r"lacks 1 .*layers\.1\.input_layernorm"):
        load_model(saved({name: tensor for name, tensor in whole.items() if name != norm}))
    with pytest.raises(UnsupportedModelError, match=r"q_proj\.bias"):
        load_model(saved(whole | {"model.layers.0.self_attn.q_proj.bias": np.zeros(64, np.float32)}))
    with pytest.raises(FileFormatError, match=r"shape \(63,\).*\(64,\)"):
        load_model(saved(whole | {norm: np.ones(63, np.float32)}))
    with pytest.raises(FileFormatError, match="NaN"):
        load_model(saved(whole | {norm: np.full(64, np.nan, np.float32)}))


def test_a_llama2c_file_of_the_wrong_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.bin"
    path.write_bytes(struct.pack("<7i", 64, 172, 5, 8, 4, 512, 512) + bytes(1000))
    with pytest.raises(FileFormatError, match="should have"):
        load_model(path)
    path.write_bytes(struct.pack("<7i", 64, 172, 5, 0, 4, 512, 512))
    with pytest.raises(FileFormatError, match="impossible numbers"):
        load_model(path)
