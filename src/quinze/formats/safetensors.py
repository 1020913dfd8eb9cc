"""safetensors, the file format of Hugging Face: a JSON header, then bare bytes. And the folders made of it.

    header length u64 | {"name": {"dtype": "F16", "shape": [rows, cols], "data_offsets": [begin, end]}} | data

A folder holds config.json and either model.safetensors or the files that model.safetensors.index.json lists.
Every number is taken for hostile. Specification: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from quinze.errors import FileFormatError, UnsupportedModelError
from quinze.formats.checkpoint import Bytes, Checkpoint, Tensor, TensorType, map_file
from quinze.formats.json_file import parse_json, read_json
from quinze.paths import atomic_write

MAX_HEADER = 32 * 2**20
"""The format allows 100 MB; the headers of the largest models have about one."""
MAX_SHARDS = 1024
INDEX = "model.safetensors.index.json"
OTHER_DTYPES = (
    *("BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "C64"),
    *("F8_E4M3", "F8_E5M2", "F8_E8M0", "F6_E2M3", "F6_E3M2", "F4"),
)


def read_folder(folder: Path, *, only: str | None = None) -> Checkpoint:
    """A Hugging Face folder; `only` names the one weight file to take instead of looking for them."""
    files = [folder / only] if only else _weight_files(folder)
    if not (folder / "config.json").is_file():
        raise FileFormatError(
            f"{folder} has no config.json, so nothing says what its weights are.",
            hint="Copy config.json and the tokenizer's files beside the .safetensors file.",
        )
    config = read_json(folder / "config.json")
    tensors: dict[str, Tensor] = {}
    size = 0
    for file in files:
        data = map_file(file)
        size += len(data)
        for name, tensor in _tensors(file.name, data).items():
            if name in tensors:
                raise FileFormatError(
                    f"The tensor {name!r} is in two files of {folder}, the second {file.name}."
                )
            tensors[name] = tensor
    if not only and (folder / INDEX).is_file():
        _check_index(folder, tensors)
    path = folder / only if only else folder
    return Checkpoint(path, "safetensors", tensors, config, size)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one file."""
    return _tensors(path.name, map_file(path))


def read_metadata(path: Path) -> dict[str, str]:
    """The texts under `__metadata__` of one file; what is no text is left out."""
    found = _header(path.name, map_file(path))[0].get("__metadata__")
    pairs = found.items() if isinstance(found, dict) else ()
    return {key: text for key, text in pairs if isinstance(text, str)}


def write_safetensors(
    path: Path, tensors: Iterable[Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """A file of these tensors, in F32, F16 or BF16; it appears whole or not at all."""
    listed = sorted(tensors, key=lambda tensor: tensor.name)
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    at = 0
    for tensor in listed:
        if tensor.type.block > 1:
            raise ValueError(f"safetensors has no type for {tensor.name}, which is in {tensor.type.name}")
        end = at + len(tensor.data)
        header[tensor.name] = {
            "dtype": tensor.type.name,
            "shape": list(tensor.shape),
            "data_offsets": [at, end],
        }
        at = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    # Data begins at a multiple of 8: a mapped file can then be read as numbers where it lies.
    text += b" " * (-len(text) % 8)
    with atomic_write(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in listed:
            file.write(np.ascontiguousarray(tensor.data).data)


def _tensors(name: str, data: Bytes) -> dict[str, Tensor]:
    header, start = _header(name, data)
    spans: list[tuple[int, int, str]] = []
    tensors: dict[str, Tensor] = {}
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        kind, shape, begin, end = _entry(name, key, entry)
        if end > len(data) - start:
            raise _broken(
                name, f"is cut off or broken: {key!r} ends at {end:,} of {len(data) - start:,} bytes"
            )
        if end - begin != kind.size(shape):
            raise _broken(
                name, f"gives {key!r} {end - begin:,} bytes; {kind.name} {shape} takes {kind.size(shape):,}"
            )
        spans.append((begin, end, key))
        tensors[key] = Tensor(key, kind, shape, data[start + begin : start + end])
    at = 0
    for begin, end, key in sorted(spans):
        if begin != at:
            raise _broken(name, f"has {'overlapping' if begin < at else 'unused'} bytes before {key!r}")
        at = end
    if at != len(data) - start:
        raise _broken(name, f"has {len(data) - start - at:,} bytes after its last tensor")
    return tensors


def _header(name: str, data: Bytes) -> tuple[dict[str, Any], int]:
    """The header, and where the data begins."""
    if len(data) < 8:
        raise _broken(name, "is shorter than a safetensors header")
    size = int.from_bytes(data[:8].tobytes(), "little")
    if size > len(data) - 8 or size > MAX_HEADER:
        raise _broken(
            name,
            f"claims a header of {size:,} bytes; the file has {len(data):,} and the limit is {MAX_HEADER:,}",
        )
    return parse_json(data[8 : 8 + size].tobytes(), f"The header of {name}"), 8 + size


def _entry(name: str, key: str, entry: Any) -> tuple[TensorType, tuple[int, ...], int, int]:
    """(type, shape, begin, end) of one tensor."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _broken(name, f"does not describe {key!r} by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not _naturals(shape) or len(shape) > 8 or math.prod(shape) > 2**48:
        raise _broken(name, f"has an impossible shape for {key!r}: {shape!r:.80}")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _broken(name, f"has impossible data_offsets for {key!r}: {offsets!r:.80}")
    if dtype in OTHER_DTYPES:
        raise UnsupportedModelError(
            f"{name} holds {key} in {dtype}; Quinze runs F64, F32, F16 and BF16 from safetensors.",
            hint="Take the model's 16-bit weights, or a GGUF file in Q8_0 or Q4_0.",
        )
    if dtype not in ("F64", "F32", "F16", "BF16"):
        raise _broken(name, f"has the unknown dtype {dtype!r:.40} for {key!r}")
    return TensorType[dtype], tuple(shape), offsets[0], offsets[1]


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _weight_files(folder: Path) -> list[Path]:
    if (folder / INDEX).is_file():
        names = sorted({str(file) for file in _weight_map(folder).values()})
        if len(names) > MAX_SHARDS:
            raise FileFormatError(f"{INDEX} names {len(names):,} files; at most {MAX_SHARDS:,} make sense.")
        for name in names:
            if not (folder / name).is_file():
                raise FileFormatError(
                    f"{folder} lacks {name}, which {INDEX} names.", hint="Download it again."
                )
        return [folder / name for name in names]
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return found
    others = sorted(item.name for item in folder.iterdir() if item.suffix in (".gguf", ".bin", ".pt", ".pth"))
    pickles = [item for item in others if not item.endswith(".gguf")]
    if pickles:
        raise UnsupportedModelError(
            f"{folder} has its weights only in {pickles[0]}, and opening a pickle runs its author's code.",
            hint="Take the model's .safetensors files.",
        )
    raise FileFormatError(
        f"{folder} has {len(found) or 'no'} .safetensors files and no {INDEX}.",
        hint=f"Name the file itself: {folder / others[0]}."
        if others
        else "Name a folder with model.safetensors in it.",
    )


def _weight_map(folder: Path) -> dict[str, str]:
    """Which tensor is in which file. Names only: a path would lead out of the folder."""
    weight_map = read_json(folder / INDEX, max_bytes=MAX_HEADER).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FileFormatError(f"{INDEX} has no weight_map.")
    for name in weight_map.values():
        plain = isinstance(name, str) and name.endswith(".safetensors") and not set(name) & set("/\\\0")
        if not plain or len(name) > 255:
            raise FileFormatError(
                f"{INDEX} names {name!r:.120}, which is not a .safetensors file in its own folder."
            )
    return weight_map


def _check_index(folder: Path, tensors: dict[str, Tensor]) -> None:
    missing = sorted(set(_weight_map(folder)) - set(tensors))
    if missing:
        raise FileFormatError(
            f"{INDEX} names {len(missing):,} tensors that no file has, the first {missing[0]!r:.120}."
        )


def _broken(name: str, what: str) -> FileFormatError:
    return FileFormatError(f"{name} {what}.", hint="Download or copy it again.")
