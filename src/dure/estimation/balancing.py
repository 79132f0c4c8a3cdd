"""Weights that balance treated and controls, each from the propensity score alone, and their slopes in the score.

A weight is h(e)/e for the treated and h(e)/(1 − e) for controls; the tilting function h names the people that the
weighted arms stand for (Li, Morgan & Zaslavsky 2018, J Am Stat Assoc 113:390, table 1; Zhou, Matsouaka & Thomas 2020,
Stat Methods Med Res 29:3721 for entropy weights).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

Vector = NDArray[np.float64]
EDGE = 1e-9
"""Scores are estimated: within this share of a bound they stand on it, whatever the last digits say."""
EQUAL = 1e-13
"""Squared relative spread of weights up to which they are equal."""
Target = Literal["ate", "att", "atc", "overlap", "matching", "entropy"]


def _tilt(target: Target, e: Vector) -> tuple[Vector, Vector]:
    """h(e) and its slope."""
    if target == "att":
        return e, np.ones_like(e)
    if target == "atc":
        return 1 - e, np.full_like(e, -1.0)
    if target == "overlap":
        return e * (1 - e), 1 - 2 * e
    if target == "matching":
        return np.minimum(e, 1 - e), np.where(np.abs(e - 0.5) <= EDGE, 0.0, np.sign(0.5 - e))
    if target == "entropy":
        return -(xlogy(e, e) + xlogy(1 - e, 1 - e)), np.log1p(-e) - np.log(e)
    return np.ones_like(e), np.zeros_like(e)


def balancing_weights(
    target: Target, score: Vector, treated: NDArray[np.bool_], truncate: tuple[float, float] | None = None
) -> tuple[Vector, Vector]:
    """(n,) weights and (n,) their slopes in the linear predictor, logit e.

    Scores beyond `truncate` count as its bounds; there the slope is zero.
    """
    e = score if truncate is None else np.clip(score, *truncate)
    h, slope = _tilt(target, e)
    own = np.where(treated, e, 1 - e)
    sign = np.where(treated, 1.0, -1.0)
    # dw/de · e(1 − e), with one factor of e(1 − e) cancelled against the weight's own denominator
    bend = (slope - sign * h / own) * np.where(treated, 1 - e, e)
    return h / own, np.where(np.abs(e - score) <= EDGE * np.minimum(e, 1 - e), bend, 0.0)


def between(score: Vector, bounds: tuple[float, float]) -> NDArray[np.bool_]:
    """Who lies within bounds, these included."""
    low, high = bounds
    return np.asarray((score >= low * (1 - EDGE)) & (1 - score >= (1 - high) * (1 - EDGE)))


def effective(total: Vector, squares: Vector) -> Vector:
    """Kish's effective sample size (Σw)²/Σw²; 0 where nobody has a weight."""
    return np.divide(total**2, squares, out=np.zeros_like(total), where=squares > 0)


def whole_people(size: Vector) -> NDArray[np.int64]:
    """Effective sample sizes as people; rounding of the sums takes nobody away."""
    return np.floor(size * (1 + EDGE)).astype(np.int64)


def variation(people: Vector, size: Vector) -> Vector:
    """The coefficient of variation of weights, from their effective sample size; 0 where they are equal but for
    rounding."""
    squared = people / size - 1.0
    return np.sqrt(np.where(squared > EQUAL, squared, 0.0))
