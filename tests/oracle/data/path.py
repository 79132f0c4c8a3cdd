"""Six hundred invented people for penalised paths: correlated numbers, a category, three outcomes, five folds."""

from pathlib import Path

import numpy as np
import polars as pl

from dure.estimation.fold_sums import fold_of

random = np.random.default_rng(8)
n = 600
a, b, c = random.normal(60, 9, n), random.normal(0, 1e-3, n), random.choice(["x", "y", "z"], n)
d, e = random.random(n) * 1e6, 0.5 * a + random.normal(0, 4, n)
f, g = random.exponential(2, n), random.normal(size=n)
eta = 0.05 * (a - 60) + 300 * b + 0.8 * (c == "y") - 0.2 * f
linear = eta + random.normal(0, 1, n)
frame = pl.DataFrame(
    {
        "person_id": np.arange(n) * 7 + 3,
        "a": a.round(3),
        "b": b.round(7),
        "c": c,
        "d": d.round(0),
        "e": e.round(3),
        "f": f.round(4),
        "g": g.round(4),
        "linear": ((linear - linear.mean()) / linear.std()).round(6),
        "ill": (random.random(n) < 1 / (1 + np.exp(-eta))).astype(int),
        "visits": random.poisson(np.exp(0.3 * eta)),
        "weight": random.integers(1, 4, n) / 2,
        "years": random.uniform(0.5, 3, n).round(2),
    }
)
y = frame["linear"].to_numpy()
frame = frame.with_columns(
    linear=(y - y.mean()) / y.std(),
    fold=fold_of(frame["person_id"].to_numpy(), n, 5, 0) + 1,
)
frame.write_csv(Path(__file__).with_suffix(".csv"))
