"""The best split of each node from its histogram (Chen & Guestrin 2016, section 3; eq. 6 and 7).

A split's gain is T(G_L)²/(H_L + λ) + T(G_R)²/(H_R + λ) − T(G)²/(H + λ), with T the soft threshold at α; XGBoost's,
which has no factor of one half. Both sides need enough Hessian and enough people. Missing values are tried on either
side (their algorithm 3). Gains equal to 1e-9 are ties; the split that XGBoost's `hist` looks at first wins (`_ranks`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dure.methods.trees.forest import Layout
from dure.methods.trees.parameters import Parameters

Sums = NDArray[np.float64]
"""(…, 3): gradients, Hessians, people."""
TIE = 1e-9
NOISE = 1e-11
"""Share of the children's scores below which a gain is what rounding leaves of none."""


@dataclass(frozen=True)
class Splits:
    """For each node: the best split's gain (0: none may be made), column, slot, side of missing values, and the
    sums of its left side."""

    gain: NDArray[np.float64]
    column: NDArray[np.int64]
    slot: NDArray[np.int64]
    missing_left: NDArray[np.bool_]
    left: Sums


def score(sums: Sums, p: Parameters) -> NDArray[np.float64]:
    """T(G)² / (H + λ)."""
    gradient, hessian = sums[..., 0], sums[..., 1] + p.reg_lambda
    if p.reg_alpha:
        gradient = np.sign(gradient) * np.maximum(np.abs(gradient) - p.reg_alpha, 0)
    return np.divide(gradient * gradient, hessian, out=np.zeros_like(hessian), where=hessian > 0)


def leaf(sums: Sums, p: Parameters) -> NDArray[np.float64]:
    """−η · T(G) / (H + λ)."""
    gradient, hessian = sums[..., 0], sums[..., 1] + p.reg_lambda
    soft = np.sign(gradient) * np.maximum(np.abs(gradient) - p.reg_alpha, 0)
    return np.asarray(-p.learning_rate * np.divide(soft, hessian, out=np.zeros_like(hessian), where=hessian > 0))


def able(sums: Sums, p: Parameters, minimum: int) -> NDArray[np.bool_]:
    """Whether a node has people and Hessian for two sides."""
    return np.asarray((sums[..., 2] >= 2 * minimum) & (sums[..., 1] >= 2 * p.min_child_weight) & (sums[..., 1] > 0))


def best_splits(
    histograms: Sums, nodes: Sums, layout: Layout, p: Parameters, minimum: int, columns: NDArray[np.bool_]
) -> Splits:
    """Of `histograms` (k, cells, 3) of nodes with the sums `nodes` (k, 3), over the columns allowed."""
    places = _padded(layout)
    whole = np.concatenate([histograms, np.zeros((len(histograms), 1, 3))], axis=1)[:, places]  # (k, p, slots, 3)
    size = np.asarray(layout.sizes)
    missing = np.take_along_axis(whole, (size - 1)[None, :, None, None], axis=2)  # (k, p, 1, 3)
    known = nodes[:, None, None, :] - missing
    one_hot = np.array([bool(levels) for levels in layout.levels])
    left = np.empty((*whole.shape[:3], 2, 3))  # (k, p, slots, missing right or left, 3)
    left[..., 0, :] = np.where(one_hot[None, :, None, None], known - whole, whole.cumsum(axis=2))
    slot = np.arange(places.shape[1])
    apart = slot[None, :] == (size - 1)[:, None]  # all known left, missing right
    left[..., 0, :] = np.where(apart[None, :, :, None], known, left[..., 0, :])
    left[..., 1, :] = left[..., 0, :] + missing
    right = nodes[:, None, None, None, :] - left
    # A number's cut after its last bin is the same split as `apart`; beyond `size` there is nothing.
    same = ~one_hot[:, None] & (slot[None, :] == (size - 2)[:, None])
    allowed = (slot[None, :] < size[:, None]) & ~same & columns[:, None]
    usable = np.broadcast_to(allowed[None, :, :, None], left.shape[:4]).copy()
    usable[..., 1] &= (missing[..., 2] > 0) & ~apart[None]
    for side in (left, right):
        usable &= (side[..., 2] >= max(minimum, 1)) & (side[..., 1] >= p.min_child_weight) & (side[..., 1] > 0)
    children = score(left, p) + score(right, p)
    gain = children - score(nodes, p)[:, None, None, None]
    usable &= gain > NOISE * children
    gain = np.where(usable, gain, 0.0).reshape(len(nodes), -1)
    best = gain.max(axis=1)
    tied = gain >= best[:, None] * (1 - TIE)
    chosen = np.where(tied, _ranks(layout).ravel(), np.iinfo(np.int64).max).argmin(axis=1)
    best = np.where((best > 0) & (best >= p.gamma), best, 0.0)
    column, at, side_of = np.unravel_index(chosen, left.shape[1:4])
    sums = left.reshape(len(nodes), -1, 3)[np.arange(len(nodes)), chosen]
    return Splits(best, column, at, side_of.astype(bool), sums)


def _padded(layout: Layout) -> NDArray[np.int64]:
    """(p, slots) place of each column's code among all cells; one past the end where a column has fewer."""
    sizes = layout.sizes
    total, start = sum(sizes), 0
    found = np.full((len(sizes), max(sizes)), total, dtype=np.int64)
    for column, size in enumerate(sizes):
        found[column, :size] = np.arange(start, start + size)
        start += size
    return found


def _ranks(layout: Layout) -> NDArray[np.int64]:
    """(p, slots, 2) the order in which splits are looked at. Column after column; of a number, bins from the left with
    missing values right, then from the right with missing values left; of a category, level after level, missing right
    before left; all known against missing comes before any with missing left."""
    sizes = layout.sizes
    slots = max(sizes)
    found = np.empty((len(sizes), slots, 2), dtype=np.int64)
    for column, (size, levels) in enumerate(zip(sizes, layout.levels)):
        slot = np.arange(slots)
        if levels:
            found[column] = 3 * slot[:, None] + np.array([0, 2])
            found[column, size - 1, 0] = 1
        else:
            found[column, :, 0], found[column, :, 1] = slot, 2 * slots - slot
        found[column] += column * 3 * slots
    return found
