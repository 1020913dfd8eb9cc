"""Whether a model is as sure as it is right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quinze.errors import InvalidRequestError


def expected_calibration_error(confidences: Sequence[float], right: Sequence[float], bins: int = 10) -> float:
    """Sum over bins of (share of examples) |accuracy - mean confidence| (Naeini 2015, Guo 2017, eq. 3).

    confidences  (N,) 0 to 1, the probability that the model gave to what it chose
    right        (N,) 1 where that was right
    Bins are (i / bins, (i + 1) / bins], as in Guo's.
    """
    sure, correct = np.asarray(confidences, np.float64), np.asarray(right, np.float64)
    if len(sure) != len(correct) or not len(sure):
        raise InvalidRequestError(f"{len(sure):,} confidences do not fit {len(correct):,} answers.")
    if not ((sure >= 0) & (sure <= 1)).all():
        raise InvalidRequestError("A confidence lies outside 0 to 1.", param="confidences")
    place = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    gaps = np.abs(np.bincount(place, correct, bins) - np.bincount(place, sure, bins))
    return float(gaps[counts > 0].sum() / len(sure))
