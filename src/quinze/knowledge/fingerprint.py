"""Fingerprints: of a file's content, to know it again, and of the readers, to know when they are others.

A failure is recorded with that of the readers: when they have changed since, the file deserves another try.
Knows nothing of documents.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from pathlib import Path

from quinze.knowledge import readers

FOLDER = Path(readers.__file__).parent


def hash_file(path: Path, cancel: threading.Event) -> str:
    """SHA-256 of its bytes; of some of them, and of no use, once `cancel` is set."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            if cancel.is_set():
                break
            digest.update(piece)
    return digest.hexdigest()


@functools.cache
def readers_fingerprint(folder: Path = FOLDER) -> str:
    """Another word whenever the code of a reader is another. Some milliseconds, the first time."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
