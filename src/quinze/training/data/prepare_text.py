"""Texts to two streams of tokens: the passes of prepare.py for kind "text"."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from quinze.errors import InvalidRequestError
from quinze.training.data.lines import LineCounts
from quinze.training.data.manifest import (
    Manifest,
    SourceCounts,
    SplitCounts,
)
from quinze.training.data.preparation import Preparation
from quinze.training.data.sources import text_of
from quinze.training.data.tasks import CleanTexts, EncodeTexts
from quinze.training.data.text_tasks import (
    DROP,
    Cleaned,
    Encoded,
    Text,
)

BLOCK = 2**22
"""Characters of a block: some seconds of work."""


class TextPreparation(Preparation):
    """One run over all passes. Holds hashes and counts of documents, never their texts."""

    def run(self) -> Manifest:
        cleaned = list(self._cleaned())
        fates = self.fates(cleaned)
        # Which lines are boilerplate, and what overlaps, only the whole can tell.
        leaked = self.without_leaks(fates, cleaned)
        encoded = list(self._encoded(fates))
        return self._manifest(encoded, leaked)

    # read

    def _cleaned(self) -> Iterator[Cleaned]:
        self.lines = LineCounts()
        for result in self.workers.map(self._clean_tasks(), Cleaned, self.workplace.path):
            self.drops.merge(result.drops)
            self.lines.add(np.frombuffer(result.lines, np.uint64))
            self.sizes.append(len(result.sources))
            result.lines = b""
            yield result
        self.require_some()

    def _clean_tasks(self) -> Iterator[CleanTexts]:
        block: list[Text] = []
        size = 0
        for number, record in self.records():
            text = text_of(record, self.settings.text_fields)
            block.append(Text(number, record.where, text))
            size += len(text)
            if size >= BLOCK:
                yield self._clean_task(block)
                block, size = [], 0
        if block:
            yield self._clean_task(block)

    def _clean_task(self, block: list[Text]) -> CleanTexts:
        return CleanTexts(block, self.settings, str(self.block()))

    # encode

    def _encoded(self, fates: npt.NDArray[np.uint8]) -> Iterator[Encoded]:
        self.boilerplate = self.workplace.numbers(self.lines.boilerplate(int((fates != DROP).sum())))
        dtype = np.uint16 if self.tokenizer.vocab_size <= 2**16 else np.uint32
        files = {split: (self.workplace.out / f"{split}.tokens.bin").open("wb") for split in ("train", "val")}
        done = 0
        results = self.workers.map(self._encode_tasks(fates), Encoded, self.workplace.path)
        for path, size, result in zip(self.blocks, self.sizes, results, strict=True):
            for split, file in files.items():
                part = path.with_suffix(f".{split}")
                file.write(np.fromfile(part, np.uint32).astype(dtype).tobytes())
            self.drops.merge(result.drops)
            done += size
            self.tell("encode", done, len(fates))
            yield result
        for file in files.values():
            file.close()

    def _encode_tasks(self, fates: npt.NDArray[np.uint8]) -> Iterator[EncodeTexts]:
        for path, mine in self.parted(fates):
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
