"""The events of another server's stream, read into deltas.

Servers differ: thoughts are called reasoning_content (vLLM until 2025, DeepSeek, SGLang) or reasoning (vLLM
since, Ollama), calls of tools come in fragments or whole, usage comes with the last chunk, behind it, or not
at all, and some answer a stream in one piece. What is not there is estimated and told so; a stream that
breaks off is no end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast, get_args

from quinze.errors import UpstreamError
from quinze.llm.context import Ledger
from quinze.llm.messages import Delta, FinishReason, Likely, Timings, TokenLogprobs, ToolCall, Usage

_REASONS: Mapping[str, FinishReason] = {
    **{reason: reason for reason in get_args(FinishReason) if reason != "cancelled"},
    "function_call": "tool_calls",
    "eos": "stop",
    "abort": "cancelled",
}
_MOST_CALLS = 128
_SUSPECT = 0.5
"""A server that says it read less than this share of what we sent (more than 1,000 tokens) has cut it."""


class Reading:
    """One reply on its way."""

    def __init__(
        self,
        server: str,
        ledger: Ledger,
        parts: Callable[[int], dict[str, int]],
        counted: bool,
        estimate: Callable[[str], int],
    ) -> None:
        """parts: of a prompt of so many tokens. counted: the server counted the prompt beforehand."""
        self._server, self._ledger, self._parts = server, ledger, parts
        self._counted, self._estimate = counted, estimate
        self._reason: FinishReason | None = None
        self._stop: str | None = None
        self._usage: Mapping[str, Any] | None = None
        self._calls: dict[int, dict[str, str]] = {}
        self._first: float | None = None
        self._written = ""

    def push(self, event: Mapping[str, Any], seconds: float) -> Iterator[Delta]:
        """What the event says. `seconds` since the request."""
        usage = event.get("usage")
        if isinstance(usage, dict):
            self._usage = usage
        choices = event.get("choices")
        if not isinstance(choices, list):
            if self._usage is None:
                raise self._strange()
            return
        for choice in choices[:1]:
            if not isinstance(choice, dict):
                raise self._strange()
            # "message": a whole reply in place of a stream; "text": a completion.
            told = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
            if not isinstance(told, dict):
                raise self._strange()
            text, thought = _text(told.get("content")), self._thought(told)
            self._note_calls(told.get("tool_calls"))
            logprobs = _logprobs(choice.get("logprobs"))
            if text or thought or logprobs:
                self._first = seconds if self._first is None else self._first
                self._written += text + thought
                yield Delta(text, logprobs=logprobs, reasoning=thought)
            reason = choice.get("finish_reason")
            if reason:
                self._reason = _REASONS.get(str(reason), "stop")
                stop = choice.get("stop_reason")
                self._stop = stop if isinstance(stop, str) else None

    def end(self, seconds: float, *, cancelled: bool) -> Delta:
        """The last delta. UpstreamError where the stream broke off."""
        reason: FinishReason | None = "cancelled" if cancelled else self._reason
        if reason is None:
            raise UpstreamError(
                f"{self._server} ended its reply in the middle.", hint="What came before is not whole."
            )
        calls = tuple(
            ToolCall(call["id"] or f"call_{i}", call["name"], call["arguments"] or "{}")
            for i, call in sorted(self._calls.items())
            if call["name"]
        )
        if calls and reason == "stop":
            reason = "tool_calls"
        usage = self._told()
        first = seconds if self._first is None else self._first
        return Delta(
            "", reason, usage, Timings(first, max(0.0, seconds - first)), self._account(usage), (),
            self._stop, calls,
        )  # fmt: skip

    def _told(self) -> Usage:
        told = self._usage or {}
        details = told.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else 0
        return Usage(
            _count(told.get("prompt_tokens"), self._ledger.prompt_tokens),
            _count(told.get("completion_tokens"), self._estimate(self._written)),
            _count(cached, 0),
        )

    def _account(self, usage: Usage) -> dict[str, Any]:
        """The ledger's account with the server's own count, and who counted."""
        by_server = self._usage is not None and type(self._usage.get("prompt_tokens")) is int
        account = self._ledger.account(usage.completion_tokens)
        sent = self._ledger.prompt_tokens
        if by_server:
            parts = self._parts(usage.prompt_tokens)
            account |= {
                "used": usage.prompt_tokens + usage.completion_tokens,
                "parts": {**parts, "reply": usage.completion_tokens},
                "sent": max(usage.prompt_tokens, account["sent"] - sent + usage.prompt_tokens),
            }
        account["counted_by"] = "upstream" if by_server or self._counted else "estimated"
        if by_server and sent > 1000 and usage.prompt_tokens < _SUSPECT * sent:
            # Nobody tells what it left out, but it must not pass for the whole.
            account["cut_upstream"] = {"sent_about": sent, "read": usage.prompt_tokens}
        return account

    def _thought(self, told: Mapping[str, Any]) -> str:
        for name in ("reasoning_content", "reasoning"):
            if isinstance(told.get(name), str) and told[name]:
                return str(told[name])
        return ""

    def _note_calls(self, fragments: Any) -> None:
        for at, fragment in enumerate(fragments if isinstance(fragments, list) else []):
            if not isinstance(fragment, dict):
                raise self._strange()
            index = fragment.get("index")
            index = index if type(index) is int and 0 <= index < _MOST_CALLS else at
            call = self._calls.setdefault(index, {"id": "", "name": "", "arguments": ""})
            function = fragment.get("function")
            function = function if isinstance(function, dict) else {}
            call["id"] = call["id"] or _text(fragment.get("id"))
            call["name"] = call["name"] or _text(function.get("name"))
            call["arguments"] += _text(function.get("arguments"))

    def _strange(self) -> UpstreamError:
        return UpstreamError(
            f"{self._server} answered something that is no reply of a model.",
            hint="Is it a server with OpenAI's HTTP? Its address usually ends with /v1.",
        )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _count(value: Any, otherwise: int) -> int:
    return value if type(value) is int and value >= 0 else otherwise


def _logprobs(told: Any) -> tuple[TokenLogprobs, ...]:
    """Of a chat; those of completions have another shape, and are turned into this one."""
    if not isinstance(told, dict):
        return ()
    content = told.get("content")
    if not isinstance(content, list):
        return _of_completion(told)
    found = []
    for entry in content:
        chosen = _likely(entry)
        if chosen is not None:
            listed = entry.get("top_logprobs")
            most = [_likely(one) for one in listed] if isinstance(listed, list) else []
            found.append(TokenLogprobs(chosen, tuple(one for one in most if one is not None)))
    return tuple(found)


def _likely(entry: Any) -> Likely | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("token"), str):
        return None
    logprob, spelled = entry.get("logprob"), entry.get("bytes")
    whole = isinstance(spelled, list) and all(type(b) is int and 0 <= b < 256 for b in spelled)
    data = bytes(cast("list[int]", spelled)) if whole else entry["token"].encode()
    return Likely(-1, entry["token"], float(logprob) if isinstance(logprob, (int, float)) else 0.0, data)


def _of_completion(told: Mapping[str, Any]) -> tuple[TokenLogprobs, ...]:
    tokens, odds = told.get("tokens"), told.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(odds, list):
        return ()
    pairs = zip(tokens, odds, strict=False)
    found = [_likely({"token": token, "logprob": logprob}) for token, logprob in pairs]
    return tuple(TokenLogprobs(one) for one in found if one is not None)
