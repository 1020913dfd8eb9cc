"""OpenAI's request bodies: what is read, what is refused by name, and what is silently ignored.

Unknown fields are no error. A field that asks for what cannot be done is one, with its name: a reply that
looks as if it had been heeded would be a lie. Responses are built where they are sent (chat.py,
completions.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from quinze.engine.constraints import Grammar
from quinze.engine.sampling import MAX_LOGPROBS, SamplingParams
from quinze.errors import InvalidRequestError
from quinze.llm.context import Overflow
from quinze.llm.messages import Message, Role, ToolCall, Usage

MAX_STOP = MAX_REPLIES = 16
_MAX_STOP_CHARACTERS = 1_000


class StreamOptions(msgspec.Struct):
    include_usage: bool = False


class ContentPart(msgspec.Struct):
    """A part of a message's content; only text is read."""

    type: str
    text: str | None = None


class CalledFunction(msgspec.Struct):
    name: str
    arguments: str = "{}"


class Call(msgspec.Struct):
    function: CalledFunction
    id: str = ""


class ChatMessage(msgspec.Struct):
    role: str
    content: str | list[ContentPart] | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None


class _Generation(msgspec.Struct, kw_only=True):
    """What chat and completion requests have in common. Defaults are those of SamplingParams."""

    model: str
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    typical_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    response_format: dict[str, Any] | None = None
    guided_json: Any = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    """The last three are vLLM's."""
    context_overflow: Overflow | None = None
    """Our own: what is done with a prompt that does not fit."""
    adapter: str | None = None
    """Our own: an adapter's name, for `model` as its base: the same as "model+adapter"."""

    def __post_init__(self) -> None:
        if self.adapter:
            self.model = f"{self.model}+{self.adapter}"


class ChatRequest(_Generation, kw_only=True):
    messages: list[ChatMessage]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    function_call: Any = None
    modalities: list[str] | None = None


class CompletionRequest(_Generation, kw_only=True):
    prompt: str | list[Any]
    suffix: str | None = None
    echo: bool | None = None
    best_of: int | None = None
    logprobs: int | None = None


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    model: str
    input: str | list[Any]
    encoding_format: str | None = None
    dimensions: int | None = None


def sampling_params(request: ChatRequest | CompletionRequest) -> SamplingParams:
    """The request's numbers over SamplingParams' own defaults; each is checked there."""
    names = [field.name for field in dataclasses.fields(SamplingParams) if hasattr(request, field.name)]
    chosen = {name: getattr(request, name) for name in names if getattr(request, name) is not None}
    chosen["logit_bias"] = _biases(request.logit_bias)
    if isinstance(request, ChatRequest):
        chosen["logprobs"] = _chat_logprobs(request)
        if request.max_completion_tokens is not None:
            chosen["max_tokens"] = request.max_completion_tokens
    return SamplingParams(**chosen)


def _biases(given: dict[str, float] | None) -> dict[int, float] | None:
    wrong = next((key for key in given or () if not key.isascii() or not key.isdigit()), None)
    if wrong is not None:
        raise InvalidRequestError(
            f"logit_bias has the key {wrong[:40]!r}; its keys are token ids.", param="logit_bias"
        )
    return {int(key): bias for key, bias in given.items()} if given else None


def _chat_logprobs(request: ChatRequest) -> int | None:
    most = request.top_logprobs
    if most is not None and not 0 <= most <= MAX_LOGPROBS:
        raise InvalidRequestError(
            f"top_logprobs is {most}; it must lie between 0 and {MAX_LOGPROBS}.", param="top_logprobs"
        )
    if most and not request.logprobs:
        raise InvalidRequestError(
            "top_logprobs asks for logprobs.", hint="Send logprobs: true with it.", param="top_logprobs"
        )
    return (most or 0) if request.logprobs else None


def replies_wanted(request: ChatRequest | CompletionRequest) -> int:
    """n, and best_of only where it asks for no more."""
    n = 1 if request.n is None else request.n
    if not 1 <= n <= MAX_REPLIES:
        raise InvalidRequestError(f"n is {n}; it must lie between 1 and {MAX_REPLIES}.", param="n")
    if isinstance(request, CompletionRequest) and request.best_of not in {None, n}:
        raise InvalidRequestError(
            "best_of asks for replies that are not sent.", hint="Ask for n of them.", param="best_of"
        )
    return n


def of_choice(params: SamplingParams, index: int) -> SamplingParams:
    """Each of n replies has a seed of its own, and the first that of a single one."""
    return params if params.seed is None else dataclasses.replace(params, seed=(params.seed + index) % 2**64)


def grammar_of(request: ChatRequest | CompletionRequest) -> Grammar | None:
    """What the reply may be, asked for in one way at most."""
    asked = {
        name: value
        for name in ("response_format", "guided_json", "guided_regex", "guided_choice")
        if (value := getattr(request, name)) is not None and value != {"type": "text"}
    }
    if len(asked) > 1:
        names = " and ".join(asked)
        raise InvalidRequestError(f"{names} both say what the reply may be.", param=list(asked)[1])
    if request.response_format is not None and "response_format" in asked:
        return _response_format(request.response_format)
    if request.guided_json is not None:
        return Grammar.json_schema(_schema(request.guided_json, "guided_json"), param="guided_json")
    if request.guided_regex is not None:
        return Grammar.regex(request.guided_regex)
    return None if request.guided_choice is None else Grammar.choice(request.guided_choice)


def _response_format(given: dict[str, Any]) -> Grammar:
    kind = given.get("type")
    if kind == "json_object":
        return Grammar.json_object()
    if kind != "json_schema":
        raise InvalidRequestError(
            f"response_format.type is {str(kind)[:40]!r}; it must be text, json_object or json_schema.",
            param="response_format",
        )
    inner = given.get("json_schema")
    if not isinstance(inner, dict) or "schema" not in inner:
        raise InvalidRequestError(
            "response_format.json_schema.schema is missing.",
            hint='Send {"type": "json_schema", "json_schema": {"name": "...", "schema": {...}}}.',
            param="response_format",
        )
    return Grammar.json_schema(_schema(inner["schema"], "response_format"))


def _schema(given: Any, param: str) -> Any:
    """A schema, which some clients send as a text that holds it."""
    if not isinstance(given, str):
        return given
    try:
        return msgspec.json.decode(given)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequestError(f"{param} is no JSON: {str(error)[:100]}.", param=param) from error


def stop_strings(request: ChatRequest | CompletionRequest) -> tuple[str, ...]:
    stop = request.stop
    found = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(found) > MAX_STOP:
        raise InvalidRequestError(f"stop holds {len(found)} strings; {MAX_STOP} are the most.", param="stop")
    if any(len(text) > _MAX_STOP_CHARACTERS for text in found):
        raise InvalidRequestError(
            f"A stop string is longer than {_MAX_STOP_CHARACTERS:,} characters.", param="stop"
        )
    # An empty one would stop everything at once; OpenAI's own service ignores it.
    return tuple(text for text in found if text)


def messages_of(request: ChatRequest) -> list[Message]:
    if not request.messages:
        raise InvalidRequestError("messages is empty.", hint="Send at least one message.", param="messages")
    return [_message(message, f"messages[{i}]") for i, message in enumerate(request.messages)]


def _message(message: ChatMessage, param: str) -> Message:
    roles: dict[str, Role] = {
        "system": "system", "developer": "system", "user": "user", "assistant": "assistant",
        "tool": "tool", "function": "tool",
    }  # fmt: skip
    role = roles.get(message.role)
    if role is None:
        raise InvalidRequestError(
            f"{param}.role is {message.role[:40]!r}; it must be one of {', '.join(roles)}.",
            param=f"{param}.role",
        )
    if message.content is None and not (role == "assistant" and message.tool_calls):
        raise InvalidRequestError(f"{param}.content is missing.", param=f"{param}.content")
    text = _text(message.content, f"{param}.content")
    calls = tuple(
        ToolCall(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()
    )
    return Message(role, text, tool_calls=calls, tool_call_id=message.tool_call_id or "")


def tool_choice_of(request: ChatRequest) -> str:
    """ "auto", "none", "required", or the name of one."""
    match request.tool_choice:
        case None:
            return "auto"
        case "auto" | "none" | "required" as choice:
            return str(choice)
        case {"type": "function", "function": {"name": str(name)}}:
            return name
    raise InvalidRequestError(
        "tool_choice must be auto, none, required, or name a function.",
        hint='Such as {"type": "function", "function": {"name": "..."}}.',
        param="tool_choice",
    )


def _text(content: str | list[ContentPart] | None, param: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    for i, part in enumerate(content):
        if part.type not in {"text", "input_text", "output_text", "refusal"} or part.text is None:
            raise InvalidRequestError(
                f"{param}[{i}] is of type {part.type[:40]!r}; this service reads text only.",
                hint="Add documents and images to a knowledge base, and ask about them there.",
                param=f"{param}[{i}].type",
            )
    return "\n".join(part.text or "" for part in content)


def refuse_what_cannot_be_done(request: ChatRequest | CompletionRequest) -> None:
    """InvalidRequestError naming the first field that asks for something that is not there yet."""
    asked: dict[str, bool] = {}
    if isinstance(request, ChatRequest):
        asked |= {
            "function_call": request.function_call not in (None, "none", "auto"),
            "modalities": any(kind != "text" for kind in request.modalities or ()),
        }
    else:
        asked |= {
            "logprobs": bool(request.echo) and request.logprobs is not None,
            "suffix": bool(request.suffix),
        }
    hints = {
        "logprobs": "Those of a prompt are not told: send echo: false.",
    }
    for name, wrong in asked.items():
        if wrong:
            raise InvalidRequestError(
                f"{name} asks for something that this version cannot do.",
                hint=hints.get(name, "Leave the field out."),
                param=name,
            )


def together(usages: Sequence[Usage]) -> Usage:
    """Of several replies to one prompt, which counts once."""
    return Usage(
        usages[0].prompt_tokens,
        sum(usage.completion_tokens for usage in usages),
        usages[0].cached_tokens,
        sum(usage.accepted_prediction_tokens for usage in usages),
        sum(usage.rejected_prediction_tokens for usage in usages),
    )


def usage_body(usage: Usage | None) -> dict[str, Any]:
    usage = usage or Usage()
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {
            "accepted_prediction_tokens": usage.accepted_prediction_tokens,
            "rejected_prediction_tokens": usage.rejected_prediction_tokens,
        },
    }


def plain(value: Any) -> Mapping[str, Any] | None:
    """A dataclass or mapping as JSON's own types."""
    found: Mapping[str, Any] | None = msgspec.to_builtins(value, enc_hook=str)
    return found
