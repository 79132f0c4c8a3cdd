"""A generalised linear model's sums over one hospital's rows: gradient, Hessian, deviance, likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from dure.estimation.families import Family

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

BLOCK = 4096
"""Rows per block: a block of 20 columns and its weighted copy stay in a core's own cache."""

BLAS = ThreadpoolController()
"""Blocks are too small to share: threads would mostly wait for each other, on a busy machine 30 times as long."""


@dataclass(frozen=True, repr=False)
class ModelRows:
    """What a model needs of the rows kept: X as (p, n), outcome, weights and offset as (n,) or None."""

    x: Matrix
    y: Vector
    weights: Vector | None
    offset: Vector | None


@dataclass
class Sums:
    """Sums at one coefficient vector: gradient (p,), Hessian (p, p), two scalars, and HC0's middle (p, p)."""

    gradient: Vector
    hessian: Matrix
    deviance: float = 0.0
    log_likelihood: float = 0.0
    meat: Matrix | None = None


def sums_at(
    family: Family, rows: ModelRows, beta: Vector, *, mean_outcome: float | None = None, robust: bool = False
) -> Sums:
    """Sums at `beta`; with `mean_outcome`, those of the first step, which starts from the data's own means
    (McCullagh & Nelder 2.5: one weighted least-squares step with working responses)."""
    columns, people = rows.x.shape
    found = Sums(np.zeros(columns), np.zeros((columns, columns)))
    if robust:
        found.meat = np.zeros((columns, columns))
    with BLAS.limit(limits=1), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for start in range(0, people, BLOCK):
            _add_block(found, family, rows, slice(start, start + BLOCK), beta, mean_outcome)
    if family.saturated is None:
        found.log_likelihood = float("nan")
    elif mean_outcome is None:
        best = family.saturated(rows.y)
        found.log_likelihood = float(best.sum() if rows.weights is None else rows.weights @ best) - found.deviance / 2
    return found


def _add_block(
    found: Sums, family: Family, rows: ModelRows, part: slice, beta: Vector, mean_outcome: float | None
) -> None:
    x, y = rows.x[:, part], rows.y[part]
    weights = None if rows.weights is None else rows.weights[part]
    offset = None if rows.offset is None else rows.offset[part]
    if mean_outcome is None:
        eta = beta @ x if offset is None else beta @ x + offset
        mean = family.mean(eta)
        curvature, residual = family.variance(mean), y - mean
    else:
        mean = family.start(y, mean_outcome)
        eta = family.link(mean)
        curvature = family.variance(mean)
        residual = (y - mean) + curvature * (eta if offset is None else eta - offset)
    if mean_outcome is None:
        deviance = family.deviance(y, eta, mean)
        found.deviance += float(deviance.sum() if weights is None else weights @ deviance)
    if weights is not None:
        curvature, residual = curvature * weights, residual * weights
    found.gradient += x @ residual
    found.hessian += _crossed(x, curvature)
    if found.meat is not None:
        found.meat += _crossed(x, residual**2)


def _crossed(x: Matrix, weights: Vector) -> Matrix:
    """X diag(weights) Xᵀ as one matrix with itself: half the work, and exactly symmetric."""
    half = x * np.sqrt(weights)
    return half @ half.T
