"""Standardised differences between groups, before and after weighting.

Of numbers: the difference of means over √((s₁² + s₂²)/2) (Austin 2009, Stat Med 28:3083). Of categories: the
Mahalanobis distance between the shares of all levels but the first (Yang & Dalton 2012, SAS Global Forum 335). With
more than two groups, the largest over all pairs.

After weighting means and shares are weighted. What divides them is a choice: `weighted`, the weighted people's own
standard deviations (R's tableone), or `unweighted`, those before weighting (R's cobalt), so that a difference can
shrink only where means come together.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dure.methods.table_one.layout import Layout

Numbers = NDArray[np.float64]
ROUNDING = 1e-13
"""Relative differences of a column's own numbers that are rounding: another split would leave something else."""


@dataclass(frozen=True)
class Sample:
    """One way of counting the same people, as they are or weighted. `known`, `means`, `variances` (groups, numbers);
    `people`, `levels` (groups, levels): persons, and what they count for."""

    known: Numbers
    means: Numbers
    variances: Numbers
    people: Numbers
    levels: Numbers


def differences(
    layout: Layout, variables: list[str], sample: Sample, spread: Sample, least: int, minimum: int = 0
) -> list[float | None]:
    """For each variable the largest absolute difference over pairs of groups of at least `least` people; None where
    there is no such pair, or where a level of one has fewer than `minimum`: a difference, exactly known, gives the
    count away that the table hides. `spread` gives the standard deviations."""
    found: list[float | None] = []
    for name in variables:
        sizes = [
            size
            for pair in itertools.combinations(range(len(layout.groups)), 2)
            if (size := _difference(layout, name, list(pair), sample, spread, least, minimum)) is not None
        ]
        found.append(max(sizes) if sizes else None)
    return found


def _difference(
    layout: Layout, name: str, pair: list[int], sample: Sample, spread: Sample, least: int, minimum: int
) -> float | None:
    if name in layout.numbers:
        column = layout.numbers.index(name)
        if (np.minimum(sample.known, spread.known)[pair, column] < least).any():
            return None
        variance = float(spread.variances[pair, column].mean())
        gap = abs(float(sample.means[pair[0], column] - sample.means[pair[1], column]))
        gap = 0.0 if gap <= ROUNDING * float(np.abs(sample.means[pair, column]).max()) else gap
        if np.isnan(gap) or np.isnan(variance):
            return None
        return gap / np.sqrt(variance) if variance > 0 else (0.0 if gap == 0 else None)
    part = layout.part(name)
    for one in (sample, spread):
        people = one.people[pair, part]
        if not (people.sum(axis=1) >= least).all() or (people < minimum).any():  # NaN where a level was withheld
            return None
    shares, spread_shares = (
        one.levels[pair, part] / one.levels[pair, part].sum(axis=1, keepdims=True) for one in (sample, spread)
    )
    return _distance(shares, spread_shares)


def _distance(shares: Numbers, spread: Numbers) -> float:
    """Mahalanobis distance between two multinomial shares (2, L), the first level left out."""
    covariance = sum((np.diag(p) - np.outer(p, p)) for p in spread[:, 1:]) / 2
    gap = shares[0, 1:] - shares[1, 1:]
    distance = float(gap @ np.linalg.pinv(np.atleast_2d(covariance)) @ gap)
    return float(np.sqrt(max(0.0, distance)))
