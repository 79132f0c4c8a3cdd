"""The table of coefficients that every regression gives: estimates, standard errors, tests and intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from dure.study.result import Table


def coefficient_table(
    names: Sequence[str],
    estimate: NDArray[np.float64],
    covariance: NDArray[np.float64],
    active: NDArray[np.bool_],
    level: float,
    freedom: int | None = None,
) -> Table:
    """One row per term; null where a term is not active (left out). Wald tests and intervals at `level`: Student's
    t with `freedom` degrees where given (a linear model's estimated dispersion), else normal."""
    estimate = np.where(active, estimate, np.nan)
    error = np.where(active, np.sqrt(np.maximum(np.diag(covariance), 0.0)), np.nan)
    with np.errstate(all="ignore"):
        statistic = np.where(error > 0, estimate / error, np.nan)  # of a fit without spread there is no test
    law = stats.t(freedom) if freedom else stats.norm()
    width = law.ppf(0.5 + level / 2) * error
    frame = pl.DataFrame(
        {
            "term": list(names),
            "estimate": estimate,
            "std_error": error,
            "statistic": statistic,
            "p_value": 2 * law.sf(np.abs(statistic)),
            "ci_low": estimate - width,
            "ci_high": estimate + width,
        }
    ).with_columns(pl.col(pl.Float64).fill_nan(None))
    return Table(frame, derived=("statistic", "p_value", "ci_low", "ci_high"))


def ratio_table(coefficients: Table) -> Table:
    """`term, ratio, ci_low, ci_high`: estimates and ends exponentiated, but of the intercept none."""

    def ratio(column: str) -> pl.Expr:
        value = pl.col(column).exp()
        return pl.when(value.is_finite()).then(value).otherwise(None)

    frame = coefficients.frame.filter(pl.col("term") != "Intercept").select(
        "term", ratio=ratio("estimate"), ci_low=ratio("ci_low"), ci_high=ratio("ci_high")
    )
    return Table(frame, derived=("ratio", "ci_low", "ci_high"))
