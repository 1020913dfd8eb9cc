"""Where a folder of data comes into being: beside it, hidden, and under its name only when it is whole.

What a killed run had finished stays there for the next one. Two runs cannot work on one folder at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import msgspec
import numpy as np
import numpy.typing as npt

from quinze.errors import BusyError, ConflictError, FileFormatError, NotFoundError, StorageError
from quinze.tokenizer.tokenizer import Tokenizer
from quinze.training.data.manifest import NAME, Manifest, PrepareSettings, file_sha256, read_manifest
from quinze.training.data.sources import Source
from quinze.training.data.text_tasks import sync

LAYOUT = 2
"""Raised with every change after which the same sources would give other files."""


def tokenizer_sha256(tokenizer: Tokenizer) -> str:
    """Of what decides the ids: every token, which of them steer, how a sample is split, the chat template."""
    digest = hashlib.sha256()
    for id_ in range(tokenizer.vocab_size):
        digest.update(tokenizer.token(id_).encode("utf-8", "surrogateescape") + b"\0")
    probe = "The 1234th naïve coöperation: 三個人，3.14159 — don't\t\n  you？ café 🙂"
    words = [
        sorted(tokenizer.control_tokens),
        sorted(tokenizer.stop_ids),
        tokenizer.bos_id,
        tokenizer.eos_id,
        tokenizer.add_bos,
        tokenizer.chat_template,
        tokenizer.encode(probe),
    ]
    digest.update(json.dumps(words).encode())
    return digest.hexdigest()


def fingerprint(sources: Sequence[Source], settings: PrepareSettings, tokenizer: str) -> str:
    """Equal for equal work; "" where a source cannot tell whether it has changed."""
    if not all(source.identity for source in sources):
        return ""
    same = msgspec.structs.replace(settings, workers=0)
    told = [[source.name, source.licence, source.identity] for source in sources]
    return hashlib.sha256(msgspec.json.encode([LAYOUT, tokenizer, same, told])).hexdigest()


def token_bytes(tokenizer: Tokenizer) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """(V,) UTF-8 bytes of each token's text; 0 for tokens that only a template writes."""
    control = {tokenizer.id(token) for token in tokenizer.control_tokens} | tokenizer.stop_ids
    sizes = [0 if id_ in control else len(tokenizer.piece(id_)) for id_ in range(tokenizer.vocab_size)]
    return np.array(sizes, np.int32)


class Workplace:
    """The hidden folder, held by one run."""

    def __init__(self, folder: Path, spare: int, tokenizer: str) -> None:
        """`spare`: bytes that the disk must have free. What another tokenizer left there is of no use."""
        self.folder = folder
        _refuse_strangers(folder)
        self.path = folder.with_name(f".{folder.name}.preparing")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.path).free
            self._lock: IO[str] = (self.path / "lock").open("w")
        except OSError as error:
            raise StorageError(f"{folder} cannot be written: {error.strerror}.") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise BusyError(f"Somebody prepares {folder} at this moment.") from None
        if free < spare:
            self._lock.close()
            raise StorageError(
                f"Preparing needs about {spare:,} bytes of disk; {folder.parent} has {free:,} free.",
                hint="Make room, or prepare into another folder.",
            )
        self._forget_others(f"{LAYOUT} {tokenizer}")
        self.out = self.path / "out"
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()

    def _forget_others(self, identity: str) -> None:
        mark = self.path / "identity"
        if not mark.is_file() or mark.read_text() != identity:
            for left in self.path.iterdir():
                if left.is_file() and left.name != "lock":
                    left.unlink()
            mark.write_text(identity)

    def numbers(self, values: npt.NDArray[np.uint64]) -> Path:
        """A file of numbers whose name tells its content."""
        path = self.path / f"{hashlib.blake2b(values.tobytes(), digest_size=8).hexdigest()}.npy"
        np.save(path, values)
        return path

    def finish(self, manifest: Manifest) -> None:
        """The folder under its name, with the manifest last; what was there before goes after that."""
        for path in self.out.iterdir():
            sync(path)
        (self.out / NAME).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        sync(self.out / NAME)
        sync(self.out)
        old = self.folder.with_name(f".{self.folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if self.folder.exists():
            self.folder.rename(old)
        self.out.rename(self.folder)
        sync(self.folder.parent)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(self.path, ignore_errors=True)

    def sha256(self) -> dict[str, str]:
        return {path.name: file_sha256(path) for path in sorted(self.out.iterdir())}

    def close(self) -> None:
        self._lock.close()


def _refuse_strangers(folder: Path) -> None:
    """Only what was prepared may be replaced."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        read_manifest(folder)
    except (NotFoundError, FileFormatError):
        raise ConflictError(
            f"{folder} exists and holds something else.", hint="Give another folder, or move it away."
        ) from None


def existing(folder: Path, wanted: str) -> Manifest | None:
    """The manifest of data that is there already and is what is wanted."""
    try:
        manifest = read_manifest(folder)
    except (NotFoundError, FileFormatError):
        return None
    return manifest if wanted and manifest.fingerprint == wanted else None
