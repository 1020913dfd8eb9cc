"""POST /v1/chat/completions: messages in, a reply out, whole or streamed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from quinze.errors import InvalidRequestError
from quinze.llm.messages import Completion, Delta
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
)
from quinze.server.openai.streaming import Shape, respond

if TYPE_CHECKING:
    from quinze.llm.llm import LLM


async def chat_completions(request: Request) -> Response:
    asked = await json_body(request, ChatRequest)
    refuse_what_cannot_be_done(asked)
    messages, params, stop = messages_of(asked), sampling_params(asked), stop_strings(asked)

    options: dict[str, Any] = {
        "stop": stop,
        "context_overflow": asked.context_overflow,
        "grammar": grammar_of(asked),
    }

    def whole(llm: LLM, cancel: threading.Event, index: int) -> Completion:
        _must_chat(llm)
        done: Completion = llm.chat(messages, params=of_choice(params, index), cancel=cancel, **options)
        return done

    def stream(llm: LLM, cancel: threading.Event, index: int) -> Iterator[Delta]:
        _must_chat(llm)
        deltas: Iterator[Delta] = llm.chat(
            messages, params=of_choice(params, index), cancel=cancel, stream=True, **options
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
        of_whole=lambda text: {"message": {"role": "assistant", "content": text, "refusal": None}},
        of_logprobs=of_chat,
        with_logprobs=params.logprobs is not None,
        replies=replies_wanted(asked),
    )
    return await respond(request, asked, shape, whole=whole, stream=stream)


def _must_chat(llm: LLM) -> None:
    if not llm.can_chat:
        raise InvalidRequestError(
            f"The model {llm.name!r} has no chat template, so it cannot chat.",
            hint="Ask it to continue a text with /v1/completions, or take a model that was tuned to chat.",
            param="model",
        )
