"""`quinze quantize`: a model into a smaller GGUF file, or a table of what each level costs and saves."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
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
    from quinze.formats.checkpoint import TensorType
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
    f32, f16, bf16, q8_0, q6_k, q5_k_m, q5_k_s, q5_1, q5_0, q4_k_m, q4_k_s, q4_1, q4_0, q3_k_m, q3_k_s, q2_k.
    Good first choices: q4_k_m for least size, q6_k for least damage. "auto" with --under gives each matrix
    the type it needs.
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
    if given.level.lower() == "auto":
        raise InvalidRequestError(
            "The level auto needs a size to share out.", hint="Such as --under 500MB.", param="under"
        )
    _write(given, given.level, _texts(given, compared=False).calibration)


def _write(
    asked: _Asked,
    level: str,
    calibration: Calibration | None,
    types: Mapping[str, TensorType] | None = None,
) -> None:
    from quinze.formats.part_names import model_stem
    from quinze.quantization import levels
    from quinze.quantization import quantize as work
    from quinze.quantization.allocation import AUTO
    from quinze.quantization.source import open_source

    chosen = AUTO if level == AUTO.name else levels.level(level)
    named = asked.model.resolve()
    out = asked.output or Path(f"{model_stem(named) if named.is_file() else named.name}-{chosen.name}.gguf")
    if out.is_dir():
        raise InvalidRequestError(f"{out} is a folder.", hint="Name the file to write.", param="output")
    source = open_source(asked.model)
    with _bar() as bar:
        done = work.quantize(
            source, chosen, out, pure=asked.pure, calibration=calibration, types=types,
            threads=asked.threads, progress=bar,
        )  # fmt: skip
    if asked.as_json:
        console.print_json(asdict(done) | {"bits": done.bits, "calibrated": calibration is not None})
        return
    console.print_text(
        f"{done.path}  {console.in_bytes(done.bytes)}, {done.bits:.2f} bits a weight "
        f"(was {console.in_bytes(done.source_bytes)})"
    )
    counts = ", ".join(f"{count} {name}" for name, count in sorted(done.types.items()))
    console.remark(f"Tensors: {counts}.")
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
    from quinze.quantization.allocation import AUTO, allocate
    from quinze.quantization.recommend import Budget, name_of, recommend, size_of
    from quinze.quantization.report import LEVELS, compare
    from quinze.quantization.source import open_source

    budget = Budget(size_of(asked.under) if asked.under is not None else None, asked.kl)
    wanted = budget.bytes is not None or budget.divergence is not None
    auto = asked.level is not None and asked.level.lower() == AUTO.name
    if wanted and asked.level is not None and not auto:
        raise InvalidRequestError("A budget chooses the level: leave LEVEL out.", param="level")
    if auto and (budget.bytes is None or (asked.text is None and asked.calibrate is None)):
        raise InvalidRequestError(
            "The level auto shares out a size by what is measured on a text.",
            hint="Name both: --under 500MB --calibrate TEXTS.",
            param="level",
        )
    if budget.divergence is not None and asked.text is None and asked.calibrate is None:
        raise InvalidRequestError(
            "A damage budget is measured on a text.", hint="Name one of yours with --text.", param="kl"
        )
    one = asked.level is not None and not auto
    chosen = [levels.level(asked.level or "")] if one else [levels.level(name) for name in LEVELS]
    texts = _texts(asked, compared=True, allotted=auto)
    calibration, types = texts.calibration, None
    with _bar() as bar:
        if auto and budget.bytes is not None:
            types = allocate(
                open_source(asked.model), texts.seen, budget.bytes, calibration=calibration,
                threads=asked.threads, progress=bar,
            )  # fmt: skip
            chosen.append(AUTO)
        rows = compare(
            asked.model, chosen, texts.judged, pure=asked.pure, calibration=calibration, types=types,
            threads=asked.threads, progress=bar,
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
        _write(asked, marked.level, calibration if marked.calibrated else None, types)
    elif not asked.as_json:
        console.remark(f"To write {name_of(marked)}: the same with --output FILE.")


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


@dataclass(frozen=True, slots=True)
class _Texts:
    calibration: Calibration | None = None
    seen: tuple[int, ...] = ()
    """Ids of what may decide something."""
    judged: tuple[int, ...] = ()
    """Ids of what levels are compared on; nothing else was done with it."""


def _texts(asked: _Asked, *, compared: bool, allotted: bool = False) -> _Texts:
    """What --calibrate and --text name, read; with one of them alone, its end is kept for the judgment."""
    if asked.calibrate is None and asked.text is None:
        return _Texts()
    from quinze.quantization import calibration as work
    from quinze.quantization.report import MAX_TOKENS
    from quinze.quantization.source import open_source
    from quinze.service.own_texts import OwnText, held_out, own_texts

    def read(given: str | None, option: str) -> list[OwnText]:
        if given is None:
            return []
        return own_texts(service, given, progress=lambda name: bar(name, 0, 1), param=option)

    kept = asked.calibrate is not None and work.is_calibration(Path(asked.calibrate))
    with opened_service() as service, _bar() as bar:
        texts, judged = read(None if kept else asked.calibrate, "calibrate"), read(asked.text, "text")
        if {text.text for text in texts} & {text.text for text in judged}:
            raise InvalidRequestError(
                "--text names texts that --calibrate names too: the comparison would flatter.",
                hint="Leave --text out: the last fifth of each text is then kept for it.",
                param="text",
            )
        seen, unseen = [text.text for text in texts], [text.text for text in judged]
        if compared and texts and not judged:
            seen, unseen = held_out(texts)
        elif allotted and not texts:
            seen, unseen = held_out(judged)
        seen_ids = work.text_ids(asked.model, seen)
        calibration = None
        if kept:
            calibration = work.load_calibration(Path(str(asked.calibrate)))
        elif texts:
            calibration = work.calibrate(
                asked.model, open_source(asked.model), seen_ids, datasets=[str(asked.calibrate)],
                threads=asked.threads, progress=lambda done, total: bar("calibrating", done, total),
            )  # fmt: skip
            if asked.keep is not None:
                work.save_calibration(calibration, asked.keep)
        return _Texts(calibration, tuple(seen_ids), tuple(work.text_ids(asked.model, unseen, MAX_TOKENS)))


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
