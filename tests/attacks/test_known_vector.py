"""Known vector: is this person, all of whose attributes I know, among the people of these aggregates?

Homer et al. 2008 ("Resolving individuals contributing trace amounts of DNA"), with the likelihood ratio of Sankararaman
et al. 2009, the best such test; judged as in Carlini et al. 2022 ("Membership inference attacks from first
principles"): the share of members found (true positives) where one non-member in a thousand is accused.
"""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dure.guard.rules import DEFAULT

ACCUSED = 0.001
"""Share of non-members that the attacker is willing to accuse."""
OUTSIDE = 20_000


def found(vectors: np.ndarray, outside: np.ndarray, told: np.ndarray, population: np.ndarray) -> float:
    """Share of members (rows of `vectors`) whose statistic beats all but ACCUSED of the people outside.

    told, population: (attributes,) frequency in the aggregates, NaN where nothing was told, and in everybody.
    """
    known = ~np.isnan(told)
    p, q = np.clip(np.where(known, told, 0.5), 1e-3, 1 - 1e-3), population
    weight = np.where(known, np.log(p / q) - np.log((1 - p) / (1 - q)), 0.0)  # the ratio, less what is the same for all
    bar = np.quantile(outside @ weight, 1 - ACCUSED)
    return float((vectors @ weight > bar).mean())


def test_a_known_person_is_found_in_one_hospitals_exact_sums_and_not_in_what_is_released(
    made: types.ModuleType, tmp_path: Path
) -> None:
    attributes = 1000
    alliance = made.Alliance(tmp_path, [200, 200, 200], tags=attributes)
    random = np.random.default_rng(5)
    outside = (random.random((OUTSIDE, attributes), dtype=np.float32) < 0.5).astype(float)
    population = np.full(attributes, 0.5)

    # the twin: exact sums of fifty people at a time, a thousand attributes, no rule; Φ(√(1000/50) − 3.09) = 0.92
    groups = np.split(alliance.tags, 12)
    assert np.mean([found(few, outside, few.mean(axis=0), population) for few in groups]) >= 0.85

    # ours: as many of the attributes as a study may release, over three hospitals
    most = int(DEFAULT.numbers_per_person * 600)
    size = (most - 1) // 2  # one number of the attrition, two of each attribute
    assert asked(made, alliance, size + 1, "one more").error.rule == "numbers_per_person"
    fold = asked(made, alliance, size, "as many as go")
    told = np.full(attributes, np.nan)
    for tag in range(size):
        frame = fold.released.tables[f"by_tag{tag}"].frame
        told[tag] = frame["n"][1] / frame["of"][1] if frame["n"][1] is not None else np.nan
    assert (~np.isnan(told)).sum() > 80
    assert found(alliance.tags, outside, told, population) <= 0.01


def asked(made: types.ModuleType, alliance: Any, size: int, title: str) -> Any:
    variables = {
        f"tag{tag}": {"label": made.WORDS, "present": {"domain": "observation", "concepts": [made.TAG + tag]}}
        for tag in range(size)
    }
    step = {"name": "counts", "method": "feasibility", "parameters": {"by": list(variables)}}
    study = made.study(steps=[step], variables=variables, title=title)
    return alliance.ask(study, title)[1]["counts"].folds[None]


@pytest.mark.parametrize("hospitals", [["h0"], ["h0", "h1"]])
def test_sums_of_one_or_two_hospitals_do_not_leave(
    made: types.ModuleType, tmp_path: Path, hospitals: list[str]
) -> None:
    """The twin's exact sums of one hospital are not to be had: not from the hospital, whoever asks."""
    hospital = made.Hospital(tmp_path, "h0", 50)
    answer = hospital.answer(made.study(), hospitals=tuple(hospitals))
    assert answer.error["fields"]["rule"] == "minimum_hospitals"
    by_hospital = {"name": "count", "method": "feasibility", "parameters": {"by_hospital": True}}
    answer = hospital.answer(made.study(steps=[by_hospital]), hospitals=("h0", "h1", "h2"))
    assert answer.error["fields"]["rule"] == "per_hospital_permit"
