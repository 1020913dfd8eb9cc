"""`quinze quantize`: a model into a smaller GGUF file, or a table of what each level costs and saves."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from quinze.cli import console
from quinze.cli.main import json_option
from quinze.errors import InvalidRequestError

if TYPE_CHECKING:
    from quinze.quantization.report import Row


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("level", required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write.")
@click.option("--pure", is_flag=True, help="Give every matrix the same type, the output head too.")
@click.option(
    "--report", is_flag=True, help="Write nothing; show what LEVEL, or each usual one, costs and saves."
)
@click.option(
    "--text",
    type=click.Path(path_type=Path),
    help="With --report: a text file of yours, on which each level is compared with the original.",
)
@click.option("--threads", type=click.IntRange(1, 256), help="Default: every core.")
@json_option
def quantize(
    model: Path,
    level: str | None,
    output: Path | None,
    pure: bool,
    report: bool,
    text: Path | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Write MODEL as a smaller and faster GGUF file.

    MODEL is a GGUF file, a Hugging Face folder or a llama2.c file. LEVEL, from the largest to the smallest:
    f32, f16, bf16, q8_0, q6_k, q5_k_m, q5_k_s, q5_1, q5_0, q4_k_m, q4_k_s, q4_1, q4_0. Good first choices:
    q4_k_m for least size, q6_k for least damage.
    """
    if report:
        _report(model, level, text, pure, threads, as_json)
        return
    if level is None:
        raise InvalidRequestError("A level is missing.", hint="For example: quinze quantize MODEL q4_k_m.")
    if text is not None:
        raise InvalidRequestError("--text goes with --report.", param="text")
    from quinze.formats.part_names import model_stem
    from quinze.quantization import levels
    from quinze.quantization import quantize as work
    from quinze.quantization.source import open_source

    chosen = levels.level(level)
    named = model.resolve()
    out = output or Path(f"{model_stem(named) if named.is_file() else named.name}-{chosen.name}.gguf")
    if out.is_dir():
        raise InvalidRequestError(f"{out} is a folder.", hint="Name the file to write.", param="output")
    source = open_source(model)
    with console.stoppable() as stop, _bar() as bar:
        task = bar.add_task("reading", total=1)

        def show(name: str, done: int, total: int) -> None:
            if stop.is_set():
                raise KeyboardInterrupt
            bar.update(task, description=name, completed=done, total=total)

        done = work.quantize(source, chosen, out, pure=pure, threads=threads, progress=show)
    if as_json:
        console.print_json(asdict(done) | {"bits": done.bits})
        return
    console.print_text(
        f"{done.path}  {console.in_bytes(done.bytes)}, {done.bits:.2f} bits a weight "
        f"(was {console.in_bytes(done.source_bytes)})"
    )
    types = ", ".join(f"{count} {name}" for name, count in sorted(done.types.items()))
    console.remark(f"Tensors: {types}.")
    if done.rounded_twice:
        console.remark(
            f"{done.rounded_twice} tensors were quantized before, and their errors add up: "
            "start from the F16 file where there is one.",
            style="yellow",
        )
    console.remark(f"Try it: quinze run {done.path}")


def _report(
    model: Path, level: str | None, text: Path | None, pure: bool, threads: int | None, as_json: bool
) -> None:
    from quinze.quantization import levels
    from quinze.quantization.report import LEVELS, compare

    chosen = [levels.level(level)] if level else [levels.level(name) for name in LEVELS]
    with console.stoppable() as stop, _bar() as bar:
        task = bar.add_task("reading", total=None)

        def show(name: str, done: int, total: int) -> None:
            if stop.is_set():
                raise KeyboardInterrupt
            bar.update(task, description=name, completed=done, total=total)

        found = compare(model, chosen, text, pure=pure, threads=threads, progress=show)
    if as_json:
        console.print_json([asdict(row) for row in found])
        return
    head = ["LEVEL", "SIZE", "BITS", "ERROR", "WORST TENSOR", ""]
    if text is not None:
        head[5:] = ["PERPLEXITY", "KL", "FLIPPED"]
    console.print_table(head, [_columns(row) for row in found])
    console.remark(
        "Error: of the weights, relative to their size. "
        + (
            "KL: divergence from the original, nats a token. Flipped: tokens of your text where another "
            "than the original's is the likeliest."
            if text
            else "With --text FILE: what it does to the words."
        )
    )


def _columns(row: Row) -> list[str]:
    worst = f"{row.worst_tensor} {row.worst_error:.1%}" if row.worst_tensor else ""
    columns = [row.level, console.in_bytes(row.bytes), f"{row.bits:.2f}", f"{row.error:.2%}", worst]
    if row.perplexity is None:
        return [*columns, ""]
    return [*columns, f"{row.perplexity:.3f}", f"{row.divergence:.5f}", f"{row.flipped:.1%}"]


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        console=console.errors_console(),
        transient=True,
        disable=not console.person_is_watching(),
    )
