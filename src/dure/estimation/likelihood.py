"""A generalised linear model's sums over one hospital's rows: gradient, information, deviance, likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from dure.estimation.families import Family, size_score

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

BLOCK = 4096
"""Rows per block: a block of 20 columns and its weighted copy stay in a core's own cache."""
OUTSIDE = 1e300
"""The deviance where a mean is one that the family cannot have, or overflows: larger than all, and still a number."""

BLAS = ThreadpoolController()
"""Blocks are too small to share: threads would mostly wait for each other, on a busy machine 30 times as long."""


@dataclass(frozen=True, repr=False)
class ModelRows:
    """What a model needs of the rows kept: X as (p, n), outcome, weights and offset as (n,) or None.

    `centre` (p,) is subtracted from X block by block, which costs less than a second matrix. `saturated` is the sum of
    the family's saturated log-likelihoods, where it is known already.
    """

    x: Matrix
    y: Vector
    weights: Vector | None
    offset: Vector | None
    centre: Vector | None = None
    saturated: float | None = None

    def columns(self, part: slice) -> Matrix:
        """(p, rows of the part), centred."""
        return self.x[:, part] if self.centre is None else self.x[:, part] - self.centre[:, None]


@dataclass
class Sums:
    """Sums at one coefficient vector: gradient (p,), expected information (p, p), deviance, log-likelihood.

    `pearson`: Σ w (y − μ)²/V(μ). `meat` (p, p): the middle of a sandwich. `observed` (p, p): the observed
    information. `size` (p + 2,): of a negative binomial's log θ the slope, minus the curvature, and minus the mixed
    derivatives with the coefficients. `penalty` (p,): Firth's addition to the gradient.
    """

    gradient: Vector
    hessian: Matrix
    deviance: float = 0.0
    log_likelihood: float = 0.0
    pearson: float = 0.0
    meat: Matrix | None = None
    observed: Matrix | None = None
    size: Vector | None = None
    penalty: Vector | None = None


@dataclass(frozen=True)
class Wanted:
    """What is summed beside gradient and information: `theta` (a negative binomial's size) asks for `size`,
    `inverse` (p, p), an inverse information, for Firth's `penalty`, `clusters` (n,) codes for a `meat` of clusters."""

    robust: bool = False
    observed: bool = False
    pearson: bool = False
    theta: float | None = None
    inverse: Matrix | None = None
    clusters: NDArray[np.int64] | None = None


def sums_at(
    family: Family,
    rows: ModelRows,
    beta: Vector,
    *,
    mean_outcome: float | None = None,
    robust: bool = False,
    wanted: Wanted | None = None,
) -> Sums:
    """Sums at `beta`; with `mean_outcome`, those of the first step, which starts from the data's own means
    (McCullagh & Nelder 2.5: one weighted least-squares step with working responses)."""
    columns, people = rows.x.shape
    wanted = wanted or Wanted(robust=robust)
    found = Sums(np.zeros(columns), np.zeros((columns, columns)))
    if wanted.robust:
        found.meat = np.zeros((columns, columns))
    if wanted.observed:
        found.observed = np.zeros((columns, columns))
    if wanted.theta is not None:
        found.size = np.zeros(columns + 2)
    if wanted.inverse is not None:
        found.penalty = np.zeros(columns)
    residuals = np.zeros(people if wanted.clusters is not None else 0)
    with BLAS.limit(limits=1), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for start in range(0, people, BLOCK):
            part = slice(start, start + BLOCK)
            scores = _add_block(found, family, rows, part, beta, mean_outcome, wanted)
            if wanted.clusters is not None:
                residuals[part] = scores
        if wanted.clusters is not None:
            centre = np.zeros(columns) if rows.centre is None else rows.centre
            by_cluster = [
                np.bincount(wanted.clusters, weights=(row - middle) * residuals) for row, middle in zip(rows.x, centre)
            ]
            scored = np.asarray(by_cluster, dtype=np.float64).reshape(columns, -1)
            found.meat = scored @ scored.T
    if family.saturated is None:
        found.log_likelihood = float("nan")
    elif mean_outcome is None:
        best = saturated(family, rows) if rows.saturated is None else rows.saturated
        found.log_likelihood = best - found.deviance / 2
    if mean_outcome is None and not (
        found.deviance < OUTSIDE and np.isfinite(found.gradient).all() and np.isfinite(found.hessian).all()
    ):
        return _outside(found)
    return found


def saturated(family: Family, rows: ModelRows) -> float:
    """The largest log-likelihood that the family can give these outcomes, but for a dispersion."""
    if family.saturated is None:
        return float("nan")
    best = family.saturated(rows.y)
    return float(best.sum() if rows.weights is None else rows.weights @ best)


def _outside(found: Sums) -> Sums:
    """Nothing can be summed here; the next step has to be shorter."""
    for name in ("gradient", "hessian", "meat", "observed", "size", "penalty"):
        value = getattr(found, name)
        if value is not None:
            setattr(found, name, np.zeros_like(value))
    found.deviance, found.log_likelihood, found.pearson = OUTSIDE, -OUTSIDE, 0.0
    return found


def _add_block(
    found: Sums,
    family: Family,
    rows: ModelRows,
    part: slice,
    beta: Vector,
    mean_outcome: float | None,
    wanted: Wanted,
) -> Vector:
    """Adds a block's sums; returns its weighted residuals (n of the block,)."""
    x, y = rows.columns(part), rows.y[part]
    weights = None if rows.weights is None else rows.weights[part]
    offset = None if rows.offset is None else rows.offset[part]
    if mean_outcome is None:
        eta = beta @ x if offset is None else beta @ x + offset
        if not family.inside(eta):
            found.deviance = OUTSIDE
            return np.zeros_like(y)
        mean = family.mean(eta)
        residual, curvature = _score(family, y, eta, mean)
        deviance = family.deviance(y, eta, mean)
        found.deviance += float(deviance.sum() if weights is None else weights @ deviance)
        _add_more(found, family, x, y, eta, mean, curvature, weights, wanted)
    else:
        mean = family.start(y, mean_outcome)
        eta = family.link(mean)
        residual, curvature = _score(family, y, eta, mean)
        residual = residual + curvature * (eta if offset is None else eta - offset)
    if weights is not None:
        curvature, residual = curvature * weights, residual * weights
    found.gradient += x @ residual
    found.hessian += _crossed(x, curvature)
    if found.meat is not None and wanted.clusters is None:
        found.meat += _crossed(x, residual**2)
    return residual


def _score(family: Family, y: Vector, eta: Vector, mean: Vector) -> tuple[Vector, Vector]:
    """Each person's score in the linear predictor, and expected information."""
    if family.gain is None or family.slope is None:
        return y - mean, family.variance(mean)
    gain = family.gain(eta, mean)
    return family.rest(y, eta, mean) * gain, family.slope(eta, mean) * gain


def _add_more(
    found: Sums,
    family: Family,
    x: Matrix,
    y: Vector,
    eta: Vector,
    mean: Vector,
    curvature: Vector,
    weights: Vector | None,
    wanted: Wanted,
) -> None:
    """What only some models need of a block."""
    weighed = np.ones_like(y) if weights is None else weights
    if wanted.pearson:
        found.pearson += float(weighed @ ((y - mean) ** 2 / family.variance(mean)))
    if found.observed is not None:
        bent = 0.0 if family.gain_slope is None else family.rest(y, eta, mean) * family.gain_slope(eta, mean)
        found.observed += (x * ((curvature - bent) * weighed)) @ x.T  # of either sign: no square root
    if found.size is not None and wanted.theta is not None:
        first, second, mixed = size_score(y, mean, wanted.theta)
        found.size[0] += weighed @ first
        found.size[1] += weighed @ second
        found.size[2:] += x @ (weighed * mixed)
    if found.penalty is not None and wanted.inverse is not None:
        leverage = curvature * ((wanted.inverse @ x) * x).sum(axis=0)
        found.penalty += x @ (weighed * leverage * (0.5 - mean))


def _crossed(x: Matrix, weights: Vector) -> Matrix:
    """X diag(weights) Xᵀ as one matrix with itself: half the work, and exactly symmetric."""
    half = x * np.sqrt(weights)
    return half @ half.T
