"""A model: its config, and the tensors that this config calls for, each of the right shape.

Given a path; returns a Model whose tensors bear Hugging Face's names, whatever the file calls them.
A tensor too many is refused like one too few: ignored weights give wrong words. Knows nothing of the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from quinze.errors import FileFormatError, UnsupportedModelError
from quinze.formats.checkpoint import Checkpoint, Tensor, TensorType, open_checkpoint
from quinze.formats.part_names import model_stem
from quinze.formats.quants import decode
from quinze.models.config import ModelConfig, from_llama2c
from quinze.models.gguf_config import from_gguf
from quinze.models.hugging_face_config import from_hugging_face
from quinze.models.names import from_gguf_names, from_hugging_face_names, parted
from quinze.models.shapes import shapes

ROPE_FACTORS = "rope_freqs.weight"
LONG_FACTORS = {"rope_factors_short.weight": "short_factor", "rope_factors_long.weight": "long_factor"}


@dataclass(frozen=True, slots=True)
class Model:
    """A model ready for the engine; its weights are still in the mapped file."""

    config: ModelConfig
    tensors: Mapping[str, Tensor]
    """Under Hugging Face's names for Llama (shapes.py); no "lm_head.weight" where it is tied."""
    checkpoint: Checkpoint


def load_model(path: Path) -> Model:
    """Open a GGUF, a Hugging Face folder or a llama2.c file, and check it whole."""
    return model_of(open_checkpoint(path))


def model_of(checkpoint: Checkpoint) -> Model:
    """The same of a checkpoint that is open, or made in memory."""
    config, tensors = _READ[checkpoint.format](checkpoint)
    tensors = parted(tensors, config)
    _check(config, tensors)
    return Model(config, tensors, checkpoint)


def _from_gguf(checkpoint: Checkpoint) -> tuple[ModelConfig, dict[str, Tensor]]:
    name, metadata = model_stem(checkpoint.path), checkpoint.metadata
    tensors = from_gguf_names(checkpoint.tensors, str(metadata.get("general.architecture")))
    factors = _numbers(tensors.pop(ROPE_FACTORS, None), name)
    long = {word: _numbers(tensors.pop(key, None), name) for key, word in LONG_FACTORS.items()}
    embedding = tensors.get("model.embed_tokens.weight")
    config = from_gguf(
        name,
        metadata,
        embedding.shape[0] if embedding else len(metadata.get("tokenizer.ggml.tokens", ())),
        _with_parts(tensors),
        {word: list(found) for word, found in long.items() if found is not None} or None,
    )
    return config if factors is None else replace(config, rope_factors=factors), tensors


def _with_parts(tensors: Mapping[str, Tensor]) -> set[str]:
    """Their names, and those that fused ones will have."""
    return set(tensors) | {name.replace("qkv_proj", "q_proj") for name in tensors}


def _numbers(tensor: Tensor | None, model: str) -> tuple[float, ...] | None:
    """A vector of RoPE factors; how many there must be is for the config to say."""
    if tensor is None:
        return None
    if tensor.type is not TensorType.F32 or len(tensor.shape) != 1 or tensor.shape[0] > 2**12:
        raise FileFormatError(f"{tensor.name} of {model} should be some numbers in F32.")
    return tuple(decode(tensor).tolist())


def _from_safetensors(checkpoint: Checkpoint) -> tuple[ModelConfig, dict[str, Tensor]]:
    path = checkpoint.path
    config = from_hugging_face((path if path.is_dir() else path.parent).resolve().name, checkpoint.metadata)
    return config, from_hugging_face_names(checkpoint.tensors, config)


def _from_llama2c(checkpoint: Checkpoint) -> tuple[ModelConfig, dict[str, Tensor]]:
    return from_llama2c(checkpoint.path.stem, checkpoint.metadata), dict(checkpoint.tensors)


_READ = {"gguf": _from_gguf, "safetensors": _from_safetensors, "llama2c": _from_llama2c}


def _check(config: ModelConfig, tensors: Mapping[str, Tensor]) -> None:
    wanted = shapes(config)
    missing = [name for name in wanted if name not in tensors]
    if missing:
        only = " It holds a vocabulary and no weights." if not tensors else ""
        raise FileFormatError(
            f"{config.name} lacks {len(missing):,} of {len(wanted):,} tensors, the first {missing[0]}.{only}",
            hint="Download or copy it again, all of its parts.",
        )
    extra = sorted(set(tensors) - set(wanted))
    if extra:
        raise UnsupportedModelError(
            f"{config.name} has {len(extra):,} tensors that its configuration does not call for, "
            f"the first {extra[0][:120]}.",
            hint="Quinze would have to leave them out, and the model would talk nonsense.",
        )
    for name, shape in wanted.items():
        tensor = tensors[name]
        if tensor.shape != shape:
            raise FileFormatError(
                f"{name} of {config.name} has the shape {tensor.shape}; its configuration calls for {shape}."
            )
        if len(shape) == 1 and tensor.type.block > 1:
            raise FileFormatError(f"{name} of {config.name} is quantized, which vectors never are.")
    vectors = [tensors[name] for name, shape in wanted.items() if len(shape) == 1]
    if not all(np.isfinite(decode(vector)).all() for vector in vectors):
        raise FileFormatError(f"{config.name} has norms or biases that are not numbers (NaN or infinite).")
