"""`quinze run` and `quinze chat`: one prompt, or a conversation."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from quinze.cli import console
from quinze.cli.left_out import left_out_line, overflow_option
from quinze.cli.main import json_option, opened_service
from quinze.engine.constraints import Grammar
from quinze.engine.sampling import SamplingParams
from quinze.errors import InvalidRequestError, ModelNotFoundError
from quinze.llm.messages import Delta, Message

if TYPE_CHECKING:
    from quinze.llm.model import LanguageModel

_defaults = SamplingParams()
Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS: tuple[tuple[str, type, str], ...] = (
    ("temperature", float, "0 takes the most likely token, always."),
    ("top_k", int, "Only the k most likely tokens; 0 considers all."),
    ("top_p", float, "Only the likeliest tokens whose odds together reach p."),
    ("min_p", float, "Only tokens at least this share as likely as the likeliest."),
    ("repetition_penalty", float, "Above 1, what was said is said less again."),
    ("presence_penalty", float, "Above 0, what the reply has said is said less again."),
    ("frequency_penalty", float, "The same, the more the oftener it was said."),
    ("typical_p", float, "Only tokens about as surprising as is to be expected; 1 considers all."),
    ("seed", int, "The same seed gives the same tokens."),
    ("max_tokens", int, "Most tokens to write; until the context is full when not given."),
)


def sampling_options(command: Command) -> Command:
    """An option for each field of SamplingParams; their defaults stay in their one home."""
    for name, kind, text in reversed(_OPTIONS):
        default = getattr(_defaults, name)
        shown = f"{text}  [default: {default}]" if default is not None else text
        option: Callable[[Command], Command] = click.option(
            f"--{name.replace('_', '-')}", type=kind, help=shown
        )
        command = option(command)
    return command


def _params(chosen: dict[str, Any]) -> SamplingParams:
    return dataclasses.replace(
        _defaults, **{name: value for name, value in chosen.items() if value is not None}
    )


def _grammar(schema: Path | None, regex: str | None) -> Grammar | None:
    if schema is not None and regex is not None:
        raise InvalidRequestError("--schema and --regex both say what the reply may be.", param="regex")
    if regex is not None:
        return Grammar.regex(regex, param="--regex")
    if schema is None:
        return None
    try:
        described = json.loads(schema.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{schema} holds no JSON: {error}.", param="--schema") from error
    return Grammar.json_schema(described, param="--schema")


@click.command()
@click.argument("model")
@click.argument("prompt", required=False)
@click.option("--system", help="System prompt, for a chat model.")
@click.option("--raw", is_flag=True, help="Continue the prompt as it is, without the model's chat template.")
@click.option("--stop", multiple=True, help="Text that ends the reply; may be given several times.")
@click.option(
    "--schema",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The reply is JSON that the JSON Schema in this file describes.",
)
@click.option("--regex", help="The reply matches the whole of this regular expression.")
@click.option("-v", "--verbose", is_flag=True, help="Tell the speed at the end.")
@overflow_option
@sampling_options
@json_option
def run(
    model: str,
    prompt: str | None,
    system: str | None,
    raw: bool,
    stop: tuple[str, ...],
    schema: Path | None,
    regex: str | None,
    verbose: bool,
    context_overflow: str | None,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Give MODEL one PROMPT and stream what it writes.

    MODEL is a name from `quinze ls`, or a file or folder. A chat model answers; any other continues the text.
    Without a PROMPT, standard input is read; at a terminal, a chat begins.
    """
    params, grammar = _params(sampling), _grammar(schema, regex)
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read()
    with opened_service() as service, service.models.use(model) as llm:
        console.tell_where(llm.name, llm.remote)
        if prompt is None:
            if grammar is not None:
                raise InvalidRequestError("--schema and --regex bind one reply, and no chat.", param="prompt")
            converse(llm, system=system, params=params, overflow=context_overflow)
            return
        as_chat = llm.can_chat and not raw
        if system and not as_chat:
            raise InvalidRequestError(
                f"{llm.name} is given no system prompt: it continues text.", param="system"
            )
        options: dict[str, Any] = {"context_overflow": context_overflow, "grammar": grammar}
        if as_chat:
            opening = _opening(system, prompt)
            deltas = llm.chat(opening, params=params, stop=stop, stream=True, **options)
        else:
            deltas = llm.complete(prompt, params=params, stop=stop, stream=True, **options)
            if not as_json:
                console.print_text(prompt, end="")
        text, last = _show(deltas, silent=as_json)
    if as_json:
        console.print_json({"model": llm.name, "text": text, **_ending(last)})
        return
    console.print_text()
    if line := left_out_line(last.context):
        console.remark(line, style="yellow")
    if verbose:
        console.remark(_speed(last), style="dim")


def _opening(system: str | None, prompt: str) -> list[Message]:
    return [*([Message("system", system)] if system else []), Message("user", prompt)]


def _show(deltas: Iterator[Delta], *, silent: bool) -> tuple[str, Delta]:
    pieces: list[str] = []
    last = Delta()
    for delta in deltas:
        if delta.reasoning and not pieces and not silent:
            console.remark("(thinking)", style="dim")
        last = delta
        pieces.append(delta.text)
        if not silent:
            console.print_text(delta.text, end="")
    return "".join(pieces), last


def _ending(last: Delta) -> dict[str, Any]:
    return {
        "finish_reason": last.finish_reason,
        "usage": last.usage,
        "timings": last.timings,
        "context": dict(last.context or {}),
    }


def _speed(last: Delta) -> str:
    if last.usage is None or last.timings is None:
        return ""
    usage, timings = last.usage, last.timings
    rate = usage.completion_tokens / timings.decode_seconds if timings.decode_seconds > 0 else 0.0
    return (
        f"{usage.prompt_tokens} tokens read ({usage.cached_tokens} cached) "
        f"in {timings.prefill_seconds:.2f} s, "
        f"{usage.completion_tokens} written at {rate:.1f} tokens/s, ended by {last.finish_reason}"
    )


@click.command()
@click.argument("model", required=False)
@click.option(
    "--kb", "knowledge_base", help="Answer from the documents of this knowledge base, with sources."
)
@click.option("--system", help="System prompt.")
@overflow_option
@sampling_options
@json_option
def chat(
    model: str | None,
    knowledge_base: str | None,
    system: str | None,
    context_overflow: str | None,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Talk with MODEL, or with your documents.

    At a terminal it is a conversation; Ctrl-C stops a reply, /bye or Ctrl-D ends it, /help tells the rest.
    From a pipe, each line of standard input is one turn; with --json each reply is one line of JSON.
    """
    with opened_service() as service:
        if knowledge_base is not None:
            from quinze.cli.conversation import ask_on

            ask_on(service, knowledge_base, model=model, as_json=as_json)
            return
        name = model or service.models.default()
        if name is None:
            raise ModelNotFoundError(
                "There is no chat model yet.",
                hint="Add one that you have: quinze add model.gguf. "
                "Documents answer without one: quinze chat --kb NAME",
            )
        with service.models.use(name) as llm:
            console.tell_where(llm.name, llm.remote)
            params = _params(sampling)
            converse(llm, system=system, params=params, overflow=context_overflow, as_json=as_json)


def converse(
    llm: LanguageModel,
    *,
    system: str | None,
    params: SamplingParams,
    overflow: str | None = None,
    as_json: bool = False,
) -> None:
    from quinze.cli.conversation import Conversation

    if not llm.can_chat:
        raise InvalidRequestError(
            f"{llm.name} has no chat template: it continues text and cannot talk.",
            hint=f'Give it a beginning: quinze run {llm.name} "Once upon a time"',
            param="model",
        )
    Conversation(llm, system=system, params=params, overflow=overflow, as_json=as_json).go_on()
