"""The context ledger: what fills a model's window, and what was left out, counted with its own tokenizer.

granted         tokens that the model reads and writes together
used            prompt and reply so far
sent            tokens of the prompt as it came, before anything was left out
parts           what is in the window: system, knowledge, history, prompt (the last turn, or the whole text),
                template, reply
reply_asked     max_tokens of the request, or None
reply_reserve   tokens that the reply was granted: what was asked, as far as there was room
overflow        the policy that was in force (overflow.py)
dropped         an entry for each message or piece that the model did not read
dropped_parts, dropped_turns    their sums: tokens by part (the template around them too), and turns

Knows nothing of how room is made.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from quinze.errors import ContextLengthError
from quinze.llm.messages import Message, Role

Overflow = Literal["error", "drop_oldest", "keep_ends"]
OVERFLOWS: tuple[Overflow, ...] = get_args(Overflow)
DEFAULT_OVERFLOW: Overflow = "error"
_FIRST_WORDS = 80
"""Characters of what was dropped that an entry shows."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """What the model did not read: a whole message, or a piece of one."""

    part: Literal["history", "prompt", "knowledge"]
    role: Role | None
    """None where there are no roles: in a text that is to be continued."""
    turn: int | None
    """Which turn of the request, from 0."""
    message: int | None
    """Which of the request's messages, from 0."""
    whole: bool
    """False: a piece out of a message whose other pieces were kept."""
    tokens: int
    begins: str
    """Its first words."""
    sha256: str
    """Of the dropped text in UTF-8."""


def dropped(
    text: str,
    tokens: int,
    *,
    part: Literal["history", "prompt", "knowledge"],
    role: Role | None = None,
    turn: int | None = None,
    message: int | None = None,
    whole: bool = True,
) -> Dropped:
    """The entry for a text that was left out."""
    words = " ".join(text[: 4 * _FIRST_WORDS].split())
    begins = words if len(words) <= _FIRST_WORDS else words[:_FIRST_WORDS].rstrip() + "…"
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    return Dropped(part, role, turn, message, whole, tokens, begins, digest)


@dataclass(frozen=True, slots=True)
class Ledger:
    """Of one request."""

    granted: int
    prompt_tokens: int
    parts: dict[str, int]
    reply_asked: int | None
    reply_reserve: int
    sent: int
    overflow: Overflow = DEFAULT_OVERFLOW
    dropped: tuple[Dropped, ...] = ()

    def account(self, reply_tokens: int) -> dict[str, Any]:
        """As every face shows it, after so many tokens of the reply."""
        sums: Counter[str] = Counter()
        for entry in self.dropped:
            sums[entry.part] += entry.tokens
        # Passages that were left out had never been put into the prompt.
        around = self.sent - self.prompt_tokens - sums["history"] - sums["prompt"]
        if around > 0:
            sums["template"] = around
        turns = {entry.turn for entry in self.dropped if entry.whole and entry.turn is not None}
        return {
            "granted": self.granted,
            "used": self.prompt_tokens + reply_tokens,
            "sent": self.sent,
            "parts": {**self.parts, "reply": reply_tokens},
            "reply_asked": self.reply_asked,
            "reply_reserve": self.reply_reserve,
            "overflow": self.overflow,
            "dropped": [dataclasses.asdict(entry) for entry in self.dropped],
            "dropped_parts": {part: tokens for part, tokens in sums.items() if tokens},
            "dropped_turns": len(turns),
        }


def open_ledger(
    name: str,
    granted: int,
    prompt_tokens: int,
    parts: dict[str, int],
    asked: int | None,
    *,
    sent: int | None = None,
    overflow: Overflow = DEFAULT_OVERFLOW,
    dropped: Sequence[Dropped] = (),
    param: str = "messages",
) -> Ledger:
    """ContextLengthError, with the numbers, where the prompt leaves no room for one token of reply."""
    room = granted - prompt_tokens
    if room < 1:
        raise _too_long(name, granted, prompt_tokens, parts, overflow, param)
    reserve = room if asked is None else min(asked, room)
    whole = prompt_tokens if sent is None else sent
    return Ledger(granted, prompt_tokens, parts, asked, reserve, whole, overflow, tuple(dropped))


def _too_long(
    name: str, granted: int, tokens: int, parts: dict[str, int], overflow: Overflow, param: str
) -> ContextLengthError:
    holds = f"{name} holds {granted:,}, its reply included."
    if overflow == "error":
        hint = 'Shorten it, choose context_overflow "drop_oldest" or "keep_ends"'
        message = f"The prompt has {tokens:,} tokens; {holds}"
    elif param == "messages":
        turn = parts.get("prompt", 0) + parts.get("knowledge", 0)
        hint = (
            "Shorten them" if overflow == "keep_ends" else 'Shorten them, choose context_overflow "keep_ends"'
        )
        message = (
            f"What is never dropped has {tokens:,} tokens: the system prompt {parts.get('system', 0):,}, "
            f"the last turn {turn:,}, the template {parts.get('template', 0):,}; {holds}"
        )
    else:
        hint = "Shorten it" if overflow == "keep_ends" else 'Shorten it, choose context_overflow "keep_ends"'
        message = f"The prompt has {tokens:,} tokens and no turns that could be dropped; {holds}"
    return ContextLengthError(
        message, hint=f"{hint}, or load the model with a larger context_length.", param=param
    )


def turns_of(messages: Sequence[Message]) -> list[list[int]]:
    """Indexes of the messages by turn: a question with all that answers it. System messages are in none.

    >>> turns_of([Message("system", ""), Message("user", ""), Message("assistant", ""), Message("user", "")])
    [[1, 2], [3]]
    """
    turns: list[list[int]] = []
    for i, message in enumerate(messages):
        if message.role == "system":
            continue
        if message.role == "user" or not turns:
            turns.append([])
        turns[-1].append(i)
    return turns


def chat_parts(messages: Sequence[Message], total: int, count: Callable[[str], int]) -> dict[str, int]:
    """Tokens by part; they add up to `total`, and what no message wrote is the template's."""
    counts = [count(message.content) for message in messages]
    turns = turns_of(messages)
    last = turns[-1] if turns else []
    knowledge = sum(
        min(counts[i], sum(count(text) for text in message.knowledge)) for i, message in enumerate(messages)
    )
    system = sum(n for message, n in zip(messages, counts, strict=True) if message.role == "system")
    prompt = sum(counts[i] for i in last)
    history = sum(counts) - system - prompt
    prompt = max(0, prompt - knowledge)
    # A template may leave out a part of the history, such as the thoughts of earlier replies.
    template = total - system - knowledge - prompt - history
    if template < 0:
        history, template = max(0, history + template), 0
    prompt = total - system - knowledge - history - template
    return {
        "system": system, "knowledge": knowledge, "history": history, "prompt": prompt, "template": template
    }  # fmt: skip


def text_parts(tokens: int, template: int) -> dict[str, int]:
    """The same of a text that is to be continued; `template`: what the tokenizer put before it."""
    return {"system": 0, "knowledge": 0, "history": 0, "prompt": tokens - template, "template": template}
