"""A checkpoint: named tensors that stay in their mapped file, and what the file says about them.

`open_checkpoint` looks at the content, then at the name, and opens GGUF, safetensors or llama2.c. Pickles are
refused. Knows nothing of what a model means: names and metadata are those of the file.
"""

from __future__ import annotations

import enum
import math
import mmap
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from quinze.errors import FileFormatError, ModelNotFoundError, UnsupportedModelError

Bytes = npt.NDArray[np.uint8]
Format = Literal["gguf", "safetensors", "llama2c"]


class TensorType(enum.IntEnum):
    """How weights lie in a file; the numbers are those of the native code (csrc/blocks.h)."""

    F64 = -1
    """The native code has none: the engine turns it into F32 when it loads."""
    F32 = 0
    F16 = 1
    BF16 = 2
    Q8_0 = 3
    Q4_0 = 4
    Q4_1 = 5
    Q5_0 = 6
    Q5_1 = 7
    Q4_K = 8
    Q5_K = 9
    Q6_K = 10
    Q2_K = 11
    Q3_K = 12

    @property
    def block(self) -> int:
        """Weights that share one scale. A block is the least that can be stored."""
        return (1, 1, 1, 32, 32, 32, 32, 32, 256, 256, 256, 256, 256, 1)[self]

    @property
    def bytes(self) -> int:
        """Bytes of one block."""
        return (4, 2, 2, 34, 18, 20, 22, 24, 144, 176, 210, 84, 110, 8)[self]

    def size(self, shape: tuple[int, ...]) -> int:
        """Bytes of a tensor of this shape. Its last dimension must hold whole blocks."""
        return math.prod(shape) // self.block * self.bytes


@dataclass(frozen=True, slots=True)
class Tensor:
    """One array of weights, where the file has it."""

    name: str
    type: TensorType
    shape: tuple[int, ...]
    """In numpy's order: (rows, cols)."""
    data: Bytes
    """One-dimensional, read-only, exactly `type.size(shape)` bytes; no alignment is promised."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything that a model file holds."""

    path: Path
    format: Format
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, Any]
    """GGUF: its key-value pairs. safetensors: config.json. llama2.c: the seven numbers of its header."""
    bytes: int
    """Of the weight files on disk."""


def open_checkpoint(path: Path) -> Checkpoint:
    """Open any model file or folder; FileFormatError or UnsupportedModelError say what and where."""
    from quinze.formats import gguf, llama2c, safetensors
    from quinze.formats.part_names import gguf_in

    if not path.exists():
        raise ModelNotFoundError(f"There is no model at {path}.", hint="Check the path.")
    if path.is_dir():
        inside = gguf_in(path)
        if inside is not None:
            return gguf.read_gguf(inside)
        return safetensors.read_folder(path)
    head = _first_bytes(path)
    if head[:4] == b"GGUF":
        return gguf.read_gguf(path)
    _refuse_pickle(path, head)
    if path.suffix == ".safetensors" or (head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32):
        return safetensors.read_folder(path.parent, only=path.name)
    if path.suffix == ".bin":
        return llama2c.read_llama2c(path)
    raise UnsupportedModelError(
        f"{path.name} is not a model file that Quinze knows.",
        hint="It reads GGUF files, folders with config.json and *.safetensors, and llama2.c .bin files.",
    )


def map_file(path: Path) -> Bytes:
    """The whole file as read-only bytes, mapped, not copied. Regular files only: a device has no end."""
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(path.stat().st_mode):
                raise FileFormatError(f"{path} is not a regular file.")
            if file.seek(0, 2) == 0:
                raise FileFormatError(f"{path.name} is empty.", hint="Download or copy it again.")
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
    except OSError as error:
        raise FileFormatError(f"{path} could not be read: {error.strerror}.") from error


def _first_bytes(path: Path) -> bytes:
    if not path.is_file():
        raise FileFormatError(f"{path} is not a regular file.")
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError as error:
        raise FileFormatError(f"{path} could not be read: {error.strerror}.") from error


def _refuse_pickle(path: Path, head: bytes) -> None:
    """PyTorch's .pt, .pth and pytorch_model.bin are pickles: opening one runs its author's code."""
    pickled = head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05") or head[:4] == b"PK\x03\x04"
    if (
        pickled
        or path.suffix in (".pt", ".pth", ".ckpt", ".pkl", ".pickle")
        or path.name.startswith("pytorch_model")
    ):
        raise UnsupportedModelError(
            f"{path.name} is a PyTorch pickle. Opening one runs its author's code, so Quinze never does.",
            hint="Take the model's .safetensors or GGUF file, or convert it yourself if you trust it.",
        )
