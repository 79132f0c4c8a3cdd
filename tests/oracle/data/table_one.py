"""Writes `table_one.csv`: two hospitals' worth of people with gaps, ties, weights (some zero) and three arms."""

from pathlib import Path

import numpy as np

random = np.random.default_rng(20_261_124)
n = 360
arm = random.choice(["a", "b", "c"], n, p=[0.4, 0.35, 0.25])
age = np.round(random.normal(58 + 4.0 * (arm == "b"), 11, n))
marker = random.lognormal(0.4 * (arm == "c"), 1.1, n)
stage = np.where(random.random(n) < 0.3 + 0.1 * (arm == "a"), "I", random.choice(["II", "III"], n))
smoker = (random.random(n) < 0.35).astype(int)
weight = np.where(random.random(n) < 0.05, 0.0, 1 / random.uniform(0.15, 0.9, n))
lines = ["age,marker,stage,smoker,arm,weight,hospital"]
for i in range(n):
    cells = [f"{age[i]:g}", repr(float(marker[i])), stage[i], str(smoker[i])]
    cells = ["" if random.random() < 0.06 else cell for cell in cells]
    lines.append(",".join([*cells, arm[i], repr(float(weight[i])), f"h{i % 4}"]))
Path("data/table_one.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
