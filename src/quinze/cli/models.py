"""`quinze ls | show | add | rm`: the models on this computer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from quinze.cli import console
from quinze.cli.main import json_option, opened_service

if TYPE_CHECKING:
    from quinze.service.registry import ModelInfo


@click.command()
@json_option
def ls(as_json: bool) -> None:
    """List the models that have a name here."""
    with opened_service() as service:
        models = service.models.list()
    if as_json:
        console.print_json(models)
        return
    if not models:
        console.remark("No models yet. Add one that you have: quinze add model.gguf")
        return
    head = ("NAME", "PARAMETERS", "TYPE", "SIZE", "CONTEXT", "CHAT", "")
    console.print_table(head, [_row(model) for model in models])


def _row(model: ModelInfo) -> tuple[str, ...]:
    if model.error:
        return (model.name, "", "", console.in_bytes(model.bytes), "", "", model.error)
    return (
        model.name,
        console.in_count(model.parameters),
        model.quantization,
        console.in_bytes(model.bytes),
        f"{model.context_length:,}",
        "yes" if model.can_chat else "no",
        "loaded" if model.loaded else "",
    )


@click.command()
@click.argument("model")
@json_option
def show(model: str, as_json: bool) -> None:
    """Tell what MODEL is: a name from `quinze ls`, or a file or folder."""
    with opened_service() as service:
        info = service.models.info(model)
    if as_json:
        console.print_json(info)
        return
    console.print_facts(
        [
            ("name", info.name),
            ("path", info.path),
            ("format", info.format),
            ("architecture", info.architecture),
            ("parameters", f"{info.parameters:,}" if info.parameters else ""),
            ("type", info.quantization),
            ("size", console.in_bytes(info.bytes)),
            ("packed", f"{console.in_bytes(info.packed_bytes)} beside it" if info.packed_bytes else ""),
            ("context", f"{info.context_length:,} tokens" if info.context_length else ""),
            (
                "chat",
                ""
                if info.error
                else "yes"
                if info.can_chat
                else "no (it has no chat template: it continues text)",
            ),
            ("error", info.error),
        ]
    )


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", help="Name to call it by; made from the file's name when none is given.")
@json_option
def add(path: Path, name: str | None, as_json: bool) -> None:
    """Give the model at PATH a name. It stays where it is and is not copied.

    PATH is a GGUF file, a Hugging Face folder (safetensors), or a llama2.c .bin with its tokenizer beside it.
    """
    with opened_service() as service:
        info = service.models.add(path, name)
    if as_json:
        console.print_json(info)
        return
    console.print_text(f"{info.name}  {console.in_count(info.parameters)} parameters, {info.quantization}")
    word = "chat" if info.can_chat else "run"
    console.remark(f"Try it: quinze {word} {info.name}")


@click.command()
@click.argument("model")
@json_option
def rm(model: str, as_json: bool) -> None:
    """Forget the name MODEL. Its own files stay where they are; what Quinze packed of it is deleted."""
    with opened_service() as service:
        service.models.remove(model)
    if as_json:
        console.print_json({"removed": model})
    else:
        console.print_text(f"{model} is forgotten; its files stay.")
