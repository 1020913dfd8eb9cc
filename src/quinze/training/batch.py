"""What a step learns from. Plain numpy, so that data can be prepared and looked at without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IGNORE = -100
"""The label of a token that is read but not learned (PyTorch's `ignore_index`)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One packed sequence of T tokens."""

    ids: npt.NDArray[np.int64]
    """(T,) what the model reads."""
    labels: npt.NDArray[np.int64]
    """(T,) what it shall say after each of them, already shifted; IGNORE where nothing is learned."""
    segments: npt.NDArray[np.int32] | None
    """(T,) which document each token belongs to, counted from 0; tokens see only their own. None: they see
    all before them."""


@dataclass(frozen=True, slots=True)
class Batch:
    """B rows, and which they are, so that a run can say what it has seen."""

    ids: npt.NDArray[np.int64]
    """(B, T)."""
    labels: npt.NDArray[np.int64]
    """(B, T)."""
    segments: npt.NDArray[np.int32] | None
    """(B, T), or None."""
    rows: npt.NDArray[np.int64]
    """(B,) their places in the split."""
    epoch: int
