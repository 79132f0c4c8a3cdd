"""What a released statistic must not tell: a count below ten, or what one person or three have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pytest

from dure.client.simulate import simulate
from dure.errors import Refused

N = 900
OPEN = {"per_hospital": True}


def hospitals(**columns: Any) -> dict[str, pl.DataFrame]:
    """Three hospitals whose people follow each other in turn."""
    random = np.random.default_rng(11)
    common: dict[str, Any] = {
        "age": random.normal(60, 10, N).round(2),
        "z": random.normal(size=N),
        "arm": random.choice(["a", "b"], N),
        "died": (random.random(N) < 0.4).astype(float),
        "time": random.exponential(5, N) + 0.1,
        "score": random.uniform(0.05, 0.95, N),
    }
    frame = pl.DataFrame({**common, **columns})
    return {f"h{place}": frame[place::3] for place in range(3)}


def marked(people: int, one: float = 1.0, others: float = 0.0) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = np.full(N, others)
    values[:people] = one
    return values


def heavy() -> np.ndarray[Any, np.dtype[np.float64]]:
    """Weights of nearly one person alone; nobody's is zero."""
    return marked(1, 1e3, 1e-6)


def rows(result: Any, table: str, **where: Any) -> list[dict[str, Any]]:
    return [row for row in result[table].to_dicts() if all(row[name] == value for name, value in where.items())]


@pytest.mark.parametrize("weighted", [False, True])
def test_a_difference_of_groups_does_not_tell_how_many_have_a_rare_level(weighted: bool) -> None:
    frames = hospitals(rare=marked(3), even=np.ones(N))
    asked = {"variables": ["rare", "died", "age"], "by": "arm", **({"weights": "even"} if weighted else {})}
    found = simulate(frames, "table_one", asked)
    shown = {row["variable"]: row["smd"] for row in rows(found, "differences")}
    assert shown["rare"] is None
    assert shown["died"] is not None
    assert shown["age"] is not None
    if weighted:
        assert rows(found, "differences", variable="rare")[0]["smd_weighted"] is None


@pytest.mark.parametrize(
    ("people", "one", "others"), [(1, 37.5, 0.0), (3, 20.0, 0.0), (3, 2.5, 1.0), (N - 3, 1.0, 2.0), (1, 500.0, 1.0)]
)
def test_a_mean_is_not_told_where_a_few_people_differ_from_all_others(people: int, one: float, others: float) -> None:
    frames = hospitals(number=marked(people, one, others))
    row = rows(simulate(frames, "table_one", {"variables": ["number", "age"]}), "table_one", variable="number")[0]
    assert row["mean"] is None
    assert row["sd"] is None
    assert "mean: –" in row["withheld"]


def test_a_mean_that_ten_people_carry_is_told() -> None:
    row = rows(
        simulate(hospitals(number=marked(10, 3.0)), "table_one", {"variables": ["number"]}),
        "table_one",
        variable="number",
    )[0]
    assert row["mean"] == pytest.approx(30 / N)


def test_at_a_hospital_a_mean_of_three_people_does_not_leave() -> None:
    found = simulate(hospitals(number=marked(9, 4.0)), "table_one", {"variables": ["number"], "by": "site"}, rules=OPEN)
    assert [row["mean"] for row in rows(found, "table_one", variable="number")] == [None] * 3


def test_weights_do_not_point_at_a_person_in_a_table_or_a_quantile() -> None:
    frames = hospitals(weight=heavy())
    found = simulate(frames, "table_one", {"variables": ["age"], "weights": "weight", "medians": {"age": 0.01}})
    row = rows(found, "weighted", variable="age")[0]
    assert [row[name] for name in ("mean", "sd", "median", "q1", "q3")] == [None] * 5
    asked = {"columns": ["age"], "resolution": 0.01, "weights": "weight"}
    assert simulate(frames, "quantiles", asked)["quantiles"]["quantile"].to_list() == [None] * 3


@pytest.mark.parametrize(
    ("method", "asked"),
    [
        ("regression", {"formula": "age ~ 1", "family": "gaussian"}),
        ("regression", {"formula": "age ~ z", "family": "poisson"}),
        ("regression", {"formula": "died ~ z", "family": "binomial", "covariance": "HC0"}),
        ("regression", {"formula": "age ~ z", "family": "gaussian", "penalty": {"l1_ratio": 0, "strength": 0.1}}),
        ("cox", {"formula": "z", "time": "time", "event": "died"}),
        ("trees", {"outcome": "age", "inputs": ["z"], "trees": 2, "depth": 1}),
    ],
)
def test_weights_do_not_make_a_model_of_one_person(method: str, asked: Mapping[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        simulate(hospitals(weight=heavy()), method, {**asked, "weights": "weight"})
    assert caught.value.rule == "minimum_people"


@pytest.mark.parametrize(
    ("method", "asked"),
    [
        ("regression", {"formula": "died ~ 1", "family": "poisson"}),
        ("regression", {"formula": "died ~ z", "family": "poisson", "penalty": {"l1_ratio": 1, "strength": 10}}),
        ("cox", {"formula": "z", "time": "time", "event": "died", "strata": None, "grid": [3, 6, 60]}),
    ],
)
def test_an_offset_does_not_tell_the_largest_value_of_its_column(method: str, asked: Mapping[str, Any]) -> None:
    """Σ exp(offset) of a column that is no logarithm is that of its largest value."""
    with pytest.raises(Refused) as caught:
        simulate(hospitals(), method, {**asked, "offset": "age"})
    assert caught.value.rule == "minimum_people"


def test_an_offset_of_log_time_passes() -> None:
    frames = {name: frame.with_columns(log=pl.col("time").log()) for name, frame in hospitals().items()}
    found = simulate(frames, "regression", {"formula": "died ~ z", "family": "poisson", "offset": "log"})
    assert found["coefficients"].height == 2


def test_a_person_as_a_cluster_of_one_does_not_become_a_standard_error() -> None:
    frames = hospitals()
    names = ["one", *["others"] * (frames["h0"].height - 1)]
    alone = {
        name: frame.with_columns(
            cluster=pl.Series(names) if name == "h0" else pl.lit(None, dtype=pl.String),
        )
        for name, frame in frames.items()
    }
    asked = {"formula": "z + age", "time": "time", "event": "died", "cluster": "cluster"}
    for more in ({}, {"strata": None, "grid": {"width": 20, "until": 60}, "ties": "breslow"}):
        with pytest.raises(Refused) as caught:
            simulate(alone, "cox", {**asked, **more})
        assert caught.value.rule == "minimum_people"


def test_hospitals_as_clusters_of_a_cox_model_need_their_permit() -> None:
    asked = {"formula": "z", "time": "time", "event": "died", "cluster": "site"}
    with pytest.raises(Refused) as caught:
        simulate(hospitals(), "cox", asked)
    assert caught.value.rule == "per_hospital_permit"
    simulate(hospitals(), "cox", asked, rules=OPEN)


def test_a_flag_of_three_people_is_no_score() -> None:
    asked = {"outcome": "died", "scores": ["rare", "score"], "reference": "score", "summary": False}
    found = simulate(hospitals(rare=marked(3)), "validation", {**asked, "resolution": 0.1, "auprc": True}, rules=OPEN)
    for table in ("overall", "auroc", "calibration", "discrimination", "comparison"):
        numbers = ("brier", "mean_predicted", "auroc", "std_error", "average_precision", "predicted", "difference")
        for row in rows(found, table, score="rare"):
            assert [row[name] for name in numbers if name in row] == [None for name in numbers if name in row]
    assert rows(found, "overall", score="score")[0]["brier"] is not None


def test_a_nearly_constant_score_does_not_tell_a_rare_outcome() -> None:
    frames = hospitals(rare=marked(4), same=np.where(np.arange(N) < N // 2, 0.1, 0.10001))
    found = simulate(frames, "validation", {"outcome": "rare", "scores": ["same"], "summary": False}, rules=OPEN)
    (row,) = rows(found, "overall")
    assert row["brier"] is None
    assert row["mean_predicted"] is None


def test_a_person_of_no_subgroup_does_not_follow_from_the_others() -> None:
    part = ["a", "b"] * (N // 2)
    frames = hospitals(part=pl.Series([None, *part[1:]], dtype=pl.String))
    asked = {"outcome": "died", "scores": ["score"], "subgroups": ["part"], "summary": False}
    found = simulate(frames, "validation", asked, rules=OPEN)
    assert sum(row["brier"] is not None for row in rows(found, "subgroups")) == 1


def test_balance_does_not_tell_how_many_have_two_rare_levels_together() -> None:
    """Exact differences of all other levels would give the two together, four and three here."""
    random = np.random.default_rng(8)
    stage = np.where(np.arange(N) < 3, "c", np.where(np.arange(N) < 7, "d", random.choice(["a", "b"], N)))
    treated = np.where(np.arange(N) < 7, np.arange(N) % 2 == 0, random.random(N) < 0.5).astype(float)
    asked = {"treatment": "treated", "score": "score", "kind": "overlap", "balance": ["stage"]}
    found = simulate(hospitals(stage=stage, treated=treated), "weighting", asked)
    told = [row["term"] for row in rows(found, "balance", sample="before") if row["smd"] is not None]
    assert len(told) <= 1


def test_a_person_left_out_by_trimming_does_not_follow_from_balance() -> None:
    random = np.random.default_rng(8)
    few = 90
    score = random.uniform(0.3, 0.6, few)
    score[0] = 0.97
    age = random.normal(60, 10, few).round(1)
    frame = pl.DataFrame({"treated": (np.arange(few) < 24).astype(float), "score": score, "age": age})
    frame = frame.sample(fraction=1, shuffle=True, seed=1)
    frames = {f"h{place}": frame[place::3] for place in range(3)}
    asked = {"treatment": "treated", "score": "score", "kind": "att", "trim": [0.2, 0.9], "balance": ["age"]}
    row = rows(simulate(frames, "weighting", asked), "balance", sample="after")[0]
    steps = row["smd"] * 23 / 4
    assert steps == pytest.approx(round(steps))
    assert row["mean_treated"] is None
