"""GGUF, the file format of llama.cpp: key-value pairs, then tensors. Versions 2 and 3, little-endian.

    "GGUF" | version u32 | tensors u64 | pairs u64
    pair    key string | type u32 | value            string = length u64 + bytes; array = type u32 + count u64
    tensor  name string | dims u32 | dim u64 each | type u32 | offset u64 from the start of the data
    data    begins at the next multiple of general.alignment (32)

Every number in the file is taken for hostile: nothing is allocated, indexed or divided by before it was
compared with the length of the file. Specification: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import os
import struct
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quinze.errors import FileFormatError, UnsupportedModelError
from quinze.formats import gguf_parts
from quinze.formats.checkpoint import Bytes, Checkpoint, Tensor, TensorType, map_file

GGML_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K",
    11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS",
    19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32",
    27: "I64", 28: "F64", 29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip
"""Names of ggml's tensor types, so that a refusal can say what it met."""
GGML_NUMBERS = {
    TensorType[name]: number for number, name in GGML_TYPES.items() if name in TensorType.__members__
}

SCALARS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "|b1",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
STRING, ARRAY = 8, 9
ALIGNMENT = 32

MAX_PAIRS, MAX_TENSORS = 2**16, 2**16
MAX_NAME = 2**10
MAX_STRING = 2**24
MAX_HEAD = 2**28
"""Bytes before the data. Sparse files claim terabytes and take none."""
MAX_STRINGS = 2**22
"""Strings of one array: the largest vocabularies have a million tokens and as many merges."""


def read_gguf(path: Path) -> Checkpoint:
    """The model's tensors under its own names, and its key-value pairs as Python and numpy values.

    Of a model in several files any part opens the whole (gguf_parts.py).
    """
    one = _read_file(path)
    return gguf_parts.join(path, one, _read_file) if gguf_parts.is_part(one.metadata) else one


def _read_file(path: Path) -> Checkpoint:
    data = map_file(path)
    reader = _Reader(path.name, data)
    if reader.take(4, "the magic") != b"GGUF":
        raise FileFormatError(f"{path.name} is not a GGUF file: it does not begin with GGUF.")
    version = reader.number("<u4", "the version")
    if version not in (2, 3):
        swapped = int.from_bytes(int(version).to_bytes(4, "little"), "big")
        what = "big-endian" if swapped in (1, 2, 3) else f"of version {version}"
        raise UnsupportedModelError(
            f"{path.name} is a GGUF file {what}; Quinze reads versions 2 and 3, little-endian.",
            hint="Convert the model again with a recent llama.cpp.",
        )
    tensors = reader.count(MAX_TENSORS, 24, "tensors")
    pairs = reader.count(MAX_PAIRS, 13, "key-value pairs")
    metadata: dict[str, Any] = {}
    for _ in range(pairs):
        key = reader.string(MAX_NAME, "a key")
        if key in metadata:
            raise reader.broken(f"has the key {key!r} twice")
        metadata[key] = reader.value(key)
    described = [reader.tensor() for _ in range(tensors)]
    return Checkpoint(
        path, "gguf", reader.place(described, _alignment(reader, metadata)), metadata, len(data)
    )


def write_gguf(path: Path, metadata: Mapping[str, Any], tensors: Iterable[Tensor]) -> None:
    """Write a version 3 file, atomically.

    Python's int becomes uint32 where it fits (else uint64 or int64), float float32; numpy's keep their type.
    """
    listed = list(tensors)
    plan = [Planned(tensor.name, tensor.type, tensor.shape) for tensor in listed]
    stream_gguf(path, metadata, plan, ((tensor.data,) for tensor in listed))


@dataclass(frozen=True, slots=True)
class Planned:
    """A tensor that will be written."""

    name: str
    type: TensorType
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        return math.prod(self.shape)


def stream_gguf(
    path: Path, metadata: Mapping[str, Any], plan: Sequence[Planned], data: Iterable[Iterable[Bytes]]
) -> None:
    """The same for data that is made while it is written: for each planned tensor its bytes, in pieces."""
    if len({tensor.name for tensor in plan}) < len(plan):
        raise ValueError("two tensors of one name")
    alignment = int(metadata.get("general.alignment", ALIGNMENT))
    head = bytearray(struct.pack("<4sIQQ", b"GGUF", 3, len(plan), len(metadata)))
    for key, value in metadata.items():
        head += _string(key) + _value(value)
    offset = 0
    for tensor in plan:
        dims = tensor.shape[::-1]
        head += _string(tensor.name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
        head += struct.pack("<IQ", GGML_NUMBERS[tensor.type], offset)
        offset += _pad(tensor.type.size(tensor.shape), alignment)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(head + bytes(_pad(len(head), alignment) - len(head)))
            for tensor, pieces in zip(plan, data, strict=True):
                size = sum(file.write(np.ascontiguousarray(piece).data) for piece in pieces)
                if size != tensor.type.size(tensor.shape):
                    raise ValueError(f"{tensor.name} has {size:,} bytes")
                file.write(bytes(_pad(size, alignment) - size))
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


class _Reader:
    """Takes values from the front of the file; every one is checked against what is left."""

    def __init__(self, name: str, data: Bytes) -> None:
        self.name, self.data, self.position = name, data, 0

    def broken(self, what: str) -> FileFormatError:
        return FileFormatError(
            f"{self.name} {what} (at byte {self.position:,}).", hint="Download or copy it again."
        )

    def take(self, size: int, what: str) -> bytes:
        left = min(len(self.data), MAX_HEAD) - self.position
        if size > left:
            raise self.broken(f"is cut off or broken: {what} needs {size:,} bytes and {left:,} are left")
        start, self.position = self.position, self.position + size
        return self.data[start : self.position].tobytes()

    def number(self, dtype: str, what: str) -> Any:
        kind = np.dtype(dtype)
        value = np.frombuffer(self.take(kind.itemsize, what), "<u1" if kind.kind == "b" else kind)[0].item()
        if kind.kind != "b":
            return value
        if value not in (0, 1):
            raise self.broken(f"has {value} for a boolean, {what}")
        return value == 1

    def count(self, limit: int, size: int, what: str) -> int:
        """A number of things that take at least `size` bytes each."""
        count = int(self.number("<u8", f"the number of {what}"))
        if count > limit or count * size > len(self.data) - self.position:
            raise self.broken(f"claims {count:,} {what}, more than it can hold")
        return count

    def string(self, limit: int, what: str) -> str:
        size = int(self.number("<u8", f"the length of {what}"))
        if size > limit:
            raise self.broken(f"has {size:,} bytes for {what}; at most {limit:,} make sense")
        # Tokens of some vocabularies are not whole characters; they must not stop the rest from being read.
        return self.take(size, what).decode("utf-8", errors="surrogateescape")

    def strings(self, count: int, what: str) -> list[str]:
        """The same, many times: a vocabulary has hundreds of thousands."""
        view, end, at = self.data.data, min(len(self.data), MAX_HEAD), self.position
        length = struct.Struct("<Q").unpack_from
        found: list[str] = []
        for _ in range(count):
            (size,) = length(view, at) if at + 8 <= end else (end,)
            at += 8
            if size > end - at:
                self.position = min(at, end)
                raise self.broken(f"is cut off or broken: {what} needs more bytes than are left")
            found.append(str(view[at : at + size], "utf-8", "surrogateescape"))
            at += size
        self.position = at
        return found

    def value(self, key: str) -> Any:
        kind = int(self.number("<u4", f"the type of {key}"))
        if kind == STRING:
            return self.string(MAX_STRING, key)
        if kind == ARRAY:
            return self.array(key)
        if kind not in SCALARS:
            raise self.broken(f"has the unknown value type {kind} for {key!r}")
        return self.number(SCALARS[kind], key)

    def array(self, key: str) -> Any:
        """Strings become a list, numbers a numpy array."""
        kind = int(self.number("<u4", f"the type of {key}"))
        if kind == STRING:
            return self.strings(self.count(MAX_STRINGS, 8, f"strings in {key}"), key)
        if kind == ARRAY:
            raise self.broken(f"nests an array in the array {key!r}, which no model needs")
        if kind not in SCALARS:
            raise self.broken(f"has the unknown value type {kind} in the array {key!r}")
        dtype = np.dtype(SCALARS[kind])
        count = self.count(len(self.data), dtype.itemsize, f"values in {key}")
        raw = self.take(count * dtype.itemsize, key)
        return np.frombuffer(raw, np.uint8).astype(bool) if dtype.kind == "b" else np.frombuffer(raw, dtype)

    def tensor(self) -> tuple[str, tuple[int, ...], TensorType, int]:
        """(name, shape, type, offset), checked as far as it can be without the others."""
        name = self.string(MAX_NAME, "a tensor's name")
        dims = int(self.number("<u4", f"the dimensions of {name}"))
        if not 1 <= dims <= 4:
            raise self.broken(f"has {dims:,} dimensions for the tensor {name!r}; it must be 1 to 4")
        shape = tuple(int(self.number("<u8", f"a dimension of {name}")) for _ in range(dims))[::-1]
        number = int(self.number("<u4", f"the type of {name}"))
        offset = int(self.number("<u8", f"the offset of {name}"))
        known = GGML_TYPES.get(number)
        if known is None:
            raise self.broken(f"has the unknown tensor type {number} for {name!r}")
        if known not in TensorType.__members__:
            raise UnsupportedModelError(
                f"{self.name} holds {name} in {known}, which Quinze cannot run yet; "
                f"it runs {', '.join(TensorType.__members__)}.",
                hint="Take its Q4_K_M or Q8_0 file, or make one: quinze quantize F16_FILE q4_k_m.",
            )
        if min(shape) == 0 or shape[-1] % TensorType[known].block or math.prod(shape) > 2**48:
            raise self.broken(f"has the impossible shape {shape} for {name!r} in {known}")
        return name, shape, TensorType[known], offset

    def place(
        self, described: list[tuple[str, tuple[int, ...], TensorType, int]], alignment: int
    ) -> dict[str, Tensor]:
        """The tensors over their bytes: all within the file, aligned, no two sharing any."""
        start = _pad(self.position, alignment)
        tensors: dict[str, Tensor] = {}
        for name, shape, kind, offset in described:
            if name in tensors:
                raise self.broken(f"has the tensor {name!r} twice")
            begin, end = start + offset, start + offset + kind.size(shape)
            if offset % alignment:
                raise self.broken(f"places {name!r} at {offset:,}, not a multiple of {alignment}")
            if end > len(self.data):
                raise self.broken(
                    f"is cut off or broken: {name!r} ends at {end:,} of {len(self.data):,} bytes"
                )
            tensors[name] = Tensor(name, kind, shape, self.data[begin:end])
        end, before = 0, ""
        for offset, size, name in sorted((o, k.size(s), n) for n, s, k, o in described):
            if offset < end:
                raise self.broken(f"has the tensors {before!r} and {name!r} share bytes")
            end, before = offset + size, name
        return tensors


def _alignment(reader: _Reader, metadata: Mapping[str, Any]) -> int:
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or not 1 <= alignment <= 2**20 or alignment & (alignment - 1):
        raise reader.broken(f"has {alignment!r} for general.alignment, which must be a power of two")
    return alignment


def _pad(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _string(text: str) -> bytes:
    data = text.encode("utf-8", errors="surrogateescape")
    return struct.pack("<Q", len(data)) + data


_DTYPES = {np.dtype(dtype): number for number, dtype in SCALARS.items()}


def _value(value: Any) -> bytes:
    """Type and value, as a pair holds them."""
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _string(value)
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(_string, value))
    if isinstance(value, bool):
        value = np.bool_(value)
    elif isinstance(value, int):
        value = (
            np.uint32(value) if 0 <= value < 2**32 else np.uint64(value) if value >= 0 else np.int64(value)
        )
    elif isinstance(value, float) and not isinstance(value, np.floating):
        value = np.float32(value)
    array = np.ascontiguousarray(value)
    number = _DTYPES.get(array.dtype.newbyteorder("<"))
    if number is None or np.ndim(value) > 1:
        raise TypeError(f"GGUF has no value type for {type(value).__name__} {value!r:.80}")
    raw = array.astype(array.dtype.newbyteorder("<")).tobytes()
    if np.ndim(value) == 0:
        return struct.pack("<I", number) + raw
    return struct.pack("<IIQ", ARRAY, number, array.size) + raw
