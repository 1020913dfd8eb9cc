"""`quinze serve`: the page and the API, until Ctrl-C."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import click

from quinze.service.settings import Settings

_defaults = Settings()


@click.command()
@click.option("--host", help=f"Loopback address to listen on.  [default: {_defaults.host}]")
@click.option(
    "-p", "--port", type=int, help=f"Port to listen on; 0 takes a free one.  [default: {_defaults.port}]"
)
@click.option("-m", "--model", type=str, help="Model that answers: its name, or a file or folder.")
@click.option("--open", "open_page", is_flag=True, help="Open the page in your browser.")
def serve(host: str | None, port: int | None, model: str | None, open_page: bool) -> None:
    """Bring up the page and the OpenAI-compatible API on this computer.

    The page is in English and Chinese: knowledge bases, questions with sources, chat. Stop it with Ctrl-C, or
    in any other way: what was read stays read, and the rest resumes at the next start.
    """
    from quinze.paths import home
    from quinze.server.run import run
    from quinze.service.service import Service
    from quinze.service.settings import load_settings

    folder = home()
    chosen: dict[str, Any] = {"host": host, "port": port, "default_model": _absolute(model)}
    settings = dataclasses.replace(
        load_settings(folder, os.environ),
        **{name: value for name, value in chosen.items() if value is not None},
    )
    service = Service(folder, settings)
    try:
        run(service, open_page=open_page)
    finally:
        service.close()


def _absolute(model: str | None) -> str | None:
    """A model given as a path stays the same model wherever the service runs."""
    return str(Path(model).resolve()) if model and Path(model).exists() else model
