"""JSON files of strangers: limited in size and depth, no key twice, no numbers that are not numbers.

Given a path or bytes; returns the object. Knows nothing of what the keys mean.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quinze.errors import FileFormatError

MAX_BYTES = 4 * 2**20
"""Enough for every config.json and index; a vocabulary states a limit of its own."""
MAX_DEPTH = 64


def read_json(path: Path, *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """The object in the file; FileFormatError if there is none."""
    try:
        if not path.is_file():
            raise FileFormatError(f"{path} is missing or not a regular file.")
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise FileFormatError(f"{path} could not be read: {error.strerror}.") from error
    if len(data) > max_bytes:
        raise FileFormatError(
            f"{path.name} is larger than {max_bytes:,} bytes, too large for what it should hold."
        )
    return parse_json(data, path.name)


def parse_json(data: bytes, name: str) -> dict[str, Any]:
    """The object in these bytes. `name` is what messages call it."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(
            f"{name} is not valid JSON: {error}.", hint="Download or copy it again."
        ) from error
    if not isinstance(value, dict):
        raise FileFormatError(f"{name} should hold a JSON object and holds a {type(value).__name__}.")
    if _is_deep(value):
        raise FileFormatError(f"{name} nests deeper than {MAX_DEPTH} levels.")
    return value


def _is_deep(value: Any) -> bool:
    """Whether it nests too deep for those who walk it later."""
    level = [value]
    for _ in range(MAX_DEPTH):
        nested = [item for item in level if isinstance(item, (dict, list))]
        level = [child for item in nested for child in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return False
    return True


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {name[:80]!r} stands there twice")
        found[name] = value
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
