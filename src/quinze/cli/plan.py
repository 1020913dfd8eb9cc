"""`quinze plan`: what shape of model fits your time, text or size, what it costs and what will come of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quinze.cli import console
from quinze.cli.main import json_option
from quinze.errors import ConflictError, InvalidRequestError

if TYPE_CHECKING:
    from quinze.training.forecast import DataFacts, Proposal


@click.command()
@click.option("--params", metavar="COUNT", help="A model of about this size: 10M.")
@click.option("--minutes", type=float, help="What can be trained in so many minutes. [default: 60]")
@click.option("--tokens", metavar="COUNT", help="To be read in training: 30M.")
@click.option(
    "--data", "folder", type=click.Path(path_type=Path, exists=True),
    help="From `quinze data prepare`: how much text there is, and what a table of triples makes of it.",
)  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the run's TOML here.")
@click.option("--quick", is_flag=True, help="Guess the speed of the shape instead of trying it.")
@json_option
def plan(
    params: str | None, minutes: float | None, tokens: str | None, folder: Path | None, output: Path | None,
    quick: bool, as_json: bool,
) -> None:  # fmt: skip
    """Propose a model and a run for --params, --minutes or --tokens, measured on this machine."""
    from quinze.service.training import need_torch

    need_torch()
    from quinze.training.forecast import DataFacts
    from quinze.training.forecast import plan as propose
    from quinze.training.machine import measure

    if output is not None and output.exists():
        raise ConflictError(f"{output} is there already.", hint="Give another name.", param="output")
    facts = _facts(folder) if folder is not None else DataFacts()
    found = propose(
        measure(), parameters=count_of(params, "params"), minutes=minutes, tokens=count_of(tokens, "tokens"),
        data=facts, try_it=not quick,
    )  # fmt: skip
    if output is not None:
        output.write_text(found.run_toml, "utf-8")
    if as_json:
        console.print_json(found)
        return
    console.print_facts(_told(found))
    for note in found.notes:
        console.remark(note)
    if output is not None:
        console.remark(f"Train it: quinze train pretrain FOLDER --config {output}")


def _facts(folder: Path) -> DataFacts:
    from quinze.training.data.dataset import TokenData
    from quinze.training.forecast import DataFacts

    manifest = TokenData.open(folder).manifest
    counts = manifest.splits["train"]
    return DataFacts(
        tokens=counts.tokens,
        bytes=counts.bytes,
        vocab_size=manifest.vocab_size,
        sequence_length=manifest.sequence_length,
        folder=folder,
    )


def _told(found: Proposal) -> list[tuple[str, str]]:
    size, count = console.in_bytes, console.in_count
    parts = ", ".join(f"{name} {count(value)}" for name, value in found.parts.items() if value)
    memory, rows = found.memory, found.rows * found.micro_batches
    epochs = f", {found.epochs:.1f} times the text" if found.epochs else ""
    low, high = found.expected.low, found.expected.high
    return [
        ("model", f"{found.parameters:,} parameters: {parts}"),
        ("shape", f"{found.num_hidden_layers} layers of {found.hidden_size}, MLP {found.intermediate_size}, "
                  f"{found.num_attention_heads} heads, {found.vocab_size:,} tokens"),
        ("run", f"{found.steps:,} steps of {rows} rows of {found.sequence_length} tokens: "
                f"{count(found.tokens)} tokens{epochs}"),
        ("cost", f"{found.flops_per_token / 1e6:.1f} MFLOP a token, {found.tokens_per_second:,.0f} tokens "
                 f"a second, {found.seconds / 60:.0f} minutes"),
        ("memory", f"{size(memory.total)}: weights {size(memory.weights)}, gradients "
                   f"{size(memory.gradients)}, optimizer {size(memory.optimizer)}, activations "
                   f"{size(memory.activations)}, program {size(memory.program)}"),
        ("disk", size(found.disk_bytes)),
        ("expected", f"{low:.2f} to {high:.2f} bits a byte on text that it has not seen"),
    ]  # fmt: skip


def count_of(text: str | None, param: str) -> int | None:
    """ "10M" -> 10,000,000."""
    if text is None:
        return None
    found = re.fullmatch(r"([\d.]+)\s*([kKmMbBgG]?)", text.replace(",", "").replace("_", ""))
    try:
        assert found is not None
        return round(
            float(found[1]) * {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}[found[2].lower()]
        )
    except (AssertionError, ValueError):
        raise InvalidRequestError(f"{text!r:.40} is no count.", hint="Such as 10M.", param=param) from None
