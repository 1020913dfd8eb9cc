"""Scheduler: who computes what in each step. One thread for all requests of an engine, while there are any.

A step is one pass over the weights (csrc/step.h). All who write have a part in it, and what is left of its
tokens goes to prompts, a piece at a time and in turns: nobody waits for the whole of another's prompt. When
the memory for keys and values is used up, first kept prefixes go, then the youngest gives its pages back and
is computed again later, with the same tokens.

Given sequences; puts ids into their `out`. Knows nothing of text.
"""

from __future__ import annotations

import atexit
import collections
import sys
import threading
import time
import weakref
from collections.abc import Callable

import numpy as np

from quinze import native
from quinze.engine.pace import STEP_TOKENS, Pace
from quinze.engine.prefixes import Prefix, Prefixes
from quinze.engine.sequence import Logprobs, Sequence
from quinze.engine.speculation import LENGTHS
from quinze.errors import FileFormatError, InvalidRequestError, TooLargeError

MOST_RUNNING = 64
WORTH_WAITING = 128
"""Tokens for which a prompt waits if another, which begins like it, is just being computed."""
_LOOK_AGAIN = 0.02
MOST_GUESSING = 2
"""When more than so many write, a step is full of work as it is, and nothing is guessed."""

_LIVE: weakref.WeakSet[Scheduler] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """A thread that is within C++ when the interpreter goes would take the process down with it."""
    for scheduler in list(_LIVE):
        scheduler.close()


class Scheduler:
    """Safe to use from many threads."""

    def __init__(
        self,
        decoder: native.Decoder,
        *,
        name: str,
        kv_type: str,
        kv_bytes: int | None,
        prefix_bytes: int,
    ) -> None:
        """kv_bytes: for the pages of all sequences; None: as much as there is. prefix_bytes: of those, for
        sequences that ended."""
        self._decoder, self._name, self._kv_type, self._kv_bytes = decoder, name, kv_type, kv_bytes
        self._prefixes = Prefixes(prefix_bytes)
        self._changed = threading.Condition()
        self._coming: collections.deque[Sequence] = collections.deque()
        self._waiting: collections.deque[Sequence] = collections.deque()
        self._running: list[Sequence] = []
        """In the order in which they came."""
        self._turn: collections.deque[Sequence] = collections.deque()
        """Those that have a prompt to compute; the first is next."""
        self._thread: threading.Thread | None = None
        self._sleeping = False
        self._closed = False
        self._came = 0
        self._pace = Pace()

    # --- for readers

    def check_fits(self, tokens: int) -> None:
        """TooLargeError for a context that could never be held."""
        if self._kv_bytes is not None and self._decoder.cache(self._kv_type).missing(tokens) > self._kv_bytes:
            raise _too_large(self._kv_bytes, tokens)

    def submit(self, sequence: Sequence) -> None:
        """Its ids come, from now on, as they are asked for."""
        with self._changed:
            self.check_open()
            self._came += 1
            sequence.order = self._came
            self._coming.append(sequence)
            if self._thread is None:
                _LIVE.add(self)
                self._thread = threading.Thread(target=self._run, name="quinze-engine", daemon=True)
                self._thread.start()
                # A program that ends lets it finish its step: native code must not be cut off.
                atexit.register(self.close)
            self._changed.notify_all()

    def wake(self) -> None:
        """Something that a sequence waited for has changed."""
        if self._sleeping:
            with self._changed:
                self._changed.notify_all()

    def check_open(self) -> None:
        if self._closed:
            raise _closed()

    def close(self) -> None:
        """Whoever waits for a token gets InvalidRequestError. Returns when nothing computes any more."""
        with self._changed:
            self._closed = True
            thread = self._thread
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._prefixes.clear()

    # --- the thread

    def _run(self) -> None:
        try:
            while self._has_work():
                if not self._step():
                    self._wait_a_moment()
        finally:
            # On an error of our own everybody is told it, instead of waiting for ever.
            self._dismiss(sys.exception() or _closed())

    def _has_work(self) -> bool:
        """Waits until something can be computed; False when there is nobody left."""
        while True:
            self._settle()
            with self._changed:
                if self._closed or not (self._running or self._waiting or self._coming):
                    # Here, under the lock: who comes later finds no thread, and starts one.
                    self._thread = None
                    atexit.unregister(self.close)
                    return False
                if self._coming:
                    continue
                self._sleeping = True
                due = any(s.cancelled or self._in_prompt(s) or s.is_due for s in self._running)
                if not due:
                    self._changed.wait()
                self._sleeping = False
                if due:
                    return True

    def _wait_a_moment(self) -> None:
        """Somebody waits for memory that others hold, who wait for their readers."""
        with self._changed:
            self._sleeping = True
            self._changed.wait(_LOOK_AGAIN)
            self._sleeping = False

    def _dismiss(self, error: BaseException) -> None:
        with self._changed:
            if self._thread is not None and self._thread is not threading.current_thread():
                return  # another has taken over
            self._thread = None
            left = [*self._running, *self._waiting, *self._coming]
            self._running, self._waiting = [], collections.deque()
            self._coming.clear()
            self._turn.clear()
        for sequence in left:
            sequence.cache = None
            if not sequence.ended:
                sequence.fail(error)

    def _settle(self) -> None:
        """Whoever came joins; whoever ended, or gave up, leaves."""
        while self._coming:
            self._waiting.append(self._coming.popleft())
        for sequence in [s for s in self._waiting if s.cancelled]:
            self._waiting.remove(sequence)
            sequence.end("cancelled")
        for sequence in self._running:
            if not sequence.ended and sequence.cancelled:
                sequence.end("cancelled")
        for sequence in [s for s in self._running if s.ended]:
            self._retire(sequence)
        while self._waiting and len(self._running) < MOST_RUNNING:
            sequence = self._waiting.popleft()
            self._running.append(sequence)
            self._turn.append(sequence)
            self._running.sort(key=lambda s: s.order)  # one that was sent away is older than its place

    def _retire(self, sequence: Sequence) -> None:
        self._running.remove(sequence)
        if sequence in self._turn:
            self._turn.remove(sequence)
        cache, sequence.cache = sequence.cache, None
        if cache is not None:
            self._prefixes.put(Prefix(sequence.ids[: cache.length], cache, sequence.singly, sequence.adapter))

    @staticmethod
    def _in_prompt(sequence: Sequence) -> bool:
        """Whether more than its last id is to be computed: its prompt, or once more its reply."""
        return sequence.written == 0 or sequence.missing > 1

    # --- a step

    def _step(self) -> bool:
        """False if there was nothing that could be computed."""
        parts = self._plan()
        if not parts:
            return any(sequence.ended for sequence in self._running)
        sequences = list(parts)
        began = time.perf_counter()
        try:
            found = self._decoder.step(list(parts.values()), self._interrupted(sequences))
        except MemoryError:
            self._make_room_or_fail(sequences)
            return True
        took = time.perf_counter() - began
        if found is None:
            return True
        self._pace.measured(
            took,
            prompt=sum(len(part[1]) for part in parts.values() if part[2]),
            written=[len(part[1]) for part in parts.values() if not part[2]],
        )
        for sequence, chosen in zip(sequences, found, strict=True):
            if sequence.written == 0:
                sequence.prefill_seconds += took
            else:
                sequence.decode_seconds += took
            self._take(sequence, parts[sequence], chosen)
        return True

    def _interrupted(self, sequences: list[Sequence]) -> Callable[[], bool]:
        """Asked between layers: a step of which nobody wants the result is given up."""
        return lambda: self._closed or all(sequence.cancelled for sequence in sequences)

    def _plan(self) -> dict[Sequence, native.Piece]:
        """The parts of the next step; there is room for each."""
        parts: dict[Sequence, native.Piece] = {}
        writing = [s for s in self._running if not self._in_prompt(s) and s.is_due]
        for sequence in writing:
            guesses = self._guesses(sequence) if len(writing) <= MOST_GUESSING else []
            ids = np.asarray([sequence.ids[-1], *guesses], np.int32)
            if self._room(sequence, len(ids), parts):
                assert sequence.cache is not None
                mask = sequence.mask if sequence.constrained else None
                chooser, adapter = sequence.sampler, sequence.adapter
                parts[sequence] = (sequence.cache, ids, False, len(guesses), chooser, mask, adapter)
        rows = sum(len(part[1]) for part in parts.values())
        budget = min(STEP_TOKENS - rows, self._pace.piece_tokens() if parts else STEP_TOKENS)
        for sequence in list(self._turn):
            if budget <= 0:
                break
            if sequence not in self._turn or not self._begin(sequence):
                continue
            piece = self._piece_of(sequence, budget)
            if not self._room(sequence, len(piece[1]), parts):
                continue
            assert sequence.cache is not None
            parts[sequence] = (sequence.cache, *piece[1:])
            budget -= len(piece[1])
            self._turn.remove(sequence)
            self._turn.append(sequence)
        return parts

    def _piece_of(self, sequence: Sequence, budget: int) -> native.Piece:
        """The next ids of a prompt, or, where it must be computed once more, of the reply behind it."""
        assert sequence.cache is not None
        done, again = sequence.computed, sequence.written > 0
        end, singly = sequence.next_stretch(min(done + budget, len(sequence.ids) - again))
        chooses = not again and end == sequence.prompt
        mask = sequence.mask if sequence.constrained and chooses else None
        ids = np.asarray(sequence.ids[done:end], np.int32)
        chooser = sequence.sampler if chooses else None
        return (sequence.cache, ids, not singly, 0, chooser, mask, sequence.adapter)

    def _guesses(self, sequence: Sequence) -> list[int]:
        if sequence.lookup is None or sequence.cache is None or sequence.left <= 1:
            return []
        guesses = sequence.lookup.guess(self._pace, min(sequence.left - 1, LENGTHS[-1]))
        # No page is taken, from others perhaps, for what may turn out wrong.
        extra = sequence.cache.missing(1 + len(guesses)) > sequence.cache.missing(1)
        return [] if extra else guesses

    def _begin(self, sequence: Sequence) -> bool:
        """Whether it may compute. At first it takes over what another has computed, or waits for that."""
        if sequence.started:
            return True
        # One id at least must pass through the model: its logits begin the answer.
        most = sequence.prompt - 1
        best, shared = self._prefixes.find(sequence, most)
        for other in self._running:
            if other is sequence or not other.started or other.cache is None:
                continue
            prefix = Prefix(other.ids, other.cache, other.singly, other.adapter)
            common, now = prefix.common(sequence, most), prefix.common(sequence, min(most, other.computed))
            if now > shared:
                best, shared = prefix, now
            if self._in_prompt(other) and common - shared >= WORTH_WAITING:
                return False
        sequence.started = True
        sequence.cache = (
            self._decoder.cache(self._kv_type) if best is None else self._decoder.share(best.cache, shared)
        )
        if not sequence.written:
            sequence.cached_tokens = shared
            if best is not None:
                sequence.begins_like(best.singly, shared)
        return True

    def _take(self, sequence: Sequence, part: native.Piece, chosen: native.Chosen) -> None:
        """What came out of a step, to whom it belongs."""
        ids, logprobs, error = chosen
        if error is not None:
            sequence.fail(_unusable(self._name, error))
            return
        if part[4] is None:
            if not self._in_prompt(sequence):
                self._turn.remove(sequence)
            return
        if sequence in self._turn:
            self._turn.remove(sequence)
        sequence.guessed_tokens += part[3]
        sequence.accepted_tokens += len(ids) - 1 if part[3] else 0
        if sequence.lookup is not None:
            sequence.lookup.extend(ids)
        for token, logprob in zip(ids, logprobs, strict=True):
            if token in sequence.stop_ids:
                sequence.end("stop")
                break
            sequence.ids.append(token)
            sequence.left -= 1
            told = Logprobs(token, *logprob) if sequence.wants_logprobs else None
            if sequence.left == 0:
                sequence.end("length", token, told)
                break
            sequence.give(token, told)
        if sequence.ended and sequence.cache is not None:
            # Right guesses behind the end, and the last token, which nobody goes on from.
            self._decoder.truncate(sequence.cache, min(sequence.cache.length, len(sequence.ids)))

    # --- memory

    def _room(self, sequence: Sequence, count: int, parts: dict[Sequence, native.Piece]) -> bool:
        """Whether there are, or can be made, pages for `count` more ids. Whoever is younger makes room."""
        if self._kv_bytes is None or sequence.cache is None:
            return sequence.cache is not None
        while True:
            planned = sum(part[0].missing(len(part[1])) for part in parts.values())
            if self._decoder.cache_bytes + planned + sequence.cache.missing(count) <= self._kv_bytes:
                return True
            if self._prefixes.drop_one():
                continue
            others = [s for s in self._running if s is not sequence and (s.computed or s in parts)]
            if not others:
                sequence.fail(_too_large(self._kv_bytes, len(sequence.ids)))
                return False
            if others[-1].order < sequence.order or others[-1].ended:
                return False  # it waits until they end
            parts.pop(others[-1], None)
            self._preempt(others[-1])

    def _preempt(self, sequence: Sequence) -> None:
        """It gives its pages back and waits, before all others, for its turn to be computed again."""
        sequence.cache = None
        sequence.started = False
        self._running.remove(sequence)
        if sequence in self._turn:
            self._turn.remove(sequence)
        self._waiting.appendleft(sequence)

    def _make_room_or_fail(self, sequences: list[Sequence]) -> None:
        """The system itself has no memory left."""
        holders = [s for s in self._running if s.computed]
        if self._prefixes.drop_one():
            self._prefixes.clear()
        elif len(holders) > 1:
            self._preempt(holders[-1])
        else:
            for sequence in sequences:
                sequence.fail(_too_large(None, len(sequence.ids)))


def _closed() -> InvalidRequestError:
    return InvalidRequestError("This model has been closed.", hint="Load it again.")


def _unusable(name: str, why: str) -> FileFormatError:
    return FileFormatError(
        f"{name} computed no usable probabilities: {why}",
        hint="Its file is damaged, or was converted wrongly; get it again.",
    )


def _too_large(limit: int | None, tokens: int) -> TooLargeError:
    room = "There is no memory left" if limit is None else f"{limit / 2**20:,.1f} MiB are too little"
    return TooLargeError(
        f"{room} for {tokens:,} tokens of context.",
        hint="Shorten the prompt, keep keys and values in q8_0 (kv_cache_type), allow more memory for them "
        "(kv_cache_bytes), or close other programs.",
    )
