"""Scores, weights and matched sets of ugly people: any split gives the pooled answer, or a DureError that says why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from dure.client.simulate import run_frames, simulate
from dure.errors import DureError, NobodyLeft, NothingVaries, OneClass, Separation, StepSkipped
from dure.federation.ledger import Outcome
from dure.guard.rules import OFF
from dure.study.rows import Column
from dure.study.spec import Step

UGLY = settings(max_examples=20, deadline=None, derandomize=True)
GRANTS = frozenset(("per_hospital", "difference"))
STAGES = ("I", "II", "III", "IV")
APPORTIONED = ("weighted", "percent")
"""Weighted people of each level, in whole numbers that add up: equal remainders may go to either level."""
SIZES = st.integers(0, 60) | st.sampled_from((0, 1, 2, 5, 12))
TILTS = (0.0, 0.1, 100.0)
"""How much age says of treatment; 100 separates."""
SHAPES = ("random", "one each", "arms apart", "an arm alone", "empty ones")
FORMULAS = (
    "age",
    "age + C(stage)",
    "twice + age + constant",
    "C(stage) * male",
    "constant",
    "tenth + male",
    "age + treated_before",
    "log(age) + male",
)
COLUMNS = {
    **dict.fromkeys(("age", "twice", "constant", "tenth", "cost", "blood", "time"), Column("number")),
    **dict.fromkeys(("treated", "treated_before", "male", "died"), Column("flag", ("0", "1"))),
    "stage": Column("category", STAGES),
    "ward": Column("category", tuple(f"h{place}" for place in range(5))),
}
KINDS = ("ate", "att", "atc", "overlap", "matching", "entropy")


@st.composite
def ugly(draw: st.DrawFn, sizes: st.SearchStrategy[int] = SIZES, tilts: tuple[float, ...] = TILTS) -> pl.DataFrame:
    """Few people, ties everywhere, missing values, constant and collinear columns; `ward` says where they are."""
    n = draw(sizes)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from((1e-6, 1.0, 1e9)))
    age = random.integers(55, 65, n) if draw(st.booleans()) else random.normal(60, 9, n)
    male = (random.random(n) < 0.5).astype(float)
    stage = random.choice(STAGES[: draw(st.integers(1, 4))], n).astype(object)
    tilt = draw(st.sampled_from(tilts))
    treated = (random.random(n) < expit(tilt * (age - 60.2) + 0.3 * male)).astype(float)
    if draw(st.integers(0, 19)) == 19:
        treated[:] = 1.0
    events = draw(st.sampled_from((0.0, 0.1, 0.3, 0.6, 0.6, 1.0)))
    missing = draw(st.sampled_from((0.0, 0.0, 0.1)))
    frame = pl.DataFrame(
        {
            "person_id": random.permutation(n).astype(np.int64),
            "treated": treated,
            "age": age * scale,
            "twice": age * (2 * scale),
            "constant": np.full(n, 7.0),
            "tenth": np.full(n, 0.1 * scale),
            "male": male,
            "treated_before": treated,
            "stage": pl.Series(stage, dtype=pl.String),
            "cost": random.integers(0, 3, n) * scale,
            "blood": random.normal(0, scale, n),
            "died": (random.random(n) < events).astype(float),
            "time": random.integers(1, 6, n).astype(float),
        }
    )
    gone = [
        pl.when(pl.Series(random.random(n) < missing)).then(None).otherwise(pl.col(name)).alias(name)
        for name in ("age", "male", "stage", "cost", "died", "treated")
    ]
    return frame.with_columns(gone).with_columns(ward=pl.Series(wards(draw, treated, random), dtype=pl.String))


def wards(draw: st.DrawFn, treated: np.ndarray, random: np.random.Generator) -> list[str]:
    """Where each person is: of up to five hospitals."""
    n, shape = len(treated), draw(st.sampled_from(SHAPES))
    place = random.integers(0, draw(st.integers(1, 4)), n)
    if shape == "one each":
        place = np.minimum(np.arange(n), 4)
    elif shape == "arms apart":
        place = treated.astype(int)
    elif shape == "an arm alone":
        place = np.where((treated == 1) & (place == 0), 4, place)
    elif shape == "empty ones":
        place = np.full(n, 2)
    return [f"h{one}" for one in place]


def apart(frame: pl.DataFrame) -> dict[str, pl.DataFrame]:
    return {name: frame.filter(pl.col("ward") == name) for name in (f"h{one}" for one in range(5))}


def ask(sites: Mapping[str, pl.DataFrame], steps: tuple[Step, ...]) -> dict[str, Outcome]:
    return run_frames(sites, steps, OFF, GRANTS, columns=COLUMNS)[0]


def sound(outcome: Outcome) -> DureError | None:
    """What is released holds no NaN and no infinity; what is not says what and where, in both languages."""
    fold = outcome.folds.get(None) or next(iter(outcome.folds.values()))
    if fold.released is None:
        assert isinstance(fold.error, DureError), outcome.step
        assert all(fold.error.text(language) for language in ("en", "ko"))
        return fold.error
    for name, table in fold.released.tables.items():
        for column in table.frame.select(pl.selectors.float()):
            assert column.drop_nulls().is_finite().all(), (outcome.step, name, column.name)
    for name, fact in fold.released.facts.items():
        assert not isinstance(fact, float) or math.isfinite(fact), (outcome.step, name)
    return None


def same(one: Outcome, other: Outcome, tolerance: float = 1e-8) -> None:
    errors = sound(one), sound(other)
    assert type(errors[0]) is type(errors[1]), (one.step, errors)
    if errors[0] is not None:
        return
    left, right = (outcome.folds[None].released for outcome in (one, other))
    assert left is not None
    assert right is not None
    assert left.tables.keys() == right.tables.keys()
    for name, table in left.tables.items():
        alike(table.frame, right.tables[name].frame, f"{one.step}: {name}", tolerance)
    for name in left.facts.keys() - {"clusters"}:
        a, b = left.facts[name], right.facts[name]
        assert a == (pytest.approx(b, rel=tolerance, abs=1e-10) if isinstance(a, float) else b), (one.step, name)


def alike(one: pl.DataFrame, other: pl.DataFrame, where: str, tolerance: float = 1e-8) -> None:
    assert one.columns == other.columns, where
    assert one.height == other.height, where
    error = one["std_error"].fill_null(0.0).to_numpy() if "std_error" in one.columns else np.zeros(one.height)
    for column, dtype in one.schema.items():
        a, b = one[column], other[column]
        assert a.is_null().to_list() == b.is_null().to_list(), (where, column, a.to_list(), b.to_list())
        if column in APPORTIONED and "weighted" in one.columns:
            continue
        if not dtype.is_float():
            assert a.to_list() == b.to_list(), (where, column)
            continue
        x, y = (part.fill_null(0.0).to_numpy() for part in (a, b))
        own = error if column in ("estimate", "ci_low", "ci_high") else 1e-2
        noise = 1e-13 * np.abs(y).max(initial=0.0)  # of numbers that are nothing beside the others
        assert (np.abs(x - y) <= tolerance * (np.abs(y) + own) + noise).all(), (where, column, x, y)


def chain(formula: str, kind: str, **more: Any) -> tuple[Step, ...]:
    """Score → weights and sets → what is asked of the weighted and the matched."""

    def step(name: str, method: str, uses: tuple[str, ...] = (), **asked: Any) -> Step:
        return Step(name=name, method=method, parameters=asked, uses=uses)

    arms: dict[str, Any] = {"treatment": "treated", "score": "ps.score", "balance": ["age", "male", "stage", "tenth"]}
    found = [
        step("ps", "propensity", treatment="treated", formula=formula, **more),
        step("w", "weighting", ("ps",), **arms, kind=kind),
        step("died", "weighting", ("ps",), **arms, kind=kind, outcome="died"),
        step("cost", "weighting", ("ps",), **arms, kind=kind, outcome="cost", trim=[0.1, 0.9], errors="robust"),
        step("tenth", "weighting", ("ps",), **arms, kind=kind, outcome="tenth", truncate=[0.2, 0.7]),
        step("m", "matching", ("ps",), **arms, within="ward", ratio=2),
    ]
    for made in ("w", "m"):
        weights = f"{made}.weight"
        found += [
            step(f"{made}_cox", "cox", (made,), formula="treated", time="time", event="died", weights=weights,
                 strata=["site", "ward"], covariance="robust"),
            step(f"{made}_grid", "cox", (made,), formula="treated", time="time", event="died", weights=weights,
                 strata=None, grid={"width": 1, "until": 6}, covariance="robust"),
            step(f"{made}_fit", "regression", (made,), formula="died ~ treated", family="binomial", weights=weights,
                 covariance="HC0"),
            step(f"{made}_curve", "survival", (made,), time="time", event="died", group="treated",
                 grid={"width": 1, "until": 6}, weights=weights),
            step(f"{made}_table", "table_one", (made,), variables=["age", "male", "stage"], by="treated",
                 weights=weights),
        ]  # fmt: skip
    found.append(step("w_line", "regression", ("w",), formula="blood ~ treated", weights="w.weight", covariance="HC0"))
    return tuple(found)


WHOLE = given(
    frame=ugly(st.integers(25, 80), (0.0, 0.05, 0.1)),
    formula=st.sampled_from([one for one in FORMULAS if one not in ("constant", "age + treated_before")]),
    kind=st.sampled_from(KINDS),
)


def holds(frame: pl.DataFrame, formula: str, kind: str) -> None:
    steps = chain(formula, kind)
    pooled, split = ask({"all": frame}, steps), ask(apart(frame), steps)
    for name, outcome in pooled.items():
        same(outcome, split[name])


@settings(UGLY, max_examples=6)
@WHOLE
def test_any_split_of_ugly_people_gives_the_pooled_chain_or_says_why(
    frame: pl.DataFrame, formula: str, kind: str
) -> None:
    holds(frame, formula, kind)


@pytest.mark.slow
@settings(UGLY, max_examples=120)
@WHOLE
def test_many_splits_of_ugly_people_give_the_pooled_chain_or_say_why(
    frame: pl.DataFrame, formula: str, kind: str
) -> None:
    holds(frame, formula, kind)


# ── the score alone ──


@UGLY
@given(
    frame=ugly(),
    formula=st.sampled_from(FORMULAS),
    penalty=st.sampled_from((None, None, {"strength": 0.05}, {"strength": 0.1, "l1_ratio": 0}, {"folds": 3})),
)
def test_a_score_of_ugly_people_is_that_of_all_of_them_or_says_why(
    frame: pl.DataFrame, formula: str, penalty: Any
) -> None:
    asked = {"treatment": "treated", "formula": formula, "penalty": penalty}
    steps = (Step(name="ps", method="propensity", parameters=asked),)
    # what a penalty leaves in a coefficient is asked for by `tolerance`, 1e-9 of its own scale
    pooled, split = (ask(sites, steps)["ps"] for sites in ({"all": frame}, apart(frame)))
    same(pooled, split, 1e-8 if penalty is None else 1e-6)


@UGLY
@given(frame=ugly(st.integers(15, 60), (0.0, 0.1)))
def test_a_score_by_maximum_likelihood_leaves_nothing_of_the_gradient(frame: pl.DataFrame) -> None:
    outcome = ask(apart(frame), chain("age + male", "ate")[:1])["ps"]
    if sound(outcome) is not None:
        return
    found = outcome.folds[None].released
    beta, error = (found.tables["coefficients"].frame[name].fill_null(0.0) for name in ("estimate", "std_error"))
    there = frame.drop_nulls(["treated", "age", "male"])
    x = np.column_stack([np.ones(there.height), there["age"], there["male"]])
    left = (there["treated"].to_numpy() - expit(x @ beta.to_numpy())) @ x
    assert (np.abs(left) * error.to_numpy() < 1e-6).all()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e9])
@pytest.mark.parametrize("hospitals", [1, 3])
def test_separation_of_treatment_is_said_with_its_term_and_a_penalty_passes(scale: float, hospitals: int) -> None:
    random = np.random.default_rng(4)
    dose, age = np.arange(90.0), random.normal(60, 9, 90)
    frame = pl.DataFrame({"treated": (dose > 44).astype(float), "dose": dose * scale, "age": age})
    sites = {f"h{place}": frame[place::hospitals] for place in range(hospitals)}
    asked = {"treatment": "treated", "formula": "age + dose"}
    with pytest.raises(Separation) as caught:
        simulate(sites, "propensity", asked, rules="off")
    assert "dose" in caught.value.text("en")
    steps = (
        Step(name="ps", method="propensity", parameters={**asked, "penalty": {"strength": 0.05}}),
        *(
            Step(name=name, method=name, parameters={"treatment": "treated", "score": "ps.score"}, uses=("ps",))
            for name in ("weighting", "matching")
        ),
        Step(name="bare", method="propensity", parameters=asked),
        Step(
            name="after", method="weighting", parameters={"treatment": "treated", "score": "bare.score"}, uses=("bare",)
        ),
    )
    found = run_frames(sites, steps, OFF, GRANTS)[0]
    assert sound(found["ps"]) is None
    assert sound(found["weighting"]) is None
    assert isinstance(sound(found["matching"]), NobodyLeft | None)
    assert isinstance(sound(found["after"]), StepSkipped)
    assert "separation" in sound(found["after"]).text("en")


# ── scores that came from elsewhere ──

SCORES = (0.0, 1e-300, 1e-16, 1e-3, 0.1, 0.3, 0.5, 0.7, 0.9, 1 - 1e-16, 1.0)


@st.composite
def given_scores(draw: st.DrawFn) -> pl.DataFrame:
    frame = draw(ugly(st.integers(0, 60), (0.0, 0.1)))
    chosen = draw(st.lists(st.sampled_from((*SCORES, None)), min_size=1, max_size=6))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    picked = [chosen[place] for place in random.integers(0, len(chosen), frame.height)]
    return frame.with_columns(score=pl.Series(picked, dtype=pl.Float64))


def dense(e: np.ndarray, a: np.ndarray, kind: str) -> np.ndarray:
    e = np.clip(e, 1e-15, 1 - 1e-15)
    tilt = {
        "ate": np.ones_like(e),
        "att": e,
        "atc": 1 - e,
        "overlap": e * (1 - e),
        "matching": np.minimum(e, 1 - e),
        "entropy": -(e * np.log(e) + (1 - e) * np.log(1 - e)),
    }[kind]
    return np.where(a == 1, tilt / e, tilt / (1 - e))


@UGLY
@given(
    frame=given_scores(),
    kind=st.sampled_from(KINDS),
    trim=st.sampled_from((None, (0.1, 0.9), (0.3, 0.7))),
    outcome=st.sampled_from(("cost", "died", "tenth")),
)
def test_weights_of_any_scores_are_those_of_a_dense_formula(
    frame: pl.DataFrame, kind: str, trim: Any, outcome: str
) -> None:
    asked = {"treatment": "treated", "score": "score", "kind": kind, "trim": trim, "outcome": outcome}
    step = Step(name="w", method="weighting", parameters={**asked, "balance": ["age", "male", "stage", "tenth"]})
    pooled, split = (ask_scored(sites, (step,))["w"] for sites in ({"all": frame}, apart(frame)))
    same(pooled, split)
    if sound(split) is not None:
        return
    tables = split.folds[None].released.tables
    there = frame.drop_nulls(["treated", "score"])
    there = there if trim is None else there.filter(pl.col("score").is_between(*trim))
    e, a = there["score"].to_numpy(), there["treated"].to_numpy()
    w = dense(e, a, kind)
    summary = tables["summary"].frame
    for place, arm in enumerate((1, 0)):
        mine = w[a == arm]
        assert summary["kept"][place] == len(mine)
        assert summary["effective"][place] == int(mine.sum() ** 2 / (mine @ mine) * (1 + 1e-9))
        assert summary["mean_weight"][place] == pytest.approx(mine.mean(), rel=1e-8)
        known = there[outcome].is_not_null().to_numpy() & (a == arm)
        mean = np.average(there[outcome].to_numpy()[known], weights=w[known])
        size = float(np.abs(there[outcome].to_numpy()[known]).max())
        assert tables["effects"].frame["estimate"][place] == pytest.approx(mean, rel=1e-8, abs=1e-8 * size)
    constant = tables["balance"].frame.filter(pl.col("term") == "tenth")
    assert constant["smd"].drop_nulls().to_list() in ([], [0.0], [0.0, 0.0])  # of one person in an arm, nothing
    assert constant["variance_ratio"].to_list() == [None, None]


def ask_scored(sites: Mapping[str, pl.DataFrame], steps: tuple[Step, ...]) -> dict[str, Outcome]:
    return run_frames(sites, steps, OFF, GRANTS, columns={**COLUMNS, "score": Column("number")})[0]


@UGLY
@given(frame=given_scores(), caliper=st.sampled_from((None, 0.2, 3.0)), exact=st.sampled_from(((), ("stage",))))
def test_sets_of_any_scores_are_those_of_a_search_of_everybody_by_everybody(
    frame: pl.DataFrame, caliper: float | None, exact: tuple[str, ...]
) -> None:
    asked = {"treatment": "treated", "score": "score", "caliper": caliper, "exact": exact, "within": "ward"}
    step = Step(name="m", method="matching", parameters={**asked, "balance": ["age", "male", "tenth"]})
    pooled, split = (ask_scored(sites, (step,))["m"] for sites in ({"all": frame}, apart(frame)))
    same(pooled, split)
    error = sound(split)
    there = frame.drop_nulls(["treated", "score"])
    value = np.round(logit(np.clip(there["score"].to_numpy(), 1e-15, 1 - 1e-15)), 9)
    a, person = there["treated"].to_numpy(), there["person_id"].to_numpy()
    if len(set(a)) < 2:
        assert isinstance(error, OneClass | NobodyLeft)
        return
    spreads = [value[a == arm].var(ddof=1) if (a == arm).sum() > 1 else 0.0 for arm in (0, 1)]
    spread = np.sqrt(np.mean(spreads))
    if caliper is not None and spread < 1e-9:
        assert isinstance(error, NothingVaries)
        return
    width = np.inf if caliper is None else caliper * spread
    free = set(np.flatnonzero(a == 0))
    cells = there.select("ward", *exact).rows()
    pairs = 0
    for one in sorted(np.flatnonzero(a == 1), key=lambda place: (-value[place], person[place])):
        if None in cells[one]:
            continue
        near = [(abs(value[j] - value[one]), person[j], j) for j in free if cells[j] == cells[one]]
        if near and min(near)[0] <= width:
            free.discard(min(near)[2])
            pairs += 1
    if not pairs:
        assert isinstance(error, NobodyLeft)
        return
    assert error is None
    assert split.folds[None].released.tables["summary"].frame["matched"].to_list() == [pairs, pairs]


# ── people without a score, and with a weight of zero ──

LATER = ("cox", "grid", "fit", "curve", "table")


def test_people_without_a_score_count_nowhere_in_later_steps() -> None:
    frame = people(240)
    frame = frame.with_columns(age=pl.when(pl.col("person_id") % 7 == 0).then(None).otherwise(pl.col("age")))
    for made in ("w", "m"):
        steps = chain("age + male", "overlap")
        found, without = ask(apart(frame), steps), ask(apart(frame.drop_nulls("age")), steps)
        for name in (made, *(f"{made}_{later}" for later in LATER)):
            assert sound(found[name]) is None, name
            if name != f"{made}_table":  # which tells who is missing
                same(found[name], without[name])
        tables = found[f"{made}_table"].folds[None].released.tables["weighted"].frame
        assert tables["mean"].drop_nulls().is_finite().all()


def test_a_score_of_nobody_stops_later_steps_with_the_reason() -> None:
    frame = people(120).with_columns(age=pl.lit(None, dtype=pl.Float64))
    found = ask(apart(frame), chain("age + male", "ate"))
    assert isinstance(sound(found["ps"]), NobodyLeft)
    for name, outcome in found.items():
        assert name == "ps" or isinstance(sound(outcome), StepSkipped)


def test_a_weight_of_zero_is_nobody_in_later_steps() -> None:
    frame = people(240).with_columns(score=pl.col("age").rank("ordinal") / 241)
    asked = {"treatment": "treated", "score": "score", "trim": [0.2, 0.8]}
    steps = (Step(name="w", method="weighting", parameters=asked), *(
        step for step in chain("age", "ate") if step.name in [f"w_{later}" for later in LATER]
    ))  # fmt: skip
    kept = frame.filter(pl.col("score").is_between(0.2, 0.8))
    found, without = ask_scored(apart(frame), steps), ask_scored(apart(kept), steps)
    for name, table in (("w_cox", "coefficients"), ("w_grid", "coefficients"), ("w_fit", "coefficients")):
        one, other = (outcomes[name].folds[None].released.tables[table].frame for outcomes in (found, without))
        alike(one, other, name)


def people(n: int) -> pl.DataFrame:
    """Nothing ugly but ties: what is missing is put in by each test."""
    random = np.random.default_rng(8)
    age, male = random.integers(50, 70, n).astype(float), (random.random(n) < 0.5).astype(float)
    treated = (random.random(n) < expit(0.08 * (age - 60) + 0.4 * male)).astype(float)
    return pl.DataFrame(
        {
            "person_id": np.arange(n),
            "treated": treated,
            "age": age,
            "twice": 2 * age,
            "constant": np.full(n, 7.0),
            "tenth": np.full(n, 0.1),
            "male": male,
            "treated_before": treated,
            "stage": random.choice(STAGES, n),
            "cost": random.integers(0, 3, n).astype(float),
            "blood": random.normal(0, 1, n),
            "died": (random.random(n) < 0.4).astype(float),
            "time": random.integers(1, 6, n).astype(float),
            "ward": [f"h{place}" for place in random.integers(0, 5, n)],
        }
    )
