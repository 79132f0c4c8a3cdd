"""Cox's model stratified by hospital, against R's coxph(strata(site)) and lifelines on the same pooled rows."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import dure

Frames = dict[str, pl.DataFrame]


def frames(rows: int, covariates: int, hospitals: int) -> Frames:
    """Follow-up in days up to five years, two in five with the event, baseline hazards different by hospital."""
    random = np.random.default_rng(4)
    beta = np.linspace(-0.3, 0.3, covariates)
    found = {}
    for place, size in enumerate(np.diff(np.linspace(0, rows, hospitals + 1).astype(int))):
        x = random.standard_normal((covariates, size))
        death = random.exponential(size=size) / (np.exp(beta @ x) * (1 + 0.2 * place)) * 5000
        censor = np.minimum(random.uniform(30, 4000, size), 1826)
        found[f"h{place}"] = pl.DataFrame(
            {
                "time": np.ceil(np.minimum(death, censor)),
                "event": (death <= censor).astype(float),
                **{f"x{column}": values for column, values in enumerate(x)},
            }
        )
    return found


def _formula(data: Frames) -> str:
    return " + ".join(name for name in next(iter(data.values())).columns if name.startswith("x"))


def ours(data: Frames) -> tuple[float, Any]:
    start = time.perf_counter()
    found = dure.simulate(data, "cox", {"formula": _formula(data), "time": "time", "event": "event"})
    table = found["coefficients"]
    return time.perf_counter() - start, table.select("estimate", "std_error").to_numpy()


R_SCRIPT = """
suppressPackageStartupMessages(library(survival))
folder <- commandArgs(TRUE)[1]
shape <- scan(file.path(folder, "shape"), quiet = TRUE)
all <- matrix(readBin(file.path(folder, "rows"), "double", prod(shape)), ncol = shape[2])
d <- list(time = all[, 1], event = all[, 2], site = all[, 3], x = all[, -(1:3)])
seconds <- system.time(fit <- coxph(Surv(time, event) ~ x + strata(site), data = d))[["elapsed"]]
writeBin(c(seconds, coef(fit), sqrt(diag(vcov(fit)))), file.path(folder, "answer"))
"""


def r_survival(data: Frames) -> tuple[float, Any]:
    """R's own clock around coxph (Efron's ties, default convergence: relative change of the likelihood below 1e-9)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        matrix = _pooled(data)
        matrix.T.tofile(folder / "rows")  # column after column, as R keeps matrices
        (folder / "shape").write_text(f"{matrix.shape[0]} {matrix.shape[1]}")
        (folder / "fit.R").write_text(R_SCRIPT)
        subprocess.run(["Rscript", "--vanilla", folder / "fit.R", folder], check=True)
        answer = np.fromfile(folder / "answer")
    return float(answer[0]), answer[1:].reshape(2, -1).T


def lifelines(data: Frames) -> tuple[float, Any]:
    from lifelines import CoxPHFitter

    columns = [*next(iter(data.values())).columns]
    pooled = pl.DataFrame(_pooled(data), schema=[*columns[:2], "site", *columns[2:]]).to_pandas()
    start = time.perf_counter()
    fitter = CoxPHFitter().fit(
        pooled, "time", "event", strata=["site"], fit_options={"precision": 1e-9, "r_precision": 1e-12}
    )
    return time.perf_counter() - start, np.column_stack((fitter.params_, fitter.standard_errors_))


PEERS: dict[str, Callable[[Frames], tuple[float, Any]]] = {"R survival": r_survival, "lifelines": lifelines}
TARGETS: dict[str, float] = {"R survival": 0.3}
METHOD, WHAT = "cox", "Cox, stratified by hospital"


def agree(one: Any, other: Any) -> float:
    """The largest difference of estimates in standard errors, and of standard errors, relative."""
    one, other = np.asarray(one), np.asarray(other)
    return float((np.abs(one - other) / other[:, 1:]).max())


def _pooled(data: Frames) -> np.ndarray[Any, Any]:
    """(n, 3 + p): time, event, site, covariates."""
    parts = [
        np.column_stack((frame[:, :2].to_numpy(), np.full(frame.height, place), frame[:, 2:].to_numpy()))
        for place, frame in enumerate(data.values())
    ]
    return np.concatenate(parts).astype(np.float64)
