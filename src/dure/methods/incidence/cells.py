"""Crude, standardised and indirectly standardised rates of groups, from sums over cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dure.estimation.rates import (
    Limits,
    conditional_ratio,
    count_limits,
    gamma_limits,
    log_limits,
    standardised,
)
from dure.methods.incidence.parameters import Parameters

Values = NDArray[np.float64]
EVERY = slice(None)


@dataclass(frozen=True)
class Cells:
    """Sums by group and level of `over`, (G, A) each: people, people with an event, events, person-time; and where
    robust, Σ(x − c t)², Σ(x − c t) t and Σ t² about the cell's centre c."""

    people: Values
    cases: Values
    events: Values
    time: Values
    centres: Values
    residuals: tuple[Values, ...] | None

    def spread(self, rate: float, group: int | slice, age: int | slice = EVERY) -> float:
        """Σ(x − rate·t)² over the people of some cells."""
        assert self.residuals is not None
        squares, cross, times = (part[group, age] for part in self.residuals)
        shift = self.centres[group, age] - rate
        return float(np.sum(squares + 2 * shift * cross + shift**2 * times))


def cells_of(
    arrays: Mapping[str, Any], centres: Values, residuals: tuple[Values, ...] | None, shape: tuple[int, int]
) -> Cells:
    people, cases, events, time = (
        np.asarray(arrays[name], dtype=np.float64).reshape(shape) for name in ("people", "cases", "events", "time")
    )
    return Cells(people, cases, events, time, np.asarray(centres).reshape(shape), residuals)


@dataclass(frozen=True)
class Rate:
    """A rate per unit of time with its variance and limits; `events` and `time` where it is a crude one."""

    value: float
    variance: float
    limits: Limits
    events: int = 0
    time: float = 0.0


def crude(cells: Cells, group: int | slice, p: Parameters) -> Rate | None:
    """Events over person-time, or None without person-time."""
    events, time = float(cells.events[group].sum()), float(cells.time[group].sum())
    if not time > 0:
        return None
    value = events / time
    if p.interval == "robust":
        variance = cells.spread(value, group) / time**2
        limits = log_limits(value, variance / value**2, p.level) if value > 0 else (np.nan, np.nan)
    else:
        variance = value / time
        low, high = count_limits(events, p.level, p.interval)
        limits = (low / time, high / time)
    return Rate(value, variance, limits, int(events), time)


def directly(cells: Cells, group: int, weights: Values, p: Parameters, minimum: int) -> Rate | None:
    """The standardised rate with gamma limits (robust: logarithmic); None where a level has no person-time, nobody an
    event, or too few events count effectively: a standard that weighs one cell alone would tell that cell."""
    used = weights > 0
    if (cells.time[group][used] <= 0).any():
        return None
    value, variance, most = standardised(cells.events[group], cells.time[group], weights)
    if not value > 0 or value**2 < minimum * variance:
        return None
    if p.interval != "robust":
        return Rate(value, variance, gamma_limits(value, variance, most, p.level))
    parts = [
        (weights[age] / cells.time[group, age]) ** 2
        * cells.spread(float(cells.events[group, age] / cells.time[group, age]), group, age)
        for age in np.flatnonzero(used).tolist()
    ]
    variance = float(np.sum(parts))
    return Rate(value, variance, log_limits(value, variance / value**2, p.level))


def indirectly(cells: Cells, group: int, reference: Values, p: Parameters) -> Rate | None:
    """The standardised incidence ratio: events over those expected at the reference rates (`time`); None where none
    are. Its limits take the expected number as known."""
    expected = float(cells.time[group] @ reference)
    if not expected > 0:
        return None
    events = float(cells.events[group].sum())
    if p.interval == "robust":
        parts = [cells.spread(float(rate), group, age) for age, rate in enumerate(reference)]
        value, variance = events / expected, float(np.sum(parts)) / expected**2
        limits = log_limits(value, variance / value**2, p.level) if value > 0 else (np.nan, np.nan)
        return Rate(value, variance, limits, int(events), expected)
    low, high = count_limits(events, p.level, p.interval)
    return Rate(events / expected, events / expected**2, (low / expected, high / expected), int(events), expected)


def ratio(one: Rate, other: Rate, p: Parameters, exactly: bool) -> tuple[float, float, float, float, float]:
    """Ratio, standard error of its logarithm, p, and limits; `exactly` by the conditional binomial distribution."""
    value = one.value / other.value
    error = float(np.sqrt(one.variance / one.value**2 + other.variance / other.value**2))
    if exactly:
        p_value, limits = conditional_ratio((one.events, other.events), (one.time, other.time), p.level, p.interval)
    else:
        limits = log_limits(value, error**2, p.level)
        p_value = float(2 * stats.norm.sf(abs(np.log(value)) / error))
    return value, error, p_value, *limits
