"""Quartiles of twenty columns, against pandas and R sorting the pooled rows (`bench/statistics.py` runs this)."""

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

PROBABILITIES = (0.25, 0.5, 0.75)
RESOLUTION = 0.01
"""Of columns whose standard deviations are 1 to 20."""


def frames(rows: int, covariates: int, hospitals: int) -> dict[str, pl.DataFrame]:
    """Columns of normal and log-normal numbers in turn, each hospital's people a little different."""
    found = {}
    for place in range(hospitals):
        random = np.random.default_rng(place)
        people = rows * (place + 1) // hospitals - rows * place // hospitals
        columns = {}
        for column in range(covariates):
            values = random.normal(size=people)
            values = values if column % 2 else np.exp(values / 2)
            columns[f"x{column}"] = 50 + 0.1 * place + (1 + column) * values
        found[f"hospital {place + 1}"] = pl.DataFrame(columns)
    return found


def ours(frames: dict[str, pl.DataFrame]) -> tuple[float, Any]:
    columns = list(next(iter(frames.values())).columns)
    started = time.perf_counter()
    found = dure.simulate(
        frames, "quantiles", {"columns": columns, "resolution": RESOLUTION, "probabilities": PROBABILITIES}
    )
    seconds = time.perf_counter() - started
    return seconds, found["quantiles"]["quantile"].to_numpy().reshape(len(columns), len(PROBABILITIES))


def _pandas(frames: dict[str, pl.DataFrame]) -> tuple[float, Any]:
    pooled = pl.concat(frames.values()).to_pandas()
    started = time.perf_counter()
    found = pooled.quantile(list(PROBABILITIES))
    return time.perf_counter() - started, found.to_numpy().T


def _r(frames: dict[str, pl.DataFrame]) -> tuple[float, Any]:
    pooled = pl.concat(frames.values())
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "data", Path(folder) / "out"
        pooled.to_numpy(order="fortran").T.tofile(data)
        shares = ", ".join(map(str, PROBABILITIES))
        script = f"""
        x <- matrix(readBin("{data}", "double", {pooled.height * pooled.width}), ncol = {pooled.width})
        x <- lapply(seq_len(ncol(x)), function(j) x[, j])
        gc()
        started <- proc.time()[["elapsed"]]
        found <- sapply(x, quantile, probs = c({shares}), names = FALSE)
        seconds <- proc.time()[["elapsed"]] - started
        writeBin(c(seconds, found), "{out}")
        """
        subprocess.run(["Rscript", "--vanilla", "-e", script], check=True, capture_output=True)
        numbers = np.fromfile(out)
    return float(numbers[0]), numbers[1:].reshape(pooled.width, len(PROBABILITIES))


PEERS: dict[str, Callable[[dict[str, pl.DataFrame]], tuple[float, Any]]] = {
    "pandas DataFrame.quantile": _pandas,
    "R quantile": _r,
}
TARGETS: dict[str, float] = {"pandas DataFrame.quantile": 0.2, "R quantile": 0.2}
METHOD, WHAT = "quantiles", "quartiles of all columns"


def agree(ours: Any, peer: Any) -> float:
    """The peer's exact quantiles rounded to the declared resolution are ours."""
    rounded = np.rint(peer / RESOLUTION) * RESOLUTION
    return float(np.max(np.abs(ours - rounded) / np.abs(rounded)))
