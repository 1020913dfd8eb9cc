"""What is done to a block of conversations, apart from all other blocks: understood, rendered, encoded.

Writes one file a block: what was said, by which the whole finds copies, and the tokens beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from quinze.errors import InvalidRequestError
from quinze.training.data.cleaning import tidy
from quinze.training.data.conversations import Conversation, Refusal, conversation
from quinze.training.data.duplicates import SIZE, signature
from quinze.training.data.manifest import PrepareSettings
from quinze.training.data.preferences import pair
from quinze.training.data.rendering import Renderer, Sample
from quinze.training.data.text_tasks import Cleaned, Drops, Text, content_hash, example, write_whole

PLACEHOLDER = re.compile(r"\{\{\s*\w+\s*\}\}")


class Talk(msgspec.Struct, array_like=True):
    source: int
    where: str
    record: dict[str, Any] | str


class Rendered(Cleaned):
    """What the whole must know of a block."""

    lengths: list[list[int]]
    """Tokens of each sample of each conversation; of a preference the chosen one's, then the rejected's."""
    lost: int
    """Messages dropped from the front of conversations that were too long."""


def render_block(talks: list[Talk], settings: PrepareSettings, renderer: Renderer, path: Path) -> Rendered:
    """Render records and write what was said to `path`, tokens to .ids and .trained beside it."""
    drops = Drops()
    texts: list[Text] = []
    groups: list[int] = []
    equal: list[int] = []
    made: list[list[Sample]] = []
    lost = 0
    for talk in talks:
        try:
            first, samples, dropped, identity = _samples(talk, settings, renderer, drops)
        except Refusal as refusal:
            drops.add(str(refusal), talk.where, _shown(talk.record))
            continue
        lost += dropped
        texts.append(Text(talk.source, talk.where, first.text()))
        groups.append(content_hash(_asked(first)))
        equal.append(content_hash(identity))
        made.append(samples)
    write_whole(path, msgspec.msgpack.encode(texts))
    flat = [sample for samples in made for sample in samples]
    ids = np.concatenate([np.empty(0, np.uint32), *(sample.ids for sample in flat)])
    trained = np.concatenate([np.empty(0, np.uint8), *(sample.trained for sample in flat)])
    write_whole(path.with_suffix(".ids"), ids.tobytes())
    write_whole(path.with_suffix(".trained"), trained.tobytes())
    near = settings.near_duplicates != "off"
    signatures = [signature(text.text) for text in texts] if near else []
    return Rendered(
        [text.source for text in texts],
        [len(text.text) for text in texts],
        [example(text.where, text.text) for text in texts],
        np.array(equal, np.uint64).tobytes(),
        np.array(groups, np.uint64).tobytes(),
        np.array(signatures, np.uint32).reshape(-1, SIZE).tobytes(),
        b"",
        drops.found,
        [[len(sample.ids) for sample in samples] for samples in made],
        lost,
    )


def _samples(
    talk: Talk, settings: PrepareSettings, renderer: Renderer, drops: Drops
) -> tuple[Conversation, list[Sample], int, str]:
    """The (chosen) conversation, its samples, messages dropped, and what makes it equal to another."""
    if isinstance(talk.record, str):
        raise InvalidRequestError(
            f"{talk.where} is plain text, in which nobody asks and nobody answers.",
            hint='Prepare it with kind = "text", or give records with messages.',
            param="kind",
        )
    if settings.kind == "chat":
        one = _tidied(conversation(talk.record, settings.format, settings.columns, talk.where), settings)
        _warn(one, talk.where, drops)
        samples, dropped = renderer.samples(one)
        return one, samples, dropped, _written(one)
    both = pair(talk.record, settings.columns, talk.where)
    chosen, rejected = _tidied(both.chosen, settings), _tidied(both.rejected, settings)
    _warn(chosen, talk.where, drops)
    samples, dropped = renderer.pair(chosen, rejected, both.prompt)
    return chosen, samples, dropped, _written(chosen) + _written(rejected)


def _tidied(talk: Conversation, settings: PrepareSettings) -> Conversation:
    messages = []
    for message in talk.messages:
        changed = dict(message)
        for key in ("content", "reasoning_content"):
            text = message.get(key)
            if not isinstance(text, str):
                continue
            for old, new in settings.replace.items():
                text = text.replace(old, new)
            text = tidy(text) if settings.clean else text
            if text is None:
                raise Refusal("mojibake")
            changed[key] = text
        messages.append(changed)
    return Conversation(messages, talk.tools)


def _warn(talk: Conversation, where: str, drops: Drops) -> None:
    for message in talk.messages:
        if message["role"] == "assistant" and (found := PLACEHOLDER.search(message["content"])):
            drops.add(f"placeholder {found.group()} (kept)", where, message["content"])
            return


def _asked(talk: Conversation) -> str:
    """What decides the split: whoever asks the same is on the same side."""
    return str(next(m["content"] for m in talk.messages if m["role"] == "user"))


def _written(talk: Conversation) -> str:
    return msgspec.json.encode([talk.messages, talk.tools]).decode()


def _shown(record: Mapping[str, Any] | str) -> str:
    return record if isinstance(record, str) else msgspec.json.encode(record, enc_hook=str).decode()
