"""Cox models from sums against R's survival (stored), statsmodels' PHReg and lifelines, and on ugly data."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from scipy import stats
from scipy.optimize import linprog
from statsmodels.duration.hazard_regression import PHReg

from dure.client.frames import columns_of
from dure.client.simulate import Simulated, run_frames, simulate
from dure.errors import (
    DureError,
    FormulaError,
    InvalidParameter,
    NobodyLeft,
    NotACount,
    NothingVaries,
    OneClass,
    Refused,
    Separation,
    UnknownColumn,
)
from dure.methods.cox import method
from dure.study.method import Question, read_parameters
from dure.study.rows import Rows
from dure.study.spec import Step

GRID = [3, 6, 9, 12, 18, 24]
ASKED = {"formula": "age + sex + stage + marker", "time": "time", "event": "event"}
FINE = {"width": 0.01, "until": 200}
ACROSS = {"strata": None, "grid": GRID}
R = "R survival"
WITHIN_CASES: dict[str, dict[str, Any]] = {
    "efron": {},
    "breslow": {"ties": "breslow"},
    "ward": {"strata": ["site", "ward"]},
    "entry": {"entry": "entry"},
    "entry_ward_breslow": {"entry": "entry", "strata": ["ward", "site"], "ties": "breslow"},
    "weights": {"weights": "weight"},
    "weights_robust": {"entry": "entry", "weights": "weight", "covariance": "robust"},
    "offset": {"offset": "shift"},
    "robust": {"covariance": "robust"},
    "robust_breslow": {"covariance": "robust", "ties": "breslow"},
    "cluster": {"cluster": "cluster"},
}
ACROSS_CASES: dict[str, dict[str, Any]] = {
    "efron": {},
    "breslow": {"ties": "breslow"},
    "ward": {"strata": "ward"},
    "entry": {"entry": "entry"},
    "weights_robust": {"strata": "ward", "entry": "entry", "weights": "weight", "covariance": "robust"},
    "offset": {"offset": "shift"},
    "robust": {"covariance": "robust"},
    "robust_breslow": {"entry": "entry", "covariance": "robust", "ties": "breslow"},
    "cluster": {"cluster": "cluster"},
}


def ask(frame: pl.DataFrame, by: str = "hospital", rules: Any = "off", **asked: Any) -> Simulated:
    """Asked of the hospitals in a column, of one with nobody, under no rules."""
    sites = {str(name[0]): part.drop(by) for name, part in frame.group_by(by, maintain_order=True)}
    return simulate({**sites, "empty": frame.drop(by)[:0]}, "cox", {**ASKED, **asked}, rules=rules)


# ── against R ──


@pytest.mark.parametrize(
    ("kind", "case"),
    [("within", case) for case in WITHIN_CASES] + [("across", case) for case in ACROSS_CASES],
)
def test_coefficients_errors_and_tests_equal_those_of_r(kind: str, case: str, oracle: Any, compared: Any) -> None:
    asked = WITHIN_CASES[case] if kind == "within" else {**ACROSS, **ACROSS_CASES[case]}
    found, theirs = ask(oracle.table("cox"), **asked), oracle.numbers("cox")[kind][case]
    what, table = f"{'by hospital' if kind == 'within' else 'on a grid'}, {case}", found["coefficients"]

    def compare(name: str, ours: Any, other: Any, scale: Any = 0.0) -> None:
        compared(method="cox", oracle=f"{R} coxph", what=f"{name} ({what})", ours=ours, theirs=other, scale=scale)

    compare("coefficients", table["estimate"], theirs["beta"], theirs["std_error"])
    compare("standard errors", table["std_error"], theirs["std_error"])
    likelihoods = [found.facts["log_likelihood_null"], found.facts["log_likelihood"]]
    compare("log-likelihoods", likelihoods, theirs["likelihood"])
    compare("score and Wald tests", [found.facts["score_test"], found.facts["wald"]], [theirs["score"], theirs["wald"]])
    assert found.facts["likelihood_ratio"] == pytest.approx(2 * (likelihoods[1] - likelihoods[0]))
    assert found.facts["score_test_p"] == pytest.approx(stats.chi2.sf(theirs["score"], 5))
    assert found.facts["rounds"] <= 8
    ratios = found["hazard_ratios"]["hazard_ratio"][:4]  # that of a whole unit of the marker is no number
    np.testing.assert_allclose(ratios, np.exp(theirs["beta"][:4]), rtol=1e-9)


@pytest.mark.parametrize(
    ("kind", "transform"),
    [("within", "identity"), ("within", "log"), *(("across", name) for name in ("identity", "log", "km", "rank"))],
)
def test_proportional_hazards_are_tested_as_in_r(kind: str, transform: str, oracle: Any, compared: Any) -> None:
    for case, theirs in oracle.numbers("cox")[f"{kind}_zph"][transform].items():
        asked = WITHIN_CASES[case] if kind == "within" else {**ACROSS, **ACROSS_CASES[case]}
        table = ask(oracle.table("cox"), schoenfeld=transform, **asked)["proportional_hazards"]
        assert table["term"].to_list() == theirs["term"]
        assert table["freedom"].to_list() == theirs["df"]
        for name, other in (("chi2", theirs["chi2"]), ("p_value", theirs["p"])):
            what = f"{name}, transform {transform}, {kind}, {case}"
            compared(method="cox", oracle=f"{R} cox.zph", what=what, ours=table[name], theirs=other)


@pytest.mark.parametrize("case", ["efron", "breslow", "ward", "entry"])
def test_the_baseline_hazard_is_that_of_r(case: str, oracle: Any, compared: Any) -> None:
    people, theirs = oracle.table("cox"), oracle.numbers("cox")["hazards"][case]
    found = ask(people, **{**ACROSS, **ACROSS_CASES[case]})
    beta = found["coefficients"]["estimate"].to_numpy()
    if case == "entry":  # who enters after the grid is not on it
        people = people.filter(pl.col("entry") < GRID[-1])
    flags = [people["sex"] == "m", people["stage"] == "II", people["stage"] == "III"]
    means = [people["age"].mean(), *(flag.mean() for flag in flags), people["marker"].mean()]
    table = found["baseline"]
    names = dict(zip(("ward=north", "ward=south", ""), ("north", "south", "")))
    rows = {
        (name, time): hazard
        for name, time, hazard in zip(
            np.broadcast_to(theirs["strata"], len(theirs["time"])), *(theirs[key] for key in ("time", "hazard"))
        )
    }
    other = np.array([rows[names[row["stratum"]], row["time"]] for row in table.iter_rows(named=True)])
    what = f"cumulative baseline hazard on a grid, {case}"
    compared(method="cox", oracle=f"{R} basehaz", what=what, ours=table["hazard"], theirs=other * np.exp(beta @ means))
    np.testing.assert_allclose(table["survival"], np.exp(-table["hazard"].to_numpy()), rtol=1e-14)
    inside = people.filter(pl.col("grid_event") == 1)
    assert table["events"].sum() == inside.height


@pytest.mark.parametrize("case", WITHIN_CASES)
def test_concordance_is_that_of_r(case: str, oracle: Any, compared: Any) -> None:
    found = ask(oracle.table("cox"), concordance=True, **WITHIN_CASES[case]).facts["concordance"]
    theirs = oracle.numbers("cox")["concordance"][case]
    compared(method="cox", oracle=f"{R} concordance", what=f"concordance, {case}", ours=found, theirs=theirs)


# ── against statsmodels and lifelines ──


def people(seed: int, n: int = 300, hospitals: int = 3, digits: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    x, z, hospital = random.normal(size=n), random.choice(["a", "b"], n), random.integers(0, hospitals, n)
    death, censor = random.exponential(10 / np.exp(0.5 * x - 0.4 * (z == "b"))), random.uniform(0.5, 25, n)
    return pl.DataFrame(
        {
            "hospital": hospital.astype(str),
            "time": np.ceil(np.minimum(death, censor) * 10**digits) / 10**digits,
            "event": (death <= censor).astype(float),
            "x": x,
            "z": z,
            "w": random.uniform(0.5, 2, n),
        }
    )


def phreg(frame: pl.DataFrame, ties: str = "efron", **more: Any) -> Any:
    x = np.column_stack((frame["x"], frame["z"] == "b")).astype(float)
    fitted = PHReg(frame["time"].to_numpy(), x, frame["event"].to_numpy(), ties=ties, **more)
    return fitted.fit(method="newton", maxiter=60, tol=1e-14, disp=0)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("digits", [0, 8])
def test_equals_statsmodels_phreg(ties: str, digits: int, compared: Any) -> None:
    frame = people(3, digits=digits)
    table = ask(frame, formula="x + z", ties=ties)["coefficients"]
    theirs = phreg(frame, ties, strata=frame["hospital"].to_numpy())
    for name, ours, other in (("coefficients", "estimate", theirs.params), ("errors", "std_error", theirs.bse)):
        what = f"{name}, {ties}, {'ties' if digits == 0 else 'hardly a tie'}"
        compared(method="cox", oracle="statsmodels PHReg", what=what, ours=table[ours], theirs=other, scale=theirs.bse)


@pytest.mark.parametrize("robust", [False, True])
def test_equals_lifelines(robust: bool, compared: Any) -> None:
    frame = people(4)
    pooled = frame.select("hospital", "time", "event", "x", z=(pl.col("z") == "b").cast(pl.Float64)).to_pandas()
    fitter = CoxPHFitter().fit(
        pooled, "time", "event", strata=["hospital"], fit_options={"precision": 1e-12, "r_precision": 1e-14}
    )
    asked: dict[str, Any] = {"covariance": "robust"} if robust else {}
    table = ask(frame, formula="x + z", **asked)["coefficients"]
    errors = fitter.standard_errors_.to_numpy()
    compare = {"method": "cox", "oracle": "lifelines CoxPHFitter"}
    compared(**compare, what="coefficients", ours=table["estimate"], theirs=fitter.params_, scale=errors)
    if not robust:  # its robust errors take Breslow's steps whatever the ties
        compared(**compare, what="standard errors", ours=table["std_error"], theirs=errors)


# ── laws ──


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    hospitals=st.integers(1, 7),
    seed=st.integers(0, 99),
    ties=st.sampled_from(["efron", "breslow"]),
    strata=st.sampled_from([None, "z"]),
    schoenfeld=st.sampled_from([None, "km", "rank"]),
)
def test_a_global_model_does_not_depend_on_the_split(
    hospitals: int, seed: int, ties: str, strata: str | None, schoenfeld: str | None
) -> None:
    frame = people(seed, 200, hospitals)
    alone = frame.with_columns(hospital=pl.when(pl.int_range(pl.len()) == 7).then(pl.lit("one")).otherwise("hospital"))
    asked = {"formula": "x + w", "strata": strata, "grid": {"width": 4, "until": 20}, "ties": ties}
    asked |= {"covariance": "robust", "schoenfeld": schoenfeld}
    split = ask(alone, **asked)
    whole = ask(frame.with_columns(hospital=pl.lit("all")), **asked)
    assert split.tables.keys() == whole.tables.keys()
    for name, table in whole.tables.items():
        for column in table.columns:
            if table[column].dtype.is_numeric():
                np.testing.assert_allclose(split[name][column], table[column], rtol=1e-9, atol=1e-11, err_msg=column)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(3, 60),
    hospitals=st.integers(1, 5),
    digits=st.integers(-1, 3),
    ties=st.sampled_from(["efron", "breslow"]),
    scale=st.sampled_from([1e-6, 1.0, 1e9]),
    blank=st.floats(0, 0.3),
    nobody=st.floats(0, 0.4),
)
def test_on_ugly_data_the_answer_is_that_of_the_pooled_model_or_an_error_that_says_why(
    seed: int, n: int, hospitals: int, digits: int, ties: str, scale: float, blank: float, nobody: float
) -> None:
    random = np.random.default_rng(seed)
    frame = people(seed, n, hospitals, digits).with_columns(
        x=pl.Series(np.where(random.random(n) < blank, np.nan, random.normal(size=n) * scale + scale)),
        w=pl.Series((random.random(n) >= nobody).astype(float)),
        copy=pl.lit(2.5),
    )
    used = frame.filter(pl.col("x").is_not_nan() & (pl.col("w") > 0))
    try:
        found = ask(frame, formula="x + z + copy", ties=ties, weights="w", schoenfeld="identity", covariance="robust")
    except (NobodyLeft, OneClass, NothingVaries):
        assert used.height == 0 or used["event"].sum() == 0 or not _varies(used)
        return
    except Separation:
        assert _runs_away(used.with_columns(x=(pl.col("x") - scale) / scale))
        return
    table = found["coefficients"]
    assert table["estimate"][-1] is None
    assert "copy" in found.notes[0].en
    for row in table.iter_rows(named=True):
        assert row["estimate"] is None or np.isfinite([row["estimate"], row["std_error"]]).all()
    if table["estimate"][:2].null_count() or not used["event"].sum():
        return
    scaled = used.with_columns(x=(pl.col("x") - scale) / scale)
    assert not _runs_away(scaled)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = phreg(scaled, ties, strata=scaled["hospital"].to_numpy())
    unit = np.array([1 / scale, 1.0])
    if np.isfinite(theirs.bse).all() and (theirs.bse < 1e3).all():
        plain = ask(frame, formula="x + z", ties=ties, weights="w")["coefficients"]
        np.testing.assert_allclose(plain["std_error"], theirs.bse * unit, rtol=1e-6)
        gap = np.abs(plain["estimate"].to_numpy() - theirs.params * unit) / (theirs.bse * unit)
        assert gap.max() < 1e-6


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(20, 80),
    hospitals=st.integers(1, 6),
    ties=st.sampled_from(["efron", "breslow"]),
    strata=st.sampled_from([None, "ward"]),
    grid=st.lists(st.integers(1, 30), min_size=1, max_size=6, unique=True).map(sorted),
    scale=st.sampled_from([1e-6, 1.0, 1e9]),
)
def test_on_any_grid_the_answer_is_that_of_the_pooled_model_of_rounded_times(
    seed: int, n: int, hospitals: int, ties: str, strata: str | None, grid: list[int], scale: float
) -> None:
    frame = people(seed, n, hospitals, 2)
    frame = frame.with_columns(ward=pl.Series(np.random.default_rng(seed).choice(["north", "south"], n)))
    ends = np.append(grid, grid[-1] + 1).astype(float)
    last = np.searchsorted(grid, frame["time"].to_numpy())
    rounded = frame.with_columns(
        time=pl.Series(ends[last]), event=pl.Series(np.where(last < len(grid), frame["event"], 0.0))
    )
    asked: dict[str, Any] = {"formula": "x + z", "strata": strata, "grid": grid, "ties": ties}
    try:
        found = ask(frame.with_columns(x=pl.col("x") * scale + scale), **asked)["coefficients"]
    except (OneClass, Separation, NothingVaries):
        chosen = rounded.with_columns(hospital=pl.lit("all") if strata is None else pl.col("ward"))
        assert not rounded["event"].sum() or _runs_away(chosen) or not _varies(chosen)
        return
    if found["estimate"].null_count():
        return
    groups = None if strata is None else rounded["ward"].to_numpy()
    theirs = phreg(rounded, ties, strata=groups)
    unit = np.array([1 / scale, 1.0])
    np.testing.assert_allclose(found["std_error"], theirs.bse * unit, rtol=1e-7)
    np.testing.assert_allclose(found["estimate"] / (theirs.bse * unit), theirs.params / theirs.bse, rtol=0, atol=1e-7)


def _at_risk_together(frame: pl.DataFrame) -> list[pl.DataFrame]:
    """The risk set of every event, inside its hospital."""
    events = frame.filter(pl.col("event") == 1)
    return [
        frame.filter((pl.col("hospital") == row["hospital"]) & (pl.col("time") >= row["time"]))
        for row in events.iter_rows(named=True)
    ]


def _varies(frame: pl.DataFrame) -> bool:
    return any(max(risk["x"].n_unique(), risk["z"].n_unique()) > 1 for risk in _at_risk_together(frame))


def _runs_away(frame: pl.DataFrame) -> bool:
    """Whether in some direction everyone with the event comes first of those at risk (a linear programme)."""
    gaps = []
    events = frame.filter(pl.col("event") == 1)
    for row, risk in zip(events.iter_rows(named=True), _at_risk_together(frame)):
        gaps.append(np.column_stack((row["x"] - risk["x"], float(row["z"] == "b") - (risk["z"] == "b"))).astype(float))
    gap = np.concatenate(gaps)
    found = linprog(-gap.sum(axis=0), A_ub=-gap, b_ub=np.zeros(len(gap)), bounds=[(-1, 1)] * 2)
    return bool(found.success and -found.fun > 1e-9)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_small_risk_sets_among_many_late_entries_keep_their_digits(ties: str, compared: Any) -> None:
    """On a calendar scale nearly everybody enters after an early event: sums at risk are small differences."""
    random, n = np.random.default_rng(25), 3000
    frame = people(25, n, 2).with_columns(x=pl.Series(random.normal(size=n) * 2), z=pl.lit("a"))
    start = np.round(random.uniform(0, 3000, n)) + 0.1  # never an event's time: PHReg counts who enters then as at risk
    late = frame.with_columns(entry=pl.Series(start), time=pl.Series(np.floor(start)) + pl.col("time") / 4 + 1)
    table = ask(late, formula="x", entry="entry", ties=ties)["coefficients"]
    x = late["x"].to_numpy()[:, None]
    groups, entry = late["hospital"].to_numpy(), late["entry"].to_numpy()
    model = PHReg(late["time"].to_numpy(), x, late["event"].to_numpy(), ties=ties, strata=groups, entry=entry)
    theirs = model.fit(method="newton", maxiter=60, tol=1e-14, disp=0)
    for name, ours, other in (("coefficients", "estimate", theirs.params), ("errors", "std_error", theirs.bse)):
        what = f"{name}, late entries, {ties}"
        compared(method="cox", oracle="statsmodels PHReg", what=what, ours=table[ours], theirs=other, scale=theirs.bse)


def test_hospital_strata_of_tiny_and_empty_hospitals_change_nothing() -> None:
    frame = people(5, 200, 3)
    extra = frame[:2].with_columns(hospital=pl.Series(["single", "single too"]))
    one, other = ask(frame, formula="x + z"), ask(pl.concat((frame, extra)), formula="x + z")
    np.testing.assert_allclose(one["coefficients"]["estimate"], other["coefficients"]["estimate"], rtol=1e-10)


def test_all_events_at_one_time_and_everybody_an_event() -> None:
    for frame in (
        people(6).with_columns(time=pl.lit(1.0)),
        people(7).with_columns(event=pl.lit(1.0)),
    ):
        table = ask(frame, formula="x + z")["coefficients"]
        theirs = phreg(frame, strata=frame["hospital"].to_numpy())
        np.testing.assert_allclose(table["estimate"], theirs.params, rtol=1e-7)
        np.testing.assert_allclose(table["std_error"], theirs.bse, rtol=1e-7)


def test_a_proportionality_test_that_has_one_time_gives_nothing_rather_than_nonsense() -> None:
    found = ask(people(6).with_columns(time=pl.lit(1.0)), formula="x + z", schoenfeld="identity")
    assert found["proportional_hazards"]["chi2"].null_count() == 3


def test_columns_that_do_not_vary_within_strata_are_left_out() -> None:
    frame = people(8).with_columns(beds=pl.col("hospital").cast(pl.Float64) * 1.1e5 + 0.3)
    found = ask(frame, formula="x + beds + z")
    assert found["coefficients"]["estimate"].is_null().to_list() == [False, True, False]
    assert "beds" in found.notes[0].en
    across = {"strata": "z", "grid": [5, 10, 25], "formula": "x + same"}
    found = ask(frame.with_columns(same=pl.when(pl.col("z") == "a").then(1.3e5).otherwise(2.7)), **across)
    assert found["coefficients"]["estimate"].is_null().to_list() == [False, True]


@pytest.mark.parametrize("asked", [{}, {"strata": None, "grid": [4, 8, 12, 25]}])
def test_a_monotone_likelihood_is_named(asked: dict[str, Any]) -> None:
    only = pl.when(pl.col("event") == 1).then(pl.lit("a")).otherwise(pl.lit("b"))
    with pytest.raises(Separation) as caught:
        ask(people(9).with_columns(z=only), formula="x + z", **asked)
    assert "z[T.b]" in caught.value.text("en")
    assert "x" not in str(caught.value.fields["terms"])


def test_an_order_of_events_that_a_column_tells_is_named() -> None:
    with pytest.raises(Separation) as caught:
        ask(people(10, digits=6).with_columns(x=-pl.col("time")), formula="x + z")
    assert "x" in str(caught.value.fields["terms"])


def test_rows_without_effect() -> None:
    """Weights of zero are nobody; so are rows with a missing value anywhere."""
    frame = people(11)
    more = pl.concat(
        (
            frame.with_columns(w=pl.lit(1.0)),
            frame[:40].with_columns(x=pl.lit(1e6), w=pl.lit(0.0)),
            frame[:5].with_columns(z=pl.lit(None, dtype=pl.String)),
            frame[:5].with_columns(time=pl.lit(None, dtype=pl.Float64)),
        )
    )
    one, other = ask(frame, formula="x + z"), ask(more, formula="x + z", weights="w")
    np.testing.assert_allclose(one["coefficients"]["estimate"], other["coefficients"]["estimate"], rtol=1e-10)
    assert one.facts["n"] == other.facts["n"]


def test_scales_from_a_millionth_to_a_thousand_million() -> None:
    frame = people(12).with_columns(v=pl.Series(np.random.default_rng(0).normal(size=300)))
    plain = ask(frame, formula="x + v")["coefficients"]["estimate"].to_numpy()
    far = frame.with_columns(x=pl.col("x") * 1e9 + 1e12, v=pl.col("v") * 1e-6 + 1e-4)
    for asked in ({}, {"strata": None, "grid": [4, 8, 12, 25]}):
        one = ask(frame, formula="x + v", **asked)["coefficients"]["estimate"].to_numpy()
        other = ask(far, formula="x + v", **asked)["coefficients"]["estimate"].to_numpy()
        np.testing.assert_allclose(other * np.array([1e9, 1e-6]), one, rtol=1e-7)
    assert np.isfinite(plain).all()


@pytest.mark.parametrize(
    ("change", "asked", "error"),
    [
        ({"time": -pl.col("time")}, {}, NotACount),
        ({"event": pl.col("event") + 1}, {}, NotACount),
        ({"event": pl.lit(0.0)}, {}, OneClass),
        ({"x": pl.lit(None, dtype=pl.Float64)}, {}, NobodyLeft),
        ({"x": pl.lit(1.0)}, {"formula": "x"}, NothingVaries),
        ({"w": -pl.col("w")}, {"weights": "w"}, NotACount),
        ({"w": pl.col("time")}, {"entry": "w"}, NotACount),
        ({"w": pl.int_range(pl.len()) * 7.0}, {"offset": "w"}, NotACount),
        ({"w": pl.int_range(pl.len()) * 7.0}, {"offset": "w", "strata": None, "grid": [5, 30]}, NotACount),
        ({"time": pl.col("time") - 1}, {"schoenfeld": "log"}, NotACount),
        ({}, {"strata": None}, InvalidParameter),
        ({}, {"strata": "z"}, InvalidParameter),
        ({}, {"grid": [1, 2]}, InvalidParameter),
        ({}, {"strata": None, "grid": [2, 1]}, InvalidParameter),
        ({}, {"strata": None, "grid": FINE, "formula": "(x + w + z + time + event)**3"}, InvalidParameter),
        ({}, {"schoenfeld": "km"}, InvalidParameter),
        ({}, {"strata": None, "grid": [5, 30], "concordance": True}, InvalidParameter),
        ({}, {"strata": "x", "grid": [5, 30]}, InvalidParameter),
        ({}, {"time": "z"}, InvalidParameter),
        ({}, {"formula": "event ~ x"}, FormulaError),
        ({}, {"formula": "1"}, FormulaError),
        ({}, {"cluster": "nothing"}, UnknownColumn),
        ({}, {"strata": ["site", "nothing"]}, UnknownColumn),
    ],
)
def test_what_cannot_be_answered_says_so_in_both_languages(
    change: dict[str, pl.Expr], asked: dict[str, Any], error: type[DureError]
) -> None:
    with pytest.raises(error) as caught:
        ask(people(13).with_columns(**change), **{"formula": "x + z", **asked})
    assert caught.value.text("ko") != caught.value.text("en")


# ── people with several rows ──


def test_rows_of_one_person_count_once() -> None:
    """Follow-up cut in two rows per person: the same model, the same people, twice the rows."""
    frame = people(14).with_columns(person_id=pl.int_range(pl.len()), entry=pl.lit(0.0))
    frame = frame.filter(pl.col("time") > 2)
    first = frame.with_columns(time=pl.lit(2.0), event=pl.lit(0.0))
    both = pl.concat((first, frame.with_columns(entry=pl.lit(2.0))))
    for asked in ({}, {"strata": None, "grid": [2, 6, 12, 25]}):
        one = ask(frame, formula="x + z", entry="entry", **asked)
        two = ask(both, formula="x + z", entry="entry", **asked)
        np.testing.assert_allclose(two["coefficients"]["estimate"], one["coefficients"]["estimate"], rtol=1e-9)
        np.testing.assert_allclose(two["coefficients"]["std_error"], one["coefficients"]["std_error"], rtol=1e-9)
        assert two.facts["n"] == one.facts["n"]
        assert two.facts["rows"] == 2 * one.facts["rows"]
        assert two.facts["events"] == one.facts["events"]


def test_twelve_rows_of_one_person_are_one_person() -> None:
    frame = people(15, 400).with_columns(person_id=pl.int_range(pl.len()), entry=pl.lit(0.0), z=pl.lit("a"))
    rare = pl.concat([frame[:1]] * 12).with_columns(
        z=pl.lit("b"), entry=pl.int_range(12) * 0.1, time=pl.int_range(12) * 0.1 + 0.1, event=pl.lit(0.0)
    )
    with pytest.raises(Refused) as caught:
        ask(pl.concat((frame, rare)), rules="default", formula="x + z", entry="entry")
    assert caught.value.rule == "minimum_people"
    assert "z=b" in caught.value.text("en")


# ── what stays at the hospital ──


def test_linear_predictor_and_risk_are_centred_at_the_pooled_mean() -> None:
    frame = people(16)
    parts = {str(name[0]): part.drop("hospital") for name, part in frame.group_by("hospital", maintain_order=True)}
    asked = {**ASKED, "formula": "x + z", "offset": "w"}
    outcomes, _ = run_frames(parts, (Step(name="model", method="cox", parameters=asked),))
    working = outcomes["model"].folds[None].working
    assert working is not None
    beta = working.tables["coefficients"].frame["estimate"].to_numpy()
    columns = columns_of(parts)
    name, part = next(iter(parts.items()))
    blank = part.with_columns(x=pl.when(pl.int_range(pl.len()) == 0).then(None).otherwise("x"))
    question = Question(read_parameters(method, asked), columns, tuple(parts))
    derived = method.derive(Rows(blank, name, columns), question, working, {})
    centre = np.array([frame["x"].mean(), (frame["z"] == "b").mean()])
    linear = (np.column_stack((part["x"], part["z"] == "b")) - centre) @ beta + part["w"].to_numpy()
    np.testing.assert_allclose(derived["linear"][1:], linear[1:], rtol=1e-10)
    np.testing.assert_allclose(derived["risk"][1:], np.exp(linear[1:]), rtol=1e-10)
    assert np.isnan(derived["linear"][0])
    assert np.isnan(derived["risk"][0])


# ── the gate ──


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1000),
    rare=st.integers(1, 15),
    width=st.sampled_from([0.2, 0.5, 1.0, 3.0]),
    ties=st.sampled_from(["efron", "breslow"]),
    strata=st.sampled_from([None, "z"]),
    late=st.booleans(),
)
def test_what_a_refusal_names_passes_when_it_is_asked(
    seed: int, rare: int, width: float, ties: str, strata: str | None, late: bool
) -> None:
    random = np.random.default_rng(seed)
    frame = people(seed, 700, 4, 3).with_columns(
        stage=pl.Series(np.r_[["rare"] * rare, random.choice(["I", "II", "III"], 700 - rare)]),
        entry=pl.Series(random.uniform(0, 0.9, 700)) * pl.col("time"),
    )
    asked = {"formula": "x + stage", "strata": strata, "grid": {"width": width, "until": 25}, "ties": ties}
    asked |= {"entry": "entry"} if late else {}
    setting = None
    try:
        ask(frame, rules="default", **asked)
        return
    except Refused as refused:
        setting = refused.setting
    assert setting
    found = ask(frame, rules="default", **{**asked, **setting})
    assert found["baseline"].height
    for table in found.tables.values():
        for name in ("at_risk", "events"):
            if name in table.columns:
                assert all(value is None or value >= 10 for value in table[name])


def test_small_levels_are_refused_with_levels_that_pass() -> None:
    frame = people(17, 600).with_columns(stage=pl.Series(["IV"] * 4 + ["I", "II", "III"] * 198 + ["II", "III"]))
    with pytest.raises(Refused) as caught:
        ask(frame, rules="default", formula="x + stage")
    assert "4" not in caught.value.text("ko")
    assert (
        ask(frame, **{"rules": "default", "formula": "x + stage", **caught.value.setting})["coefficients"].height == 3
    )


@pytest.mark.parametrize("asked", [{}, {"strata": None, "grid": [5, 25]}])
def test_few_events_are_refused(asked: dict[str, Any]) -> None:
    frame = people(18, 600).with_columns(event=(pl.int_range(pl.len()) < 9).cast(pl.Float64))
    with pytest.raises(Refused) as caught:
        ask(frame, rules="default", formula="x", **asked)
    assert caught.value.rule == "minimum_people"
    assert not caught.value.setting


@pytest.mark.parametrize("within", ["pair", "late"])
def test_strata_that_leave_a_few_people_to_compare_are_refused(within: str) -> None:
    """Where nobody else is at risk, an event adds nothing: all sums would stand on the nine others."""
    frame = people(23, 600).with_columns(person=pl.int_range(pl.len()))
    if within == "pair":
        frame = frame.with_columns(own=pl.when(pl.col("person") < 9).then(0).otherwise(pl.col("person")))
        asked: dict[str, Any] = {"strata": ["site", "own"]}
    else:
        late = frame["person"].to_numpy() >= 9
        start = np.where(late, 100.0 + 2 * np.arange(600), 0.0)
        frame = frame.with_columns(entry=pl.Series(start), time=pl.Series(start) + pl.col("time").clip(0.5, 1.0))
        asked = {"entry": "entry"}
    with pytest.raises(Refused) as caught:
        ask(frame, rules="default", formula="x", **asked)
    assert caught.value.rule == "minimum_people"
    assert not caught.value.setting


def test_levels_are_counted_among_those_who_are_compared() -> None:
    frame = people(24, 900).with_columns(person=pl.int_range(pl.len()))
    rare = (pl.col("person") >= 870) & (pl.col("hospital") != "9")
    frame = frame.with_columns(
        stage=pl.when(rare)
        .then(pl.lit("III"))
        .when(pl.col("person") % 2 == 0)
        .then(pl.lit("I"))
        .otherwise(pl.lit("II")),
        own=pl.when(pl.col("person") >= 876).then(pl.col("person")).otherwise(-1),
    )
    asked = {"strata": ["site", "own"], "formula": "x + stage"}
    with pytest.raises(Refused) as caught:
        ask(frame, rules="default", **asked)
    assert "stage=III" in caught.value.text("en")
    assert ask(frame, **{"rules": "default", **asked, **caught.value.setting})["coefficients"].height == 2


def test_too_many_coefficients_for_the_events_are_refused_with_terms_that_pass() -> None:
    frame = people(19, 600).with_columns(
        event=(pl.int_range(pl.len()) < 25).cast(pl.Float64),
        v=pl.Series(np.random.default_rng(1).normal(size=600)),
    )
    with pytest.raises(Refused) as caught:
        ask(frame, rules="default", formula="x + v + z")
    assert caught.value.rule == "parameters_per_event"
    found = ask(frame, **{"rules": "default", "formula": "x + v + z", **caught.value.setting})
    assert found["coefficients"].height == 2


def test_no_sum_at_risk_leaves_before_the_grid_has_passed() -> None:
    frame = people(20, 300)
    sites = {str(name[0]): part.drop("hospital") for name, part in frame.group_by("hospital", maintain_order=True)}
    step = Step(name="step", method="cox", parameters={**ASKED, "formula": "x", "strata": None, "grid": [0.1, 25]})
    outcomes, _ = run_frames(sites, (step,))
    assert outcomes["step"].status == "refused"
    assert not {item.array for item in outcomes["step"].left} & {"s0", "s1", "s2", "e0", "e1", "e2"}


def test_what_a_paper_says_depends_on_parameters_alone() -> None:
    asked = {"formula": "x + z", "cluster": "w", "schoenfeld": "log", "weights": "w", "strata": ["site", "z"]}
    asked |= {"concordance": True}
    one, other = ask(people(21), **asked).result, ask(people(22), **asked).result
    assert one.paragraph == other.paragraph
    assert one.paragraph is not None
    assert len(one.references) == 5
    for place in range(1, 6):
        assert f"[{place}]" in one.paragraph.en
        assert f"[{place}]" in one.paragraph.ko


def test_figures_name_columns_that_are_there() -> None:
    for asked in ({}, {"strata": None, "grid": [5, 10, 25]}):
        found = ask(people(26), formula="x + z", **asked).result
        assert "hazard_ratios" in found.figures
        for figure in found.figures.values():
            columns = found.tables[figure.table].frame.columns
            named = [name for name in (figure.x, figure.y, figure.low, figure.high, figure.group) if name]
            assert set(named) <= set(columns)


def test_inside_one_hospital_the_same_question_is_answered_alone() -> None:
    frame = people(27, 600)
    sites = {str(name[0]): part.drop("hospital") for name, part in frame.group_by("hospital", maintain_order=True)}
    step = Step(name="own", method="cox", parameters={**ASKED, "formula": "x + z"}, scope="each")
    outcomes, _ = run_frames(sites, (step,), grants=frozenset({"per_hospital"}))
    for name, part in frame.group_by("hospital"):
        released = outcomes["own"].folds[str(name[0])].released
        assert released is not None
        theirs = phreg(part)
        np.testing.assert_allclose(released.tables["coefficients"].frame["estimate"], theirs.params, rtol=1e-8)
