"""Sources to a folder of rows, in passes with bounded memory.

    read        blocks of some megabytes are cleaned and counted         (several processes)
    duplicates  equal and near documents, split, boilerplate lines       (on hashes alone)
    leaks       13-grams that training and validation text share         (several processes)
    encode      blocks become tokens, joined in order                    (several processes)
    write       manifest last, then the name

Equal sources, settings and tokenizer give equal bytes, with any number of processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import numpy as np

from quinze.errors import InvalidRequestError
from quinze.tokenizer.tokenizer import Tokenizer, load_tokenizer
from quinze.training.data.manifest import Manifest, PrepareProgress, PrepareReport, PrepareSettings
from quinze.training.data.prepare_chat import ChatPreparation
from quinze.training.data.prepare_text import TextPreparation
from quinze.training.data.sources import Source
from quinze.training.data.workers import Workers
from quinze.training.data.workplace import (
    Workplace,
    existing,
    fingerprint,
    token_bytes,
    tokenizer_sha256,
)

Progress = Callable[[PrepareProgress], None]
SPARE = 3
"""Bytes of disk that preparing takes for each byte of text, at the most."""


def prepare(
    sources: Iterable[Source],
    tokenizer: Path,
    folder: Path,
    settings: PrepareSettings | None = None,
    progress: Progress | None = None,
) -> PrepareReport:
    """Make `folder` from sources, or find it made already.

    tokenizer  a folder, tokenizer.json or model file that load_tokenizer reads
    progress   may raise to stop; what was finished is taken up the next time

    The folder is whole or absent, at whatever moment the process is killed. Raises InvalidRequestError where
    nothing is left to learn from or a record cannot be understood, ConflictError where the folder holds
    something else, BusyError where somebody else prepares it, StorageError where the disk is too small.
    """
    began = time.monotonic()
    chosen, settings = list(sources), settings or PrepareSettings()
    _check(chosen, settings)
    loaded = load_tokenizer(tokenizer)
    identity = tokenizer_sha256(loaded)
    wanted = fingerprint(chosen, settings, identity)
    if (found := existing(folder, wanted)) is not None:
        return PrepareReport(manifest=found, folder=str(folder), seconds=_since(began), reused=True)
    workplace = Workplace(folder, SPARE * sum(source.text_bytes for source in chosen), identity)
    try:
        with Workers(settings.workers) as workers:
            kind = TextPreparation if settings.kind == "text" else ChatPreparation
            work = kind(chosen, tokenizer, loaded, settings, workplace, workers, progress)
            manifest = work.run()
        manifest = _completed(manifest, loaded, identity, wanted, workplace)
        workplace.finish(manifest)
    finally:
        workplace.close()
    return PrepareReport(manifest=manifest, folder=str(folder), seconds=_since(began), reused=False)


def _since(began: float) -> float:
    return time.monotonic() - began


def _completed(
    manifest: Manifest, tokenizer: Tokenizer, identity: str, wanted: str, workplace: Workplace
) -> Manifest:
    np.save(workplace.out / "token_bytes.npy", token_bytes(tokenizer))
    return msgspec.structs.replace(
        manifest, tokenizer_sha256=identity, fingerprint=wanted, files=workplace.sha256()
    )


def _check(sources: list[Source], settings: PrepareSettings) -> None:
    if not sources:
        raise InvalidRequestError("There is nothing to prepare.", hint="Name a file or a folder of texts.")
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise InvalidRequestError(f"Two sources have one name: {', '.join(sorted(names))}.", param="sources")
    if not 0 <= settings.val_fraction < 1 or not 2 <= settings.sequence_length <= 2**20:
        raise InvalidRequestError(
            f"Rows of {settings.sequence_length:,} tokens, with {settings.val_fraction:g} of the documents "
            "kept for validation, cannot be.",
            hint="sequence_length lies from 2 to 1,048,576, val_fraction from 0 to below 1.",
        )
