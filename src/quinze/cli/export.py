"""`quinze export` and `quinze merge`: what was trained, as files for others, proven to be the same."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from quinze.cli import console
from quinze.cli.main import json_option
from quinze.errors import TrainingError

if TYPE_CHECKING:
    from quinze.quantization.quantize import Progress as Told
    from quinze.shipping.certificate import Certificate
    from quinze.shipping.export import Exported

Kind = Literal["hf", "adapter", "merged", "gguf"]


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--to", type=click.Choice(["hf", "adapter", "merged", "gguf"]), required=True,
    help="hf: a Hugging Face folder; adapter: PEFT's layout; merged: an adapter in its base; gguf: one file.",
)  # fmt: skip
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="A new folder, or a .gguf file."
)
@click.option("--level", help="Of a GGUF: f16, q8_0, q4_k_m … [default: f16]")
@click.option(
    "--base",
    type=click.Path(path_type=Path, exists=True),
    help="Of an adapter, where it is not where it was.",
)
@click.option("--dtype", type=click.Choice(["float32", "float16", "bfloat16"]), help="Of a folder's weights.")
@click.option("--certificate/--no-certificate", default=True, show_default=True,
              help="Compare what was written with what was trained.")  # fmt: skip
@json_option
def export(
    source: Path, to: Kind, output: Path, level: str | None, base: Path | None,
    dtype: Literal["float32", "float16", "bfloat16"] | None, certificate: bool, as_json: bool,
) -> None:  # fmt: skip
    """Write SOURCE, a run's folder, an adapter or a model, in another layout, and certify it.

    The certificate compares template, end tokens, first tokens, 200 greedy continuations, divergence and bits
    per byte of what will be served with what was trained. Exit code 10 if it is something else.
    """
    _export(source, to, output, level, base, dtype, certificate, as_json)


@click.command()
@click.argument("adapter", type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="A new folder.")
@click.option("--base", type=click.Path(path_type=Path, exists=True), help="Where it is not where it was.")
@click.option("--dtype", type=click.Choice(["float32", "float16", "bfloat16"]), help="Of the weights.")
@click.option("--certificate/--no-certificate", default=True, show_default=True,
              help="Compare the merged model with base and adapter.")  # fmt: skip
@json_option
def merge(
    adapter: Path, output: Path, base: Path | None, dtype: Literal["float32", "float16", "bfloat16"] | None,
    certificate: bool, as_json: bool,
) -> None:  # fmt: skip
    """Put ADAPTER into its base, in float32, and write the whole model."""
    _export(adapter, "merged", output, None, base, dtype, certificate, as_json)


def _export(
    source: Path, to: Kind, output: Path, level: str | None, base: Path | None,
    dtype: Literal["float32", "float16", "bfloat16"] | None, certified: bool, as_json: bool,
) -> None:  # fmt: skip
    from quinze.service.training import need_torch
    from quinze.shipping.export import export as write

    if certified:
        need_torch()
    with _bar() as told:
        done = write(source, output, to=to, base=base, level_name=level, dtype=dtype, progress=told)
        proof = _certificate(source, done, base, told) if certified else None
    if proof is not None and output.is_dir():
        proof.write(output)
    elif proof is not None:
        folder = output.with_name(output.name + ".certificate")
        folder.mkdir(exist_ok=True)
        proof.write(folder)
    if as_json:
        console.print_json({"exported": done, "certificate": proof})
    else:
        console.print_text(f"{done.path}  {console.in_bytes(done.bytes)}")
        for note in done.notes:
            console.remark(note)
        if proof is not None:
            _tell(proof)
    if proof is not None and not proof.shippable:
        raise TrainingError(
            f"{output} is not the model that was trained: {proof.comparisons[0].verdict}.",
            hint="The files were written, with certificate.md beside them.",
        )


def _certificate(source: Path, done: Exported, base: Path | None, told: Told) -> Certificate:
    from quinze.shipping.certificate import certify
    from quinze.shipping.export import resolve
    from quinze.shipping.verdicts import bounds_of
    from quinze.shipping.views import EngineView, TrainerView

    shipped = resolve(source, base)
    adapter = shipped.adapter.path if shipped.adapter else None
    name = f"{done.path.name}, as served"
    bounds = {} if done.rounded is None else {name: bounds_of(done.rounded)}
    with contextlib.ExitStack() as open_:
        reference = TrainerView("as trained", shipped.path, adapter=adapter, words=shipped.words)
        open_.callback(reference.close)
        candidate = (
            EngineView(name, shipped.path, adapter=done.path, words=shipped.words)
            if done.to == "adapter"
            else EngineView(name, done.path)
        )
        open_.callback(candidate.close)
        untuned = None
        if adapter is not None and done.rounded is not None:
            # How much of the tune the rounding has left.
            untuned = EngineView("the base", shipped.path, words=shipped.words)
            open_.callback(untuned.close)
        return certify(reference, [candidate], bounds=bounds, base=untuned, progress=told)


def _tell(proof: Certificate) -> None:
    for comparison in proof.comparisons:
        console.print_table(
            ["CHECK", "OUTCOME", ""], [[check.name, check.outcome, check.told] for check in comparison.checks]
        )
        style = {"equal": "green", "within bounds": "green"}.get(comparison.outcome, "red")
        console.remark(f"{comparison.name}: {comparison.verdict}", style=style)


@contextlib.contextmanager
def _bar() -> Iterator[Told]:
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn(),
        console=console.errors_console(), transient=True, disable=not console.person_is_watching(),
    )  # fmt: skip
    with bar:
        task = bar.add_task("reading", total=None)
        yield lambda name, done, total: bar.update(task, description=name, completed=done, total=total)
