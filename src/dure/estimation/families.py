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
    `deviance` and `saturated` are per person: the log-likelihood of a person is saturated − deviance / 2. The
    gaussian one needs the dispersion and is left to the caller (`saturated` is None there).
    """

    name: FamilyName
    mean: Callable[[Vector], Vector]
    link: Callable[[Vector], Vector]
    variance: Callable[[Vector], Vector]
    deviance: Callable[[Vector, Vector, Vector], Vector]
    saturated: Callable[[Vector], Vector] | None
    start: Callable[[Vector, float], Vector]


def _binomial_deviance(y: Vector, eta: Vector, mean: Vector) -> Vector:
    """From the linear predictor: no loss where the mean rounds to 0 or 1."""
    return np.asarray(2.0 * (np.maximum(eta, 0.0) + np.log1p(np.exp(-np.abs(eta))) - y * eta))


def _poisson_deviance(y: Vector, eta: Vector, mean: Vector) -> Vector:
    return np.asarray(2.0 * (xlogy(y, y) - y * eta - (y - mean)))


FAMILIES: dict[str, Family] = {
    "gaussian": Family(
        "gaussian",
        mean=lambda eta: eta,
        link=lambda mean: mean,
        variance=np.ones_like,
        deviance=lambda y, eta, mean: (y - mean) ** 2,
        saturated=None,
        start=lambda y, mean: np.full_like(y, mean),
    ),
    "binomial": Family(
        "binomial",
        mean=expit,
        link=lambda mean: np.log(mean) - np.log1p(-mean),
        variance=lambda mean: mean * (1.0 - mean),
        deviance=_binomial_deviance,
        saturated=np.zeros_like,  # y is 0 or 1
        start=lambda y, mean: (y + 0.5) / 2.0,
    ),
    "poisson": Family(
        "poisson",
        mean=np.exp,
        link=np.log,
        variance=lambda mean: mean,
        deviance=_poisson_deviance,
        saturated=lambda y: np.asarray(xlogy(y, y) - y - gammaln(y + 1.0)),
        start=lambda y, mean: (y + mean) / 2.0,
    ),
}
