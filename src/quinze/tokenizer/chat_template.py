"""Chat templates: messages to text, with what people wrote told apart from what the template wrote.

A template is a program in Jinja that comes with a model; it runs in a child process with limits
(template_child.py). What a message says can never become a control token. Before rendering, the letters that
control tokens begin and end with are exchanged, in every content, for private characters that stand for them;
whatever the template then cuts, trims or joins, no control token can come out of a content. Afterwards they
are exchanged back, and those places are marked.

One exception: in the assistant's own messages the marks that the template itself looks for ("</think>") stay,
so that it can find them; tokens that the model's maker calls special never do.
"""

from __future__ import annotations

import json
import re
import selectors
import subprocess
import sys
import threading
import weakref
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from quinze.errors import ChatTemplateError, InvalidRequestError
from quinze.tokenizer.tokenizer import Tokenizer

SECONDS = 5.0
CHARACTERS = 2**24
ROLES = ("system", "user", "assistant", "tool", "developer")
PRIVATE = range(0x10F000, 0x10FFF0)
"""Characters that Unicode gives no meaning and will never give one."""


class ChatTemplate:
    """The template of one model. Safe to share between threads; `close` ends its child process."""

    def __init__(
        self,
        source: str,
        *,
        bos_token: str = "",
        eos_token: str = "",
        control_tokens: Collection[str] = (),
        special_tokens: Collection[str] = (),
        seconds: float = SECONDS,
    ) -> None:
        self.source = source
        self._variables = {"bos_token": bos_token, "eos_token": eos_token, "tools": None, "documents": None}
        borders = {token[0] for token in control_tokens if token}
        borders |= {
            token[-1]
            for token in control_tokens
            if token and not (token[-1].isalnum() or token[-1].isspace())
        }
        self._borders = "".join(sorted(borders))
        # Marks that the template knows and that are no special tokens by their maker's word: "</think>".
        marks = [t for t in control_tokens if t not in special_tokens and t in source and len(t) > 2]
        self._marks = re.compile("|".join(map(re.escape, sorted(marks, key=len, reverse=True))) or r"(?!)")
        self._child = _Child(seconds)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> ChatTemplate | None:
        """The template of a tokenizer, if it has one."""
        if not tokenizer.chat_template:
            return None
        bos, eos = tokenizer.bos_id, tokenizer.eos_id
        return cls(
            tokenizer.chat_template,
            bos_token="" if bos is None else tokenizer.token(bos),
            eos_token="" if eos is None else tokenizer.token(eos),
            control_tokens=tokenizer.control_tokens,
            special_tokens=tokenizer.special_tokens,
        )

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True, **variables: Any
    ) -> list[tuple[str, bool]]:
        """Segments (text, is_template): only the template's own may hold control tokens.

        Joined they are what the template renders. `tools` are strangers' words, as messages are; other
        `variables` reach the template as they are.
        """
        tools = variables.pop("tools", None)
        shadows = self._shadows([*messages, *(tools or ())])
        if tools:
            variables["tools"] = _hide(list(tools), str.maketrans(dict(shadows)), None)
        hidden = [self._hidden(message, shadows) for message in messages]
        more = {**self._variables, **variables, "add_generation_prompt": add_generation_prompt}
        folded = _with_system_folded(hidden)
        try:
            text = self._child.render(self.source, {**more, "messages": hidden})
        except ChatTemplateError:
            # Gemma 2 and early Mistral know no system: it then stands before the first question, as
            # Gemma 3's own template puts it.
            if folded is None:
                raise
            text = self._child.render(self.source, {**more, "messages": folded})
        return _segments(text, shadows)

    def close(self) -> None:
        """End the child process. A later `render` starts another."""
        self._child.close()

    def _shadows(self, messages: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """letter -> a private character that is in none of the messages"""
        taken = set(json.dumps(list(messages), ensure_ascii=False, default=str))
        free = (chr(code) for code in PRIVATE if chr(code) not in taken)
        try:
            return {letter: next(free) for letter in self._borders}
        except StopIteration:
            raise InvalidRequestError(
                "The messages are full of private characters (U+10F000 and above)."
            ) from None

    def _hidden(self, message: Mapping[str, Any], shadows: Mapping[str, str]) -> dict[str, Any]:
        role = message.get("role")
        if role not in ROLES:
            raise InvalidRequestError(
                f"The role {role!r:.60} is none of {', '.join(ROLES)}.", param="messages"
            )
        table = str.maketrans(dict(shadows))
        marks = self._marks if role == "assistant" else None
        return {key: value if key == "role" else _hide(value, table, marks) for key, value in message.items()}


def _with_system_folded(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]] | None:
    """The system's words at the head of the first question; None where there are not both."""
    match [(message.get("role"), message.get("content")) for message in messages[:2]]:
        case [("system" | "developer", str(system)), ("user", str(question))]:
            return [{**messages[1], "content": f"{system.strip()}\n\n{question}"}, *messages[2:]]
    return None


def _hide(value: Any, table: Mapping[int, Any], marks: re.Pattern[str] | None) -> Any:
    if isinstance(value, str):
        return _translated(value, table, marks)
    if isinstance(value, Mapping):
        return {_hide(key, table, marks): _hide(item, table, marks) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_hide(item, table, marks) for item in value]
    return value


def _translated(text: str, table: Mapping[int, Any], marks: re.Pattern[str] | None) -> str:
    if marks is None:
        return text.translate(table)
    kept = [match.group() for match in marks.finditer(text)]
    parts = [part.translate(table) for part in marks.split(text)]
    return "".join(part + mark for part, mark in zip(parts, [*kept, ""], strict=True))


def _segments(text: str, shadows: Mapping[str, str]) -> list[tuple[str, bool]]:
    """Cut at the private characters, which become the letters that they stand for."""
    letters = {shadow: letter for letter, shadow in shadows.items()}
    pattern = "[" + "".join(map(re.escape, letters)) + "]+" if letters else r"(?!)"
    segments: list[tuple[str, bool]] = []
    at = 0
    for match in re.finditer(pattern, text):
        segments.append((text[at : match.start()], True))
        segments.append(("".join(letters[shadow] for shadow in match.group()), False))
        at = match.end()
    segments.append((text[at:], True))
    return [(part, trusted) for part, trusted in segments if part]


class _Child:
    """One process, started at the first template, and anew after one that it did not survive."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None

    def render(self, source: str, variables: Mapping[str, Any]) -> str:
        request = {
            "source": source,
            "variables": variables,
            "seconds": self._seconds,
            "characters": CHARACTERS,
            "now": datetime.now().astimezone().isoformat(),
        }
        line = json.dumps(request).encode() + b"\n"
        with self._lock:
            answer = self._ask(line)
        if "error" in answer:
            raise ChatTemplateError(
                f"The model's chat template failed: {str(answer['error']).rstrip('.')}.",
                hint="The template came with the model; another file of the model may have a better one.",
            )
        return str(answer["text"])

    def _ask(self, line: bytes) -> dict[str, Any]:
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(line)
            process.stdin.flush()
            # The child's own alarm is the limit; this one is for a child that cannot even be scheduled.
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                ready = selector.select(self._seconds * 4 + 10)
            answer = process.stdout.readline() if ready else b""
        except BrokenPipeError:
            answer = b""
        except BaseException:
            self._stop()
            raise
        if not answer.endswith(b"\n"):
            self._stop()
            return {"error": f"it took longer than {self._seconds:g} seconds, or too much memory"}
        return dict(json.loads(answer))

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._stop()
            command = [sys.executable, "-I", str(Path(__file__).with_name("template_child.py"))]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={}
            )
            self._process = process
            self._finalizer = weakref.finalize(self, _end, process)
        return self._process

    def _stop(self) -> None:
        if self._finalizer is not None:
            self._finalizer()
        self._process = self._finalizer = None

    def close(self) -> None:
        with self._lock:
            self._stop()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:  # what was never read is not missed
                continue
