"""`quinze pull`: a model from a hub onto this computer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from quinze.cli import console
from quinze.cli.main import json_option, opened_service

if TYPE_CHECKING:
    from collections.abc import Callable

    from quinze.service.pulls import PullProgress

_TOKENS = {"huggingface": "HF_TOKEN", "modelscope": "MODELSCOPE_API_TOKEN"}


@click.command()
@click.argument("model")
@click.option("--name", help="Name to call it by; the file's or the repository's when none is given.")
@click.option(
    "--mirror",
    metavar="URL",
    help="Ask this address instead of the hub's own; hub_mirror or HF_ENDPOINT when none is given.",
)
@json_option
def pull(model: str, name: str | None, mirror: str | None, as_json: bool) -> int:
    """Bring MODEL here from a model hub: hf.co/ORG/NAME[:QUANT], ORG/NAME or modelscope.cn/ORG/NAME.

    QUANT is what the files of the repository call it (Q4_K_M, Q8_0, ...), or the name of one of its GGUF
    files; Q4_K_M, or what comes nearest, when none is given. A repository without GGUF files is taken as a
    folder of safetensors. Stop it with Ctrl-C at any time: the next pull goes on where this one stopped.

    A token in HF_TOKEN or MODELSCOPE_API_TOKEN is sent to that hub itself and to nobody else.
    """
    from quinze.hub.hub import Hub
    from quinze.service import pulls

    reference = pulls.read_reference(model)
    with opened_service() as service, console.stoppable() as stop:
        if not mirror and reference.kind == "huggingface":
            mirror = service.settings.hub_mirror or os.environ.get("HF_ENDPOINT") or None
        token = os.environ.get(_TOKENS[reference.kind]) or None
        if token and mirror:
            token = None
            console.remark("A mirror is asked, so your token is not sent.")
        hub = Hub(reference.kind, mirror, token=token)
        with _bar(as_json) as bar:
            done = pulls.pull(
                service.home, hub, reference, name=name, progress=_show(bar, as_json), cancel=stop
            )
    if done is None:
        console.remark("Stopped. What has come is kept: the same command goes on from there.")
        return console.INTERRUPTED
    if as_json:
        console.print_json(done)
        return 0
    console.print_text(
        f"{done.name}  {console.in_bytes(done.bytes)}" + (", here already" if done.already else "")
    )
    if not done.already:
        console.remark(
            f"{done.verified} of {len(done.files)} files checked by sha256, the others by their size."
        )
    console.remark(f"Try it: quinze fit {done.name}, then quinze chat {done.name}")
    return 0


def _bar(as_json: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console.errors_console(),
        transient=True,
        disable=as_json or not console.person_is_watching(),
    )


def _show(bar: Progress, as_json: bool) -> Callable[[PullProgress], None]:
    task = bar.add_task("asking the hub", total=None)

    def show(progress: PullProgress) -> None:
        if as_json:
            console.remark_json({"progress": progress})
        bar.update(task, description=progress.file[-40:], completed=progress.done, total=progress.total)

    return show
