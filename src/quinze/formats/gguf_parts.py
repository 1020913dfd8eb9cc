"""A model in several GGUF files, NAME-00001-of-00003.gguf and its siblings, opened as one.

Whichever part is named, the others are looked for beside it. The first holds the key-value pairs; every part
says which it is (split.no, from 0), of how many (split.count), and how many tensors all of them have
(split.tensors.count), and none is believed: names, numbers and tensors must agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from quinze.errors import FileFormatError
from quinze.formats.checkpoint import Checkpoint, Tensor
from quinze.formats.part_names import MAX_PARTS, model_stem, part_files


def is_part(metadata: Mapping[str, Any]) -> bool:
    return metadata.get("split.count", 1) not in (0, 1)


def join(path: Path, one: Checkpoint, read: Callable[[Path], Checkpoint]) -> Checkpoint:
    """All parts of the model of which `one`, read from `path`, is a part.

    FileFormatError names the part that is missing, twice there, of another model, or renamed.
    """
    number, count, total = _numbers(path, one.metadata)
    files = part_files(path)
    if len(files) != count or files[number] != path:
        raise FileFormatError(
            f"{path.name} is part {number + 1} of {count} of a model, and its name does not say so.",
            hint=f"Give all parts their names again: this one NAME-{number + 1:05}-of-{count:05}.gguf.",
        )
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise FileFormatError(
            f"{path.parent} lacks {len(missing)} of the {count} parts of {model_stem(path)}, "
            f"the first {missing[0]}.",
            hint="Download or copy all parts into one folder.",
        )
    parts = [one if file == path else read(file) for file in files]
    for index, (file, part) in enumerate(zip(files, parts, strict=True)):
        found = _numbers(file, part.metadata)
        if found[0] != index and found[1:] == (count, total):
            raise FileFormatError(
                f"{file.name} holds part {found[0] + 1}, which is there twice.", hint="Download it again."
            )
        strange = next((key for key in part.metadata if _differs(key, part.metadata, parts[0].metadata)), "")
        if found != (index, count, total) or strange:
            raise FileFormatError(
                f"{file.name} is a part of another model than {files[0].name}"
                + (f": they differ in {strange[:80]}." if strange else "."),
                hint="Download all parts again, from one place.",
            )
    return Checkpoint(
        files[0],
        "gguf",
        _together(files, parts, total),
        {key: value for key, value in parts[0].metadata.items() if not key.startswith("split.")},
        sum(part.bytes for part in parts),
    )


def _numbers(path: Path, metadata: Mapping[str, Any]) -> tuple[int, int, int | None]:
    """(which part, of how many, how many tensors in all of them)"""
    number, count = metadata.get("split.no"), metadata.get("split.count")
    total = metadata.get("split.tensors.count")
    whole = type(number) is int and type(count) is int and (total is None or type(total) is int)
    if not whole or not 0 <= number < count <= MAX_PARTS:  # type: ignore[operator]
        raise FileFormatError(
            f"{path.name} says that it is part {number!r:.40} of {count!r:.40}; the first is 0, and at most "
            f"{MAX_PARTS:,} make sense.",
            hint="Download or copy it again.",
        )
    return number, count, total  # type: ignore[return-value]


def _differs(key: str, here: Mapping[str, Any], first: Mapping[str, Any]) -> bool:
    """Whether a part says something else of the model than the first part does."""
    if key.startswith("split.") or key not in first:
        return False
    return isinstance(here[key], (str, int, float)) and here[key] != first[key]


def _together(files: list[Path], parts: list[Checkpoint], total: int | None) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file, part in zip(files, parts, strict=True):
        twice = next((name for name in part.tensors if name in tensors), None)
        if twice is not None:
            raise FileFormatError(f"The tensor {twice[:120]!r} is in two parts, the second {file.name}.")
        tensors |= part.tensors
    if total is not None and len(tensors) != total:
        raise FileFormatError(
            f"The {len(files)} parts of {model_stem(files[0])} have {len(tensors):,} tensors; "
            f"they should have {total:,}.",
            hint="Download all parts again, from one place.",
        )
    return tensors
