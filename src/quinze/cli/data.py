"""`quinze data`: text and conversations into rows that a model learns from, and a look at them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from quinze.cli import console
from quinze.cli.main import json_option, opened_service
from quinze.errors import InvalidRequestError

if TYPE_CHECKING:
    from quinze.training.data.manifest import Manifest, PrepareProgress
    from quinze.training.data.preview import Preview

STAGES = {
    "read": "reading and cleaning", "duplicates": "finding copies", "leaks": "comparing the parts",
    "encode": "into tokens", "write": "writing",
}  # fmt: skip
SPLITS = {"train": "for training", "val": "for validation"}


@click.group()
def data() -> None:
    """Text and conversations that a model learns from."""


@data.command("prepare")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("sources", nargs=-1, required=True)
@click.option(
    "--tokenizer", required=True, type=click.Path(path_type=Path, exists=True),
    help="A folder from `quinze tokenizer train`, or a model whose tokenizer it shall be.",
)  # fmt: skip
@click.option("--kind", type=click.Choice(["text", "chat", "preference"]), default="text", show_default=True)
@click.option("--length", type=int, help="Tokens of a row.")
@click.option("--validation", type=float, help="Share of the documents kept for validation.")
@click.option(
    "--set", "pairs", multiple=True, metavar="KEY=VALUE",
    help="Any other setting of docs/guides/data.md, such as train_on=last or near_duplicates=off.",
)  # fmt: skip
@json_option
def prepare(
    folder: Path, sources: tuple[str, ...], tokenizer: Path, kind: str, length: int | None,
    validation: float | None, pairs: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    """Make FOLDER from SOURCES: files, folders, or kb:NAME for a knowledge base.

    Cleaned, without copies, a part kept for validation, packed into rows of tokens once and for all. A source
    may be given a name, as in laws=corpus/laws.jsonl. Killed and called again, it takes up what was done.
    """
    from quinze.service.training_texts import training_source
    from quinze.training.data.manifest import PrepareSettings
    from quinze.training.data.prepare import prepare as work

    asked: dict[str, Any] = {"kind": kind, **settings_of(pairs)}
    asked |= {k: v for k, v in (("sequence_length", length), ("val_fraction", validation)) if v is not None}
    settings = converted(asked, PrepareSettings)
    with opened_service() as service, _bar() as bar:
        found = [training_source(service, source) for source in sources]
        report = work(found, tokenizer, folder, settings, bar)
    if as_json:
        console.print_json(report)
        return
    _tell(report.manifest)
    again = "It was there already." if report.reused else f"{report.seconds:.0f} s."
    console.remark(f"{again} Look at it: quinze data show {folder}")


@data.command("show")
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--tokenizer", type=click.Path(path_type=Path, exists=True), help="To read rows: that of the data."
)
@click.option("--split", default="train", show_default=True)
@click.option("--row", type=click.IntRange(0), help="This row, as the model sees it.")
@json_option
def show(folder: Path, tokenizer: Path | None, split: str, row: int | None, as_json: bool) -> None:
    """What FOLDER holds; with --row, one row with what is learned underlined and what is only read dim."""
    from quinze.training.data.dataset import TokenData

    opened = TokenData.open(folder)
    if row is None:
        if as_json:
            console.print_json(opened.manifest)
            return
        _tell(opened.manifest)
        return
    if tokenizer is None:
        raise InvalidRequestError(
            "To read a row its tokenizer is needed.", hint="Name it: --tokenizer FOLDER."
        )
    from quinze.tokenizer.tokenizer import load_tokenizer
    from quinze.training.data.preview import preview

    found = preview(opened, load_tokenizer(tokenizer), split, row)
    if as_json:
        console.print_json(found)
        return
    _show_row(found)


def _show_row(found: Preview) -> None:
    for document in found.documents:
        line = Text()
        for span in document:
            style = "magenta" if span.special else "bold underline" if span.trained else "dim"
            line.append(span.text, style)
        console.print_rich(line)
    console.remark(
        f"Row {found.row} of {found.rows:,} in {found.split}: {found.tokens} tokens, "
        f"{found.supervised_tokens} learned (underlined)."
    )


def _tell(manifest: Manifest) -> None:
    rows = [
        [name, f"{counts.rows:,}", f"{counts.tokens:,}", f"{counts.supervised_tokens:,}",
         f"{counts.documents:,}",
         console.in_bytes(counts.bytes), SPLITS.get(name, "")]
        for name, counts in manifest.splits.items()
    ]  # fmt: skip
    console.print_table(["SPLIT", "ROWS", "TOKENS", "LEARNED", "DOCUMENTS", "TEXT", ""], rows)
    console.remark(
        f"Rows of {manifest.sequence_length} tokens, {manifest.packing:.0%} filled; the vocabulary has "
        f"{manifest.vocab_size:,}."
    )
    for reason, dropped in manifest.dropped.items():
        example = f", as {dropped.examples[0]}" if dropped.examples else ""
        console.remark(
            f"{reason.replace('_', ' ')}: {dropped.count:,} ({dropped.characters:,} characters){example}"
        )
    if manifest.leaked:
        console.remark(
            f"{manifest.leaked:.1%} of the validation text's passages stand in the training text too."
        )


class _Bar:
    def __init__(self, bar: Progress) -> None:
        self._bar, self._task, self._stage = bar, bar.add_task("looking", total=None), ""

    def __call__(self, seen: PrepareProgress) -> None:
        if seen.stage != self._stage:
            self._stage = seen.stage
            self._bar.reset(self._task)
        documents = f", {seen.documents:,} documents" if seen.documents else ""
        self._bar.update(
            self._task, description=STAGES[seen.stage] + documents, completed=seen.done, total=seen.total
        )


@contextmanager
def _bar() -> Iterator[_Bar]:
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn(),
        console=console.errors_console(), transient=True, disable=not console.person_is_watching(),
    )  # fmt: skip
    with bar:
        yield _Bar(bar)


def settings_of(pairs: tuple[str, ...]) -> dict[str, Any]:
    """KEY=VALUE as TOML has them; a value that is no TOML is a text."""
    import tomllib

    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidRequestError(f"{pair!r:.100} is no KEY=VALUE.", param="set")
        try:
            read = tomllib.loads(f"x = {value}")["x"]
        except tomllib.TOMLDecodeError:
            read = value
        at = found
        *tables, name = key.split(".")
        for table in tables:
            at = at.setdefault(table, {})
        at[name] = read
    return found


def converted(asked: dict[str, Any], kind: Any) -> Any:
    """A settings struct from plain data; InvalidRequestError names what does not fit."""
    import msgspec

    try:
        return msgspec.convert(asked, kind)
    except msgspec.ValidationError as error:
        known = ", ".join(field.name for field in msgspec.structs.fields(kind))
        raise InvalidRequestError(f"A setting is not right: {error}.", hint=f"There are: {known}.") from error
