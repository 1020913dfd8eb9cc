"""Which level to take: the least damage within a size, or the least size within a damage.

Given rows of the report; returns one of them and the reason in a sentence. Damage is the divergence (KL)
where a text was read, else the error of the weights.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from quinze.errors import InvalidRequestError
from quinze.quantization.report import Row

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


@dataclass(frozen=True, slots=True)
class Budget:
    """What is allowed. Both: the least damage within the size, if it is within the damage too."""

    bytes: int | None = None
    divergence: float | None = None
    """KL from the original, nats a token"""


@dataclass(frozen=True, slots=True)
class Recommendation:
    row: Row | None
    """None: no level keeps within the budget."""
    reason: str


def size_of(text: str) -> int:
    """Bytes of a size as people write it; InvalidRequestError for what is none.

    >>> size_of("500MB"), size_of("1.5 GiB"), size_of("2g")
    (500000000, 1610612736, 2000000000)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?I?)B?", text.strip().upper())
    size = round(float(found[1]) * _UNITS[found[2]]) if found and found[2] in _UNITS else 0
    if size <= 0:
        raise InvalidRequestError(
            f"{text!r:.40} is no size.", hint="Such as 500MB, 1.5GB or 2GiB.", param="under"
        )
    return size


def recommend(rows: Sequence[Row], budget: Budget) -> Recommendation:
    """The best of the rows but the first, which is the original."""
    levels = rows[1:]
    measured = bool(levels) and levels[0].perplexity is not None
    if budget.divergence is not None and not measured:
        raise InvalidRequestError(
            "A damage budget is measured on a text.", hint="Name one of yours with --text.", param="kl"
        )
    fitting = [row for row in levels if budget.bytes is None or row.bytes <= budget.bytes]
    if not fitting:
        least = min(levels, key=lambda row: row.bytes)
        return Recommendation(
            None, f"Nothing fits: the smallest, {least.level}, has {_size(least.bytes)} "
            f"and the budget is {_size(budget.bytes or 0)}."
        )  # fmt: skip
    within = [row for row in fitting if budget.divergence is None or row.divergence <= budget.divergence]
    if not within:
        best = min(fitting, key=_damage)
        return Recommendation(
            None, f"Nothing keeps the divergence within {budget.divergence:g}: "
            f"the best, {name_of(best)}, has {best.divergence:.5f}."
        )  # fmt: skip
    if budget.bytes is None:
        chosen = min(within, key=lambda row: (row.bytes, _damage(row)))
        return Recommendation(
            chosen, f"{name_of(chosen)} is the smallest ({_size(chosen.bytes)}) whose divergence, "
            f"{chosen.divergence:.5f}, keeps within {budget.divergence:g}."
        )  # fmt: skip
    chosen = min(within, key=lambda row: (_damage(row), row.bytes))
    what = f"a divergence of {chosen.divergence:.5f}" if measured else f"an error of {chosen.error:.2%}"
    return Recommendation(
        chosen, f"{name_of(chosen)} does the least damage ({what}) within {_size(budget.bytes)}: "
        f"it has {_size(chosen.bytes)}."
    )  # fmt: skip


def name_of(row: Row) -> str:
    return f"{row.level}, calibrated" if row.calibrated else row.level


def _damage(row: Row) -> float:
    return row.error if row.perplexity is None else row.divergence


def _size(size: int) -> str:
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"
