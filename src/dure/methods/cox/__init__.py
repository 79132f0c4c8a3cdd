"""Cox's proportional hazards model from sums: stratified by hospital at exact times, or global on a guarded grid.

Stratified by hospital (the default), risk sets lie inside a hospital, so gradients and Hessians add. The global model
compares people across hospitals; its risk-set sums add per interval of a declared grid, where enough people have to
leave in every interval. Rounds: one of counts, then Newton steps (4 to 7), and one more for robust errors or the test
of proportional hazards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from dure.errors import NobodyLeft, NotACount, NotConverged, NothingVaries, OneClass, Refused, Separation
from dure.estimation import concordance, newton, people
from dure.estimation.carried import refuse_few, refuse_few_rates, relative
from dure.estimation.remedy import merged_design
from dure.estimation.risk_sets import (
    BLAS,
    OVERFLOWN,
    CoxSums,
    at_risk,
    clustered,
    score_and_information,
    score_residuals,
    sums_at,
)
from dure.language import Words
from dure.methods.cox import on_grid
from dure.methods.cox.answer import result
from dure.methods.cox.counts import compared, counted
from dure.methods.cox.model import CoxRows, Model, forget, fresh, interval_rows, model_of, sorted_rows
from dure.methods.cox.parameters import Parameters
from dure.study.method import HUB, Example, Kept, Law, Question, State
from dure.study.result import Result
from dure.study.rows import Column, Rows
from dure.study.summary import ArraySpec, Declaration, Kind, Summary, Total

RUNS_AWAY = 3
"""Steps that led to relative hazards beyond any number: once may be a far outlier, always is a monotone likelihood."""


class Cox:
    name = "cox"
    title = Words("Cox regression", "콕스 회귀")
    about = Words(
        "Hazard ratios of the Cox model, stratified by hospital or global on a time grid; they equal the pooled fit.",
        "콕스 모형의 위험비. 병원별로 층화하거나 시간 격자 위에서 전체를 비교하며, 자료를 모아 분석한 것과 같습니다.",
    )
    law: Law = "by_hospital"
    parameters = Parameters

    def declare(self, question: Question, state: State) -> Declaration:
        model = model_of(question)
        p, asked = model.columns, model.parameters
        opens = any(factor.column == "site" for factor in model.design.factors)
        opens |= state["phase"] == "final" and asked.cluster == "site"  # what a hospital's people add up to

        def array(name: str, shape: tuple[int, ...], kind: Kind, **more: Any) -> ArraySpec:
            return ArraySpec(name, shape, kind, opens_hospitals=opens, **more)

        if state["phase"] == "counts":
            counts = _declared_counts(model, array)
            return counts if asked.by_hospital else (*counts, *on_grid.declared_counts(model, array))
        behind = {"people": ("people_with_event", "cells", "pairs")}
        if state["phase"] == "final":
            found = [array("meat", (p, p), "moment", **behind)] if asked.robust else []
            if asked.cluster not in (
                None,
                "site",
            ):  # of two, one may be a person alone
                found.append(array("clusters", (), "count", on_small="refuse", labels=("clusters",)))
            if asked.schoenfeld and asked.by_hospital:
                found.append(array("varying_score", (p,), "moment", **behind))
                found += [array(f"varying_{name}", (p, p), "moment", **behind) for name in ("crossed", "squared")]
            if asked.concordance:
                found.append(array("concordance", (3,), "moment", people=("people_with_event",)))
            return tuple(found)
        sums: Declaration = (
            array("log_likelihood", (), "moment", people=("people_with_event",)),
            array("gradient", (p,), "moment", **behind),
            array("hessian", (p, p), "moment", **behind),
        )
        if not asked.by_hospital:
            sums = on_grid.declared_sums(model, array)
        if state["phase"] != "start":
            return sums
        powers = array("powers", (p, 4), "moment", people=("n",), sides=True, labels=model.design.names)
        rates = (array("relative", (2,), "moment", people=("n",)),) if asked.offset else ()
        return (*sums, powers, *rates, *(_declared_compared(model, array) if asked.by_hospital else ()))

    def start(self, question: Question) -> State:
        model_of(question)
        return {"phase": "counts", "round": 0}

    def summarise(self, rows: Rows, question: Question, state: State, kept: Kept) -> tuple[Summary, Kept]:
        model = model_of(question)
        with BLAS.limit(limits=1):  # products of a row are too small to share
            if state["phase"] == "counts":
                return counted(rows, model), {}
            if state["phase"] == "final":
                return _final(rows, model, state), {}
            return _sums(rows, model, state), {}

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        model = model_of(question)
        state = {**state, "round": state["round"] + 1}
        if state["phase"] == "counts":
            found_counts = _after_counts(total, model)
            if weights := model.parameters.weights:
                refuse_few(float(total["sum_w"]), float(total["sum_ww"]), weights, question.minimum_people)
            if model.parameters.offset:
                found_counts["mean_offset"] = float(total["sum_offset"]) / total.count("rows")
            return {**state, **found_counts}
        if state["phase"] == "start" and model.parameters.offset:
            refuse_few_rates(total["relative"], model.parameters.offset, question.minimum_people)
        if state["phase"] == "final":
            meat = total["meat"] if model.parameters.robust else None
            varying = state[HUB].get("varying")
            if "varying_score" in total.arrays:
                varying = [total[f"varying_{name}"] for name in ("score", "crossed", "squared")]
            found = result(model, question, state, meat, tuple(varying) if varying else None)
            if not model.parameters.concordance:
                return found
            agree, disagree, equal = total["concordance"].tolist()
            share = (agree + equal / 2) / (agree + disagree + equal) if agree + disagree + equal else None
            return replace(found, facts={**found.facts, "concordance": share})
        return _step(total, question, model, state)

    def derives(self, question: Question) -> Mapping[str, Column]:
        return {
            "linear": Column("number", label=Words("Log relative hazard", "로그 상대위험")),
            "risk": Column("number", label=Words("Relative hazard", "상대위험")),
        }

    def derive(self, rows: Rows, question: Question, result: Result, kept: Kept) -> Mapping[str, Any]:
        """`linear`: β·(x − pooled mean) and the offset; `risk`: its exponential. NaN where a term is missing."""
        model = model_of(question)
        offset = rows.numbers(model.parameters.offset) if model.parameters.offset else np.zeros(rows.n)
        x, keep = model.design.read(rows, offset)
        centre = np.asarray(result.portable["centre"])
        linear, risk = np.full(rows.n, np.nan), np.full(rows.n, np.nan)
        linear[keep] = np.asarray(result.portable["beta"]) @ (x - centre[:, None]) + offset[keep]
        with np.errstate(over="ignore"):
            risk[keep] = np.exp(linear[keep])
        return {"linear": linear, "risk": np.where(np.isfinite(risk), risk, np.nan)}

    def remedy(self, question: Question, refused: Refused, arrays: Summary) -> dict[str, Any] | None:
        """Coarser levels, fewer terms, and a merged grid: all that is needed, since one refusal names one rule."""
        model, cells = model_of(question), set(refused.cells)
        if cells & {"n", "people_with_event", "compared", "compared_events", "effective", "clusters"}:
            return None
        if "compared" in arrays:  # what stands behind the sums, and no setting brings more
            named = {"n": "compared", "cells": "compared_cells", "pairs": "compared_pairs"}
            arrays = {**arrays, **{name: arrays[other] for name, other in named.items()}}
            refused = _instead(refused, {old.removeprefix("compared_"): mask for old, mask in refused.cells.items()})
        setting: dict[str, Any] = {}
        if not model.parameters.by_hospital and "leaving" in arrays:
            grid = on_grid.merged_grid(model, arrays, question.minimum_people)
            if grid is None:
                return None
            setting = {"grid": grid} if len(grid) < model.shape[1] else {}
        if cells & {"leaving", "interval_events"}:
            if not _small_design(arrays, question.minimum_people):
                return setting or None
            refused = _instead(refused, {"cells": np.zeros(len(arrays["cells"]), dtype=bool)})
        merged = merged_design(model.parameters.formula, question, model.design, refused, arrays)
        return None if merged is None else {**setting, **merged}

    def example(self, random: np.random.Generator) -> Example:
        n = 260
        age, group = random.normal(60, 9, n), random.choice(["a", "b", "c"], n)
        rate = np.exp(0.03 * (age - 60) + 0.6 * (group == "b") - 0.3 * (group == "c")) / 20
        death, censor = random.exponential(1 / rate), random.uniform(0, 50, n)
        frame = pl.DataFrame(
            {
                "time": np.ceil(np.minimum(death, censor)),
                "event": (death <= censor).astype(float),
                "age": age,
                "group": group,
            }
        )
        asked = {"formula": "age + C(group)", "time": "time", "event": "event", "covariance": "robust"}
        asked["schoenfeld"] = "identity"
        return Example(frame, asked, pooled={**asked, "strata": ["site", "ward"]})


def _declared_counts(model: Model, array: Any) -> Declaration:
    return (
        array("n", (), "count", on_small="refuse"),
        array("rows", (), "count"),
        array("people_with_event", (), "count", on_small="refuse", labels=(f"{model.parameters.event} (events)",)),
        array("events", (), "count"),
        *_declared_cells(model, array, "", "n"),
        array("sum_x", (model.columns,), "moment", people=("cells", "pairs")),
        array("sum_w", (), "moment", people=("n",)),
        *((array("sum_ww", (), "moment", people=("n",)),) if model.parameters.weights else ()),
        *((array("sum_offset", (), "moment", people=("n",)),) if model.parameters.offset else ()),
        array("event_time", (), "moment", people=("people_with_event",)),
    )


def _declared_compared(model: Model, array: Any) -> Declaration:
    event = (f"{model.parameters.event} (events with somebody to compare)",)
    return (
        array("compared", (), "count", on_small="refuse"),
        array("compared_events", (), "count", on_small="refuse", labels=event),
        *_declared_cells(model, array, "compared_", "compared"),
    )


def _declared_cells(model: Model, array: Any, prefix: str, whole: str) -> Declaration:
    cells, pairs = model.design.cells(), model.design.pair_names()
    return (
        array(f"{prefix}cells", (cells.size,), "count", whole=whole, on_small="refuse", labels=cells.labels),
        array(f"{prefix}pairs", (len(pairs),), "count", on_small="refuse", labels=pairs),
    )


def _instead(refused: Refused, cells: Mapping[str, object]) -> Refused:
    """The same refusal, of other cells."""
    found = Refused(refused.rule, refused.way_out, refused.way_out)
    found.cells = dict(cells)
    return found


def _small_design(arrays: Summary, minimum: int) -> bool:
    cells, pairs = np.asarray(arrays["cells"]), np.asarray(arrays["pairs"])
    return bool((np.minimum(cells, arrays["n"] - cells) < minimum).any() or (pairs < minimum).any())


def _sums(rows: Rows, model: Model, state: State) -> Summary:
    """What a Newton step needs; with the first one, how columns are spread and who is compared."""
    beta, centre = np.asarray(state["beta"], dtype=np.float64), np.asarray(state["centre"], dtype=np.float64)
    if model.parameters.by_hospital:
        sums = sums_at(sorted_rows(rows, model)[0], beta, model.parameters.ties)
        likelihood = np.array(sums.log_likelihood)
        found: Summary = {"log_likelihood": likelihood, "gradient": sums.gradient, "hessian": sums.hessian}
    else:
        found = on_grid.sums(model, interval_rows(rows, model, centre)[0], beta)
    if state["phase"] == "start":
        x = fresh(rows, model).x
        found["powers"] = people.powers(x, centre)
        read = fresh(rows, model)
        if read.offset is not None:
            found["relative"] = relative(read.offset, state["mean_offset"], read.weights)
        found |= compared(rows, model, x) if model.parameters.by_hospital else {}
        forget(rows)
    return found


def _clusters(data: CoxRows, model: Model) -> Summary:
    if data.cluster is None or model.parameters.cluster == "site":
        return {}
    return {"clusters": np.array(len(np.unique(data.cluster)), dtype=np.int64)}


def _final(rows: Rows, model: Model, state: State) -> Summary:
    """Robust errors and effects that change with time, at the estimate."""
    p, beta = model.parameters, np.asarray(state["beta"], dtype=np.float64)
    if not p.by_hospital:
        on_intervals, data = interval_rows(rows, model, np.asarray(state["centre"]))
        return {"meat": on_grid.meat(on_intervals, beta, state, data.cluster), **_clusters(data, model)}
    sets, data = sorted_rows(rows, model)
    found = _clusters(data, model)
    at = at_risk(sets, beta, p.ties)
    if at is None:
        raise NotConverged(rounds=state["round"])
    if p.robust:
        cluster = None if data.cluster is None else data.cluster[sets.order]
        found["meat"] = clustered(score_residuals(sets, at), cluster)
    if p.schoenfeld:
        g = (np.log(sets.time) if p.schoenfeld == "log" else sets.time) - state["event_mean"]
        found["varying_score"], found["varying_crossed"] = score_and_information(sets, at, g)
        found["varying_squared"] = score_and_information(sets, at, g**2)[1]
    if p.concordance:
        found["concordance"] = concordance.pairs(sets, at.eta)
    return found


def _after_counts(total: Total, model: Model) -> State:
    """What to centre by and where to start; raises NobodyLeft or OneClass."""
    n, events, weight = total.count("n"), total.count("events"), float(total["sum_w"])
    if n == 0:
        p = model.parameters
        named = (p.time, p.event, p.entry, p.weights, p.offset, p.cluster, *p.strata_columns)
        columns = dict.fromkeys(name for name in (*model.design.parsed.columns(), *named) if name)
        raise NobodyLeft(columns=", ".join(columns))
    if events == 0:
        raise OneClass(outcome=model.parameters.event)
    beta = np.zeros(model.columns)
    names = ("leaving_rows", "interval_events", "event_rows", "at_risk")
    counts = {} if model.parameters.by_hospital else {name: total.arrays[name] for name in names}
    timed = {"event_mean": float(total["event_time"]) / events} if model.parameters.schoenfeld else {}
    hub = {"n": n, "rows": total.count("rows"), "events": events, "weight": weight, "counts": counts}
    centre = total["sum_x"] / weight
    return {"phase": "start", "centre": centre, "beta": beta, **timed, HUB: {**hub, "newton": newton.first(len(beta))}}


def _step(total: Total, question: Question, model: Model, state: State) -> State | Result:
    """One Newton step from the total, and what follows it."""
    p, hub, found = model.parameters, state[HUB], None
    sums = CoxSums(float(total["log_likelihood"]), total["gradient"], total["hessian"]) if p.by_hospital else None
    if sums is None:
        events = np.asarray(hub["counts"]["event_rows"])
        sums, found = on_grid.newton_sums(model, total, events, np.asarray(state["beta"]))
    weight = hub["weight"] / hub["rows"]
    first = state["phase"] == "start"
    if first:
        if sums.log_likelihood <= -OVERFLOWN / 2:
            problem = Words(
                "Its values lie so far apart that some relative hazards are no numbers",
                "값이 서로 너무 멀리 떨어져 상대위험을 수로 나타낼 수 없습니다",
            )
            raise NotACount(column=p.offset or p.weights or p.time, role="offset or weights", problem=problem)
        aliased = newton.aliased_columns(sums.hessian, np.asarray(state["centre"]), weight * hub["events"])
        if found is not None:
            aliased |= on_grid.says_nothing(found, sums.hessian)
        if aliased.all():
            raise NothingVaries(terms=", ".join(model.design.names))
        score = float(sums.gradient @ newton.inverse(sums.hessian, ~aliased) @ sums.gradient)
        hub = {**hub, "active": ~aliased, "null": sums.log_likelihood, "score": score}
    active = np.asarray(hub["active"], dtype=bool)
    before = hub["newton"]
    if sums.log_likelihood <= -OVERFLOWN / 2 and before["halved"] == 0:
        hub = {**hub, "overflown": hub.get("overflown", 0) + 1}
        if hub["overflown"] == RUNS_AWAY:
            grown = np.asarray(before["variance"]) > 10 * np.asarray(hub["variance"])
            raise Separation(terms=", ".join(_named(model, grown & active) or _named(model, active)))
    try:
        step = newton.advance(before, sums.gradient, sums.hessian, -2 * sums.log_likelihood, active, weight)
    except newton.Stuck:
        raise Separation(terms=", ".join(_named(model, active))) from None
    if step.separating.any():
        raise Separation(terms=", ".join(_named(model, step.separating)))
    if first:
        hub = {**hub, "variance": step.state["variance"]}
    hub = {**hub, "newton": step.state, "information": sums.hessian, "log_likelihood": sums.log_likelihood}
    after = {**state, "beta": step.state["beta"], HUB: hub}
    settled = step.state["halved"] == 0 and step.state["decrement"] <= p.tolerance**2
    if not (step.converged or settled):
        if state["round"] >= p.rounds:
            raise NotConverged(rounds=p.rounds)
        return {**after, "phase": "newton"}
    if found is not None:
        hub["hazard"] = on_grid.hazards(model, found)
        if p.schoenfeld:
            hub["varying"] = list(on_grid.time_varying(model, total, found, hub["counts"], p.schoenfeld))
    if p.robust or (p.by_hospital and (p.schoenfeld or p.concordance)):
        told = on_grid.tell(found, model.shape) if found is not None else {}
        return {**after, "phase": "final", **told}
    varying = hub.get("varying")
    return result(model, question, after, None, tuple(varying) if varying else None)


def _named(model: Model, chosen: np.ndarray[Any, Any]) -> list[str]:
    return [name for name, picked in zip(model.design.names, chosen) if picked]


method = Cox()
