"""Texts to two streams of tokens: the passes of prepare.py for kind "text"."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from quinze.errors import InvalidRequestError
from quinze.tokenizer.tokenizer import Tokenizer
from quinze.training.data.duplicates import SIZE, near_duplicates
from quinze.training.data.lines import LineCounts
from quinze.training.data.manifest import (
    Dropped,
    Manifest,
    PrepareProgress,
    PrepareSettings,
    SourceCounts,
    SplitCounts,
)
from quinze.training.data.sources import Source, text_of
from quinze.training.data.tasks import CleanTexts, EncodeTexts, Numbers, SeenGrams, ValGrams
from quinze.training.data.text_tasks import (
    BOTH,
    DROP,
    TRAIN,
    VAL,
    Cleaned,
    Drops,
    Encoded,
    Text,
)
from quinze.training.data.workers import Workers
from quinze.training.data.workplace import Workplace

BLOCK = 2**22
"""Characters of a block: some seconds of work."""
TAIL_BELOW = 50
"""Documents below which a split by whole documents would be a lottery."""


class TextPreparation:
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
        self.done: dict[str, int] = {}
        self.blocks: list[Path] = []
        self.sizes: list[int] = []

    def run(self) -> Manifest:
        cleaned = list(self._cleaned())
        fates = self._fates(cleaned)
        # Which lines are boilerplate, and what overlaps, only the whole can tell.
        leaked = self._without_leaks(fates, cleaned)
        encoded = list(self._encoded(fates))
        return self._manifest(encoded, leaked)

    # read

    def _cleaned(self) -> Iterator[Cleaned]:
        self.lines = LineCounts()
        for result in self.workers.map(self._clean_tasks(), Cleaned):
            self.drops.merge(result.drops)
            self.lines.add(np.frombuffer(result.lines, np.uint64))
            self.sizes.append(len(result.sources))
            result.lines = b""
            yield result
        if not sum(self.sizes):
            reasons = ", ".join(f"{r} {d.count:,}" for r, d in self.drops.found.items())
            raise InvalidRequestError(
                f"Of {sum(self.read):,} documents none is left to learn from ({reasons or 'all empty'})."
            )

    def _clean_tasks(self) -> Iterator[CleanTexts]:
        block: list[Text] = []
        size = 0
        for text in self._texts():
            block.append(text)
            size += len(text.text)
            if size >= BLOCK:
                yield self._clean_task(block)
                block, size = [], 0
        if block:
            yield self._clean_task(block)

    def _clean_task(self, block: list[Text]) -> CleanTexts:
        path = self.workplace.path / f"block-{len(self.blocks):05}"
        self.blocks.append(path)
        return CleanTexts(block, self.settings, str(path))

    def _texts(self) -> Iterator[Text]:
        total = sum(s.bytes for s in self.sources if s.bytes) if all(s.bytes for s in self.sources) else None
        before = 0
        for number, source in enumerate(self.sources):
            for record in source.open():
                self.read[number] += 1
                if sum(self.read) % 256 == 1:
                    self._tell("read", min(before + record.consumed, total or 0), total)
                yield Text(number, record.where, text_of(record, self.settings.text_fields))
            before += source.bytes or 0

    # duplicates and split

    def _fates(self, cleaned: list[Cleaned]) -> npt.NDArray[np.uint8]:
        """(documents,) what becomes of each."""
        count = sum(self.sizes)
        self._tell("duplicates", 0, count)
        hashes = np.concatenate([np.frombuffer(block.hashes, np.uint64) for block in cleaned])
        heads = [head for block in cleaned for head in block.heads]
        characters = [size for block in cleaned for size in block.characters]
        fates = np.full(count, TRAIN, np.uint8)
        _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        for i in np.flatnonzero(first[inverse] != np.arange(count)):
            self._drop("duplicate", fates, int(i), heads[i], characters[i], heads[first[inverse[i]]])
        near = self.settings.near_duplicates
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
        if split == "tail" or (split == "auto" and len(kept) < TAIL_BELOW):
            fates[kept] = BOTH if self.settings.val_fraction else TRAIN
        else:
            # By content alone: a document keeps its side whatever else is added or taken away.
            low = hashes[kept] < np.uint64(int(self.settings.val_fraction * 2**64))
            if self.settings.val_fraction and not low.any():
                low[np.argmin(hashes[kept])] = True
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

    def _without_leaks(self, fates: npt.NDArray[np.uint8], cleaned: list[Cleaned]) -> float:
        """Leave out validation documents that the training text has; the share that overlaps afterwards."""
        self._tell("leaks", 0, len(fates))
        tasks = [
            ValGrams(str(path), mine, self.settings)
            for path, mine in self._parted(fates)
            if VAL in mine or BOTH in mine
        ]
        documents = [
            np.frombuffer(item, np.uint64)
            for result in self.workers.map(tasks, Numbers)
            for item in result.arrays
        ]
        if not documents:
            return 0.0
        known = np.unique(np.concatenate(documents))
        path = self.workplace.path / "known.npy"
        np.save(path, known)
        seen = np.zeros(len(known), bool)
        checks = (SeenGrams(str(b), mine, self.settings, str(path)) for b, mine in self._parted(fates))
        done = 0
        for result, size in zip(self.workers.map(checks, Numbers), self.sizes, strict=True):
            seen[np.searchsorted(known, np.frombuffer(result.arrays[0], np.uint64))] = True
            done += size
            self._tell("leaks", done, len(fates))
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

    def _parted(self, fates: npt.NDArray[np.uint8]) -> Iterator[tuple[Path, bytes]]:
        at = 0
        for path, size in zip(self.blocks, self.sizes, strict=True):
            yield path, fates[at : at + size].tobytes()
            at += size

    # encode

    def _encoded(self, fates: npt.NDArray[np.uint8]) -> Iterator[Encoded]:
        boilerplate = self.workplace.path / "boilerplate.npy"
        np.save(boilerplate, self.lines.boilerplate(int((fates != DROP).sum())))
        self.boilerplate = boilerplate
        dtype = np.uint16 if self.tokenizer.vocab_size <= 2**16 else np.uint32
        files = {split: (self.workplace.out / f"{split}.tokens.bin").open("wb") for split in ("train", "val")}
        done = 0
        results = self.workers.map(self._encode_tasks(fates), Encoded)
        for path, size, result in zip(self.blocks, self.sizes, results, strict=True):
            for split, file in files.items():
                part = path.with_suffix(f".{split}")
                file.write(np.fromfile(part, np.uint32).astype(dtype).tobytes())
                part.unlink()
            self.drops.merge(result.drops)
            done += size
            self._tell("encode", done, len(fates))
            yield result
        for file in files.values():
            file.close()

    def _encode_tasks(self, fates: npt.NDArray[np.uint8]) -> Iterator[EncodeTexts]:
        for path, mine in self._parted(fates):
            yield EncodeTexts(
                str(path), mine, self.settings, str(self.boilerplate), str(self.tokenizer_path), str(path)
            )

    # write

    def _manifest(self, encoded: list[Encoded], leaked: float) -> Manifest:
        length = self.settings.sequence_length
        splits: dict[str, SplitCounts] = {}
        for split in ("train", "val"):
            lengths = np.array([n for block in encoded for n in block.lengths[split]], np.int64)
            sources = np.array([s for block in encoded for s in block.sources[split]], np.int64)
            starts = np.concatenate([[0], np.cumsum(lengths)])
            np.save(self.workplace.out / f"{split}.documents.npy", starts)
            np.save(self.workplace.out / f"{split}.sources.npy", sources)
            tokens = int(lengths.sum())
            rows = max(0, tokens - 1) // length
            splits[split] = SplitCounts(
                rows=rows,
                tokens=tokens,
                supervised_tokens=rows * length,
                bytes=sum(n for block in encoded for n in block.bytes[split]),
                documents=len(lengths),
            )
        if not splits["train"].rows:
            raise InvalidRequestError(
                f"The training text has {splits['train'].tokens:,} tokens; a row of {length:,} needs "
                "one more than it is long.",
                hint="Give more text, or a smaller sequence_length.",
            )
        return Manifest(
            kind="text",
            vocab_size=self.tokenizer.vocab_size,
            tokenizer_sha256="",
            sequence_length=length,
            dtype="uint16" if self.tokenizer.vocab_size <= 2**16 else "uint32",
            eos_id=self.tokenizer.eos_id,
            pad_id=self.tokenizer.eos_id or 0,
            splits=splits,
            files={},
            fingerprint="",
            settings=self.settings,
            sources=tuple(self._source(number, encoded) for number in range(len(self.sources))),
            dropped=self.drops.found,
            leaked=leaked,
        )

    def _source(self, number: int, encoded: list[Encoded]) -> SourceCounts:
        source = self.sources[number]
        kept = bytes_ = tokens = 0
        for block in encoded:
            for split in ("train", "val"):
                for which, length, size in zip(
                    block.sources[split], block.lengths[split], block.bytes[split], strict=True
                ):
                    if which == number:
                        kept, bytes_, tokens = kept + 1, bytes_ + size, tokens + length
        return SourceCounts(
            name=source.name,
            licence=source.licence or self.settings.licence,
            documents=self.read[number],
            kept=kept,
            bytes=bytes_,
            tokens=tokens,
        )

    def _tell(self, stage: str, done: int, total: int | None) -> None:
        if self.progress is not None:
            unit = "bytes" if stage == "read" else "documents"
            self.progress(
                msgspec.convert(
                    {"type": "prepare", "stage": stage, "done": done, "total": total, "unit": unit,
                     "documents": sum(self.read)},
                    PrepareProgress,
                )
            )  # fmt: skip
