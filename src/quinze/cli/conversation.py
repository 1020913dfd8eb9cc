"""A conversation at the terminal: lines in, streamed replies out, and the few words that steer it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from quinze.cli import console
from quinze.cli.knowledge import print_answer, tell_who_answers
from quinze.cli.left_out import left_out_line
from quinze.engine.sampling import SamplingParams
from quinze.errors import InvalidRequestError, QuinzeError
from quinze.llm.messages import Completion, Message
from quinze.llm.overflow import overflow_of

if TYPE_CHECKING:
    from quinze.llm.model import LanguageModel
    from quinze.service.service import Service

HELP = '''/clear              forget the conversation
/system TEXT        set the system prompt and begin anew
/set NAME VALUE     temperature, top_k, top_p, min_p, repetition_penalty, seed, max_tokens;
                    context_overflow: error, drop_oldest, keep_ends
/bye                end (as Ctrl-D does); Ctrl-C stops a reply
"""                 begins and ends a text of several lines'''


def lines() -> Iterator[str]:
    """What is typed, a turn each; between triple quotes it may have several lines. From a pipe: its lines."""
    asking = sys.stdin.isatty()
    if asking:
        # Imported for what it does to input(): arrow keys and history.
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401
    while True:
        line = _line(">>> " if asking else "")
        if line is None:
            return
        if line.lstrip().startswith('"""'):
            line = _quoted(line.lstrip()[3:], "... " if asking else "")
        if line.strip():
            yield line


def _line(prompt: str) -> str | None:
    try:
        return input(prompt)
    except EOFError:
        return None
    except KeyboardInterrupt:
        console.remark("")
        return "" if sys.stdin.isatty() else None


def _quoted(first: str, prompt: str) -> str:
    parts: list[str] = []
    line: str | None = first
    while line is not None:
        before, end, _ = line.partition('"""')
        parts.append(before)
        if end:
            break
        line = _line(prompt)
    return "\n".join(parts).strip("\n")


class Conversation:
    """Turns with one model. `go_on` returns when the person is done."""

    def __init__(
        self,
        llm: LanguageModel,
        *,
        system: str | None,
        params: SamplingParams,
        as_json: bool,
        overflow: str | None = None,
    ) -> None:
        self.overflow = overflow
        self.llm, self.params, self.as_json = llm, params, as_json
        self.system = system
        self.turns: list[Message] = []

    def go_on(self) -> None:
        if sys.stdin.isatty():
            console.remark(
                f"{self.llm.name}, {self.llm.context_length:,} tokens of context. /help tells more.",
                style="dim",
            )
        for line in lines():
            if line.startswith("/"):
                if line.split()[0] in {"/bye", "/exit", "/quit"}:
                    return
                self._obey(line)
            else:
                self._turn(line)

    def _turn(self, text: str) -> None:
        asked = [
            *([Message("system", self.system)] if self.system else []),
            *self.turns,
            Message("user", text),
        ]
        try:
            reply = self._reply(asked)
        except QuinzeError as error:
            if not sys.stdin.isatty():
                raise
            console.print_error(error, as_json=False)
            return
        self.turns += [Message("user", text), Message("assistant", reply.text)]

    def _reply(self, asked: list[Message]) -> Completion:
        pieces: list[str] = []
        with console.stoppable() as stop:
            for delta in self.llm.chat(
                asked, params=self.params, context_overflow=self.overflow, stream=True, cancel=stop
            ):
                if delta.reasoning and not pieces and not self.as_json:
                    console.remark("(thinking)", style="dim")
                pieces.append(delta.text)
                last = delta
                if not self.as_json:
                    console.print_text(delta.text, end="")
        if not self.as_json:
            console.print_text("\n")
            if line := left_out_line(last.context):
                console.remark(line, style="yellow")
        reply = Completion("".join(pieces), last.finish_reason or "stop")
        if last.usage is not None:
            reply = dataclasses.replace(reply, usage=last.usage)
        if self.as_json:
            told = {"role": "assistant", "content": reply.text, "finish_reason": reply.finish_reason}
            _json_line({**told, "usage": reply.usage, "context": dict(last.context or {})})
        return reply

    def _obey(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        if word == "/help":
            console.remark(HELP)
        elif word == "/clear":
            self.turns = []
        elif word == "/system":
            self.system, self.turns = rest or None, []
        elif word == "/set":
            self._set(*rest.partition(" ")[::2])
        else:
            console.remark(f"There is no {word}.\n{HELP}")

    def _set(self, name: str, text: str) -> None:
        try:
            if name == "context_overflow":
                self.overflow = overflow_of(text.strip().strip('"'))
                return
            value: Any = json.loads(text.strip() or "null")
            self.params = dataclasses.replace(self.params, **{name: value})
        except (TypeError, ValueError):
            console.remark("Say for example: /set temperature 0.2")
        except InvalidRequestError as error:
            console.print_error(error, as_json=False)


def ask_on(service: Service, name: str, *, model: str | None, as_json: bool) -> None:
    """Questions to the documents of a knowledge base, one a line; each stands for itself."""
    base = service.knowledge_bases.get(name)
    tell_who_answers(service, model)
    if sys.stdin.isatty():
        console.remark(f"{base.name}: {base.stats().ready:,} documents. /bye ends.", style="dim")
    for line in lines():
        if line.strip() in {"/bye", "/exit", "/quit"}:
            return
        if as_json:
            _json_line(msgspec.to_builtins(service.ask(name, line, model=model), enc_hook=str))
            continue
        print_answer(service.stream_ask(name, line, model=model))
        console.print_text()


def _json_line(value: Any) -> None:
    console.print_text(json.dumps(msgspec.to_builtins(value, enc_hook=str), ensure_ascii=False))
