"""Paths of models: how a word for one becomes a path, a name, and a mark that changes with the file."""

from __future__ import annotations

import contextlib
from pathlib import Path

from quinze.errors import InvalidRequestError
from quinze.formats.part_names import model_stem, part_files

Stamp = tuple[int, int]


def absolute(path: str | Path) -> Path:
    if "\x00" in str(path):
        raise InvalidRequestError("The path holds a NUL character.", param="path")
    # Not resolved: a link that the user made is the user's name for the file.
    with contextlib.suppress(RuntimeError):  # "~nobody"
        path = Path(path).expanduser()
    return Path(path).absolute()


def exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long a name
        return False


def first_part(path: Path) -> Path:
    """A model in several files goes by its first, whichever is named; a missing one is told of later."""
    first = part_files(path)[0]
    return first if exists(first) else path


def looks_like_path(given: str) -> bool:
    return given.startswith((".", "/", "~")) or "/" in given or given.lower().endswith((".gguf", ".bin"))


def name_of(path: Path) -> str:
    return model_stem(path) if path.suffix.lower() in {".gguf", ".bin"} else path.name


def stamp_of(path: Path) -> Stamp:
    """Changes when the model does: then it is described and loaded anew."""
    newest = size = 0
    with contextlib.suppress(OSError):
        for part in sorted(path.iterdir()) if path.is_dir() else part_files(path):
            found = part.stat()
            newest, size = max(newest, found.st_mtime_ns), size + found.st_size
    return newest, size
