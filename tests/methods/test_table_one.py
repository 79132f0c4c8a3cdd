"""Table 1 against pandas, and its standardised differences against formulas written another way."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from dure.client.simulate import Simulated, simulate
from dure.errors import InvalidParameter, NobodyLeft, UnknownColumn

VARIABLES = ["age", "marker", "sex", "smoker"]


def people(seed: int = 0, n: int = 800) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    arm = random.choice(["a", "b", "c"], n)
    frame = pd.DataFrame(
        {
            "age": random.normal(60 + 3 * (arm == "b"), 9, n),
            "marker": 1e6 + random.lognormal(0, 1, n),
            "sex": random.choice(["female", "male", "other"], n, p=[0.5, 0.4, 0.1]),
            "smoker": (random.random(n) < 0.3 + 0.2 * (arm == "c")).astype(float),
            "arm": arm,
            "hospital": random.choice(["north", "south", "west"], n),
        }
    )
    frame.loc[::9, "age"] = np.nan
    frame.loc[::14, "sex"] = None
    frame.loc[::17, "smoker"] = np.nan
    return frame


def ask(frame: pd.DataFrame, rules: Any = "off", **more: Any) -> Simulated:
    sites = {name: part.drop(columns="hospital") for name, part in frame.groupby("hospital")}
    return simulate(sites, "table_one", {"variables": VARIABLES, **more}, rules=rules)


def rows(found: Simulated) -> dict[tuple[Any, ...], dict[str, Any]]:
    return {(row["variable"], row["level"], row["group"]): row for row in found["table_one"].to_dicts()}


@pytest.mark.parametrize("by", [None, "arm", "site"])
def test_every_number_equals_pandas(by: str | None) -> None:
    frame = people(1)
    found = rows(ask(frame, by=by))
    column = {"arm": "arm", "site": "hospital", None: None}[by]
    parts = dict(list(frame.groupby(column))) if column else {"overall": frame}
    for group, part in parts.items():
        assert found["", None, group]["n"] == len(part)
        for name in ("age", "marker"):
            row = found[name, None, group]
            assert row["mean"] == pytest.approx(part[name].mean(), rel=1e-12)
            assert row["sd"] == pytest.approx(part[name].std(), rel=1e-9)
            assert (row["n"], row["missing"]) == (part[name].count(), part[name].isna().sum())
        for name in ("sex", "smoker"):
            counts = part[name].value_counts()
            for place, level in enumerate(counts.sort_index().index):
                row = found[name, level if name == "sex" else str(int(level)), group]
                assert (row["n"], row["of"]) == (counts[level], len(part))
                assert row["percent"] == pytest.approx(100 * counts[level] / len(part), rel=1e-12)
                assert row["missing"] == (part[name].isna().sum() if place == 0 else None)


def by_hand(frame: pd.DataFrame, name: str, group: str) -> float:
    """The largest standardised difference over pairs of groups, each from the people themselves."""
    sizes = []
    for one, other in itertools.combinations(sorted(frame[group].unique()), 2):
        a, b = (frame.loc[frame[group] == which, name].dropna() for which in (one, other))
        if name in ("age", "marker"):
            sizes.append(abs(a.mean() - b.mean()) / np.sqrt((a.var() + b.var()) / 2))
            continue
        levels = sorted(frame[name].dropna().unique())[1:]
        dummies = [np.column_stack([part == level for level in levels]).astype(float) for part in (a, b)]
        gap = dummies[0].mean(axis=0) - dummies[1].mean(axis=0)
        spread = sum(np.atleast_2d(np.cov(part.T, bias=True)) for part in dummies) / 2
        sizes.append(np.sqrt(gap @ np.linalg.solve(spread, gap)))
    return float(max(sizes))


@pytest.mark.parametrize("by", ["arm", "site"])
def test_differences_equal_the_formula_of_yang_and_dalton(by: str) -> None:
    frame = people(2)
    found = dict(ask(frame, by=by)["differences"].iter_rows())
    for name in VARIABLES:
        column = "hospital" if by == "site" else by
        assert found[name] == pytest.approx(by_hand(frame, name, column), rel=1e-8), name


def test_equal_groups_do_not_differ_and_constants_of_different_value_are_not_compared() -> None:
    frame = people(3).assign(age=50.0, marker=lambda f: np.where(f["arm"] == "a", 1.0, 2.0))
    found = dict(ask(frame, by="arm")["differences"].iter_rows())
    assert found["age"] == 0.0
    assert found["marker"] in (None, 0.0)


def test_a_variable_that_one_hospital_never_recorded_is_described_from_the_others() -> None:
    frame = people(4)
    frame.loc[frame["hospital"] == "west", ["age", "sex"]] = [np.nan, None]
    found = rows(ask(frame))
    assert found["age", None, "overall"]["mean"] == pytest.approx(frame["age"].mean(), rel=1e-12)
    assert found["sex", "female", "overall"]["n"] == (frame["sex"] == "female").sum()
    by_site = rows(ask(frame, by="site"))
    assert by_site["age", None, "west"]["mean"] is None
    assert by_site["age", None, "west"]["n"] == 0


def test_under_the_rules_small_cells_are_hidden_with_their_complement_and_percentages_come_from_rounded_counts() -> (
    None
):
    frame = people(5).assign(smoker=0.0)
    frame.loc[:4, "smoker"] = 1.0
    shown = rows(ask(frame, rules="default"))
    for level in ("0", "1"):
        row = shown["smoker", level, "overall"]
        assert row["n"] is None
        assert row["percent"] is None
        assert row["withheld"]
    for level in ("female", "male", "other"):
        row = shown["sex", level, "overall"]
        assert row["n"] == 5 * round((frame["sex"] == level).sum() / 5)
        assert row["percent"] == 100 * row["n"] / row["of"]


def test_what_cannot_be_described_is_refused() -> None:
    with pytest.raises(UnknownColumn, match="Did you mean 'age'"):
        ask(people(6), variables=["agee"])
    with pytest.raises(InvalidParameter, match="no declared levels"):
        ask(people(6), by="marker")
    with pytest.raises(NobodyLeft):
        simulate({"one": people(6)[["age"]].iloc[:0]}, "table_one", {"variables": ["age"]}, rules="off")


def test_levels_without_people_stand_in_the_table_as_nobody() -> None:
    frame = people(7)
    sites = {name: pl.from_pandas(part.drop(columns="hospital")) for name, part in frame.groupby("hospital")}
    order = pl.Enum(["male", "female", "other", "unknown"])
    sites = {name: part.with_columns(pl.col("sex").cast(order)) for name, part in sites.items()}
    found = simulate(sites, "table_one", {"variables": ["sex"]}, rules="off")["table_one"]
    assert found["level"].to_list()[1:4] == ["male", "female", "other"]
