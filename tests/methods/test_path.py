"""Ridge, lasso and elastic-net paths against R's glmnet, and against scikit-learn; folds follow the person."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dure
from dure.errors import InvalidParameter, NothingVaries, Refused
from dure.estimation.quadratic import solve, violation

FORMULA = "a + b + C(c) + d + e + f + g"
OUTCOME = {"gaussian": "linear", "binomial": "ill", "poisson": "visits"}
RATIO = {"lasso": 1.0, "net": 0.5, "ridge": 0.0}


def split(frame: pl.DataFrame, hospitals: int = 4) -> dict[str, pl.DataFrame]:
    return {f"h{place}": frame[place::hospitals] for place in range(hospitals)}


def ask(frames: Any, family: str, penalty: dict[str, Any], rules: Any = "off", **more: Any) -> dure.Simulated:
    asked = {"formula": f"{OUTCOME[family]} ~ {FORMULA}", "family": family, "penalty": penalty} | more
    return dure.simulate(frames, "regression", asked, rules=rules)


CASES = [
    *((f"{family}_{kind}", family, RATIO[kind], {}) for family in OUTCOME for kind in RATIO),
    ("weighted", "binomial", 0.5, {"weights": "weight"}),
    ("offset", "poisson", 1.0, {"offset": "log_years"}),
]


@pytest.mark.parametrize(("name", "family", "ratio", "more"), CASES, ids=[case[0] for case in CASES])
def test_path_and_cross_validation_are_those_of_glmnet(
    name: str, family: str, ratio: float, more: dict[str, Any], oracle: Any, compared: Any
) -> None:
    """glmnet scales a gaussian outcome to unit variance among the people it learns from: its λ of an elastic net is
    ours only for an outcome of unit variance: the table's is, its folds' are not. It stops by a threshold (1e-22
    here) on the change of the deviance, which leaves about 1e-7 in correlated terms."""
    r, frame = oracle.numbers("path")[name], oracle.table("path")
    frame = frame.with_columns(log_years=pl.col("years").log()).drop("fold")
    found = ask(split(frame), family, {"l1_ratio": ratio, "folds": 5, "path": 20, "least": 1e-3}, **more)
    path = found["path"]
    said = {"method": "regression", "oracle": "R glmnet"}
    compared(**said, what=f"{name}: λ", ours=path["lambda"], theirs=r["lambda"], tolerance=1e-9)
    if family != "gaussian" or ratio == 1:
        one = found.facts["lambda_one_se"]
        compared(**said, what=f"{name}: held-out deviance", ours=path["held_out"], theirs=r["cvm"], tolerance=1e-7)
        compared(**said, what=f"{name}: its error", ours=path["held_out_error"], theirs=r["cvsd"], tolerance=1e-6)
        compared(**said, what=f"{name}: λ chosen", ours=found.facts["lambda"], theirs=r["least"], tolerance=1e-9)
        compared(**said, what=f"{name}: λ by one error", ours=one, theirs=r["one_se"], tolerance=1e-9)
    place = int(np.argmax(path["chosen"].to_numpy()))
    theirs = np.array(r["coefficients"])[:, place]
    ours = found["coefficients"]["estimate"].to_numpy()
    compared(**said, what=f"{name}: coefficients", ours=ours, theirs=theirs, tolerance=1e-6)
    assert ((ours == 0) == (theirs == 0)).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), columns=st.integers(1, 12), strength=st.floats(1e-4, 2.0))
def test_the_quadratic_problem_is_solved_to_its_optimality_conditions(seed: int, columns: int, strength: float) -> None:
    random = np.random.default_rng(seed)
    x = random.normal(size=(40, columns)) + random.normal(size=(40, 1))
    hessian, linear = x.T @ x / 40, x.T @ random.normal(size=40) / 40
    l1 = np.r_[0.0, np.full(columns - 1, strength)]
    found = solve(hessian, linear, l1, np.zeros(columns))
    assert violation(hessian @ found - linear, found, l1) <= 1e-11


def test_folds_follow_the_person_and_not_the_hospital(oracle: Any) -> None:
    frame, penalty = oracle.table("path").drop("fold"), {"folds": 4, "path": 8}
    pooled = ask({"all": frame}, "binomial", penalty)
    ugly = {"nobody": frame[:0], "one": frame[:1], "rest": frame[1:]}
    found = ask(ugly, "binomial", penalty)
    for table in ("path", "coefficients"):
        for column in ("lambda", "held_out", "estimate"):
            if column in pooled[table].columns:
                np.testing.assert_allclose(found[table][column], pooled[table][column], rtol=1e-8, atol=1e-12)


def test_what_a_refused_path_names_passes_when_asked_again(oracle: Any) -> None:
    frame = oracle.table("path").drop("fold").filter(pl.int_range(pl.len()) < 150)
    with pytest.raises(Refused) as caught:
        ask(split(frame), "binomial", {"folds": 15, "path": 5}, rules="default", formula="ill ~ a")
    assert ask(split(frame), "binomial", caught.value.setting["penalty"], rules="default", formula="ill ~ a")


def test_constant_and_copied_columns_are_named_and_impossible_models_refused(oracle: Any) -> None:
    frame = oracle.table("path").with_columns(one=pl.lit(1.0), twice=2 * pl.col("a"))
    found = ask(split(frame), "gaussian", {"path": 5}, formula="linear ~ a + one + twice + b")
    assert "one" in found.notes[0].en
    assert "twice" in found.notes[1].en
    with pytest.raises(NothingVaries):
        ask(split(frame), "gaussian", {"path": 5}, formula="linear ~ one")
    for more in ({"family": "gamma"}, {"firth": True, "family": "binomial"}, {"formula": "ill ~ 0 + a"}):
        asked = {"formula": "ill ~ a", "family": "binomial", "penalty": {"path": 5}, **more}
        with pytest.raises(InvalidParameter):
            dure.simulate(split(frame), "regression", asked)
    with pytest.raises(InvalidParameter):
        ask(split(frame), "gaussian", {"l1_ratio": 0})
