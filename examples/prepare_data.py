"""From a folder of text to a tokenizer and to rows that a model can learn from; then look at one.

python examples/prepare_data.py TEXTS OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

from quinze.tokenizer.tokenizer import load_tokenizer
from quinze.tokenizer.training import TokenizerSettings, train_tokenizer
from quinze.training.data.dataset import TokenData
from quinze.training.data.manifest import PrepareSettings
from quinze.training.data.prepare import prepare
from quinze.training.data.preview import preview
from quinze.training.data.sources import Source, text_of


def main(texts: str, out: str, vocab_size: int = 512, sequence_length: int = 64) -> None:
    source, folder = Source.of(Path(texts)), Path(out)
    made = train_tokenizer(
        {source.name: (text_of(record, ()) for record in source.open())},
        folder / "tokenizer",
        TokenizerSettings(vocab_size=vocab_size),
    )
    for name, worth in made.held_out.items():
        print(f"{name}: {worth.bytes_per_token:.2f} bytes a token")

    settings = PrepareSettings(sequence_length=sequence_length)
    report = prepare([source], folder / "tokenizer", folder / "data", settings)
    for split, counts in report.manifest.splits.items():
        print(f"{split}: {counts.documents:,} documents, {counts.tokens:,} tokens, {counts.rows:,} rows")
    for reason, dropped in report.manifest.dropped.items():
        print(f"{reason}: {dropped.count:,}, as {dropped.examples[0]}")

    shown = preview(TokenData.open(folder / "data"), load_tokenizer(folder / "tokenizer"), "train", 0)
    for document in shown.documents:
        print("".join(f"[{span.text}]" if span.trained else span.text for span in document))


if __name__ == "__main__":
    main(*sys.argv[1:3])
