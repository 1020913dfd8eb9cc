"""How the files of a model in several parts are called: NAME-00001-of-00003.gguf.

Given paths; returns paths. Opens nothing, and imports nothing: lists of models are made with it.
"""

from __future__ import annotations

import re
from pathlib import Path

PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)
MAX_PARTS = 1024
"""The largest models have about 200."""


def model_stem(path: Path) -> str:
    """The name of a model file, without its suffix and the number of a part.

    >>> model_stem(Path("qwen3-00002-of-00003.gguf"))
    'qwen3'
    """
    part = PART.fullmatch(path.name)
    return part[1] if part else path.stem


def part_files(path: Path) -> list[Path]:
    """All parts of the model that a file's name makes it a part of, whether they are there or not; a file by
    itself is the one part."""
    part = PART.fullmatch(path.name)
    if part is None or not 1 <= int(part[2]) <= int(part[3]) <= MAX_PARTS:
        return [path]
    count = int(part[3])
    suffix = path.name[-5:]
    return [path.with_name(f"{part[1]}-{i + 1:05}-of-{count:05}{suffix}") for i in range(count)]


def gguf_in(folder: Path) -> Path | None:
    """The one GGUF model of a folder without other weights; of several parts, the first that is there."""
    try:
        files = sorted(folder.iterdir())
    except OSError:
        return None
    if any(file.suffix == ".safetensors" or file.name == "config.json" for file in files):
        return None
    found: dict[str, Path] = {}
    for file in files:
        if file.suffix.lower() == ".gguf" and not re.search(r"mmproj|imatrix", file.name, re.IGNORECASE):
            found.setdefault(model_stem(file), file)
    return next(iter(found.values())) if len(found) == 1 else None
