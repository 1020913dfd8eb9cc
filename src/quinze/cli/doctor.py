"""`quinze doctor`: what went wrong in a training run, ours or another's, in plain words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from quinze.cli import console
from quinze.cli.main import json_option

if TYPE_CHECKING:
    from quinze.training.events import Finding


@click.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--method", type=click.Choice(["pretrain", "sft", "dpo"]), default="pretrain", show_default=True,
    help="Of another's run: what it was.",
)  # fmt: skip
@click.option("--vocab-size", type=click.IntRange(2), help="Of another's model: what blind guessing costs.")
@click.option("--language", type=click.Choice(["en", "zh"]), default="en", show_default=True)
@json_option
def doctor(
    path: Path, method: Literal["pretrain", "sft", "dpo"], vocab_size: int | None,
    language: Literal["en", "zh"], as_json: bool,
) -> None:  # fmt: skip
    """Read the log of a run and tell what it shows.

    PATH is the folder of a run, its metrics.jsonl, or a trainer_state.json of Hugging Face's Trainer. Exit
    code 10 if anything was found that a run should be stopped for.
    """
    from quinze.service.training import need_torch

    need_torch()
    from quinze.training.doctor.offline import diagnose
    from quinze.training.doctor.settings import DoctorSettings

    found = diagnose(path, DoctorSettings(language=language), method=method, vocab_size=vocab_size)
    if as_json:
        console.print_json(found)
    else:
        for finding in found.findings:
            _tell(finding)
        loss = f", the last loss {found.last_loss:.3f}" if found.last_loss is not None else ""
        console.remark(f"{found.steps:,} steps read{loss}: {len(found.findings)} findings.")
    if any(finding.severity == "stop" for finding in found.findings):
        raise SystemExit(10)


def _tell(finding: Finding) -> None:
    where = f" at step {finding.step:,}" if finding.step else ""
    console.print_text(f"[{finding.severity}] {finding.id}{where}: {finding.verdict}")
    for line in (finding.why, finding.fix):
        if line:
            console.print_text(f"    {line}")
