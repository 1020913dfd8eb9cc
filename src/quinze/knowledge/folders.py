"""Which files are meant by the paths that a person gives, and what they are called.

A folder stands for the files in it, at any depth, without what is hidden or made by tools. Links in it are
not followed: what lies in the folder is met at its own place, and the rest was not given. Nothing is opened.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from quinze.errors import InvalidRequestError, NotFoundError

SKIPPED_FOLDERS = frozenset(["node_modules", "__pycache__", "venv", "site-packages", "__MACOSX"])
SKIPPED_FILES = frozenset(["Thumbs.db", "desktop.ini"])


class Found(msgspec.Struct, frozen=True):
    """A file to take in."""

    key: str
    """What makes it the same document the next time: its path, or, of an upload, its shown name."""
    name: str
    path: Path
    root: str
    """The added folder that it was met in; "" if it was named itself."""
    size: int
    mtime_ns: int
    named_itself: bool = False
    """Not met in a folder: the person means this very file."""

    @property
    def is_upload(self) -> bool:
        return self.key.startswith("name:")

    @property
    def shown_path(self) -> str:
        return shown(str(self.path))


def find_files(paths: Sequence[Path], names: Sequence[str] | None = None) -> list[Found]:
    """The files that these paths mean, each once. `names`: how each path, then a file, is shown."""
    if names is not None and len(names) != len(paths):
        raise InvalidRequestError(f"{len(paths)} paths came with {len(names)} names.", param="names")
    found: dict[str, Found] = {}
    for i, given in enumerate(paths):
        path = Path(given).expanduser()
        status = _status(path, given)
        if stat.S_ISDIR(status.st_mode):
            if names is not None:
                raise InvalidRequestError(
                    f"{given} is a folder; only a file can be given a name.", param="names"
                )
            for file in _walk(path.resolve()):
                found.setdefault(file.key, file)
        elif stat.S_ISREG(status.st_mode):
            resolved = path.resolve()
            name = names[i] if names is not None else resolved.name
            key = f"name:{name}" if names is not None else f"path:{shown(str(resolved))}"
            file = Found(key, shown(name), resolved, "", status.st_size, status.st_mtime_ns, True)
            # Named itself, it is more than a file met in a folder.
            found[key] = file
        else:
            raise InvalidRequestError(f"{given} is neither a file nor a folder.", param="paths")
    return list(found.values())


def _status(path: Path, given: Path) -> os.stat_result:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(
            f"There is no file or folder {given}.", hint="Check the spelling.", param="paths"
        ) from None
    except OSError as error:
        raise InvalidRequestError(f"{given} cannot be looked at: {error.strerror}.", param="paths") from error


def _walk(root: Path) -> Iterator[Found]:
    stack = [root]
    while stack:
        folder = stack.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            continue
        folders = []
        for entry in entries:
            if entry.name.startswith((".", "~$")) or entry.is_symlink():
                continue
            try:
                if entry.is_dir():
                    if entry.name not in SKIPPED_FOLDERS:
                        folders.append(Path(entry.path))
                elif entry.is_file() and entry.name not in SKIPPED_FILES:
                    yield _found(Path(entry.path), root, entry.stat())
            except OSError:
                continue
        stack += reversed(folders)


def _found(path: Path, root: Path, status: os.stat_result) -> Found:
    name = shown(str(Path(root.name) / path.relative_to(root)))
    return Found(f"path:{shown(str(path))}", name, path, shown(str(root)), status.st_size, status.st_mtime_ns)


def shown(name: str) -> str:
    """A name of undecodable bytes, with a sign where each of them was."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
