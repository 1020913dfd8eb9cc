"""Tools: functions that a model may ask to have called, and finding its calls in what it writes.

Given the deltas of a reply; returns deltas in which calls stand apart from the text. They are found as Hermes
and Qwen write them, <tool_call>{"name": ..., "arguments": {...}}</tool_call>; where a call is required the
reply is bound to that JSON by a grammar. What only looks like a call stays text. Runs nothing.
"""

from __future__ import annotations

import dataclasses
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from quinze.engine.constraints import Grammar, check_depth
from quinze.errors import InvalidRequestError
from quinze.llm.messages import Delta, Message, ToolCall

MAX_TOOLS = 128
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
OPEN, CLOSE = "<tool_call>", "</tool_call>"


def checked(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """InvalidRequestError, with the place, for what is no function with a name."""
    if len(tools) > MAX_TOOLS:
        raise InvalidRequestError(f"tools holds {len(tools)}; {MAX_TOOLS} are the most.", param="tools")
    for i, tool in enumerate(tools):
        function = tool.get("function")
        name = function.get("name") if isinstance(function, Mapping) else None
        if tool.get("type") != "function" or not isinstance(name, str) or not NAME.fullmatch(name):
            raise InvalidRequestError(
                f"tools[{i}] is no function with a name of up to 64 letters, digits, _, . and -.",
                param=f"tools[{i}]",
            )
    return [dict(tool) for tool in tools]


def required_call(tools: Sequence[Mapping[str, Any]], name: str | None) -> Grammar:
    """The reply is a call: of the tool of this name, or of any."""
    functions = [tool["function"] for tool in tools if name is None or tool["function"]["name"] == name]
    if not functions:
        what = "There are no tools" if name is None else f"There is no tool {name!r:.70}"
        raise InvalidRequestError(f"{what} that could be called.", param="tool_choice")
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": function["name"]},
                "arguments": _moved(
                    function.get("parameters") or {"type": "object"},
                    f"#/anyOf/{i}/properties/arguments",
                ),
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for i, function in enumerate(functions)
    ]
    return Grammar.json_schema({"anyOf": calls}, param="tools")


def _moved(schema: Any, place: str) -> Any:
    """A schema that now stands at `place` inside another: its references to itself are led there."""
    check_depth(schema, "tools")

    def move(value: Any) -> Any:
        if isinstance(value, list):
            return [move(one) for one in value]
        if not isinstance(value, Mapping):
            return value
        return {key: lead(one) if key == "$ref" else move(one) for key, one in value.items()}

    def lead(target: Any) -> Any:
        own = isinstance(target, str) and target.startswith("#")
        return place + target[1:] if own else move(target)

    return move(schema)


def turn_of(message: Message, *, knows_calls: bool) -> dict[str, Any]:
    """A message as a template reads it; one that knows no calls gets them as text."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_call_id:
        turn["tool_call_id"] = message.tool_call_id
    if not message.tool_calls:
        return turn
    if knows_calls:
        calls = [{"name": call.name, "arguments": _object(call.arguments)} for call in message.tool_calls]
        ids = [call.id for call in message.tool_calls]
        turn["tool_calls"] = [
            {"id": id_, "type": "function", "function": call} for id_, call in zip(ids, calls, strict=True)
        ]
    else:
        written = [json.dumps(dataclasses.asdict(call), ensure_ascii=False) for call in message.tool_calls]
        turn["content"] = "\n".join([*([message.content] if message.content else []), *written])
    return turn


def calls_apart(deltas: Iterator[Delta], *, required: bool) -> Iterator[Delta]:
    """The same reply, its calls out of its text. `required`: all of it is one call."""
    found = _Calls(required=required)
    try:
        for delta in deltas:
            text, calls = found.push(delta.text)
            reason = delta.finish_reason
            if reason is not None:
                rest, more = found.flush(whole=reason == "stop")
                text, calls = text + rest, calls + more
                if reason == "stop" and found.any:
                    reason = "tool_calls"
                    # The blanks that a model puts around its calls are nobody's text.
                    text = text if text.strip() else ""
            if text or calls or delta.logprobs or reason is not None:
                yield dataclasses.replace(delta, text=text, tool_calls=tuple(calls), finish_reason=reason)
    finally:
        close = getattr(deltas, "close", None)
        if close is not None:
            close()


class _Calls:
    def __init__(self, *, required: bool) -> None:
        self._required = required
        self._held = ""
        self._inside = False
        self.any = False

    def push(self, text: str) -> tuple[str, list[ToolCall]]:
        """Text that may be shown, and calls that are complete."""
        self._held += text
        shown, calls = "", []
        while not self._required:
            mark = CLOSE if self._inside else OPEN
            at = self._held.find(mark)
            if at < 0:
                break
            part, self._held = self._held[:at], self._held[at + len(mark) :]
            if not self._inside:
                shown += part
            elif (call := _call(part)) is not None:
                calls.append(call)
            else:
                shown += OPEN + part + CLOSE
            self._inside = not self._inside
        if not self._inside and not self._required:
            keep = next((n for n in range(len(OPEN) - 1, 0, -1) if self._held.endswith(OPEN[:n])), 0)
            cut = len(self._held) - keep
            shown, self._held = shown + self._held[:cut], self._held[cut:]
        self.any = self.any or bool(calls)
        return (shown if shown.strip() or not self.any else ""), calls

    def flush(self, *, whole: bool) -> tuple[str, list[ToolCall]]:
        """What is left at the end; a call without its last mark counts if the reply was not cut."""
        held, self._held = self._held, ""
        call = _call(held) if whole and (self._inside or self._required) else None
        if call is not None:
            self.any = True
            return "", [call]
        return (OPEN if self._inside else "") + held, []


def _call(text: str) -> ToolCall | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        return None
    arguments = found.get("arguments", {})
    written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return ToolCall(f"call_{secrets.token_hex(12)}", found["name"], written)


def _object(arguments: str) -> Any:
    """As an object, which most templates expect; as it was where it is none."""
    try:
        found = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return found if isinstance(found, dict) else arguments
