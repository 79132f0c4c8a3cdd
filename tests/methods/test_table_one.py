"""Table 1 against pandas, and its standardised differences against formulas written another way."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.weightstats import DescrStatsW

from dure.client.simulate import Simulated, simulate
from dure.errors import InvalidParameter, NobodyLeft, NotACount, UnknownColumn
from dure.language import Words
from dure.report.charts import drawable, spec
from dure.report.table_one import table_one
from dure.report.tables import Naming

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


# ── medians ──


@pytest.mark.parametrize("by", [None, "arm", "site"])
def test_medians_and_quartiles_are_pandas_rounded_to_the_resolution(by: str | None) -> None:
    frame = people(8)
    found = rows(ask(frame, by=by, medians={"age": 0.5}))
    column = {"arm": "arm", "site": "hospital", None: None}[by]
    for group, part in list(frame.groupby(column)) if column else [("overall", frame)]:
        row = found["age", None, group]
        exact = part["age"].quantile([0.25, 0.5, 0.75]).to_numpy()
        assert [row["q1"], row["median"], row["q3"]] == (np.rint(exact * 2) / 2).tolist()
        assert found["marker", None, group]["median"] is None
        assert row["mean"] == pytest.approx(part["age"].mean(), rel=1e-12)


def test_quartiles_with_too_few_people_are_hidden_and_the_median_may_stay() -> None:
    frame = people(9, 30).assign(age=np.arange(30.0))
    found = ask(frame, rules={"per_hospital": True, "minimum_cohort": 1, "minimum_hospitals": 1}, medians={"age": 1})
    row = rows(found)["age", None, "overall"]
    assert (row["q1"], row["q3"]) == (None, None)
    assert row["median"] in (14.0, 15.0)
    assert "q1: <10" in row["withheld"]
    table = found.result.tables["table_one"]
    shown = table_one(table, Words("t", "표"), Naming())
    texts = [cell.text for line in shown.rows for cell in line]
    assert any("<10" in str(text) and "[" in str(text) for text in texts)


def test_medians_are_a_line_of_the_printed_table() -> None:
    found = ask(people(10), rules="default", medians={"age": 1})
    shown = table_one(found.result.tables["table_one"], Words("t", "표"), Naming())
    lines = {line[-2].text.en: line[-1].text for line in shown.rows if isinstance(line[-2].text, Words)}
    row = rows(found)["age", None, "overall"]
    assert lines["median [quartiles]"] == f"{row['median']:.0f} [{row['q1']:.0f} – {row['q3']:.0f}]"


# ── weights ──


def weighted(oracle: Any, rules: Any = "off", **more: Any) -> Simulated:
    frame = oracle.table("table_one").with_columns(pl.col("smoker").cast(pl.Float64))
    sites = {name[0]: part.drop("hospital") for name, part in frame.group_by("hospital", maintain_order=True)}
    asked = {"variables": ["age", "marker", "stage", "smoker"], "by": "arm", "weights": "weight", **more}
    return simulate(sites, "table_one", asked, rules=rules)


def test_weighted_means_variances_and_shares_are_those_of_rs_formulas(oracle: Any, compared: Any) -> None:
    numbers, found = oracle.numbers("table_one"), weighted(oracle)
    described = {(row["variable"], row["level"], row["group"]): row for row in found["weighted"].iter_rows(named=True)}
    for arm in "abc":
        for name in ("age", "marker"):
            for of, table in (("plain", rows(found)), ("weighted", described)):
                row, (n, mean, variance) = table[name, None, arm], numbers[name][of][arm]
                assert row["n"] == n
                compared(
                    method="table_one",
                    oracle="R (formulas of survey::svyvar)",
                    what=f"mean and SD of {name}, {of}, arm {arm}",
                    ours=[row["mean"], row["sd"]],
                    theirs=[mean, np.sqrt(variance)],
                    tolerance=1e-12,
                )
        # Weighted counts are whole numbers of the group's people, so shares are near and not equal.
        shares = [described["stage", level, arm]["weighted"] for level in ("I", "II", "III")]
        theirs = np.asarray(numbers["stage"]["weighted"][arm])
        assert np.asarray(shares) / sum(shares) == pytest.approx(theirs, abs=1.5 / sum(shares))
        assert described["", None, arm]["effective"] == round(numbers["effective"][arm])


@pytest.mark.parametrize("denominator", ["weighted", "unweighted"])
def test_differences_before_and_after_weighting_are_those_of_r(oracle: Any, compared: Any, denominator: str) -> None:
    numbers, found = oracle.numbers("table_one"), weighted(oracle, denominator=denominator)
    table = {row["variable"]: row for row in found["differences"].iter_rows(named=True)}
    after = "smd_weighted" if denominator == "weighted" else "smd_weighted_cobalt"
    for ours, theirs in (("smd", "smd"), ("smd_weighted", after)):
        compared(
            method="table_one",
            oracle="R (formulas of tableone and cobalt)",
            what=f"standardised differences, {theirs}",
            ours=[table[name][ours] for name in ("age", "marker", "stage", "smoker")],
            theirs=[numbers[name][theirs] for name in ("age", "marker", "stage", "smoker")],
            tolerance=1e-11,
        )
    balance = found.result.tables["balance"].frame
    assert balance["smd"].to_list() == [*found["differences"]["smd"], *found["differences"]["smd_weighted"]]
    drawn = drawable(found.result)["balance"]
    assert (drawn.drawn, drawn.group) == ("dots", "sample")
    assert "가중 후" in str(spec(drawn, found.result.tables["balance"], "ko"))


def test_weighted_moments_and_medians_are_statsmodels(oracle: Any, compared: Any) -> None:
    found = weighted(oracle, by=None, medians={"marker": 0.01})
    row = next(row for row in found["weighted"].iter_rows(named=True) if row["variable"] == "marker")
    people = oracle.table("table_one").drop_nulls("marker").filter(pl.col("weight") > 0).sort("marker")
    theirs = DescrStatsW(people["marker"].to_numpy(), people["weight"].to_numpy())
    n = people.height
    compared(
        method="table_one",
        oracle="statsmodels DescrStatsW",
        what="weighted mean and SD",
        ours=[row["mean"], row["sd"]],
        theirs=[theirs.mean, np.sqrt(theirs.var * n / (n - 1))],
        tolerance=1e-12,
    )
    quartiles = theirs.quantile([0.25, 0.5, 0.75], return_pandas=False)
    assert [row["q1"], row["median"], row["q3"]] == (np.rint(quartiles * 100) / 100).tolist()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e9])
def test_weights_all_equal_tell_nothing_new_at_any_scale(scale: float) -> None:
    frame = people(11).assign(w=scale, marker=lambda f: f["marker"] * scale)
    for rules in ("off", "default"):
        found = ask(frame, rules=rules, by="arm", weights="w", medians={"age": 1})
        plain, heavy = found["table_one"], found["weighted"]
        assert plain["n"].to_list() == heavy["n"].to_list()
        levels = plain.filter(pl.col("level").is_not_null())["n"].to_list()
        assert heavy.filter(pl.col("level").is_not_null())["weighted"].to_list() == levels
        assert heavy["effective"].to_list()[:3] == plain["n"].to_list()[:3]
        for name in ("mean", "sd"):
            ours, theirs = (table[name].drop_nulls().to_numpy() for table in (plain, heavy))
            np.testing.assert_allclose(ours, theirs, rtol=1e-9)
        before, after = (found["differences"][name].to_numpy() for name in ("smd", "smd_weighted"))
        np.testing.assert_allclose(before, after, rtol=1e-8)


def test_a_weighted_level_is_hidden_with_its_people() -> None:
    frame = people(12).assign(smoker=0.0, w=1.0)
    frame.loc[:4, ["smoker", "w"]] = [1.0, 500.0]
    found = ask(frame, rules="default", weights="w")["weighted"].filter(pl.col("variable") == "smoker")
    assert found["n"].to_list() == [None, None]
    assert found["weighted"].to_list() == [None, None]
    assert found["percent"].to_list() == [None, None]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 60))
def test_ugly_columns_give_numbers_or_nothing(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "constant": np.full(n, 3.0),
            "huge": random.normal(0, 1, n) * 1e9,
            "tiny": pl.Series(np.where(random.random(n) < 0.5, np.nan, random.normal(5, 1, n) * 1e-6)).fill_nan(None),
            "level": pl.Series(random.choice(["x", "y"], n), dtype=pl.Enum(["x", "y", "nobody"])),
            "arm": random.choice(["a", "b"], n, p=[0.9, 0.1]),
            "w": np.where(random.random(n) < 0.5, 0.0, random.uniform(0, 3, n)),
        }
    )
    sites = {"empty": frame[:0], "one": frame[:1], "rest": frame[1:]}
    asked = {
        "variables": ["constant", "huge", "tiny", "level"],
        "by": "arm",
        "medians": {"constant": 1, "huge": 1e7, "tiny": 1e-7},
        "weights": "w",
    }
    found = simulate(sites, "table_one", asked, rules="off")
    for name, table in found.tables.items():
        for column, kind in table.schema.items():
            assert not kind.is_float() or table[column].is_nan().sum() == 0, (name, column)
    for arm, part in frame.group_by("arm"):
        known = part["tiny"].fill_nan(None).drop_nulls().to_numpy()
        row = next(row for row in found["table_one"].to_dicts() if (row["variable"], row["group"]) == ("tiny", arm[0]))
        if len(known):
            assert row["mean"] == pytest.approx(known.mean(), rel=1e-12)
            assert row["median"] == pytest.approx(np.rint(np.quantile(known, 0.5) / 1e-7) * 1e-7, rel=1e-12)
        heavy = part.filter((pl.col("w") > 0) & pl.col("huge").is_not_null())
        row = next(row for row in found["weighted"].to_dicts() if (row["variable"], row["group"]) == ("huge", arm[0]))
        if heavy.height:
            mean = np.average(heavy["huge"].to_numpy(), weights=heavy["w"].to_numpy())
            assert row["mean"] == pytest.approx(mean, rel=1e-10, abs=1e-2)


def test_what_table_one_cannot_do_with_weights_and_medians_is_said() -> None:
    frame = people(13).assign(w=-1.0)
    with pytest.raises(NotACount, match="negative"):
        ask(frame, weights="w")
    with pytest.raises(UnknownColumn):
        ask(frame, weights="v")
    with pytest.raises(InvalidParameter, match="not among the variables"):
        ask(frame, medians={"sex": 1})
    with pytest.raises(InvalidParameter, match="positive"):
        ask(frame, medians={"age": -1})


def test_levels_of_the_step_and_the_paragraph() -> None:
    asked = {"by": "arm", "levels": {"age": [50, 65], "sex": {"not female": ["male", "other"]}}, "weights": "w"}
    found = ask(people(14).assign(w=1.0), rules="default", **asked)
    levels = found["table_one"].filter(pl.col("variable") == "age")["level"].unique(maintain_order=True).to_list()
    assert levels == ["<50", "50 to <65", "≥65"]
    said = found.result.paragraph
    assert said is not None
    assert all(
        f"[{place}" in said.en or f" {place}]" in said.en for place in range(1, len(found.result.references) + 1)
    )
