"""UpstreamLLM: a model on another server, with the words of LLM, so that every face of Quinze works with it.

Given a connection (hub/upstream.py) and what was found out about the server when it was added. Messages and
parameters become one request, its events become deltas. Tokens are counted by the server: before the request
where it has a route for that (vLLM, SGLang, llama.cpp), after it in any case; what is only estimated says so.
Knows nothing of names, keys or HTTP.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

from quinze.engine.constraints import Grammar
from quinze.engine.sampling import SamplingParams
from quinze.errors import InvalidRequestError, QuinzeError
from quinze.hub.upstream import Upstream
from quinze.llm.context import DEFAULT_OVERFLOW, Ledger, chat_parts, text_parts
from quinze.llm.llm import chosen_params, listed_messages
from quinze.llm.messages import Completion, Delta, Message
from quinze.llm.model import Messages
from quinze.llm.overflow import Window, admit_chat, overflow_of
from quinze.llm.reply import whole
from quinze.llm.tools import checked
from quinze.llm.upstream_events import Reading
from quinze.llm.upstream_request import Served, as_openai, request_body, tools_asked

_TOKENIZE = {"vllm", "sglang", "llamacpp"}
"""Servers with a route that counts tokens."""
_CJK = re.compile(r"[⺀-鿿가-힯豈-﫿！-￮]")
_TEMPLATE_TOKENS = 6
"""Around a message, about."""
_MOST_COUNTS = 4096


class UpstreamLLM:
    """One use of it: cheap to make, nothing is loaded."""

    can_chat = True
    can_call_tools = True

    def __init__(
        self,
        name: str,
        upstream: Upstream,
        served: Served,
        *,
        context_overflow: str = DEFAULT_OVERFLOW,
        cancel: threading.Event | None = None,
    ) -> None:
        """cancel: ends every request of this use; one's own may be given with each."""
        self.name, self.remote = name, upstream.server
        self.context_length = served.context_length
        self.context_overflow = overflow_of(context_overflow)
        self._upstream, self._served, self._cancel = upstream, served, cancel
        self._counts: dict[str, int] = {}
        self.counts_exactly = served.kind in _TOKENIZE
        """Until its route for that fails."""

    def chat(
        self,
        messages: Messages,
        *,
        params: SamplingParams | None = None,
        stop: Sequence[str] = (),
        stream: bool = False,
        cancel: threading.Event | None = None,
        context_overflow: str | None = None,
        grammar: Grammar | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        tool_choice: str = "auto",
        **sampling: Any,
    ) -> Completion | Iterator[Delta]:
        """As LLM.chat. The server's own template and parsers decide what the model reads and calls."""
        chosen = chosen_params(params, **sampling)
        listed = listed_messages(messages)
        offered = [] if tool_choice == "none" else checked(tools)
        kept, ledger = self._admit(listed, chosen, context_overflow)
        body = request_body(self._served, chosen, stop, grammar, chat=True)
        body |= {"messages": [as_openai(message) for message in kept], **tools_asked(offered, tool_choice)}

        def parts(total: int) -> dict[str, int]:
            return chat_parts(kept, total, self.count_tokens)

        deltas = self._deltas("/chat/completions", body, ledger, parts, cancel or self._cancel)
        return deltas if stream else whole(deltas)

    def complete(
        self,
        prompt: str,
        *,
        params: SamplingParams | None = None,
        stop: Sequence[str] = (),
        stream: bool = False,
        cancel: threading.Event | None = None,
        context_overflow: str | None = None,  # noqa: ARG002 - a text has no turns; the server refuses it
        grammar: Grammar | None = None,
        **sampling: Any,
    ) -> Completion | Iterator[Delta]:
        """As LLM.complete. A text that is too long is refused by the server."""
        chosen = chosen_params(params, **sampling)
        tokens = self.count_tokens(prompt)
        ledger = self._ledger(tokens, text_parts(tokens, 0), chosen)
        body = request_body(self._served, chosen, stop, grammar, chat=False) | {"prompt": prompt}

        def parts(total: int) -> dict[str, int]:
            return text_parts(total, 0)

        deltas = self._deltas("/completions", body, ledger, parts, cancel or self._cancel)
        return deltas if stream else whole(deltas)

    def count_tokens(self, text: str) -> int:
        """By the server where it counts, else estimated."""
        if not text:
            return 0
        if text not in self._counts:
            if len(self._counts) >= _MOST_COUNTS:
                self._counts.clear()
            self._counts[text] = self._tokenized(text)
        return self._counts[text]

    def count_chat_tokens(self, messages: Messages) -> int:
        """The texts, and about what the server's template puts around each."""
        listed = listed_messages(messages)
        return sum(self.count_tokens(message.content) + _TEMPLATE_TOKENS for message in listed)

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- inside

    def _admit(
        self, messages: list[Message], params: SamplingParams, overflow: str | None
    ) -> tuple[Sequence[Message], Ledger]:
        """What is sent. With the policy "error" the server judges what may fit: its count is the right one.

        What cannot fit is refused here: some servers would cut it in silence.
        """
        policy = self.context_overflow if overflow is None else overflow_of(overflow)
        tokens = self.count_chat_tokens(messages)
        surely = tokens if self.counts_exactly else tokens // 2
        fits = surely < self.context_length and not any(message.left_out for message in messages)
        if policy == "error" and fits:
            return messages, self._ledger(tokens, chat_parts(messages, tokens, self.count_tokens), params)
        window = Window(self.name, self.context_length, params.max_tokens, policy, self.count_tokens)
        admitted = admit_chat(messages, window, lambda kept: [0] * self.count_chat_tokens(kept))
        return admitted.messages, admitted.ledger

    def _ledger(self, tokens: int, parts: dict[str, int], params: SamplingParams) -> Ledger:
        room = max(1, self.context_length - tokens)
        reserve = room if params.max_tokens is None else min(params.max_tokens, room)
        return Ledger(self.context_length, tokens, parts, params.max_tokens, reserve, tokens)

    def _deltas(
        self,
        path: str,
        body: dict[str, Any],
        ledger: Ledger,
        parts: Callable[[int], dict[str, int]],
        cancel: threading.Event | None,
    ) -> Iterator[Delta]:
        reading = Reading(self._upstream.server, ledger, parts, self.counts_exactly, _estimate)
        began = time.perf_counter()
        events = self._events(path, body, cancel)
        try:
            for event in events:
                if cancel is not None and cancel.is_set():
                    break
                yield from reading.push(event, time.perf_counter() - began)
        except QuinzeError:
            if cancel is None or not cancel.is_set():
                raise
        finally:
            events.close()
        yield reading.end(time.perf_counter() - began, cancelled=cancel is not None and cancel.is_set())

    def _events(self, path: str, body: dict[str, Any], cancel: threading.Event | None) -> Any:
        """The events; once more without what some servers refuse to be asked."""
        events = self._upstream.stream(path, body, cancel)
        try:
            first = next(events, None)
        except InvalidRequestError as error:
            if "stream_options" not in error.message:
                raise
            body = {name: value for name, value in body.items() if name != "stream_options"}
            events = self._upstream.stream(path, body, cancel)
            first = next(events, None)
        try:
            if first is not None:
                yield first
                yield from events
        finally:
            events.close()

    def _tokenized(self, text: str) -> int:
        if not self.counts_exactly:
            return _estimate(text)
        body: dict[str, Any] = (
            {"content": text}
            if self._served.kind == "llamacpp"
            else {"model": self._served.model, "prompt": text, "add_special_tokens": False}
        )
        try:
            found = self._upstream.post("/tokenize", body, self._cancel, root=True)
        except QuinzeError:
            found = None
        tokens = found.get("count", found.get("tokens")) if isinstance(found, dict) else None
        if isinstance(tokens, list):
            tokens = len(tokens)
        if not isinstance(tokens, int) or tokens < 0:
            # Not every build has the route, and what cannot be counted can still be answered.
            self.counts_exactly = False
            return _estimate(text)
        return tokens


def _estimate(text: str) -> int:
    """Tokens of a text, about: four letters each, and one for most Chinese, Japanese or Korean characters.

    >>> _estimate("Once upon a time"), _estimate("你好")
    (4, 2)
    """
    wide = len(_CJK.findall(text))
    return wide + -(-(len(text) - wide) // 4)
