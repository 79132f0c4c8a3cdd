"""People of four hospitals with a 0/1 outcome and two predicted probabilities, one miscalibrated, with ties."""

from pathlib import Path

import numpy as np

random = np.random.default_rng(20260909)
rows = ["hospital,y,score,other,sex"]
for place, size in enumerate((180, 120, 150, 90)):
    truth = random.normal(-0.6 + 0.3 * place, 1.3, size)
    y = (random.random(size) < 1 / (1 + np.exp(-truth))).astype(int)
    score = np.round(1 / (1 + np.exp(-(0.3 + 1.4 * truth + random.normal(0, 0.6, size)))), 2).clip(0.01, 0.99)
    other = np.round(1 / (1 + np.exp(-(0.7 * truth + random.normal(0, 1.1, size)))), 3)
    sex = random.choice(["female", "male"], size)
    rows += [f"h{place},{a},{b},{c},{d}" for a, b, c, d in zip(y, score, other, sex)]
(Path(__file__).parent / "validation.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
