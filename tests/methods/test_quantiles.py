"""Quantiles against R and NumPy at a declared resolution, weighted ones against statsmodels, and what is not shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.weightstats import DescrStatsW

from dure.client.simulate import Simulated, simulate
from dure.errors import DureError, InvalidParameter, NobodyLeft, NotACount, UnknownColumn
from dure.study.method import HUB

SHARES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9)
NUMPY = {1: "inverted_cdf", 2: "averaged_inverted_cdf", 7: "linear"}
RESOLUTION = {"age": 0.5, "marker": 0.01}


def ask(frame: pl.DataFrame, rules: Any = "off", hospitals: int = 4, **asked: Any) -> Simulated:
    parts = {f"h{place}": frame[place::hospitals] for place in range(hospitals)}
    return simulate(parts, "quantiles", asked, rules=rules)


def values(found: Simulated, variable: str, group: str = "overall") -> np.ndarray:
    chosen = found["quantiles"].filter((pl.col("variable") == variable) & (pl.col("group") == group))
    return chosen["quantile"].to_numpy()


def rounded(exact: Any, resolution: float) -> np.ndarray:
    """To the nearest multiple; by division where 1/resolution is a whole number, as people write decimals."""
    whole = round(1 / resolution) if resolution < 1 else 0
    if whole and abs(whole * resolution - 1) < 1e-12:
        return np.rint(np.asarray(exact) * whole) / whole
    return np.rint(np.asarray(exact) / resolution) * resolution


@pytest.mark.parametrize("definition", [1, 2, 7])
@pytest.mark.parametrize("by", [None, "arm"])
def test_quantiles_are_those_of_r_rounded(oracle: Any, compared: Any, definition: int, by: str | None) -> None:
    numbers, frame = oracle.numbers("quantiles"), oracle.table("table_one").drop("hospital")
    found = ask(
        frame, columns=["age", "marker"], resolution=RESOLUTION, probabilities=SHARES, by=by, definition=definition
    )
    for group, theirs in (numbers["by_arm"] if by else {"overall": numbers["overall"]}).items():
        for name in ("age", "marker"):
            compared(
                method="quantiles",
                oracle="R quantile",
                what=f"definition {definition}, {name}, {group}",
                ours=values(found, name, group),
                theirs=rounded(theirs[name][str(definition)], RESOLUTION[name]),
                tolerance=1e-15,
            )


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e9])
@pytest.mark.parametrize("fine", [3, 1e-3, 1e-9])
def test_no_scale_or_resolution_moves_a_digit(compared: Any, scale: float, fine: float) -> None:
    x = np.random.default_rng(1).standard_normal(501) * 40 * scale
    found = ask(pl.DataFrame({"x": x}), columns=["x"], resolution=fine * scale, probabilities=SHARES)
    theirs = np.quantile(x, SHARES)
    compared(
        method="quantiles",
        oracle="NumPy quantile",
        what=f"scale {scale:g}, resolution {fine:g} of it",
        ours=values(found, "x"),
        theirs=rounded(theirs, fine * scale),
        tolerance=1e-12 + 1e-15 / fine,
        scale=scale,
    )


ugly = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, 5e-324, -5e-324, 7.0, 7.0, 7.0]),
    st.integers(-20, 20).map(float),
    st.floats(-1e9, 1e9, allow_nan=False),
    st.just(float("nan")),
    st.just(float("inf")),
)


@settings(max_examples=80, deadline=None)
@given(
    x=st.lists(ugly, min_size=1, max_size=40),
    definition=st.sampled_from([1, 2, 7]),
    resolution=st.sampled_from([1.0, 0.1, 0.25, 7.0, 1e-4]),
    hospitals=st.integers(1, 5),
)
def test_ugly_numbers_give_numpys_quantile_or_say_that_nobody_is_left(
    x: list[float], definition: int, resolution: float, hospitals: int
) -> None:
    frame = pl.DataFrame({"x": x})
    known = np.array([value for value in x if np.isfinite(value)])
    asked = {
        "columns": ["x"],
        "resolution": resolution,
        "probabilities": (0.1, 0.25, 0.5, 0.9),
        "definition": definition,
    }
    if not len(known):
        with pytest.raises(NobodyLeft):
            ask(frame, hospitals=hospitals, **asked)
        return
    found = values(ask(frame, hospitals=hospitals, **asked), "x")
    exact = np.quantile(known, asked["probabilities"], method=NUMPY[definition])
    # Interpolation's own last digit may fall on either side of a half; nothing else may differ.
    either = [rounded(np.nextafter(exact, end), resolution) for end in (-np.inf, np.inf)] + [rounded(exact, resolution)]
    assert all(any(np.isclose(one, r[i], rtol=1e-14, atol=0) for r in either) for i, one in enumerate(found)), (
        found,
        exact,
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 60), hospitals=st.integers(1, 4), distinct=st.integers(1, 30))
def test_weighted_quantiles_are_statsmodels(seed: int, n: int, hospitals: int, distinct: int) -> None:
    random = np.random.default_rng(seed)
    x = random.integers(-distinct, distinct, n).astype(float)
    weights = np.where(random.random(n) < 0.2, 0.0, random.choice([0.5, 1.0, 2.0, random.gamma(1.0)], n))
    frame = pl.DataFrame({"x": x, "w": weights})
    asked = {"columns": ["x"], "resolution": 0.5, "probabilities": (0.2, 0.5, 0.75), "weights": "w"}
    if not weights.any():
        with pytest.raises(NobodyLeft):
            ask(frame, hospitals=hospitals, **asked)
        return
    heavy = weights > 0
    order = np.argsort(x[heavy], kind="stable")
    theirs = DescrStatsW(x[heavy][order], weights[heavy][order]).quantile(asked["probabilities"], return_pandas=False)
    share = np.cumsum(weights[heavy][order]) / weights.sum()
    at_a_step = [np.abs(share - p).min() < 1e-9 for p in asked["probabilities"]]
    found = values(ask(frame, hospitals=hospitals, **asked), "x")
    for ours, other, step in zip(found, theirs, at_a_step):
        # Where the share is p but for rounding, statsmodels compares floats exactly; there definition 2 is ours.
        assert step or ours == other


def test_weights_that_repeat_people_give_the_quantiles_of_repeated_people() -> None:
    random = np.random.default_rng(5)
    frame = pl.DataFrame(
        {"x": random.integers(0, 50, 200).astype(float), "w": random.integers(0, 4, 200).astype(float)}
    )
    again = pl.DataFrame({"x": np.repeat(frame["x"].to_numpy(), frame["w"].to_numpy().astype(int))})
    asked = {"columns": ["x"], "resolution": 0.5, "probabilities": SHARES}
    for definition in (1, 2):
        weighted = values(ask(frame, weights="w", definition=definition, **asked), "x")
        assert weighted.tolist() == values(ask(again, definition=definition, **asked), "x").tolist()


def test_hospitals_with_nobody_one_person_and_no_value_change_nothing() -> None:
    random = np.random.default_rng(2)
    x = random.lognormal(2, 1, 300)
    parts = {"empty": x[:0], "one": x[:1], "rest": x[1:]}
    sites = {name: pl.DataFrame({"x": part}, schema={"x": pl.Float64}) for name, part in parts.items()}
    sites["blank"] = pl.DataFrame({"x": [None] * 5}, schema={"x": pl.Float64})
    asked = {"columns": ["x"], "resolution": 0.1, "probabilities": SHARES}
    found = simulate(sites, "quantiles", asked, rules="off")
    assert values(found, "x") == pytest.approx(rounded(np.quantile(x, SHARES), 0.1), rel=1e-14)
    assert found["people"].to_dicts() == [{"variable": "x", "group": "overall", "n": 300, "missing": 5}]


def test_by_site_every_hospital_has_its_own_and_an_empty_group_none() -> None:
    random = np.random.default_rng(3)
    frame = pl.DataFrame({"x": random.normal(0, 10, 90), "g": pl.Series(["a", "b"] * 45, dtype=pl.Enum(["a", "b"]))})
    found = ask(frame, hospitals=3, columns=["x"], resolution=1, probabilities=[0.5], by="site")
    for place in range(3):
        own = np.quantile(frame["x"].to_numpy()[place::3], 0.5)
        assert values(found, "x", f"h{place}").tolist() == [np.rint(own)]
    few = frame.with_columns(x=pl.when(pl.col("g") == "a").then(None).otherwise(pl.col("x")))
    found = ask(few, columns=["x"], resolution=1, probabilities=[0.5], by="g")
    assert np.isnan(values(found, "x", "a")).all()
    assert values(found, "x", "b").tolist() == [np.rint(np.quantile(few["x"].drop_nulls().to_numpy(), 0.5))]


# ── what is not shown ──


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(40, 150), by=st.sampled_from([None, "g", "site"]))
def test_under_the_rules_no_quantile_has_fewer_than_ten_people_on_either_side(
    seed: int, n: int, by: str | None
) -> None:
    random = np.random.default_rng(seed)
    frame = pl.DataFrame({"x": random.integers(0, random.integers(2, 200), n) * 1.0, "g": random.choice(["a", "b"], n)})
    shares = (0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99)
    found = ask(frame, "default", hospitals=3, columns=["x"], resolution=1, probabilities=shares, by=by)
    x, g = frame["x"].to_numpy(), frame["g"].to_numpy()
    groups = {"a": x[g == "a"], "b": x[g == "b"]} if by == "g" else {f"h{i}": x[i::3] for i in range(3)}
    for group, own in (groups if by else {"overall": x}).items():
        shown = values(found, "x", group)
        exact = np.rint(np.quantile(own, shares))
        low, high = (np.quantile(own, shares, method=side) for side in ("lower", "higher"))
        for value, theirs, one, other in zip(shown, exact, low, high):
            enough = min((own <= one).sum(), (own >= other).sum()) >= 10
            if not np.isnan(value):
                assert enough
                assert value == theirs
            elif by != "site":  # there, ties do not count: hospitals' counts below ten are not known
                assert not enough


def test_what_the_hospitals_are_told_holds_no_counts() -> None:
    from dure.client.frames import columns_of
    from dure.federation.plan import Plan
    from dure.study.method import installed_methods
    from dure.study.rows import Rows
    from dure.study.spec import Step
    from dure.study.summary import Total

    frame = pl.DataFrame({"x": np.arange(100.0)})
    columns = columns_of({"h": frame})
    plan = Plan(
        "s",
        (Step(name="q", method="quantiles", parameters={"columns": ["x"], "resolution": 1}),),
        columns,
        installed_methods(),
    )
    question, method = plan.question(plan.steps[0], ("h",)), installed_methods()["quantiles"]
    state = method.start(question)
    summary, _ = method.summarise(Rows(frame, "h", columns), question, state, {})
    after = method.conclude(Total(summary, {}), question, state)
    assert set(after) - {HUB} == {"stage", "pieces", "pairs", "low", "high"}
    # No finer than the declared resolution: edges between whole years, in few pieces.
    assert (np.asarray(after["high"]) - np.asarray(after["low"])).max() <= 32


def test_the_resolution_is_all_that_is_searched_unless_two_people_round_differently() -> None:
    random = np.random.default_rng(4)
    found = ask(pl.DataFrame({"x": random.normal(50, 10, 3000)}), columns=["x"], resolution=1)
    assert found.facts["rounds"] == 2
    assert ask(pl.DataFrame({"x": [1.0, 2.0]}), columns=["x"], resolution=1, probabilities=[0.5]).facts["rounds"] <= 10


# ── what cannot be asked ──


@pytest.mark.parametrize(
    ("asked", "error", "says"),
    [
        ({"columns": ["y"]}, UnknownColumn, "y"),
        ({"columns": ["g"]}, InvalidParameter, "is a category"),
        ({"resolution": {"z": 1}}, InvalidParameter, "exactly the columns"),
        ({"resolution": 0}, InvalidParameter, "positive"),
        ({"probabilities": [0.0, 0.5]}, InvalidParameter, "no smallest"),
        ({"probabilities": [1.0]}, InvalidParameter, "no smallest"),
        ({"columns": ["x", "x"]}, InvalidParameter, "named twice"),
        ({"weights": "w", "definition": 7}, InvalidParameter, "1 or 2"),
        ({"weights": "v"}, UnknownColumn, "v"),
        ({"weights": "minus"}, NotACount, "negative"),
        ({"by": "x"}, InvalidParameter, "no declared levels"),
        ({"resolution": 1e-15, "columns": ["w"], "probabilities": [0.5]}, InvalidParameter, "too fine"),
    ],
)
def test_what_cannot_be_asked_is_said(asked: dict[str, Any], error: type[DureError], says: str) -> None:
    random = np.random.default_rng(6)
    frame = pl.DataFrame({"x": random.normal(size=80), "g": ["a", "b"] * 40, "w": random.uniform(5, 9, 80)})
    frame = frame.with_columns(minus=-pl.col("w"))
    with pytest.raises(error, match=says) as caught:
        ask(frame, **{"columns": ["x"], "resolution": 0.1, **asked})
    assert caught.value.text("ko")


def test_a_number_cut_into_bands_makes_groups_and_one_column_is_drawn() -> None:
    random = np.random.default_rng(7)
    frame = pl.DataFrame({"x": random.normal(0, 10, 200), "age": random.uniform(20, 80, 200)})
    found = ask(frame, columns=["x"], resolution=1, by="age", levels={"age": [50]})
    old = frame["age"].to_numpy() >= 50
    for group, own in (("<50", ~old), ("≥50", old)):
        assert (
            values(found, "x", group).tolist()
            == np.rint(np.quantile(frame["x"].to_numpy()[own], (0.25, 0.5, 0.75))).tolist()
        )
    figure = found.result.figures["quantiles"]
    assert {figure.x, figure.y, figure.group} <= set(found["quantiles"].columns)
    assert found.result.paragraph is not None
    assert "[1]" in found.result.paragraph.en
    assert len(found.result.references) == 1
