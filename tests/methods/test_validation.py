"""Discrimination, calibration and usefulness of scores against scikit-learn, pROC, R's glm and statsmodels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from dure.client.simulate import Simulated, run_frames, simulate
from dure.errors import InvalidParameter, NobodyLeft, NotACount, NotAnOutcome, UnknownColumn
from dure.estimation import random_effects
from dure.guard.rules import OFF
from dure.study.result import Table
from dure.study.spec import Step


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


# ── against R ──


def four(oracle: Any, rules: Any = "off", **more: Any) -> Simulated:
    frame = oracle.table("validation")
    sites = {str(name[0]): part.drop("hospital") for name, part in frame.group_by("hospital", maintain_order=True)}
    return simulate(sites, "validation", {"outcome": "y", "scores": ["score", "other"], **more}, rules=rules)


def test_delongs_errors_and_comparison_equal_proc(oracle: Any, compared: Any) -> None:
    found, theirs = four(oracle, reference="score"), oracle.numbers("validation")["hospitals"]
    for hospital, expected in theirs.items():
        own = found["auroc"].filter(hospital=hospital)
        paired = found["comparison"].filter(hospital=hospital).to_dicts()[0]
        said = {"method": "validation", "oracle": "R pROC"}
        compared(**said, what="AUROC in each hospital", ours=own["auroc"], theirs=expected["auc"])
        compared(**said, what="DeLong's standard error", ours=own["std_error"], theirs=np.sqrt(expected["var"]))
        compared(
            **said,
            what="difference of two AUROCs and its p-value (paired)",
            ours=[paired["difference"], paired["p_value"]],
            theirs=[expected["difference"], expected["p"]],
        )


def test_recalibration_equals_r_over_all_in_subgroups_and_in_each_hospital(oracle: Any, compared: Any) -> None:
    found, theirs = four(oracle, hospitals=True, subgroups=["sex"]), oracle.numbers("validation")
    columns = ("in_the_large", "large_std_error", "slope", "slope_std_error")

    def check(what: str, rows: pl.DataFrame, expected: Any) -> None:
        ours = [rows.to_dicts()[0][name] for name in columns]
        scale = [ours[1], 0, ours[3], 0]
        theirs_here = [*expected["large"], *expected["slope"]]
        compared(method="validation", oracle="R glm", what=what, ours=ours, theirs=theirs_here, scale=scale)

    for score, expected in theirs["recalibration"].items():
        check("recalibration over all", found["recalibration"].filter(score=score), expected)
    check("recalibration in a subgroup", found["subgroups"].filter(score="score", level="male"), theirs["men"])
    for hospital, expected in theirs["by_hospital"].items():
        rows = found["calibration_hospitals"].filter(score="score", hospital=hospital)
        check("recalibration in each hospital", rows, expected)


def test_the_pooled_auroc_is_that_of_rounded_scores(oracle: Any, compared: Any) -> None:
    frame = oracle.table("validation")
    found = four(oracle, resolution=0.05)["discrimination"].filter(score="score").to_dicts()[0]
    expected, rounded = oracle.numbers("validation")["rounded"], np.rint(frame["score"].to_numpy() / 0.05)
    ours = [found["auroc"], found["std_error"]]
    theirs = [expected["auc"], np.sqrt(expected["var"])]
    compared(method="validation", oracle="R pROC", what="pooled AUROC of rounded scores", ours=ours, theirs=theirs)
    compared(
        method="validation",
        oracle="scikit-learn",
        what="pooled AUROC and average precision of rounded scores",
        ours=[found["auroc"], found["average_precision"]],
        theirs=[roc_auc_score(frame["y"], rounded), average_precision_score(frame["y"], rounded)],
    )


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), decimals=st.sampled_from([1, 2, 6]))
def test_average_precision_in_each_hospital_equals_scikit_learn(seed: int, decimals: int) -> None:
    frame = people(seed, 240, decimals)
    for row in ask(frame, auprc=True)["auroc"].to_dicts():
        own = frame[frame["hospital"] == row["hospital"]]
        expected = average_precision_score(own["y"], own[row["score"]])
        assert row["average_precision"] == pytest.approx(expected, rel=1e-12)


def test_brier_and_average_precision_are_remembered_beside_scikit_learn(compared: Any) -> None:
    frame = people(1)
    row = ask(frame)["overall"].to_dicts()[0]
    share, brier = frame["y"].mean(), brier_score_loss(frame["y"], frame["score"])
    compared(
        method="validation",
        oracle="scikit-learn",
        what="Brier score, scaled Brier score",
        ours=[row["brier"], row["scaled_brier"]],
        theirs=[brier, 1 - brier / (share * (1 - share))],
    )
    ratio = share / frame["score"].mean()
    assert row["observed_expected"] == pytest.approx(ratio)
    away = stats.norm.ppf(0.975) * np.sqrt((1 - share) / frame["y"].sum())
    assert row["oe_low"] == pytest.approx(ratio * np.exp(-away))


# ── thresholds ──


def test_thresholds_and_net_benefit_equal_counting_by_hand() -> None:
    frame, cuts = people(8, 500, 2), [0.1, 0.35, 0.5, 0.9]
    found = ask(frame, thresholds=cuts)
    shown = found["thresholds"].filter(score="score").to_dicts()
    curve = found["net_benefit"]
    assert set(curve["strategy"]) == {"score", "other", "everyone", "nobody"}
    case = frame["y"] == 1
    for row, cut in zip(shown, cuts):
        positive = frame["score"] >= cut
        right, wrong = int((positive & case).sum()), int((positive & ~case).sum())
        assert (row["true_positive"], row["false_positive"]) == (right, wrong)
        assert row["sensitivity"] == pytest.approx(case[positive].sum() / case.sum())
        assert row["specificity"] == pytest.approx((~positive & ~case).sum() / (~case).sum())
        assert row["ppv"] == pytest.approx(right / positive.sum())
        assert row["npv"] == pytest.approx((~positive & ~case).sum() / (~positive).sum())
        at = {item["strategy"]: item["net_benefit"] for item in curve.filter(threshold=cut).to_dicts()}
        odds = cut / (1 - cut)
        assert at["score"] == pytest.approx((right - odds * wrong) / 500)
        assert at["everyone"] == pytest.approx((case.sum() - odds * (~case).sum()) / 500)
        assert at["nobody"] == 0


def test_under_the_rules_a_threshold_with_few_people_beyond_it_is_withheld() -> None:
    frame = people(9, 600, 6)
    found = ask(frame, rules="default", thresholds=[0.002, 0.3, 0.3001, 0.6, 0.9999])
    rows = found["thresholds"].filter(score="score").to_dicts()
    assert [row["true_positive"] is None for row in rows] == [True, False, True, False, True]
    assert all(row["sensitivity"] is None for row in rows if row["true_positive"] is None)
    drawn = found["net_benefit"].filter(strategy="score")["threshold"].unique().sort().to_list()
    assert drawn == [0.3, 0.6]
    shown = [row for row in rows if row["true_positive"] is not None]
    for row, benefit in zip(shown, found["net_benefit"].filter(strategy="score")["net_benefit"]):
        odds = row["threshold"] / (1 - row["threshold"])
        whole = row["cases"] + row["non_cases"]
        assert benefit == pytest.approx((row["true_positive"] - odds * row["false_positive"]) / whole)


# ── subgroups, and hospitals together ──


def with_groups(seed: int = 10, rare: int = 0) -> pd.DataFrame:
    frame = people(seed, 900)
    random = np.random.default_rng(seed)
    frame["stage"] = random.choice(["I", "II", "III"], len(frame))
    if rare:
        frame.loc[frame["stage"] == "III", "stage"] = "II"
        frame.loc[frame.index[:rare], "stage"] = "III"
    frame.loc[frame.index[-40:], "stage"] = None
    return frame


def test_subgroups_equal_each_group_asked_alone() -> None:
    frame = with_groups()
    found = ask(frame, subgroups=["stage"], resolution=0.01)["subgroups"]
    for level in ("I", "II", "III"):
        alone = ask(frame[frame["stage"] == level], resolution=0.01)
        for score in ("score", "other"):
            row = found.filter(score=score, level=level).to_dicts()[0]
            for table in ("overall", "recalibration", "discrimination"):
                for name, value in alone[table].filter(score=score).to_dicts()[0].items():
                    assert row[name] == (value if isinstance(value, str | None) else pytest.approx(value, rel=1e-9))


def test_under_the_rules_a_small_subgroup_takes_another_with_it() -> None:
    found = ask(with_groups(rare=12), rules="default", subgroups=["stage"])["subgroups"].filter(score="score")
    shown = {row["level"]: row["n"] is not None for row in found.to_dicts()}
    assert shown == {"I": False, "II": True, "III": False}
    hidden = found.filter(pl.col("n").is_null()).drop("score", "subgroup", "level", "withheld")
    assert all(hidden[name].null_count() == 2 for name in hidden.columns)


def test_levels_of_the_steps_own_merge_subgroups() -> None:
    merge = {"stage": {"early": ["I"], "late": ["II", "III"]}}
    found = ask(with_groups(rare=12), rules="default", subgroups=["stage"], levels=merge)["subgroups"]
    assert found.filter(score="score")["n"].null_count() == 0


def test_hospitals_together_are_the_average_and_the_random_effects_of_their_rows() -> None:
    frame = people(11)
    found = ask(frame, hospitals=True, auprc=True)
    rows = found["auroc"].filter(score="score").to_dicts()
    both = {name: (part["y"].sum(), (1 - part["y"]).sum()) for name, part in frame.groupby("hospital")}
    pairs = np.array([np.prod(both[row["hospital"]]) for row in rows])
    area = np.array([row["auroc"] for row in rows])
    said = found["summary"].filter(score="score")
    cases = np.array([both[row["hospital"]][0] for row in rows])
    precision = np.array([row["average_precision"] for row in rows])
    shown = said.filter(measure="average_precision").to_dicts()[0]
    assert shown["estimate"] == pytest.approx(precision @ cases / cases.sum())
    average = said.filter(measure="auroc", model="average").to_dicts()[0]
    assert average["estimate"] == pytest.approx(area @ pairs / pairs.sum())
    error = np.array([row["std_error"] for row in rows]) / (area * (1 - area))
    expected = random_effects.combine(np.log(area / (1 - area)), error**2)
    random = said.filter(measure="auroc", model="random").to_dicts()[0]
    assert random["estimate"] == pytest.approx(1 / (1 + np.exp(-expected.random.estimate)))
    assert random["prediction_low"] == pytest.approx(1 / (1 + np.exp(-expected.random.prediction[0])))
    own = found["calibration_hospitals"].filter(score="score")
    slopes = random_effects.combine(own["slope"].to_numpy(), own["slope_std_error"].to_numpy() ** 2)
    slope = said.filter(measure="slope").to_dicts()[0]
    assert slope["estimate"] == pytest.approx(slopes.random.estimate)
    assert set(said["measure"]) == {"auroc", "average_precision", "slope", "in_the_large", "observed_expected"}


def test_the_average_holds_nothing_of_a_hospital_that_is_withheld() -> None:
    frame = people(12)
    west = frame.index[frame["hospital"] == "west"]
    frame.loc[west, "y"] = 0.0
    frame.loc[west[:6], "y"] = 1.0
    said = ask(frame, rules="default")["summary"]
    without = frame[frame["hospital"] != "west"]
    expected = ask(without, rules={"per_hospital": True})["summary"]
    assert said.equals(expected)
    assert said["hospitals"].to_list() == [2] * 4


def test_internal_external_validation_is_a_chain_of_steps() -> None:
    random = np.random.default_rng(13)
    frames = {}
    for place, name in enumerate(("north", "south", "west", "east")):
        age = random.normal(60, 9, 200)
        eta = 0.08 * (age - 60) + 0.3 * place - 0.4
        frames[name] = pl.DataFrame({"age": age, "y": (random.random(200) < 1 / (1 + np.exp(-eta))).astype(float)})
    asked = {"outcome": "y", "scores": ["without.prediction"], "hospitals": True}
    steps = (
        Step(
            name="without",
            method="regression",
            scope="all_but_one",
            release=False,
            parameters={"formula": "y ~ age", "family": "binomial"},
        ),
        Step(name="judged", method="validation", uses=("without",), parameters=asked),
    )
    outcomes, _ = run_frames(frames, steps, OFF, frozenset(("per_hospital", "difference")))
    tables = outcomes["judged"].folds[None].released.tables  # type: ignore[union-attr]
    slopes = tables["calibration_hospitals"].frame
    assert slopes["slope"].null_count() == 0
    said = tables["summary"].frame.filter(measure="slope").to_dicts()[0]
    assert said["hospitals"] == 4
    assert said["prediction_low"] < said["estimate"] < said["prediction_high"]


# ── the rules ──


def test_a_slope_needs_ten_of_each_class_for_each_coefficient() -> None:
    for cases, shown in ((19, False), (20, True)):
        frame = people(14)
        west = frame.index[frame["hospital"] == "west"]
        frame.loc[west, "y"] = 0.0
        frame.loc[west[:cases], "y"] = 1.0
        found = ask(frame, rules="default", hospitals=True)
        row = found["calibration_hospitals"].filter(score="score", hospital="west").to_dicts()[0]
        assert (row["slope"] is not None) == shown
        assert row["in_the_large"] is not None
        few = people(14, 300)
        few["y"] = 0.0
        few.loc[few.index[:cases], "y"] = 1.0
        row = ask(few, rules="default")["recalibration"].to_dicts()[0]
        assert (row["slope"] is not None) == shown


def test_with_too_few_of_a_class_nothing_of_it_is_shown() -> None:
    frame = people(15)
    frame["y"] = 0.0
    frame.loc[frame.index[:7], "y"] = 1.0
    found = ask(frame, rules="default", resolution=0.05, hospitals=True, reference="score", thresholds=[0.5])
    assert found["discrimination"].drop("score").null_count().sum_horizontal()[0] == 10
    assert found["recalibration"].drop("score").null_count().sum_horizontal()[0] == 16
    assert found["overall"]["observed_expected"].null_count() == 2
    assert found["auroc"]["std_error"].null_count() == 6
    assert found["comparison"]["difference"].null_count() == 3
    assert found["thresholds"]["true_positive"].null_count() == 2
    assert found["net_benefit"].height == 0


def test_shares_of_people_are_of_rounded_counts() -> None:
    frame = people(16)
    row = ask(frame, rules="default")["overall"].to_dicts()[0]
    assert row["observed_expected"] == pytest.approx(row["events"] / row["n"] / row["mean_predicted"])
    share = row["events"] / row["n"]
    assert row["scaled_brier"] == pytest.approx(1 - row["brier"] / (share * (1 - share)))


# ── ugly data ──


def test_points_are_judged_by_discrimination_only() -> None:
    frame = people(17).assign(score=lambda part: np.round(part["score"] * 30))
    with pytest.raises(NotACount, match="outside 0 to 1"):
        ask(frame)
    found = ask(frame, probabilities=False, thresholds=[5.0, 20.0])
    assert set(found.tables) == {"auroc", "overall", "thresholds", "summary"}
    assert found["thresholds"]["true_positive"].null_count() == 0


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(["constant", "two", "perfect", "edges", "one class", "tiny", "fine"]),
)
def test_ugly_scores_give_an_answer_or_nothing(seed: int, kind: str) -> None:
    frame = people(seed, 120, 3)
    if kind == "constant":
        frame["score"] = 0.3
    if kind == "two":
        frame["score"] = np.where(frame["score"] > 0.5, 0.7, 0.2)
    if kind == "perfect":
        frame["score"] = np.where(frame["y"] == 1, 0.9, 0.1) + frame["other"] / 100
    if kind == "edges":
        frame["score"] = np.round(frame["score"])
    if kind == "one class":
        frame["y"] = 1.0
    if kind == "tiny":
        frame["score"] = frame["score"] * 1e-12
    everything = {"hospitals": True, "reference": "score", "resolution": 0.01, "thresholds": [0.5], "auprc": True}
    found = ask(frame, **everything)
    row = found["recalibration"].filter(score="score").to_dicts()[0]
    assert (row["slope"] is None) == (kind in ("constant", "perfect", "one class", "tiny"))
    assert (row["in_the_large"] is None) == (kind == "one class")
    for table in found.tables.values():
        for name, dtype in table.schema.items():
            assert not dtype.is_float() or table[name].drop_nulls().is_finite().all(), name


@pytest.mark.parametrize(
    "wrong",
    [
        {"thresholds": [0.5, 0.2]},
        {"thresholds": [0.0]},
        {"reference": "third"},
        {"scores": ["score", "score"]},
        {"probabilities": False, "resolution": 0.01},
        {"subgroups": ["score"]},
    ],
)
def test_what_cannot_be_asked_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter):
        ask(people(18), **wrong)


def test_it_says_how_it_was_done_in_both_languages() -> None:
    result = ask(people(19), thresholds=[0.5], resolution=0.01).result
    assert result.paragraph
    assert result.paragraph.ko != result.paragraph.en
    for place, _ in enumerate(result.references, start=1):
        assert f"[{place}]" in result.paragraph.en
        assert f"[{place}]" in result.paragraph.ko
    for figure in result.figures.values():
        table: Table = result.tables[figure.table]
        assert {figure.x, figure.y, *filter(None, (figure.low, figure.high, figure.group))} <= set(table.frame.columns)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), n=st.sampled_from([90, 150, 400]), rate=st.sampled_from([0.03, 0.1, 0.5, 0.95]))
def test_no_released_cell_breaks_the_rules(seed: int, n: int, rate: float) -> None:
    random = np.random.default_rng(seed)
    frame = people(seed, n, 3).assign(stage=random.choice(["I", "II", "III"], n, p=[0.6, 0.3, 0.1]))
    frame["y"] = (random.random(n) < rate).astype(float)
    everything = {"subgroups": ["stage"], "resolution": 0.01, "thresholds": [0.2, 0.5, 0.55, 0.9], "hospitals": True}
    found = ask(frame, rules="default", auprc=True, reference="score", **everything)
    for table in found.result.tables.values():
        for column in table.counts:
            shown = table.frame[column].drop_nulls()
            assert all(value >= 10 and value % 5 == 0 for value in shown), column
    classes = frame.groupby(["hospital", "y"]).size().unstack(fill_value=0).reindex(columns=[0.0, 1.0], fill_value=0)
    for name in ("auroc", "calibration_hospitals", "comparison"):
        numbers = [c for c, dtype in found[name].schema.items() if dtype.is_float()]
        for row in found[name].to_dicts():
            if classes.loc[row["hospital"]].min() < 10:
                assert all(row[column] is None for column in numbers)
    both = min(frame["y"].sum(), n - frame["y"].sum())
    for name, needed in (("discrimination", 10), ("recalibration", 10)):
        if both < needed:
            assert found[name].drop("score").null_count().sum_horizontal()[0] == 2 * (found[name].width - 1)
    for row in found["subgroups"].to_dicts():
        part = frame[frame["stage"] == row["level"]]["y"]
        if min(part.sum(), len(part) - part.sum()) < 10:
            assert all(row[c] is None for c, dtype in found["subgroups"].schema.items() if dtype.is_numeric())
    cells = ("true_positive", "false_positive", "true_negative", "false_negative")
    for row in found["thresholds"].to_dicts():
        own = frame[row["score"]] >= row["threshold"]
        smallest = (
            pd.crosstab(own, frame["y"]).reindex(index=[False, True], columns=[0.0, 1.0], fill_value=0).min().min()
        )
        if smallest < 10:
            assert all(row[name] is None for name in (*cells, "sensitivity", "specificity", "ppv", "npv"))
