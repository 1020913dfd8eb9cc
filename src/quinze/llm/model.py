"""A language model as the rest of the house sees it, wherever it runs: in this process, or on another server.

`LLM` (llm.py) and `UpstreamLLM` (upstream.py) are the two kinds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from quinze.llm.messages import Message

Messages = Sequence[Message | Mapping[str, str]]


class LanguageModel(Protocol):
    """Messages or a text in; a Completion, or with `stream` an iterator of Deltas, out."""

    @property
    def name(self) -> str: ...
    @property
    def context_length(self) -> int: ...
    @property
    def remote(self) -> str:
        """Host of the server that it runs on; "" when it runs here."""
        ...

    @property
    def can_chat(self) -> bool: ...
    @property
    def can_call_tools(self) -> bool: ...

    def chat(self, messages: Messages, *_: Any, **options: Any) -> Any:
        """Keywords: params, stop, stream, cancel, context_overflow, grammar, tools, tool_choice (llm.py)."""
        ...

    def complete(self, prompt: str, *_: Any, **options: Any) -> Any:
        """The same without tools."""
        ...

    def count_tokens(self, text: str) -> int: ...
    def count_chat_tokens(self, messages: Messages) -> int: ...
    def close(self) -> None: ...
