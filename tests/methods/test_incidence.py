"""Rates and their comparisons against R and statsmodels; small cells; and settings that pass."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats import rates as statsmodels_rates

from dure.client.simulate import Simulated, run_frames, simulate
from dure.errors import DureError, InvalidParameter, NobodyLeft, NotACount, Refused
from dure.estimation.rates import FIVE_YEARS, STANDARDS, count_limits, standard_weights
from dure.study.spec import Step

BANDS = {"age": [40, 60, 75]}
NAMES = ("<40", "40 to <60", "60 to <75", "≥75")
STANDARD = dict(zip(NAMES, (50, 30, 14, 6)))
REFERENCE = dict(zip(NAMES, (0.04, 0.07, 0.11, 0.15)))
RATE = ("rate", "std_error", "ci_low", "ci_high")
TESTED = ("estimate", "std_error", "statistic", "p_value", "ci_low", "ci_high")


@pytest.fixture(scope="module")
def frame(oracle: Any) -> pl.DataFrame:
    found = oracle.table("incidence")
    assert isinstance(found, pl.DataFrame)
    return found


@pytest.fixture(scope="module")
def r(oracle: Any) -> Any:
    return oracle.numbers("incidence")


def split(frame: pl.DataFrame) -> dict[str, pl.DataFrame]:
    return {str(name): part for (name,), part in frame.partition_by("hospital", as_dict=True).items()}


def ask(frame: pl.DataFrame, rules: Any = "off", **more: Any) -> Simulated:
    return simulate(split(frame), "incidence", {"event": "events", "time": "years", **more}, rules=rules)


def numbers(frame: pl.DataFrame, *columns: str) -> np.ndarray:
    return frame.select(pl.col(columns).cast(pl.Float64).fill_null(np.nan)).to_numpy()


def groups(found: Simulated) -> pl.DataFrame:
    return found["rates"].filter(pl.col("group") != "all")


# ── oracles ──


def test_rates_with_exact_intervals(frame: pl.DataFrame, r: Any, compared: Any) -> None:
    compared(
        method="incidence",
        oracle="R poisson.test",
        what="rates and exact intervals",
        ours=numbers(groups(ask(frame, by="smoking")), "rate", "ci_low", "ci_high"),
        theirs=np.array(r["rates"]),
    )


def test_exact_rate_ratios(frame: pl.DataFrame, r: Any, compared: Any) -> None:
    compared(
        method="incidence",
        oracle="R poisson.test",
        what="rate ratios, exact p and intervals",
        ours=numbers(ask(frame, by="smoking")["rate_ratios"], "estimate", "p_value", "ci_low", "ci_high"),
        theirs=np.array(r["ratios"]),
    )


def test_robust_rates_and_ratios(frame: pl.DataFrame, r: Any, compared: Any) -> None:
    found = ask(frame, by="smoking", interval="robust")
    what = {"method": "incidence", "oracle": "R glm and sandwich HC0"}
    compared(**what, what="robust rates", ours=numbers(groups(found), *RATE), theirs=np.array(r["robust"]))
    ratios = numbers(found["rate_ratios"], *TESTED)
    compared(**what, what="robust rate ratios", ours=ratios, theirs=np.array(r["wald"]))
    cut = {
        "levels": BANDS,
        "over": "age",
        "standard": STANDARD,
    }  # from cells about their own rates, moved to the group's
    again = ask(frame, by="smoking", interval="robust", **cut)
    compared(
        **what, what="robust rates from finer cells", ours=numbers(groups(again), *RATE), theirs=np.array(r["robust"])
    )


def test_standardised_rates(frame: pl.DataFrame, r: Any, compared: Any) -> None:
    asked = {"by": "sex", "over": "age", "levels": BANDS, "standard": STANDARD}
    compared(
        method="incidence",
        oracle="R, formulas of epitools::ageadjust.direct",
        what="direct standardisation, gamma intervals",
        ours=numbers(ask(frame, **asked)["standardised"], *RATE),
        theirs=np.array(r["direct"]),
    )
    compared(
        method="incidence",
        oracle="R, formula of Stukel et al. 1994",
        what="robust standard error of standardised rates",
        ours=numbers(ask(frame, **asked, interval="robust")["standardised"], "std_error")[:, 0],
        theirs=np.array(r["stukel"]),
    )


def test_standardised_incidence_ratios(frame: pl.DataFrame, r: Any, compared: Any) -> None:
    found = ask(frame, by="sex", over="age", levels=BANDS, reference=REFERENCE)["standardised_ratios"]
    compared(
        method="incidence",
        oracle="R poisson.test",
        what="indirect standardisation",
        ours=numbers(found, "expected", "ratio", "ci_low", "ci_high"),
        theirs=np.array(r["indirect"]),
    )


def test_statsmodels_intervals_and_tests(frame: pl.DataFrame, compared: Any) -> None:
    x = frame.group_by("smoking").agg(pl.col("events", "years").sum()).sort("smoking").to_dicts()
    what = {"method": "incidence", "oracle": "statsmodels.stats.rates"}
    for interval, theirs in (("exact", "exact-c"), ("mid_p", "midp-c")):
        limits = [statsmodels_rates.confint_poisson(row["events"], row["years"], method=theirs) for row in x]
        # statsmodels' root search for mid-p limits stops at about 1e-7 of the limit.
        tolerance = 1e-8 if interval == "exact" else 1e-6
        ours = numbers(groups(ask(frame, by="smoking", interval=interval)), "ci_low", "ci_high")
        compared(**what, what=f"rate limits, {theirs}", ours=ours, theirs=np.array(limits), tolerance=tolerance)
    p = [
        statsmodels_rates.test_poisson_2indep(
            row["events"], row["years"], x[0]["events"], x[0]["years"], method="exact-cond", compare="ratio"
        ).pvalue
        for row in x[1:]
    ]
    ours = numbers(ask(frame, by="smoking")["rate_ratios"], "p_value")[:, 0]
    compared(**what, what="p of ratios, exact-cond", ours=ours, theirs=np.array(p))


def test_mid_p_ratios_halve_what_was_seen(frame: pl.DataFrame) -> None:
    """Twice the smaller tail (Rothman, Greenland & Lash 2008, ch. 14), and limits where that tail is 2.5 %."""
    x = frame.group_by("smoking").agg(pl.col("events", "years").sum()).sort("smoking").to_dicts()
    found = ask(frame, by="smoking", interval="mid_p")["rate_ratios"].to_dicts()
    for row, one in zip(found, x[1:], strict=True):
        both = one["events"] + x[0]["events"]

        def above(ratio: float, one: dict[str, Any] = one, both: int = both) -> float:
            odds = ratio * one["years"] / x[0]["years"]
            share = odds / (1 + odds)
            return float(stats.binom.sf(one["events"], both, share) + 0.5 * stats.binom.pmf(one["events"], both, share))

        assert row["p_value"] == pytest.approx(2 * min(above(1.0), 1 - above(1.0)), rel=1e-10)
        assert above(row["ci_low"]) == pytest.approx(0.025, rel=1e-9)
        assert above(row["ci_high"]) == pytest.approx(0.975, rel=1e-9)


def test_person_time_from_entry_and_flags(frame: pl.DataFrame) -> None:
    plain = ask(frame, event="ill")
    late = ask(frame, event="ill", time="exit", entry="entry")
    assert plain["rates"].columns == ["group", "people", "events", "person_time", *RATE]
    np.testing.assert_allclose(numbers(late["rates"], *RATE), numbers(plain["rates"], *RATE), rtol=1e-12)
    assert late.facts["cases"] == frame["ill"].sum()


@given(events=st.integers(0, 400), level=st.sampled_from([0.8, 0.95, 0.99]))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_mid_p_limits_leave_half_the_tail_as_they_say(events: int, level: float) -> None:
    low, high = count_limits(events, level, "mid_p")
    for mean, tail in ((low, (1 - level) / 2), (high, (1 + level) / 2)):
        if mean > 0:
            above = stats.poisson.sf(events, mean) + 0.5 * stats.poisson.pmf(events, mean)
            assert above == pytest.approx(tail, rel=1e-9)
    assert low <= events < high


def test_standard_populations_are_those_of_their_sources() -> None:
    assert sum(STANDARDS["segi"]) == 100
    assert sum(STANDARDS["european_2013"]) == 100
    assert sum(STANDARDS["who_2000_2025"]) == pytest.approx(100.03)  # as printed: its last classes are rounded
    for name, weights in STANDARDS.items():
        assert standard_weights(name, FIVE_YEARS) == list(weights)
        merged = standard_weights(name, [40, 65])
        assert merged is not None
        assert merged == pytest.approx([sum(weights[:8]), sum(weights[8:13]), sum(weights[13:])])
        assert standard_weights(name, [42]) is None


def test_a_built_in_standard_is_that_standard_declared(frame: pl.DataFrame) -> None:
    ours = ask(frame, by="sex", over="age", levels=BANDS, standard="segi")["standardised"]
    weights = standard_weights("segi", BANDS["age"])
    assert weights is not None
    same = ask(frame, by="sex", over="age", levels=BANDS, standard=dict(zip(NAMES, weights)))["standardised"]
    np.testing.assert_allclose(numbers(ours, *RATE), numbers(same, *RATE), rtol=1e-14)


# ── what cannot be asked ──


@pytest.mark.parametrize(
    "wrong",
    [
        {"over": "age", "levels": BANDS},
        {"standard": STANDARD},
        {"over": "age", "levels": BANDS, "standard": {"<40": 1.0}},
        {"over": "age", "levels": BANDS, "standard": dict.fromkeys(NAMES, 0.0)},
        {"over": "age", "levels": BANDS, "standard": {**STANDARD, "<40": -1}},
        {"over": "age", "levels": {"age": [42]}, "standard": "segi"},
        {"over": "sex", "standard": "segi"},
        {"over": "sex", "by": "sex", "standard": {"f": 1, "m": 1}},
        {"by": "years"},
        {"interval": "bayesian"},
        {"per": 0},
    ],
)
def test_questions_that_cannot_be_answered_are_refused(frame: pl.DataFrame, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter):
        ask(frame, **wrong)


def test_values_that_cannot_be_are_refused(frame: pl.DataFrame) -> None:
    with pytest.raises(NotACount, match="negative"):
        ask(frame.with_columns(years=-pl.col("years")))
    with pytest.raises(NotACount, match="not counts"):
        ask(frame.with_columns(events=pl.col("events") + 0.5))
    with pytest.raises(NobodyLeft, match="years"):
        ask(frame.with_columns(years=pl.lit(None, dtype=pl.Float64)))


# ── the gate ──


def few(frame: pl.DataFrame, left: int) -> pl.DataFrame:
    """Events of former smokers taken away but for some people."""
    former = frame.with_row_index("row").filter((pl.col("smoking") == "former") & (pl.col("events") > 0))["row"]
    gone = former.to_list()[left:]
    place = pl.int_range(frame.height)
    return frame.with_columns(events=pl.when(place.is_in(gone)).then(0).otherwise(pl.col("events")))


@pytest.mark.parametrize("left", [0, 3, 9])
def test_a_small_cell_goes_with_its_rate_and_a_second_one(frame: pl.DataFrame, left: int) -> None:
    found = ask(few(frame, left), rules="default", by="smoking")
    rates = found["rates"]
    hidden = rates.filter(pl.col("cases").is_null())
    assert set(hidden["group"]) >= {"former"}
    assert hidden.height == 2, "the total less the others would tell one"
    for column in ("people", "events", "person_time", *RATE):
        assert hidden[column].null_count() == hidden.height
    assert rates.filter(pl.col("group") == "all")["rate"].null_count() == 0
    for table in ("rate_ratios", "rate_differences"):
        gone = found[table].filter(pl.col("term").str.contains("former"))
        assert gone["estimate"].null_count() == gone.height


@given(cases=st.lists(st.integers(0, 40), min_size=2, max_size=7), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_what_is_hidden_does_not_follow_from_the_total(cases: list[int], seed: int) -> None:
    from dure.methods.incidence.cells import Cells
    from dure.methods.incidence.tables import shown_groups

    counts = np.array(cases, dtype=float)[:, None]
    rest = np.random.default_rng(seed).integers(0, 30, counts.shape)
    people = counts + rest
    shown = shown_groups(Cells(people, counts, counts, people, counts, None), 10)
    assert (counts[shown] >= 10).all()
    assert (rest[shown] >= 10).all()
    hidden = ~shown
    if hidden.any() and shown.any():
        assert hidden.sum() > 1
        assert counts[hidden].sum() >= 10
        assert rest[hidden].sum() >= 10


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("without", [0, 1, 9])
def test_who_has_no_event_does_not_follow_from_a_rate(without: int, twice: bool) -> None:
    """Rate times person-time gives the events, and the people less these; where events recur, the cases tell it."""
    group = np.repeat(["high", "low", "middle"], 60)
    event = np.tile([1, 0], 90)
    event[:60] = np.arange(60) >= without
    if twice:
        event *= 2
    frame = pl.DataFrame({"hospital": np.tile(["A", "B", "C"], 60), "event": event, "years": 2.0, "group": group})
    asked = {"event": "event", "time": "years"}
    found = simulate(split(frame), "incidence", {**asked, "by": "group"}, rules="default")
    rates = found["rates"]
    hidden = rates.filter(pl.col("rate").is_null())
    assert "high" in hidden["group"]
    assert hidden.height == 2, "the total less the others would tell one"
    for column in set(rates.columns) - {"group", "withheld"}:
        assert hidden[column].null_count() == hidden.height
    alone = simulate(split(frame.filter(pl.col("group") == "high")), "incidence", asked, rules="default")
    assert alone["rates"]["rate"].to_list() == alone["rates"]["person_time"].to_list() == [None]
    assert alone.facts["cases"] == alone.facts["events"] == "–"
    enough = frame.with_columns(event=pl.when(pl.int_range(frame.height) < 10).then(0).otherwise(pl.col("event")))
    assert (
        simulate(split(enough), "incidence", {**asked, "by": "group"}, rules="default")["rates"]["rate"]
        .is_not_null()
        .all()
    )


def test_a_standard_that_weighs_one_small_cell_tells_nothing(frame: pl.DataFrame) -> None:
    """Its rate would be that cell's, though many stand in the group."""
    young = frame.filter(pl.col("age") < 40)
    rare = frame.with_columns(
        events=pl.when((pl.col("age") < 40) & (pl.int_range(frame.height) > 60)).then(0).otherwise(pl.col("events"))
    )
    assert 0 < rare.filter((pl.col("age") < 40) & (pl.col("events") > 0)).height < 10 < young.height
    only = {**dict.fromkeys(NAMES, 1e-9), "<40": 1.0}
    found = ask(rare, rules="default", over="age", levels=BANDS, standard=only)
    assert found["standardised"]["rate"].to_list() == [None]
    assert any("effectively" in note.en for note in found.notes)
    fair = ask(rare, rules="default", over="age", levels=BANDS, standard=STANDARD)
    assert fair["standardised"]["rate"].null_count() == 0


@pytest.mark.parametrize(
    ("cuts", "standard"),
    [
        ([25, 40, 60, 75, 93], "who_2000_2025"),
        ([21, 22, 40, 94], None),
        (list(range(25, 90, 5)), "segi"),
    ],
)
def test_the_setting_of_a_refusal_passes(frame: pl.DataFrame, cuts: list[int], standard: str | None) -> None:
    labels = [f"<{cuts[0]}", *(f"{a} to <{b}" for a, b in pairwise(cuts)), f"≥{cuts[-1]}"]
    if standard is not None:
        cuts = [cut for cut in cuts if cut <= 85]
    asked: dict[str, Any] = {
        "event": "events",
        "time": "years",
        "by": ["sex", "smoking"],
        "over": "age",
        "levels": {"age": cuts},
        "standard": standard or dict(zip(labels, range(1, 9))),
    }
    told = 0
    for _ in range(4):
        step = Step(name="step", method="incidence", parameters=asked)
        fold = run_frames(split(frame), (step,))[0]["step"].folds[None]
        if fold.released is not None:
            break
        assert isinstance(fold.error, Refused)
        assert fold.error.setting
        asked |= fold.error.setting
        told += 1
    assert fold.released is not None
    assert told
    assert "standardised" in fold.released.tables


# ── ugly people ──


@st.composite
def ugly(draw: st.DrawFn) -> dict[str, pl.DataFrame]:
    n = draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    scale, shares = draw(st.sampled_from([1e-6, 1.0, 1e9])), draw(st.sampled_from([[1, 0, 0, 0], [0.5, 0.3, 0.1, 0.1]]))
    frame = pl.DataFrame(
        {
            "events": random.choice([0.0, 1.0, 3.0, np.nan], n, p=shares),
            "years": scale * random.choice([0.0, 0.5, 2.0, np.nan], n, p=[0.1, 0.4, 0.4, 0.1]),
            "sex": pl.Series(random.choice(["f", "m"], n), dtype=pl.Enum(["f", "m", "x"])),
            "age": random.choice(["old", "young"], n),
        }
    )
    where = random.choice(4, n)
    return {f"h{place}": frame.filter(pl.Series(where == place)) for place in range(4)}


@given(frames=ugly(), interval=st.sampled_from(["exact", "mid_p", "log_normal", "robust"]))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_ugly_people_get_the_pooled_answer_or_an_error_that_says_why(
    frames: dict[str, pl.DataFrame], interval: str
) -> None:
    everyone = pl.concat(frames.values())
    ages = everyone["age"].unique().sort().to_list()
    asked = {"event": "events", "time": "years", "by": "sex", "over": "age", "interval": interval}
    asked["standard"] = dict.fromkeys(ages, 1.0)
    if everyone.fill_nan(None).drop_nulls().height == 0:
        with pytest.raises(DureError):
            simulate(frames, "incidence", asked, rules="off")
        return
    found = simulate(frames, "incidence", asked, rules="off")
    pooled = simulate({"all": everyone}, "incidence", asked, rules="off")
    for name, table in found.tables.items():
        for column, dtype in table.schema.items():
            if dtype.is_float():
                values = table[column].drop_nulls()
                assert values.is_finite().all(), (name, column)
                np.testing.assert_allclose(values, pooled[name][column].drop_nulls(), rtol=1e-8, err_msg=column)
