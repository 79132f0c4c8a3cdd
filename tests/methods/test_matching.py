"""Matching inside hospitals: the same sets as a search of everybody by everybody, and one caliper for all."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dure.client.simulate import run_frames, simulate
from dure.errors import Refused
from dure.estimation.nearest import matched_sets
from dure.guard.rules import DEFAULT, OFF
from dure.study.spec import Step


def brute(t: Any, tp: Any, order: Any, c: Any, cp: Any, ratio: int, width: float) -> list[list[int]]:
    """Everybody in turn looks at every control that is left."""
    free, sets = set(range(len(c))), [[-1] * ratio for _ in t]
    for turn in range(ratio):
        for one in order:
            if turn and sets[one][turn - 1] < 0:
                continue
            near = [(abs(c[j] - t[one]), cp[j], j) for j in free if abs(c[j] - t[one]) <= width]
            if near:
                sets[one][turn] = min(near)[2]
                free.discard(min(near)[2])
    return sets


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_sets_are_those_of_a_search_of_everybody_by_everybody(data: st.DataObject) -> None:
    value = st.integers(-8, 8).map(lambda whole: whole / 4)  # ties everywhere, and exactly so
    t, c = (np.array(data.draw(st.lists(value, max_size=25)), dtype=float) for _ in range(2))
    people = np.array(data.draw(st.permutations(range(len(t) + len(c)))), dtype=np.int64)
    order = np.array(data.draw(st.permutations(range(len(t)))), dtype=np.int64)
    ratio, width = data.draw(st.integers(1, 3)), data.draw(st.sampled_from([0.0, 0.25, 1.0, np.inf]))
    tp, cp = people[: len(t)], people[len(t) :]
    found = matched_sets(t, tp, order, c, cp, ratio, width)
    assert found.tolist() == brute(t, tp, order, c, cp, ratio, width)


def people(n: int = 1200, seed: int = 3) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    age, severe = random.normal(60, 9, n), (random.random(n) < 0.4).astype(float)
    treated = (random.random(n) < 1 / (1 + np.exp(-(0.06 * (age - 60) + 0.8 * severe - 1.3)))).astype(float)
    died = (random.random(n) < 0.3).astype(float)
    frame = pl.DataFrame({"treated": treated, "age": age, "severe": severe, "died": died})
    return frame.with_columns(person_id=pl.int_range(n, dtype=pl.Int64))


def split(frame: pl.DataFrame, hospitals: int = 4) -> dict[str, pl.DataFrame]:
    return {f"h{place}": frame[place::hospitals] for place in range(hospitals)}


def test_a_chain_from_score_to_matched_outcomes() -> None:
    score = Step(name="ps", method="regression", parameters={"formula": "treated ~ age + severe", "family": "binomial"})
    asked = {"treatment": "treated", "score": "ps.prediction", "balance": ["age", "severe"], "ratio": 2}
    match = Step(name="m", method="matching", parameters=asked, uses=("ps",))
    outcome = {"formula": "died ~ treated", "family": "binomial", "weights": "m.weight", "cluster": "m.set"}
    fit = Step(name="fit", method="regression", parameters={**outcome, "covariance": "cluster"}, uses=("m",))
    outcomes, _ = run_frames(split(people()), (score, match, fit), OFF, frozenset(("per_hospital",)))
    found = outcomes["m"].folds[None].working
    assert abs(found.facts["largest_smd_after"]) < 0.1 < found.facts["largest_smd_before"]
    summary = found.tables["summary"].frame
    assert summary["matched"][1] > summary["matched"][0]
    assert outcomes["fit"].status == "finished"
    assert outcomes["fit"].folds[None].working.facts["clusters"] == summary["matched"][0]


def scored(frame: pl.DataFrame) -> pl.DataFrame:
    eta = 0.06 * (pl.col("age") - 60) + 0.8 * pl.col("severe") - 1.3
    return frame.with_columns(score=1 / (1 + (-eta).exp()))


def test_the_caliper_is_of_all_hospitals_together() -> None:
    frame = scored(people())
    found = simulate(split(frame), "matching", {"treatment": "treated", "score": "score"}, rules="off")
    logit = np.log(frame["score"] / (1 - frame["score"])).to_numpy()
    a = frame["treated"].to_numpy()
    spread = np.sqrt((logit[a == 1].var(ddof=1) + logit[a == 0].var(ddof=1)) / 2)
    assert found.facts["caliper"] == pytest.approx(0.2 * spread, rel=1e-10)


@pytest.mark.parametrize("order", ["descending", "random"])
def test_exact_columns_and_hospitals_are_never_crossed(order: str) -> None:
    frame = scored(people()).with_columns(severe=pl.col("severe").cast(pl.Int64))
    asked = {"treatment": "treated", "score": "score", "exact": ["severe"], "order": order, "balance": ["severe"]}
    found = simulate(split(frame), "matching", asked, rules="off")
    after = found["balance"].filter(pl.col("sample") == "after")
    assert after["smd"][0] == pytest.approx(0.0, abs=1e-12)


def test_few_matched_are_refused_and_no_pair_leaves() -> None:
    frame = scored(people())
    asked = {"treatment": "treated", "score": "score", "caliper": 1e-9}
    with pytest.raises(Refused) as caught:
        simulate(split(frame), "matching", asked)
    assert caught.value.rule == "minimum_people"
    found = simulate(split(frame), "matching", asked | {"caliper": 0.2})
    assert max(np.prod(item["shape"], dtype=int) for item in found.left) <= 16
    assert all(value is None or value % DEFAULT.round_to == 0 for value in found["summary"]["matched"])
