"""What the model did not read, in one line for a person. Given the context ledger of a reply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from quinze.llm.context import OVERFLOWS

Command = TypeVar("Command", bound=Callable[..., Any])


def overflow_option(command: Command) -> Command:
    option: Callable[[Command], Command] = click.option(
        "--context-overflow",
        type=click.Choice(OVERFLOWS),
        metavar="POLICY",
        help="For a prompt that does not fit: error refuses it, drop_oldest leaves turns out, keep_ends the "
        "middle.  [default: the setting context_overflow]",
    )
    return option(command)


def left_out_line(context: Mapping[str, Any] | None) -> str:
    """
    >>> left_out_line({"dropped": []})
    ''
    """
    dropped = (context or {}).get("dropped") or []
    cut = (context or {}).get("cut_upstream")
    if cut:
        return f"The server read {cut['read']:,} of about {cut['sent_about']:,} tokens: it left the rest out."
    if not dropped:
        return ""
    turns = (context or {}).get("dropped_turns", 0)
    told = []
    if turns:
        counted = "1 turn was" if turns == 1 else f"{turns:,} turns were"
        tokens = sum(entry["tokens"] for entry in dropped if entry["whole"])
        told.append(f"{counted} left out ({tokens:,} tokens), from “{dropped[0]['begins']}” on")
    told += [
        f"{entry['tokens']:,} tokens were left out of {_WHERE[entry['part']]}, from “{entry['begins']}” on"
        for entry in dropped
        if not entry["whole"]
    ]
    return f"Not read, for want of room: {'; '.join(told)}."


_WHERE = {"prompt": "the middle of the prompt", "knowledge": "the passages", "history": "the history"}
