"""What of a block can be quoted: its sentences; a row or a definition only as a whole.

Given a block; knows nothing of questions.
"""

from __future__ import annotations

from quinze.knowledge.document import Block, BlockKind
from quinze.knowledge.sentences import sentence_spans

LONG_SENTENCE = 300
"""A longer one is taken apart at its line breaks: OCR and lists often have no full stops."""


def spans_of(block: Block) -> list[tuple[int, int]]:
    """(start, end) of the units of a block: its sentences; rows and definitions are not taken apart."""
    if block.kind in (BlockKind.TABLE_ROW, BlockKind.CODE):
        return [(0, len(block.text))]
    spans: list[tuple[int, int]] = []
    for start, end in sentence_spans(block.text):
        if end - start <= LONG_SENTENCE:
            spans.append((start, end))
            continue
        at = start
        for line in block.text[start:end].splitlines(keepends=True):
            spans.append((at, at + len(line)))
            at += len(line)
    return [_stripped(block.text, start, end) for start, end in spans if block.text[start:end].strip()]


def filled_columns(block: Block) -> str:
    """The names of those columns in which a row has something."""
    named = zip(block.header, block.cells, strict=False)
    return " ".join(name for name, cell in named if cell.strip() and name != cell)


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    left = start + len(piece) - len(piece.lstrip())
    return left, left + len(piece.strip())
