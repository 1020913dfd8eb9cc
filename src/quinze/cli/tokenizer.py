"""`quinze tokenizer`: a vocabulary made from one's own text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from quinze.cli import console
from quinze.cli.main import json_option, opened_service

if TYPE_CHECKING:
    from quinze.training.data.sources import Source


@click.group()
def tokenizer() -> None:
    """Vocabularies: how text becomes tokens."""


@tokenizer.command("train")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("sources", nargs=-1, required=True)
@click.option(
    "--kind", type=click.Choice(["bpe", "characters"]), default="bpe", show_default=True,
    help="bpe: byte-level pairs, any text in any language; characters: one token for each character met.",
)  # fmt: skip
@click.option("--vocab-size", type=click.IntRange(1, 1_000_000), help="All tokens together. [default: 8192]")
@json_option
def train(folder: Path, sources: tuple[str, ...], kind: str, vocab_size: int | None, as_json: bool) -> None:
    """Make a tokenizer in FOLDER from SOURCES: files, folders, or kb:NAME for a knowledge base.

    Give each language or kind of text a name, as in zh=wiki.jsonl.xz en=news.jsonl: the report then tells for
    each how many bytes a token holds, on text that the vocabulary was not made from.
    """
    from quinze.cli.data import converted
    from quinze.service.training_texts import training_source
    from quinze.tokenizer.training import TokenizerSettings, train_tokenizer

    asked = {"kind": kind} | ({"vocab_size": vocab_size} if vocab_size else {})
    settings = converted(asked, TokenizerSettings)
    bar = Progress(
        TextColumn("{task.description}"), TimeElapsedColumn(), console=console.errors_console(),
        transient=True, disable=not console.person_is_watching(),
    )  # fmt: skip
    with opened_service() as service, bar:
        task = bar.add_task("reading", total=None)
        found = {source.name: texts(source) for source in (training_source(service, s) for s in sources)}
        report = train_tokenizer(
            found, folder, settings,
            lambda characters: bar.update(task, description=f"{characters:,} characters"),
        )  # fmt: skip
    if as_json:
        console.print_json(report)
        return
    console.print_table(
        ["SOURCE", "BYTES A TOKEN", "CHARACTERS A TOKEN", "MEASURED ON"],
        [
            [
                name,
                f"{worth.bytes_per_token:.2f}",
                f"{worth.characters_per_token:.2f}",
                console.in_bytes(worth.bytes),
            ]
            for name, worth in report.held_out.items()
        ],
    )
    longest = ", ".join(map(repr, report.longest[:5]))
    console.remark(
        f"{report.vocab_size:,} tokens from {report.characters:,} characters; {report.unused:,} of them "
        f"were not needed for the text that was kept apart. Longest: {longest}."
    )
    console.remark(f"Next: quinze data prepare DATA {' '.join(sources)} --tokenizer {folder}")


def texts(source: Source) -> Iterator[str]:
    """All that a record says: of a conversation every turn, for its tokens will be needed too."""
    for record in source.open():
        yield "\n".join(_strings(record.value))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
