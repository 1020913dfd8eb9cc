"""Generation: one answer being written, as its reader sees it.

Given a sequence and the scheduler that computes it; yields ids. Knows nothing of other requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from quinze.engine.constraints import Constraint
from quinze.engine.sequence import FinishReason, Logprobs, Sequence

if TYPE_CHECKING:
    from quinze.engine.scheduler import Scheduler


class Generation(Iterator[int]):
    """Iterate it in one thread; close it, or set its `cancel`, from any."""

    def __init__(self, scheduler: Scheduler, sequence: Sequence, constraint: Constraint | None) -> None:
        self.prompt_tokens = sequence.prompt
        self.completion_tokens = 0
        self.finish_reason: FinishReason | None = None
        self.logprobs: Logprobs | None = None
        """Of the id yielded last, if they were asked for."""
        self._scheduler = scheduler
        self._sequence = sequence
        self._constraint = constraint
        self._begun = False

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that another generation had already computed."""
        return self._sequence.cached_tokens

    @property
    def prefill_seconds(self) -> float:
        """Of the steps that its prompt had a part in."""
        return self._sequence.prefill_seconds

    @property
    def decode_seconds(self) -> float:
        """Of the steps that its reply had a part in."""
        return self._sequence.decode_seconds

    @property
    def guessed_tokens(self) -> int:
        """Tokens that were guessed, and checked."""
        return self._sequence.guessed_tokens

    @property
    def accepted_tokens(self) -> int:
        """Of those, how many were right."""
        return self._sequence.accepted_tokens

    def __next__(self) -> int:
        sequence = self._sequence
        if self.finish_reason is not None or not self._begin():
            raise StopIteration
        token, self.logprobs, reason, error = sequence.out.get()
        if error is not None:
            self._finish("cancelled")
            raise error
        if sequence.closed:  # from another thread, while we waited
            reason, token = "cancelled", None
        if token is None:
            self._finish(reason or "stop")
            raise StopIteration
        self.completion_tokens += 1
        # What a constraint makes of the last token may turn "length" into "stop".
        if self._constraint is not None and not self._obeyed(self._constraint, token):
            reason = "stop"
        if reason is not None:
            self._finish(reason)
        else:
            self._sequence.taken += 1
            self._scheduler.wake()
        return token

    def close(self) -> None:
        """Stop, at the next layer if it is computing, and give the cache back. Twice does no harm."""
        if self.finish_reason is None:
            self._finish("cancelled")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "finish_reason", "length") is None:
            self._finish("cancelled")

    def _begin(self) -> bool:
        """Whether a next token may come."""
        sequence = self._sequence
        if sequence.cancelled:
            self._finish("cancelled")
            return False
        self._scheduler.check_open()
        if self._begun:
            return True
        if sequence.left <= 0:
            self._finish("length")
            return False
        if self._constraint is not None:
            sequence.mask = self._constraint.mask()
        self._begun = True
        self._scheduler.submit(sequence)
        return True

    def _obeyed(self, constraint: Constraint, token: int) -> bool:
        """What the token makes possible next; False if nothing."""
        try:
            constraint.accept(token)
            if constraint.done:
                return False
            # Here, in the reader's thread: a grammar that takes its time keeps nobody else waiting.
            self._sequence.mask = constraint.mask()
        except BaseException:
            self._finish("cancelled")
            raise
        return True

    def _finish(self, reason: FinishReason) -> None:
        self.finish_reason = reason
        if not self._sequence.ended:
            self._sequence.closed = True
            if self._begun:
                self._scheduler.wake()
