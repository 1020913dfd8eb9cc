"""Records of other people's shapes as conversations: the messages that a chat template reads.

    messages   {"messages": [{"role", "content", "tool_calls"?}], "tools"?}         OpenAI, TRL
    sharegpt   {"conversations": [{"from", "value"}], "system"?, "tools"?}          ShareGPT, LLaMA-Factory
    alpaca     {"instruction", "input"?, "output", "system"?, "history"?}           Alpaca, BELLE

Also one question and one answer under other names (prompt/completion, question/answer, query/response), and
`columns` names what is called otherwise. A shape that is not recognized is an error; a record that is broken
within its shape is a Refusal with a reason, to be counted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quinze.errors import InvalidRequestError

Message = dict[str, Any]
"""role, content, and where there are: tool_calls, reasoning_content, trained (False: read, not learned)."""

SPEAKERS = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "model": "assistant", "bot": "assistant", "bing": "assistant", "bard": "assistant", "system": "system",
    "developer": "system", "tool": "tool", "function": "tool", "observation": "tool",
    "function_response": "tool", "function_call": "function_call", "tool_call": "function_call",
}  # fmt: skip
QUESTIONS = ("prompt", "question", "query", "instruction")
ANSWERS = ("completion", "response", "answer", "output")


class Refusal(Exception):  # noqa: N818
    """Why a record is left out: a few words, the same for all records of the kind."""


@dataclass(frozen=True, slots=True)
class Conversation:
    messages: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)

    def text(self) -> str:
        """What was said, without instructions and tools: what two conversations are compared by."""
        said = (m["content"] for m in self.messages if m["role"] in ("user", "assistant"))
        return "\n".join(part for part in said if part)


def conversation(
    record: Mapping[str, Any], shape: str, columns: Mapping[str, str], where: str
) -> Conversation:
    """The conversation in a record. `shape`: "auto" or one of the names above."""
    found = shape if shape != "auto" else shape_of(record, columns, where)
    record = renamed(record, columns)
    if record.get("label") is False:
        raise Refusal("rejected by its label")
    try:
        if found == "messages":
            messages = [message(item) for item in _list(record.get("messages", record.get("conversations")))]
        elif found == "sharegpt":
            messages = [shared(item) for item in _list(record.get("conversations", record.get("messages")))]
        else:
            messages = [*question(record), *said("assistant", _first(record, ANSWERS))]
        messages = with_system(record, messages)
        return Conversation(checked(messages), tools_of(record))
    except (KeyError, TypeError, AttributeError):
        raise Refusal("malformed") from None


def shape_of(record: Mapping[str, Any], columns: Mapping[str, str], where: str) -> str:
    """ "messages", "sharegpt" or "alpaca". InvalidRequestError names the fields there are."""
    names = renamed(record, columns)
    if any(key.startswith(("chosen", "rejected", "response_chosen")) for key in names):
        raise InvalidRequestError(
            f"{where} holds a chosen and a rejected answer, which is preference data.",
            hint='Prepare it with kind = "preference".',
            param="kind",
        )
    for key in ("messages", "conversations"):
        turns = names.get(key)
        if isinstance(turns, list):
            first = turns[0] if turns else {}
            return "sharegpt" if isinstance(first, Mapping) and "from" in first else "messages"
    if any(q in names for q in QUESTIONS) and any(a in names for a in ANSWERS):
        return "alpaca"
    raise unknown(record, where)


def unknown(record: Mapping[str, Any], where: str) -> InvalidRequestError:
    there = ", ".join(sorted(map(str, record)))[:200]
    return InvalidRequestError(
        f"{where} is no conversation of a known shape; its fields are {there}.",
        hint='Name them with columns: {"prompt": "its question", "response": "its answer"}.',
        param="columns",
    )


def renamed(record: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The record under our names."""
    theirs = {value: key for key, value in columns.items()}
    return {theirs.get(str(key), str(key)): value for key, value in record.items()}


def message(item: Mapping[str, Any]) -> Message:
    """One of OpenAI's messages; its content may come in parts, its calls with arguments as text."""
    role = SPEAKERS[str(item["role"])]
    made: Message = {"role": "assistant" if role == "function_call" else role, "content": ""}
    content = item.get("content")
    if isinstance(content, str):
        made["content"] = content
    elif isinstance(content, Sequence):
        _take_parts(made, content)
    elif content is not None:
        raise TypeError
    if role == "function_call":
        made["tool_calls"], made["content"] = calls(made["content"]), ""
    if isinstance(item.get("reasoning_content"), str):
        made["reasoning_content"] = item["reasoning_content"]
    if item.get("tool_calls"):
        made["tool_calls"] = calls(item["tool_calls"])
    if isinstance(item.get("tool_call_id"), str):
        made["tool_call_id"] = item["tool_call_id"]
    # OpenAI's weight, LLaMA-Factory's loss_weight, Axolotl's train.
    if item.get("weight", item.get("loss_weight", item.get("train", 1))) in (0, False):
        made["trained"] = False
    return made


def _take_parts(made: Message, parts: Sequence[Any]) -> None:
    texts, called = [], []
    for part in parts:
        kind = part.get("type")
        value = part.get("text", part.get("value", ""))
        if kind == "text":
            texts.append(value)
        elif kind == "reasoning":
            made["reasoning_content"] = made.get("reasoning_content", "") + value
        elif kind in ("tool_call", "function_call"):
            called += calls(value)
        elif kind == "tools":
            continue
        else:
            raise Refusal(f"a part of type {str(kind)[:20]!r}, which is no text")
    made["content"] = "".join(texts)
    if called:
        made["tool_calls"] = called


def shared(item: Mapping[str, Any]) -> Message:
    """One of ShareGPT's turns; "function_call" is the assistant's."""
    speaker = str(item["from"])
    if speaker not in SPEAKERS:
        raise Refusal(f"an unknown speaker, {speaker[:20]!r}")
    return message({**item, "role": speaker, "content": item["value"]})


def calls(value: Any) -> list[dict[str, Any]]:
    """Tool calls as templates read them, arguments as an object."""
    if isinstance(value, str):
        value = _parsed(value)
    listed = value if isinstance(value, list) else [value]
    made = []
    for call in listed:
        function = call.get("function", call)
        arguments = function.get("arguments", function.get("parameters", {}))
        if isinstance(arguments, str):
            arguments = _parsed(arguments) if arguments.strip() else {}
        one: dict[str, Any] = {"type": "function"}
        one["function"] = {"name": str(function["name"]), "arguments": arguments}
        made.append({"id": call["id"], **one} if isinstance(call.get("id"), str) else one)
    return made


def tools_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    value = record.get("tools") or []
    value = _parsed(value) if isinstance(value, str) else value
    listed = value if isinstance(value, list) else [value]
    if not all(isinstance(tool, dict) for tool in listed):
        raise Refusal("tools that are no objects")
    return [t if "function" in t else {"type": "function", "function": t} for t in listed]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Refusal("a tool or a call that is not JSON") from None


def question(record: Mapping[str, Any]) -> list[Message]:
    """Earlier turns and the question of a record with named fields."""
    messages: list[Message] = []
    for earlier in record.get("history") or []:
        asked, answered = earlier
        messages += [*said("user", asked), *said("assistant", answered)]
    asked = _first(record, QUESTIONS)
    more = record.get("input")
    if isinstance(asked, str) and isinstance(more, str) and more.strip():
        asked = f"{asked}\n{more}"
    return [*messages, *said("user", asked)]


def said(role: str, value: Any) -> list[Message]:
    """A text as one message, or messages as they are."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if isinstance(value, Mapping):
        value = [value]
    return [shared(item) if "from" in item else message(item) for item in value]


def with_system(record: Mapping[str, Any], messages: list[Message]) -> list[Message]:
    system = record.get("system")
    if isinstance(system, str) and system.strip() and (not messages or messages[0]["role"] != "system"):
        return [{"role": "system", "content": system}, *messages]
    return messages


def checked(messages: list[Message]) -> list[Message]:
    """The messages up to the assistant's last, each said by somebody."""
    while messages and messages[-1]["role"] != "assistant":
        messages = messages[:-1]
    if not messages:
        raise Refusal("no reply of the assistant")
    if not any(m["role"] == "user" for m in messages):
        raise Refusal("no question")
    for item in messages:
        if item["role"] == "assistant" and not (item["content"].strip() or item.get("tool_calls")):
            raise Refusal("an empty reply")
    return messages


def _first(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    for name in names:
        if record.get(name) is not None:
            return record[name]
    raise KeyError(names)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value
