"""What a folder of prepared data says of itself, and what was asked for when it was made.

manifest.json is written last: a folder that has one is whole.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import msgspec

from quinze.errors import FileFormatError, NotFoundError

Kind = Literal["text", "chat", "preference"]
NAME = "manifest.json"
VERSION = 1
AGAIN = "Prepare the data again."


class PrepareSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How sources become rows. Every default of data preparation stands here."""

    kind: Kind = "text"
    sequence_length: int = 256
    """Tokens of a row, T."""
    val_fraction: float = 0.01
    """Share of the documents that is kept for validation; of a few long texts, of each one's end."""
    split: Literal["auto", "documents", "tail"] = "auto"
    """"documents": by the hash of each; "tail": the end of each. "auto": the tail below 50 documents."""
    text_fields: tuple[str, ...] = ()
    """Fields of a record that make its text, joined by line ends; (): text, content or their like."""
    clean: bool = True
    """Unicode, control characters, hard line breaks, broken encodings, repetition, boilerplate."""
    min_characters: int = 1
    near_duplicates: Literal["auto", "remove", "report", "off"] = "auto"
    """"auto": removed from text, reported of conversations, which rightly share long instructions."""
    similarity: float = 0.7
    """Jaccard similarity of five-word shingles from which two documents count as near duplicates."""
    leak_threshold: float = 0.5
    """A validation document with this share of its 13-grams in the training text is left out; 1 and
    above: only reported."""
    isolate_documents: bool = False
    """Text only: tokens see their own document alone."""
    train_on: Literal["assistant", "last", "all"] = "assistant"
    """Chat only: which turns are learned; "all" is every token, questions too."""
    format: Literal["auto", "messages", "sharegpt", "alpaca"] = "auto"
    """Chat only: the shape of a record."""
    columns: dict[str, str] = {}
    """Names of a record's fields in our words, as {"prompt": "question", "response": "answer"}."""
    replace: dict[str, str] = {}
    """Put in place of others in every message, as {"{{name}}": "Quinze"}."""
    template_variables: dict[str, bool | int | str] = {}
    """Given to the chat template as serving would, {"enable_thinking": false}."""
    too_long: Literal["drop_turns", "refuse"] = "drop_turns"
    """A conversation longer than a row loses whole exchanges from its front, or is left out."""
    licence: str = ""
    """Of sources that state none."""
    workers: int = 2
    """Processes; what they make does not depend on their number."""


class SplitCounts(msgspec.Struct, frozen=True, kw_only=True):
    rows: int
    tokens: int
    supervised_tokens: int
    """Tokens that are learned in one epoch."""
    bytes: int
    """UTF-8 bytes of the text that is learned, for bits per byte."""
    documents: int


class SourceCounts(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    licence: str
    documents: int
    """Read."""
    kept: int
    bytes: int
    """UTF-8 bytes of what was kept."""
    tokens: int


class Dropped(msgspec.Struct, frozen=True, kw_only=True):
    """What was left out or mended for one reason."""

    count: int
    characters: int
    examples: tuple[str, ...]
    """The first three: where, and how it begins."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    version: int = VERSION
    kind: Kind
    vocab_size: int
    tokenizer_sha256: str
    sequence_length: int
    dtype: Literal["uint16", "uint32"]
    eos_id: int | None
    pad_id: int
    splits: dict[str, SplitCounts]
    files: dict[str, str]
    """name -> sha256."""
    fingerprint: str
    """Of sources, settings and tokenizer: equal ones give equal files."""
    settings: PrepareSettings
    sources: tuple[SourceCounts, ...] = ()
    dropped: dict[str, Dropped] = {}
    """reason -> what was left out or mended."""
    leaked: float = 0.0
    """Share of the validation text's 13-grams that the training text has too, after removal."""
    shortened: int = 0
    """Messages dropped from the front of conversations that were longer than a row."""
    apart: int = 0
    """Samples that repeat a conversation up to one turn, because its template writes earlier turns otherwise
    than the last (Qwen3 takes their thoughts away)."""
    packing: float = 1.0
    """Share of the rows' places that hold tokens and no padding."""


class PrepareReport(msgspec.Struct, frozen=True, kw_only=True):
    """What prepare did."""

    manifest: Manifest
    folder: str
    seconds: float
    reused: bool
    """The folder held exactly this already."""


class PrepareProgress(msgspec.Struct, frozen=True, tag="prepare", kw_only=True):
    stage: Literal["read", "duplicates", "leaks", "encode", "write"]
    done: int
    total: int | None
    unit: Literal["bytes", "documents"]
    documents: int = 0


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder; NotFoundError where there is none, FileFormatError if it is broken."""
    try:
        manifest = msgspec.json.decode((folder / NAME).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise NotFoundError(
            f"{folder} holds no prepared data.", hint="Prepare it first: quinze data prepare."
        ) from None
    except (msgspec.MsgspecError, OSError) as error:
        raise FileFormatError(f"{folder / NAME} is broken: {error}.", hint=AGAIN) from error
    if manifest.version != VERSION:
        raise FileFormatError(
            f"{folder} was prepared in version {manifest.version} of the layout; this one reads {VERSION}.",
            hint="Prepare the data again.",
        )
    return manifest


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
