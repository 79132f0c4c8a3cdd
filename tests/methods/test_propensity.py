"""The propensity score against statsmodels, and with an L1 penalty on sparse codes against glum."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from glum import GeneralizedLinearRegressor

import dure
from dure.errors import DureError, InvalidParameter
from dure.methods.propensity import method
from dure.study.rows import code_matrix


def people(times: int = 4) -> pl.DataFrame:
    return pl.concat([method.example(np.random.default_rng(seed)).frame for seed in range(times)])


def split(frame: pl.DataFrame, hospitals: int = 4) -> dict[str, pl.DataFrame]:
    return {f"h{place}": frame[place::hospitals] for place in range(hospitals)}


def test_maximum_likelihood_is_that_of_statsmodels(compared: Any) -> None:
    frame = people()
    found = dure.simulate(split(frame), "propensity", {"treatment": "treated", "formula": "age + C(sex)"}, rules="off")
    x = np.column_stack([np.ones(frame.height), frame["age"], frame["sex"] == "m"])
    fit = sm.Logit(frame["treated"].to_numpy(), x).fit(disp=0, tol=1e-14, method="newton", maxiter=100)
    said = {"method": "propensity", "oracle": "statsmodels Logit"}
    table = found["coefficients"]
    compared(**said, what="coefficients", ours=table["estimate"], theirs=fit.params, tolerance=1e-8)
    compared(**said, what="standard errors", ours=table["std_error"], theirs=fit.bse, tolerance=1e-8)


def test_a_lasso_on_codes_from_gradients_alone_is_that_of_glum(compared: Any) -> None:
    """glum stops by its gradient (1e-10 here), which leaves about 1e-8 in a coefficient."""
    frame = people()
    codes = [str(4_000_000 + 17 * code) for code in range(12)]
    dense = np.column_stack([frame["age"], frame["sex"] == "m", code_matrix(frame["codes"], codes).toarray()])
    fit = GeneralizedLinearRegressor(
        family="binomial", alpha=0.02, l1_ratio=1, scale_predictors=True, gradient_tol=1e-10, max_iter=500
    ).fit(dense.astype(float), frame["treated"].to_numpy())
    asked = {**method.example(np.random.default_rng(0)).parameters, "penalty": {"strength": 0.02}}
    found = dure.simulate(split(frame), "propensity", asked, rules="off")["coefficients"]
    ours = dict(found.select("term", "estimate").rows())
    names = ["age", "C(sex)[T.m]", *(f"codes[{code}]" for code in codes)]
    mine = np.array([ours["Intercept"], *(ours.get(name, 0.0) for name in names)])
    theirs = np.r_[fit.intercept_, fit.coef_]
    compared(
        method="propensity", oracle="glum", what="lasso on codes", ours=mine, theirs=theirs, tolerance=1e-6, scale=0.1
    )


def test_no_array_of_a_score_on_codes_is_about_two_codes_together() -> None:
    found = dure.simulate(split(people()), "propensity", method.example(np.random.default_rng(0)).parameters)
    assert all(len(item["shape"]) < 2 or item["shape"][-1] != item["shape"][-2] or item["shape"][-1] == 3
               for item in found.left)  # fmt: skip
    assert "codes" not in {item["array"] for item in found.left}


def test_rare_codes_are_left_out_and_named_as_a_number_only() -> None:
    frame = people()
    rare = pl.Series([[99] if place < 4 else [] for place in range(frame.height)], dtype=pl.List(pl.Int64))
    frame = frame.with_columns(codes=pl.concat_list(pl.col("codes").fill_null([]), rare))
    found = dure.simulate(split(frame), "propensity", method.example(np.random.default_rng(0)).parameters)
    assert "do not: 1." in found.notes[0].en
    assert not any("[99]" in term for term in found["coefficients"]["term"])


def test_codes_are_sparse_counted_once_and_in_any_order() -> None:
    series = pl.Series([[30, 10], None, [], [20, 20, 10]], dtype=pl.List(pl.Int64))
    matrix = code_matrix(series, ("10", "20", "30"))
    assert matrix.indices.dtype == np.int32
    np.testing.assert_array_equal(matrix.toarray(), [[1, 0, 1], [0, 0, 0], [0, 0, 0], [1, 1, 0]])
    with pytest.raises(DureError):
        code_matrix(series, ("10", "20"))


def test_codes_need_a_penalty_and_a_score_something_to_depend_on() -> None:
    for asked in ({"covariates": "codes"}, {}, {"covariates": "age", "penalty": {}}):
        with pytest.raises(InvalidParameter):
            dure.simulate(split(people(1)), "propensity", {"treatment": "treated", **asked})


def test_derived_scores_are_the_fitted_probability_and_its_preference() -> None:
    steps = [
        {"name": "ps", "method": "propensity", "parameters": {"treatment": "treated", "formula": "age"}},
        {"name": "mean", "method": "regression", "uses": ["ps"], "parameters": {"formula": "ps.score ~ treated"}},
    ]
    found = dure.client.simulate.simulate_steps(split(people()), steps)
    assert found.status() == {"ps": "finished", "mean": "finished"}
    assert found["mean"]["coefficients"]["estimate"][1] > 0
