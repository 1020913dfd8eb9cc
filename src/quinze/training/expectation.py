"""How good a model will be for so many operations: what a handful of real runs reached, and your own text.

No law is fitted: between the runs a straight line of logarithms, beyond them the nearest. What moves it is
how hard the text is, for which its triples table stands (doctor/floors.py).
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from quinze.training.doctor.floors import Floors

EXPECTED = (
    (3e11, 2.65),
    (1e18, 0.8972),
    (1e19, 0.7999),
)  # fmt: skip
"""(operations, bits a byte) of models of about the best size for them. The last ones are nanochat's on
FineWeb-edu; the first ones ours, on the first paragraphs of English Wikipedia (benchmarks/forecast.py)."""
REFERENCE_TRIGRAM = 2.6
"""Bits a byte of the triples table on our text; another text's expectation is scaled by its own."""
BAND = 0.12
"""How far expectations may be off, as a share; four times that where the text's own table is not known."""


class Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """Bits a byte of the validation text, in the end."""

    bits_per_byte: float
    low: float
    high: float
    rests_on: str


def expected(operations: float, floors: Floors | None) -> Expectation:
    """Between EXPECTED's runs in a straight line of logarithms, scaled by how hard the text is."""
    x = [math.log(c) for c, _ in EXPECTED]
    y = [math.log(bits) for _, bits in EXPECTED]
    bits = math.exp(float(np.interp(math.log(operations), x, y)))
    table = floors.bits_per_byte(floors.trigram) if floors else None
    band = BAND
    if table is None:
        band *= 4
        rests_on = f"{len(EXPECTED)} runs on English text; your own text was not looked at"
    else:
        bits *= table / REFERENCE_TRIGRAM
        rests_on = f"{len(EXPECTED)} runs on English text, scaled by the triples table of yours ({table:.2f})"
    return Expectation(bits_per_byte=bits, low=bits * (1 - band), high=bits * (1 + band), rests_on=rests_on)
