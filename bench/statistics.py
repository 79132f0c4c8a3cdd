"""How long a logistic regression takes: eight hospitals through `dure.simulate`, against pooled glum and statsmodels.

    .venv/bin/python bench/statistics.py [--rows 1000000 --covariates 20 --hospitals 8 --repeats 5] [--json PATH]

All start from the same polars frames in memory and end with coefficients and standard errors, one after the
other in every repeat. `dure` runs its hospitals in sequence in this process and does more than fit: it finds
kinds and levels, counts cells, and passes gate and release. No number of threads is set here: glum uses every
core, statsmodels' BLAS too, `dure` one thread per hospital. A formula is read once per process (about 20 ms), in
the warm-up.
"""

from __future__ import annotations

import sys

sys.path.pop(0)  # this folder: this file would pass for the standard library's `statistics`

import argparse
import json
import os
import platform
import subprocess
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import glum
import numpy as np
import polars as pl
import statsmodels.api as sm
import tabmat
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import dure

Vector = NDArray[np.float64]
LEVELS = ("a", "b", "c")


@dataclass(frozen=True)
class Data:
    """The same people three times over: frames by hospital, one frame, and the study's formula."""

    sites: dict[str, pl.DataFrame]
    pooled: pl.DataFrame
    numeric: tuple[str, ...]
    categories: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Coefficients in everybody's order: intercept, numbers, then dummies without the first level."""
        dummies = [f"C({name})[T.{level}]" for name in self.categories for level in LEVELS[1:]]
        return ["Intercept", *self.numeric, *dummies]

    def matrix(self) -> NDArray[np.float64]:
        """(n, p) in Fortran order with the intercept, for solvers that take a plain matrix."""
        dummies = [
            (pl.col(name) == level).cast(pl.Float64).alias(f"{name}{level}")
            for name in self.categories
            for level in LEVELS[1:]
        ]
        return self.pooled.select(pl.lit(1.0).alias("1"), *self.numeric, *dummies).to_numpy(order="fortran")

    @cached_property
    def ready(self) -> tabmat.MatrixBase:
        """What glum computes on, from numbers in Fortran order and categories without their first level."""
        dense = tabmat.DenseMatrix(self.pooled.select(self.numeric).to_numpy(order="fortran"))
        codes = [
            tabmat.CategoricalMatrix(self.pooled[name].cast(str).to_list(), drop_first=True) for name in self.categories
        ]
        return tabmat.SplitMatrix([dense, *codes]) if codes else dense


@dataclass(frozen=True)
class Fit:
    """Coefficients and standard errors (p,), and seconds by stage."""

    beta: Vector
    errors: Vector
    seconds: dict[str, float]


def data(rows: int, covariates: int, categories: int, hospitals: int, seed: int = 1) -> Data:
    """`covariates` counts columns of the formula: numbers on unlike scales, and `categories` of three levels."""
    random = np.random.default_rng(seed)
    numeric = tuple(f"x{index}" for index in range(covariates - categories))
    named = tuple(f"c{index}" for index in range(categories))
    scale = np.geomspace(0.01, 100, len(numeric))
    shared = random.normal(size=rows)
    eta = np.full(rows, -1.0)
    columns: dict[str, Any] = {}
    for name, width in zip(numeric, scale):
        values = 0.3 * shared + random.normal(size=rows)
        eta += random.normal() * 0.2 * values
        columns[name] = values * width + 3 * width
    for name in named:
        codes = random.choice(3, size=rows, p=[0.5, 0.3, 0.2])
        eta += (random.normal(size=3) * 0.3)[codes]
        columns[name] = pl.Series(np.array(LEVELS)[codes]).cast(pl.Enum(LEVELS))
    columns["y"] = (random.random(rows) < 1 / (1 + np.exp(-eta))).astype(np.float64)
    pooled = pl.DataFrame(columns)
    ends = np.linspace(0, rows, hospitals + 1).astype(int)
    sites = {f"h{place}": pooled[int(start) : int(end)] for place, (start, end) in enumerate(pairwise(ends))}
    return Data(sites, pooled, numeric, named)


def fit_dure(of: Data) -> Fit:
    formula = " + ".join([*of.numeric, *(f"C({name})" for name in of.categories)])
    start = time.perf_counter()
    found = dure.simulate(of.sites, "regression", {"formula": f"y ~ {formula}", "family": "binomial"})
    took = time.perf_counter() - start
    table = found["coefficients"]
    place = {term: index for index, term in enumerate(table["term"])}
    order = [place[name] for name in of.names]
    return Fit(table["estimate"].to_numpy()[order], table["std_error"].to_numpy()[order], {"all": took})


def fit_glum(of: Data) -> Fit:
    """glum's best case: the matrix is ready before the clock starts, categories as tabmat's codes."""
    model = glum.GeneralizedLinearRegressor(family="binomial", alpha=0, gradient_tol=1e-10)
    x, y = of.ready, of.pooled["y"].to_numpy()
    start = time.perf_counter()
    model.fit(x, y)
    fitted = time.perf_counter()
    covariance = model.covariance_matrix(x, y, robust=False, dispersion=1.0)
    end = time.perf_counter()
    beta = np.concatenate([[model.intercept_], model.coef_])
    return Fit(beta, np.sqrt(np.diag(covariance)), {"fit": fitted - start, "SE": end - fitted})


def fit_statsmodels(of: Data) -> Fit:
    start = time.perf_counter()
    x, y = of.matrix(), of.pooled["y"].to_numpy()
    read = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # asked for more digits than floats have, it says so
        found = sm.Logit(y, x).fit(method="newton", tol=1e-14, maxiter=50, disp=False)
    errors = np.asarray(found.bse)
    return Fit(np.asarray(found.params), errors, {"matrix": read - start, "fit": time.perf_counter() - read})


TOOLS: dict[str, Callable[[Data], Fit]] = {"dure": fit_dure, "glum": fit_glum, "statsmodels": fit_statsmodels}


def exact(x: NDArray[np.float64], y: Vector, near: Vector) -> tuple[Vector, Callable[[Vector], float]]:
    """Newton steps from `near` with 80-bit gradients, and the norm of the mean gradient, per unit of each column."""
    spread = np.sqrt((x**2).mean(axis=0))

    def gradient(beta: NDArray[Any]) -> NDArray[np.longdouble]:
        found = np.zeros(x.shape[1], dtype=np.longdouble)
        for start in range(0, len(y), 50_000):
            block = x[start : start + 50_000].astype(np.longdouble)
            found += (y[start : start + 50_000] - 1 / (1 + np.exp(-(block @ beta)))) @ block
        return found

    mean = 1 / (1 + np.exp(-(x @ near)))
    hessian = (x.T * (mean * (1 - mean))) @ x / np.outer(spread, spread)
    beta = near.astype(np.longdouble)
    for _ in range(3):
        beta = beta + np.linalg.solve(hessian, (gradient(beta) / spread).astype(np.float64)) / spread
    return beta.astype(np.float64), lambda at: float(np.linalg.norm(gradient(at) / spread / len(y)))


def peak(tool: str, arguments: list[str]) -> float:
    """Most memory above what the data take, in MiB: a fresh process fits once and reads its own high-water mark."""
    command = [sys.executable, __file__, *arguments, "--peak-of", tool]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def own_peak(tool: str, of: Data) -> float:
    def status(name: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(name))) / 1024

    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    TOOLS[tool](of)
    return status("VmHWM") - before


def measure(of: Data, repeats: int) -> dict[str, dict[str, Any]]:
    small = Data(
        {name: frame[:2000] for name, frame in of.sites.items()}, of.pooled[:20_000], of.numeric, of.categories
    )
    fits: dict[str, list[Fit]] = {name: [] for name in TOOLS}
    cores: dict[str, list[float]] = {name: [] for name in TOOLS}
    for fit in TOOLS.values():
        fit(small)  # imports and threads are started before the clock
    for _ in range(repeats):
        for name, fit in TOOLS.items():
            start = time.process_time()
            fits[name].append(fit(of))
            cores[name].append(time.process_time() - start)
    best, norm = exact(of.matrix(), of.pooled["y"].to_numpy(), fits["statsmodels"][0].beta)
    found = {}
    for name, runs in fits.items():
        totals = [sum(run.seconds.values()) for run in runs]
        found[name] = {
            "median": float(np.median(totals)),
            "fastest": min(totals),
            "cpu": float(np.median(cores[name])),
            "all": totals,
            "stages": {stage: float(np.median([run.seconds[stage] for run in runs])) for stage in runs[0].seconds},
            "coefficients_off": float(np.max(np.abs(runs[0].beta / best - 1))),
            "errors_off_statsmodels": float(np.max(np.abs(runs[0].errors / fits["statsmodels"][0].errors - 1))),
            "gradient": norm(runs[0].beta),
            "repeats_bit_equal": all(np.array_equal(run.beta, runs[0].beta) for run in runs),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--covariates", type=int, default=20)
    parser.add_argument("--hospitals", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak-of", choices=list(TOOLS), help=argparse.SUPPRESS)
    parser.add_argument("--categories", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak_of:
        print(own_peak(given.peak_of, data(given.rows, given.covariates, given.categories, given.hospitals)))
        return
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    console = Console(width=130)
    machine = {
        "date": date.today().isoformat(),
        "cores": os.cpu_count(),
        "OMP_NUM_THREADS": threads,
        "python": platform.python_version(),
        **{name: version(name) for name in ("dure", "numpy", "scipy", "polars", "glum", "statsmodels")},
    }
    written: dict[str, Any] = {"machine": machine, "rows": given.rows, "hospitals": given.hospitals}
    mixes = {"numbers only": (given.covariates, 0), "numbers and categories": (max(given.covariates - 3, 4), 3)}
    for mix, (columns, categories) in mixes.items():
        of = data(given.rows, columns, categories, given.hospitals)
        found = measure(of, given.repeats)
        size = ["--rows", str(given.rows), "--covariates", str(columns), "--hospitals", str(given.hospitals)]
        for name, row in found.items():
            row["peak_mib"] = peak(name, [*size, "--categories", str(categories)])
        title = f"{mix}: {given.rows:,} people, {len(of.names)} coefficients ({categories} categories of 3 levels)"
        console.print(_table(title, found))
        written[mix] = found
    console.print(
        f"Medians of {given.repeats}, interleaved; {os.cpu_count()} cores, OMP_NUM_THREADS {threads}; dure uses one.\n"
        f"dure: {given.hospitals} hospitals in turn, kinds and levels found, cells counted, gate and release;"
        "\nglum: from a matrix made before the clock, fit + covariance_matrix (times n/(n-p), hence SE off);"
        "\nstatsmodels: matrix made, Logit by Newton, standard errors.\n"
        "β off: largest relative difference from an 80-bit Newton solution; gradient: norm of its mean, columns scaled."
        f"\n{' · '.join(f'{name} {value}' for name, value in machine.items())}",
        style="dim",
    )
    if given.json:
        given.json.write_text(json.dumps(written, indent=1))


def _table(title: str, found: dict[str, dict[str, Any]]) -> Table:
    table = Table("", title=title, title_justify="left")
    for head in (
        "seconds",
        "÷ glum",
        "fastest",
        "CPU s",
        "of which",
        "β off",
        "SE off",
        "gradient",
        "bit-equal",
        "peak MiB",
    ):
        table.add_column(head, justify="left" if head == "of which" else "right", no_wrap=head != "of which")
    for name, row in found.items():
        table.add_row(
            name,
            f"{row['median']:.2f}",
            f"{row['median'] / found['glum']['median']:.2f}",
            f"{row['fastest']:.2f}",
            f"{row['cpu']:.2f}",
            ", ".join(f"{stage} {value:.2f}" for stage, value in row["stages"].items()),
            f"{row['coefficients_off']:.0e}",
            f"{row['errors_off_statsmodels']:.0e}",
            f"{row['gradient']:.0e}",
            "yes" if row["repeats_bit_equal"] else "no",
            f"{row['peak_mib']:,.0f}",
        )
    return table


if __name__ == "__main__":
    main()
