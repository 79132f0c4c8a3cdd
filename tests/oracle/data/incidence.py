"""Invented people with repeated events and unequal follow-up, by sex, smoking and age."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

random = np.random.default_rng(20261125)
n = 900
age = np.floor(random.uniform(20, 95, n)).astype(int)
sex = random.choice(["f", "m"], n)
smoking = random.choice(["current", "former", "never"], n, p=[0.2, 0.3, 0.5])
entry = np.round(random.uniform(0, 2, n), 3)
years = np.round(random.uniform(0.1, 7, n), 3)
rate = 0.08 * np.exp(0.02 * (age - 60)) * np.where(sex == "m", 1.4, 1.0) * np.where(smoking == "current", 1.7, 1.0)
events = random.poisson(rate * years * random.gamma(1.5, 1 / 1.5, n))
frame = pl.DataFrame(
    {
        "age": age,
        "sex": sex,
        "smoking": smoking,
        "entry": entry,
        "exit": np.round(entry + years, 3),
        "years": years,
        "events": events,
        "ill": (events > 0).astype(int),
        "hospital": random.choice(["north", "south", "west"], n),
    }
)
frame.write_csv(Path("data/incidence.csv"))
