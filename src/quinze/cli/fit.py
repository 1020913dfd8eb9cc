"""`quinze fit`: whether a model runs here, with how long a context and how fast, before it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from quinze.cli import console
from quinze.cli.main import json_option, opened_service

if TYPE_CHECKING:
    from quinze.service.fit import Fit


@click.command()
@click.argument("model")
@click.option(
    "--context",
    type=click.IntRange(1),
    help="Tokens of context; as many as the model would be granted when none are given.",
)
@click.option("--measure", is_flag=True, help="Measure this machine anew.")
@click.option("--no-speed", is_flag=True, help="Tell sizes only; measure nothing.")
@json_option
def fit(model: str, context: int | None, measure: bool, no_speed: bool, as_json: bool) -> None:
    """Tell whether MODEL fits into this machine's memory, and how fast it will be.

    MODEL is a name from `quinze ls`, or a file or folder. Nothing is loaded. The first time, the machine is
    measured for a few seconds with the engine's own kernels; what is found is kept. All of it is for the CPU.
    """
    from quinze.service.fit import fit as find

    with opened_service() as service:
        found = find(service, model, context=context, with_speed=not no_speed, measure=measure)
    if as_json:
        console.print_json(found)
        return
    console.print_text(found.words)
    console.print_text()
    console.print_facts(_facts(found))


def _facts(found: Fit) -> list[tuple[str, str]]:
    size, count = console.in_bytes, console.in_count
    memory, parts, speed = found.memory, found.parameters, found.speed
    output = f"output {count(parts.output)}" if parts.output else "the embedding is the output too"
    return [
        ("parameters", f"{parts.total:,}, of {found.bits_per_weight:.2f} bits"
                       + (f"; {count(parts.active)} active" if parts.active < parts.total else "")),
        ("", f"embedding {count(parts.embedding)}, attention {count(parts.attention)}, "
             f"MLP {count(parts.mlp)}, norms {count(parts.norms)}, {output}"),
        ("weights", f"{size(memory.weights)}, mapped from the file"),
        ("context", f"{size(memory.kv_cache)} for {found.context:,} tokens, "
                    f"{size(found.kv_bytes_per_token)} each"),
        ("activations", size(memory.activations)),
        ("tokenizer", f"{size(memory.tokenizer)}, about"),
        ("together", f"{size(memory.total)} of {size(found.free)} free"),
        ("longest", f"{found.largest_context:,} of {found.context_limit:,} tokens of context"),
        ("reading", f"{speed.prefill:,.0f} tokens a second, a prompt of {speed.prompt:,}" if speed else ""),
        ("writing", f"{speed.decode:,.0f} tokens a second, {speed.decode_full:,.0f} behind a full context"
         if speed else ""),
        ("measured", f"{found.processor}, {found.threads} threads" if speed else ""),
    ]  # fmt: skip
