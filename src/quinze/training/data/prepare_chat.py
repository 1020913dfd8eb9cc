"""Conversations and preferences to packed rows: the passes of prepare.py for these kinds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from quinze.errors import InvalidRequestError
from quinze.training.data.chat_tasks import Rendered, Talk
from quinze.training.data.manifest import Manifest, SourceCounts, SplitCounts
from quinze.training.data.packing import packed
from quinze.training.data.preparation import Preparation
from quinze.training.data.tasks import RenderTalks
from quinze.training.data.text_tasks import DROP, TRAIN, VAL
from quinze.training.data.workplace import token_bytes

BLOCK = 500
"""Records of a block."""


class ChatPreparation(Preparation):
    """One run over all passes. Holds hashes, lengths and counts, never the conversations."""

    def run(self) -> Manifest:
        rendered = list(self.workers.map(self._tasks(), Rendered, self.workplace.path))
        for block in rendered:
            self.drops.merge(block.drops)
            self.sizes.append(len(block.sources))
        self.require_some()
        fates = self.fates(rendered)
        leaked = self.without_leaks(fates, rendered)
        self._bytes = token_bytes(self.tokenizer)
        found = _Samples(rendered)
        splits = {}
        rows_used = rows_all = 0
        for split, fate in (("train", TRAIN), ("val", VAL)):
            chosen = np.flatnonzero(fates[found.talks] == fate)
            rows = self._rows(found.lengths[chosen])
            splits[split] = self._write(split, found, chosen, rows, int((fates == fate).sum()))
            rows_used += splits[split].tokens - len(chosen)
            rows_all += len(rows) * self.settings.sequence_length
        if not splits["train"].rows:
            raise InvalidRequestError("No conversation is left for training.", hint="Lower val_fraction.")
        return Manifest(
            kind=self.settings.kind,
            vocab_size=self.tokenizer.vocab_size,
            tokenizer_sha256="",
            sequence_length=self.settings.sequence_length,
            dtype="uint16" if self.tokenizer.vocab_size <= 2**16 else "uint32",
            eos_id=self.tokenizer.eos_id,
            pad_id=self.tokenizer.eos_id or 0,
            splits=splits,
            files={},
            fingerprint="",
            settings=self.settings,
            sources=tuple(self._source(number, found, fates) for number in range(len(self.sources))),
            dropped=self.drops.found,
            leaked=leaked,
            packing=rows_used / max(1, rows_all),
            apart=sum(max(0, len(each) - 1) for block in rendered for each in block.lengths)
            if self.settings.kind == "chat"
            else 0,
            shortened=sum(block.lost for block in rendered),
        )

    def _tasks(self) -> Iterator[RenderTalks]:
        block: list[Talk] = []
        for number, record in self.records():
            value = record.value if isinstance(record.value, str) else dict(record.value)
            block.append(Talk(number, record.where, value))
            if len(block) == BLOCK:
                yield self._task(block)
                block = []
        if block:
            yield self._task(block)

    def _task(self, block: list[Talk]) -> RenderTalks:
        return RenderTalks(block, self.settings, str(self.tokenizer_path), str(self.block()))

    def _rows(self, lengths: npt.NDArray[np.int64]) -> list[list[int]]:
        """A sample of L tokens takes L - 1 places: its last token is only ever said."""
        if self.settings.kind == "preference":
            return [[i] for i in range(len(lengths))]
        return packed((lengths - 1).tolist(), self.settings.sequence_length)

    def _write(
        self,
        split: str,
        found: _Samples,
        chosen: npt.NDArray[np.int64],
        rows: list[list[int]],
        documents: int,
    ) -> SplitCounts:
        order = chosen[np.array([i for row in rows for i in row], np.int64)] if rows else chosen
        dtype = np.uint16 if self.tokenizer.vocab_size <= 2**16 else np.uint32
        out = self.workplace.out
        supervised = size = 0
        files = [_Block(self, number) for number in range(len(self.blocks))]
        with (
            (out / f"{split}.tokens.bin").open("wb") as tokens,
            (out / f"{split}.trained.bin").open("wb") as on,
        ):
            for done, sample in enumerate(order.tolist()):
                ids, trained = files[found.blocks[sample]].sample(found.starts[sample], found.lengths[sample])
                tokens.write(ids.astype(dtype).tobytes())
                on.write(trained.tobytes())
                said = ids[1:][trained[1:] == 1]
                supervised, size = supervised + len(said), size + int(self._bytes[said].sum())
                if done % 1024 == 0:
                    self.tell("write", done, len(order))
        starts = np.concatenate([[0], np.cumsum(found.lengths[order])]).astype(np.int64)
        np.save(out / f"{split}.starts.npy", starts)
        members = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        np.save(out / f"{split}.rows.npy", members)
        np.save(out / f"{split}.documents.npy", found.talks[order])
        return SplitCounts(
            rows=len(rows),
            tokens=int(starts[-1]),
            supervised_tokens=supervised,
            bytes=size,
            documents=documents,
        )

    def _source(self, number: int, found: _Samples, fates: npt.NDArray[np.uint8]) -> SourceCounts:
        mine = (found.sources == number) & (fates != DROP)
        tokens = int(found.lengths[mine[found.talks]].sum())
        source = self.sources[number]
        return SourceCounts(
            name=source.name,
            licence=source.licence or self.settings.licence,
            documents=self.read[number],
            kept=int(mine.sum()),
            bytes=int(found.characters[mine].sum()),
            tokens=tokens,
        )


class _Samples:
    """Where every sample lies, as columns."""

    def __init__(self, rendered: list[Rendered]) -> None:
        lengths, talks, blocks, starts, at = [], [], [], [], 0
        for number, block in enumerate(rendered):
            start = 0
            for talk, each in enumerate(block.lengths):
                for length in each:
                    lengths.append(length)
                    talks.append(at + talk)
                    blocks.append(number)
                    starts.append(start)
                    start += length
            at += len(block.lengths)
        self.lengths, self.talks = np.array(lengths, np.int64), np.array(talks, np.int64)
        self.blocks, self.starts = blocks, starts
        self.sources = np.array([source for block in rendered for source in block.sources], np.int64)
        self.characters = np.array([size for block in rendered for size in block.characters], np.int64)


class _Block:
    """The tokens of one block, mapped."""

    def __init__(self, work: Preparation, number: int) -> None:
        self._ids = np.fromfile(work.blocks[number].with_suffix(".ids"), np.uint32)
        self._trained = np.fromfile(work.blocks[number].with_suffix(".trained"), np.uint8)

    def sample(self, start: int, length: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint8]]:
        end = start + int(length)
        return self._ids[start:end], self._trained[start:end]
