"""JSON files of strangers: limited in size and depth, no key twice, no numbers that are not numbers.

Given a path or bytes; returns the object. Knows nothing of what the keys mean.
"""

from __future__ import annotations

import json
import re
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
    if _depth(data) > MAX_DEPTH:
        raise FileFormatError(f"{name} nests deeper than {MAX_DEPTH} levels.")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(
            f"{name} is not valid JSON: {error}.", hint="Download or copy it again."
        ) from error
    if not isinstance(value, dict):
        raise FileFormatError(f"{name} should hold a JSON object and holds a {type(value).__name__}.")
    return value


def _depth(data: bytes) -> int:
    """An upper bound is enough: brackets within strings are told apart, nothing else."""
    depth = deepest = 0
    for match in re.finditer(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', data, re.DOTALL):
        token = match.group()
        if token in b"[{":
            depth += 1
            if depth > deepest:
                deepest = depth
                if deepest > MAX_DEPTH:
                    break
        elif token in b"]}":
            depth -= 1
    return deepest


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:80]!r} stands there twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
