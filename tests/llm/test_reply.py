"""Ids to deltas, with an engine that says what it is told to say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quinze.engine.sequence import Logprobs
from quinze.llm.context import open_ledger
from quinze.llm.reply import reply, whole
from quinze.llm.stops import Stops
from quinze.tokenizer.tokenizer import Decoder


def BYTE(id_: int) -> bytes:  # noqa: N802
    return bytes([id_])


LEDGER = open_ledger("it", 100, 10, {"prompt": 10}, None)


@dataclass
class Says:
    """A generation whose ids are bytes."""

    ids: Sequence[int]
    finish_reason: Any = None
    prompt_tokens: int = 10
    cached_tokens: int = 0
    guessed_tokens: int = 0
    accepted_tokens: int = 0
    completion_tokens: int = 0
    prefill_seconds: float = 0.5
    decode_seconds: float = 0.25
    logprobs: Logprobs | None = None
    closed: int = field(default=0)

    def __iter__(self) -> Iterator[int]:
        for id_ in self.ids:
            self.completion_tokens += 1
            yield id_
        self.finish_reason = "stop"

    def close(self) -> None:
        self.closed += 1


def said(text: bytes, stops: Sequence[str] = ()) -> tuple[list[str], Says]:
    generation = Says(text)
    decoder = Decoder(lambda id_: bytes([id_]), frozenset(), False)
    return [delta.text for delta in reply(generation, decoder, Stops(stops), LEDGER, BYTE)], generation


def test_only_whole_characters_are_shown() -> None:
    pieces, generation = said("你好 🦙!".encode())
    assert pieces == ["你", "好", " ", "🦙", "!", ""]
    assert generation.closed == 1


def test_half_a_character_at_the_end_is_marked() -> None:
    assert "".join(said("好".encode()[:2])[0]) == "\ufffd"


def test_a_stop_string_split_over_tokens_never_leaks_and_nothing_waits_longer_than_it_must() -> None:
    pieces, generation = said(b"aSTOaSTOP never", ["STOP"])
    assert pieces == ["a", "STOa", ""]
    assert generation.completion_tokens == 9


def test_text_held_back_for_a_stop_that_never_came_is_shown() -> None:
    assert "".join(said(b"ends with STO", ["STOP"])[0]) == "ends with STO"


def test_of_two_stop_strings_the_earlier_one_ends_the_reply() -> None:
    assert "".join(said(b"one two", ["two", "e t"])[0]) == "on"


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
def test_however_text_is_cut_it_ends_before_the_first_stop_string(text: str, stops: list[str]) -> None:
    pieces, _ = said(text.encode(), stops)
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
    shown = "".join(pieces)
    assert not any(stop in shown for stop in stops)
    if not ends:
        assert shown == text
    else:
        # Letters come one by one: the stop string that is complete first ends the reply.
        first = min(ends)
        assert shown == text[: min(text.index(s) for s in stops if s in text[:first])]


def test_the_last_delta_carries_the_accounts() -> None:
    generation = Says(b"hey")
    done = whole(
        reply(generation, Decoder(lambda i: bytes([i]), frozenset(), False), Stops(()), LEDGER, BYTE)
    )
    assert (done.text, done.finish_reason) == ("hey", "stop")
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (10, 3)
    assert (done.timings.prefill_seconds, done.timings.decode_seconds) == (0.5, 0.25)
    assert done.context["used"] == 13


@dataclass
class SaysHowLikely(Says):
    def __iter__(self) -> Iterator[int]:
        for id_ in super().__iter__():
            self.logprobs = Logprobs(id_, -id_ / 256, [(id_, -id_ / 256), (65, -9.0)])
            yield id_


def told(text: bytes, stops: Sequence[str] = ()) -> list[Any]:
    decoder = Decoder(BYTE, frozenset(), False)
    return list(reply(SaysHowLikely(text), decoder, Stops(stops), LEDGER, BYTE))


def test_logprobs_come_with_the_text_that_they_belong_to_and_spell_it_in_bytes() -> None:
    deltas = told("a好!".encode())
    spelled = [b"".join(one.chosen.bytes for one in delta.logprobs) for delta in deltas]
    assert spelled == [b"a", "好".encode(), b"!", b""]
    first, *_, last = deltas[1].logprobs
    assert (first.chosen.token, first.chosen.logprob) == ("\ufffd", -first.chosen.bytes[0] / 256)
    assert [likely.token for likely in last.most_likely] == ["\ufffd", "A"]


def test_what_a_stop_string_hides_has_no_logprobs_and_what_was_held_back_has() -> None:
    shown = b"".join(one.chosen.bytes for delta in told(b"so STOP", ["STOP"]) for one in delta.logprobs)
    assert shown == b"so "
    ends = told(b"so STO", ["STOP"])
    assert b"".join(one.chosen.bytes for delta in ends for one in delta.logprobs) == b"so STO"


def test_the_stop_string_that_ended_the_reply_is_told() -> None:
    assert whole(iter(told(b"one two", ["two", "e t"]))).stop == "e t"
    assert whole(iter(told(b"one two", ["three"]))).stop is None


def test_an_error_in_the_engine_closes_the_generation() -> None:
    class Fails(Says):
        def __iter__(self) -> Iterator[int]:
            yield 65
            raise MemoryError("no room")

    generation = Fails(b"")
    with pytest.raises(MemoryError):
        list(reply(generation, Decoder(lambda i: bytes([i]), frozenset(), False), Stops(()), LEDGER, BYTE))
    assert generation.closed == 1
