"""Messages in, deltas out: the words in which every face speaks with an LLM.

Knows nothing of HTTP, tokens or templates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "cancelled", "tool_calls", "content_filter"]
"""content_filter: an upstream server withheld the rest."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model wants called."""

    id: str
    name: str
    arguments: str
    """JSON, as the model wrote it."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str
    knowledge: tuple[str, ...] = ()
    """Passages of documents that stand in the content; the context ledger counts them apart."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Of the assistant."""
    tool_call_id: str = ""
    """Of a tool: which call this answers."""
    left_out: tuple[str, ...] = ()
    """Passages that there was no room for; the context ledger names them."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request, counted with the model's own tokenizer."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """How many of the prompt's tokens were still in the KV cache and needed no computing."""
    accepted_prediction_tokens: int = 0
    """Guessed from what the text repeats, and right: they came without a step of their own."""
    rejected_prediction_tokens: int = 0
    """Guessed wrongly; no token of the reply is among them."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds, measured around the engine."""

    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Likely:
    """A token and the logarithm of its odds."""

    id: int
    token: str
    """Its text; U+FFFD for what is no whole character."""
    logprob: float
    bytes: bytes


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """What the model thought when it said a token, before temperature, penalties and bias."""

    chosen: Likely
    most_likely: tuple[Likely, ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """One piece of a streamed reply. Text is always whole characters; the last delta carries the ending."""

    text: str = ""
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    context: Mapping[str, Any] | None = None
    """The context ledger (llm/context.py), on the last delta."""
    logprobs: tuple[TokenLogprobs, ...] = ()
    """Of the tokens that this text shows or begins to show, if they were asked for."""
    stop: str | None = None
    """The stop string that ended the reply, on the last delta."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Whole calls, each once."""
    reasoning: str = ""
    """What an upstream server tells of the model's thoughts; no part of the reply."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole reply."""

    text: str
    finish_reason: FinishReason
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)
    context: Mapping[str, Any] = field(default_factory=dict)
    logprobs: tuple[TokenLogprobs, ...] = ()
    stop: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""
