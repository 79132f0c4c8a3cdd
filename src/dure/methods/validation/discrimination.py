"""How well scores tell cases from non-cases: AUROC with DeLong's variance, and average precision."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

KINDS_BITS = 6
KINDS = 1 << KINDS_BITS


def auroc(scores: Matrix, case: NDArray[np.bool_]) -> tuple[Vector, Matrix]:
    """(m,) AUROC of (m, n) scores, ties counting half, and their (m, m) covariance; zeros where there is none.

    DeLong, DeLong & Clarke-Pearson 1988 by midranks (Sun & Xu 2014). The covariance needs two of each class.
    """
    cases, others = int(case.sum()), int((~case).sum())
    if not cases or not others:
        return np.zeros(len(scores)), np.zeros((len(scores), len(scores)))
    ranks = rankdata(scores, axis=1)
    of_cases = (ranks[:, case] - rankdata(scores[:, case], axis=1)) / others
    of_others = 1.0 - (ranks[:, ~case] - rankdata(scores[:, ~case], axis=1)) / cases
    covariance = np.zeros((len(scores), len(scores)))
    if min(cases, others) > 1:
        covariance = np.atleast_2d(np.cov(of_cases)) / cases + np.atleast_2d(np.cov(of_others)) / others
    return np.asarray(of_cases.mean(axis=1)), covariance


def varying(score: Vector) -> int:
    """People whose score is not the commonest one: where few, as of a flag that few people have,
    an exact AUROC or mean tells how many."""
    most = int(np.unique(score, return_counts=True)[1].max()) if len(score) else 0
    return len(score) - most


def alike(score: Vector) -> NDArray[np.int64]:
    """(KINDS,) people by what their score's bits hash to: equal scores stand together, so that no more people differ
    from the commonest score over all hospitals than stand beside the largest kind."""
    mixed = (score + 0.0).view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return np.bincount((mixed >> np.uint64(64 - KINDS_BITS)).astype(np.int64), minlength=KINDS).astype(np.int64)


def auroc_of_counts(cases: Vector, others: Vector) -> tuple[float, float]:
    """AUROC and DeLong's variance where (bins,) people of each class share a score, lowest first."""
    m, n = cases.sum(), others.sum()
    below = (np.cumsum(others) - others / 2) / n
    above = (m - np.cumsum(cases) + cases / 2) / m
    area = float(cases @ below / m)
    if min(m, n) < 2:
        return area, 0.0
    spread = cases @ (below - area) ** 2 / (m - 1) / m + others @ (above - area) ** 2 / (n - 1) / n
    return area, float(spread)


def average_precision(cases: Vector, others: Vector) -> float:
    """Σ (Rₖ − Rₖ₋₁) Pₖ from the highest score down, as scikit-learn defines it; 0 without cases."""
    if not cases.any():
        return 0.0
    found, wrong = np.cumsum(cases[::-1]), np.cumsum(others[::-1])
    precision = np.divide(found, found + wrong, out=np.zeros(len(found)), where=found + wrong > 0)
    return float(cases[::-1] @ precision / found[-1])


def by_value(score: Vector, case: NDArray[np.bool_]) -> tuple[Vector, Vector]:
    """People of each class at each distinct score, lowest first."""
    values, place = np.unique(score, return_inverse=True)
    cases = np.bincount(place[case], minlength=len(values)).astype(np.float64)
    return cases, np.bincount(place, minlength=len(values)) - cases
