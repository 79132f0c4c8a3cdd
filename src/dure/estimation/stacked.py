"""Weighted means of an outcome in two arms, with errors that know the propensity score was estimated.

The score equations of the propensity model and the two weighted means are one system of estimating equations; its
sandwich is written here by influence functions (Lunceford & Davidian 2004, Stat Med 23:2937; Stefanski & Boos 2002,
Am Stat 56:29): φₐ = {1[A = a] w (Y − μₐ) + Dₐᵀ I⁻¹ x (A − e)} / Wₐ with Dₐ = Σ in arm a of (∂w/∂η)(Y − μₐ) x, I the
information of the logistic model and Wₐ the arm's sum of weights. The covariance of the means is Σ φφᵀ.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from dure.study.result import Table

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]
ROUNDING = 1e-12
"""A share nearer to 0 or 1 than this is there."""
NOTHING = 1e-14
"""Share of the larger mean below which an error is rounding: the outcome does not vary."""


def bread(x: Matrix, score: Vector, treated: Mask, slopes: Vector, residual: Vector) -> tuple[Vector, Matrix, Matrix]:
    """The logistic model's gradient (p,) and information (p, p), and D (2, p): controls, treated.

    `x` (p, n) of centred columns; `slopes` (n,) ∂w/∂η; `residual` (n,) Y − μ of the own arm, 0 for people without an
    outcome or a weight.
    """
    half = x * np.sqrt(score * (1 - score))
    change = slopes * residual
    both = np.stack([x @ np.where(treated, 0.0, change), x @ np.where(treated, change, 0.0)])
    return x @ (treated - score), half @ half.T, both


def influence(weights: Vector, treated: Mask, residual: Vector, sums: Vector, through: Vector) -> Matrix:
    """(2, n) influence of each person on the means of controls and treated; `through` (2, n) what a person does
    through the score, Dₐᵀ I⁻¹ x (A − e)."""
    own = weights * residual
    direct = np.stack([np.where(treated, 0.0, own), np.where(treated, own, 0.0)])
    return np.asarray((direct + through) / sums[:, None])


def effects(means: Vector, covariance: Matrix, binary: bool, level: float) -> Table:
    """Means of both arms, their difference, and for a 0/1 outcome the logarithms of risk ratio and odds ratio, whose
    errors come by the delta method. `means` (2,) and `covariance` (2, 2) of controls and treated."""
    m0, m1 = float(means[0]), float(means[1])
    slopes = {"mean (treated)": (m1, (0.0, 1.0)), "mean (control)": (m0, (1.0, 0.0))}
    slopes["difference"] = (m1 - m0, (-1.0, 1.0))
    if binary and all(ROUNDING < mean < 1 - ROUNDING for mean in (m0, m1)):
        slopes["log risk ratio"] = (float(np.log(m1 / m0)), (-1 / m0, 1 / m1))
        odds = float(np.log(m1 / (1 - m1)) - np.log(m0 / (1 - m0)))
        slopes["log odds ratio"] = (odds, (-1 / (m0 * (1 - m0)), 1 / (m1 * (1 - m1))))
    width, rows = float(stats.norm.ppf(0.5 + level / 2)), []
    for term, (estimate, slope) in slopes.items():
        error = float(np.sqrt(max(0.0, np.array(slope) @ covariance @ np.array(slope))))
        error = 0.0 if not term.startswith("log") and error <= NOTHING * max(abs(m0), abs(m1)) else error
        low, high = estimate - width * error, estimate + width * error
        tested = not term.startswith("mean") and error > 0
        statistic = estimate / error if tested else None
        ratio = term.startswith("log")
        rows.append(
            {
                "term": term,
                "estimate": estimate,
                "std_error": error,
                "statistic": statistic,
                "p_value": None if statistic is None else float(2 * stats.norm.sf(abs(statistic))),
                "ci_low": low,
                "ci_high": high,
                "ratio": float(np.exp(estimate)) if ratio else None,
                "ratio_low": float(np.exp(low)) if ratio else None,
                "ratio_high": float(np.exp(high)) if ratio else None,
            }
        )
    kinds = {name: pl.String if name == "term" else pl.Float64 for name in rows[0]}
    derived = ("statistic", "p_value", "ci_low", "ci_high", "ratio", "ratio_low", "ratio_high")
    return Table(pl.DataFrame(rows, schema=kinds), derived=derived)
