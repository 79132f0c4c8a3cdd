"""Calibration-in-the-large and the calibration slope: logistic models on the logit of a score (Cox 1958).

In the large: logit P(y) = a + logit(p). Slope: logit P(y) = b₀ + b₁ logit(p). Both are fitted side by side by Newton
steps on the logit less its mean c; a = t₀ − c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.estimation import newton

Vector = NDArray[np.float64]

NEAREST = 1e-8
"""A predicted 0 or 1 counts as this far from it: its logit would be infinite."""
MOST_STEPS = 60
BLOCK = 1 << 15
"""People at a time: what is computed of them stays in a core's own cache."""
CONSTANT = 1e-12
"""Mean squared distance of logits from their mean, beside its square, below which they are all the same."""


@dataclass(frozen=True)
class Recalibrated:
    """In-the-large intercept and slope with standard errors; NaN where the data give none."""

    intercept: float
    intercept_error: float
    slope: float
    slope_error: float


def logits(score: Vector) -> Vector:
    clipped = np.clip(score, NEAREST, 1 - NEAREST)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def begun(centre: float) -> dict[str, Any]:
    """The state of one set of people before any step: plain data."""
    large, slope = newton.first(1), newton.first(2)
    large["beta"], slope["beta"] = np.array([centre]), np.array([centre, 1.0])
    return {"large": large, "slope": slope, "done": {"large": False, "slope": False}, "lost": []}


def coefficients(state: dict[str, Any]) -> Vector:
    """(3,) t₀, b₀ + b₁ c and b₁ at which the next sums are needed."""
    return np.concatenate([state["large"]["beta"], state["slope"]["beta"]])


def sums(logit: Vector, case: Vector, at: Vector) -> Vector:
    """(9,) gradient (1 + 2), information (1 + 3) and deviance (1 + 1) over (n,) centred logits and 0/1 outcomes."""
    blocks = (slice(start, start + BLOCK) for start in range(0, len(logit), BLOCK))
    return np.asarray(sum((_block(logit[part], case[part], at) for part in blocks), start=np.zeros(9)))


def _block(logit: Vector, case: Vector, at: Vector) -> Vector:
    found = []
    for eta, design in ((at[0] + logit, 1), (at[1] + at[2] * logit, 2)):
        small = np.exp(-np.abs(eta))
        mean = np.where(eta >= 0, 1.0, small) / (1.0 + small)
        residual, weight = case - mean, small / (1.0 + small) ** 2
        deviance = 2.0 * (np.maximum(eta, 0.0) + np.log1p(small) - case * eta).sum()
        crossed = weight * logit
        gradient = [residual.sum(), residual @ logit][:design]
        information = [weight.sum(), crossed.sum(), crossed @ logit][: 2 * design - 1]
        found.append((gradient, information, [deviance]))
    (g, h, d), (gs, hs, ds) = found
    return np.array([*g, *gs, *h, *hs, *d, *ds])


def step(state: dict[str, Any], total: Vector) -> bool:
    """Take in one round's sums; True when nothing more is needed."""
    information = np.array([[total[4], total[5]], [total[5], total[6]]])
    _advance(state, "large", total[:1], total[3:4].reshape(1, 1), float(total[7]))
    _advance(state, "slope", total[1:3], information, float(total[8]))
    return all(state["done"].values())


def _advance(state: dict[str, Any], name: str, gradient: Vector, information: Vector, deviance: float) -> None:
    if state["done"][name]:
        return
    try:
        taken = newton.advance(state[name], gradient, information, deviance, np.ones(len(gradient), dtype=bool))
    except newton.Stuck:
        lose(state, name)
        return
    state[name] = taken.state
    state["done"][name] = bool(taken.converged)
    if taken.separating.any():
        lose(state, name)


def lose(state: dict[str, Any], name: str) -> None:
    """No more is sought: coefficients that run away, or logits that do not differ."""
    state["done"][name] = True
    state["lost"] = [*state["lost"], name]


def told(state: dict[str, Any], centre: float) -> Recalibrated:
    """What a settled state says."""
    said = {name: state["done"][name] and name not in state["lost"] for name in ("large", "slope")}
    nothing = float("nan")
    return Recalibrated(
        float(state["large"]["beta"][0]) - centre if said["large"] else nothing,
        float(np.sqrt(state["large"]["variance"][0])) if said["large"] else nothing,
        float(state["slope"]["beta"][1]) if said["slope"] else nothing,
        float(np.sqrt(state["slope"]["variance"][1])) if said["slope"] else nothing,
    )


def varies(squares: float, centre: float, people: float) -> bool:
    """Whether logits differ: Σ (logit − c)² against what rounding leaves of equal ones."""
    return squares > CONSTANT * people * max(1.0, centre**2)


def fitted(logit: Vector, case: Vector) -> Recalibrated:
    """Both models inside one hospital; (n,) logits and 0/1 outcomes of both classes."""
    centre = float(logit.mean())
    centred = logit - centre
    state = begun(centre)
    if not varies(float(centred @ centred), centre, len(logit)):
        lose(state, "slope")
    for _ in range(MOST_STEPS):
        if step(state, sums(centred, case, coefficients(state))):
            break
    return told(state, centre)
