"""POST /v1/completions: a text in, its continuation out, whole or streamed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from quinze.errors import InvalidRequestError
from quinze.llm.messages import Completion, Delta
from quinze.server.body import json_body
from quinze.server.openai.logprobs import of_completion
from quinze.server.openai.protocol import (
    CompletionRequest,
    grammar_of,
    of_choice,
    refuse_what_cannot_be_done,
    replies_wanted,
    sampling_params,
    stop_strings,
)
from quinze.server.openai.streaming import Shape, respond

if TYPE_CHECKING:
    from quinze.llm.model import LanguageModel


async def completions(request: Request) -> Response:
    asked = await json_body(request, CompletionRequest)
    refuse_what_cannot_be_done(asked)
    prompt, params, stop = _prompt(asked), sampling_params(asked), stop_strings(asked)
    options: dict[str, Any] = {
        "stop": stop,
        "context_overflow": asked.context_overflow,
        "grammar": grammar_of(asked),
    }
    echo = prompt if asked.echo else ""

    def whole(llm: LanguageModel, cancel: threading.Event, index: int) -> Completion:
        done: Completion = llm.complete(prompt, params=of_choice(params, index), cancel=cancel, **options)
        return done

    def stream(llm: LanguageModel, cancel: threading.Event, index: int) -> Iterator[Delta]:
        if echo:
            yield Delta(echo)
        chosen = of_choice(params, index)
        yield from llm.complete(prompt, params=chosen, cancel=cancel, stream=True, **options)

    shape = Shape(
        model=asked.model,
        prefix="cmpl-",
        whole="text_completion",
        chunk="text_completion",
        first=None,
        of_text=lambda text: {"text": text},
        of_ending={"text": ""},
        of_whole=lambda reply: {"text": echo + reply.text},
        of_logprobs=of_completion,
        with_logprobs=params.logprobs is not None,
        replies=replies_wanted(asked),
    )
    return await respond(request, asked, shape, whole=whole, stream=stream)


def _prompt(asked: CompletionRequest) -> str:
    """The one prompt; a list of one is accepted."""
    prompt = asked.prompt
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and prompt and all(isinstance(text, str) for text in prompt):
        raise InvalidRequestError(
            f"prompt holds {len(prompt)} texts; one is read.",
            hint="Send one request for each.",
            param="prompt",
        )
    raise InvalidRequestError(
        "prompt must be a text; token ids are not read.", hint="Send the text itself.", param="prompt"
    )
