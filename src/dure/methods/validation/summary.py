"""What the hospitals say together: a weighted average of their AUROCs, and random effects (Debray et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.special import expit

from dure.estimation import random_effects
from dure.methods.validation.tables import NUMBER, TEXT, WHOLE, Answer, Rows, interval, withheld
from dure.study.result import Table

Vector = NDArray[np.float64]

BACK: dict[str, Callable[[Vector], Vector]] = {"auroc": expit, "observed_expected": np.exp}
"""From the scale on which hospitals are combined (logit, logarithm) to the measure's own."""


def summary(answer: Answer, tables: Mapping[str, Table]) -> Table:
    """One row per score, measure and model. It restates what the hospitals' rows show, and nothing of hospitals whose
    numbers are withheld: an average over all of them would give those away."""
    names = ("estimate", "ci_low", "ci_high", "prediction_low", "prediction_high", "tau2", "i2")
    rows = Rows(score=TEXT, measure=TEXT, model=TEXT, hospitals=WHOLE, **dict.fromkeys(names, NUMBER))
    level = answer.p.level
    for place, score in enumerate(answer.p.scores):
        shown = withheld(answer, "auroc")[:, place] == 0
        area, spread = answer.total["auroc"][shown, place], answer.total["auroc_variance"][shown, place]
        pairs = (answer.total["cases"] * answer.total["non_cases"])[shown, place]
        if pairs.sum() > 0:
            mean = float(area @ pairs / pairs.sum())
            error = float(np.sqrt(spread @ pairs**2)) / float(pairs.sum())
            found = interval(mean, error, level, logit=True)
            ends = {name: found[name] for name in ("ci_low", "ci_high")}
            rows.add(score=score, measure="auroc", model="average", hospitals=int(shown.sum()), estimate=mean, **ends)
        if answer.p.auprc and shown.any():
            cases, own_precision = (answer.total[name][shown, place] for name in ("cases", "average_precision"))
            mean = float(own_precision @ cases / cases.sum())
            rows.add(
                score=score, measure="average_precision", model="average", hospitals=int(shown.sum()), estimate=mean
            )
        known = (spread > 0) & (area > 0) & (area < 1)
        inner = area[known] * (1 - area[known])
        _random(rows, score, "auroc", np.log(area[known] / (1 - area[known])), spread[known] / inner**2, level)
        if answer.p.hospitals:
            own = tables["calibration_hospitals"].frame.filter(score=score)
            for measure, error_name in (("slope", "slope_std_error"), ("in_the_large", "large_std_error")):
                part = own.select(measure, error_name).drop_nulls().to_numpy()
                _random(rows, score, measure, part[:, 0], part[:, 1] ** 2, level)
            part = own.select("observed_expected", "oe_low").drop_nulls().to_numpy()
            error_of_log = np.log(part[:, 0] / part[:, 1]) / special.ndtri(0.5 + level / 2)
            usable = error_of_log > 0
            _random(rows, score, "observed_expected", np.log(part[usable, 0]), error_of_log[usable] ** 2, level)
    return rows.table(derived=("hospitals", *names))


def _random(rows: Rows, score: str, measure: str, estimate: Vector, variance: Vector, level: float) -> None:
    """A row of random effects (REML, Hartung–Knapp), back on the measure's own scale; none for fewer than two."""
    if len(estimate) < 2:
        return
    try:
        found = random_effects.combine(estimate, variance, level=level)
    except random_effects.Unsettled:
        return
    values = np.array([found.random.estimate, *found.random.ci, *found.random.prediction])
    if measure in BACK:
        values = BACK[measure](values)
    rows.add(
        score=score,
        measure=measure,
        model="random",
        hospitals=found.hospitals,
        **dict(zip(("estimate", "ci_low", "ci_high", "prediction_low", "prediction_high"), values.tolist())),
        tau2=found.tau2,
        i2=found.i2,
    )
