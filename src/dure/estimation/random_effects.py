"""Meta-analysis from sums of powers of the weights: fixed and random effects, heterogeneity, prediction.

Everything a meta-analysis of estimates θ with variances v needs at a between-hospital variance τ² are the sums
Σ wᵖ (θ − c)ʲ with w = 1/(v + τ²), p = 1, 2, 3 and j = 0, 1, 2. They add over hospitals, so the same steps serve
estimates that may be seen (`combine`) and those of which only sums are opened (`start`, `points`, `advance`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

Vector = NDArray[np.float64]
Tau = Literal["REML", "DL", "PM"]
Interval = Literal["hksj", "hksj_adhoc", "normal"]

MOST_ROUNDS = 100
SETTLED = 1e-9
"""A step of τ² this small, beside τ² and a typical variance: Newton's next would be its square."""


LEAST = 1e-13
"""Share of the weights that one estimate must leave to the others: beyond it they are lost in rounding."""


class Unsettled(Exception):
    """One estimate outweighs all others beyond the digits of a number, or τ² did not settle."""


@dataclass(frozen=True)
class Summed:
    """What the sums at one τ² tell: the mean (from the centre), Σ w, and sums about the mean."""

    mean: float
    weight: float
    squares: float  # Σ w, Σ w²
    cubes: float  # Σ w³
    q: float  # Σ w (θ − μ)²
    q2: float  # Σ w² (θ − μ)²
    q3: float  # Σ w³ (θ − μ)²
    lean: float  # Σ w² (θ − μ)


@dataclass(frozen=True)
class Effect:
    """One pooled effect. `prediction` is the interval in which a new hospital's true effect is expected."""

    estimate: float
    std_error: float
    statistic: float
    p_value: float
    ci: tuple[float, float]
    prediction: tuple[float, float] = (math.nan, math.nan)


@dataclass(frozen=True)
class Combined:
    """Both pooled effects and how much the hospitals differ; NaN where too few hospitals are there to say."""

    hospitals: int
    fixed: Effect
    random: Effect
    q: float
    q_p_value: float
    i2: float
    h2: float
    tau2: float
    tau2_ci: tuple[float, float]


def moments(estimate: Vector, variance: Vector, tau2: Vector, centre: float) -> Vector:
    """(points, 3, 3) sums Σ wᵖ (θ − c)ʲ over (k,) estimates at each of (points,) values of τ²."""
    weight = 1.0 / (variance + tau2[:, None])  # (points, k)
    powers = np.stack([weight, weight**2, weight**3], axis=1)
    away = estimate - centre
    return np.asarray(powers @ np.stack([np.ones_like(away), away, away**2], axis=1))


def summed(sums: Vector) -> Summed:
    """Sums (3, 3) at one τ², read about their own mean."""
    (w, w1, w2), (v, v1, v2), (u, u1, u2) = (map(float, row) for row in sums)
    mean = w1 / w
    return Summed(
        mean,
        w,
        v,
        u,
        q=max(w2 - mean * w1, 0.0),
        q2=max(v2 - 2 * mean * v1 + mean**2 * v, 0.0),
        q3=max(u2 - 2 * mean * u1 + mean**2 * u, 0.0),
        lean=v1 - mean * v,
    )


# ── rounds ──


def start() -> dict[str, Any]:
    """The state before any sums: plain data."""
    return {"round": 0, "centre": 0.0, "tau2": 0.0, "searches": {}, "zero": None, "final": None}


def points(state: dict[str, Any]) -> Vector:
    """(points,) values of τ² at which the next sums are needed."""
    if state["zero"] is None:
        return np.zeros(1)
    return np.array([search["at"] for search in state["searches"].values()])


def advance(state: dict[str, Any], sums: Vector, hospitals: int, how: Tau, level: float, profile: bool) -> bool:
    """Take in the sums (points, 3, 3) at `points(state)`; True when nothing more is needed. Raises Unsettled.

    First about 0, then about the fixed effect, so that large effects cost no digits. τ²: DerSimonian & Laird 1986,
    Paule & Mandel 1982 or REML (Viechtbauer 2005); its interval by the Q-profile (Viechtbauer 2007) if `profile`.
    """
    state["round"] += 1
    if state["round"] == 1:
        state["centre"] = summed(sums[0]).mean
        return False
    if state["zero"] is None:
        state["zero"] = np.asarray(sums[0])
        _open(state, hospitals, how, level, profile)
        return False
    for (name, search), found in zip(state["searches"].items(), sums):
        if name == "tau2" and search["done"]:
            state["final"] = np.asarray(found)
        if not search["done"]:
            _refine(search, summed(found), name, how)
    if state["round"] >= MOST_ROUNDS:
        raise Unsettled
    return state["final"] is not None and all(search["done"] for search in state["searches"].values())


def _open(state: dict[str, Any], hospitals: int, how: Tau, level: float, profile: bool) -> None:
    """Where the searches for τ² and for the ends of its interval begin."""
    zero, freedom = summed(state["zero"]), hospitals - 1
    left = zero.weight - zero.squares / zero.weight
    if freedom and left < LEAST * zero.weight:
        raise Unsettled
    laird = (zero.q - freedom) / left if freedom else 0.0
    begin = max(0.0, laird)
    scale = hospitals / zero.weight
    state["searches"] = {"tau2": _search(begin, freedom, scale, done=how == "DL" or not freedom)}
    if profile and freedom:
        tails = special.chdtri(freedom, [0.5 - level / 2, 0.5 + level / 2])
        for name, target in zip(("low", "high"), tails):
            state["searches"][name] = _search(begin, float(target), scale)


def _search(at: float, target: float, scale: float, done: bool = False) -> dict[str, Any]:
    return {"at": at, "target": target, "scale": scale, "low": 0.0, "high": math.inf, "done": done}


def _refine(search: dict[str, Any], at: Summed, name: str, how: Tau) -> None:
    """One Newton step towards the τ² at which a falling function is zero, kept between what is known to bound it."""
    if name == "tau2" and how == "REML":
        # Score and observed information of the restricted likelihood, both doubled (Viechtbauer 2005, eq. 8–10).
        value = at.q2 - (at.weight - at.squares / at.weight)
        expected = at.squares - 2 * at.cubes / at.weight + (at.squares / at.weight) ** 2
        observed = 2 * (at.q3 - at.lean**2 / at.weight) - expected
        step = value / (observed if observed > 0.05 * expected else expected)
    else:
        # Q(τ²) = target. 1/Q is nearly straight in τ², so Newton runs on it; dQ/dτ² = −Σ w² (θ − μ)².
        value = at.q - search["target"]
        step = (1.0 / search["target"] - 1.0 / at.q) * at.q**2 / at.q2 if at.q2 > 0 else 0.0
    here = search["at"]
    search["low" if value > 0 else "high"] = here
    new = max(0.0, here + step)
    if not search["low"] <= new <= search["high"]:
        new = (search["low"] + search["high"]) / 2
    search["done"] = abs(new - here) <= SETTLED * (here + search["scale"])
    search["at"] = new


# ── answers ──


def conclude(state: dict[str, Any], hospitals: int, interval: Interval, level: float) -> Combined:
    """What the settled state says.

    Intervals of the random effect: normal, or Hartung & Knapp 2001 / Sidik & Jonkman 2002 with t of k − 1 degrees,
    `hksj_adhoc` never narrower than with their factor at 1. Prediction: t of k − 2 degrees beside the normal interval
    (Higgins, Thompson & Spiegelhalter 2009), of k − 1 beside the other (IntHout et al. 2016, as R metafor).
    """
    zero, final = summed(state["zero"]), summed(state["final"])
    tau2, freedom = float(state["searches"]["tau2"]["at"]), hospitals - 1
    fixed = _effect(state["centre"] + zero.mean, math.sqrt(1 / zero.weight), None, level)
    estimate, error = state["centre"] + final.mean, math.sqrt(1 / final.weight)
    if interval != "normal" and freedom:
        factor = math.sqrt(final.q / freedom)
        error *= max(1.0, factor) if interval == "hksj_adhoc" else factor
    degrees = freedom if interval != "normal" and freedom else None
    ahead = freedom if interval != "normal" else hospitals - 2
    spread = math.nan
    if freedom > 0 and ahead > 0:
        spread = float(special.stdtrit(ahead, 0.5 + level / 2)) * math.sqrt(tau2 + error**2)
    random = _effect(estimate, error, degrees, level, (estimate - spread, estimate + spread))
    typical = freedom * zero.weight / (zero.weight**2 - zero.squares) if freedom else math.nan
    ends = [float(state["searches"][name]["at"]) if name in state["searches"] else math.nan for name in ("low", "high")]
    return Combined(
        hospitals,
        fixed,
        random,
        q=zero.q if freedom else math.nan,
        q_p_value=float(special.chdtrc(freedom, zero.q)) if freedom else math.nan,
        i2=100 * tau2 / (tau2 + typical) if freedom else math.nan,
        h2=1 + tau2 / typical if freedom else math.nan,
        tau2=tau2 if freedom else math.nan,
        tau2_ci=(ends[0], ends[1]),
    )


def combine(
    estimate: Vector,
    variance: Vector,
    *,
    how: Tau = "REML",
    interval: Interval = "hksj",
    level: float = 0.95,
) -> Combined:
    """A meta-analysis of (k,) estimates with (k,) variances, k at least 1; raises Unsettled."""
    state, hospitals = start(), len(estimate)
    while not advance(
        state, moments(estimate, variance, points(state), state["centre"]), hospitals, how, level, hospitals > 1
    ):
        pass
    return conclude(state, hospitals, interval, level)


def _effect(
    estimate: float,
    error: float,
    degrees: int | None,
    level: float,
    prediction: tuple[float, float] = (math.nan, math.nan),
) -> Effect:
    """With a normal interval, or Student's t of so many `degrees`."""
    at = 0.5 + level / 2
    width = float(special.ndtri(at) if degrees is None else special.stdtrit(degrees, at)) * error
    if error <= 0:
        return Effect(estimate, error, math.nan, math.nan, (estimate, estimate), prediction)
    statistic = estimate / error
    away = -abs(statistic)
    p_value = float(2 * (special.ndtr(away) if degrees is None else special.stdtr(degrees, away)))
    return Effect(estimate, error, statistic, p_value, (estimate - width, estimate + width), prediction)


def recentred(sums: Vector, centre: float) -> Vector:
    """Sums (points, 3, 3) about 0 as sums about `centre`."""
    zeroth, first, second = sums[..., 0], sums[..., 1], sums[..., 2]
    return np.stack([zeroth, first - centre * zeroth, second - 2 * centre * first + centre**2 * zeroth], axis=-1)
