"""The reference page of the command line (docs/reference/cli.md), written from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator

import click

from quinze.cli.main import quinze


def reference() -> str:
    """Markdown: a heading and the help text of every command, in the order of `quinze --help`."""
    return "\n\n".join(_page(context) for context in commands())


def commands() -> Iterator[click.Context]:
    """A context for each command and subcommand, groups before their members."""
    yield from _below(click.Context(quinze, info_name="quinze", max_content_width=100, terminal_width=100))


def _below(context: click.Context) -> Iterator[click.Context]:
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            if command is not None:
                yield from _below(
                    click.Context(
                        command, parent=context, info_name=name, max_content_width=100, terminal_width=100
                    )
                )


def _page(context: click.Context) -> str:
    return f"## `{context.command_path}`\n\n```text\n{context.command.get_help(context)}\n```"
