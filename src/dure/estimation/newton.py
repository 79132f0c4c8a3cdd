"""Newton's method on totals: aliased columns, steps, halving, convergence, and separation, decided at the hub.

State is plain data, so that a ledger can keep it after every round. Columns are scaled to unit curvature
before anything is solved; scales of 1e-6 and 1e9 side by side then cost no digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

CONVERGED = 1e-18
"""Newton decrement (squared step in standard errors) at which coefficients are right to about 1e-9 SE."""
GOOD_ENOUGH = 1e-12
"""Below this a decrement that no longer falls is rounding, not distance."""
ALIASED = 1e-11
"""Share of a column's curvature left after those before it; exact copies leave about 1e-15."""
NOBODY = 1e-3
"""Expected exceptions, in people, below which a coefficient that still grows runs away."""
CONSTANT = 1e-24
"""Squared relative spread below which a column is constant."""


UNDEFINED = 1e299
"""A deviance from here on says that no deviance can be computed: a mean that the family cannot have."""


class Lost(Exception):
    """However short the step, some mean stays outside the family."""


class Stuck(Exception):
    """The curvature is singular although no column is aliased: coefficients run away."""


def aliased_columns(hessian: Matrix, means: Vector, weight: float) -> NDArray[np.bool_]:
    """(p,) True where a column is constant or a combination of those before it (Cholesky in order).

    `hessian` is of centred columns; `means` (p,) what was subtracted; `weight` their total curvature.
    """
    diagonal = np.diag(hessian).copy()
    empty = (diagonal <= 0) | (diagonal <= CONSTANT * means**2 * weight)
    scale = np.where(empty, 1.0, np.sqrt(np.where(empty, 1.0, diagonal)))
    left = hessian / np.outer(scale, scale)
    aliased = empty.copy()
    for j in range(len(left)):
        if aliased[j]:
            continue
        pivot = left[j, j]
        if pivot <= ALIASED:
            aliased[j] = True
            continue
        left = left - np.outer(left[:, j], left[j, :]) / pivot
    return aliased


def inverse(hessian: Matrix, active: NDArray[np.bool_]) -> Matrix:
    """Inverse over the active columns, zeros elsewhere; raises Stuck when singular."""
    chosen = hessian[np.ix_(active, active)]
    diagonal = np.diag(chosen)
    if not np.isfinite(chosen).all() or (diagonal <= 0).any():
        raise Stuck
    scale = 1.0 / np.sqrt(diagonal)
    try:
        factor = np.linalg.cholesky(chosen * np.outer(scale, scale))
    except np.linalg.LinAlgError:
        raise Stuck from None
    half = np.linalg.solve(factor, np.diag(scale))
    full = np.zeros_like(hessian)
    full[np.ix_(active, active)] = half.T @ half
    return full


@dataclass(frozen=True)
class Step:
    """What one round taught: the next state, whether it is settled, and columns that separate."""

    state: dict[str, Any]
    converged: bool
    separating: NDArray[np.bool_]


def first(columns: int) -> dict[str, Any]:
    """The state before any round: coefficients at zero."""
    return {
        "beta": np.zeros(columns),
        "from": np.zeros(columns),
        "step": np.zeros(columns),
        "deviance": float("inf"),
        "decrement": float("inf"),
        "variance": np.zeros(columns),
        "growing": np.zeros(columns, dtype=np.int64),
        "halved": 0,
    }


def advance(
    state: dict[str, Any],
    gradient: Vector,
    hessian: Matrix,
    deviance: float,
    active: NDArray[np.bool_],
    weight: float = 1.0,
    tolerance: float = 0.0,
) -> Step:
    """One Newton step from sums at `state['beta']`, or half of the last one if the deviance rose.

    Separation: where it happens, a column's variance grows by about e in every round while the decrement
    falls only linearly (Albert & Anderson 1984 describe the likelihood). A strong effect with few exceptions
    starts the same way, but the decrement, which counts the expected exceptions in people of average
    `weight`, then stops falling near those that were seen: only three such rounds far below one person tell.
    `tolerance`: the step in standard errors at which to stop, where that is more than rounding allows. A step so
    small is no end while variances still grow. Raises Stuck, or Lost.
    """
    nobody = np.zeros(len(gradient), dtype=bool)
    undefined = not np.isfinite(deviance) or deviance >= UNDEFINED
    worse = undefined or deviance > state["deviance"] + 1e-9 * (abs(state["deviance"]) + 1e-3)
    if worse and np.isfinite(state["decrement"]) and state["halved"] < 30:
        shorter = state["step"] / 2.0
        return Step(
            {**state, "step": shorter, "beta": state["from"] + shorter, "halved": state["halved"] + 1},
            False,
            nobody,
        )
    if undefined and np.isfinite(state["decrement"]):
        raise Lost
    covariance = inverse(hessian, active)
    step = covariance @ np.where(active, gradient, 0.0)
    decrement = float(gradient @ step)
    variance = np.diag(covariance).copy()
    known = state["variance"] > 0
    growth = np.divide(variance, state["variance"], out=np.ones_like(variance), where=known)
    slow = 0.02 * state["decrement"] < decrement < NOBODY * weight and decrement > GOOD_ENOUGH * weight
    growing = np.where((growth > 1.7) & slow, state["growing"] + 1, 0)
    near = decrement <= max(CONVERGED, tolerance**2) and (decrement <= CONVERGED or not (growth > 1.7).any())
    settled = near or (decrement <= GOOD_ENOUGH and decrement >= 0.25 * state["decrement"])
    after = {
        "beta": state["beta"] + step,
        "from": state["beta"],
        "step": step,
        "deviance": deviance,
        "decrement": decrement,
        "variance": variance,
        "growing": growing.astype(np.int64),
        "halved": 0,
    }
    return Step(after, settled, (growing >= 3) & active)
