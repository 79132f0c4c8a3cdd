"""Exponential families with their canonical links: mean, variance, deviance, likelihood, starting means.

Formulas: McCullagh & Nelder, Generalized Linear Models (2nd ed. 1989), tables 2.1 and 2.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, gammaln, xlogy

Vector = NDArray[np.float64]
FamilyName = Literal["gaussian", "binomial", "poisson"]


@dataclass(frozen=True)
class Family:
    """One family; every function takes and returns (n,) arrays.

    `start(y, mean)` gives the fitted means of the first step, between each outcome and the overall mean.
    `deviance` and `log_likelihood` are per person; gaussian likelihood needs the dispersion and is left to
    the caller (NaN here).
    """

    name: FamilyName
    mean: Callable[[Vector], Vector]
    link: Callable[[Vector], Vector]
    variance: Callable[[Vector], Vector]
    deviance: Callable[[Vector, Vector, Vector], Vector]
    log_likelihood: Callable[[Vector, Vector, Vector], Vector]
    start: Callable[[Vector, float], Vector]


def _softplus(x: Vector) -> Vector:
    return np.asarray(np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x))))


def _binomial_likelihood(y: Vector, eta: Vector, mean: Vector) -> Vector:
    """log p(y) from the linear predictor: no loss where the mean rounds to 0 or 1."""
    return y * eta - _softplus(eta)


def _poisson_deviance(y: Vector, eta: Vector, mean: Vector) -> Vector:
    return np.asarray(2.0 * (xlogy(y, y) - y * eta - (y - mean)))


FAMILIES: dict[str, Family] = {
    "gaussian": Family(
        "gaussian",
        mean=lambda eta: eta,
        link=lambda mean: mean,
        variance=np.ones_like,
        deviance=lambda y, eta, mean: (y - mean) ** 2,
        log_likelihood=lambda y, eta, mean: np.full_like(y, np.nan),
        start=lambda y, mean: np.full_like(y, mean),
    ),
    "binomial": Family(
        "binomial",
        mean=expit,
        link=lambda mean: np.log(mean) - np.log1p(-mean),
        variance=lambda mean: mean * (1.0 - mean),
        deviance=lambda y, eta, mean: -2.0 * _binomial_likelihood(y, eta, mean),
        log_likelihood=_binomial_likelihood,
        start=lambda y, mean: (y + 0.5) / 2.0,
    ),
    "poisson": Family(
        "poisson",
        mean=np.exp,
        link=np.log,
        variance=lambda mean: mean,
        deviance=_poisson_deviance,
        log_likelihood=lambda y, eta, mean: y * eta - mean - gammaln(y + 1.0),
        start=lambda y, mean: (y + mean) / 2.0,
    ),
}
