"""What all kinds of data have in common: copies, the split, and leaks between its two sides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from quinze.errors import InvalidRequestError
from quinze.tokenizer.tokenizer import Tokenizer
from quinze.training.data.duplicates import SIZE, near_duplicates
from quinze.training.data.manifest import Dropped, PrepareProgress, PrepareSettings
from quinze.training.data.sources import Record, Source
from quinze.training.data.tasks import Numbers, SeenGrams, ValGrams
from quinze.training.data.text_tasks import BOTH, DROP, TRAIN, VAL, Cleaned, Drops
from quinze.training.data.workers import Workers
from quinze.training.data.workplace import Workplace

TAIL_BELOW = 50
"""Texts below which a split by whole documents would be a lottery."""
Stage = Literal["read", "duplicates", "leaks", "encode", "write"]


class Preparation:
    """One run over all passes. Holds hashes and counts of documents, never their texts."""

    def __init__(
        self,
        sources: list[Source],
        tokenizer_path: Path,
        tokenizer: Tokenizer,
        settings: PrepareSettings,
        workplace: Workplace,
        workers: Workers,
        progress: Callable[[PrepareProgress], None] | None,
    ) -> None:
        self.sources, self.settings = sources, settings
        self.tokenizer, self.tokenizer_path = tokenizer, tokenizer_path
        self.workplace, self.workers, self.progress = workplace, workers, progress
        self.drops = Drops()
        self.read = [0] * len(sources)
        self.blocks: list[Path] = []
        self.sizes: list[int] = []

    def records(self) -> Iterator[tuple[int, Record]]:
        """Each record with the number of its source."""
        total = sum(s.bytes for s in self.sources if s.bytes) if all(s.bytes for s in self.sources) else None
        before = 0
        for number, source in enumerate(self.sources):
            for record in source.open():
                self.read[number] += 1
                if sum(self.read) % 256 == 1:
                    self.tell("read", min(before + record.consumed, total or 0), total)
                yield number, record
            before += source.bytes or 0

    def block(self) -> Path:
        """The file of the next block."""
        self.blocks.append(self.workplace.path / f"block-{len(self.blocks):05}")
        return self.blocks[-1]

    def require_some(self) -> None:
        """InvalidRequestError with the reasons if no document is left."""
        if not sum(self.sizes):
            reasons = ", ".join(f"{reason}: {d.count:,}" for reason, d in self.drops.found.items())
            raise InvalidRequestError(
                f"Of {sum(self.read):,} documents none is left to learn from ({reasons or 'all empty'})."
            )

    # duplicates and split

    def fates(self, cleaned: Sequence[Cleaned]) -> npt.NDArray[np.uint8]:
        """(documents,) what becomes of each."""
        count = sum(self.sizes)
        self.tell("duplicates", 0, count)
        text = self.settings.kind == "text"
        hashes = np.concatenate([np.frombuffer(block.hashes, np.uint64) for block in cleaned])
        groups = np.concatenate([np.frombuffer(block.groups, np.uint64) for block in cleaned])
        heads = [head for block in cleaned for head in block.heads]
        characters = [size for block in cleaned for size in block.characters]
        fates = np.full(count, TRAIN, np.uint8)
        _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        for i in np.flatnonzero(first[inverse] != np.arange(count)):
            self._drop("duplicate", fates, int(i), heads[i], characters[i], heads[first[inverse[i]]])
        near = self.settings.near_duplicates
        if near == "auto":
            near = "remove" if text else "report"
        if near != "off":
            signatures = np.concatenate(
                [np.frombuffer(block.signatures, np.uint32).reshape(-1, SIZE) for block in cleaned]
            )
            kept = np.flatnonzero(fates != DROP)
            repeats = near_duplicates(signatures[kept], self.settings.similarity)
            for i, of in zip(kept[repeats >= 0], kept[repeats[repeats >= 0]], strict=True):
                reason = "near duplicate (kept)" if near == "report" else "near duplicate"
                self._drop(reason, fates, int(i), heads[i], characters[i], heads[of])
        kept = np.flatnonzero(fates != DROP)
        split = self.settings.split
        if text and (split == "tail" or (split == "auto" and len(kept) < TAIL_BELOW)):
            fates[kept] = BOTH if self.settings.val_fraction else TRAIN
        else:
            # By content alone: a document keeps its side whatever else is added or taken away.
            low = groups[kept] < np.uint64(int(self.settings.val_fraction * 2**64))
            if self.settings.val_fraction and not low.any():
                low[np.argmin(groups[kept])] = True
            fates[kept[low]] = VAL
        return fates

    def _drop(
        self, reason: str, fates: npt.NDArray[np.uint8], i: int, head: str, size: int, original: str
    ) -> None:
        if not reason.endswith("(kept)"):
            fates[i] = DROP
        example = f"{head} = {original.partition(': ')[0]}"
        self.drops.merge({reason: Dropped(count=1, characters=size, examples=(example,))})

    # leaks

    def without_leaks(self, fates: npt.NDArray[np.uint8], cleaned: Sequence[Cleaned]) -> float:
        """Leave out validation documents that the training text has; the share that overlaps afterwards."""
        self.tell("leaks", 0, len(fates))
        tasks = [
            ValGrams(str(path), mine, self.settings)
            for path, mine in self.parted(fates)
            if VAL in mine or BOTH in mine
        ]
        documents = [
            np.frombuffer(item, np.uint64)
            for result in self.workers.map(tasks, Numbers, self.workplace.path)
            for item in result.arrays
        ]
        if not documents:
            return 0.0
        known = np.unique(np.concatenate(documents))
        path = self.workplace.numbers(known)
        seen = np.zeros(len(known), bool)
        checks = (SeenGrams(str(b), mine, self.settings, str(path)) for b, mine in self.parted(fates))
        done = 0
        for result, size in zip(
            self.workers.map(checks, Numbers, self.workplace.path), self.sizes, strict=True
        ):
            seen[np.searchsorted(known, np.frombuffer(result.arrays[0], np.uint64))] = True
            done += size
            self.tell("leaks", done, len(fates))
        heads = [head for block in cleaned for head in block.heads]
        characters = [size for block in cleaned for size in block.characters]
        left = total = 0
        for i, found in zip(np.flatnonzero((fates == VAL) | (fates == BOTH)), documents, strict=True):
            shared = int(seen[np.searchsorted(known, found)].sum())
            if fates[i] == VAL and shared > self.settings.leak_threshold * len(found):
                self._drop(
                    "leak", fates, int(i), heads[i], characters[i], f"{shared} of {len(found)} 13-grams"
                )
            else:
                left, total = left + shared, total + len(found)
        return left / max(1, total)

    def parted(self, fates: npt.NDArray[np.uint8]) -> Iterator[tuple[Path, bytes]]:
        at = 0
        for path, size in zip(self.blocks, self.sizes, strict=True):
            yield path, fates[at : at + size].tobytes()
            at += size

    def tell(self, stage: Stage, done: int, total: int | None) -> None:
        if self.progress is not None:
            unit: Literal["bytes", "documents"] = "bytes" if stage == "read" else "documents"
            read = sum(self.read)
            self.progress(PrepareProgress(stage=stage, done=done, total=total, unit=unit, documents=read))
