"""Larger designs are lists of small steps: propensity, matching, weighting, leave-one-hospital-out.

Matching and weighting are a few lines here, in the test: a step derives columns that stay at the hospital, and
later steps use them as `step.column`. Every list is compared with the same analysis done by hand on one table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from pydantic import BaseModel
from sklearn.metrics import roc_auc_score

from dure.client.simulate import run_frames
from dure.errors import NotEstimable, RunWaits, StepSkipped
from dure.federation.ledger import Outcome
from dure.guard.rules import DEFAULT, OFF
from dure.language import Words
from dure.study.method import Example, Kept, Law, Question, State, installed_methods
from dure.study.result import Result
from dure.study.rows import Column, Rows
from dure.study.spec import Step
from dure.study.summary import ArraySpec, Declaration, Summary, Total

HOSPITALS = ("north", "south", "west", "east")
EVERYTHING = frozenset(("per_hospital", "difference"))


def cohort(n: int = 1600) -> pd.DataFrame:
    """People whose treatment depends on how ill they are, at hospitals that treat differently."""
    random = np.random.default_rng(5)
    age, severe = random.normal(62, 9, n), (random.random(n) < 0.35).astype(float)
    hospital = random.choice(HOSPITALS, n)
    tendency = -1.2 + 0.03 * (age - 62) + 0.9 * severe + 0.3 * (hospital == "west")
    treated = (random.random(n) < 1 / (1 + np.exp(-tendency))).astype(float)
    risk = -0.5 + 0.04 * (age - 62) + 0.8 * severe - 0.6 * treated
    died = (random.random(n) < 1 / (1 + np.exp(-risk))).astype(float)
    return pd.DataFrame({"age": age, "severe": severe, "treated": treated, "died": died, "hospital": hospital})


PEOPLE = cohort()
SITES = {name: PEOPLE[PEOPLE["hospital"] == name].drop(columns="hospital").reset_index(drop=True) for name in HOSPITALS}
PROPENSITY = Step(
    name="propensity",
    method="regression",
    parameters={"formula": "treated ~ age + severe", "family": "binomial"},
)


# ── two small methods ──


class Columns(BaseModel):
    score: str
    treated: str


class Derived:
    """A method that only counts people and derives one column inside the hospital."""

    law: Law = "by_hospital"
    parameters = Columns
    title = about = Words("An example.", "예시.")

    def declare(self, question: Question, state: State) -> Declaration:
        return (ArraySpec("n", (), "count"),)

    def start(self, question: Question) -> State:
        return {}

    def summarise(self, rows: Rows, question: Question, state: State, kept: Kept) -> tuple[Summary, Kept]:
        return {"n": np.array(rows.n)}, {}

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        return Result(self.name, facts={"n": total.count("n")}, people_facts=("n",))

    def example(self, random: np.random.Generator) -> Example:
        frame = pl.DataFrame({"p": random.random(50), "t": random.integers(0, 2, 50).astype(float)})
        return Example(frame, {"score": "p", "treated": "t"})


class Weighting(Derived):
    """Inverse probability of the treatment received: t/p + (1 - t)/(1 - p)."""

    name = "weighting"

    def derives(self, question: Question) -> Mapping[str, Column]:
        return {"weight": Column("number")}

    def derive(self, rows: Rows, question: Question, result: Result, kept: Kept) -> Mapping[str, Any]:
        p, t = rows.numbers(question.parameters.score), rows.numbers(question.parameters.treated)
        return {"weight": t / p + (1 - t) / (1 - p)}


class Matching(Derived):
    """Each treated person with the nearest untreated one of the same hospital, used once, in order of score."""

    name = "matching"

    def derives(self, question: Question) -> Mapping[str, Column]:
        return {"in_pair": Column("flag", ("0", "1")), "weight": Column("number")}

    def derive(self, rows: Rows, question: Question, result: Result, kept: Kept) -> Mapping[str, Any]:
        chosen = nearest(rows.numbers(question.parameters.score), rows.numbers(question.parameters.treated))
        return {"in_pair": chosen, "weight": chosen}


def nearest(score: np.ndarray, treated: np.ndarray) -> np.ndarray:
    """1 for those in a pair; greedy by descending score."""
    chosen = np.zeros(len(score))
    free = list(np.flatnonzero(treated == 0))
    for person in np.flatnonzero(treated == 1)[np.argsort(-score[treated == 1], kind="stable")]:
        if not free:
            break
        partner = min(free, key=lambda other: (abs(score[other] - score[person]), other))
        free.remove(partner)
        chosen[[person, partner]] = 1.0
    return chosen


METHODS = {**installed_methods(), "weighting": Weighting(), "matching": Matching()}


def run(*steps: Step, sites: Mapping[str, Any] = SITES, rules: Any = OFF) -> dict[str, Outcome]:
    return run_frames(sites, steps, rules, EVERYTHING, methods=METHODS)[0]


def released(outcome: Outcome, fold: str | None = None) -> Result:
    result = outcome.folds[fold].released
    assert result is not None
    return result


def terms(result: Result) -> dict[str, tuple[float, float]]:
    frame = result.tables["coefficients"].frame
    return {row["term"]: (row["estimate"], row["std_error"]) for row in frame.to_dicts()}


def by_hand_propensity() -> pd.DataFrame:
    """One table of everybody, in the hospitals' order, with the pooled propensity score."""
    together = pd.concat([part.assign(hospital=name) for name, part in SITES.items()], ignore_index=True)
    model = smf.logit("treated ~ age + severe", together).fit(disp=0, tol=1e-14, method="newton")
    return together.assign(p=model.predict(together))


# ── lists of steps ──


def test_propensity_then_matching_then_outcome() -> None:
    outcomes = run(
        PROPENSITY,
        Step(
            name="matched",
            method="matching",
            parameters={"score": "propensity.prediction", "treated": "treated"},
            uses=("propensity",),
        ),
        Step(
            name="effect",
            method="regression",
            parameters={"formula": "died ~ treated", "family": "binomial", "weights": "matched.weight"},
            uses=("matched",),
        ),
    )

    together = by_hand_propensity()
    pairs = [
        part[nearest(part["p"].to_numpy(), part["treated"].to_numpy()) == 1]
        for _, part in together.groupby("hospital", sort=False)
    ]
    expected = smf.logit("died ~ treated", pd.concat(pairs)).fit(disp=0, tol=1e-14, method="newton")
    estimate, error = terms(released(outcomes["effect"]))["treated"]
    assert released(outcomes["effect"]).facts["n"] == len(pd.concat(pairs))
    assert estimate == pytest.approx(expected.params["treated"], rel=1e-8)
    assert error == pytest.approx(expected.bse["treated"], rel=1e-8)


def test_inverse_probability_weighting_is_two_models_and_a_column_between_them() -> None:
    outcomes = run(
        PROPENSITY,
        Step(
            name="iptw",
            method="weighting",
            parameters={"score": "propensity.prediction", "treated": "treated"},
            uses=("propensity",),
        ),
        Step(
            name="effect",
            method="regression",
            parameters={"formula": "died ~ treated", "covariance": "HC0", "weights": "iptw.weight"},
            uses=("iptw",),
        ),
    )

    together = by_hand_propensity()
    t, p = together["treated"], together["p"]
    weights = t / p + (1 - t) / (1 - p)
    expected = sm.WLS(together["died"], sm.add_constant(t), weights=weights).fit(cov_type="HC0")
    estimate, error = terms(released(outcomes["effect"]))["treated"]
    assert estimate == pytest.approx(expected.params["treated"], rel=1e-8)
    assert error == pytest.approx(expected.bse["treated"], rel=1e-8)


def test_scope_each_fits_the_model_inside_every_hospital() -> None:
    outcomes = run(
        PROPENSITY.model_copy(update={"scope": "each"}),
        Step(
            name="check",
            method="validation",
            parameters={"outcome": "treated", "scores": ["propensity.prediction"]},
            uses=("propensity",),
        ),
    )

    areas = {row["hospital"]: row["auroc"] for row in released(outcomes["check"]).tables["auroc"].frame.to_dicts()}
    for name, part in SITES.items():
        own = smf.logit("treated ~ age + severe", part).fit(disp=0, tol=1e-14, method="newton")
        estimate, error = terms(released(outcomes["propensity"], name))["age"]
        assert estimate == pytest.approx(own.params["age"], rel=1e-8)
        assert error == pytest.approx(own.bse["age"], rel=1e-8)
        assert areas[name] == pytest.approx(roc_auc_score(part["treated"], own.predict(part)), rel=1e-10)


def test_scope_all_but_one_scores_each_hospital_by_the_model_fitted_without_it() -> None:
    outcomes = run(
        PROPENSITY.model_copy(update={"scope": "all_but_one"}),
        Step(
            name="check",
            method="validation",
            parameters={"outcome": "treated", "scores": ["propensity.prediction"]},
            uses=("propensity",),
        ),
    )

    areas = {row["hospital"]: row["auroc"] for row in released(outcomes["check"]).tables["auroc"].frame.to_dicts()}
    brier = 0.0
    for name, part in SITES.items():
        others = pd.concat([other for key, other in SITES.items() if key != name])
        model = smf.logit("treated ~ age + severe", others).fit(disp=0, tol=1e-14, method="newton")
        estimate, _ = terms(released(outcomes["propensity"], name))["age"]
        assert estimate == pytest.approx(model.params["age"], rel=1e-8)
        assert areas[name] == pytest.approx(roc_auc_score(part["treated"], model.predict(part)), rel=1e-10)
        brier += float(((model.predict(part) - part["treated"]) ** 2).sum())
    overall = released(outcomes["check"]).tables["overall"].frame
    assert overall["brier"][0] == pytest.approx(brier / len(PEOPLE), rel=1e-8)


def test_leaving_one_hospital_out_waits_for_those_that_have_not_permitted_differences() -> None:
    outcomes, _ = run_frames(SITES, (PROPENSITY.model_copy(update={"scope": "all_but_one"}),), DEFAULT)
    error = outcomes["propensity"].folds[None].error
    assert outcomes["propensity"].status == "waiting"
    assert isinstance(error, RunWaits)
    assert error.hospitals == sorted(HOSPITALS)
    assert error.grant == "difference"


# ── when a step fails ──


def test_a_step_that_uses_a_failed_one_is_skipped_and_says_which_while_the_others_run() -> None:
    sites = {name: part.assign(perfect=part["treated"]) for name, part in SITES.items()}
    outcomes = run(
        Step(
            name="separated",
            method="regression",
            parameters={"formula": "treated ~ perfect", "family": "binomial"},
        ),
        Step(
            name="iptw",
            method="weighting",
            parameters={"score": "separated.prediction", "treated": "treated"},
            uses=("separated",),
        ),
        Step(
            name="effect",
            method="regression",
            parameters={"formula": "died ~ treated", "weights": "iptw.weight"},
            uses=("iptw",),
        ),
        Step(name="people", method="feasibility"),
        sites=sites,
    )
    assert {name: outcome.status for name, outcome in outcomes.items()} == {
        "separated": "not_estimable",
        "iptw": "skipped",
        "effect": "skipped",
        "people": "finished",
    }
    assert isinstance(outcomes["separated"].folds[None].error, NotEstimable)
    for name, used in (("iptw", "separated"), ("effect", "iptw")):
        error = outcomes[name].folds[None].error
        assert isinstance(error, StepSkipped)
        assert f"'{used}'" in error.text("en")
        assert f"'{used}'" in error.text("ko")


def test_a_refused_step_is_not_built_upon() -> None:
    sites = {name: part.assign(rare=(np.arange(len(part)) < 1).astype(float)) for name, part in SITES.items()}
    outcomes, _ = run_frames(
        sites,
        (
            PROPENSITY.model_copy(update={"parameters": {"formula": "treated ~ rare", "family": "binomial"}}),
            Step(
                name="check",
                method="validation",
                parameters={"outcome": "treated", "scores": ["propensity.prediction"]},
                uses=("propensity",),
            ),
        ),
        DEFAULT,
        methods=METHODS,
    )
    assert [outcomes[name].status for name in ("propensity", "check")] == ["refused", "skipped"]
    error = outcomes["check"].folds[None].error
    assert isinstance(error, StepSkipped)
    assert "minimum_people" in error.text("en")


def test_derived_columns_never_leave() -> None:
    """What a step sends is its declared arrays; a score per person is none of them."""
    outcomes = run(
        PROPENSITY,
        Step(
            name="iptw",
            method="weighting",
            parameters={"score": "propensity.prediction", "treated": "treated"},
            uses=("propensity",),
        ),
    )
    largest = max(int(np.prod(left.shape)) for outcome in outcomes.values() for left in outcome.left)
    assert largest < min(len(part) for part in SITES.values())
    assert {left.array for left in outcomes["iptw"].left} == {"n"}


def test_a_score_of_a_step_that_is_not_used_cannot_be_read() -> None:
    from dure.errors import UnknownColumn

    with pytest.raises(UnknownColumn, match="propensity"):
        run(
            PROPENSITY,
            Step(name="effect", method="regression", parameters={"formula": "died ~ propensity.prediction"}),
        )
