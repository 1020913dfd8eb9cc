"""The context ledger: what fills the model's window, counted with the model's own tokenizer.

granted         tokens that the model reads and writes together
used            prompt and reply so far
parts           system, history, prompt (the last message, or the whole text), template, reply
reply_asked     max_tokens of the request, or None
reply_reserve   tokens that the reply was granted: what was asked, as far as there was room
dropped         messages left out to make room; 0, for nothing is ever dropped in silence
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from quinze.errors import ContextLengthError
from quinze.llm.messages import Message


@dataclass(frozen=True, slots=True)
class Ledger:
    """Of one request."""

    granted: int
    prompt_tokens: int
    parts: dict[str, int]
    reply_asked: int | None
    reply_reserve: int

    def account(self, reply_tokens: int) -> dict[str, Any]:
        """As every face shows it, after so many tokens of the reply."""
        return {
            "granted": self.granted,
            "used": self.prompt_tokens + reply_tokens,
            "parts": {**self.parts, "reply": reply_tokens},
            "reply_asked": self.reply_asked,
            "reply_reserve": self.reply_reserve,
            "dropped": 0,
        }


def open_ledger(
    name: str, granted: int, prompt_tokens: int, parts: dict[str, int], asked: int | None
) -> Ledger:
    """ContextLengthError, with the numbers, where the prompt leaves no room for one token of reply."""
    room = granted - prompt_tokens
    if room < 1:
        raise ContextLengthError(
            f"The prompt has {prompt_tokens:,} tokens; {name} holds {granted:,}, its reply included.",
            hint="Shorten the prompt, or load the model with a larger context_length.",
            param="messages",
        )
    return Ledger(granted, prompt_tokens, parts, asked, room if asked is None else min(asked, room))


def chat_parts(messages: Sequence[Message], total: int, count: Callable[[str], int]) -> dict[str, int]:
    """Tokens by part; they add up to `total`, and what no message wrote is the template's."""
    counts = [count(message.content) for message in messages]
    prompt = counts[-1]
    system = sum(n for message, n in zip(messages[:-1], counts, strict=False) if message.role == "system")
    history = sum(counts[:-1]) - system
    # A template may leave out a part of the history, such as the thoughts of earlier replies.
    template = total - system - prompt - history
    if template < 0:
        history, template = max(0, history + template), 0
    prompt = total - system - history - template
    return {"system": system, "history": history, "prompt": prompt, "template": template}
