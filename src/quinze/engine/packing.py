"""What is known of packed weights without opening them: whether they are wanted, where they lie, their size.

Given the path of a model's file. How they are made and read is in packed.py, which needs numpy.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
from pathlib import Path
from typing import Literal

from quinze.errors import InvalidRequestError
from quinze.paths import home

DEFAULT_PACKING = "auto"
_PART = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")


def packing_of(name: str) -> Literal["auto", "off"]:
    """Raises InvalidRequestError for anything else."""
    if name not in ("auto", "off"):
        raise InvalidRequestError(
            f"pack_weights is {name!r}; it must be auto or off.",
            hint='"auto" keeps a rearranged copy of the weights, from which models run faster.',
            param="pack_weights",
        )
    return "auto" if name == "auto" else "off"


def packed_paths(source: Path) -> list[Path]:
    """Where a packed file of this model may lie: beside it, else among Quinze's own files."""
    absolute = source.absolute()
    key = hashlib.sha256(os.fsencode(absolute)).hexdigest()[:16]
    return [
        absolute.with_name(f".{absolute.name}.packed"),
        home() / "packed" / f"{key}-{absolute.name}.packed",
    ]


def files_of(source: Path) -> list[Path]:
    """The GGUF files of a model that is one, several parts, or a folder of them; the first bears the name."""
    if source.is_dir():
        return sorted(source.glob("*.gguf")) or [source]
    part = _PART.search(source.name)
    if part is None:
        return [source]
    return sorted(source.parent.glob(f"{glob.escape(source.name[: part.start()])}-?????-of-{part[1]}.gguf"))


def packed_bytes(source: Path) -> int:
    """On disk; 0 where there is no packed file."""
    found = 0
    for file in files_of(source):
        for place in packed_paths(file):
            with contextlib.suppress(OSError):
                found += place.stat().st_size
    return found


def remove_packed(source: Path) -> None:
    """Delete what packing this model left. Who has it loaded keeps it until then."""
    for file in files_of(source):
        for place in packed_paths(file):
            for path in (place, part_of(place)):
                with contextlib.suppress(OSError):
                    path.unlink()


def part_of(place: Path) -> Path:
    """Its name until it is whole."""
    return place.with_name(f"{place.name}.part")
