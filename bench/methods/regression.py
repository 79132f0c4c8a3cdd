"""Logistic and Poisson regression, against pooled glum at equal convergence."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import glum
import numpy as np
import polars as pl
import tabmat

import dure

Frames = dict[str, pl.DataFrame]
OUTCOMES = {"binomial": "sick", "poisson": "visits"}
TOLERANCE = 1e-10
"""Of glum's gradient; its coefficients are then right to about nine digits, as ours are."""


def frames(rows: int, covariates: int, hospitals: int) -> Frames:
    """Numbers on unlike scales and one category of three levels (two of the covariates' columns)."""
    random = np.random.default_rng(5)
    numeric = covariates - 2
    scale = np.geomspace(0.01, 100, numeric)
    effect = random.normal(size=numeric) * 0.12
    found = {}
    for place, size in enumerate(np.diff(np.linspace(0, rows, hospitals + 1).astype(int))):
        x = random.standard_normal((numeric, size)) + 0.3 * random.standard_normal(size)
        stage = random.choice(3, size, p=[0.5, 0.3, 0.2])
        eta = effect @ x + np.array([0.0, 0.3, -0.2])[stage]
        found[f"h{place}"] = pl.DataFrame(
            {
                "sick": (random.random(size) < 1 / (1 + np.exp(1 - eta))).astype(float),
                "visits": random.poisson(np.exp(eta - 0.2)).astype(float),
                **{f"x{j}": values * scale[j] + 3 * scale[j] for j, values in enumerate(x)},
                "stage": pl.Series(np.array(["a", "b", "c"])[stage]).cast(pl.Enum(["a", "b", "c"])),
            }
        )
    return found


def _numeric(data: Frames) -> list[str]:
    return [name for name in next(iter(data.values())).columns if name.startswith("x")]


def ours(data: Frames) -> tuple[float, Any]:
    """Both fits, one after the other; coefficients and standard errors, intercepts first, as columns."""
    found, start = [], time.perf_counter()
    for family, outcome in OUTCOMES.items():
        formula = f"{outcome} ~ {' + '.join(_numeric(data))} + stage"
        found.append(dure.simulate(data, "regression", {"formula": formula, "family": family})["coefficients"])
    took = time.perf_counter() - start
    return took, np.hstack([table.select("estimate", "std_error").to_numpy() for table in found])


def glum_(data: Frames) -> tuple[float, Any]:
    """glum's best case: its matrix is ready before the clock starts; standard errors are inside it, as in ours."""
    pooled = pl.concat(data.values())
    dense = tabmat.DenseMatrix(pooled.select(_numeric(data)).to_numpy(order="fortran"))
    x = tabmat.SplitMatrix([dense, tabmat.CategoricalMatrix(pooled["stage"].cast(str).to_list(), drop_first=True)])
    found, took = [], 0.0
    for family, outcome in OUTCOMES.items():
        y = pooled[outcome].to_numpy()
        start = time.perf_counter()
        model = glum.GeneralizedLinearRegressor(family=family, alpha=0, gradient_tol=TOLERANCE)
        model.fit(x, y)
        errors = np.sqrt(np.diag(model.covariance_matrix(x, y, robust=False, dispersion=1.0)))
        took += time.perf_counter() - start
        errors *= np.sqrt(1 - (len(errors) / len(y)))  # glum multiplies by n/(n − p), which no other program does
        found.append(np.column_stack([np.concatenate([[model.intercept_], model.coef_]), errors]))
    return took, np.hstack(found)


PEERS: dict[str, Callable[[Frames], tuple[float, Any]]] = {"glum": glum_}
TARGETS: dict[str, float] = {"glum": 1.0}
METHOD, WHAT = "regression", "logistic and Poisson, one after the other"


def agree(one: Any, other: Any) -> float:
    """Largest difference of coefficients in standard errors, and of standard errors relatively."""
    errors = other[:, 1::2]
    return float(max(np.abs((one - other)[:, ::2] / errors).max(), np.abs(one[:, 1::2] / errors - 1).max()))


if __name__ == "__main__":
    data = frames(1_000_000, 20, 8)
    mine, our_numbers = ours(data)
    theirs, their_numbers = glum_(data)
    print(
        f"{mine:.2f} s, glum {theirs:.2f} s, ratio {mine / theirs:.2f}, apart {agree(our_numbers, their_numbers):.1e}"
    )
