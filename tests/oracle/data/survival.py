"""Invented people with delayed entry, weights and strata, on whole days so that ties are many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

random = np.random.default_rng(20261124)
n = 420
group = random.choice(["a", "b", "c"], n, p=[0.4, 0.35, 0.25])
stage = random.choice(["early", "late"], n, p=[0.6, 0.4])
scale = np.select([group == "a", group == "b"], [420.0, 300.0], 230.0) * np.where(stage == "late", 0.6, 1.0)
death, censor = random.weibull(1.3, n) * scale, random.uniform(60, 900, n)
time = np.ceil(np.minimum(death, censor)).astype(int)
frame = pl.DataFrame(
    {
        "time": time,
        "event": (death <= censor).astype(int),
        "entry": np.minimum(np.floor(random.uniform(0, 1, n) ** 3 * 80).astype(int), time - 1),
        "group": group,
        "stage": stage,
        "hospital": random.choice(["north", "south", "west"], n),
        "weight": np.round(random.gamma(4, 0.25, n) + 0.05, 4),
    }
)
cause = np.where(frame["event"].to_numpy() == 1, random.choice([1, 1, 2], n), 0)
frame = frame.with_columns(cause=pl.Series(np.array(["censored", "relapse", "death"])[cause]))
frame.write_csv(Path("data/survival.csv"))
