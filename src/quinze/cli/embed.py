"""`quinze embed`: texts to vectors."""

from __future__ import annotations

import sys

import click

from quinze.cli import console
from quinze.cli.main import json_option, opened_service
from quinze.errors import InvalidRequestError


@click.command()
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option("-m", "--model", help="Embedder; the one of new knowledge bases when none is given.")
@json_option
def embed(texts: tuple[str, ...], model: str | None, as_json: bool) -> None:
    """Turn texts into vectors; a dot product of two is their likeness.

    Each TEXT is one; without any, each line of standard input. Prints one vector a line.
    """
    given = list(texts) or ([] if sys.stdin.isatty() else sys.stdin.read().splitlines())
    if not given:
        raise InvalidRequestError(
            "There is no text to embed.",
            hint='Give it: quinze embed "a text"; or a line each on standard input.',
        )
    with opened_service() as service:
        vectors, tokens, name = service.embed(given, model=model)
    if as_json:
        rows = [
            {"index": i, "text": text, "embedding": v.tolist()}
            for i, (text, v) in enumerate(zip(given, vectors, strict=True))
        ]
        console.print_json({"model": name, "dimensions": vectors.shape[1], "tokens": tokens, "data": rows})
        return
    for vector in vectors:
        console.print_text(" ".join(f"{number:.6g}" for number in vector.tolist()))
