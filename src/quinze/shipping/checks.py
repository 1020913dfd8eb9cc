"""The checks of a certificate, one after the other: a candidate beside the answers of a reference.

Nothing here is called equal that is not: greedy texts are read back by the reference token by token, and only
where two tokens are a tie to it may the candidate choose the other. T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from quinze.errors import QuinzeError
from quinze.formats.quants import Floats
from quinze.shipping.probes import Probes
from quinze.shipping.verdicts import EXACT, TIE, Bounds, Check, Outcome
from quinze.shipping.views import View, log_softmax
from quinze.tokenizer.tokenizer import Tokenizer

Progress = Callable[[str, int, int], None]
Logs = npt.NDArray[np.float64]
"""Log-probabilities (T, V), or something of each token (T,)."""
LONGEST = 256
"""Tokens of a probe text that are read."""


class Asked:
    """The reference's answers, computed once."""

    def __init__(self, view: View, probes: Probes, base: View | None) -> None:
        self.view, self.probes = view, probes
        longest = min(LONGEST, view.context_length)
        self.texts = [ids for text in probes.texts if len(ids := view.tokenizer.encode(text)[:longest]) > 1]
        self.logs = [log_softmax(view.logits(ids)) for ids in self.texts]
        self.prompts = _fitting(view, probes)
        self.vocab_size = self.logs[0].shape[1] if self.logs else view.tokenizer.vocab_size
        self.from_base: float | None = None
        if base is not None:
            found = [_divergence(log, log_softmax(base.logits(ids))) for log, ids in self.pairs()]
            self.from_base = _mean(found)

    def pairs(self) -> list[tuple[Logs, list[int]]]:
        return list(zip(self.logs, self.texts, strict=True))

    @property
    def tokens(self) -> int:
        return sum(len(ids) - 1 for ids in self.texts)


def _fitting(view: View, probes: Probes) -> list[list[int]]:
    """The prompts that leave room for their continuation."""
    most = view.context_length - probes.new_tokens
    return [ids for text in probes.continued if 0 < len(ids := prompt_ids(view, text)) <= most]


def prompt_ids(view: View, text: str) -> list[int]:
    """As a request would have it: through the template where the model has one."""
    segments = view.rendered([{"role": "user", "content": text}])
    return view.tokenizer.encode(text) if segments is None else view.tokenizer.encode_segments(segments)


def checks(told: Asked, view: View, bounds: Bounds | None, progress: Progress | None) -> list[Check]:
    found = [_template(told, view), _ends(told.view.tokenizer, view.tokenizer), _ids(told, view)]
    return [*found, *_continued(told, view, bounds, progress), *_probabilities(told, view, bounds)]


def _template(told: Asked, view: View) -> Check:
    def words(which: View, talk: Sequence[dict[str, str]]) -> str | None:
        try:
            segments = which.rendered(talk)
        except QuinzeError as error:  # a template may refuse a conversation: then both must
            return f"refused: {type(error).__name__}"
        return None if segments is None else "".join(text for text, _ in segments)

    for number, talk in enumerate(told.probes.conversations, 1):
        a, b = words(told.view, talk), words(view, talk)
        if a != b:
            what = "has no chat template" if b is None else f"renders {_first_difference(a or '', b)}"
            return Check("template", "different", f"its chat template {what} (conversation {number})")
    return Check("template", "equal", f"{len(told.probes.conversations)} conversations are rendered alike")


def _first_difference(a: str, b: str) -> str:
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    start = max(0, at - 12)
    return f"{b[start : at + 24]!r} where the trained one has {a[start : at + 24]!r}"


def _ends(mine: Tokenizer, its: Tokenizer) -> Check:
    def named(t: Tokenizer) -> str:
        return ", ".join(f"{i} {t.token(i)!r}" for i in sorted(t.stop_ids)) or "none"

    if mine.stop_ids != its.stop_ids:
        return Check("ends", "different", f"it stops at {named(its)}, the trained model at {named(mine)}")
    if (mine.bos_id if mine.add_bos else None) != (its.bos_id if its.add_bos else None):
        return Check("ends", "different", "the first token of a text (BOS) is put there by only one of them")
    return Check("ends", "equal", f"both stop at {named(mine)}")


def _ids(told: Asked, view: View) -> Check:
    mine, its = told.view.tokenizer, view.tokenizer
    texts = told.probes.encoded
    other = [text for text in texts if mine.encode(text) != its.encode(text)]
    if other:
        return Check(
            "token ids", "different",
            f"its tokenizer splits {len(other)} of {len(texts)} texts otherwise, the first {other[0][:40]!r}",
        )  # fmt: skip
    return Check("token ids", "equal", f"{len(texts)} texts get the same ids")


def _continued(
    told: Asked, view: View, bounds: Bounds | None, progress: Progress | None
) -> tuple[Check, Check]:
    """What the candidate says greedily is read by the reference: would it have said the same?

    One pass of the reference over prompt and continuation decides every token of it.
    """
    first = same = ties = 0
    worst = 0.0
    prompts = _fitting(view, told.probes)
    ends = told.view.tokenizer.stop_ids
    for number, ids in enumerate(prompts):
        if progress is not None:
            progress(view.name, number, len(prompts))
        said = view.greedy(ids, told.probes.new_tokens)
        if max([*ids, *said]) >= told.vocab_size:
            continue  # a token that the trained model does not have
        logits = told.view.logits([*ids, *said])[len(ids) - 1 :]
        gap, at = _first_gap(logits, said, ends, told.probes.new_tokens)
        first += at != 0
        same += at is None
        if at is not None:
            tied = gap < TIE
            ties += tied
            first += tied and at == 0
            worst = max(worst, gap)
    n = len(prompts)
    if n == 0:
        none = "no prompt fits its context"
        return Check("first tokens", "different", none), Check("greedy", "different", none)
    numbers = {"first": first / n, "same": same / n, "ties": float(ties), "prompts": float(n), "gap": worst}
    near = bounds is not None and first / n >= bounds.first_tokens
    outcome: Outcome = "equal" if first == n else _within(bounds, near)
    one = Check("first tokens", outcome, f"{first} of {n} first tokens are the same", numbers)
    # Under bounds the first tokens decide: one other word early on makes all that follows another text.
    outcome = "equal" if same + ties == n else _within(bounds, one.outcome != "different")
    at_ties = f"; {ties} part at a tie of less than {TIE:g}" if ties else ""
    said_alike = (
        f"{same} of {n} greedy continuations of {told.probes.new_tokens} tokens are the same{at_ties}"
    )
    return one, Check("greedy", outcome, said_alike, numbers)


def _first_gap(
    logits: Floats, said: Sequence[int], ends: frozenset[int], most: int
) -> tuple[float, int | None]:
    """By how much the reference prefers another token, and at which place; (0, None): nowhere."""
    for at, token in enumerate(said):
        best = int(logits[at].argmax())
        if best != token:
            return float(logits[at][best] - logits[at][token]), at
    if len(said) < most:
        # It ended its reply: the reference must want to end too.
        best = int(logits[len(said)].argmax())
        if best not in ends:
            end = max((float(logits[len(said)][i]) for i in ends), default=-math.inf)
            return float(logits[len(said)][best]) - end, len(said)
    return 0.0, None


def _probabilities(told: Asked, view: View, bounds: Bounds | None) -> list[Check]:
    divergences, mine, its, size = [], 0.0, 0.0, 0
    for log, ids in told.pairs():
        other = log_softmax(view.logits(ids))
        if other.shape != log.shape:
            return [
                Check("divergence", "different", f"it has {other.shape[1]:,} tokens, not {log.shape[1]:,}")
            ]
        divergences.append(_divergence(log, other))
        following = np.asarray(ids[1:])
        rows = np.arange(len(following))
        mine -= float(log[rows, following].sum())
        its -= float(other[rows, following].sum())
        size += len(told.view.tokenizer.decode(ids[1:]).encode())
    kl = _mean(divergences)
    peak = float(max((d.max() for d in divergences if len(d)), default=0.0))
    bits, more = mine / math.log(2) / max(1, size), (its - mine) / math.log(2) / max(1, size)
    outcome: Outcome = (
        "equal" if kl <= EXACT else _within(bounds, bounds is not None and kl <= bounds.divergence)
    )
    stated = f" (bound {bounds.divergence:g})" if bounds else ""
    said = f"its probabilities diverge by {kl:.2g} nats a token, {peak:.2g} at most{stated}"
    found = [Check("divergence", outcome, said, {"mean": kl, "max": peak})]
    exact = abs(more) <= 1e-4 and kl <= EXACT
    outcome = "equal" if exact else _within(bounds, bounds is not None and more <= bounds.bits_per_byte)
    said = f"the probe texts cost {bits + more:.4f} bits a byte, with the trained model {bits:.4f}"
    found.append(Check("bits per byte", outcome, said, {"reference": bits, "candidate": bits + more}))
    if told.from_base is not None and kl > EXACT:
        found.append(_kept(kl, told.from_base, bounds))
    return found


def _kept(kl: float, from_base: float, bounds: Bounds | None) -> Check:
    """A tune that is smaller than the rounding is lost in it, however small both may be."""
    kept = 1.0 - kl / from_base if from_base > 0 else 0.0
    numbers = {"kept": kept, "base": from_base}
    said = f"{max(0.0, kept):.0%} of the tune is left (the base diverges by {from_base:.2g} nats a token)"
    least = (bounds or Bounds()).kept
    if kept < least:
        return Check("tune", "different", f"only {said}; bound {least:.0%}", numbers)
    return Check("tune", _within(bounds, True), said, numbers)


def _within(bounds: Bounds | None, yes: bool) -> Outcome:
    return "within bounds" if bounds is not None and yes else "different"


def _divergence(p: Logs, q: Logs) -> Logs:
    """KL(p || q) of each token (T,), from log-probabilities (T, V)."""
    if p.shape != q.shape:
        return np.full(len(p), np.inf)
    found = np.exp(p) * (p - q)
    return np.maximum(0.0, found.sum(axis=-1)) if np.isfinite(q).all() else np.full(len(p), np.inf)


def _mean(found: Sequence[Logs]) -> float:
    count = sum(len(each) for each in found)
    return float(sum(each.sum() for each in found) / max(1, count))
