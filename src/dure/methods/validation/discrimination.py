"""How well scores tell cases from non-cases: AUROC with DeLong's variance, and average precision."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


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
