"""Curves, quantiles, restricted means and tests against R's survival, lifelines and scikit-survival.

The grid holds every whole day, so that nothing moves, and times were drawn in whole days: ties are many.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from lifelines import KaplanMeierFitter
from lifelines.statistics import multivariate_logrank_test
from sksurv.compare import compare_survival
from sksurv.nonparametric import kaplan_meier_estimator

from dure.client.simulate import Simulated, simulate

DAYS = {"width": 1, "until": 900}
TIMES = [90, 180, 365]
TRANSFORMS = {"plain": "plain", "log": "log", "log-log": "log-log", "logit": "logit", "arcsine": "arcsin"}


@pytest.fixture(scope="module")
def frame(oracle: Any) -> pl.DataFrame:
    found = oracle.table("survival")
    assert isinstance(found, pl.DataFrame)
    return found


@pytest.fixture(scope="module")
def r(oracle: Any) -> Any:
    return oracle.numbers("survival")


def ask(frame: pl.DataFrame, **more: Any) -> Simulated:
    sites = {str(name): part for (name,), part in frame.partition_by("hospital", as_dict=True).items()}
    asked = {"time": "time", "event": "event", "grid": DAYS, **more}
    return simulate(sites, "survival", asked, rules="off")


def numbers(frame: pl.DataFrame, *columns: str) -> list[np.ndarray]:
    return [frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in columns]


def floats(values: Any) -> np.ndarray:
    return np.array(values, dtype=np.float64)  # R's NA is null, and here NaN


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_the_curve_and_its_limits_on_every_scale(frame: pl.DataFrame, r: Any, compared: Any, transform: str) -> None:
    theirs = r["curves"][TRANSFORMS[transform]]
    ours = ask(frame, transform=transform)["curve"].filter(pl.col("time").is_in(floats(theirs["time"])))
    inside = floats(theirs["survival"]) < 1  # an interval of no width at 1 is not shown
    for column, name in (("survival", "survival"), ("std_error", "error"), ("ci_low", "low"), ("ci_high", "high")):
        compared(
            method="survival",
            oracle="R survival survfit",
            what=f"{column}, conf.type {transform}",
            ours=numbers(ours, column)[0][inside],
            theirs=floats(theirs[name])[inside],
        )


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("times", {}),
        ("entered", {"entry": "entry"}),
        ("weighted", {"weights": "weight", "robust": False}),
    ],
)
def test_survival_at_declared_times(
    frame: pl.DataFrame, r: Any, compared: Any, name: str, more: dict[str, Any]
) -> None:
    ours = ask(frame, group="group", times=TIMES, **more)["at_times"]
    for column, theirs in (("survival", "survival"), ("std_error", "error"), ("ci_low", "low"), ("ci_high", "high")):
        compared(
            method="survival",
            oracle="R survival survfit",
            what=f"{column} at times, {name}",
            ours=numbers(ours, column)[0],
            theirs=floats(r[name][theirs]),
        )
    if name != "weighted":  # R's number at risk is then a sum of weights, ours people
        assert ours["at_risk"].to_list() == [int(n) for n in r[name]["n"]]


@pytest.mark.parametrize("transform", ["log", "log-log", "plain"])
def test_quantiles_with_limits(frame: pl.DataFrame, r: Any, compared: Any, transform: str) -> None:
    shares = [0.1, 0.25, 0.5, 0.75]
    ours = ask(frame, group="group", quantiles=shares, transform=transform)["quantiles"]
    for column, theirs in (("time", "quantile"), ("ci_low", "lower"), ("ci_high", "upper")):
        compared(
            method="survival",
            oracle="R survival quantile.survfit",
            what=f"quantile {column}, conf.type {transform}",
            ours=numbers(ours, column)[0].reshape(3, 4),
            theirs=floats(r["quantiles"][transform][theirs]),
        )


@pytest.mark.parametrize(
    ("name", "more"),
    [("rmst", {}), ("weighted_mean", {"weights": "weight", "robust": False}), ("entered_mean", {"entry": "entry"})],
)
def test_restricted_means(frame: pl.DataFrame, r: Any, compared: Any, name: str, more: dict[str, Any]) -> None:
    ours = ask(frame, group="group", tau=500, **more)["rmst"]
    for column, theirs in (("rmst", "mean"), ("std_error", "error")):
        compared(
            method="survival",
            oracle="R survival print(rmean=)",
            what=f"{column}, {name}",
            ours=numbers(ours, column)[0],
            theirs=floats(r[name][theirs]),
        )


def test_contrasts_of_restricted_means(frame: pl.DataFrame, r: Any, compared: Any) -> None:
    ours = ask(frame, group="group", tau=500)["contrasts"]
    for place, term in enumerate(("b vs a", "c vs a")):
        for measure, theirs in (("rmst_difference", "difference"), ("rmst_ratio", "ratio"), ("rmtl_ratio", "lost")):
            row = ours.filter((pl.col("term") == term) & (pl.col("measure") == measure)).select(
                "estimate", "std_error", "statistic", "p_value", "ci_low", "ci_high"
            )
            compared(
                method="survival",
                oracle="R, formulas of survRM2::rmst2",
                what=f"{measure}, {term}",
                ours=row.to_numpy()[0],
                theirs=floats(r["against"][place][theirs]),
            )


def test_weighted_curves_with_robust_errors(frame: pl.DataFrame, r: Any, compared: Any) -> None:
    found, theirs = ask(frame, weights="weight"), r["robust"]
    ours = found["curve"].filter(pl.col("time").is_in(floats(theirs["time"])))
    inside = floats(theirs["survival"]) < 1
    for column, name in (("survival", "survival"), ("std_error", "error"), ("ci_low", "low"), ("ci_high", "high")):
        compared(
            method="survival",
            oracle="R survival survfit(robust=TRUE)",
            what=f"weighted {column}",
            ours=numbers(ours, column)[0][inside],
            theirs=floats(theirs[name])[inside],
        )
    means = ask(frame, weights="weight", group="group", tau=500)["rmst"]
    compared(
        method="survival",
        oracle="R survival survfit(influence=TRUE)",
        what="robust standard error of a weighted restricted mean",
        ours=numbers(means, "std_error")[0],
        theirs=floats(r["robust_mean"]),
    )


@pytest.mark.parametrize(("name", "more"), [("causes", {}), ("weighted_causes", {"weights": "weight"})])
def test_cumulative_incidence_of_competing_events(
    frame: pl.DataFrame, r: Any, compared: Any, name: str, more: dict[str, Any]
) -> None:
    asked = {"event": "cause", "causes": ["relapse", "death"], "group": "group", "times": TIMES, **more}
    found = ask(frame, **asked)["cumulative_incidence"].filter(pl.col("time").is_in(np.array(TIMES, dtype=float)))
    wide = found.sort("group", "time", pl.col("cause") == "death")
    for column, theirs in (("incidence", "incidence"), ("std_error", "error"), ("ci_low", "low"), ("ci_high", "high")):
        compared(
            method="survival",
            oracle="R survival survfit, several states",
            what=f"{column}, {name}",
            ours=numbers(wide, column)[0].reshape(9, 2),
            theirs=floats(r[name][theirs]),
        )


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("log_rank", {}),
        ("peto", {"rho": 1}),
        ("stratified", {"strata": "stage"}),
        ("two_strata", {"strata": ["stage", "site"]}),
        ("stratified_peto", {"strata": ["stage"], "rho": 0.5}),
    ],
)
def test_log_rank_tests(frame: pl.DataFrame, r: Any, compared: Any, name: str, more: dict[str, Any]) -> None:
    found, theirs = ask(frame, group="group", **more), r[name]
    what = {"method": "survival", "oracle": "R survival survdiff"}
    compared(**what, what=f"χ², {name}", ours=found.facts["log_rank_chi2"], theirs=theirs["chi2"])
    (expected,) = numbers(found["log_rank"], "expected")
    compared(**what, what=f"expected, {name}", ours=expected, theirs=floats(theirs["expected"]))
    if "rho" in more:
        (observed,) = numbers(found["log_rank"], "observed")
        compared(**what, what=f"observed, {name}", ours=observed, theirs=floats(theirs["observed"]))


@pytest.mark.parametrize(
    ("weightings", "more"),
    [
        ("wilcoxon", {"test": "gehan"}),
        ("tarone-ware", {"test": "tarone_ware"}),
        ("fleming-harrington", {"rho": 0.5, "gamma": 1}),
        ("fleming-harrington", {"rho": 0, "gamma": 1}),
    ],
)
def test_weighted_log_rank_tests_of_lifelines(
    frame: pl.DataFrame, compared: Any, weightings: str, more: dict[str, Any]
) -> None:
    if weightings == "wilcoxon" or weightings == "tarone-ware":
        bend = {"weightings": weightings}
    else:
        bend = {"weightings": weightings, "p": more["rho"], "q": more["gamma"]}
    theirs = multivariate_logrank_test(
        frame["time"].to_numpy(), frame["group"].to_numpy(), frame["event"].to_numpy(), **bend
    )
    ours = ask(frame, group="group", **more).facts
    compared(
        method="survival",
        oracle="lifelines multivariate_logrank_test",
        what=f"χ², {more}",
        ours=[ours["log_rank_chi2"], ours["log_rank_p"]],
        theirs=[theirs.test_statistic, theirs.p_value],
    )


def test_scikit_survival_agrees(frame: pl.DataFrame, compared: Any) -> None:
    event, time = frame["event"].to_numpy().astype(bool), frame["time"].to_numpy().astype(float)
    times, survival = kaplan_meier_estimator(event, time)
    ours = ask(frame)["curve"].filter(pl.col("time").is_in(times.tolist()))
    compared(
        method="survival",
        oracle="scikit-survival kaplan_meier_estimator",
        what="survival",
        ours=numbers(ours, "survival")[0],
        theirs=survival,
    )
    outcome = np.array(list(zip(event, time)), dtype=[("event", bool), ("time", float)])
    chi2, p = compare_survival(outcome, frame["group"].to_numpy())
    facts = ask(frame, group="group").facts
    compared(
        method="survival",
        oracle="scikit-survival compare_survival",
        what="log-rank χ² and p",
        ours=[facts["log_rank_chi2"], facts["log_rank_p"]],
        theirs=[chi2, p],
    )


def test_lifelines_agrees_on_delayed_entry_with_weights(frame: pl.DataFrame, compared: Any) -> None:
    theirs = KaplanMeierFitter().fit(
        frame["time"].to_numpy(),
        frame["event"].to_numpy(),
        entry=frame["entry"].to_numpy(),
        weights=np.ceil(frame["weight"].to_numpy()),
    )
    ours = ask(frame.with_columns(pl.col("weight").ceil()), entry="entry", weights="weight", times=TIMES)["at_times"]
    compared(
        method="survival",
        oracle="lifelines KaplanMeierFitter",
        what="weighted survival with delayed entry",
        ours=numbers(ours, "survival")[0],
        theirs=theirs.survival_function_at_times(TIMES).to_numpy(),
    )


def test_the_weighted_log_rank_test_as_its_paper_writes_it(frame: pl.DataFrame, compared: Any) -> None:
    """Xie & Liu 2005, formulas (5) to (7), time by time, for two groups."""
    two = frame.filter(pl.col("group") != "c")
    time, event = two["time"].to_numpy(), two["event"].to_numpy() == 1
    first, w = two["group"].to_numpy() == "a", two["weight"].to_numpy()
    gap = variance = 0.0
    for t in np.unique(time[event]):
        risk, dead = time >= t, (time == t) & event
        n, d = risk.sum(), dead.sum()
        y, y1 = w[risk].sum(), w[risk & first].sum()
        gap += w[dead & first].sum() - w[dead].sum() * y1 / y
        if n > 1:
            spread = ((y - y1) / y) ** 2 * (w[risk & first] ** 2).sum() + (y1 / y) ** 2 * (w[risk & ~first] ** 2).sum()
            variance += d * (n - d) / (n * (n - 1)) * spread
    compared(
        method="survival",
        oracle="Xie & Liu 2005, person by person",
        what="weighted log-rank χ²",
        ours=ask(two, group="group", weights="weight").facts["log_rank_chi2"],
        theirs=gap**2 / variance,
    )
