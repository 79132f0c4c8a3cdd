"""Invented people of eight wards for regressions of every family."""

from __future__ import annotations

import numpy as np
import polars as pl

random = np.random.default_rng(20)
n = 480
age = random.normal(60, 9, n).round(1)
stage = random.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2])
treated = (random.random(n) < 0.4).astype(int)
ward = random.integers(0, 24, n)
shared = random.normal(0, 0.3, 24)[ward]
eta = 0.03 * (age - 60) + 0.5 * (stage == "b") - 0.4 * (stage == "c") + 0.6 * treated + shared
heat = random.gamma(1.5, 1 / 1.5, n)
pl.DataFrame(
    {
        "age": age,
        "stage": stage,
        "treated": treated,
        "ward": [f"w{number}" for number in ward],
        "sick": (random.random(n) < 1 / (1 + np.exp(-eta))).astype(int),
        "rare": (random.random(n) < np.exp(-1.6 + 0.25 * eta)).astype(int),
        "visits": random.poisson(np.exp(0.6 + 0.4 * eta)),
        "falls": random.poisson(np.exp(0.5 + 0.5 * eta) * heat),
        "cost": (np.exp(2 + 0.3 * eta) * random.gamma(3, 1 / 3, n)).round(4) + 0.001,
        "pressure": (120 + 5 * eta + random.normal(0, 9, n)).round(2),
        "weight": random.integers(1, 4, n),
        "exposure": np.log(random.uniform(0.5, 3, n)).round(6),
    }
).write_csv("data/regression.csv")
