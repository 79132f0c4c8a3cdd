"""Numbers of one group's survival from counts on a grid: the curve, its errors, quantiles and restricted mean.

Kaplan & Meier 1958; Greenwood 1926; the infinitesimal jackknife of weighted curves as in R's `survfit(robust=TRUE)`
(Therneau); quantiles by inverting the curve and its limits (Brookmeyer & Crowley 1982), as R's `quantile.survfit`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dure.methods.survival.parameters import Transform

Values = NDArray[np.float64]
Flags = NDArray[np.bool_]
NOTHING = 1e-14
ROUNDING = 1e-12
SAME = 1.5e-8
"""Survival this near a level has reached it (R's tolerance, the square root of the machine's precision)."""


@dataclass(frozen=True)
class Leaving:
    """Sums of one kind (people, weights, squares of weights) by interval, over the last axis.

    `events` (…, T), `censored` (…, T + 1) and `entered` (…, T + 1) or None: in the last place those who leave, or
    enter, beyond the grid.
    """

    events: Values
    censored: Values
    entered: Values | None

    def later(self) -> Values:
        """(…, T) the sum over those still there after each interval, added from the end: the tail keeps its digits."""
        leaving = self.censored.copy()
        leaving[..., :-1] += self.events
        after = np.cumsum(leaving[..., :0:-1], axis=-1)[..., ::-1]
        if self.entered is not None:
            after = after - np.cumsum(self.entered[..., :0:-1], axis=-1)[..., ::-1]
        return np.asarray(after)

    def at_risk(self) -> Values:
        """(…, T) the sum over those at risk in each interval."""
        return np.asarray(self.later() + self.censored[..., :-1] + self.events)

    def of(self, group: int) -> Leaving:
        """One group's (T,) sums, all strata together, from (S, G, T)."""
        entered = None if self.entered is None else self.entered[:, group].sum(axis=0)
        return Leaving(self.events[:, group].sum(axis=0), self.censored[:, group].sum(axis=0), entered)


@dataclass(frozen=True)
class Curve:
    """One group on the grid: (T,) people at risk and with the event, survival and its standard error.

    `greenwood` is Σ d/(Y(Y−d)) of the weighted counts, `squares` the squared weights where errors are robust.
    """

    points: Values
    at_risk: Values
    events: Values
    survival: Values
    error: Values
    greenwood: Values
    weighted: Leaving
    squares: Leaving | None


def curve(points: Values, people: Leaving, weighted: Leaving, squares: Leaving | None) -> Curve:
    """`people` counts heads; `weighted` is the same where nobody has weights. With `squares` errors are robust."""
    n, d = people.at_risk(), people.events
    risk, dead = weighted.at_risk(), weighted.events
    all_die = (d >= n) & (n > 0) & (d > 0)
    left = np.where(all_die, 0.0, weighted.later() + weighted.censored[:-1])
    if weighted.entered is not None:  # weights of unlike sizes that leave nothing but rounding
        all_die |= (d > 0) & (left <= NOTHING * risk)
        left = np.where(all_die, 0.0, left)
    with np.errstate(invalid="ignore", divide="ignore"):
        steps = np.where(d > 0, left / risk, 1.0)
        terms = np.where((d > 0) & ~all_die, dead / (risk * left), 0.0)
    survival, greenwood = np.cumprod(steps), np.cumsum(terms)
    if squares is None:
        error = survival * np.sqrt(greenwood)
    else:
        died, alive = _influences(greenwood, d, all_die, left)
        gone = np.cumsum(squares.events * died**2 + squares.censored[:-1] * alive**2)
        error = survival * np.sqrt(gone + squares.later() * greenwood**2)
    return Curve(points, n, d, np.asarray(survival), error, np.asarray(greenwood), weighted, squares)


def _influences(greenwood: Values, d: Values, all_die: Flags, left: Values) -> tuple[Values, Values]:
    """(T,) what one unit of weight that leaves in an interval does to log S afterwards: with and without the event."""
    with np.errstate(divide="ignore"):
        own = np.where((d > 0) & ~all_die, 1 / left, 0.0)
    return greenwood - own, greenwood


def influences(of: Curve) -> tuple[Values, Values]:
    """(T,) what one unit of weight that leaves in an interval does to the logarithm of survival afterwards: with and
    without an event."""
    all_die = (of.events >= of.at_risk) & (of.events > 0)
    return _influences(of.greenwood, of.events, all_die, of.weighted.later() + of.weighted.censored[:-1])


def limits(survival: Values, error: Values, level: float, transform: Transform) -> tuple[Values, Values]:
    """(T,) lower and upper limits at `level`, NaN where the scale has no interval (R's `survfit(conf.type=)`)."""
    z = float(stats.norm.ppf(0.5 + level / 2))
    with np.errstate(all="ignore"):
        relative = error / survival
        if transform == "plain":
            low, high = np.maximum(survival - z * error, 0.0), np.minimum(survival + z * error, 1.0)
        elif transform == "log":
            low, high = survival * np.exp(-z * relative), np.minimum(survival * np.exp(z * relative), 1.0)
        elif transform == "log-log":
            wide = z * relative / np.log(survival)
            low, high = survival ** np.exp(-wide), survival ** np.exp(wide)
        elif transform == "logit":
            wide, middle = z * relative / (1 - survival), np.log(survival / (1 - survival))
            low, high = 1 / (1 + np.exp(wide - middle)), 1 / (1 + np.exp(-wide - middle))
        else:
            wide, middle = 0.5 * z * relative * np.sqrt(survival / (1 - survival)), np.arcsin(np.sqrt(survival))
            low, high = np.sin(np.maximum(0, middle - wide)) ** 2, np.sin(np.minimum(np.pi / 2, middle + wide)) ** 2
    known = (survival > 0) & (survival < 1) & np.isfinite(relative)
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


def quantile(points: Values, survival: Values, share: float) -> float | None:
    """The time by which `share` of the people had the event: the first with survival at most 1 − share; where the
    curve lies exactly there, the middle of that flat piece, as in R (but its beginning where the curve ends on it,
    since R's middle then takes in the longest follow-up, which is one person's)."""
    gone = 1 - survival
    reached, beyond = _first(gone, share - SAME), _first(gone, share + SAME)
    if reached is None:
        return None
    return float((points[reached] + points[beyond if beyond is not None else reached]) / 2)


def _first(gone: Values, level: float) -> int | None:
    """The first place of the smallest value not below `level`: limits need not be monotone, and R sorts them. Values
    that differ by rounding are one, so that the split of people does not choose among them."""
    with np.errstate(invalid="ignore"):
        places = np.flatnonzero(gone >= level)
    return int(places[np.argmax(gone[places] <= gone[places].min() + ROUNDING)]) if len(places) else None


@dataclass(frozen=True)
class Mean:
    """The mean of time up to tau, in the grid's unit, its standard error, and whether the curve reaches tau."""

    value: float
    error: float
    known: bool


def restricted_mean(of: Curve, tau: float) -> Mean:
    """Area under the curve up to `tau` and its variance Σ (area after t)² d/(Y(Y−d)) (Klein & Moeschberger 2003,
    4.5.2; as R's `survRM2` and `print(survfit, rmean=)`), or the jackknife's with weights."""
    inside = of.points < tau * (1 - 1e-12)
    ends = np.append(of.points[inside], tau)
    width = np.diff(ends, prepend=0.0)
    height = np.concatenate([[1.0], of.survival[inside]])
    areas = width * height
    after = np.cumsum(areas[:0:-1])[::-1]  # (K,) from each inner grid point to tau
    kept = int(inside.sum())
    greenwood = of.greenwood[:kept]
    if of.squares is None:
        variance = float((after**2 * np.diff(greenwood, prepend=0.0)).sum())
    else:
        d, all_die = of.events[:kept], (of.events >= of.at_risk)[:kept]
        left = (of.weighted.later() + of.weighted.censored[:-1])[:kept]
        died, alive = _influences(greenwood, d, all_die, left)
        before = np.concatenate([[0.0], np.cumsum((areas[1:] * greenwood)[:-1])]) if kept else np.zeros(0)
        events, censored = of.squares.events[:kept], of.squares.censored[:kept]
        total = float((areas[1:] * greenwood).sum())
        stay = float(of.squares.events[kept:].sum() + of.squares.censored[kept:].sum())
        variance = float(
            (events * (before + died * after) ** 2 + censored * (before + alive * after) ** 2).sum() + stay * total**2
        )
    place = int(np.searchsorted(of.points, tau * (1 - 1e-12)))
    followed = place < len(of.points) and of.at_risk[place] > 0
    return Mean(
        float(areas.sum()), float(np.sqrt(variance)), bool(followed or of.survival[min(place, len(of.points) - 1)] == 0)
    )
