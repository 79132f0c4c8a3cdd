"""AUROC, Brier score and calibration against scikit-learn and pandas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score

from dure.client.simulate import Simulated, simulate
from dure.errors import NobodyLeft, NotAnOutcome, UnknownColumn


def people(seed: int = 0, n: int = 900, decimals: int = 6) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    score = np.round(random.random(n), decimals)
    return pd.DataFrame(
        {
            "y": (random.random(n) < score).astype(float),
            "score": score,
            "other": np.round(random.random(n), decimals),
            "hospital": random.choice(["north", "south", "west"], n),
        }
    )


def ask(frame: pd.DataFrame, rules: Any = "off", **more: Any) -> Simulated:
    sites = {name: part.drop(columns="hospital") for name, part in frame.groupby("hospital")}
    return simulate(sites, "validation", {"outcome": "y", "scores": ["score", "other"], **more}, rules=rules)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), decimals=st.sampled_from([0, 1, 2, 6]))
def test_each_hospitals_auroc_equals_scikit_learn_ties_included(seed: int, decimals: int) -> None:
    frame = people(seed, 240, decimals)
    for row in ask(frame)["auroc"].to_dicts():
        own = frame[frame["hospital"] == row["hospital"]]
        assert row["auroc"] == pytest.approx(roc_auc_score(own["y"], own[row["score"]]), rel=1e-12)
        assert row["n"] == len(own)


def test_the_brier_score_and_means_are_pooled() -> None:
    frame = people(1)
    for row in ask(frame)["overall"].to_dicts():
        assert row["brier"] == pytest.approx(brier_score_loss(frame["y"], frame[row["score"]]), rel=1e-12)
        assert row["mean_predicted"] == pytest.approx(frame[row["score"]].mean(), rel=1e-12)
        assert (row["n"], row["events"]) == (len(frame), frame["y"].sum())


@pytest.mark.parametrize("bins", [2, 7, 10])
def test_calibration_equals_binning_by_hand(bins: int) -> None:
    frame = people(2)
    found = ask(frame, bins=bins)["calibration"].filter(pl.col("score") == "score")
    place = np.minimum((frame["score"] * bins).astype(int), bins - 1)
    expected = frame.groupby(place).agg(predicted=("score", "mean"), observed=("y", "mean"), n=("y", "size"))
    assert found["n"].to_list() == expected["n"].to_list()
    np.testing.assert_allclose(found["predicted"], expected["predicted"], atol=5.1e-4)
    np.testing.assert_allclose(found["observed"], expected["observed"], atol=5.1e-4)
    np.testing.assert_allclose(found["bin_low"], np.arange(bins) / bins)


def test_missing_scores_and_outcomes_are_left_out_score_by_score() -> None:
    frame = people(3)
    frame.loc[::5, "score"] = np.nan
    frame.loc[::7, "y"] = np.nan
    found = {row["score"]: row for row in ask(frame)["overall"].to_dicts()}
    complete = frame.dropna()
    assert found["score"]["n"] == len(complete)
    assert found["other"]["n"] == frame["y"].notna().sum()
    assert found["score"]["brier"] == pytest.approx(brier_score_loss(complete["y"], complete["score"]), rel=1e-12)


def test_a_hospital_of_one_class_has_no_auroc_and_says_why() -> None:
    frame = people(4)
    frame.loc[frame["hospital"] == "west", "y"] = 1.0
    found = ask(frame)["auroc"].filter(pl.col("hospital") == "west").to_dicts()
    assert [row["auroc"] for row in found] == [None, None]
    assert all("non-cases" in row["reason"] and "비환자" in row["reason_ko"] for row in found)


def test_under_the_rules_nine_cases_are_too_few_and_ten_are_enough() -> None:
    for cases in (9, 10):
        frame = people(5)
        west = frame.index[frame["hospital"] == "west"]
        frame.loc[west, "y"] = 0.0
        frame.loc[west[:cases], "y"] = 1.0
        row = ask(frame, rules="default")["auroc"].filter(pl.col("hospital") == "west").to_dicts()[0]
        assert (row["auroc"] is None) == (cases < 10)
        assert (row["n"] is None) == (cases < 10)


def test_under_the_rules_every_bin_has_ten_of_each_class() -> None:
    found = ask(people(6), rules="default", bins=50)["calibration"]
    assert found.height < 100
    assert found["cases"].min() >= 10
    assert (found["n"] - found["cases"]).min() >= 10


def test_what_cannot_be_validated_is_refused() -> None:
    with pytest.raises(NotAnOutcome, match="other than 0 and 1"):
        ask(people(7).assign(y=2.0))
    with pytest.raises(NobodyLeft):
        ask(people(7).assign(y=np.nan))
    with pytest.raises(UnknownColumn, match="Did you mean 'score'"):
        ask(people(7), scores=["scor"])
