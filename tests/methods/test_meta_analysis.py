"""Meta-analysis against R metafor, shown and from sums; steps that run inside each hospital; and what stays hidden."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dure.client.frames import columns_of
from dure.client.simulate import Simulated, run_frames, simulate
from dure.errors import DureError, InvalidParameter, NoEstimate, NotACount, Refused, UnknownColumn
from dure.estimation import random_effects
from dure.federation.plan import Plan
from dure.federation.rounds import find_setting
from dure.guard.rules import DEFAULT, OFF, refusal
from dure.study.method import Question, installed_methods, read_parameters
from dure.study.spec import Step

MEASURES = {"OR": "odds_ratio", "RR": "risk_ratio", "RD": "risk_difference", "MD": "mean_difference"}
ORACLE = "R metafor rma"


def hospitals(oracle: Any) -> dict[str, pl.DataFrame]:
    people = oracle.table("meta_analysis")
    return {str(name[0]): part.drop("hospital") for name, part in people.group_by("hospital", maintain_order=True)}


def asked(measure: str = "OR", **more: Any) -> dict[str, Any]:
    outcome = "value" if measure == "MD" else "event"
    return {"outcome": outcome, "group": "treated", "measure": MEASURES[measure], **more}


def ask(frames: dict[str, pl.DataFrame], measure: str = "OR", rules: Any = "off", **more: Any) -> Simulated:
    return simulate(frames, "meta_analysis", asked(measure, **more), rules=rules)


def model(found: Simulated, name: str) -> dict[str, Any]:
    return found["pooled"].filter(model=name).to_dicts()[0]


# ── against metafor ──


@pytest.mark.parametrize("show", ["hospitals", "totals"])
@pytest.mark.parametrize("measure", MEASURES)
def test_every_estimator_equals_metafor_shown_and_from_sums(
    oracle: Any, compared: Any, measure: str, show: str
) -> None:
    frames, theirs = hospitals(oracle), oracle.numbers("meta_analysis")[measure]
    for how in ("REML", "DL", "PM"):
        for interval in ("normal", "hksj", "hksj_adhoc"):
            found = ask(frames, measure, tau2=how, interval=interval, show=show)
            expected = theirs[how][interval]
            scale = expected["std_error"]
            parts: tuple[str, ...] = ("estimate", "std_error", "ci_low", "ci_high", "prediction_low", "prediction_high")
            if interval == "hksj_adhoc":
                parts = parts[:4]  # this metafor's prediction interval leaves the factor out
            ours = model(found, "random")
            for oracle_says, said, names in (
                (expected, ours, parts),
                (theirs["fixed"], model(found, "fixed"), ("estimate", "std_error", "ci_low", "ci_high")),
            ):
                compared(
                    method="meta_analysis",
                    oracle=ORACLE,
                    what=f"{measure}, {how}, {interval}, {show}: {', '.join(names[:2])} and intervals",
                    ours=[said[name] for name in names],
                    theirs=[oracle_says[name] for name in names],
                    scale=scale,
                )
            spread = found["heterogeneity"].to_dicts()[0]
            compared(
                method="meta_analysis",
                oracle=ORACLE,
                what=f"{measure}, {how}, {show}: Q, its p, τ², I², H²",
                ours=[spread[name] for name in ("q", "p_value", "tau2", "i2", "h2")],
                theirs=[expected[name] for name in ("q", "q_p", "tau2", "i2", "h2")],
            )
            ends = [spread["tau2_low"], spread["tau2_high"]]
            if show == "totals" and how == "DL":
                assert ends == [None, None]
                continue
            compared(
                method="meta_analysis",
                oracle="R metafor confint (Q-profile)",
                what=f"{measure}, {how}, {show}: interval of τ²",
                ours=ends,
                theirs=theirs[how]["tau2_ci"],
            )


@pytest.mark.parametrize("measure", MEASURES)
def test_each_hospitals_estimate_and_leaving_it_out_equal_metafor(oracle: Any, compared: Any, measure: str) -> None:
    found, theirs = ask(hospitals(oracle), measure), oracle.numbers("meta_analysis")[measure]
    own = found["estimates"].filter(pl.col("estimate").is_not_null())
    errors = np.sqrt(theirs["vi"])
    for what, ours, expected in (
        ("estimates of hospitals", own["estimate"], theirs["yi"]),
        ("their standard errors", own["std_error"], errors),
    ):
        compared(method="meta_analysis", oracle="R metafor escalc", what=what, ours=ours, theirs=expected, scale=errors)
    left, expected = found["leave_one_out"], theirs["REML"]["left"]
    for name in ("estimate", "std_error", "tau2", "i2"):
        compared(
            method="meta_analysis",
            oracle="R metafor leave1out",
            what=f"{measure}: {name} without each hospital",
            ours=left[name],
            theirs=expected[name],
            scale=expected["std_error"],
        )


@pytest.mark.parametrize("show", ["hospitals", "totals"])
@pytest.mark.parametrize("measure", ["OR", "RR"])
def test_mantel_haenszel_takes_in_the_hospital_with_an_empty_cell(
    oracle: Any, compared: Any, measure: str, show: str
) -> None:
    frames = hospitals(oracle)
    found = ask(frames, measure, show=show)
    assert (found.facts["hospitals"], found.facts["hospitals_left_out"]) == (8, 1)
    ours, theirs = model(found, "mantel_haenszel"), oracle.numbers("meta_analysis")["haenszel"][measure]
    compared(
        method="meta_analysis",
        oracle="R metafor rma.mh",
        what=f"Mantel–Haenszel {measure}, {show}",
        ours=[ours[name] for name in theirs],
        theirs=list(theirs.values()),
    )
    assert ours["ratio"] == pytest.approx(np.exp(ours["estimate"]))


def test_the_forest_plot_shows_hospitals_and_what_they_say_together(oracle: Any) -> None:
    found = ask(hospitals(oracle))
    rows = found["forest"].to_dicts()
    assert [row["hospital"] for row in rows[-3:]] == ["Fixed effect", "Random effects", "Prediction interval"]
    assert len(rows) == 8 + 3  # the hospital with an empty cell has no estimate
    random = model(found, "random")
    assert rows[-1]["ratio_low"] == pytest.approx(np.exp(random["prediction_low"]))
    figure = found.result.figures["forest"]
    assert {figure.x, figure.y, figure.low, figure.high} <= set(found[figure.table].columns)


def test_the_levels_of_a_column_take_the_place_of_hospitals(oracle: Any) -> None:
    frames = hospitals(oracle)
    together = pl.concat([part.with_columns(ward=pl.lit(name)) for name, part in frames.items()])
    shuffled = together.sample(fraction=1.0, shuffle=True, seed=3)
    by_ward = ask({f"x{i}": shuffled[i::3] for i in range(3)}, by="ward")
    for name, frame in ask(frames).tables.items():
        for column in frame.columns:
            if frame[column].dtype.is_numeric():
                np.testing.assert_allclose(by_ward[name][column].drop_nulls(), frame[column].drop_nulls(), rtol=1e-10)
            else:
                assert by_ward[name][column].to_list() == frame[column].to_list()


# ── the searches ──


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    hospitals=st.integers(1, 12),
    scale=st.sampled_from([1e-6, 1.0, 1e9]),
    spread=st.sampled_from([0.0, 0.3, 3.0, 100.0]),
    shift=st.sampled_from([0.0, 50.0]),
)
@pytest.mark.parametrize("how", ["REML", "PM", "DL"])
def test_tau2_solves_its_equation_at_any_scale(
    how: Any, seed: int, hospitals: int, scale: float, spread: float, shift: float
) -> None:
    random = np.random.default_rng(seed)
    variance = random.uniform(0.02, 2.0, hospitals) ** 2
    estimate = (shift + random.normal(0, np.sqrt(variance + spread**2))) * scale
    variance = variance * scale**2
    found = random_effects.combine(estimate, variance, how=how)
    if hospitals == 1:
        assert found.random.estimate == pytest.approx(float(estimate[0]))
        assert np.isnan(found.tau2)
        return

    def q(tau2: float) -> float:
        weight = 1 / (variance + tau2)
        return float((weight * (estimate - weight @ estimate / weight.sum()) ** 2).sum())

    def restricted(tau2: float) -> float:
        weight = 1 / (variance + tau2)
        return float(-0.5 * (np.log(variance + tau2).sum() + np.log(weight.sum()) + q(tau2)))

    if how == "PM":
        assert (found.tau2 == 0 and q(0) <= hospitals - 1) or q(found.tau2) == pytest.approx(hospitals - 1, rel=1e-8)
    if how == "REML":
        near = found.tau2 + scale**2 * np.array([1e-4, -1e-4])
        assert all(restricted(float(tau2)) <= restricted(found.tau2) + 1e-9 for tau2 in near[near >= 0])
    for end, target in zip(found.tau2_ci, stats.chi2(hospitals - 1).ppf([0.975, 0.025])):
        assert (end == 0 and q(0) <= target) or q(end) == pytest.approx(float(target), rel=1e-7)


# ── estimates of an earlier step ──


def two_steps(frames: dict[str, pl.DataFrame], release: bool = True, **more: Any) -> dict[str, Any]:
    fit = {"formula": "event ~ treated + value", "family": "binomial"}
    steps = (
        Step(name="local", method="regression", scope="each", parameters=fit, release=release),
        Step(
            name="meta",
            method="meta_analysis",
            uses=("local",),
            parameters={"estimates": "local", "term": "treated", "exponentiate": True, **more},
        ),
    )
    limits, grants = more.pop("limits", OFF), more.pop("grants", frozenset(("per_hospital",)))
    steps = (steps[0], steps[1].model_copy(update={"parameters": {**steps[1].parameters, **more}}))
    for unwanted in ("limits", "grants"):
        steps[1].parameters.pop(unwanted, None)
    outcomes, run = run_frames(frames, steps, limits, grants)
    return {**outcomes, "run": run}


def larger(hospitals: int = 5, people: int = 300, small: int = 0) -> dict[str, pl.DataFrame]:
    """Hospitals with effects of their own; the first of `small` people."""
    random, found = np.random.default_rng(11), {}
    for place in range(hospitals):
        n = small if small and not place else people
        treated, value = (random.random(n) < 0.5).astype(float), random.normal(50 + place, 8, n)
        eta = -0.5 + (0.3 + 0.25 * place) * treated + 0.03 * (value - 50)
        event = (random.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
        found[f"h{place}"] = pl.DataFrame({"treated": treated, "event": event, "value": value})
    return found


def released(outcome: Any) -> Any:
    fold = outcome.folds[None]
    if fold.error:
        raise fold.error
    assert fold.released is not None
    return fold.released


def test_a_step_of_each_hospital_is_combined_as_its_own_coefficients_would_be() -> None:
    frames = larger()
    found = two_steps(frames)
    own = {
        name: fold.released.tables["coefficients"].frame.filter(term="treated").to_dicts()[0]
        for name, fold in found["local"].folds.items()
    }
    by_hand = random_effects.combine(
        np.array([row["estimate"] for row in own.values()]), np.array([row["std_error"] ** 2 for row in own.values()])
    )
    tables = released(found["meta"]).tables
    random = tables["pooled"].frame.filter(model="random").to_dicts()[0]
    assert random["estimate"] == pytest.approx(by_hand.random.estimate, rel=1e-12)
    assert random["std_error"] == pytest.approx(by_hand.random.std_error, rel=1e-12)
    assert random["ratio"] == pytest.approx(np.exp(by_hand.random.estimate))
    assert tables["estimates"].frame["estimate"].to_list() == pytest.approx([row["estimate"] for row in own.values()])
    assert tables["estimates"].frame["n"].to_list() == [300] * 5


def test_where_nothing_may_leave_a_hospital_the_same_answer_comes_from_sums() -> None:
    frames = larger()
    shown = released(two_steps(frames, tau2="DL")["meta"]).tables["pooled"].frame
    found = two_steps(frames, release=False, show="totals", tau2="DL", limits=DEFAULT, grants=frozenset())
    assert found["meta"].status == "finished"
    assert all("per_hospital" not in found["run"].grants[name] for name in frames)
    assert all(not fold.released.tables for fold in found["local"].folds.values())
    hidden = released(found["meta"]).tables["pooled"].frame
    for name in ("estimate", "std_error", "ci_low", "prediction_high"):
        np.testing.assert_allclose(hidden[name].drop_nulls(), shown[name].drop_nulls(), rtol=1e-10)
    assert {item.array for item in found["meta"].left} == {"people", "hospitals", "left_out", "sums"}


@pytest.mark.parametrize(
    ("hospitals", "points", "opens"),
    [(4, [0.0], False), (3, [0.0], True), (99, [0.0], False), (4, [0.0, 1.0], True), (99, [0.5] * 200, True)],
)
def test_a_hub_is_not_believed_how_many_hospitals_there_are_nor_asked_at_more_points(
    hospitals: int, points: list[float], opens: bool
) -> None:
    """The sums of DerSimonian & Laird are fewer than what they hide only at one point, and for enough hospitals."""
    method = installed_methods()["meta_analysis"]
    asked = {"estimates": "local", "term": "treated", "show": "totals", "tau2": "DL", "mantel_haenszel": False}
    question = Question(read_parameters(method, asked), {}, ("a", "b", "c", "d"), {}, (), 0)
    state = {"phase": "sums", "hospitals": hospitals, "points": points, "centre": 0.0}
    declared = {spec.name: spec for spec in method.declare(question, state)}
    assert declared["sums"].opens_hospitals is opens
    three = replace(question, hospitals=("a", "b", "c"))
    assert {spec.name: spec for spec in method.declare(three, state)}["sums"].opens_hospitals


def test_what_a_hospital_sends_of_a_hidden_step_does_not_depend_on_its_patients() -> None:
    frames = larger()
    separated = {**frames, "h0": frames["h0"].with_columns(event=pl.col("treated"))}
    replies = [
        two_steps(part, release=False, show="totals", tau2="DL", limits=DEFAULT, grants=frozenset())
        for part in (frames, separated)
    ]
    one, other = (found["local"].folds["h0"] for found in replies)
    assert one.status == other.status == "finished"
    assert one.released == other.released
    assert released(replies[1]["meta"]).facts["hospitals_left_out"] == 1


def test_a_shown_step_still_needs_the_permit() -> None:
    frames = {name: part for name, part in larger().items() if name < "h2"}
    assert two_steps(frames, limits=DEFAULT, grants=frozenset())["local"].status == "refused"


def test_a_term_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidParameter, match="no 'dose'"):
        released(two_steps(larger(), term="dose")["meta"])


# ── the rules ──


def test_a_hospital_with_a_cell_below_ten_is_left_out_and_named() -> None:
    frames = larger(small=40)
    found = ask(frames, rules={"per_hospital": True})
    row = found["estimates"].filter(hospital="h0").to_dicts()[0]
    assert row["estimate"] is None
    assert row["weight_random"] is None
    assert "h0" in found.notes[0].en
    assert found.facts["hospitals_left_out"] == 1
    without = ask({name: part for name, part in frames.items() if name != "h0"}, rules={"per_hospital": True})
    assert model(found, "random") == pytest.approx(model(without, "random"), nan_ok=True)


def test_a_number_of_two_values_has_nobody_behind_its_difference() -> None:
    frames = {
        name: part.with_columns(value=pl.when(pl.int_range(pl.len()) < 6).then(2.0).otherwise(1.0))
        for name, part in larger().items()
    }
    with pytest.raises(NoEstimate):
        ask(frames, "MD", rules={"per_hospital": True})


def test_sums_that_would_show_hospitals_need_the_permit_and_the_setting_named_does_not() -> None:
    frames = larger()
    open_to_all = simulate(frames, "meta_analysis", asked(show="totals", tau2="DL"))
    assert not any("per_hospital_permit" in item["rules"] for item in open_to_all.left)
    assert any("per_hospital_permit" in item["rules"] for item in ask(frames, show="totals", rules="default").left)
    step = Step(name="meta", method="meta_analysis", parameters=asked(show="totals"))
    plan = Plan("test", (step,), columns_of(frames), installed_methods(), minimum_people=10)
    question, refused = plan.question(step, tuple(frames)), refusal("per_hospital_permit")
    find_setting(refused, plan.method(step), question, {"hospitals": np.array(5)})
    assert refused.setting == {"tau2": "DL"}
    again = simulate(frames, "meta_analysis", {**asked(show="totals"), **refused.setting})
    assert not any("per_hospital_permit" in item["rules"] for item in again.left)
    few = refusal("per_hospital_permit")
    find_setting(few, plan.method(step), question, {"hospitals": np.array(3)})
    assert few.setting == {}


def test_too_few_hospitals_with_an_estimate_are_refused() -> None:
    frames = larger(hospitals=4)
    poor = {name: part if name < "h2" else part.with_columns(event=pl.lit(0.0)) for name, part in frames.items()}
    with pytest.raises(Refused) as caught:
        ask(poor, show="totals", tau2="DL", rules="default")
    assert caught.value.rule == "minimum_hospitals"


def test_an_estimate_is_rounded_nowhere_and_its_people_are() -> None:
    found = ask(larger(), rules={"per_hospital": True})
    assert all(n % 5 == 0 for n in found["estimates"]["n"].drop_nulls())
    exact = ask(larger())
    np.testing.assert_array_equal(found["estimates"]["estimate"], exact["estimates"]["estimate"])


# ── what cannot be asked ──


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"outcome": "event"}, InvalidParameter),
        ({"outcome": "event", "group": "treated", "estimates": "local", "term": "x"}, InvalidParameter),
        ({"outcome": "value", "group": "treated"}, InvalidParameter),
        ({"outcome": "event", "group": "value"}, InvalidParameter),
        ({"outcome": "event", "group": "treatd"}, UnknownColumn),
        ({"outcome": "event", "group": "treated", "by": "treated", "measure": "mean_difference"}, InvalidParameter),
        ({"outcome": "ward", "group": "treated", "measure": "mean_difference"}, InvalidParameter),
    ],
)
def test_what_cannot_be_asked_is_named(wrong: dict[str, Any], error: type[DureError]) -> None:
    frames = {name: part.with_columns(ward=pl.lit("a")) for name, part in larger().items()}
    with pytest.raises(error):
        simulate(frames, "meta_analysis", wrong, rules="off")


def test_nobody_anywhere_is_an_error() -> None:
    frames = {name: part.with_columns(event=pl.lit(None, pl.Float64)) for name, part in larger().items()}
    columns = {"outcome": "treated", "group": "event"}
    with pytest.raises((NoEstimate, InvalidParameter, NotACount)):
        simulate(frames, "meta_analysis", columns, rules="off")


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6), measure=st.sampled_from(list(MEASURES)), show=st.sampled_from(["hospitals", "totals"])
)
def test_ugly_hospitals_give_the_answer_of_the_usable_ones_or_an_error(seed: int, measure: str, show: str) -> None:
    random, frames = np.random.default_rng(seed), {}
    unit = float(10.0 ** random.integers(-6, 10))
    for place, n in enumerate(random.choice([0, 1, 2, 5, 80], 6)):
        scale = unit * float(random.choice([1, 1000]))
        frames[f"h{place}"] = pl.DataFrame(
            {
                "treated": (random.random(n) < 0.5).astype(float),
                "event": np.where(
                    random.random(n) < 0.1, np.nan, (random.random(n) < random.choice([0, 0.5, 1])).astype(float)
                ),
                "value": random.normal(0, scale, n),
            },
            schema=dict.fromkeys(("treated", "event", "value"), pl.Float64),
        )
    try:
        found = ask(frames, measure, show=show)
    except DureError:
        return
    effect = model(found, "random")
    assert np.isfinite(effect["estimate"])
    assert np.isfinite(effect["std_error"])
    if show == "totals":
        shown = model(ask(frames, measure), "random")
        assert effect["estimate"] == pytest.approx(shown["estimate"], rel=1e-8, abs=1e-8 * shown["std_error"])


def test_sums_of_three_hospitals_would_show_them_and_need_the_permit() -> None:
    frames = larger(hospitals=4, small=40)  # of four, one has too few people
    with pytest.raises(Refused) as caught:
        ask(frames, show="totals", tau2="DL", rules="default")
    assert caught.value.rule == "per_hospital_permit"
    assert caught.value.setting == {}
    assert ask(frames, show="totals", tau2="DL", rules={"per_hospital": True}).facts["hospitals"] == 3


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), measure=st.sampled_from(list(MEASURES)), rate=st.sampled_from([0.05, 0.3, 0.9]))
def test_no_estimate_stands_on_fewer_than_ten_of_any_group(seed: int, measure: str, rate: float) -> None:
    random, frames, small = np.random.default_rng(seed), {}, {}
    for place, n in enumerate((30, 60, 120, 400)):
        part = pl.DataFrame(
            {
                "treated": (random.random(n) < 0.5).astype(float),
                "event": (random.random(n) < rate).astype(float),
                "value": random.choice([0.0, 0.0, 0.0, 5.0, 7.0], n, p=[0.3, 0.3, 0.3, 0.05, 0.05]),
            }
        )
        frames[f"h{place}"] = part
        arms = [part.filter(treated=arm) for arm in (0.0, 1.0)]
        if measure == "MD":
            small[f"h{place}"] = min(arm["value"].ne(0.0).sum() for arm in arms) < 10
        else:
            small[f"h{place}"] = min(arm["event"].eq(value).sum() for arm in arms for value in (0.0, 1.0)) < 10
    try:
        found = ask(frames, measure, rules={"per_hospital": True})
    except (NoEstimate, Refused):
        assert all(small.values())
        return
    for row in found["estimates"].to_dicts():
        assert (row["estimate"] is None) == small[row["hospital"]]
        assert row["n"] is None or (row["n"] >= 10 and row["n"] % 5 == 0)
