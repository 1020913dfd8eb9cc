"""POST /v1/chat/completions: messages in, a reply out, whole or streamed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from quinze.errors import InvalidRequestError
from quinze.llm.messages import Completion, Delta, ToolCall
from quinze.llm.tools import checked
from quinze.server.body import json_body
from quinze.server.openai.logprobs import of_chat
from quinze.server.openai.protocol import (
    ChatRequest,
    grammar_of,
    messages_of,
    of_choice,
    refuse_what_cannot_be_done,
    replies_wanted,
    sampling_params,
    stop_strings,
    tool_choice_of,
)
from quinze.server.openai.streaming import Shape, respond

if TYPE_CHECKING:
    from quinze.llm.model import LanguageModel


async def chat_completions(request: Request) -> Response:
    asked = await json_body(request, ChatRequest)
    refuse_what_cannot_be_done(asked)
    messages, params, stop = messages_of(asked), sampling_params(asked), stop_strings(asked)

    options: dict[str, Any] = {
        "stop": stop,
        "context_overflow": asked.context_overflow,
        "grammar": grammar_of(asked),
    }
    choice = tool_choice_of(asked)
    if choice not in {"auto", "none"} and not asked.tools:
        raise InvalidRequestError("tool_choice asks for a call, and there are no tools.", param="tool_choice")
    tools = checked(asked.tools or [])

    def offered(llm: LanguageModel) -> dict[str, Any]:
        """Tools for a model that is shown them; one that is not answers in words, unless it must call."""
        if not tools or choice == "none":
            return {}
        if llm.can_call_tools:
            return {"tools": tools, "tool_choice": choice}
        if choice == "auto":
            return {}
        raise InvalidRequestError(
            f"The chat template of {llm.name!r} shows no tools to it, so it cannot call one.",
            hint='Send tool_choice "auto": it then answers in words.',
            param="tool_choice",
        )

    def whole(llm: LanguageModel, cancel: threading.Event, index: int) -> Completion:
        _must_chat(llm)
        done: Completion = llm.chat(
            messages, params=of_choice(params, index), cancel=cancel, **options, **offered(llm)
        )
        return done

    def stream(llm: LanguageModel, cancel: threading.Event, index: int) -> Iterator[Delta]:
        _must_chat(llm)
        deltas: Iterator[Delta] = llm.chat(
            messages, params=of_choice(params, index), cancel=cancel, stream=True, **options, **offered(llm)
        )
        return deltas

    shape = Shape(
        model=asked.model,
        prefix="chatcmpl-",
        whole="chat.completion",
        chunk="chat.completion.chunk",
        first={"delta": {"role": "assistant", "content": ""}},
        of_text=lambda text: {"delta": {"content": text}},
        of_ending={"delta": {}},
        of_whole=_message,
        of_calls=lambda calls, before: {"delta": {"tool_calls": _calls(calls, before, indexed=True)}},
        of_reasoning=lambda thought: {"delta": {"reasoning_content": thought}},
        of_logprobs=of_chat,
        with_logprobs=params.logprobs is not None,
        replies=replies_wanted(asked),
    )
    return await respond(request, asked, shape, whole=whole, stream=stream)


def _message(reply: Completion) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None}
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    if reply.tool_calls:
        message |= {"content": reply.text or None, "tool_calls": _calls(reply.tool_calls, 0, indexed=False)}
    return {"message": message}


def _calls(calls: Sequence[ToolCall], before: int, *, indexed: bool) -> list[dict[str, Any]]:
    return [
        {
            **({"index": before + i} if indexed else {}),
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for i, call in enumerate(calls)
    ]


def _must_chat(llm: LanguageModel) -> None:
    if not llm.can_chat:
        raise InvalidRequestError(
            f"The model {llm.name!r} has no chat template, so it cannot chat.",
            hint="Ask it to continue a text with /v1/completions, or take a model that was tuned to chat.",
            param="model",
        )
