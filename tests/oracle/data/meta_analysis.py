"""People of nine hospitals whose effects differ, in two groups with a 0/1 event and a number; one has an empty cell."""

from pathlib import Path

import numpy as np

random = np.random.default_rng(20260904)
rows = ["hospital,treated,event,value"]
for place, size in enumerate((140, 60, 90, 200, 75, 110, 64, 150, 30)):
    effect, base = random.normal(0.5, 0.5), random.normal(-0.4, 0.4)
    shift, spread = random.normal(2.0, 1.5), random.uniform(3.0, 6.0)
    treated = (random.random(size) < 0.5).astype(int)
    event = (random.random(size) < 1 / (1 + np.exp(-(base + effect * treated)))).astype(int)
    if place == 8:
        event[treated == 0] = 0
    value = np.round(100.0 + 3 * place + shift * treated + random.normal(0, spread, size), 3)
    rows += [f"h{place},{t},{e},{v}" for t, e, v in zip(treated, event, value)]
(Path(__file__).parent / "meta_analysis.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
