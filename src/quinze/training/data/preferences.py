"""Records with a better and a worse answer, of the common shapes, as two conversations that begin alike.

{"prompt", "chosen", "rejected"}                 texts, or lists of messages               TRL, UltraFeedback
{"chosen", "rejected"}                           "\\n\\nHuman: ...\\n\\nAssistant: ..." texts   Anthropic's HH
                                                 or whole lists of messages
{"conversations", "chosen", "rejected"}          turns before, and one more of either      LLaMA-Factory
{"instruction", "input", "chosen", "rejected"}   or "output": [better, worse]
{"chosen_messages", "rejected_messages"}, {"question", "response_chosen", "response_rejected", "history"}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quinze.training.data.conversations import (
    QUESTIONS,
    Conversation,
    Message,
    Refusal,
    checked,
    message,
    question,
    renamed,
    said,
    shared,
    tools_of,
    unknown,
    with_system,
)

SPOKEN = re.compile(r"\n\n(Human|Assistant): ?")


@dataclass(frozen=True, slots=True)
class Pair:
    prompt: int
    """Messages that both begin with."""
    chosen: Conversation
    rejected: Conversation


def pair(record: Mapping[str, Any], columns: Mapping[str, str], where: str) -> Pair:
    """The two conversations of a record. InvalidRequestError where its shape is none of these."""
    record = renamed(record, columns)
    better, worse = _answers(record)
    if better is None or worse is None:
        raise unknown(record, where)
    try:
        before = _before(record)
        both = [_whole(before, answer) for answer in (better, worse)]
        first, second = (checked(with_system(record, messages)) for messages in both)
        tools = tools_of(record)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise Refusal("malformed") from None
    if first == second:
        raise Refusal("chosen and rejected are equal")
    common = 0
    while common < min(len(first), len(second)) and first[common] == second[common]:
        common += 1
    if not common:
        raise Refusal("chosen and rejected begin with different questions")
    if common == min(len(first), len(second)):
        raise Refusal("one answer goes on where the other ends")
    if first[common]["role"] != "assistant" or second[common]["role"] != "assistant":
        raise Refusal("chosen and rejected differ in a question")
    return Pair(common, Conversation(first, tools), Conversation(second, tools))


def _answers(record: Mapping[str, Any]) -> tuple[Any, Any]:
    for names in (
        ("chosen", "rejected"),
        ("chosen_messages", "rejected_messages"),
        ("response_chosen", "response_rejected"),
    ):
        if names[0] in record and names[1] in record:
            return record[names[0]], record[names[1]]
    output = record.get("output")
    if isinstance(output, list) and len(output) == 2:
        return output[0], output[1]
    return None, None


def _before(record: Mapping[str, Any]) -> list[Message]:
    for key in ("messages", "conversations"):
        if isinstance(record.get(key), list):
            return [shared(item) if "from" in item else message(item) for item in record[key]]
    if any(record.get(name) is not None for name in QUESTIONS):
        return question(record)
    return []


def _whole(before: list[Message], answer: Any) -> list[Message]:
    """An answer with what stands before it, unless it says that itself."""
    if isinstance(answer, str) and not before:
        return _spoken(answer)
    messages = said("assistant", answer)
    return messages if any(m["role"] == "user" for m in messages) else [*before, *messages]


def _spoken(text: str) -> list[Message]:
    parts = SPOKEN.split(text if text.startswith("\n\n") else f"\n\n{text}")
    if len(parts) < 3 or parts[0].strip():
        raise Refusal("an answer without a question")
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[who], "content": what.strip()}
        for who, what in zip(parts[1::2], parts[2::2], strict=True)
    ]
