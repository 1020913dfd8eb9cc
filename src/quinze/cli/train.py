"""`quinze train`: a model learns; and the words that a run under way listens to."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from quinze.cli import console
from quinze.cli.main import json_option, opened_service
from quinze.errors import InvalidRequestError, RunNotFoundError, StorageError, TrainingError

if TYPE_CHECKING:
    from quinze.training.run_config import RunConfig

Command = TypeVar("Command", bound=Callable[..., Any])
INTERRUPTED = 75
"""Exit code of a run that was stopped and can go on (sysexits' EX_TEMPFAIL)."""


@click.group()
def train() -> None:
    """Train a model: from nothing, on conversations, or on preferences."""


def _options(command: Command) -> Command:
    """What every method takes."""
    for option in reversed((
        click.argument("folder", type=click.Path(path_type=Path)),
        click.option("--config", type=click.Path(path_type=Path, exists=True, dir_okay=False),
                     help="A TOML file with any of the settings; what is named beside it wins."),
        click.option("--data", "data_folder", type=click.Path(path_type=Path),
                     help="From `quinze data prepare`."),
        click.option("--tokenizer", type=click.Path(path_type=Path), help="Copied beside the model."),
        click.option("--minutes", type=float, help="A deadline: the run ends by then, its rate decayed."),
        click.option("--tokens", type=int, help="Instead of minutes: so many tokens."),
        click.option("--steps", type=int, help="Instead of minutes: so many steps."),
        click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE",
                     help="Any setting of docs/reference/training.md, such as model.hidden_size=384."),
        click.option("--no-doctor", is_flag=True, help="Watch for losses that are no number, nothing else."),
        click.option("--accept-drift", is_flag=True, help="Go on although settings or data have changed."),
    )):  # fmt: skip
        command = option(command)
    return json_option(command)


def _base_options(command: Command) -> Command:
    for option in reversed((
        click.option("--base", type=click.Path(path_type=Path),
                     help="The model to go on from: a folder or a GGUF."),
        click.option("--lora", type=int, metavar="RANK",
                     help="Train an adapter of this rank; the base stays as it is."),
    )):  # fmt: skip
        command = option(command)
    return command


@train.command("pretrain")
@_options
def pretrain(**asked: Any) -> None:
    """A new model in FOLDER, from text alone.

    Called again on the same folder, the run goes on where it was. Ctrl-C finishes the step, saves, and ends
    with code 75.
    """
    _run("pretrain", asked)


@train.command("sft")
@_base_options
@_options
def sft(**asked: Any) -> None:
    """Tune a base on conversations: only the replies are learned. With --lora, an adapter beside it."""
    _run("sft", asked)


@train.command("dpo")
@_base_options
@_options
def dpo(**asked: Any) -> None:
    """Teach a base which of two replies is preferred (direct preference optimization)."""
    _run("dpo", asked)


@train.command("ls")
@json_option
def ls(as_json: bool) -> None:
    """The training runs that are known here, and how each is doing."""
    from quinze.cli.run_display import run_rows

    with opened_service() as service:
        found = service.runs.list()
    if as_json:
        console.print_json(found)
    elif found:
        console.print_table(
            ("NAME", "METHOD", "STATE", "DONE", "STEP", "LOSS", "BEST", "FOLDER"), run_rows(found)
        )
    else:
        console.remark("No training run is known yet. Begin one: quinze train pretrain FOLDER --data DATA")


@train.command("watch")
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
def watch(folder: Path, as_json: bool) -> None:
    """Look on while another process trains in FOLDER; Ctrl-C stops looking, not the run.

    FOLDER may be the name of a run that `quinze train ls` shows. Of a run that is over its log is told.
    """
    from quinze.cli.run_display import RunDisplay
    from quinze.service.run_info import is_run

    with opened_service() as service:
        name = service.runs.add(folder).name if is_run(folder) else service.runs.look(str(folder)).name
        with RunDisplay(as_json=as_json) as display:
            for event in service.runs.follow(name):
                display.show(event)
        run = service.runs.look(name)
    if not as_json:
        why = f": {run.message}" if run.message else ""
        console.remark(f"{run.name} is {run.state} after step {run.step:,}{why}.")


@train.command("pause")
@click.argument("folder", type=click.Path(path_type=Path))
def pause(folder: Path) -> None:
    """Let the run in FOLDER rest; it keeps its memory."""
    _tell(folder, "pause")


@train.command("resume")
@click.argument("folder", type=click.Path(path_type=Path))
def resume(folder: Path) -> None:
    """Let a paused run go on."""
    _tell(folder, "resume")


@train.command("stop")
@click.argument("folder", type=click.Path(path_type=Path))
def stop(folder: Path) -> None:
    """End the run in FOLDER after its step; the best of it is written as its model."""
    _tell(folder, "stop")


def _tell(folder: Path, command: Literal["pause", "resume", "stop"]) -> None:
    from quinze.training.control import tell

    if not (folder / "run.toml").is_file():
        raise RunNotFoundError(
            f"There is no training run in {folder}.", hint="Name the folder it was started with."
        )
    tell(folder, command)
    console.remark(f"Told the run in {folder} to {command}; it listens between two steps.")


def _run(method: str, asked: Mapping[str, Any]) -> None:
    from quinze.cli.run_display import RunDisplay
    from quinze.service.training import trainer_of

    folder: Path = asked["folder"]
    config = _config(method, asked)
    trainer = trainer_of(config, folder, watched=not asked["no_doctor"], accept_drift=asked["accept_drift"])
    began = time.monotonic()
    display = RunDisplay(as_json=asked["as_json"])
    with display:
        for number, event in enumerate(trainer.run()):
            if number == 0:
                _make_known(folder)
            display.show(event)
    end = display.end
    if end is None or end.reason == "failed":
        raise TrainingError(
            end.message if end and end.message else "The run did not reach its end.",
            hint=f"What it learned is kept in {folder}. `quinze doctor {folder}` tells more.",
        )
    if end.reason == "interrupted":
        console.remark(f"Interrupted after step {end.step:,}; the same command goes on there.")
        raise SystemExit(INTERRUPTED)
    if not asked["as_json"]:
        best = (
            f", best validation loss {end.best_loss:.4f} at step {end.best_step:,}" if end.best_loss else ""
        )
        console.print_text(f"{end.model}")
        console.remark(f"{end.reason} after {end.step:,} steps in {time.monotonic() - began:.0f} s{best}.")
        console.remark(
            f"Try it: quinze run {end.model}   Give it away: quinze export {folder} --to gguf -o model.gguf"
        )


def _make_known(folder: Path) -> None:
    """To `quinze train ls` and the page. A list that cannot be written is no reason not to train."""
    with contextlib.suppress(StorageError, InvalidRequestError), opened_service() as service:
        service.runs.add(folder)


def _config(method: str, asked: Mapping[str, Any]) -> RunConfig:
    """The file, then the options named beside it, then --set."""
    import tomllib

    from quinze.cli.data import settings_of
    from quinze.training.run_config import anchored, run_config

    folder, file = asked["folder"], asked["config"]
    table: dict[str, Any] = {}
    kept = folder / "run.toml"
    if file is None and asked["data_folder"] is None and kept.is_file():
        file = kept  # going on
    if file is not None:
        try:
            table = anchored(tomllib.loads(file.read_text("utf-8")), file.parent)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidRequestError(f"{file} cannot be read as TOML: {error}.", param="config") from None
    if table.get("method", method) != method:
        raise InvalidRequestError(
            f"{file} is a run of the method {table['method']!r}.", hint=f"quinze train {table['method']} …"
        )
    said: list[tuple[str, str, Any]] = [
        ("data", "folder", asked["data_folder"]), ("data", "tokenizer", asked["tokenizer"]),
        ("model", "base", asked.get("base")), ("lora", "rank", asked.get("lora")),
        *(("schedule", name, asked[name]) for name in ("minutes", "tokens", "steps")),
    ]  # fmt: skip
    for section, name, value in said:
        if value is not None:
            part = table.setdefault(section, {})
            if section == "schedule":
                for other in ("minutes", "tokens", "steps"):
                    part.pop(other, None)
            part[name] = str(value.resolve()) if isinstance(value, Path) else value
    _put_in(table, settings_of(asked["pairs"]))
    if "data" not in table:
        raise InvalidRequestError(
            "There is no data to learn from.", hint="Name it: --data FOLDER.", param="data"
        )
    return run_config({**table, "method": method}, str(file or "The command line"))


def _put_in(table: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(table.get(key), dict):
            _put_in(table[key], value)
        else:
            table[key] = value
