"""Paths that a request names: absolute, for the client does not know in which folder the service stands."""

from __future__ import annotations

from pathlib import Path

from quinze.errors import InvalidRequestError


def given_path(text: str, param: str) -> Path:
    """
    >>> given_path("/home/me/notes.md", "paths")
    PosixPath('/home/me/notes.md')
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        path = Path(text)
    if "\x00" in text or not path.is_absolute():
        raise InvalidRequestError(
            f"{text[:300]!r} is no absolute path.",
            hint='Write it from the root on: "/home/me/notes".',
            param=param,
        )
    return path
