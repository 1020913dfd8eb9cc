"""A model as a Hugging Face folder: config.json, model.safetensors, and the tokenizer's files.

Given a ModelConfig and weights under our names, laid out as folders have them (transformer.py's state_dict);
writes what transformers, vLLM and llama.cpp's converter read. What config.json cannot say is refused, not
left out: each one is read back and compared before a byte of weights is written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from quinze.errors import FileFormatError, UnsupportedModelError
from quinze.formats.checkpoint import Tensor, TensorType
from quinze.formats.json_file import read_json
from quinze.formats.quants import Floats, encode
from quinze.formats.safetensors import write_safetensors
from quinze.models.config import ModelConfig
from quinze.models.hugging_face_config import from_hugging_face
from quinze.models.names import GPT2_NAMES, fused_rows
from quinze.models.shapes import shapes
from quinze.paths import atomic_write

Dtype = Literal["float32", "float16", "bfloat16"]
TYPES: dict[Dtype, TensorType] = {
    "float32": TensorType.F32, "float16": TensorType.F16, "bfloat16": TensorType.BF16,
}  # fmt: skip
CLASSES = {
    "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM", "phi3": "Phi3ForCausalLM", "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM", "gemma3": "Gemma3ForCausalLM", "olmo2": "Olmo2ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
}  # fmt: skip
"""Families that can be written, and transformers' names for them."""
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.json", "merges.txt",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "generation_config.json",
)  # fmt: skip


def save_model(
    folder: Path,
    config: ModelConfig,
    weights: Mapping[str, Floats],
    *,
    tokenizer: Path | None = None,
    dtype: Dtype = "float32",
    base_config: Mapping[str, Any] | None = None,
    bos_id: int | None = None,
    eos_ids: tuple[int, ...] = (),
) -> None:
    """Write the folder; the weights last, so that one which has them is whole.

    weights      name -> numbers, exactly those of shapes(config), in Hugging Face's order of rows
    tokenizer    a folder whose tokenizer files are copied along
    base_config  the config.json of the model that was trained further: kept, but for the dtype
    eos_ids      tokens that end a text or a turn, for config.json and generation_config.json

    Raises UnsupportedModelError for a config that config.json cannot express, FileFormatError for weights of
    another shape or that are no numbers.
    """
    _check_weights(config, weights)
    described = hugging_face_config(config, dtype, base_config)
    if bos_id is not None:
        described["bos_token_id"] = bos_id
    if eos_ids:
        described["eos_token_id"] = eos_ids[0] if len(eos_ids) == 1 else list(eos_ids)
    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer is not None:
        copy_tokenizer(tokenizer, folder)
    _write_json(folder / "config.json", described)
    if eos_ids and not (folder / "generation_config.json").is_file():
        ends: dict[str, Any] = {
            key: described[key] for key in ("bos_token_id", "eos_token_id") if key in described
        }
        _write_json(folder / "generation_config.json", ends)
    write_safetensors(folder / "model.safetensors", _tensors(config, weights, TYPES[dtype]))


def hugging_face_config(
    config: ModelConfig, dtype: Dtype = "float32", base: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """config.json of a model; from `base`, where it was made from a folder that had one."""
    if config.architecture not in CLASSES:
        raise UnsupportedModelError(
            f"{config.name} is a {config.architecture!r} model; Quinze writes folders of "
            f"{', '.join(CLASSES)}.",
            hint="Export it as an adapter, or as GGUF.",
        )
    said = dict(base) if base else _described(config)
    said.pop("quantization_config", None)
    said.pop("torch_dtype", None)
    said["dtype"] = dtype
    said["tie_word_embeddings"] = config.tie_word_embeddings
    read = from_hugging_face(config.name, said)
    wanted = replace(config, rope_interleaved=False)
    lost = [f.name for f in fields(config) if not _alike(getattr(read, f.name), getattr(wanted, f.name))]
    if lost:
        raise UnsupportedModelError(
            f"The {lost[0]} of {config.name} cannot be said in a config.json: it is "
            f"{getattr(wanted, lost[0])!r:.60}, and would be read as {getattr(read, lost[0])!r:.60}.",
            hint="Begin from the folder of the base: its config.json is then kept.",
        )
    return said


def copy_tokenizer(source: Path, folder: Path) -> list[str]:
    """The tokenizer's files of a folder; FileFormatError where it has none."""
    found = [name for name in TOKENIZER_FILES if (source / name).is_file()]
    if not found:
        raise FileFormatError(
            f"{source} has no tokenizer to copy.", hint="Name the folder with tokenizer.json."
        )
    for name in found:
        if not (folder / name).exists() or not (folder / name).samefile(source / name):
            shutil.copyfile(source / name, folder / name)
    return found


def base_config_of(path: Path) -> dict[str, Any] | None:
    """The config.json of a folder; None for a GGUF or llama2.c file."""
    file = path / "config.json"
    return read_json(file) if path.is_dir() and file.is_file() else None


def _check_weights(config: ModelConfig, weights: Mapping[str, Floats]) -> None:
    wanted = shapes(config)
    if set(wanted) != set(weights):
        first = sorted(set(wanted) ^ set(weights))[0]
        raise FileFormatError(f"{config.name} would have a tensor too many or too few: {first}.")
    for name, shape in wanted.items():
        if tuple(weights[name].shape) != shape:
            raise FileFormatError(
                f"{name} has the shape {tuple(weights[name].shape)}; {shape} is called for."
            )
        if not np.isfinite(weights[name]).all():
            raise FileFormatError(
                f"{name} holds numbers that are NaN or infinite; such a model must not be kept.",
                hint="Take an earlier checkpoint of the run.",
            )


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= 1e-6 * max(abs(a), abs(b))
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        return all(_alike(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _described(c: ModelConfig) -> dict[str, Any]:
    """In the words of transformers 4, which 5 reads too."""
    if c.architecture == "gpt2":
        return {
            "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": c.vocab_size,
            "n_embd": c.hidden_size, "n_head": c.num_attention_heads, "n_layer": c.num_hidden_layers,
            "n_positions": c.max_position_embeddings, "n_ctx": c.max_position_embeddings,
            "n_inner": c.intermediate_size, "layer_norm_epsilon": c.rms_norm_eps,
            "activation_function": "gelu_new",
        }  # fmt: skip
    said: dict[str, Any] = {
        "model_type": "gemma3_text" if c.architecture == "gemma3" else c.architecture,
        "architectures": [CLASSES[c.architecture]],
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.num_hidden_layers,
        "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads,
        "head_dim": c.head_dim,
        "max_position_embeddings": c.max_position_embeddings,
        "rms_norm_eps": c.rms_norm_eps,
        "rope_theta": c.rope_theta,
        "hidden_act": "gelu_pytorch_tanh" if c.activation == "gelu" else "silu",
        "attention_bias": c.output_bias,
        "mlp_bias": c.mlp_bias,
        "initializer_range": 0.02,
        "use_cache": True,
        # transformers' own defaults name ids that the vocabulary may not have.
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if c.architecture.startswith("gemma"):
        said["hidden_activation"] = "gelu_pytorch_tanh"
    if c.rotated != c.head_dim:
        said["partial_rotary_factor"] = c.rotated / c.head_dim
    if c.rope_factors is not None and len(set(c.rope_factors)) == 1:
        said["rope_scaling"] = {"rope_type": "linear", "factor": c.rope_factors[0]}
    if c.local_rope_theta is not None:
        said["rope_local_base_freq"] = c.local_rope_theta
    if c.attention_scale is not None:
        scalar = c.attention_scale**-2
        # transformers takes whole numbers only.
        said["query_pre_attn_scalar"] = round(scalar) if abs(scalar - round(scalar)) < 1e-6 else scalar
    if c.architecture == "gemma2":
        said["attn_logit_softcapping"] = c.attention_softcap or None
        said["final_logit_softcapping"] = c.logit_softcap or None
    return said | _window(c)


def _window(c: ModelConfig) -> dict[str, Any]:
    seen = {window for window in c.windows if window}
    if not seen:
        return {"sliding_window": None}
    types = ["sliding_attention" if window else "full_attention" for window in c.windows]
    by_layer = {"layer_types": types} if c.architecture not in ("mistral", "phi3") else {}
    use = {"use_sliding_window": True} if c.architecture.startswith("qwen") else {}
    return {"sliding_window": max(seen), **by_layer, **use}


def _tensors(config: ModelConfig, weights: Mapping[str, Floats], kind: TensorType) -> list[Tensor]:
    """Under the family's own names: Phi's and GPT-2's matrices lie fused."""
    arrays = dict(weights)
    if config.architecture in ("phi3", "gpt2"):
        arrays = _fused(arrays, config)
    if config.architecture == "gpt2":
        theirs = {ours: name for name, ours in GPT2_NAMES.items()}
        arrays = {_gpt2_name(name, theirs): _turned(name, array) for name, array in arrays.items()}
    return [encode(name, array, kind) for name, array in arrays.items()]


def _fused(arrays: dict[str, Floats], config: ModelConfig) -> dict[str, Floats]:
    found = dict(arrays)
    for i in range(config.num_hidden_layers):
        for whole, parts in fused_rows(config).items():
            for end in ("weight", "bias"):
                names = [f"model.layers.{i}.{part}.{end}" for part in parts]
                if all(name in found for name in names):
                    found[f"model.layers.{i}.{whole}.{end}"] = np.concatenate([found.pop(n) for n in names])
    return found


def _gpt2_name(name: str, theirs: Mapping[str, str]) -> str:
    stem, _, part = name.rpartition(".")
    if stem in theirs:
        return f"transformer.{theirs[stem]}.{part}"
    if stem == "lm_head":
        return name
    _, _, layer, rest = stem.split(".", 3)
    return f"transformer.h.{layer}.{theirs[rest]}.{part}"


def _turned(name: str, array: Floats) -> Floats:
    """GPT-2's matrices lie columns first."""
    return np.ascontiguousarray(array.T) if "_proj.weight" in name else array


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    with atomic_write(path) as file:
        file.write(json.dumps(value, indent=2, ensure_ascii=False).encode())
