"""Concordance of a linear predictor with follow-up: comparable pairs inside a place, counted in O(n log² n).

A pair is comparable where one has the event while the other is at risk and does not have it at that time; it agrees
where the one with the event has the higher predictor (Harrell et al. 1982; pairs within strata only).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dure.estimation.risk_sets import RiskSets

Vector = NDArray[np.float64]
Places = NDArray[np.int64]

SAME = 1e-11
"""Share of the predictor's range below which two are equal: the same person computed twice may differ in the last
digit."""


def pairs(sets: RiskSets, eta: Vector) -> Vector:
    """(3,) sums over comparable pairs of the product of their weights: agreeing, disagreeing, of equal predictor."""
    if not len(sets.event_rows):
        return np.zeros(3)
    size = float(np.ptp(eta)) * SAME
    rank = np.zeros(len(eta), dtype=np.int64)
    if size > 0:
        rank = np.unique(np.round((eta - eta.min()) / size), return_inverse=True)[1].astype(np.int64)
    rows, at = sets.event_rows, sets.event_at
    own, everyone = rank[rows], np.full(len(rows), len(rank))
    everybody = np.arange(len(rank))

    def over(limit: Places) -> Vector:
        """Of each event, the weight at risk with a rank below `limit`, without those who have the event too."""
        found = _before(rank, sets.weights, everybody, sets.leave[at], limit)
        if sets.entry_order is not None and sets.entered is not None:
            found -= _before(rank, sets.weights, sets.entry_order, sets.entered[at], limit)
        else:
            found -= _before(rank, sets.weights, everybody, sets.begin[at], limit)
        many = int(rank.max()) + 2
        keys = at * many + own
        order = np.argsort(keys, kind="stable")
        cumulated = np.concatenate(([0.0], np.cumsum(sets.weights[rows][order])))
        start, stop = (
            np.searchsorted(keys[order], at * many + np.minimum(edge, many - 1)) for edge in (np.zeros_like(at), limit)
        )
        return np.asarray(found - (cumulated[stop] - cumulated[start]))

    below, upto, all_ = over(own), over(own + 1), over(everyone)
    weight = sets.weights[rows]
    return np.array([weight @ below, weight @ (all_ - upto), weight @ (upto - below)])


def _before(rank: Places, weights: Vector, order: Places, ends: Places, limit: Places) -> Vector:
    """(q,) weight of the first `ends` rows of `order` whose rank is below `limit`.

    A prefix is a few runs of lengths 1, 2, 4 …, one for each bit of its length; rows are sorted by rank within all runs
    of one length at once.
    """
    found = np.zeros(len(ends))
    rank, weights, many = rank[order], weights[order], int(rank.max()) + 2
    limit = np.minimum(limit, many - 1)
    for bit in range(int(ends.max()).bit_length()):
        chosen = np.flatnonzero((ends >> bit) & 1)
        if not len(chosen):
            continue
        keys = (np.arange(len(rank)) >> bit) * many + rank
        sorted_ = np.argsort(keys, kind="stable")
        keys, cumulated = keys[sorted_], np.concatenate(([0.0], np.cumsum(weights[sorted_])))
        run = ((ends[chosen] >> bit) - 1) * many
        start, stop = np.searchsorted(keys, run), np.searchsorted(keys, run + limit[chosen])
        found[chosen] += cumulated[stop] - cumulated[start]
    return found
