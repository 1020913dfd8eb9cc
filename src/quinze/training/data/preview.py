"""What a row looks like to the model: its text in pieces, each learned or only read. Faces color it."""

from __future__ import annotations

import itertools

import msgspec

from quinze.tokenizer.tokenizer import Tokenizer
from quinze.training.data.dataset import TokenData


class Span(msgspec.Struct, frozen=True, kw_only=True):
    text: str
    """Bytes that make no whole character are U+FFFD."""
    tokens: int
    trained: bool
    special: bool
    """A control token, written as its file writes it."""


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    split: str
    row: int
    rows: int
    kind: str
    documents: tuple[tuple[Span, ...], ...]
    """The parts of the row that see only themselves, in order. Of a text without borders: one."""
    tokens: int
    """Without padding."""
    supervised_tokens: int


def preview(data: TokenData, tokenizer: Tokenizer, split: str, i: int) -> Preview:
    """Row i of a split. Of a preference, even rows are chosen and the odd ones after them rejected."""
    parts = data.documents(split, i)
    control = {tokenizer.id(token) for token in tokenizer.control_tokens}
    spans = []
    for ids, trained in parts:
        looks = zip(ids.tolist(), trained.tolist(), strict=True)
        runs = itertools.groupby(looks, key=lambda item: (bool(item[1]), item[0] in control))
        spans.append(
            tuple(_span(tokenizer, [id_ for id_, _ in run], on, special) for (on, special), run in runs)
        )
    return Preview(
        split=split,
        row=i,
        rows=data.rows(split),
        kind=data.manifest.kind,
        documents=tuple(spans),
        tokens=sum(len(ids) for ids, _ in parts),
        supervised_tokens=sum(int(trained.sum()) for _, trained in parts),
    )


def _span(tokenizer: Tokenizer, ids: list[int], trained: bool, special: bool) -> Span:
    text = "".join(map(tokenizer.token, ids)) if special else tokenizer.decode(ids, skip_special=False)
    return Span(text=text, tokens=len(ids), trained=trained, special=special)
