"""Rates from counts and person-time: intervals, ratios, and standardisation to a population.

Intervals: exact (Garwood 1936), mid-p (Cohen & Yang 1994), logarithmic normal. Ratios: exact and mid-p by the
conditional binomial distribution (R's `poisson.test`), logarithmic normal. Direct standardisation with gamma intervals
(Fay & Feuer 1997, Stat Med 16:791).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Interval = Literal["exact", "mid_p", "log_normal", "robust"]
Limits = tuple[float, float]
Values = NDArray[np.float64]

FIVE_YEARS = tuple(range(5, 90, 5))
STANDARDS: dict[str, tuple[float, ...]] = {
    "segi": (12, 10, 9, 9, 8, 8, 6, 6, 6, 6, 5, 4, 4, 3, 2, 1, 0.5, 0.5),
    "who_2000_2025": (
        8.86, 8.69, 8.60, 8.47, 8.22, 7.93, 7.61, 7.15, 6.59, 6.04, 5.37, 4.55, 3.72, 2.96, 2.21, 1.52, 0.91, 0.63,
    ),
    "european_2013": (5, 5.5, 5.5, 5.5, 6, 6, 6.5, 7, 7, 7, 7, 6.5, 6, 5.5, 5, 4, 2.5, 2.5),
}  # fmt: skip
"""Percent of people aged 0–4, 5–9, …, 80–84, 85 and over. Segi 1960 as changed by Doll et al. 1966; Ahmad et al. 2001
(WHO, GPE discussion paper 31); Eurostat 2013 (revision of the European Standard Population)."""


def standard_weights(name: str, cuts: Sequence[float]) -> list[float] | None:
    """Weights of the age groups between `cuts` (years), or None where a cut is not one of five-year groups."""
    if not set(cuts) <= set(FIVE_YEARS):
        return None
    lower = (0, *FIVE_YEARS)
    place = np.searchsorted(np.asarray(cuts, dtype=np.float64), lower, side="right")
    return [float(total) for total in np.bincount(place, weights=STANDARDS[name], minlength=len(cuts) + 1)]


def count_limits(events: float, level: float, interval: Interval) -> Limits:
    """Limits of a Poisson mean of which `events` were seen; infinite above where the scale has none."""
    tail = (1 - level) / 2
    if interval == "exact":
        low = stats.chi2.ppf(tail, 2 * events) / 2 if events > 0 else 0.0
        return float(low), float(stats.chi2.isf(tail, 2 * events + 2) / 2)
    if interval == "mid_p":
        wide = 10 * np.sqrt(events + 1) + 20

        def above(mean: float) -> float:
            return float(stats.poisson.sf(events, mean) + 0.5 * stats.poisson.pmf(events, mean))

        low = _root(lambda mean: above(mean) - tail, max(0.0, events - wide), events + 1) if events > 0 else 0.0
        return low, _root(lambda mean: above(mean) - (1 - tail), events, events + wide)
    return log_limits(events, 1 / events, level) if events > 0 else (0.0, np.inf)


def log_limits(value: float, relative_variance: float, level: float) -> Limits:
    """Limits symmetric on the logarithmic scale; the variance is that of the logarithm."""
    wide = float(stats.norm.isf((1 - level) / 2) * np.sqrt(relative_variance))
    return float(value * np.exp(-wide)), float(value * np.exp(wide))


def conditional_ratio(
    events: tuple[int, int], times: tuple[float, float], level: float, interval: Interval
) -> tuple[float, Limits]:
    """p-value (of equal rates) and limits of the ratio of the first rate to the second, given their events' sum:
    of n = x₁ + x₂ events, x₁ is binomial with odds ratio · t₁/t₂. Exact: Clopper–Pearson limits and the two-sided p of
    outcomes no likelier than the one seen. Mid-p: half the probability of what was seen."""
    one, both, tail = events[0], events[0] + events[1], (1 - level) / 2
    null = times[0] / (times[0] + times[1])
    if interval == "exact":
        low = float(stats.beta.ppf(tail, one, both - one + 1)) if one > 0 else 0.0
        high = float(stats.beta.isf(tail, one + 1, both - one)) if one < both else 1.0
        p_value = float(stats.binomtest(one, both, null).pvalue)
    else:

        def above(share: float) -> float:
            return float(stats.binom.sf(one, both, share) + 0.5 * stats.binom.pmf(one, both, share))

        low = _root(lambda share: above(share) - tail, 0.0, one / both) if one > 0 else 0.0
        high = _root(lambda share: above(share) - (1 - tail), one / both, 1.0) if one < both else 1.0
        p_value = min(1.0, 2 * min(above(null), 1 - above(null)))
    scale = times[1] / times[0]
    return p_value, (low / (1 - low) * scale, high / (1 - high) * scale if high < 1 else np.inf)


def _root(of: Callable[[float], float], low: float, high: float) -> float:
    return float(optimize.brentq(of, low, high, xtol=1e-300, rtol=1e-14, maxiter=500))


def standardised(events: Values, times: Values, weights: Values) -> tuple[float, float, float]:
    """The directly standardised rate Σ w x/t, its Poisson variance Σ w² x/t², and the largest weight of one event,
    max w/t; `weights` (A,) add up to 1, `times` (A,) are positive wherever the weight is."""
    used = weights > 0
    share = weights[used] / times[used]
    return float(share @ events[used]), float(share**2 @ events[used]), float(share.max())


def gamma_limits(rate: float, variance: float, most: float, level: float) -> Limits:
    """Fay & Feuer's limits of a standardised rate (formulas 5 and 6; as R's `epitools::ageadjust.direct`)."""
    tail = (1 - level) / 2
    low = float(stats.gamma.ppf(tail, rate**2 / variance, scale=variance / rate)) if rate > 0 else 0.0
    above, spread = rate + most, variance + most**2
    return low, float(stats.gamma.isf(tail, above**2 / spread, scale=spread / above))
