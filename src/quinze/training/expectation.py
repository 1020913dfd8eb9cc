"""How good a model will be for so many operations: what a handful of real runs reached, and your own text.

No law is fitted: between the runs a straight line of logarithms, beyond them the nearest. Since a text may
be harder or easier, results are told as shares of what the compressor xz needs for the same text (200,000
bytes of it, doctor/floors.py); unlike a table of tokens it does not depend on the tokenizer.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from quinze.training.doctor.floors import Floors

EXPECTED = ((4.1e11, 1.12), (1.35e12, 0.88), (1e18, 0.325), (1e19, 0.290))
"""(operations, bits a byte as a share of xz's). The first two: models of 0.2 M weights and 1,024 tokens of
vocabulary on the first paragraphs of English Wikipedia (xz 2.76; AdamW, 0.3 and 1.0 M tokens: 3.08 and 2.43
bits). The last two: nanochat on FineWeb-edu (0.8972 and 0.7999 bits), taken to be as hard for xz."""
REFERENCE_XZ = 2.76
"""Bits a byte, of a text that nobody has looked at."""
BAND = 0.25
"""How far expectations may be off, as a share. One run of another tokenizer, optimizer and text (characters
of tinyshakespeare, Muon, 2.7e11 operations) ended at 2.82 bits, where 3.30 were expected."""


class Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """Bits a byte of the validation text, in the end."""

    bits_per_byte: float
    low: float
    high: float
    rests_on: str


def expected(operations: float, floors: Floors | None) -> Expectation:
    """Of a model of about the best size for so many operations. Twice the band where the text is unknown."""
    x = [math.log(c) for c, _ in EXPECTED]
    y = [math.log(share) for _, share in EXPECTED]
    xz = floors.compressor_bits_per_byte if floors else None
    share = math.exp(float(np.interp(math.log(operations), x, y)))
    bits, band = share * (xz or REFERENCE_XZ), BAND if xz else 2 * BAND
    runs = f"{len(EXPECTED)} runs on English text of {EXPECTED[0][0]:.0e} to {EXPECTED[-1][0]:.0e} operations"
    rests_on = f"{runs}, " + (
        f"scaled by xz on yours ({xz:.2f})" if xz else "without a look at your own text"
    )
    return Expectation(bits_per_byte=bits, low=bits * (1 - band), high=bits * (1 + band), rests_on=rests_on)
