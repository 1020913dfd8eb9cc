"""The child process that renders chat templates: run as a file, it knows nothing of Quinze.

A template is a stranger's program. The immutable sandbox of Jinja keeps it from attributes and from changing
what it is given; but no sandbox stops `9**9**9` or a string doubled forty times. Here the kernel does:

    memory   RLIMIT_AS: a template that grows too much gets a MemoryError
    time     an alarm that Python does not handle: the kernel ends the process, whatever it is doing
    output   counted piece by piece

Reads one JSON object a line: {"source", "variables", "seconds", "characters", "now"};
writes one: {"text"} or {"error"}.
"""

from __future__ import annotations

import functools
import json
import resource
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Template, nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY = 256 * 2**20
"""Bytes that rendering may take beyond what the process has at its start."""


class Generation(Extension):
    """`{% generation %}...{% endgeneration %}`, which marks replies for training: just its body."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        body: list[nodes.Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return body


class TooLarge(Exception):  # noqa: N818
    """The template writes more than it may."""


def environment() -> ImmutableSandboxedEnvironment:
    """Jinja as transformers sets it up for chat templates: a template finds what it was written for."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols], cache_size=0
    )

    def tojson(value: Any, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=options.pop("ensure_ascii", False), **options)

    def raise_exception(message: str) -> None:
        raise TemplateError(str(message))

    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    return made


@functools.lru_cache(maxsize=1)
def compiled(source: str) -> Template:
    """A chat asks for the same template again and again."""
    return environment().from_string(source)


def render(request: dict[str, Any]) -> str:
    """The text that the template makes of its variables."""
    now = datetime.fromisoformat(request["now"])
    pieces: list[str] = []
    room = request["characters"]
    for piece in compiled(request["source"]).generate(request["variables"], strftime_now=now.strftime):
        room -= len(piece)
        if room < 0:
            raise TooLarge(f"it writes more than {request['characters']:,} characters")
        pieces.append(piece)
    return "".join(pieces)


def main() -> None:
    """Answer one line with one line, until the parent closes the pipe."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    environment().from_string("{{ 1 }}").render()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, request["seconds"])
        try:
            answer = {"text": render(request)}
        except (MemoryError, RecursionError, TooLarge, OverflowError) as error:
            answer = {"error": f"it goes over its limits ({str(error) or type(error).__name__})"}
        except Exception as error:  # noqa: BLE001  (a stranger's program raises anything)
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
