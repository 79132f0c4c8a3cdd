"""What survival tells of few people, of odd weights and of ugly tables; and the settings that pass."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter

from dure.client.simulate import Simulated, run_frames, simulate
from dure.errors import InvalidParameter, NobodyLeft, NotACount, Refused
from dure.estimation.grids import joined_points, merge_towards
from dure.federation.rounds import Fold
from dure.study.spec import Step

GRID = {"width": 1, "until": 60}
ASKED: dict[str, Any] = {"time": "time", "event": "event", "grid": GRID}


def people(n: int = 600, seed: int = 1) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    death, censor = random.exponential(25, n), random.uniform(5, 60, n)
    return pl.DataFrame(
        {
            "time": np.ceil(np.minimum(death, censor)),
            "event": (death <= censor).astype(float),
            "group": random.choice(["a", "b"], n),
            "weight": random.gamma(3, 1, n),
        }
    )


def split(frame: pl.DataFrame) -> dict[str, pl.DataFrame]:
    return {name: frame[place::3] for place, name in enumerate(("north", "south", "west"))}


def ask(frame: pl.DataFrame, rules: Any = "default", **more: Any) -> Simulated:
    return simulate(split(frame), "survival", {**ASKED, **more}, rules=rules)


def run(frame: pl.DataFrame, **more: Any) -> Fold:
    step = Step(name="step", method="survival", parameters={**ASKED, **more})
    return run_frames(split(frame), (step,))[0]["step"].folds[None]


# ── declared times and grids ──


def test_declared_times_and_tau_become_grid_points() -> None:
    points = joined_points(np.array([1.0, 2.0, 3.0]), [2.5, 0.1 * 30])
    assert points.tolist() == [1.0, 2.0, 2.5, 3.0]
    frame = people()
    coarse = ask(frame, "off", grid=[20, 40, 60], times=[7, 13])["at_times"]
    fine = ask(frame, "off", times=[7, 13])["at_times"]
    assert coarse["time"].to_list() == [7, 13]
    fit = KaplanMeierFitter().fit(
        np.where(frame["time"] <= 7, 7, np.where(frame["time"] <= 13, 13, 20)), frame["event"]
    )
    np.testing.assert_allclose(coarse["survival"], fit.survival_function_at_times([7, 13]), rtol=1e-12)
    assert (coarse["survival"] - fine["survival"]).abs().max() < 0.05  # type: ignore[operator]


def test_the_released_curve_ends_its_steps_at_the_declared_times() -> None:
    found = ask(people(), times=[7, 13, 14, 30])
    assert {7, 13, 30} <= set(found["curve"]["time"])
    at = found["at_times"]
    assert at["survival"].is_null().to_list() == [False, False, not bool(at["events"][2]), False]
    assert found["curve"]["events"].min() >= 10


@given(
    counts=st.lists(st.integers(0, 12), min_size=1, max_size=30),
    wanted=st.lists(st.integers(0, 29), max_size=4),
    minimum=st.integers(0, 20),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_runs_never_hold_too_few_unless_all_do(counts: list[int], wanted: list[int], minimum: int) -> None:
    table = np.array([counts], dtype=float)
    places = [place for place in wanted if place < len(counts)]
    runs = merge_towards(table, minimum, places)
    assert runs[0].start == 0
    assert all(one.stop == other.start for one, other in pairwise(runs))
    sums = [table[0, run].sum() for run in runs]
    assert all(found >= minimum for found in sums) or (len(runs) == 1 and table.sum() < minimum)
    if not places:
        assert runs[-1].stop == len(counts)


# ── few people ──


def test_a_median_needs_events_before_it_and_people_after_it() -> None:
    """Ten people at the beginning have the event at once; the curve reaches one half when few are left."""
    late = pl.DataFrame(
        {
            "time": [1.0] * 12 + [2.0] * 200 + [50.0] * 9 + [55.0] * 4,
            "event": [1.0] * 12 + [0.0] * 200 + [1.0] * 9 + [0.0] * 4,
        }
    )
    exact, found = ask(late, "off")["medians"], ask(late)["medians"]
    assert exact["median"].to_list() == [50.0]
    assert found["median"].to_list() == [50.0]  # 13 people are at risk there
    fewer = late.filter(~((pl.col("time") == 55) & (pl.int_range(late.height) >= 221)))
    assert ask(fewer, "off")["medians"]["median"].to_list() == [50.0]
    hidden = ask(fewer)["medians"]
    assert hidden["median"].to_list() == [None]
    assert "median" in hidden["withheld"][0]


def test_quantiles_too_near_each_other_are_not_both_told() -> None:
    shares = [0.3, 0.31, 0.32, 0.5]
    exact = ask(people(), "off", quantiles=shares)["quantiles"]
    assert exact["time"].null_count() == 0
    found = ask(people(200), quantiles=shares)["quantiles"]
    fit = KaplanMeierFitter().fit(people(200)["time"], people(200)["event"])
    told = found.drop_nulls("time")["time"].unique().sort().to_list()
    past = fit.event_table["observed"].cumsum()
    assert len(told) >= 2
    assert all(past.loc[late] - past.loc[early] >= 10 for early, late in pairwise(told))


def test_a_group_of_few_is_refused_and_the_setting_passes() -> None:
    frame = people(400).with_columns(
        stage=pl.when(pl.int_range(400) < 4).then(pl.lit("rare")).otherwise(pl.lit("mild")),
    )
    frame = frame.with_columns(stage=pl.when(pl.int_range(400) > 200).then(pl.lit("severe")).otherwise(pl.col("stage")))
    refused = run(frame, group="stage").error
    assert isinstance(refused, Refused)
    assert refused.rule == "minimum_people"
    assert set(refused.setting) == {"levels"}
    passed = run(frame, group="stage", **refused.setting)
    assert passed.released is not None
    assert passed.released.tables["medians"].frame["group"].to_list() == ["mild or rare", "severe"]
    two = frame.filter(pl.col("stage") != "mild")
    refused = run(two, group="stage").error
    assert isinstance(refused, Refused)
    assert refused.setting == {"group": None}
    assert run(two, **refused.setting).released is not None


def test_merged_levels_and_cut_points_are_merged_further() -> None:
    frame = people(400).with_columns(age=pl.Series(np.random.default_rng(3).uniform(30, 80, 400)))
    refused = run(frame, group="age", levels={"age": [30.3, 50, 79.8]}).error
    assert isinstance(refused, Refused)
    assert refused.setting == {"levels": {"age": [50]}}
    assert run(frame, group="age", **refused.setting).released is not None
    place = pl.int_range(400)
    stage = pl.when(place < 3).then(pl.lit("1")).when(place < 6).then(pl.lit("2")).otherwise(pl.lit("3"))
    frame = frame.with_columns(stage=pl.when(place > 300).then(pl.lit("4")).otherwise(stage))
    refused = run(frame, group="stage", levels={"stage": {"low": ["1", "2"]}}).error
    assert isinstance(refused, Refused)
    passed = run(frame, group="stage", **refused.setting)
    assert passed.released is not None
    assert passed.released.tables["medians"].frame["group"].len() == 2


def test_groups_with_few_events_are_not_compared_and_their_numbers_not_told() -> None:
    frame = people().with_columns(
        event=pl.when((pl.col("group") == "b") & (pl.int_range(600) > 20)).then(0.0).otherwise(pl.col("event"))
    )
    assert 0 < frame.filter(pl.col("group") == "b")["event"].sum() < 10
    found = ask(frame, group="group", times=[12])
    assert "log_rank" not in found.tables
    assert not any(name.startswith("log_rank") for name in found.facts)
    assert any("too few events" in note.en for note in found.notes)
    for table, column in (("curve", "survival"), ("medians", "median"), ("rmst", "rmst"), ("at_times", "survival")):
        few = found[table].filter(pl.col("group") == "b")
        assert few[column].null_count() == few.height, table
    assert found["contrasts"]["estimate"].null_count() == found["contrasts"].height


def test_a_weight_that_outweighs_everybody_tells_nothing() -> None:
    frame = people().with_columns(weight=pl.when(pl.int_range(600) == 7).then(1e9).otherwise(pl.col("weight")))
    found = ask(frame, weights="weight", times=[12])
    for table, column in (("curve", "survival"), ("medians", "median"), ("rmst", "rmst"), ("at_times", "survival")):
        assert found[table][column].null_count() == found[table].height, table
    assert any("uneven" in note.en for note in found.notes)
    assert ask(people(), weights="weight", times=[12])["at_times"]["survival"].null_count() == 0


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, False),  # equal widths are a resolution
        ({"grid": list(range(1, 61))}, True),
        ({"grid": [10, 20, 30, 60]}, False),
        ({"times": [12, 24]}, False),
        ({"times": [12, 12.5]}, True),
    ],
)
def test_points_that_are_not_shown_are_said(asked: dict[str, Any], said: bool) -> None:
    assert any("closer" in note.en for note in ask(people(), **asked).notes) == said


# ── what cannot be asked ──


@pytest.mark.parametrize(
    "wrong",
    [
        {"times": [61]},
        {"tau": 61},
        {"tau": 0},
        {"times": [-1]},
        {"quantiles": [1.0]},
        {"quantiles": [0.1] * 10},
        {"rho": 1, "test": "gehan"},
        {"rho": -1},
        {"entry": "weight", "robust": True},
        {"grid": {"width": 1}},
        {"group": "weight"},
        {"strata": "weight"},
        {"transform": "cube"},
    ],
)
def test_questions_that_cannot_be_answered_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter):
        ask(people(), **wrong)


def test_weights_and_entries_that_cannot_be_are_refused() -> None:
    with pytest.raises(NotACount, match="negative weights"):
        ask(people().with_columns(weight=pl.lit(-1.0)), weights="weight")
    with pytest.raises(NotACount, match="entries at or after"):
        ask(people().with_columns(late=pl.col("time")), entry="late")
    with pytest.raises(NobodyLeft):
        ask(people().with_columns(weight=pl.lit(0.0)), "off", weights="weight")


# ── weights ──


def test_a_weight_of_zero_is_nobody_and_equal_weights_are_none() -> None:
    frame = people()
    half = frame.with_columns(weight=pl.when(pl.int_range(600) % 2 == 0).then(0.0).otherwise(3.5))
    found = ask(half, "off", weights="weight", robust=False, group="group", times=[12])
    alone = ask(half.filter(pl.col("weight") > 0), "off", group="group", times=[12])
    np.testing.assert_allclose(found["at_times"]["survival"], alone["at_times"]["survival"], rtol=1e-12)
    assert found["curve"]["at_risk"].to_list() == alone["curve"]["at_risk"].to_list()
    assert found.facts["log_rank_chi2"] == pytest.approx(alone.facts["log_rank_chi2"], rel=1e-10)
    # Robust errors do not depend on the weights' unit, Greenwood's do.
    robust = ask(half, "off", weights="weight", group="group", times=[12])["at_times"]["std_error"]
    np.testing.assert_allclose(robust, alone["at_times"]["std_error"], rtol=1e-9)


# ── ugly people ──


@st.composite
def ugly(draw: st.DrawFn) -> dict[str, pl.DataFrame]:
    n = draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    scale = draw(st.sampled_from([1e-6, 1.0, 1e9]))
    events = draw(st.sampled_from([[1, 0, 0], [0, 1, 0], [0.4, 0.5, 0.1]]))
    times = draw(st.sampled_from([[3.0], [1.0, 2.0, 3.0, np.nan], [0.0, 1.0, 4.5, 70.0]]))
    time = random.choice(times, n)
    frame = pl.DataFrame(
        {
            "time": time,
            "event": random.choice([0.0, 1.0, np.nan], n, p=events),
            "group": pl.Series(random.choice(["a", "b"], n), dtype=pl.Enum(["a", "b", "nobody"])),
            "stage": random.choice(["x", "y"], n),
            "weight": scale * random.choice([0.0, 1e-6, 1.0, 1e3], n),
            "entry": time - random.choice([0.5, 1.0, 2.0], n),
        }
    )
    where = random.choice(4, n)
    return {f"h{place}": frame.filter(pl.Series(where == place)) for place in range(4)}


@given(
    frames=ugly(),
    more=st.sampled_from(
        [
            {},
            {"weights": "weight"},
            {"weights": "weight", "robust": False},
            {"entry": "entry"},
            {"entry": "entry", "weights": "weight"},
            {"strata": ["stage", "site"]},
            {"rho": 1, "gamma": 1},
            {"test": "gehan", "weights": "weight"},
        ]
    ),
    transform=st.sampled_from(["log-log", "log", "plain", "logit", "arcsine"]),
)
@settings(max_examples=45, deadline=None, derandomize=True)
def test_ugly_people_get_the_pooled_answer_or_an_error_that_says_why(
    frames: dict[str, pl.DataFrame], more: dict[str, Any], transform: str
) -> None:
    asked = {
        "time": "time", "event": "event", "grid": {"width": 0.5, "until": 5}, "group": "group", "times": [2],
        "quantiles": [0.25], "transform": transform, **more,
    }  # fmt: skip
    everyone = pl.concat(frames.values()).with_columns(ward=pl.concat_list([pl.lit(0)]).list.first())
    used = ["time", "event", "group", *(more[name] for name in ("weights", "entry") if name in more)]
    complete = everyone.select(used).fill_nan(None).drop_nulls()
    if "weights" in more:
        complete = complete.filter(pl.col("weight") > 0)
    if complete.height == 0:
        with pytest.raises(NobodyLeft):
            simulate(frames, "survival", asked, rules="off")
        return
    found = simulate(frames, "survival", asked, rules="off")
    if "site" in more.get("strata", ()):
        asked["strata"] = ["stage", "ward"]
        everyone = pl.concat([part.with_columns(ward=pl.lit(name)) for name, part in frames.items()])
    pooled = simulate({"all": everyone}, "survival", asked, rules="off")
    assert found.tables.keys() == pooled.tables.keys()
    for name, table in found.tables.items():
        for column, dtype in table.schema.items():
            if dtype.is_float():
                assert table[column].is_null().to_list() == pooled[name][column].is_null().to_list(), (name, column)
                values = table[column].drop_nulls()
                assert values.is_finite().all(), (name, column)
                np.testing.assert_allclose(
                    values, pooled[name][column].drop_nulls(), rtol=1e-8, atol=1e-12, err_msg=f"{name} {column}"
                )
    for name in ("log_rank_chi2", "log_rank_p"):
        if found.facts.get(name) is not None:
            assert found.facts[name] == pytest.approx(pooled.facts[name], rel=1e-7, abs=1e-10)


@given(frames=ugly())
@settings(max_examples=20, deadline=None, derandomize=True)
def test_ugly_people_have_lifelines_curve(frames: dict[str, pl.DataFrame]) -> None:
    everyone = pl.concat(frames.values()).select("time", "event").fill_nan(None).drop_nulls()
    if everyone.height == 0:
        return
    asked = {"time": "time", "event": "event", "grid": [1.0, 2.0, 3.0, 4.5, 70.0]}
    found = simulate(frames, "survival", asked, rules="off")["curve"]
    fit = KaplanMeierFitter().fit(np.maximum(everyone["time"], 1.0), everyone["event"])
    np.testing.assert_allclose(found["survival"], fit.survival_function_at_times(found["time"]), rtol=1e-12)


# ── competing events ──


def competing(n: int = 500, seed: int = 4) -> pl.DataFrame:
    frame, random = people(n, seed), np.random.default_rng(seed)
    cause = np.where(frame["event"].to_numpy() == 1, random.choice(["relapse", "death"], n, p=[0.7, 0.3]), "none")
    return frame.with_columns(cause=pl.Series(cause))


def test_one_cause_is_what_survival_leaves_and_two_add_up_to_it() -> None:
    one = ask(competing(), "off", causes=["1"], times=[12])["cumulative_incidence"]
    plain = ask(competing(), "off", times=[12])["curve"]
    np.testing.assert_allclose(1 - one["incidence"], plain["survival"], rtol=1e-12)
    found = ask(competing(), "off", event="cause", causes=["relapse", "death"])["cumulative_incidence"]
    both = found.group_by("time").agg(pl.col("incidence").sum()).sort("time")
    np.testing.assert_allclose(1 - both["incidence"], plain["survival"], rtol=1e-12)


@given(seed=st.integers(0, 99), n=st.integers(1, 60))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_competing_events_do_not_depend_on_the_hospital(seed: int, n: int) -> None:
    frame = competing(60, seed)[:n].with_columns(cause=pl.col("cause").cast(pl.Enum(["none", "relapse", "death"])))
    frame = pl.concat([frame, competing(60, 1).with_columns(cause=pl.col("cause").cast(frame["cause"].dtype))])
    asked = {**ASKED, "event": "cause", "causes": ["relapse", "death"], "group": "group", "weights": "weight"}
    sites = {"one": frame[:1], "none": frame[:0], "rest": frame[1:]}
    tables = [simulate(of, "survival", asked, rules="off")["cumulative_incidence"] for of in (sites, {"all": frame})]
    for column in ("incidence", "std_error", "ci_low", "ci_high"):
        one, other = (table[column].fill_null(-1).to_numpy() for table in tables)
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-12)


def test_a_cause_of_few_is_not_told_and_causes_have_to_be_levels() -> None:
    frame = competing(300)
    place = pl.int_range(300)
    rare = frame.with_columns(
        cause=pl.when((pl.col("cause") == "death") & (place > 30)).then(pl.lit("relapse")).otherwise(pl.col("cause"))
    )
    assert 0 < (rare["cause"] == "death").sum() < 10
    found = ask(rare, event="cause", causes=["relapse", "death"], times=[12])
    told = found["cumulative_incidence"]
    assert told["events"].null_count() == told["incidence"].null_count() == told.height == 2
    assert found["at_times"]["survival"].null_count() == 0  # less the relapses, it would have told the deaths
    many = ask(frame, event="cause", causes=["relapse", "death"], times=[12])["cumulative_incidence"]
    assert many["incidence"].null_count() == 0
    assert many["events"].min() >= 10  # type: ignore[operator]
    with pytest.raises(InvalidParameter, match="relapse"):
        ask(rare, event="cause", causes=["recurrence"])
    with pytest.raises(InvalidParameter):
        ask(rare, event="cause", causes=["death"], entry="weight")
    with pytest.raises(InvalidParameter):
        ask(rare, event="cause", causes=["death", "death"])
