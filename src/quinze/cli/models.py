"""`quinze ls | show | add | rm`: the models on this computer."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from quinze.cli import console
from quinze.cli.main import json_option, opened_service
from quinze.errors import InvalidRequestError

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
    if model.upstream:
        return (model.name, "", "", "", f"{model.context_length:,}", "yes", f"remote: {model.upstream}")
    return (
        model.name,
        console.in_count(model.parameters),
        model.quantization,
        console.in_bytes(model.bytes),
        f"{model.context_length:,}",
        "yes" if model.can_chat else "no",
        f"on {model.base}" if model.base else _loaded(model),
    )


def _loaded(model: ModelInfo) -> str:
    if not model.loaded:
        return ""
    return "loaded" if model.device in ("", "cpu") else f"loaded ({model.device})"


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
            ("remote" if info.upstream else "path", info.path),
            ("format", info.format),
            ("base", info.base),
            ("model" if info.upstream else "architecture", info.architecture),
            ("parameters", f"{info.parameters:,}" if info.parameters else ""),
            ("type", info.quantization),
            ("size", "" if info.upstream else console.in_bytes(info.bytes)),
            ("packed", f"{console.in_bytes(info.packed_bytes)} beside it" if info.packed_bytes else ""),
            ("device", info.device),
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
@click.argument("path", metavar="PATH|NAME")
@click.option("--name", help="Name to call it by; made from the file's name when none is given.")
@click.option(
    "--base",
    metavar="MODEL",
    help="PATH is an adapter (a LoRA folder of Quinze, PEFT or mlx-lm): the model that it runs on, a name or "
    "a path. Several share one model in memory.",
)
@click.option(
    "--upstream",
    metavar="URL",
    help="The model runs on another server that speaks OpenAI's HTTP (vLLM, llama.cpp, SGLang, Ollama, "
    "OpenAI): http://host:8000/v1. What is written to it goes there.",
)
@click.option("--model", help="With --upstream: the server's own name for it, where it has several.")
@click.option(
    "--key-env", metavar="VARIABLE", help="With --upstream: the environment variable that holds its key."
)
@click.option(
    "--ask-key",
    is_flag=True,
    help="With --upstream: ask for the key (or read it from a pipe) and keep it in a file that only you can "
    "read.",
)
@click.option(
    "--context-length",
    type=click.IntRange(1),
    help="With --upstream: tokens of its context, where the server does not tell.",
)
@json_option
def add(path: str, name: str | None, base: str | None, as_json: bool, **upstream: Any) -> None:
    """Give the model at PATH a name. It stays where it is and is not copied.

    PATH is a GGUF file, a Hugging Face folder (safetensors), a llama2.c .bin with its tokenizer beside it, or
    an adapter: quinze add runs/bread/final --name bread --base llama
    With --upstream, the word is the NAME itself: quinze add big --upstream http://gpu:8000/v1
    """
    if upstream["upstream"] is not None:
        if base is not None:
            raise InvalidRequestError("--base goes with an adapter of this machine.", param="base")
        _add_upstream(path, name, as_json=as_json, **upstream)
        return
    given = next((option for option, value in upstream.items() if value), None)
    if given is not None:
        raise InvalidRequestError(f"--{given.replace('_', '-')} goes with --upstream.", param=given)
    with opened_service() as service:
        info = service.models.add(path, name, base=base)
    if as_json:
        console.print_json(info)
        return
    on = f" beside {info.base}" if info.base else ""
    console.print_text(
        f"{info.name}  {console.in_count(info.parameters)} parameters{on}, {info.quantization}"
    )
    word = "chat" if info.can_chat else "run"
    console.remark(f"Try it: quinze {word} {info.name}")


def _add_upstream(
    word: str,
    name: str | None,
    *,
    upstream: str,
    model: str | None,
    key_env: str | None,
    ask_key: bool,
    context_length: int | None,
    as_json: bool,
) -> None:
    if name is not None:
        raise InvalidRequestError("The name is given twice: before --upstream it stands alone.", param="name")
    if ask_key and key_env is not None:
        raise InvalidRequestError("--ask-key and --key-env both say where the key is.", param="key_env")
    key = _asked_key() if ask_key else None
    with opened_service() as service:
        info = service.models.add_upstream(
            word, upstream, model=model, key_env=key_env, key=key, context_length=context_length
        )
    if as_json:
        console.print_json(info)
        return
    console.print_text(f"{info.name}  {info.architecture} at {info.upstream}, {info.context_length:,} tokens")
    console.tell_where(info.name, info.upstream)
    if (key or key_env) and info.upstream.startswith("http:"):
        console.remark("Its key travels unencrypted: https would be better, beyond your own network.")
    console.remark(f"Try it: quinze chat {info.name}")


def _asked_key() -> str:
    """Typed unseen, or the first line of a pipe."""
    typed = sys.stdin.isatty()
    key = str(click.prompt("Key", hide_input=True, err=True)) if typed else sys.stdin.readline()
    if not key.strip():
        raise InvalidRequestError("No key was given.", param="ask_key")
    return key.strip()


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
