"""L-BFGS: the minimum of a smooth function from its gradients (Nocedal and Wright 2006, algorithm 7.5)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Loss = Callable[[Vector], tuple[float, Vector]]

MEMORY = 10
"""Pairs of step and change of gradient that are remembered."""
DECREASE = 1e-4
"""Armijo's condition: the share of the foretold descent that a step must bring."""


def minimize(loss: Loss, start: Vector, *, steps: int = 300, tolerance: float = 1e-5) -> Vector:
    """The place where no part of the gradient exceeds `tolerance`, or that of the last step.

    loss  place (P,) -> (value, gradient (P,))
    """
    place = start
    value, gradient = loss(place)
    pairs: list[tuple[Vector, Vector, float]] = []
    for _ in range(steps):
        if float(np.abs(gradient).max()) <= tolerance:
            break
        direction = _direction(gradient, pairs)
        slope = float(gradient @ direction)
        # The first direction is the bare gradient, whose length says nothing of how far to go.
        length = 1.0 if pairs else min(1.0, 1.0 / float(np.abs(gradient).sum()))
        while True:
            there = place + length * direction
            found, steep = loss(there)
            if found <= value + DECREASE * length * slope or length < 1e-12:
                break
            length /= 2
        moved, change = there - place, steep - gradient
        curvature = float(moved @ change)
        # Only what bends upwards: otherwise the next direction might climb.
        if curvature > 1e-12 * float(change @ change):
            pairs = [*pairs, (moved, change, 1 / curvature)][-MEMORY:]
        place, value, gradient = there, found, steep
        if length < 1e-12:
            break
    return place


def _direction(gradient: Vector, pairs: list[tuple[Vector, Vector, float]]) -> Vector:
    """Minus the inverse Hessian, as the pairs have it, times the gradient: the two loops of algorithm 7.4."""
    q, shares = gradient.copy(), []
    for moved, change, inverse in reversed(pairs):
        share = inverse * float(moved @ q)
        shares.append(share)
        q -= share * change
    if pairs:
        moved, change, inverse = pairs[-1]
        q *= 1 / (inverse * float(change @ change))
    for (moved, change, inverse), share in zip(pairs, reversed(shares), strict=True):
        q += moved * (share - inverse * float(change @ q))
    return -q
