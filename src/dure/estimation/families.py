"""Exponential families and links: mean, variance, score, information, deviance, likelihood, starting means.

Formulas: McCullagh & Nelder, Generalized Linear Models (2nd ed. 1989), chapter 2. A person's score is
(y − μ)·g·x with g = (dμ/dη)/V(μ), the expected information g·(dμ/dη)·x xᵀ, the observed one that less
(y − μ)·(dg/dη)·x xᵀ. With the canonical link g is 1 and both informations are one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, expit, gammaln, log_ndtr, ndtr, ndtri, polygamma, xlogy

Vector = NDArray[np.float64]
FamilyName = Literal["gaussian", "binomial", "poisson", "gamma", "negative_binomial"]
LinkName = Literal["identity", "log", "logit", "probit", "cloglog", "inverse"]

LINKS: dict[str, tuple[LinkName, ...]] = {
    "gaussian": ("identity", "log", "inverse"),
    "binomial": ("logit", "probit", "cloglog", "log", "identity"),
    "poisson": ("log", "identity"),
    "gamma": ("log", "inverse", "identity"),
    "negative_binomial": ("log",),
}
"""Links by family; the first is the usual one (of gamma, the one whose coefficients are ratios of means)."""


MOST_COUNTED = 100_000
"""Counts below this are looked up in a table of sums."""


def _everywhere(eta: Vector) -> bool:
    return True


@dataclass(frozen=True)
class Family:
    """One family with one link; every function takes and returns (n,) arrays.

    `mean`, `link` and `slope` (dμ/dη) belong to the link. `gain(eta, mean)` is g and `gain_slope` dg/dη, None where
    the link is canonical. `rest(y, eta, mean)` is y − μ, without loss where a probability is nearly 1. `inside` says
    whether all linear predictors give means that the family can have. `start(y, mean)` gives the fitted means of the
    first step, between each outcome and the overall mean. `deviance` and `saturated` are per person: the
    log-likelihood of a person is saturated − deviance / 2, but for the dispersion of gaussian and gamma, whose rest
    the caller adds.
    """

    name: FamilyName
    link_name: LinkName
    mean: Callable[[Vector], Vector]
    link: Callable[[Vector], Vector]
    variance: Callable[[Vector], Vector]
    deviance: Callable[[Vector, Vector, Vector], Vector]
    saturated: Callable[[Vector], Vector] | None
    start: Callable[[Vector, float], Vector]
    slope: Callable[[Vector, Vector], Vector] | None = None
    gain: Callable[[Vector, Vector], Vector] | None = None
    gain_slope: Callable[[Vector, Vector], Vector] | None = None
    rest: Callable[[Vector, Vector, Vector], Vector] = lambda y, eta, mean: y - mean
    inside: Callable[[Vector], bool] = _everywhere

    @property
    def canonical(self) -> bool:
        return self.gain is None


def _logit_deviance(y: Vector, eta: Vector, mean: Vector) -> Vector:
    """From the linear predictor: no loss where the mean rounds to 0 or 1."""
    return np.asarray(2.0 * (np.maximum(eta, 0.0) + np.log1p(np.exp(-np.abs(eta))) - y * eta))


def _poisson_deviance(y: Vector, eta: Vector, mean: Vector) -> Vector:
    return np.asarray(2.0 * (xlogy(y, y) - y * eta - (y - mean)))


@lru_cache(maxsize=64)
def family(name: FamilyName, link: LinkName | None = None, theta: float = np.inf) -> Family:
    """The family with its link; `theta` is the size of a negative binomial (variance μ + μ²/θ)."""
    link = link or LINKS[name][0]
    if name == "gaussian":
        return _gaussian(link)
    if name == "binomial":
        return _binomial(link)
    if name == "poisson" or (name == "negative_binomial" and not np.isfinite(theta)):
        return _poisson(link)
    return _gamma(link) if name == "gamma" else _negative_binomial(theta)


def _gaussian(link: LinkName) -> Family:
    def deviance(y: Vector, eta: Vector, mean: Vector) -> Vector:
        return np.asarray((y - mean) ** 2)

    def start(y: Vector, mean: float) -> Vector:
        return np.full_like(y, mean)

    if link == "identity":
        return Family("gaussian", link, lambda e: e, lambda m: m, np.ones_like, deviance, None, start)
    if link == "log":
        own: dict[str, Any] = {"slope": lambda e, m: m, "gain": lambda e, m: m, "gain_slope": lambda e, m: m}
        return Family("gaussian", link, np.exp, np.log, np.ones_like, deviance, None, start, **own)
    own = {
        "slope": lambda e, m: -(m**2),
        "gain": lambda e, m: -(m**2),
        "gain_slope": lambda e, m: 2 * m**3,
    }
    return Family(
        "gaussian", link, lambda e: 1 / e, lambda m: 1 / m, np.ones_like, deviance, None, start, **own, inside=_positive
    )


def _positive(eta: Vector) -> bool:
    return bool((eta > 0).all())


def _poisson(link: LinkName) -> Family:
    def saturated(y: Vector) -> Vector:
        return np.asarray(xlogy(y, y) - y - gammaln(y + 1.0))

    def start(y: Vector, mean: float) -> Vector:
        return (y + mean) / 2.0

    if link == "log":
        return Family("poisson", link, np.exp, np.log, lambda m: m, _poisson_deviance, saturated, start)
    return Family(
        "poisson",
        link,
        lambda e: e,
        lambda m: m,
        lambda m: m,
        lambda y, e, m: _poisson_deviance(y, np.log(m), m),
        saturated,
        start,
        slope=lambda e, m: np.ones_like(m),
        gain=lambda e, m: 1 / m,
        gain_slope=lambda e, m: -1 / m**2,
        inside=_positive,
    )


def _gamma(link: LinkName) -> Family:
    """Variance μ²; `saturated` is −log y, of which the caller makes the likelihood (`gamma_likelihood`)."""

    def deviance(y: Vector, eta: Vector, mean: Vector) -> Vector:
        ratio = y / mean
        return np.asarray(2.0 * (ratio - 1.0 - np.log(ratio)))

    functions: dict[str, Any] = {
        "log": (np.exp, np.log, lambda e, m: m, lambda e, m: 1 / m, lambda e, m: -1 / m),
        "identity": (
            lambda e: e,
            lambda m: m,
            lambda e, m: np.ones_like(m),
            lambda e, m: 1 / m**2,
            lambda e, m: -2 / m**3,
        ),
        "inverse": (
            lambda e: 1 / e,
            lambda m: 1 / m,
            lambda e, m: -(m**2),
            lambda e, m: -np.ones_like(m),
            lambda e, m: np.zeros_like(m),
        ),
    }
    mean, of, slope, gain, gain_slope = functions[link]
    return Family(
        "gamma",
        link,
        mean,
        of,
        lambda m: m**2,
        deviance,
        lambda y: -np.log(y),
        lambda y, overall: (y + overall) / 2.0,
        slope=slope,
        gain=gain,
        gain_slope=gain_slope,
        inside=_everywhere if link == "log" else _positive,
    )


def gamma_likelihood(weight: float, saturated: float, deviance: float, dispersion: float) -> float:
    """Log-likelihood of a gamma model with this dispersion, from Σw, Σw·(−log y) and the deviance."""
    shape = 1.0 / dispersion
    return float(weight * (shape * np.log(shape) - shape - gammaln(shape)) - shape * deviance / 2 + saturated)


def _binomial(link: LinkName) -> Family:
    def start(y: Vector, mean: float) -> Vector:
        return (y + 0.5) / 2.0

    if link == "logit":
        return Family(
            "binomial",
            link,
            expit,
            lambda m: np.log(m) - np.log1p(-m),
            lambda m: m * (1.0 - m),
            _logit_deviance,
            np.zeros_like,  # y is 0 or 1
            start,
        )
    mean, of, missed, slope, gain, gain_slope, inside = _BINOMIAL[link]

    def deviance(y: Vector, eta: Vector, fitted: Vector) -> Vector:
        if link == "probit":
            return np.asarray(-2.0 * log_ndtr(np.where(y > 0, eta, -eta)))
        return np.asarray(-2.0 * np.log(np.where(y > 0, fitted, missed(eta))))

    return Family(
        "binomial",
        link,
        mean,
        of,
        lambda m: m * (1.0 - m),
        deviance,
        np.zeros_like,
        start,
        slope=slope,
        gain=gain,
        gain_slope=gain_slope,
        rest=lambda y, eta, fitted: np.where(y > 0, missed(eta), -fitted),
        inside=inside,
    )


def _density(eta: Vector) -> Vector:
    return np.asarray(np.exp(-(eta**2) / 2) / np.sqrt(2 * np.pi))


def _probit_gain(eta: Vector, mean: Vector) -> Vector:
    """φ/(Φ·(1 − Φ)) by its logarithm: the tails do not vanish."""
    return np.asarray(np.exp(-(eta**2) / 2 - np.log(2 * np.pi) / 2 - log_ndtr(eta) - log_ndtr(-eta)))


def _cloglog_slope(eta: Vector, mean: Vector) -> Vector:
    return np.asarray(np.exp(eta - np.exp(eta)))


def _cloglog_gain(eta: Vector, mean: Vector) -> Vector:
    return np.asarray(np.exp(eta) / mean)


_BINOMIAL: dict[str, Any] = {  # mean, link, 1 − mean, slope, gain, gain's slope, inside
    "probit": (
        ndtr,
        ndtri,
        lambda e: ndtr(-e),
        lambda e, m: _density(e),
        _probit_gain,
        lambda e, m: -e * _probit_gain(e, m) - (ndtr(-e) - m) * _probit_gain(e, m) ** 2,
        _everywhere,
    ),
    "cloglog": (
        lambda e: -np.expm1(-np.exp(e)),
        lambda m: np.log(-np.log1p(-m)),
        lambda e: np.exp(-np.exp(e)),
        _cloglog_slope,
        _cloglog_gain,
        lambda e, m: _cloglog_gain(e, m) * (1 - _cloglog_slope(e, m) / m),
        _everywhere,
    ),
    "log": (
        np.exp,
        np.log,
        lambda e: -np.expm1(e),
        lambda e, m: m,
        lambda e, m: -1 / np.expm1(e),
        lambda e, m: m / np.expm1(e) ** 2,
        lambda e: bool((e < 0).all()),
    ),
    "identity": (
        lambda e: e,
        lambda m: m,
        lambda e: 1 - e,
        lambda e, m: np.ones_like(m),
        lambda e, m: 1 / (m * (1 - m)),
        lambda e, m: (2 * m - 1) / (m * (1 - m)) ** 2,
        lambda e: bool(((e > 0) & (e < 1)).all()),
    ),
}


def _negative_binomial(theta: float) -> Family:
    """Variance μ + μ²/θ with the log link (Lawless 1987; MASS::glm.nb)."""

    def deviance(y: Vector, eta: Vector, mean: Vector) -> Vector:
        return np.asarray(2.0 * (xlogy(y, y) - y * eta - (y + theta) * (np.log(y + theta) - np.log(mean + theta))))

    def saturated(y: Vector) -> Vector:
        rising = gammaln(y + theta) - gammaln(theta) - gammaln(y + 1.0)
        return np.asarray(rising + theta * np.log(theta) + xlogy(y, y) - (y + theta) * np.log(y + theta))

    return Family(
        "negative_binomial",
        "log",
        np.exp,
        np.log,
        lambda m: m + m**2 / theta,
        deviance,
        saturated,
        lambda y, mean: (y + mean) / 2.0,
        slope=lambda e, m: m,
        gain=lambda e, m: theta / (theta + m),
        gain_slope=lambda e, m: -theta * m / (theta + m) ** 2,
    )


def size_score(y: Vector, mean: Vector, theta: float) -> tuple[Vector, Vector, Vector]:
    """Of each person's log-likelihood of a negative binomial: the slope in log θ, minus its second derivative, and
    minus the mixed derivative with the linear predictor (all (n,)).

    In α = 1/θ (Lawless 1987, formulas 2.3 to 2.5), where nothing cancels as α goes to 0 and the model to a Poisson one.
    """
    alpha = 1.0 / theta
    product = alpha * mean
    once, twice = _rising(y, alpha)
    slope = once + _left_of_log(product, 1) / alpha**2 - y * mean / (1 + product)
    bend = -twice + _left_of_log(product, 2) / alpha**3 + y * (mean / (1 + product)) ** 2
    mixed = -(y - mean) * product / (1 + product) ** 2
    return -alpha * slope, -(alpha**2 * bend + alpha * slope), mixed


def _rising(y: Vector, alpha: float) -> tuple[Vector, Vector]:
    """Σ j/(1 + αj) and Σ (j/(1 + αj))² over whole j < y; by digamma functions where y is not whole, or large."""
    if len(y) and y.max() < MOST_COUNTED and (y == np.floor(y)).all():
        each = np.arange(int(y.max()) + 1) / (1 + alpha * np.arange(int(y.max()) + 1))
        places = y.astype(np.int64)
        first, second = (np.concatenate([[0.0], np.cumsum(values)]) for values in (each, each**2))
        return first[places], second[places]
    theta = 1.0 / alpha
    some = theta * (digamma(y + theta) - digamma(theta))
    squares = theta**2 * (polygamma(1, theta) - polygamma(1, y + theta))
    return theta * (y - some), theta**2 * (y - 2 * some + squares)


def _left_of_log(x: Vector, times: Literal[1, 2]) -> Vector:
    """log(1 + x) − x/(1 + x), or −2 log(1 + x) + 2x/(1 + x) + (x/(1 + x))²: by their series where they cancel."""
    part = x / (1 + x)
    exact = np.log1p(x) - part if times == 1 else -2 * np.log1p(x) + 2 * part + part**2
    k = np.arange(2, 13)
    factors = (-1.0) ** k * (k - 1) / k * (1 if times == 1 else k - 2)
    small = np.minimum(x, 0.03)
    series = np.zeros_like(x)
    for factor in factors[::-1]:
        series = (series + factor) * small
    return np.asarray(np.where(x < 0.03, series * small, exact))


FAMILIES: dict[str, Family] = {name: family(name) for name in ("gaussian", "binomial", "poisson", "gamma")}
"""Each with its usual link."""
