"""The mark of a base: enough of a model to know it again, even when its matrices have been quantized.

Norms stay exact in every file of a model, so their hash tells a model from the same one trained further. The
first row of some matrices tells it from a stranger's whose norms happen to be alike: rounding to four bits
leaves a row's direction, another model's row has none of it. A base into which an adapter was merged keeps
the norms: that difference is not seen.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from quinze.errors import FileFormatError, UnsupportedModelError
from quinze.formats.checkpoint import Tensor
from quinze.formats.json_file import read_json
from quinze.formats.quants import Floats, decode
from quinze.models.config import ModelConfig
from quinze.models.weights import Model
from quinze.paths import atomic_write

ROW = 256
"""Numbers of a row that are kept."""
LIKENESS = 0.8
"""Least cosine of a row and its quantized self; four bits leave about 0.99, a stranger's row about 0."""


@dataclass(frozen=True, slots=True)
class BaseMark:
    """Given by `mark_of`, kept beside an adapter."""

    norms: str
    """sha256 of every norm's weights in bfloat16, so that a copy stored in 16 bits has the same."""
    rows: dict[str, list[float]]
    """The beginning of the first row of `down_proj` in the first, the middle and the last layer."""

    def write(self, path: Path) -> None:
        with atomic_write(path) as file:
            file.write(json.dumps({"norms": self.norms, "rows": self.rows}, indent=1).encode())

    @classmethod
    def read(cls, path: Path) -> Self:
        found = read_json(path)
        norms, rows = found.get("norms"), found.get("rows")
        if not isinstance(norms, str) or not isinstance(rows, dict) or len(rows) > 64:
            raise FileFormatError(f"{path} is not the mark of a base.")
        for row in rows.values():
            if not isinstance(row, list) or not all(isinstance(x, float | int) for x in row):
                raise FileFormatError(f"{path} holds a row that is not made of numbers.")
        return cls(norms, {name: [float(x) for x in row] for name, row in rows.items()})


def mark_of(model: Model) -> BaseMark:
    """Of an open model; reads its norms and three rows."""
    norms = hashlib.sha256()
    for name in sorted(model.tensors):
        if name.endswith("norm.weight"):
            values = decode(model.tensors[name]) + np.float32(model.config.norm_offset)
            norms.update(name.encode() + _bfloat16(values))
    return BaseMark(
        norms.hexdigest(),
        {name: [round(float(x), 6) for x in _row(model.tensors[name])] for name in _marked(model.config)},
    )


def check_base(mark: BaseMark, model: Model, adapter: str) -> None:
    """UnsupportedModelError where the model is not the one that the mark was taken of."""
    found = mark_of(model)
    for name, row in mark.rows.items():
        here = found.rows.get(name)
        if here is None or len(here) != len(row):
            raise _other(adapter, model.config, "their sizes differ")
        a, b = np.asarray(row), np.asarray(here)
        with np.errstate(over="ignore", invalid="ignore"):
            size = float(np.linalg.norm(a) * np.linalg.norm(b))
            likeness = float(a @ b) / size if size else 1.0
        if not likeness >= LIKENESS:
            raise _other(
                adapter, model.config, f"the first row of {name} has a likeness of {likeness:.2f} with it"
            )
    if mark.norms != found.norms:
        raise _other(adapter, model.config, "it has been trained further, for its norms are other ones")


def _marked(config: ModelConfig) -> list[str]:
    last = config.num_hidden_layers - 1
    return [f"model.layers.{i}.mlp.down_proj.weight" for i in sorted({0, last // 2, last})]


def _row(tensor: Tensor) -> Floats:
    cols = tensor.shape[-1]
    first = replace(tensor, shape=(1, cols), data=tensor.data[: tensor.type.size((cols,))])
    return decode(first)[0, :ROW]


def _bfloat16(values: Floats) -> bytes:
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()


def _other(adapter: str, config: ModelConfig, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"The adapter {adapter} was trained on another base than {config.name}: {why}.",
        hint="Name the base that it was trained on; quantized files of that one will do.",
    )
