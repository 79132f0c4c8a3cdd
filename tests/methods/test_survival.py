"""Curves and log-rank tests from counts against lifelines, on times moved up to the grid."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter
from lifelines.statistics import logrank_test, multivariate_logrank_test
from scipy import stats

from dure.client.simulate import Simulated, simulate
from dure.errors import InvalidParameter, NobodyLeft, NotACount

WIDTH, UNTIL = 2.0, 40.0
GRID = {"width": WIDTH, "until": UNTIL}


def people(seed: int = 0, n: int = 400, groups: Iterable[str] = ("a", "b")) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    group = random.choice(list(groups), n)
    stage = random.choice(["early", "late"], n)
    rate = np.where(group == "a", 20.0, 13.0) * np.where(stage == "late", 0.6, 1.0)
    death, censor = random.exponential(rate), random.uniform(0, 60, n)
    return pd.DataFrame(
        {
            "time": np.round(np.minimum(death, censor), 1),
            "event": (death <= censor).astype(float),
            "group": group,
            "stage": stage,
            "hospital": random.choice(["north", "south", "west"], n),
        }
    )


def ask(frame: pd.DataFrame, **more: Any) -> Simulated:
    sites = {name: part.drop(columns="hospital") for name, part in frame.groupby("hospital")}
    asked = {"time": "time", "event": "event", "grid": GRID, **more}
    return simulate(sites, "survival", asked, rules="off")


def on_grid(frame: pd.DataFrame) -> pd.DataFrame:
    """The same people with times moved up to the grid; those beyond it are censored after its end."""
    moved = frame.assign(time=np.maximum(np.ceil(np.round(frame["time"] / WIDTH, 9)), 1) * WIDTH)
    beyond = moved["time"] > UNTIL
    return moved.assign(time=np.where(beyond, UNTIL + 1, moved["time"]), event=np.where(beyond, 0, moved["event"]))


def assert_curve(found: pl.DataFrame, frame: pd.DataFrame, level: float = 0.95) -> None:
    fitter = KaplanMeierFitter(alpha=1 - level).fit(frame["time"], frame["event"])
    table = fitter.event_table
    times = found["time"].to_list()
    expected = fitter.survival_function_at_times(times).to_numpy()
    np.testing.assert_allclose(found["survival"], expected, rtol=1e-12)
    bounds = fitter.confidence_interval_survival_function_
    for row in found.to_dicts():
        if row["time"] in table.index:
            assert row["at_risk"] == table.loc[row["time"], "at_risk"]
            assert row["events"] == table.loc[row["time"], "observed"]
        else:
            assert row["events"] == 0
        low, high = bounds.loc[: row["time"]].iloc[-1]
        if 0 < row["survival"] < 1:
            assert row["ci_low"] == pytest.approx(low, rel=1e-9)
            assert row["ci_high"] == pytest.approx(high, rel=1e-9)
        else:
            assert row["ci_low"] is None


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_one_curve_equals_kaplan_meier_with_its_log_log_interval(level: float) -> None:
    frame = people(1)
    assert_curve(ask(frame, level=level)["curve"], on_grid(frame), level)


def test_each_group_has_its_own_curve() -> None:
    frame = people(2)
    found = ask(frame, group="group")["curve"]
    for name, part in on_grid(frame).groupby("group"):
        assert_curve(found.filter(pl.col("group") == name), part)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), n=st.integers(30, 200))
def test_standard_errors_are_greenwoods(seed: int, n: int) -> None:
    frame = people(seed, n)
    found, moved = ask(frame)["curve"], on_grid(frame)
    sums, survival = 0.0, 1.0
    for row in found.to_dicts():
        died = int(((moved["time"] == row["time"]) & (moved["event"] == 1)).sum())
        risk = int((moved["time"] >= row["time"]).sum())
        if risk and died < risk:
            sums += died / (risk * (risk - died))
            survival *= 1 - died / risk
            assert row["std_error"] == pytest.approx(survival * np.sqrt(sums), rel=1e-10)


def test_the_median_is_the_first_time_at_which_at_most_half_survive() -> None:
    frame = people(3, 900)
    found = dict(ask(frame, group="group")["medians"].select("group", "median").iter_rows())
    for name, part in on_grid(frame).groupby("group"):
        assert found[name] == KaplanMeierFitter().fit(part["time"], part["event"]).median_survival_time_
    nobody_dies = ask(frame.assign(event=0.0))["medians"]
    assert nobody_dies["median"].to_list() == [None]


def test_the_log_rank_test_equals_lifelines() -> None:
    frame = people(4)
    moved = on_grid(frame)
    a, b = moved[moved["group"] == "a"], moved[moved["group"] == "b"]
    expected = logrank_test(a["time"], b["time"], a["event"], b["event"])
    facts = ask(frame, group="group").facts
    assert facts["log_rank_chi2"] == pytest.approx(expected.test_statistic, rel=1e-10)
    assert facts["log_rank_p"] == pytest.approx(expected.p_value, rel=1e-9)
    assert facts["log_rank_df"] == 1


@pytest.mark.parametrize("groups", [("a", "b", "c"), ("a", "b", "c", "d", "e")])
def test_more_groups_are_compared_as_lifelines_does(groups: tuple[str, ...]) -> None:
    frame = people(5, groups=groups)
    moved = on_grid(frame)
    expected = multivariate_logrank_test(moved["time"], moved["group"], moved["event"])
    facts = ask(frame, group="group").facts
    assert facts["log_rank_chi2"] == pytest.approx(expected.test_statistic, rel=1e-9)
    assert facts["log_rank_p"] == pytest.approx(expected.p_value, rel=1e-8)
    assert facts["log_rank_df"] == len(groups) - 1


def stratified(frame: pd.DataFrame, group: str, strata: str) -> tuple[float, float]:
    """Mantel's test person by person: at each death time of a stratum, a hypergeometric draw."""
    names = sorted(frame[group].unique())
    observed, expected = np.zeros(len(names)), np.zeros(len(names))
    variance = np.zeros((len(names), len(names)))
    for _, part in frame.groupby(strata):
        for time in np.unique(part.loc[part["event"] == 1, "time"]):
            risk = part[part["time"] >= time]
            dead = risk[(risk["time"] == time) & (risk["event"] == 1)]
            n, d = len(risk), len(dead)
            share = np.array([(risk[group] == name).mean() for name in names])
            observed += [(dead[group] == name).sum() for name in names]
            expected += d * share
            if n > 1:
                variance += d * (n - d) / (n - 1) * (np.diag(share) - np.outer(share, share))
    gap = (observed - expected)[1:]
    chi2 = float(gap @ np.linalg.solve(variance[1:, 1:], gap))
    return chi2, float(stats.chi2.sf(chi2, len(names) - 1))


@pytest.mark.parametrize("groups", [("a", "b"), ("a", "b", "c")])
@pytest.mark.parametrize("strata", ["stage", "site"])
def test_the_stratified_log_rank_test_equals_one_written_person_by_person(strata: str, groups: tuple[str, ...]) -> None:
    frame = people(6, groups=groups)
    chi2, p = stratified(on_grid(frame), "group", "hospital" if strata == "site" else strata)
    facts = ask(frame, group="group", strata=strata).facts
    assert facts["log_rank_chi2"] == pytest.approx(chi2, rel=1e-10)
    assert facts["log_rank_p"] == pytest.approx(p, rel=1e-9)


def test_hospitals_can_be_the_groups() -> None:
    frame = people(7)
    moved = on_grid(frame)
    expected = multivariate_logrank_test(moved["time"], moved["hospital"], moved["event"])
    found = ask(frame, group="site")
    assert found.facts["log_rank_chi2"] == pytest.approx(expected.test_statistic, rel=1e-9)
    assert set(found["curve"]["group"]) == {"north", "south", "west"}


def test_people_without_time_event_or_group_are_left_out() -> None:
    frame = people(8)
    frame.loc[::7, "time"] = np.nan
    frame.loc[::11, "event"] = np.nan
    frame.loc[::13, "group"] = None
    found, complete = ask(frame, group="group"), frame.dropna()
    assert found.facts["n"] == len(complete)
    assert found.facts["events"] == on_grid(complete)["event"].sum()


def test_a_time_on_a_grid_point_belongs_to_it() -> None:
    frame = pd.DataFrame({"time": [2.0, 0.1 + 0.2, 4.0, 4.1], "event": 1.0, "hospital": ["n", "s", "n", "s"]})
    assert ask(frame)["curve"]["events"].to_list()[:3] == [2, 1, 1]
    third = ask(frame, grid=[0.3, 2.0, 4.0, 5.0])["curve"]
    assert third["events"].to_list() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "grid",
    [
        None,
        {"width": 1.0},
        {"width": 1.0, "until": 2.0, "more": 1},
        [],
        [2.0, 1.0],
        [1.0, 1.0],
        [0.0, 1.0],
        {"width": 1e-6, "until": 1.0},
        [place + 1.0 for place in range(20_001)],
    ],
)
def test_grids_that_cannot_be_used_are_refused(grid: Any) -> None:
    with pytest.raises(InvalidParameter):
        ask(people(9), grid=grid)


def test_times_and_events_that_cannot_be_are_refused() -> None:
    with pytest.raises(NotACount, match="negative"):
        ask(people(10).assign(time=-1.0))
    with pytest.raises(NotACount, match="other than 0 and 1"):
        ask(people(10).assign(event=2.0))
    with pytest.raises(NobodyLeft, match="time, event"):
        ask(people(10).assign(time=np.nan))
    with pytest.raises(InvalidParameter, match="levels"):
        ask(people(10), group="time")


def test_under_the_rules_every_step_of_a_curve_has_ten_deaths_behind_it_and_the_same_height() -> None:
    frame = people(11, 900)
    sites = {name: part.drop(columns="hospital") for name, part in frame.groupby("hospital")}
    asked = {"time": "time", "event": "event", "grid": GRID}
    guarded = simulate(sites, "survival", asked)["curve"]
    assert guarded["events"].drop_nulls().min() >= 10
    exact = ask(frame)["curve"]
    assert guarded.height < exact.height
    joined = guarded.join(exact, on="time", suffix="_exact")
    assert joined.height == guarded.height
    # Wider steps put deaths and censoring together: the curve moves, but by less than a standard error.
    gap = (joined["survival"] - joined["survival_exact"]).abs()
    assert (gap < joined["std_error_exact"]).all()
