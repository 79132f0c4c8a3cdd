"""Kaplan–Meier curves of two groups with the log-rank test, in days, against R's survfit and survdiff and lifelines."""

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
DAYS = 1826
GROUPS = ("control", "treated")


def frames(rows: int, covariates: int, hospitals: int) -> Frames:
    """Follow-up in whole days up to five years, about half with the event; covariates only make the tables wide."""
    random = np.random.default_rng(5)
    found = {}
    for place, size in enumerate(np.diff(np.linspace(0, rows, hospitals + 1).astype(int))):
        group = random.integers(0, 2, size)
        death = random.exponential(size=size) * np.where(group == 1, 2200.0, 2000.0) * (1 + 0.05 * place)
        censor = np.minimum(random.uniform(30, 4000, size), DAYS)
        found[f"h{place}"] = pl.DataFrame(
            {
                "time": np.ceil(np.minimum(death, censor)),
                "event": (death <= censor).astype(float),
                "group": pl.Series(np.array(GROUPS)[group]).cast(pl.Enum(GROUPS)),
                **{f"x{column}": random.standard_normal(size) for column in range(covariates)},
            }
        )
    return found


Numbers = dict[str, Any]
"""`chi2`, and by group the (DAYS + 1,) survival and standard error on each day, NaN where not told."""


def ours(data: Frames) -> tuple[float, Numbers]:
    asked = {"time": "time", "event": "event", "group": "group", "grid": {"width": 1, "until": DAYS}}
    start = time.perf_counter()
    found = dure.simulate(data, "survival", asked)
    took = time.perf_counter() - start
    curve, numbers = found["curve"], {"chi2": found.facts["log_rank_chi2"]}
    for name in GROUPS:
        own = curve.filter(pl.col("group") == name).drop_nulls("survival")
        numbers[name] = _by_day(*(own[column].to_numpy() for column in ("time", "survival", "std_error")))
    return took, numbers


def _by_day(days: Any, survival: Any, error: Any) -> Any:
    found = np.full((2, DAYS + 1), np.nan)
    found[:, np.asarray(days).astype(int)] = survival, error
    return found


R_SCRIPT = """
suppressPackageStartupMessages(library(survival))
folder <- commandArgs(TRUE)[1]
all <- matrix(readBin(file.path(folder, "rows"), "double", 3 * scan(file.path(folder, "n"), quiet = TRUE)), ncol = 3)
d <- data.frame(time = all[, 1], event = all[, 2], group = factor(all[, 3]))
seconds <- system.time({
  fit <- survfit(Surv(time, event) ~ group, data = d, conf.type = "log-log")
  test <- survdiff(Surv(time, event) ~ group, data = d)
})[["elapsed"]]
first <- fit$strata[[1]]
writeBin(c(seconds, test$chisq, first, length(fit$time), fit$time, fit$surv, fit$std.err * fit$surv),
         file.path(folder, "answer"))
"""


def _pooled(data: Frames) -> Any:
    """(n, 3) time, event and group's place."""
    every = pl.concat([frame.select("time", "event", pl.col("group").to_physical()) for frame in data.values()])
    return every.cast(pl.Float64).to_numpy()


def r_survival(data: Frames) -> tuple[float, Numbers]:
    """R's own clock around survfit and survdiff, on a data frame that is ready."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        matrix = _pooled(data)
        matrix.T.tofile(folder / "rows")  # column after column, as R keeps matrices
        (folder / "n").write_text(str(matrix.shape[0]))
        (folder / "fit.R").write_text(R_SCRIPT)
        subprocess.run(["Rscript", "--vanilla", folder / "fit.R", folder], check=True)
        seconds, chi2, first, size, *rest = np.fromfile(folder / "answer").tolist()
    days, survival, error = np.array(rest).reshape(3, int(size))
    parts = (slice(0, int(first)), slice(int(first), None))
    numbers = {name: _by_day(days[part], survival[part], error[part]) for name, part in zip(GROUPS, parts, strict=True)}
    return seconds, {"chi2": chi2, **numbers}


def lifelines(data: Frames) -> tuple[float, Numbers]:
    from lifelines import KaplanMeierFitter
    from lifelines.statistics import logrank_test

    days, event, group = _pooled(data).T
    parts = [(days[group == place], event[group == place]) for place in range(len(GROUPS))]
    start = time.perf_counter()
    fits = [KaplanMeierFitter().fit(*part) for part in parts]
    test = logrank_test(parts[0][0], parts[1][0], parts[0][1], parts[1][1])
    took = time.perf_counter() - start
    numbers: Numbers = {"chi2": test.test_statistic}
    for name, fit in zip(GROUPS, fits, strict=True):
        curve = fit.survival_function_["KM_estimate"]
        numbers[name] = _by_day(curve.index.to_numpy(), curve.to_numpy(), np.full(len(curve), np.nan))
    return took, numbers


PEERS: dict[str, Callable[[Frames], tuple[float, Numbers]]] = {"R survival": r_survival, "lifelines": lifelines}
TARGETS: dict[str, float] = {"R survival": 0.2}
METHOD, WHAT = "survival", "Kaplan–Meier and log-rank"


def agree(ours: Numbers, peer: Numbers) -> float:
    """The largest relative difference, where both tell a number."""
    gaps = [abs(ours["chi2"] / peer["chi2"] - 1)]
    for name in GROUPS:
        both = np.isfinite(ours[name]) & np.isfinite(peer[name])
        gaps.append(float(np.abs(ours[name][both] / peer[name][both] - 1).max()))
    return float(max(gaps))


if __name__ == "__main__":
    data = frames(1_000_000, 20, 8)
    for _ in range(2):
        seconds, numbers = ours(data)
        print(f"dure: {seconds:.2f} s")
    for name, peer in PEERS.items():
        took, theirs = peer(data)
        print(f"{name}: {took:.2f} s, ours {seconds / took:.2f} of it, largest difference {agree(numbers, theirs):.1e}")
