"""Propensity weights: exact balance, errors that know the score, and weights that rest on too few people."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.optimize import approx_fprime
from statsmodels.discrete.discrete_model import Logit
from statsmodels.regression.linear_model import OLS, WLS
from statsmodels.treatment.treatment_effects import TreatmentEffect

from dure.client.simulate import run_frames, simulate
from dure.errors import NotACount, Refused
from dure.estimation.balancing import balancing_weights
from dure.guard.rules import DEFAULT, OFF
from dure.study.spec import Step

KINDS = ("ate", "att", "atc", "overlap", "matching", "entropy")
GRANTS = frozenset(("per_hospital",))


def people(n: int = 900, seed: int = 5) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    age, severe = random.normal(60, 9, n), (random.random(n) < 0.4).astype(float)
    stage = random.choice(["I", "II", "III"], n)
    eta = 0.04 * (age - 60) + 0.6 * severe - 0.5 * (stage == "III") - 0.2
    treated = (random.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
    died = (random.random(n) < 1 / (1 + np.exp(-(-1 + 0.03 * (age - 60) + 0.5 * severe - 0.4 * treated)))).astype(float)
    cost = 1e6 + 1e3 * (age + 3 * treated + random.normal(0, 5, n))
    return pl.DataFrame({"treated": treated, "age": age, "severe": severe, "stage": stage, "died": died, "cost": cost})


def split(frame: pl.DataFrame, hospitals: int = 4) -> dict[str, pl.DataFrame]:
    return {f"h{place}": frame[place::hospitals] for place in range(hospitals)}


FORMULA = "treated ~ age + severe + C(stage)"
BALANCE = ["age", "severe", "stage"]


def chained(frame: pl.DataFrame, limits: Any = OFF, hospitals: int = 4, **asked: Any) -> Any:
    """The working Result of weighting by the score of a regression step."""
    score = Step(name="ps", method="regression", parameters={"formula": FORMULA, "family": "binomial"})
    parameters = {"treatment": "treated", "score": "ps.prediction", **asked}
    step = Step(name="weights", method="weighting", parameters=parameters, uses=("ps",))
    outcomes, _ = run_frames(split(frame, hospitals), (score, step), limits, GRANTS)
    return outcomes["weights"].folds[None]


def design(frame: pl.DataFrame) -> np.ndarray:
    stage = frame["stage"].to_numpy()
    return np.column_stack(
        [np.ones(frame.height), frame["age"], frame["severe"], stage == "II", stage == "III"]
    ).astype(float)


def fitted(frame: pl.DataFrame) -> np.ndarray:
    fit = Logit(frame["treated"].to_numpy(), design(frame)).fit(disp=0, tol=1e-14, maxiter=100)
    return np.asarray(fit.params)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outcome", ["died", "cost"])
def test_stacked_errors_are_those_of_the_stacked_equations(compared: Any, kind: str, outcome: str) -> None:
    frame = people()
    x, a, y = design(frame), frame["treated"].to_numpy(), frame[outcome].to_numpy()
    y0 = y.mean() if outcome == "cost" else 0.0
    mean, beta = x.mean(axis=0) * (np.arange(5) > 0), fitted(frame)
    x = x - mean  # only a change of the intercept
    beta[0] += mean @ beta

    def weights(beta: np.ndarray) -> np.ndarray:
        e = 1 / (1 + np.exp(-x @ beta))
        h = {
            "ate": np.ones_like(e),
            "att": e,
            "atc": 1 - e,
            "overlap": e * (1 - e),
            "matching": np.minimum(e, 1 - e),
            "entropy": -(e * np.log(e) + (1 - e) * np.log(1 - e)),
        }[kind]
        return np.where(a == 1, h / e, h / (1 - e))

    def equations(theta: np.ndarray) -> np.ndarray:
        e, w = 1 / (1 + np.exp(-x @ theta[:5])), weights(theta[:5])
        rest = y - y0
        return np.vstack([x.T * (a - e), a * w * (rest - theta[5]), (1 - a) * w * (rest - theta[6])])

    w = weights(beta)
    means = [np.average((y - y0)[a == arm], weights=w[a == arm]) for arm in (1, 0)]
    theta = np.concatenate([beta, means])
    slope = np.empty((7, 7))
    for j in range(7):  # central differences; a complex step has no minimum()
        step = 1e-5 * max(1.0, abs(theta[j])) * np.eye(7)[j]
        near = (equations(theta + step) - equations(theta - step)).sum(axis=1) / (2 * step[j])
        wide = (equations(theta + 2 * step) - equations(theta - 2 * step)).sum(axis=1) / (4 * step[j])
        slope[:, j] = (4 * near - wide) / 3
    inverse = np.linalg.inv(slope)
    psi = equations(theta)
    covariance = inverse @ (psi @ psi.T) @ inverse.T
    errors = np.sqrt([covariance[5, 5], covariance[6, 6], np.array([1, -1]) @ covariance[5:, 5:] @ np.array([1, -1])])
    found = chained(frame, kind=kind, outcome=outcome).released
    table = found.tables["effects"].frame
    assert found.facts["errors"] == "stacked"
    expected = np.array([*means, means[0] - means[1]]) + np.array([y0, y0, 0])
    name = f"{kind}, {outcome}"
    compared(
        method="weighting", oracle="stacked equations, dense", what=f"weighted means, {name}",
        ours=table["estimate"][:3], theirs=expected, scale=errors,
    )  # fmt: skip
    compared(
        method="weighting", oracle="stacked equations, dense", what=f"stacked errors, {name}",
        ours=table["std_error"][:3], theirs=errors, tolerance=1e-8,
    )  # fmt: skip


@pytest.mark.parametrize("effect", [0, 1])
def test_inverse_probability_weights_against_statsmodels(compared: Any, effect: int) -> None:
    frame = people()
    fit = Logit(frame["treated"].to_numpy(), design(frame)).fit(disp=0, tol=1e-14, maxiter=100)
    y = frame["cost"].to_numpy() / 1e3 - 1000
    theirs = TreatmentEffect(OLS(y, design(frame)), frame["treated"].to_numpy(), results_select=fit)
    averaged = theirs.ipw(return_results=True, effect_group="all" if effect == 0 else 1)
    ours = chained(frame, kind="ate" if effect == 0 else "att", outcome="cost").released.tables["effects"].frame
    means = np.array([averaged.results_gmm.params[0], averaged.results_gmm.params[1]])
    error = float(averaged.results_gmm.bse[0])
    compared(
        method="weighting", oracle="statsmodels TreatmentEffect.ipw", what=f"difference, group {effect}",
        ours=ours["estimate"][2] / 1e3, theirs=means[0], scale=error, tolerance=1e-6,
    )  # fmt: skip
    # statsmodels' GMM takes numerical slopes and weighs moments by n: it says so to six digits.
    compared(
        method="weighting", oracle="statsmodels TreatmentEffect.ipw", what=f"its stacked error, group {effect}",
        ours=ours["std_error"][2] / 1e3, theirs=error, tolerance=1e-5,
    )  # fmt: skip


def test_robust_errors_are_those_of_a_weighted_regression(compared: Any) -> None:
    frame = people()
    e = 1 / (1 + np.exp(-design(frame) @ fitted(frame)))
    a, y = frame["treated"].to_numpy(), frame["died"].to_numpy()
    theirs = WLS(y, np.column_stack([np.ones(len(a)), a]), weights=np.where(a == 1, 1 / e, 1 / (1 - e))).fit(
        cov_type="HC0"
    )
    ours = chained(frame, outcome="died", errors="robust").released.tables["effects"].frame
    compared(
        method="weighting", oracle="statsmodels WLS, HC0", what="difference, weights as known",
        ours=[ours["estimate"][2], ours["std_error"][2]], theirs=[theirs.params[1], theirs.bse[1]],
    )  # fmt: skip


def test_overlap_weights_balance_every_term_of_the_score_exactly() -> None:
    table = chained(people(), kind="overlap", balance=BALANCE).released.tables["balance"].frame
    after = table.filter(pl.col("sample") == "after")["smd"].to_numpy()
    before = table.filter(pl.col("sample") == "before")["smd"].to_numpy()
    assert np.abs(after).max() < 1e-9
    assert np.abs(before).max() > 0.2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("truncate", [None, (0.2, 0.7)])
def test_slopes_of_weights_are_derivatives(kind: Any, truncate: Any) -> None:
    for eta in (-3.0, -0.4, 0.3, 2.5):
        for treated in (True, False):

            def weight(x: np.ndarray, treated: bool = treated) -> float:
                return float(balancing_weights(kind, 1 / (1 + np.exp(-x)), np.array([treated]), truncate)[0][0])

            slope = balancing_weights(kind, np.array([1 / (1 + np.exp(-eta))]), np.array([treated]), truncate)[1][0]
            assert slope == pytest.approx(approx_fprime([eta], weight, 1e-7)[0], rel=1e-4, abs=1e-5)


def test_balance_and_effective_size_by_hand() -> None:
    frame = people()
    e = 1 / (1 + np.exp(-design(frame) @ fitted(frame)))
    a, age = frame["treated"].to_numpy(), frame["age"].to_numpy()
    w = np.where(a == 1, 1.0, e / (1 - e))
    found = chained(frame, kind="att", balance=BALANCE).working
    row = (
        found.tables["balance"]
        .frame.filter((pl.col("term") == "age") & (pl.col("sample") == "after"))
        .row(0, named=True)
    )
    spread = np.sqrt((age[a == 1].var(ddof=1) + age[a == 0].var(ddof=1)) / 2)
    means = [np.average(age[a == arm], weights=w[a == arm]) for arm in (1, 0)]
    assert row["smd"] == pytest.approx((means[0] - means[1]) / spread, rel=1e-9)
    c = w[a == 0]
    variance = (c @ (age[a == 0] - means[1]) ** 2) / (c.sum() - c @ c / c.sum())
    assert row["variance_ratio"] == pytest.approx(age[a == 1].var(ddof=1) / variance, rel=1e-9)
    assert found.tables["summary"].frame["effective"].to_list() == [int(a.sum()), int(c.sum() ** 2 / (c @ c))]


def test_any_split_gives_the_pooled_answer_of_a_chain() -> None:
    one, many = (
        chained(people(), hospitals=hospitals, outcome="died", balance=BALANCE).working for hospitals in (1, 7)
    )
    for name, table in one.tables.items():
        for column, dtype in table.frame.schema.items():
            if dtype.is_numeric():
                left, right = (t.frame[column].drop_nulls().to_numpy() for t in (table, many.tables[name]))
                np.testing.assert_allclose(left, right, rtol=1e-8, atol=1e-10)


def test_derived_weights_are_zero_where_trimmed_and_stabilised_where_asked() -> None:
    frame = people().with_columns(score=pl.Series(np.linspace(0.01, 0.99, 900)))
    asked = {"treatment": "treated", "score": "score", "trim": [0.1, 0.9], "stabilised": True}
    steps = (
        Step(name="w", method="weighting", parameters=asked),
        Step(
            name="t",
            method="table_one",
            parameters={"variables": ["age"], "by": "treated", "weights": "w.weight"},
            uses=("w",),
        ),
    )
    outcomes, _ = run_frames(split(frame), steps, OFF, GRANTS)
    assert outcomes["t"].status == "finished"
    summary = outcomes["w"].folds[None].working.tables["summary"].frame
    assert summary["kept"].sum() == int(((frame["score"] >= 0.1) & (frame["score"] <= 0.9)).sum())


def test_weights_of_one_person_are_refused_and_the_setting_passes() -> None:
    frame = people(600).with_columns(score=pl.lit(0.5))
    score = frame["score"].to_numpy().copy()
    score[np.flatnonzero(frame["treated"].to_numpy() == 1)[0]] = 1e-7
    frame = frame.with_columns(score=pl.Series(score))
    asked: dict[str, Any] = {"treatment": "treated", "score": "score", "outcome": "died"}
    with pytest.raises(Refused) as caught:
        simulate(split(frame), "weighting", asked)
    assert caught.value.rule == "minimum_people"
    assert caught.value.setting
    found = simulate(split(frame), "weighting", asked | caught.value.setting)
    assert (found["summary"]["effective"] >= DEFAULT.minimum_people).all()


def test_a_rare_level_of_the_score_is_refused_and_robust_errors_pass() -> None:
    frame = people()
    a, place = frame["treated"].to_numpy(), np.arange(900)
    few = np.isin(place, np.flatnonzero(a == 1)[:4]) | ((a == 0) & (place % 9 == 0))
    frame = frame.with_columns(severe=pl.Series(few.astype(float)))  # four of them treated
    fold = chained(frame, DEFAULT, outcome="died")
    assert isinstance(fold.error, Refused)
    assert fold.error.setting == {"errors": "robust"}
    assert chained(frame, DEFAULT, outcome="died", errors="robust").released.facts["errors"] == "robust"


def test_what_is_no_score_is_said() -> None:
    frame = people().with_columns(score=pl.col("age"))
    with pytest.raises(NotACount):
        simulate(split(frame), "weighting", {"treatment": "treated", "score": "score"})


def test_missing_values_are_complete_cases_of_what_they_touch() -> None:
    frame = people().with_columns(
        age=pl.when(pl.int_range(900) % 11 == 0).then(None).otherwise(pl.col("age")),
        died=pl.when(pl.int_range(900) % 13 == 0).then(None).otherwise(pl.col("died")),
    )
    found = chained(frame, outcome="died", balance=BALANCE).working
    assert found.facts["n"] == int(frame["age"].is_not_null().sum())
    assert found.facts["outcome_people"] == int((frame["age"].is_not_null() & frame["died"].is_not_null()).sum())
    assert found.facts["errors"] == "stacked"


@pytest.mark.parametrize("penalty", [None, {"strength": 0.01}])
def test_a_penalised_score_gives_robust_errors_and_says_so(penalty: Any) -> None:
    formula = {"treatment": "treated", "formula": "age + severe", "penalty": penalty}
    asked = {"treatment": "treated", "score": "ps.score", "outcome": "died"}
    steps = (
        Step(name="ps", method="propensity", parameters=formula),
        Step(name="w", method="weighting", parameters=asked, uses=("ps",)),
    )
    outcomes, _ = run_frames(split(people()), steps, OFF, GRANTS)
    found = outcomes["w"].folds[None].working
    assert found.facts["errors"] == ("robust" if penalty else "stacked")
    assert any("as known" in note.en for note in found.notes) == bool(penalty)
