"""Comparing groups: log-rank tests with weights and strata, and differences of restricted means and survival."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from dure.methods.survival.curves import Leaving, Values
from dure.methods.survival.parameters import Parameters


@dataclass(frozen=True)
class Compared:
    """Events observed and expected by group (G,), weighted as the curves are; the test's χ², its degrees and p."""

    observed: Values
    expected: Values
    chi2: float
    freedom: int
    p_value: float | None


def compare(people: Leaving, weighted: Leaving, squares: Leaving | None, p: Parameters) -> Compared:
    """Observed minus expected events, added over strata and times; arrays are (S, G, T).

    Without weights of people: Mantel 1966 and Fleming & Harrington 1981 (`survdiff`), the variance hypergeometric.
    With them: Xie & Liu 2005 (Stat Med 24:3089), whose variance puts sums of squared weights in the place of people.
    """
    n, d = people.at_risk(), people.events.sum(axis=1)
    everyone = n.sum(axis=1)
    risk = weighted.at_risk()
    together = risk.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(everyone[:, None] > 0, risk / together[:, None], 0.0)
        factor = np.where(everyone > 1, d * (everyone - d) / (everyone - 1), 0.0)
    bend = _bend(n, people.events, risk, weighted, p)
    observed = (bend[:, None] * weighted.events).sum(axis=(0, 2))
    expected = (bend[:, None] * share * weighted.events.sum(axis=1)[:, None]).sum(axis=(0, 2))
    size = share if squares is None else _spread(squares, everyone)
    variance = _variance(bend**2 * factor, share, size)
    gap = (observed - expected)[1:]
    inner = variance[1:, 1:]
    freedom = int(np.linalg.matrix_rank(inner, hermitian=True)) if inner.any() else 0
    chi2 = float(gap @ np.linalg.pinv(inner, hermitian=True) @ gap) if freedom else 0.0
    return Compared(observed, expected, chi2, freedom, float(stats.chi2.sf(chi2, freedom)) if freedom else None)


def _spread(squares: Leaving, everyone: Values) -> Values:
    """(S, G, T) squared weights at risk over the number of people at risk: a group's share where weights are 1."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(everyone[:, None] > 0, np.maximum(squares.at_risk(), 0.0) / everyone[:, None], 0.0))


def _variance(factor: Values, share: Values, size: Values) -> Values:
    """(G, G) Σ factor · Σ_l size_l (e_l − share)(e_l − share)ᵀ over strata and times."""
    groups = share.shape[1]
    cross = np.einsum("st,sgt,sht->gh", factor, size, share)
    both = np.einsum("st,sgt,sht->gh", factor * size.sum(axis=1), share, share)
    return np.asarray(np.diag(np.einsum("st,sgt->g", factor, size)) - cross - cross.T + both).reshape(groups, groups)


def _bend(n: Values, d: Values, risk: Values, weighted: Leaving, p: Parameters) -> Values:
    """(S, T) the weight of each time: 1, people at risk (Gehan), its root (Tarone–Ware), or Fleming–Harrington's
    S(t−)^rho (1−S(t−))^gamma with the survival of the stratum's groups together."""
    everyone = n.sum(axis=1)
    if p.test == "gehan":
        return np.asarray(risk.sum(axis=1))
    if p.test == "tarone_ware":
        return np.asarray(np.sqrt(np.maximum(risk.sum(axis=1), 0.0)))
    if not p.rho and not p.gamma:
        return np.ones_like(everyone)
    staying, together = (risk - weighted.events).sum(axis=1), risk.sum(axis=1)
    dead = d.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        steps = np.where((dead > 0) & (dead < everyone), staying / together, np.where(dead > 0, 0.0, 1.0))
    before = np.cumprod(np.concatenate([np.ones((len(steps), 1)), steps[:, :-1]], axis=1), axis=1)
    return np.asarray(before**p.rho * (1 - before) ** p.gamma)


@dataclass(frozen=True)
class Contrast:
    """An estimate with its standard error (of its logarithm where `ratio`), statistic, p and interval."""

    estimate: float
    error: float
    statistic: float
    p_value: float
    low: float
    high: float


def difference(one: tuple[float, float], other: tuple[float, float], level: float) -> Contrast | None:
    """one − other from (value, standard error) of groups that share nobody."""
    return _normal(one[0] - other[0], float(np.hypot(one[1], other[1])), level)


def ratio(one: tuple[float, float], other: tuple[float, float], level: float) -> Contrast | None:
    """one / other on the logarithmic scale (delta method)."""
    if one[0] <= 0 or other[0] <= 0:
        return None
    found = _normal(float(np.log(one[0] / other[0])), float(np.hypot(one[1] / one[0], other[1] / other[0])), level)
    if found is None:
        return None
    with np.errstate(over="ignore"):  # an upper limit beyond all numbers is none
        estimate, low, high = np.exp([found.estimate, found.low, found.high]).tolist()
    return Contrast(estimate, found.error, found.statistic, found.p_value, low, high)


def _normal(value: float, error: float, level: float) -> Contrast | None:
    if not error > 0:
        return None
    wide = float(stats.norm.ppf(0.5 + level / 2)) * error
    statistic = value / error
    return Contrast(value, error, statistic, float(2 * stats.norm.sf(abs(statistic))), value - wide, value + wide)
