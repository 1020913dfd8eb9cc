"""A conversation as the tokens that serving would read and the model would say, each learned or only read.

The model's own chat template renders it, in the same child process and with the same protection as when the
model is served. A turn is learned from the first token after the template's generation prompt to the token
that ends it: exactly what the engine would have sampled. Where a template writes a turn otherwise once others
follow it (Qwen3 drops earlier thoughts), that turn becomes a sample of its own, as it looks when it is said.

Tokens never run over the border between what is read and what is said, as they do not in serving.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quinze.errors import ChatTemplateError, InvalidRequestError, UnsupportedModelError
from quinze.tokenizer.chat_template import ChatTemplate
from quinze.tokenizer.tokenizer import Tokenizer
from quinze.training.data.conversations import Conversation, Message, Refusal
from quinze.training.data.manifest import PrepareSettings

Segments = list[tuple[str, bool]]


@dataclass(frozen=True, slots=True)
class Sample:
    ids: npt.NDArray[np.uint32]
    """(L,)."""
    trained: npt.NDArray[np.uint8]
    """(L,) 1 where the token is learned."""


@dataclass(frozen=True, slots=True)
class _Said:
    """One turn of the assistant: what stands before it, and it."""

    start: int
    end: int
    """Characters of `whole` between which it lies, the token that ends it included."""
    whole: Segments
    """The conversation up to it."""
    trained: bool


class Renderer:
    """Renders for one tokenizer. `close` ends the template's process."""

    def __init__(self, tokenizer: Tokenizer, settings: PrepareSettings) -> None:
        template = ChatTemplate.of(tokenizer)
        if template is None:
            raise UnsupportedModelError(
                "The tokenizer has no chat template, so conversations cannot be rendered.",
                hint="Train a tokenizer with one, or put chat_template.jinja beside it.",
            )
        if not tokenizer.stop_ids:
            raise UnsupportedModelError(
                "The tokenizer names no token that ends a reply: a model tuned with it would never stop.",
                hint="Name its eos_token in tokenizer_config.json.",
            )
        self._tokenizer, self._template, self._settings = tokenizer, template, settings
        self._stops = sorted((tokenizer.token(id_) for id_ in tokenizer.stop_ids), key=len, reverse=True)
        self._knows_calls = "tool_calls" in template.source

    def close(self) -> None:
        self._template.close()

    def samples(self, talk: Conversation) -> tuple[list[Sample], int]:
        """The samples of a conversation, and how many of its messages were dropped from its front so that
        each fits into a row. Refusal where nothing can be learned, or it cannot be made to fit.
        """
        starts = _exchanges(talk.messages)
        return self._fitting(starts, lambda first: self._rendered(talk, 0, first, starts[0]))

    def pair(self, chosen: Conversation, rejected: Conversation, prompt: int) -> tuple[list[Sample], int]:
        """The two samples of a preference; of either only what follows the common `prompt` messages is
        learned. What is dropped from the front is dropped from both.
        """
        starts = [at for at in _exchanges(chosen.messages) if at < prompt]

        def both(first: int) -> list[Sample]:
            made = [self._rendered(talk, prompt, first, starts[0]) for talk in (chosen, rejected)]
            if any(len(samples) > 1 for samples in made):
                raise Refusal("an answer of several turns that the template writes apart")
            return [sample for samples in made for sample in samples]

        return self._fitting(starts, both)

    def _fitting(self, starts: list[int], render: Callable[[int], list[Sample]]) -> tuple[list[Sample], int]:
        """With the fewest exchanges dropped: the fewer, the longer."""
        made = render(starts[0])
        if self._fits(made):
            return made, 0
        if self._settings.too_long == "refuse":
            raise Refusal("too long")
        best: tuple[list[Sample], int] | None = None
        low, high = 1, len(starts) - 1
        while low <= high:
            middle = (low + high) // 2
            made = render(starts[middle])
            if self._fits(made):
                best, high = (made, starts[middle] - starts[0]), middle - 1
            else:
                low = middle + 1
        if best is None:
            raise Refusal("too long")
        return best

    def _fits(self, samples: Sequence[Sample]) -> bool:
        return max(len(sample.ids) for sample in samples) <= self._settings.sequence_length + 1

    def _rendered(self, talk: Conversation, learned_from: int, first: int, head: int) -> list[Sample]:
        """Samples of the messages from `first` on, behind the system's words (those before `head`)."""
        messages = [*talk.messages[:head], *talk.messages[first:]]
        learned_from = max(0, learned_from - (first - head))
        said = self._said(messages, talk.tools, learned_from)
        final = said[-1]
        text = _text(final.whole)
        within: list[_Said] = []
        apart: list[_Said] = []
        for turn in said:
            reads = _text(turn.whole)[: turn.end]
            (within if text.startswith(reads) else apart).append(turn)
        # Where every token is learned, the whole as it ends says it all.
        every = self._settings.train_on == "all"
        groups = [[turn] for turn in apart if turn.trained and not every]
        if any(turn.trained for turn in within):
            groups.append(within)
        if not groups:
            raise Refusal("no turn that is learned")
        return [self._sample(group) for group in groups]

    def _said(self, messages: list[Message], tools: Sequence[Mapping[str, Any]], first: int) -> list[_Said]:
        turns = [self._turn(message) for message in messages]
        found = []
        for i, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            trained = message.get("trained", True) and i >= first
            if self._settings.train_on == "last":
                trained = trained and i == len(messages) - 1
            read = self._render(turns[:i], tools, True)
            whole = self._render(turns[: i + 1], tools, False)
            start = len(_text(read))
            if not _text(whole).startswith(_text(read)):
                raise Refusal("the template asks for a reply in another way than it writes one")
            found.append(_Said(start, self._end(whole, start), whole, trained))
        return found

    def _turn(self, message: Message) -> dict[str, Any]:
        turn = {key: value for key, value in message.items() if key != "trained"}
        if turn.get("tool_calls") and not self._knows_calls:
            raise Refusal("a tool call, which the chat template cannot write")
        return turn

    def _render(self, turns: list[dict[str, Any]], tools: Sequence[Mapping[str, Any]], ask: bool) -> Segments:
        more = dict(self._settings.template_variables)
        try:
            return self._template.render(turns, add_generation_prompt=ask, tools=list(tools), **more)
        except ChatTemplateError as error:
            raise Refusal(f"the template refuses it: {error.message[31:131]}") from None
        except InvalidRequestError as error:
            raise Refusal(error.message[:100]) from None

    def _end(self, whole: Segments, start: int) -> int:
        """Where the token that ends a turn ends: the first after `start` that the template wrote."""
        at = 0
        for text, trusted in whole:
            if trusted and at + len(text) > start:
                found = [
                    (place, -len(stop))
                    for stop in self._stops
                    if (place := text.find(stop, max(0, start - at))) >= 0
                ]
                if found:
                    place, length = min(found)
                    return at + place - length
            at += len(text)
        raise Refusal("the template writes no token that ends a reply")

    def _sample(self, turns: list[_Said]) -> Sample:
        """One row's worth: what is read and what is said by turns, up to the last word that is learned."""
        whole = turns[-1].whole
        pieces: list[Segments] = []
        trained: list[bool] = []
        at = 0
        for turn in turns:
            pieces += [_cut(whole, at, turn.start), _cut(whole, turn.start, turn.end)]
            everything = self._settings.train_on == "all"
            trained += [everything, everything or turn.trained]
            at = turn.end
        while not trained[-1]:
            trained.pop()
            pieces.pop()
        encoded = self._tokenizer.encode_pieces(pieces)
        flags = [flag for ids, flag in zip(encoded, trained, strict=True) for _ in ids]
        ids = [id_ for part in encoded for id_ in part]
        if ids[-1] not in self._tokenizer.stop_ids:
            raise Refusal("the last token learned is none that ends a reply")
        return Sample(np.array(ids, np.uint32), np.array(flags, np.uint8))


def _exchanges(messages: Sequence[Message]) -> list[int]:
    """Where each exchange begins: a question and all that follows it up to the next."""
    head = next((i for i, m in enumerate(messages) if m["role"] != "system"), len(messages))
    later = [i for i, m in enumerate(messages) if m["role"] == "user" and i > head]
    return [head, *later]


def _text(segments: Segments) -> str:
    return "".join(text for text, _ in segments)


def _cut(segments: Segments, start: int, end: int) -> Segments:
    cut: Segments = []
    at = 0
    for text, trusted in segments:
        part = text[max(0, start - at) : max(0, end - at)]
        if part:
            cut.append((part, trusted))
        at += len(text)
    return cut
