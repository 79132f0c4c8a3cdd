"""Boosted trees, against XGBoost's `hist` on the pooled rows: same trees, depth, learning rate, bins and penalties
(`bench/statistics.py` runs this). Both use every core they may; XGBoost's clock starts with a pooled float32 matrix."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

import dure

TREES, DEPTH, BINS, RATE = 50, 6, 64, 0.1


def frames(rows: int, covariates: int, hospitals: int) -> dict[str, pl.DataFrame]:
    """Numbers of unlike scales, one in ten values of every fifth column missing; a risk with bends and an
    interaction."""
    found = {}
    scale = np.geomspace(1e-3, 1e3, covariates)
    for place in range(hospitals):
        random = np.random.default_rng(place)
        people = rows * (place + 1) // hospitals - rows * place // hospitals
        x = random.normal(0.1 * place, 1, (covariates, people))
        risk = x[0] * x[1 % covariates] + np.abs(x[2 % covariates]) + 0.5 * x[3 % covariates] - 1
        columns = {}
        for column in range(covariates):
            values = (np.exp(x[column] / 2) if column % 2 else x[column]) * scale[column]
            if column % 5 == 4:
                values[random.random(people) < 0.1] = np.nan
            columns[f"x{column}"] = values
        columns["y"] = (random.random(people) < 1 / (1 + np.exp(-risk))).astype(np.float64)
        found[f"hospital {place + 1}"] = pl.DataFrame(columns)
    return found


def ours(frames: dict[str, pl.DataFrame]) -> tuple[float, Any]:
    inputs = [name for name in next(iter(frames.values())).columns if name != "y"]
    asked = {"trees": TREES, "depth": DEPTH, "bins": BINS, "learning_rate": RATE}
    started = time.perf_counter()
    found = dure.simulate(frames, "trees", {"outcome": "y", "inputs": inputs, **asked})
    return time.perf_counter() - started, found.facts["loss"]


def _xgboost(frames: dict[str, pl.DataFrame]) -> tuple[float, Any]:
    import xgboost

    pooled = pl.concat(frames.values())
    y = pooled["y"].to_numpy()
    x = pooled.drop("y").cast(pl.Float32).to_numpy(order="c")
    asked = {"objective": "binary:logistic", "tree_method": "hist", "max_depth": DEPTH, "max_bin": BINS, "eta": RATE}
    started = time.perf_counter()
    data = xgboost.QuantileDMatrix(x, y, max_bin=BINS)
    model = xgboost.train(asked, data, TREES)
    seconds = time.perf_counter() - started
    chance = model.predict(data).astype(np.float64)
    return seconds, float(-np.mean(np.log(np.where(y == 1, chance, 1 - chance))))


PEERS: dict[str, Callable[[dict[str, pl.DataFrame]], tuple[float, Any]]] = {"XGBoost hist, pooled": _xgboost}
TARGETS: dict[str, float] = {"XGBoost hist, pooled": 3.0}
METHOD, WHAT = "trees", "boosted trees"


def agree(ours: Any, peer: Any) -> float:
    """The training loss: bins differ a little, so trees do."""
    return abs(ours - peer) / peer
