"""Regression over hospitals against the pooled fit of statsmodels (and once of glum), term by term."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from glum import GeneralizedLinearRegressor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from statsmodels.genmod.families import Binomial, Poisson
from statsmodels.tools.sm_exceptions import PerfectSeparationWarning

from dure.client.simulate import Simulated, simulate
from dure.errors import (
    FormulaError,
    NobodyLeft,
    NotACount,
    NotAnOutcome,
    NotConverged,
    NotEstimable,
    NothingVaries,
    OneClass,
    Separation,
    UnknownColumn,
)

SOME = settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def people(seed: int = 0, n: int = 600) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    age, stage = random.normal(60, 9, n), random.choice(["a", "b", "c"], n)
    treated = (random.random(n) < 0.4).astype(float)
    marker = random.lognormal(0, 0.5, n)
    eta = 0.04 * (age - 60) + 0.6 * (stage == "b") - 0.5 * (stage == "c") + 0.7 * treated
    return pd.DataFrame(
        {
            "age": age,
            "stage": stage,
            "treated": treated,
            "marker": marker,
            "sick": (random.random(n) < 1 / (1 + np.exp(-eta))).astype(float),
            "visits": random.poisson(np.exp(0.4 + eta / 2)).astype(float),
            "pressure": 120 + 5 * eta + random.normal(0, 9, n),
            "weight": random.integers(1, 5, n).astype(float),
            "exposure": np.log(random.uniform(0.5, 3, n)),
            "hospital": random.choice(["north", "south", "west"], n),
        }
    )


def fit(frame: pd.DataFrame, formula: str, family: str = "binomial", **more: Any) -> Simulated:
    sites = {name: part.drop(columns="hospital") for name, part in frame.groupby("hospital")}
    return simulate(sites, "regression", {"formula": formula, "family": family, **more}, rules="off")


def oracle(frame: pd.DataFrame, formula: str, family: str = "binomial", **more: Any) -> Any:
    """The pooled fit; statsmodels stops early at any tolerance above nothing."""
    kind = {"binomial": Binomial, "poisson": Poisson}[family]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # run until the deviance is the same to the last bit
        model = smf.glm(formula, frame, family=kind, **more)
        settled = model.fit(tol=0, maxiter=60)  # its errors are those of the step before: one more gives theirs
        return model.fit(start_params=settled.params, tol=0, maxiter=60)


def close(found: Simulated, expected: Any, rel: float = 1e-8) -> None:
    """Coefficients, standard errors, intervals and p-values, joined by term name."""
    table = found["coefficients"].filter(pl.col("estimate").is_not_null())
    assert set(table["term"]) == set(expected.params.index)
    interval = expected.conf_int()
    for row in table.to_dicts():
        name, se = row["term"], expected.bse[row["term"]]
        assert row["estimate"] == pytest.approx(expected.params[name], rel=rel, abs=rel * se), name
        assert row["std_error"] == pytest.approx(se, rel=rel), name
        assert row["p_value"] == pytest.approx(expected.pvalues[name], rel=1e-6, abs=1e-12), name
        assert row["ci_low"] == pytest.approx(interval.loc[name, 0], rel=1e-7, abs=1e-7 * se), name
        assert row["ci_high"] == pytest.approx(interval.loc[name, 1], rel=1e-7, abs=1e-7 * se), name


FORMULAS = [
    "sick ~ age",
    "sick ~ age + C(stage) + treated",
    "sick ~ C(stage, Treatment('b')) + age",
    "sick ~ C(stage) * treated + age",
    "sick ~ age * treated",
    "sick ~ C(stage):age + treated",
    "sick ~ 0 + C(stage) + age",
    "sick ~ age + C(stage) - 1",
    "sick ~ log(marker) + I(age**2) + sqrt(marker)",
    "sick ~ I(age > 60) + marker",
]


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_logistic_fit_equals_statsmodels(formula: str) -> None:
    frame = people()
    theirs = formula.replace("log(", "np.log(").replace("sqrt(", "np.sqrt(")
    expected = oracle(frame, theirs.replace("I(age > 60)", "I((age > 60) * 1.0)"))
    expected.params.index  # noqa: B018
    renamed = {
        name: name.replace("np.", "").replace("I((age > 60) * 1.0)", "I(age > 60)").replace(" ** ", "**")
        for name in expected.params.index
    }
    found = fit(frame, formula)
    table = found["coefficients"].with_columns(pl.col("term").str.replace_all(r" \*\* ", "**"))
    ours = dict(zip(table["term"], table["estimate"]))
    errors = dict(zip(table["term"], table["std_error"]))
    assert set(ours) == set(renamed.values())
    for name, term in renamed.items():
        assert ours[term] == pytest.approx(expected.params[name], rel=1e-8, abs=1e-8 * expected.bse[name])
        assert errors[term] == pytest.approx(expected.bse[name], rel=1e-8)
    assert found.facts["deviance"] == pytest.approx(expected.deviance, rel=1e-10)
    assert found.facts["log_likelihood"] == pytest.approx(expected.llf, rel=1e-10)
    assert found.facts["aic"] == pytest.approx(expected.aic, rel=1e-10)


def test_a_logistic_fit_equals_the_logit_class_too() -> None:
    frame = people(3)
    expected = smf.logit("sick ~ age + C(stage) + treated", frame).fit(disp=0, tol=1e-14, method="newton")
    close(fit(frame, "sick ~ age + C(stage) + treated"), expected)


@pytest.mark.parametrize("formula", ["visits ~ age + C(stage)", "visits ~ treated * marker", "visits ~ 0 + C(stage)"])
def test_a_poisson_fit_equals_statsmodels(formula: str) -> None:
    found, expected = fit(people(1), formula, "poisson"), oracle(people(1), formula, "poisson")
    close(found, expected)
    assert found.facts["deviance"] == pytest.approx(expected.deviance, rel=1e-10)
    assert found.facts["log_likelihood"] == pytest.approx(expected.llf, rel=1e-10)


def test_an_offset_enters_with_coefficient_one() -> None:
    frame = people(2)
    expected = oracle(frame, "visits ~ age + C(stage)", "poisson", offset=frame["exposure"])
    close(fit(frame, "visits ~ age + C(stage)", "poisson", offset="exposure"), expected)


@pytest.mark.parametrize("formula", ["pressure ~ age + C(stage)", "pressure ~ 0 + C(stage) + marker:treated"])
def test_a_linear_fit_equals_least_squares_with_its_t_intervals(formula: str) -> None:
    found, expected = fit(people(4), formula, "gaussian"), smf.ols(formula, people(4)).fit()
    close(found, expected)
    assert found.facts["dispersion"] == pytest.approx(expected.scale, rel=1e-10)
    assert found.facts["log_likelihood"] == pytest.approx(expected.llf, rel=1e-10)


@pytest.mark.parametrize("family", ["binomial", "poisson", "gaussian"])
def test_robust_errors_equal_hc0(family: str) -> None:
    frame = people(5)
    outcome = {"binomial": "sick", "poisson": "visits", "gaussian": "pressure"}[family]
    formula = f"{outcome} ~ age + C(stage) * treated"
    found = fit(frame, formula, family, covariance="HC0")
    if family == "gaussian":
        expected = smf.ols(formula, frame).fit(cov_type="HC0", use_t=True)
    else:
        kind = Binomial() if family == "binomial" else Poisson()
        expected = smf.glm(formula, frame, family=kind).fit(tol=1e-14, cov_type="HC0", maxiter=200)
    close(found, expected)


@pytest.mark.parametrize("family", ["binomial", "poisson"])
@pytest.mark.parametrize("kind", ["freq_weights", "var_weights"])
def test_weights_weigh_the_likelihood(family: str, kind: str) -> None:
    frame = people(6)
    formula = "sick ~ age + C(stage)" if family == "binomial" else "visits ~ age + C(stage)"
    expected = oracle(frame, formula, family, **{kind: frame["weight"]})
    found = fit(frame, formula, family, weights="weight")
    close(found, expected)
    assert found.facts["deviance"] == pytest.approx(expected.deviance, rel=1e-10)
    assert found.facts["n"] == len(frame)


def test_weighted_least_squares_equals_statsmodels() -> None:
    frame = people(7)
    expected = smf.wls("pressure ~ age + C(stage)", frame, weights=frame["weight"]).fit()
    found = fit(frame, "pressure ~ age + C(stage)", "gaussian", weights="weight")
    close(found, expected)
    assert found.facts["dispersion"] == pytest.approx(expected.scale, rel=1e-10)
    assert found.facts["log_likelihood"] == pytest.approx(expected.llf, rel=1e-10)


def test_weighted_robust_errors_are_those_of_inverse_probability_weighting() -> None:
    frame = people(8)
    expected = smf.wls("pressure ~ treated", frame, weights=frame["weight"]).fit(cov_type="HC0", use_t=True)
    close(fit(frame, "pressure ~ treated", "gaussian", weights="weight", covariance="HC0"), expected)


def test_a_weight_of_zero_is_nobody_and_a_negative_one_an_error() -> None:
    frame = people(9)
    frame.loc[:99, "weight"] = 0.0
    found = fit(frame, "sick ~ age", weights="weight")
    assert found.facts["n"] == len(frame) - 100
    close(found, oracle(frame.iloc[100:], "sick ~ age", freq_weights=frame["weight"].iloc[100:]))
    frame.loc[0, "weight"] = -1.0
    with pytest.raises(NotACount, match="weight"):
        fit(frame, "sick ~ age", weights="weight")


def test_glum_agrees() -> None:
    frame = people(10)
    design = pd.get_dummies(frame[["age", "stage", "treated"]], columns=["stage"], drop_first=True, dtype=float)
    model = GeneralizedLinearRegressor(family="binomial", alpha=0, gradient_tol=1e-12, max_iter=500)
    model.fit(design, frame["sick"])
    found = fit(frame, "sick ~ age + treated + C(stage)")["coefficients"]
    ours = dict(zip(found["term"], found["estimate"]))
    theirs = dict(zip(design.columns, model.coef_))
    assert ours["Intercept"] == pytest.approx(model.intercept_, rel=1e-6)
    assert ours["age"] == pytest.approx(theirs["age"], rel=1e-6)
    assert ours["treated"] == pytest.approx(theirs["treated"], rel=1e-6)
    assert ours["C(stage)[T.b]"] == pytest.approx(theirs["stage_b"], rel=1e-6)
    assert ours["C(stage)[T.c]"] == pytest.approx(theirs["stage_c"], rel=1e-6)


def test_the_hospital_as_a_term_equals_a_pooled_fit_with_it() -> None:
    frame = people(11)
    expected = oracle(frame.rename(columns={"hospital": "site"}), "sick ~ age + site")
    found = fit(frame, "sick ~ age + site")
    table = {row["term"]: row for row in found["coefficients"].to_dicts()}
    for name in expected.params.index:
        assert table[name]["estimate"] == pytest.approx(expected.params[name], rel=1e-8)
        assert table[name]["std_error"] == pytest.approx(expected.bse[name], rel=1e-8)


# ── missing values, levels and classes ──


def test_incomplete_people_are_left_out_as_the_pooled_fit_does() -> None:
    frame = people(12)
    frame.loc[frame.index[::7], "age"] = np.nan
    frame.loc[frame.index[::11], "stage"] = None
    frame.loc[frame.index[::13], "sick"] = np.nan
    complete = frame.dropna(subset=["age", "stage", "sick"])
    found = fit(frame, "sick ~ age + C(stage)")
    assert found.facts["n"] == len(complete)
    assert found.facts["events"] == int(complete["sick"].sum())
    close(found, oracle(complete, "sick ~ age + C(stage)"))


def test_a_level_that_a_hospital_does_not_have_changes_nothing() -> None:
    frame = people(13)
    frame.loc[frame["stage"] == "c", "hospital"] = "north"
    close(fit(frame, "sick ~ age * C(stage)"), oracle(frame, "sick ~ age * C(stage)"))


def test_a_hospital_with_only_cases_changes_nothing() -> None:
    frame = people(14)
    frame["hospital"] = np.where(frame["sick"] == 1, np.where(frame["age"] > 60, "cases", "mixed"), "mixed")
    frame.loc[:4, "hospital"] = "third"
    close(fit(frame, "sick ~ age + C(stage)"), oracle(frame, "sick ~ age + C(stage)"))


def test_a_hospital_where_a_column_is_always_missing_contributes_nobody() -> None:
    frame = people(15)
    frame.loc[frame["hospital"] == "west", "marker"] = np.nan
    close(fit(frame, "sick ~ age + marker"), oracle(frame.dropna(), "sick ~ age + marker"))


def test_one_class_everywhere_is_said() -> None:
    for value in (0.0, 1.0):
        with pytest.raises(OneClass, match="sick"):
            fit(people().assign(sick=value), "sick ~ age")
    with pytest.raises(OneClass, match="visits"):
        fit(people().assign(visits=0.0), "visits ~ age", "poisson")


def test_nobody_left_is_said_with_the_columns() -> None:
    with pytest.raises(NobodyLeft, match="sick, age, marker"):
        fit(people().assign(marker=np.nan), "sick ~ age + marker")


def test_outcomes_that_do_not_fit_their_family_are_refused() -> None:
    with pytest.raises(NotAnOutcome, match="other than 0 and 1"):
        fit(people(), "visits ~ age", "binomial")
    with pytest.raises(NotAnOutcome, match="negative"):
        fit(people().assign(visits=-1.0), "visits ~ age", "poisson")
    with pytest.raises(NotAnOutcome, match="3 levels"):
        fit(people(), "stage ~ age", "binomial")
    with pytest.raises(FormulaError, match="no outcome"):
        fit(people(), "age + marker")
    with pytest.raises(UnknownColumn, match="Did you mean 'marker'"):
        fit(people(), "sick ~ markr")


def test_a_category_of_two_levels_is_an_outcome_whose_second_level_is_the_event() -> None:
    frame = people(16)
    words = frame.assign(sick=np.where(frame["sick"] == 1, "yes", "no"))
    assert fit(words, "sick ~ age")["coefficients"].equals(fit(frame, "sick ~ age")["coefficients"])


# ── scales, offsets, collinear columns ──


@SOME
@given(
    seed=st.integers(0, 10_000),
    scale=st.floats(-6, 9).map(lambda power: 10.0**power),
    other=st.floats(-6, 9).map(lambda power: 10.0**power),
    shift=st.sampled_from([0.0, 1.0, -1e3, 1e6]),
    family=st.sampled_from(["binomial", "poisson", "gaussian"]),
)
def test_scales_and_offsets_cost_no_digits(seed: int, scale: float, other: float, shift: float, family: str) -> None:
    """Rescaled columns give the rescaled coefficients of the well-scaled pooled fit."""
    frame = people(seed, 300)
    outcome = {"binomial": "sick", "poisson": "visits", "gaussian": "pressure"}[family]
    formula = f"{outcome} ~ age + marker + C(stage)"
    if family == "gaussian":
        expected = smf.ols(formula, frame).fit()
    else:
        expected = oracle(frame, formula, family)
    scaled = frame.assign(age=(frame["age"] + shift) * scale, marker=frame["marker"] * other)
    table = {row["term"]: row for row in fit(scaled, formula, family)["coefficients"].to_dicts()}
    # An offset of 1e6 at 1e6 times the spread loses about eleven digits of sixteen before anybody computes.
    rel = 1e-8 if abs(shift) < 1e5 else 1e-7
    for term, factor in (("age", scale), ("marker", other), ("C(stage)[T.b]", 1.0)):
        se = expected.bse[term]
        assert table[term]["estimate"] * factor == pytest.approx(expected.params[term], rel=rel, abs=rel * se)
        assert table[term]["std_error"] * factor == pytest.approx(se, rel=rel)


REDUNDANT = {
    "copy": lambda f: f["age"],
    "scaled copy": lambda f: f["age"] * 1e6,
    "shifted copy": lambda f: f["age"] + 1e4,
    "sum": lambda f: 2 * f["age"] - 3 * f["marker"],
    "constant": lambda f: 7.5,
    "large constant": lambda f: 1e6,
    "zero": lambda f: 0.0,
    "complement of a dummy": lambda f: 1.0 - (f["stage"] == "b"),
}


@pytest.mark.parametrize("family", ["binomial", "poisson", "gaussian"])
@pytest.mark.parametrize("kind", REDUNDANT)
def test_a_redundant_column_is_dropped_with_a_note_and_the_rest_is_the_reduced_fit(kind: str, family: str) -> None:
    frame = people(17)
    frame["extra"] = REDUNDANT[kind](frame)
    outcome = {"binomial": "sick", "poisson": "visits", "gaussian": "pressure"}[family]
    reduced = f"{outcome} ~ age + marker + C(stage)"
    found = fit(frame, f"{reduced} + extra", family)
    assert [note.en for note in found.notes] == ["Left out, because constant or a combination of other terms: extra."]
    assert "extra" in found.notes[0].ko
    extra = found["coefficients"].filter(pl.col("term") == "extra")
    assert all(extra[column][0] is None for column in ("estimate", "std_error", "p_value", "ci_low", "ci_high"))
    close(found, smf.ols(reduced, frame).fit() if family == "gaussian" else oracle(frame, reduced, family))


def test_a_declared_level_that_nobody_has_is_dropped() -> None:
    frame = people(18)
    frame["stage"] = pd.Categorical(frame["stage"], categories=["a", "b", "c"])
    frame = frame[frame["stage"] != "b"]
    sites = {name: part.drop(columns="hospital") for name, part in frame.groupby("hospital")}
    sites["nobody"] = people(18).drop(columns="hospital").iloc[:0].assign(stage="b")
    sites["missing"] = people(18)[people(18)["stage"] == "b"].drop(columns="hospital").assign(sick=np.nan)
    found = simulate(sites, "regression", {"formula": "sick ~ age + C(stage)", "family": "binomial"}, rules="off")
    assert "C(stage)[T.b]" in found.notes[0].en
    frame = frame.assign(stage=frame["stage"].astype(str))
    close(found, oracle(frame, "sick ~ age + C(stage)"))


def test_nothing_varies_is_said() -> None:
    with pytest.raises(NothingVaries, match="flat"):
        fit(people().assign(flat=0.0), "sick ~ 0 + flat")


def test_too_few_rounds_are_said() -> None:
    with pytest.raises(NotConverged, match="3 rounds"):
        fit(people(), "sick ~ age + C(stage)", rounds=3)


# ── separation ──


def separated(kind: str, n: int = 400) -> tuple[pd.DataFrame, str, str]:
    """A frame, a formula and the term that must be named."""
    frame = people(19, n)
    random = np.random.default_rng(20)
    if kind == "complete, continuous":
        frame["x"] = random.normal(size=n)
        frame["sick"] = (frame["x"] > 0.1).astype(float)
        return frame, "sick ~ x", "x"
    if kind == "complete, two continuous":
        frame["x"], frame["z"] = random.normal(size=n), random.normal(size=n)
        frame["sick"] = (frame["x"] + frame["z"] > 0).astype(float)
        return frame, "sick ~ x + z", "x"
    if kind == "quasi, continuous":
        frame["x"] = random.integers(-5, 6, n).astype(float)
        frame["sick"] = np.where(frame["x"] == 0, random.random(n) < 0.5, frame["x"] > 0).astype(float)
        return frame, "sick ~ x + age", "x"
    if kind == "complete, dummy":
        frame["x"] = frame["sick"]
        return frame, "sick ~ x + age", "x"
    if kind == "quasi, dummy":
        frame["x"] = np.where(frame["sick"] == 1, random.random(n) < 0.3, 0.0).astype(float)
        return frame, "sick ~ age + x", "x"
    if kind == "rare level":
        frame["x"] = np.where(np.arange(n) < 6, "rare", random.choice(["u", "v"], n))
        frame.loc[frame["x"] == "rare", "sick"] = 1.0
        return frame, "sick ~ age + C(x, Treatment('u'))", "C(x, Treatment('u'))[T.rare]"
    if kind == "reference level":
        frame["x"] = np.where(np.arange(n) < 30, "a", random.choice(["u", "v"], n))
        frame.loc[frame["x"] == "a", "sick"] = 0.0
        return frame, "sick ~ age + C(x)", "C(x)[T.u]"
    if kind == "interaction cell":
        frame["x"] = (random.random(n) < 0.5).astype(float)
        frame.loc[(frame["x"] == 1) & (frame["stage"] == "c"), "sick"] = 1.0
        return frame, "sick ~ x * C(stage)", "x:C(stage)[T.c]"
    if kind == "one person":
        frame["x"] = (np.arange(n) == 5).astype(float)
        return frame, "sick ~ age + x", "x"
    raise KeyError(kind)


KINDS = [
    "complete, continuous",
    "complete, two continuous",
    "quasi, continuous",
    "complete, dummy",
    "quasi, dummy",
    "rare level",
    "reference level",
    "interaction cell",
    "one person",
]


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e5])
@pytest.mark.parametrize("kind", KINDS)
def test_separation_is_said_with_its_term(kind: str, scale: float) -> None:
    frame, formula, term = separated(kind)
    if "x" in frame and frame["x"].dtype == float:
        frame["x"] *= scale
    with pytest.raises(Separation) as caught:
        fit(frame, formula)
    assert term in str(caught.value)


@pytest.mark.parametrize("kind", ["dummy", "rare level", "continuous"])
def test_a_poisson_level_without_events_is_separation(kind: str) -> None:
    frame = people(21)
    if kind == "dummy":
        frame["x"] = (np.arange(len(frame)) % 9 == 0).astype(float)
        frame.loc[frame["x"] == 1, "visits"] = 0.0
        formula = "visits ~ age + x"
    elif kind == "rare level":
        frame["x"] = np.where(np.arange(len(frame)) < 5, "rare", frame["stage"])
        frame.loc[frame["x"] == "rare", "visits"] = 0.0
        formula = "visits ~ age + C(x)"
    else:
        frame["x"] = np.where(np.arange(len(frame)) % 4 == 0, frame["marker"], 0.0)
        frame.loc[frame["x"] > 0, "visits"] = 0.0
        formula = "visits ~ age + x"
    with pytest.raises(Separation, match="x"):
        fit(frame, formula, "poisson")


def has_maximum(frame: pd.DataFrame, formula: str, family: str) -> bool:
    """Whether statsmodels finds a finite maximum: settled, with no coefficient that runs away."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", PerfectSeparationWarning)
        try:
            short = smf.glm(formula, frame, family=Binomial() if family == "binomial" else Poisson()).fit(
                tol=0, maxiter=20
            )
            long = smf.glm(formula, frame, family=Binomial() if family == "binomial" else Poisson()).fit(
                tol=0, maxiter=30
            )
        except (PerfectSeparationWarning, sm.tools.sm_exceptions.PerfectSeparationError, np.linalg.LinAlgError):
            return False
    return bool(np.allclose(short.params, long.params, rtol=1e-4, atol=1e-4) and (long.bse < 1e3).all())


@pytest.mark.parametrize("designs", [40, pytest.param(120, marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", ["binomial", "poisson"])
def test_strong_effects_are_estimated_and_only_true_separation_is_said(family: str, designs: int) -> None:
    """Random small designs with effects up to 8 on the logit scale, rare levels among them."""
    random = np.random.default_rng(22)
    seen = {True: 0, False: 0}
    for _ in range(designs):
        n = int(random.integers(40, 250))
        frame = pd.DataFrame(
            {
                "x": random.normal(size=n),
                "d": (random.random(n) < random.uniform(0.02, 0.5)).astype(float),
                "hospital": random.choice(["p", "q", "r"], n),
            }
        )
        effects = random.uniform(-8, 8, 2) if family == "binomial" else random.uniform(-3, 3, 2)
        eta = np.clip(effects @ frame[["x", "d"]].to_numpy().T + random.normal(0, 1), -30, 6)
        if family == "binomial":
            frame["y"] = (random.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
        else:
            frame["y"] = random.poisson(np.exp(eta)).astype(float)
        if frame["y"].nunique() < 2 or frame["d"].nunique() < 2:
            continue
        exists = has_maximum(frame, "y ~ x + d", family)
        seen[exists] += 1
        if exists:
            close(fit(frame, "y ~ x + d", family), oracle(frame, "y ~ x + d", family), rel=1e-6)
        else:
            with pytest.raises(NotEstimable):
                fit(frame, "y ~ x + d", family)
    assert seen[True] > designs / 2, seen
    assert seen[False] > designs / 60, seen


@pytest.mark.parametrize("odds", [3.0, 5.0, 7.0])
def test_a_strong_dummy_with_one_exception_is_estimable(odds: float) -> None:
    frame = people(23, 4000)
    random = np.random.default_rng(int(odds))
    frame["x"] = (random.random(len(frame)) < 0.5).astype(float)
    frame["sick"] = (random.random(len(frame)) < 1 / (1 + np.exp(-odds * (frame["x"] - 0.5) * 2))).astype(float)
    frame.loc[0, ["x", "sick"]] = (1.0, 0.0)
    frame.loc[1, ["x", "sick"]] = (0.0, 1.0)
    close(fit(frame, "sick ~ x + age"), oracle(frame, "sick ~ x + age"))


# ── predictions ──


def test_the_prediction_is_the_pooled_fits_mean_and_missing_where_a_term_is() -> None:
    from dure.client.simulate import run_frames
    from dure.guard.rules import OFF
    from dure.study.spec import Step

    frame = people(24)
    frame.loc[::9, "age"] = np.nan
    sites = {name: part.drop(columns="hospital") for name, part in frame.groupby("hospital")}
    steps = (
        Step(name="model", method="regression", parameters={"formula": "sick ~ age + C(stage)", "family": "binomial"}),
        Step(
            name="again",
            method="regression",
            parameters={"formula": "sick ~ model.prediction", "family": "binomial"},
            uses=("model",),
        ),
    )
    outcomes, _ = run_frames(sites, steps, OFF, frozenset(("per_hospital", "difference")))
    first = oracle(frame.dropna(subset=["age"]), "sick ~ age + C(stage)")
    complete = frame.dropna(subset=["age"]).assign(prediction=first.fittedvalues)
    second = oracle(complete, "sick ~ prediction")
    released = outcomes["again"].folds[None].released
    assert released is not None
    found = _by_term(released.tables["coefficients"].frame)
    assert found["model.prediction"]["estimate"] == pytest.approx(second.params["prediction"], rel=1e-8)
    assert released.facts["n"] == len(complete)


def _by_term(frame: pl.DataFrame) -> Mapping[str, Mapping[str, float]]:
    return {row["term"]: row for row in frame.to_dicts()}
