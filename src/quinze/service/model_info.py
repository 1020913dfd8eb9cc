"""What a model is, told from its header alone: nothing is loaded, no weight is read.

Given the path of a GGUF file, a Hugging Face folder or a llama2.c file. Raises FileFormatError for a broken
one.
"""

from __future__ import annotations

import collections
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from quinze.models.weights import Model

_MOST_JSON = 16 * 2**20


class ModelInfo(msgspec.Struct, frozen=True):
    """A model as every face shows it. One that cannot be used says why in `error`; its numbers are then 0."""

    name: str
    path: str
    format: str = ""
    architecture: str = ""
    parameters: int = 0
    bytes: int = 0
    quantization: str = ""
    """As its file calls the mixture, "Q4_K_M"; else the type of most of its weights: "F32", "Q8_0", ..."""
    context_length: int = 0
    """Tokens that its file states as the most."""
    can_chat: bool = False
    """It has a chat template."""
    loaded: bool = False
    device: str = ""
    """Where it runs, when it is loaded: "cpu" or "cuda" (an NVIDIA GPU)."""
    packed_bytes: int = 0
    """On disk, of the rearranged copy of its weights that it runs faster from; 0 where there is none."""
    error: str = ""
    base: str = ""
    """Of an adapter: the model whose weights it runs on."""
    upstream: str = ""
    """Address of the server that it runs on: what is written to it goes there. "": it runs here."""


def describe(path: Path) -> dict[str, Any]:
    """Everything of a ModelInfo but its name, path and state.

    >>> describe(Path("stories260K.bin"))["context_length"]
    512
    """
    from quinze.models.weights import load_model

    model = load_model(path)
    return {
        "format": model.checkpoint.format,
        "architecture": model.config.architecture,
        "parameters": int(model.config.parameters),
        "bytes": model.checkpoint.bytes,
        "quantization": _quantization(model),
        "context_length": model.config.max_position_embeddings,
        "can_chat": _has_chat_template(path, model),
    }


FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K",
    32: "BF16",
}  # fmt: skip
"""general.file_type of a GGUF: what its maker called the mixture (llama.cpp's llama_ftype)."""


def _quantization(model: Model) -> str:
    named = FILE_TYPES.get(_file_type(model), "")
    if named:
        return named
    weights: collections.Counter[str] = collections.Counter()
    for tensor in model.tensors.values():
        weights[tensor.type.name] += tensor.data.nbytes
    return weights.most_common(1)[0][0] if weights else ""


def _file_type(model: Model) -> int:
    """-1 where it is not told, or nonsense."""
    told = model.checkpoint.metadata.get("general.file_type") if model.checkpoint.format == "gguf" else None
    return told if type(told) is int else -1


def _has_chat_template(path: Path, model: Model) -> bool:
    if model.checkpoint.metadata.get("tokenizer.chat_template"):
        return True
    folder = path if path.is_dir() else path.parent
    if model.checkpoint.format != "safetensors":
        return False
    if (folder / "chat_template.jinja").is_file():
        return True
    try:
        with (folder / "tokenizer_config.json").open("rb") as file:
            found = json.loads(file.read(_MOST_JSON))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and bool(found.get("chat_template"))
