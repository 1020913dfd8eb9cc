"""What is done to a block of texts, apart from all other blocks: cleaned, counted, encoded.

Each function is pure but for the one file that it writes, whole, under the name that it is given; so blocks
can be worked on by several processes, and a run that was killed takes up the finished ones.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from quinze.tokenizer.tokenizer import MAX_TEXT, Tokenizer
from quinze.training.data.cleaning import clean
from quinze.training.data.duplicates import SIZE, signature
from quinze.training.data.grams import grams
from quinze.training.data.manifest import Dropped, PrepareSettings

LEAK_GRAM = 13
"""Words of a run that counts as a leak when training and validation text share it (Brown et al. 2020)."""
LINE_FROM = 40
"""UTF-8 bytes of a line that may be boilerplate; shorter ones repeat rightly, as headings do."""
DROP, TRAIN, VAL, BOTH = range(4)
"""What becomes of a document; BOTH: its beginning is learned and its end kept for validation."""


class Text(msgspec.Struct, array_like=True):
    source: int
    where: str
    text: str


class Drops:
    """Counts by reason, with the first examples."""

    def __init__(self) -> None:
        self.found: dict[str, Dropped] = {}

    def add(self, reason: str, where: str, text: str) -> None:
        self.merge({reason: Dropped(count=1, characters=len(text), examples=(example(where, text),))})

    def merge(self, others: dict[str, Dropped]) -> None:
        for reason, other in others.items():
            mine = self.found.get(reason, Dropped(count=0, characters=0, examples=()))
            self.found[reason] = Dropped(
                count=mine.count + other.count,
                characters=mine.characters + other.characters,
                examples=(*mine.examples, *other.examples)[:3],
            )


def example(where: str, text: str) -> str:
    return f"{where}: {' '.join(text[:200].split())[:80]}"


class Cleaned(msgspec.Struct):
    """What the whole must know of a block."""

    sources: list[int]
    characters: list[int]
    heads: list[str]
    """Where each document comes from and how it begins."""
    hashes: bytes
    """(n,) uint64: equal for equal documents."""
    groups: bytes
    """(n,) uint64 that decide the split; documents with the same one stay on one side."""
    signatures: bytes
    """(n, 112) uint32, or nothing."""
    lines: bytes
    """uint64 of each document's different lines."""
    drops: dict[str, Dropped]


def clean_block(texts: list[Text], settings: PrepareSettings, path: Path) -> Cleaned:
    """Clean texts and write those that stay to `path`."""
    kept: list[Text] = []
    drops = Drops()
    signatures, lines = [], [np.empty(0, np.uint64)]
    for item in texts:
        text: str | None = item.text
        if settings.clean:
            done = clean(item.text, settings.min_characters)
            text = done.text
            for reason in done.reasons:
                drops.add(reason, item.where, item.text)
        if not text:
            continue
        kept.append(Text(item.source, item.where, text))
        if settings.near_duplicates != "off":
            signatures.append(signature(text))
        if settings.clean:
            lines.append(line_hashes(text))
    write_whole(path, msgspec.msgpack.encode(kept))
    hashes = np.array([content_hash(item.text) for item in kept], np.uint64).tobytes()
    return Cleaned(
        [item.source for item in kept],
        [len(item.text) for item in kept],
        [example(item.where, item.text) for item in kept],
        hashes,
        hashes,
        np.array(signatures, np.uint32).reshape(-1, SIZE).tobytes(),
        np.concatenate(lines).tobytes(),
        drops.found,
    )


def content_hash(text: str) -> int:
    """64 bits that are the same on every machine; they decide the split too."""
    return int.from_bytes(hashlib.blake2b(text.strip().encode(), digest_size=8).digest(), "little")


def line_hashes(text: str) -> npt.NDArray[np.uint64]:
    """Of each different line that is long enough to be boilerplate."""
    lines = {line.strip() for line in text.split("\n")}
    return np.array([content_hash(line) for line in lines if _is_long(line)], np.uint64)


def _is_long(line: str) -> bool:
    return len(line.encode()) >= LINE_FROM


def parts(text: str, fate: int, val_fraction: float) -> list[tuple[str, str]]:
    """(split, text) of a document."""
    if fate == BOTH:
        at = int(len(text) * (1 - val_fraction))
        return [("train", text[:at]), ("val", text[at:])]
    return [("train" if fate == TRAIN else "val", text)] if fate != DROP else []


def read_block(path: Path) -> list[Text]:
    return msgspec.msgpack.decode(path.read_bytes(), type=list[Text])


def block_grams(
    path: Path, fates: bytes, settings: PrepareSettings, split: str
) -> list[npt.NDArray[np.uint64]]:
    """The 13-grams of each document of a split."""
    return [
        grams(text, LEAK_GRAM)
        for item, fate in zip(read_block(path), fates, strict=True)
        for part, text in parts(item.text, fate, settings.val_fraction)
        if part == split
    ]


class Encoded(msgspec.Struct):
    """Of one block: the documents of each split, in order."""

    sources: dict[str, list[int]]
    lengths: dict[str, list[int]]
    bytes: dict[str, list[int]]
    drops: dict[str, Dropped]


def encode_block(
    path: Path,
    fates: bytes,
    settings: PrepareSettings,
    boilerplate: npt.NDArray[np.uint64],
    tokenizer: Tokenizer,
    out: Path,
) -> Encoded:
    """Encode a block's documents to `out`.{split}: tokens, each document ended by eos if there is one."""
    unwanted = frozenset(boilerplate.tolist())
    done = Encoded({"train": [], "val": []}, {"train": [], "val": []}, {"train": [], "val": []}, {})
    tokens: dict[str, list[npt.NDArray[np.uint32]]] = {"train": [], "val": []}
    drops = Drops()
    for item, fate in zip(read_block(path), fates, strict=True):
        whole = _without(item, unwanted, drops) if unwanted and fate != DROP else item.text
        for split, text in parts(whole, fate, settings.val_fraction):
            # The end of a document is told where the document ends, not where it is parted.
            ends = fate != BOTH or split == "val"
            ids = _encoded(text, tokenizer, ends)
            tokens[split].append(np.array(ids, np.uint32))
            done.sources[split].append(item.source)
            done.lengths[split].append(len(ids))
            done.bytes[split].append(len(text.encode()))
    for split, found in tokens.items():
        write_whole(out.with_suffix(f".{split}"), np.concatenate([np.empty(0, np.uint32), *found]).tobytes())
    done.drops = drops.found
    return done


def _encoded(text: str, tokenizer: Tokenizer, ends: bool) -> list[int]:
    ids = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
    for piece in _pieces(text):
        ids += tokenizer.encode(piece, bos=False)
    return [*ids, tokenizer.eos_id] if ends and tokenizer.eos_id is not None else ids


def _pieces(text: str, size: int = MAX_TEXT // 8) -> Iterable[str]:
    """A very long text in parts that end with a line."""
    at = 0
    while len(text) - at > size:
        end = text.rfind("\n", at, at + size) + 1 or at + size
        yield text[at:end]
        at = end
    yield text[at:]


def _without(item: Text, unwanted: frozenset[int], drops: Drops) -> str:
    lines = item.text.split("\n")
    kept = [line for line in lines if not _is_long(line.strip()) or content_hash(line) not in unwanted]
    if len(kept) == len(lines):
        return item.text
    gone = set(lines) - set(kept)
    for line in sorted(gone):
        drops.add("boilerplate line", item.where, line)
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(kept))


def write_whole(path: Path, data: bytes) -> None:
    """Under its name only when all of it is there."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(data)
    part.replace(path)


def sync(path: Path) -> None:
    """Force a file or a folder's names to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
