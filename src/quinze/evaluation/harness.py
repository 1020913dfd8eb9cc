"""A model of ours for lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness, MIT).

    from lm_eval import simple_evaluate
    simple_evaluate(HarnessModel(score, generate, tokenizer...), tasks=["hellaswag"])

The harness asks three things of a model, `loglikelihood`, `loglikelihood_rolling` and `generate_until`, each
with a list of requests whose `args` say what is wanted. It is not imported here: `harness_model` makes the
subclass of its `LM` that it insists on where it is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from quinze.errors import InvalidRequestError, MissingPackageError
from quinze.evaluation.choice import split
from quinze.evaluation.likelihood import Score, likelihood

Greedy = Callable[[Sequence[int], Sequence[int]], bool]
"""(context, continuation) -> whether each id of it is the likeliest one."""
Generate = Callable[[str, Sequence[str], int, float], str]
"""(prompt, stop strings, most tokens, temperature) -> text, without the stop string."""


class Request(Protocol):
    """What the harness calls an Instance."""

    @property
    def args(self) -> tuple[Any, ...]: ...


@dataclass
class HarnessModel:
    """The three questions, answered by callables.

    score      log-probabilities of a continuation (likelihood.py)
    greedy     whether the continuation is what the model would have written
    encode     text -> ids without begin token
    bos_id     what a text begins with where nothing precedes it
    window     ids that the model reads at most, continuation included
    """

    score: Score
    greedy: Greedy
    encode: Callable[[str], Sequence[int]]
    generate: Generate
    bos_id: int
    window: int
    default_max_tokens: int = 256

    def loglikelihood(self, requests: Iterable[Request]) -> list[tuple[float, bool]]:
        """args (context, continuation) -> (log-probability, whether greedy decoding gives it)."""
        return [self._one(*request.args) for request in requests]

    def _one(self, context: str, continuation: str) -> tuple[float, bool]:
        before, after = split(self.encode, context, continuation)
        # With nothing before it, or a tokenizer without begin token in its ids, the text begins with one.
        before = [self.bos_id, *before] if not before or before[0] != self.bos_id else before
        if not after:
            raise InvalidRequestError(f"Nothing is left to score of {continuation[:40]!r}.")
        before = before[-max(1, self.window - len(after)) :]
        return float(np.sum(self.score(before, after))), bool(self.greedy(before, after))

    def loglikelihood_rolling(self, requests: Iterable[Request]) -> list[float]:
        """args (text,) -> log-probability of the whole text, in windows that judge each id once."""
        found = []
        for request in requests:
            (text,) = request.args
            ids = list(self.encode(text))
            whole = likelihood(self.score, ids, text, self.window - 1, bos_id=self.bos_id)
            found.append(-whole.nats)
        return found

    def generate_until(self, requests: Iterable[Request]) -> list[str]:
        """args (prompt, {"until": ..., "max_gen_toks": ..., "temperature": ..., "do_sample": ...})."""
        return [self._text(*request.args) for request in requests]

    def _text(self, prompt: str, settings: Mapping[str, Any]) -> str:
        until = settings.get("until") or []
        stops = [until] if isinstance(until, str) else [str(stop) for stop in until]
        most = int(settings.get("max_gen_toks") or self.default_max_tokens)
        sample = bool(settings.get("do_sample", float(settings.get("temperature") or 0.0) > 0))
        temperature = float(settings.get("temperature") or 1.0) if sample else 0.0
        text = self.generate(prompt, stops, most, temperature)
        # Whoever generates may stop a token late; the harness must not see what follows a stop string.
        ends = [text.find(stop) for stop in stops if stop and stop in text]
        return text[: min(ends)] if ends else text


def harness_model(model: HarnessModel) -> Any:
    """The same as an `lm_eval.api.model.LM`. Raises MissingPackageError where lm_eval is not installed."""
    try:
        from lm_eval.api.model import LM
    except ImportError as error:
        raise MissingPackageError(
            "lm-evaluation-harness is not installed.", hint="pip install lm_eval"
        ) from error

    class QuinzeLM(LM):  # type: ignore[misc]
        def loglikelihood(self, requests: Any) -> Any:
            return model.loglikelihood(requests)

        def loglikelihood_rolling(self, requests: Any) -> Any:
            return model.loglikelihood_rolling(requests)

        def generate_until(self, requests: Any) -> Any:
            return model.generate_until(requests)

    return QuinzeLM()
