"""Adapters among the models: a LoRA folder, with the model that it runs on, under a name of its own.

"bread" is an adapter that was linked with its base; "llama+bread" asks for one on a base by name. Given
paths; knows no registry.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from quinze.models.adapters import fitted, read_adapter
from quinze.models.adapters import is_adapter as is_adapter
from quinze.models.weights import load_model
from quinze.service.model_info import ModelInfo
from quinze.service.model_paths import absolute, exists

JOINED = "+"
"""Between the name of a model and that of an adapter."""


class AdapterLink(msgspec.Struct, frozen=True):
    """An entry of models.json."""

    path: str
    base: str
    """Name or path of the model that it runs on."""


def describe_adapter(path: Path, base: ModelInfo) -> dict[str, Any]:
    """Everything of a ModelInfo but name, path and state. Raises what reading and fitting do: an adapter that
    does not belong to the base is none of its models."""
    adapter = read_adapter(path)
    fitted(adapter, load_model(Path(base.path)))
    own = (path / "chat_template.jinja").is_file() or (path / "tokenizer_config.json").is_file()
    return {
        "format": "adapter",
        "architecture": base.architecture,
        "parameters": adapter.parameters,
        "bytes": sum(file.stat().st_size for file in path.glob("adapter*")),
        "quantization": base.quantization,
        "context_length": base.context_length,
        "can_chat": base.can_chat or own,
        "base": base.name,
    }


def parted(given: str, known: set[str]) -> tuple[str, str] | None:
    """("llama", "bread") of "llama+bread"; a name may hold a + itself, so both must be known.

    >>> parted("a+b+c", {"a+b", "c"})
    ('a+b', 'c')
    """
    places = [i for i, letter in enumerate(given) if letter == JOINED]
    for at in places:
        base, adapter = given[:at], given[at + 1 :]
        if base in known and adapter in known:
            return base, adapter
    return None


def base_written(path: Path) -> Path | None:
    """The base that an adapter's own config names, if it lies there."""
    named = read_adapter(path).base
    if not named or "\x00" in named:
        return None
    found = absolute(named)
    return found if exists(found) and found != path else None
