"""Cumulative incidence of competing events by the Aalen–Johansen estimator, from counts by cause on the grid.

Aalen & Johansen 1978. Standard errors are the infinitesimal jackknife's, as in R's `survfit` of several states: the
influence of a person who leaves in interval j on the incidence at t is a_j + b_j F(t) from j on, and P(t) before, so
sums over intervals give the variance at every t.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dure.estimation.grids import merge_towards
from dure.methods.survival.curves import Curve, Leaving, Values, influences, limits
from dure.methods.survival.parameters import Parameters
from dure.methods.survival.tables import NUMBER, TEXT, WHOLE, Group, Rows, place_of
from dure.study.result import Table

INCIDENCE = ("incidence", "std_error", "ci_low", "ci_high")


def incidence(of: Curve, causes: Values, squares: Values, left: Leaving) -> tuple[Values, Values]:
    """(C, T) cumulative incidence and standard error, from weighted events by cause (C, T), their squared weights
    (C, T), and the squared weights of everybody who leaves. `of` is the curve of all causes together."""
    risk = of.weighted.at_risk()
    before = np.concatenate([[1.0], of.survival[:-1]])
    with np.errstate(invalid="ignore", divide="ignore"):
        each = np.where(of.at_risk > 0, before / risk, 0.0)  # what one event adds
    found = np.cumsum(causes * each, axis=1)
    died, alive = influences(of)
    greenwood = np.concatenate([[0.0], of.greenwood[:-1]])
    with np.errstate(invalid="ignore", divide="ignore"):
        passed = np.where(of.at_risk > 0, greenwood - 1 / risk, 0.0)
    errors = np.empty_like(found)
    for cause, (steps, total) in enumerate(zip(causes * each, found)):
        path = np.cumsum(steps * passed)
        sums = np.zeros((3, len(total)))  # of a², a·b and b² over those gone
        for other, own in enumerate(squares):
            sums += _gone(own, path + each * (other == cause) - died * total, died)
        sums += _gone(left.censored[:-1], path - alive * total, alive)
        gone = np.cumsum(sums, axis=1)
        errors[cause] = np.sqrt(
            np.maximum(gone[0] + 2 * total * gone[1] + total**2 * gone[2] + left.later() * path**2, 0.0)
        )
    return found, errors


def _gone(weights: Values, a: Values, b: Values) -> Values:
    return np.stack([weights * a * a, weights * a * b, weights * b * b])


def table(
    groups: Sequence[Group],
    counts: Values,
    weighted: Values,
    squares: Values,
    left: Leaving,
    p: Parameters,
    minimum: int,
) -> Table:
    """Incidence at the ends of intervals with enough events of every cause, at the declared times among them; arrays
    are (G, C, T), `left` squared weights by stratum and group. What all causes have together is the curve's: a cause of
    few would follow from the others, so where one is small a group shows none."""
    rows = Rows(
        {"group": TEXT, "cause": TEXT, "time": NUMBER, "at_risk": WHOLE, "events": WHOLE}
        | dict.fromkeys(INCIDENCE, NUMBER)
    )
    for place, group in enumerate(groups):
        of = group.curve
        found, errors = incidence(of, weighted[place], squares[place], left.of(place))
        shown = group.enough and bool((counts[place].sum(axis=1) >= minimum).all())
        runs = merge_towards(counts[place], minimum, [place_of(of.points, time) for time in p.times])
        for cause, name in enumerate(p.causes):
            low, high = limits(found[cause], errors[cause], p.level, p.transform)
            for run in runs:
                end = run.stop - 1
                numbers = (found[cause, end], errors[cause, end], low[end], high[end])
                rows.add(
                    () if shown else ("at_risk", "events", *INCIDENCE),
                    group=group.name, cause=name, time=float(of.points[end]), at_risk=int(of.at_risk[run.start]),
                    events=int(counts[place, cause, run].sum()), **dict(zip(INCIDENCE, map(float, numbers))),
                )  # fmt: skip
    return Table(
        rows.frame(),
        counts=("at_risk", "events"),
        behind=dict.fromkeys(INCIDENCE, "events"),
        derived=("time", "std_error", "ci_low", "ci_high"),
        withheld=rows.withheld,
    )
