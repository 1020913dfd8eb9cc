"""`quinze quantize`: a model into a smaller GGUF file, or a table of what each level costs and saves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from quinze.cli import console
from quinze.cli.main import json_option, opened_service
from quinze.errors import InvalidRequestError

if TYPE_CHECKING:
    from quinze.quantization.calibration import Calibration
    from quinze.quantization.report import Row


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the command line says."""

    model: Path
    level: str | None
    output: Path | None
    pure: bool
    text: str | None
    calibrate: str | None
    keep: Path | None
    under: str | None
    kl: float | None
    threads: int | None
    as_json: bool


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("level", required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write.")
@click.option("--pure", is_flag=True, help="Give every matrix the same type, the output head too.")
@click.option(
    "--calibrate",
    metavar="TEXTS",
    help="A file, folder or knowledge base: what you will use the model for. The model reads it, and what "
    "matters to it there is rounded with more care. Or a calibration that was kept (.gguf; llama.cpp's too).",
)
@click.option(
    "--keep-calibration",
    "keep",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep what --calibrate found in this file, for the next level.",
)
@click.option(
    "--report", is_flag=True, help="Write nothing; show what LEVEL, or each usual one, costs and saves."
)
@click.option(
    "--text",
    metavar="TEXTS",
    help="With --report: a file, folder or knowledge base on which each level is compared with the original. "
    "With --calibrate and no --text, the last fifth of its texts is kept for that and not calibrated on.",
)
@click.option(
    "--under",
    metavar="SIZE",
    help="Recommend the level that does the least damage within this size: 500MB. Written if --output names "
    "a file.",
)
@click.option(
    "--kl",
    type=click.FloatRange(min=0, min_open=True),
    help="Recommend the smallest level within this divergence from the original (nats a token): 0.01.",
)
@click.option("--threads", type=click.IntRange(1, 256), help="Default: every core.")
@json_option
def quantize(report: bool, **asked: object) -> None:
    """Write MODEL as a smaller and faster GGUF file.

    MODEL is a GGUF file, a Hugging Face folder or a llama2.c file. LEVEL, from the largest to the smallest:
    f32, f16, bf16, q8_0, q6_k, q5_k_m, q5_k_s, q5_1, q5_0, q4_k_m, q4_k_s, q4_1, q4_0. Good first choices:
    q4_k_m for least size, q6_k for least damage.
    """
    given = _Asked(**asked)  # type: ignore[arg-type]  # click checked them
    if given.keep is not None and given.calibrate is None:
        raise InvalidRequestError("--keep-calibration goes with --calibrate.", param="keep-calibration")
    if report or given.under is not None or given.kl is not None:
        _report(given)
        return
    if given.level is None:
        raise InvalidRequestError("A level is missing.", hint="For example: quinze quantize MODEL q4_k_m.")
    if given.text is not None:
        raise InvalidRequestError("--text goes with --report.", param="text")
    calibration, _ = _texts(given, compared=False)
    _write(given, given.level, calibration)


def _write(asked: _Asked, level: str, calibration: Calibration | None) -> None:
    from quinze.formats.part_names import model_stem
    from quinze.quantization import levels
    from quinze.quantization import quantize as work
    from quinze.quantization.source import open_source

    chosen, named = levels.level(level), asked.model.resolve()
    out = asked.output or Path(f"{model_stem(named) if named.is_file() else named.name}-{chosen.name}.gguf")
    if out.is_dir():
        raise InvalidRequestError(f"{out} is a folder.", hint="Name the file to write.", param="output")
    source = open_source(asked.model)
    with _bar() as bar:
        done = work.quantize(
            source, chosen, out, pure=asked.pure, calibration=calibration, threads=asked.threads,
            progress=bar,
        )  # fmt: skip
    if asked.as_json:
        console.print_json(asdict(done) | {"bits": done.bits, "calibrated": calibration is not None})
        return
    console.print_text(
        f"{done.path}  {console.in_bytes(done.bytes)}, {done.bits:.2f} bits a weight "
        f"(was {console.in_bytes(done.source_bytes)})"
    )
    types = ", ".join(f"{count} {name}" for name, count in sorted(done.types.items()))
    console.remark(f"Tensors: {types}.")
    if calibration is not None:
        console.remark(f"Calibrated on {calibration.tokens:,} tokens.")
    if done.rounded_twice:
        console.remark(
            f"{done.rounded_twice} tensors were quantized before, and their errors add up: "
            "start from the F16 file where there is one.",
            style="yellow",
        )
    console.remark(f"Try it: quinze run {done.path}")


def _report(asked: _Asked) -> None:
    from quinze.quantization import levels
    from quinze.quantization.recommend import Budget, name_of, recommend, size_of
    from quinze.quantization.report import LEVELS, compare

    budget = Budget(size_of(asked.under) if asked.under is not None else None, asked.kl)
    wanted = budget.bytes is not None or budget.divergence is not None
    if wanted and asked.level is not None:
        raise InvalidRequestError("A budget chooses the level: leave LEVEL out.", param="level")
    if budget.divergence is not None and asked.text is None and asked.calibrate is None:
        raise InvalidRequestError(
            "A damage budget is measured on a text.", hint="Name one of yours with --text.", param="kl"
        )
    chosen = [levels.level(asked.level)] if asked.level else [levels.level(name) for name in LEVELS]
    calibration, ids = _texts(asked, compared=True)
    with _bar() as bar:
        rows = compare(
            asked.model, chosen, ids, pure=asked.pure, calibration=calibration, threads=asked.threads,
            progress=bar,
        )  # fmt: skip
    found = recommend(rows, budget) if wanted else None
    marked = found.row if found else None
    if asked.as_json:
        plain = [asdict(row) | {"recommended": row is marked} for row in rows]
        console.print_json(plain if found is None else {"rows": plain, "reason": found.reason})
    else:
        _print_table(rows, marked)
        if found is not None:
            console.print_text(found.reason)
    if marked is None:
        return
    if asked.output is not None:
        _write(asked, marked.level, calibration if marked.calibrated else None)
    elif not asked.as_json:
        again = f" --calibrate {asked.calibrate}" if marked.calibrated else ""
        console.remark(f"Write {name_of(marked)}: quinze quantize {asked.model} {marked.level}{again}")


def _print_table(rows: list[Row], marked: Row | None) -> None:
    head = ["", "LEVEL", "SIZE", "BITS", "ERROR", "WORST TENSOR"]
    read = rows[0].perplexity is not None
    console.print_table(
        head + (["PERPLEXITY", "KL", "FLIPPED"] if read else []), [_columns(row, marked) for row in rows]
    )
    console.remark(
        "Error: of the weights, relative to their size. "
        + (
            f"KL: divergence from the original, nats a token, over {rows[0].tokens:,} tokens. "
            "Flipped: tokens where another than the original's is the likeliest."
            if read
            else "With --text TEXTS: what it does to the words."
        )
    )


def _columns(row: Row, marked: Row | None) -> list[str]:
    name = f"{row.level} calibrated" if row.calibrated else row.level
    worst = f"{row.worst_tensor} {row.worst_error:.1%}" if row.worst_tensor else ""
    sign = "*" if row is marked else ""
    columns = [sign, name, console.in_bytes(row.bytes), f"{row.bits:.2f}", f"{row.error:.2%}", worst]
    if row.perplexity is None:
        return columns
    return [*columns, f"{row.perplexity:.3f}", f"{row.divergence:.5f}", f"{row.flipped:.1%}"]


def _texts(asked: _Asked, *, compared: bool) -> tuple[Calibration | None, list[int]]:
    """The calibration, and the ids of the text that levels are compared on, which was not calibrated on."""
    if asked.calibrate is None and asked.text is None:
        return None, []
    from quinze.quantization import calibration as work
    from quinze.quantization.report import MAX_TOKENS
    from quinze.quantization.source import open_source
    from quinze.service.own_texts import OwnText, held_out, own_texts

    def read(given: str, option: str) -> list[OwnText]:
        return own_texts(service, given, progress=lambda name: bar(name, 0, 1), param=option)

    with opened_service() as service, _bar() as bar:
        judged = [text.text for text in read(asked.text, "text")] if asked.text is not None else []
        calibration = None
        if asked.calibrate is not None:
            if work.is_calibration(Path(asked.calibrate)):
                calibration = work.load_calibration(Path(asked.calibrate))
            else:
                texts = read(asked.calibrate, "calibrate")
                same = {text.text for text in texts} & set(judged)
                if same:
                    raise InvalidRequestError(
                        "--text names texts that --calibrate names too: the comparison would flatter.",
                        hint="Leave --text out: the last fifth of each text is then kept for it.",
                        param="text",
                    )
                seen, unseen = held_out(texts) if compared and not judged else ([t.text for t in texts], [])
                judged = judged or unseen
                calibration = work.calibrate(
                    asked.model, open_source(asked.model), work.text_ids(asked.model, seen),
                    datasets=[asked.calibrate], threads=asked.threads,
                    progress=lambda done, total: bar("calibrating", done, total),
                )  # fmt: skip
                if asked.keep is not None:
                    work.save_calibration(calibration, asked.keep)
        return calibration, work.text_ids(asked.model, judged, MAX_TOKENS) if judged else []


class _Bar:
    """Shows how far the work is; Ctrl-C stops it at the next step."""

    def __init__(self, bar: Progress, stop: threading.Event) -> None:
        self._bar, self._stop, self._task = bar, stop, bar.add_task("reading", total=None)

    def __call__(self, name: str, done: int, total: int) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt
        self._bar.update(self._task, description=name, completed=done, total=total)


@contextmanager
def _bar() -> Iterator[_Bar]:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        console=console.errors_console(),
        transient=True,
        disable=not console.person_is_watching(),
    )
    with console.stoppable() as stop, bar:
        yield _Bar(bar, stop)
