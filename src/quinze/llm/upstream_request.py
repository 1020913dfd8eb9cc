"""A request in the words of another server: OpenAI's, and what each kind of server wants otherwise.

Given messages, parameters and what is known of the server; returns the JSON to send. Sends nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quinze.engine.constraints import Grammar
from quinze.engine.sampling import SamplingParams
from quinze.errors import InvalidRequestError
from quinze.llm.messages import Message

KINDS = ("vllm", "sglang", "llamacpp", "ollama", "openai", "quinze")
"""Servers whose quirks are known."""
_TAKES_ALL = {"vllm", "sglang", "llamacpp", "quinze"}
"""Those that read top_k, min_p and their like beside OpenAI's own parameters."""


@dataclass(frozen=True, slots=True)
class Served:
    """What is known of a model on another server."""

    model: str
    """The server's own name for it."""
    context_length: int
    kind: str = ""
    """One of KINDS; "": any other that speaks OpenAI's HTTP."""


def request_body(
    served: Served, params: SamplingParams, stop: Sequence[str], grammar: Grammar | None, *, chat: bool
) -> dict[str, Any]:
    """Everything but the messages or the prompt. Always a stream, which can be stopped."""
    body: dict[str, Any] = {
        "model": served.model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": params.temperature,
        "top_p": params.top_p,
    }
    if params.max_tokens is not None:
        # OpenAI's own newer models know only the newer name, and most other servers only the older one.
        newer = served.kind == "openai" and chat
        body["max_completion_tokens" if newer else "max_tokens"] = params.max_tokens
    if stop:
        body["stop"] = list(stop)
    if params.seed is not None:
        body["seed"] = params.seed % 2**63
    if params.logit_bias:
        body["logit_bias"] = {str(id_): bias for id_, bias in params.logit_bias.items()}
    if params.logprobs is not None:
        wanted = {"logprobs": True, "top_logprobs": params.logprobs}
        body |= wanted if chat else {"logprobs": params.logprobs}
    return body | _further(params, served.kind) | (_constrained(grammar, served.kind) if grammar else {})


def tools_asked(tools: Sequence[Mapping[str, Any]], choice: str) -> dict[str, Any]:
    """choice: "auto", "required", or a tool's name."""
    if not tools:
        return {}
    named = {"type": "function", "function": {"name": choice}}
    return {"tools": list(tools), "tool_choice": choice if choice in ("auto", "required") else named}


def as_openai(message: Message) -> dict[str, Any]:
    """A message in OpenAI's form."""
    found: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        found["content"] = message.content or None
        found["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        found["tool_call_id"] = message.tool_call_id
    return found


def _further(params: SamplingParams, kind: str) -> dict[str, Any]:
    """Parameters that a strict server refuses: not sent where they would change nothing."""
    default, found = SamplingParams(), {}
    for name in ("presence_penalty", "frequency_penalty"):
        if getattr(params, name):
            found[name] = getattr(params, name)
    for name in ("top_k", "min_p", "typical_p", "repetition_penalty"):
        value = getattr(params, name)
        if kind in _TAKES_ALL or value != getattr(default, name):
            found[name] = value
    if kind == "llamacpp" and "repetition_penalty" in found:
        found["repeat_penalty"] = found.pop("repetition_penalty")
    if kind in ("vllm", "sglang"):
        # They have no typical sampling, and -1 for a top_k that considers all.
        found.pop("typical_p", None)
        found["top_k"] = params.top_k or -1
    return found


def _constrained(grammar: Grammar, kind: str) -> dict[str, Any]:
    """What the reply may be, in the server's words."""
    if "json_schema" in grammar.asked:
        schema = grammar.asked["json_schema"]
        if schema == {"type": "object"}:
            return {"response_format": {"type": "json_object"}}
        named = {"name": "reply", "schema": schema, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": named}}
    way = "regex" if "regex" in grammar.asked else "choice"
    asked = grammar.asked.get(way)
    if kind == "sglang" and way == "regex":
        return {"regex": asked}
    if kind == "vllm":
        # Older releases know guided_*, newer ones structured_outputs; each overlooks the other.
        return {f"guided_{way}": asked, "structured_outputs": {way: asked}}
    if kind == "quinze":
        return {f"guided_{way}": asked}
    raise InvalidRequestError(
        "The server of this model takes JSON schemas, and no regular expressions or choices.",
        hint="Ask with response_format.",
        param=grammar.param,
    )
