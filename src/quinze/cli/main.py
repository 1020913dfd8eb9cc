"""`quinze`: the command, its family, and what every member shares.

Each command is a thin word over the service: it parses, calls, prints. A QuinzeError becomes one line, its
hint and its own exit code; Ctrl-C ends with 130.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import click

from quinze import __version__
from quinze.cli import console
from quinze.errors import QuinzeError

if TYPE_CHECKING:
    from quinze.service.service import Service

_COMMANDS = {
    "serve": "serve",
    "ask": "knowledge",
    "kb": "knowledge",
    "chat": "chat",
    "run": "chat",
    "ls": "models",
    "show": "models",
    "add": "models",
    "rm": "models",
    "pull": "pull",
    "fit": "fit",
    "embed": "embed",
    "classify": "classify",
    "quantize": "quantize",
    "tokenizer": "tokenizer",
    "data": "data",
    "plan": "plan",
    "train": "train",
    "doctor": "doctor",
    "export": "export",
    "merge": "export",
}
"""Command -> the module of this room that holds it, loaded when it is called."""


class Family(click.Group):
    """Finds its commands by name, in the order of the table above."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        home = _COMMANDS.get(cmd_name)
        if home is None:
            return None
        command: click.Command = getattr(import_module(f"quinze.cli.{home}"), cmd_name.replace("-", "_"))
        return command


@click.group(
    cls=Family,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Everything stays on this computer, under $QUINZE_HOME (~/.local/share/quinze).",
)
@click.version_option(__version__, "-V", "--version", prog_name="quinze")
def quinze() -> None:
    """A language model that is wholly yours: it reads your documents and shows where every claim comes from.

    \b
    quinze kb add home ~/Documents     read documents into the knowledge base "home"
    quinze ask home "a question"       an answer from them, with its sources
    quinze serve                       the same in your browser, at http://127.0.0.1:1515
    """


def main() -> None:
    """The console script. Never returns: exits with an honest code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line; returns its exit code."""
    try:
        outcome = quinze.main(arguments, prog_name="quinze", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except click.exceptions.Abort:
        return console.INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except QuinzeError as error:
        console.print_error(error, as_json="--json" in arguments)
        return error.exit_code
    except KeyboardInterrupt:
        return console.INTERRUPTED


@contextlib.contextmanager
def opened_service() -> Iterator[Service]:
    """The service over this person's home, closed again at the end."""
    from quinze.paths import home
    from quinze.service.service import Service
    from quinze.service.settings import load_settings

    folder = home()
    service = Service(folder, load_settings(folder, os.environ))
    try:
        yield service
    finally:
        service.close()


Command = TypeVar("Command", bound=Callable[..., Any])


def json_option(command: Command) -> Command:
    """`--json`: the result as one JSON value on standard output."""
    option: Callable[[Command], Command] = click.option(
        "--json", "as_json", is_flag=True, help="Print the result as JSON."
    )
    return option(command)
