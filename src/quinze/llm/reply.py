"""Reply: from ids to what a reader sees. Whole characters, no stop strings, logprobs beside their text.

Given a generation and a decoder; yields deltas, of which the last carries the accounts. Knows no prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from quinze.engine.sequence import FinishReason as Ended
from quinze.engine.sequence import Logprobs
from quinze.llm.context import Ledger
from quinze.llm.messages import (
    Completion,
    Delta,
    FinishReason,
    Likely,
    Timings,
    TokenLogprobs,
    ToolCall,
    Usage,
)
from quinze.llm.stops import Stops
from quinze.tokenizer.tokenizer import Decoder


class Generated(Protocol):
    """What is needed of the engine's Generation."""

    prompt_tokens: int
    completion_tokens: int
    finish_reason: Ended | None
    logprobs: Logprobs | None

    @property
    def cached_tokens(self) -> int: ...
    @property
    def guessed_tokens(self) -> int: ...
    @property
    def accepted_tokens(self) -> int: ...
    @property
    def prefill_seconds(self) -> float: ...
    @property
    def decode_seconds(self) -> float: ...
    def __iter__(self) -> Iterator[int]: ...
    def close(self) -> None: ...


def reply(
    generation: Generated,
    decoder: Decoder,
    stops: Stops,
    ledger: Ledger,
    spell: Callable[[int], bytes],
) -> Iterator[Delta]:
    """Ids to deltas. `spell`: the bytes of an id. Closing cancels."""
    told = _Told(spell)
    try:
        for id_ in generation:
            text = stops.push(decoder.push(id_))
            told.push(generation.logprobs)
            if stops.hit:
                yield _last(generation, text, told.of(text), "stop", ledger, stops.hit)
                return
            if text:
                yield Delta(text, logprobs=told.of(text))
        text = stops.push(decoder.flush())
        if stops.hit:
            yield _last(generation, text, told.of(text), "stop", ledger, stops.hit)
            return
        ended = generation.finish_reason or "stop"
        yield _last(generation, text + stops.flush(), told.rest(), ended, ledger)
    finally:
        generation.close()


def whole(deltas: Iterator[Delta]) -> Completion:
    """All of a reply at once."""
    pieces: list[str] = []
    logprobs: list[TokenLogprobs] = []
    calls: list[ToolCall] = []
    reasoning: list[str] = []
    last = Delta()
    for last in deltas:
        pieces.append(last.text)
        reasoning.append(last.reasoning)
        logprobs += last.logprobs
        calls += last.tool_calls
    assert last.finish_reason is not None
    assert last.usage is not None
    assert last.timings is not None
    return Completion(
        "".join(pieces), last.finish_reason, last.usage, last.timings, last.context or {}, tuple(logprobs),
        last.stop, tuple(calls), "".join(reasoning),
    )  # fmt: skip


class _Told:
    """Logprobs that wait until the text of their token is shown; those of a stop string never are."""

    def __init__(self, spell: Callable[[int], bytes]) -> None:
        self._spell = spell
        self._waiting: list[tuple[int, TokenLogprobs]] = []  # with the byte at which each begins
        self._bytes = self._shown = 0

    def push(self, found: Logprobs | None) -> None:
        if found is None:
            return
        likely = tuple(self._likely(*one) for one in found.most_likely)
        told = TokenLogprobs(self._likely(found.id, found.logprob), likely)
        self._waiting.append((self._bytes, told))
        self._bytes += len(told.chosen.bytes)

    def of(self, text: str) -> tuple[TokenLogprobs, ...]:
        """Of the tokens that this newly shown text shows, or begins to show."""
        self._shown += len(text.encode())
        count = sum(begins < self._shown for begins, _ in self._waiting)
        found = tuple(told for _, told in self._waiting[:count])
        del self._waiting[:count]
        return found

    def rest(self) -> tuple[TokenLogprobs, ...]:
        return tuple(told for _, told in self._waiting)

    def _likely(self, id_: int, logprob: float) -> Likely:
        spelled = self._spell(id_)
        return Likely(id_, spelled.decode(errors="replace"), logprob, spelled)


def _last(
    generation: Generated,
    text: str,
    logprobs: tuple[TokenLogprobs, ...],
    reason: FinishReason,
    ledger: Ledger,
    stop: str | None = None,
) -> Delta:
    written = generation.completion_tokens
    return Delta(
        text,
        reason,
        Usage(
            generation.prompt_tokens,
            written,
            generation.cached_tokens,
            generation.accepted_tokens,
            generation.guessed_tokens - generation.accepted_tokens,
        ),
        Timings(generation.prefill_seconds, generation.decode_seconds),
        ledger.account(written),
        logprobs,
        stop,
    )
