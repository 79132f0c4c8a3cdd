"""Writes data/cox.csv: 700 people of five hospitals (one with a single patient), tied times, late entries, clusters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

GRID = (3.0, 6.0, 9.0, 12.0, 18.0, 24.0)

random = np.random.default_rng(20)
n = 700
hospital = random.choice(["a", "b", "c", "d"], n, p=[0.4, 0.3, 0.2, 0.1])
hospital[5] = "e"
age, sex = random.normal(63, 11, n).round(1), random.choice(["f", "m"], n)
stage, ward = random.choice(["I", "II", "III"], n, p=[0.5, 0.3, 0.2]), random.choice(["north", "south"], n)
marker = random.lognormal(0, 0.8, n) * 1e-6
cluster, weight = random.integers(0, 140, n), random.uniform(0.3, 2.5, n).round(3)
frailty = random.normal(0, 0.5, 140)[cluster]
shift = random.normal(0, 0.3, n).round(3)
linear = 0.03 * (age - 63) + 0.4 * (sex == "m") + 0.6 * (stage == "III") + 0.2 * np.log(marker * 1e6) + shift + frailty
rate = np.exp(linear) / 14 * np.where(hospital == "b", 1.6, 1.0) * np.where(ward == "south", 0.7, 1.0)
death, censor = random.exponential(1 / rate), random.uniform(2, 34, n)
time, event = np.ceil(np.minimum(death, censor)), (death <= censor).astype(int)
entry = np.where(random.random(n) < 0.4, np.floor(random.uniform(0, 0.9, n) * time), 0.0)


def moved_up(value: float) -> float:
    """The end of the interval that holds a time; one more than the last where none does."""
    return next((end for end in GRID if value <= end), GRID[-1] + 1)


def moved_entry(value: float, end: float) -> float:
    """Moved up, but never past the beginning of the interval in which the row ends."""
    return 0.0 if value <= 0 else min(moved_up(value), max(point for point in (0.0, *GRID) if point < end))


grid_time = np.array([moved_up(value) for value in time])
grid_entry = np.array([moved_entry(value, end) for value, end in zip(entry, grid_time)])
frame = pl.DataFrame(
    {
        "hospital": hospital,
        "time": time,
        "event": event,
        "entry": entry,
        "age": age,
        "sex": sex,
        "stage": stage,
        "ward": ward,
        "marker": marker,
        "cluster": cluster,
        "weight": weight,
        "shift": shift,
        "grid_time": grid_time,
        "grid_event": np.where(grid_time > GRID[-1], 0, event),
        "grid_entry": grid_entry,
    }
)
frame.write_csv(Path(__file__).with_suffix(".csv"))
