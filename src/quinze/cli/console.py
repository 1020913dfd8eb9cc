"""The terminal: the only place of this room that prints.

What was asked for goes to standard output; progress, remarks and errors go to standard error, so that a pipe
carries nothing but results. Colours and moving bars appear only where a person is looking.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from quinze.errors import QuinzeError

_errors = Console(stderr=True, highlight=False, soft_wrap=True)

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def print_text(text: str = "", *, end: str = "\n") -> None:
    """A result, as it is."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def print_rich(text: Text) -> None:
    """A result in colors, where a person looks; the bare text in a pipe."""
    Console(highlight=False, soft_wrap=True).print(text)


def print_json(value: Any) -> None:
    """A result as JSON: numbers and texts as they are, Chinese readable."""
    print_text(json.dumps(msgspec.to_builtins(value, enc_hook=str), ensure_ascii=False, indent=2))


def print_json_line(value: Any) -> None:
    """One of many results, a line of JSON each."""
    print_text(json.dumps(msgspec.to_builtins(value, enc_hook=str), ensure_ascii=False))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns, aligned by what a terminal shows: a Chinese character takes two cells."""
    table = [list(head), *[list(row) for row in rows]]
    widths = [max(cell_len(line[column]) for line in table) for column in range(len(head))]
    for line in table:
        padded = [text + " " * (width - cell_len(text)) for text, width in zip(line, widths, strict=True)]
        print_text("  ".join(padded).rstrip())


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Pairs, one a line; empty ones are left out."""
    width = max((cell_len(name) for name, text in facts if text), default=0)
    for name, text in facts:
        if text:
            print_text(f"{name}{' ' * (width - cell_len(name))}  {text}")


def remark(text: str, *, style: str = "") -> None:
    """A line beside the result, on standard error."""
    _errors.print(text, style=style or None, markup=False)


def remark_json(value: Any) -> None:
    """A line of JSON beside the result, on standard error."""
    sys.stderr.write(json.dumps(msgspec.to_builtins(value, enc_hook=str), ensure_ascii=False) + "\n")
    sys.stderr.flush()


def print_error(error: QuinzeError, *, as_json: bool) -> None:
    if as_json:
        told = {"message": error.message, "code": error.code, "param": error.param, "hint": error.hint}
        sys.stderr.write(json.dumps({"error": told}, ensure_ascii=False) + "\n")
        return
    remark(f"quinze: {error.message}", style="red")
    if error.hint:
        remark(f"        {error.hint}")


def person_is_watching() -> bool:
    """Whether standard error is a terminal: only then do bars move."""
    return _errors.is_terminal


def errors_console() -> Console:
    """The console of standard error, for a progress bar."""
    return _errors


@contextlib.contextmanager
def stoppable() -> Iterator[threading.Event]:
    """Ctrl-C asks the work inside to stop soon, through the event; a second one ends the program."""
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def in_bytes(count: float) -> str:
    """A size as a person reads it.

    >>> in_bytes(1_500_000)
    '1.5 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def in_count(count: int) -> str:
    """A number of parameters as the field writes it.

    >>> in_count(1_235_814_400)
    '1.2B'
    """
    for factor, unit in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= factor:
            return f"{count / factor:.1f}{unit}"
    return str(count)


def tell_where(name: str, server: str) -> None:
    """Before anything is sent: whether the model runs elsewhere."""
    if server:
        remark(f"{name} is remote: what you write is sent to {server}.", style="yellow")
