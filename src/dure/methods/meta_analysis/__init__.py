"""Meta-analysis over hospitals: of estimates each may show, or from sums of weights where none may be shown.

The estimates are those of an earlier step that ran inside each hospital (`scope: each`), or each hospital's own 2×2
table or difference in means. With `release: false` nothing of the earlier step leaves a hospital, no permit is needed,
and `show: totals` combines the answers from sums. Sums that outnumber what they hide (an estimate and a variance for
each hospital) show single hospitals without naming them; they are declared so and need the permit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dure.errors import InvalidParameter, NoEstimate, NotConverged, Refused
from dure.estimation import random_effects
from dure.language import Words
from dure.methods.meta_analysis.own import effect, haenszel_sums, own_estimate, two_by_twos
from dure.methods.meta_analysis.parameters import Parameters
from dure.methods.meta_analysis.tables import of_estimates, of_totals
from dure.study.method import HUB, DerivesNothing, Example, Kept, Law, Question, State
from dure.study.result import Result
from dure.study.rows import Rows
from dure.study.summary import ArraySpec, Declaration, Summary, Total

FEWEST = 3
"""Hospitals in a sum of estimates, where a rule is on: the alliance's own minimum (rule minimum_hospitals)."""
OPENED = {"DL": 7}
"""Numbers that sums for DerSimonian & Laird open: Σw, Σwθ, Σwθ², Σw²; then Σw, Σwθ, Σwθ² at τ². The others iterate."""


class MetaAnalysis(DerivesNothing):
    name = "meta_analysis"
    title = Words("Meta-analysis", "메타분석")
    about = Words(
        "Fixed and random effects over hospitals' own estimates: heterogeneity, prediction interval, forest plot; "
        "or from sums alone.",
        "병원별 추정값의 고정·무작위 효과, 이질성, 예측구간, 숲그림. 합만으로도 할 수 있음.",
    )
    law: Law = "by_hospital"
    parameters = Parameters

    def declare(self, question: Question, state: State) -> Declaration:
        p: Parameters = question.parameters
        _checked(question)
        if p.by != "site":
            return (ArraySpec("cells", (len(question.column(p.by).levels), 4), "count"),)
        single = (len(question.hospitals),)
        people = ArraySpec("people", (), "count", on_small="refuse", opens_hospitals=_opens(question, state))
        haenszel = (ArraySpec("mantel_haenszel", (5,), "moment", people=("people",)),) if p.haenszel else ()
        if p.show == "hospitals":
            return (
                *(ArraySpec(name, single, "count", per_hospital=True) for name in p.classes),
                ArraySpec("estimate", single, "moment", people=p.classes, per_hospital=True),
                ArraySpec("variance", single, "moment", people=p.classes, per_hospital=True),
                *((people, *haenszel) if haenszel else ()),
            )
        if state["phase"] == "who":
            return people, ArraySpec("hospitals", (), "count"), ArraySpec("left_out", (), "count")
        shape = (len(state["points"]), len(_wanted(p, state)))
        sums = ArraySpec(
            "sums", shape, "moment", people=("people",), opens_hospitals=_opens(question, state, state["hospitals"])
        )
        return (people, sums, *(haenszel if state["phase"] == "sums" else ()))

    def start(self, question: Question) -> State:
        _checked(question)
        return {"phase": "who"} if question.parameters.show == "totals" else {"phase": "hospitals"}

    def summarise(self, rows: Rows, question: Question, state: State, kept: Kept) -> tuple[Summary, Kept]:
        p: Parameters = question.parameters
        if p.by != "site":
            return {"cells": two_by_twos(rows, question, p.by)}, {}
        found = {spec.name: np.zeros(spec.shape, dtype=spec.dtype) for spec in self.declare(question, state)}
        here = question.hospitals.index(rows.hospital)
        own = rows.remember(("own estimate", p.model_dump_json()), lambda: own_estimate(rows, question))
        whole = all(own.people[name] >= max(1, question.minimum_people) for name in p.classes)
        counted = (own.cells >= question.minimum_people).all() and own.cells.any()
        if "mantel_haenszel" in found and counted:
            found["mantel_haenszel"][:] = haenszel_sums(own.cells, p.measure)
        if p.show == "hospitals":
            for name in p.classes:
                found[name][here] = own.people[name]
            if "people" in found:
                found["people"] += own.people["n"] if counted else 0
            found["estimate"][here], found["variance"][here] = own.estimate, own.variance
            return {**found}, {}
        found["people"] += own.people["n"] if whole else 0
        if state["phase"] == "who":
            found["hospitals"] += int(whole)
            found["left_out"] += int(not whole)
        elif whole:
            one, spread = np.array([own.estimate]), np.array([own.variance])
            sums = random_effects.moments(one, spread, np.asarray(state["points"]), state["centre"])
            found["sums"][:] = sums.reshape(len(sums), 9)[:, _wanted(p, state)]
        return {**found}, {}

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        p: Parameters = question.parameters
        if p.show == "totals":
            return _after(total, question, state)
        if p.by != "site":
            return _of_cells(total, question)
        estimate, variance = total["estimate"], total["variance"]
        people = np.where(total.withheld["n"] > 0, -1, total["n"]).astype(np.int64)
        haenszel = total["mantel_haenszel"] if p.haenszel else None
        return of_estimates(
            p, question, question.hospitals, estimate, variance, total.withheld["estimate"] == 0, people, haenszel
        )

    def remedy(
        self, question: Question, refused: Refused, arrays: Mapping[str, NDArray[Any]]
    ) -> dict[str, object] | None:
        """Sums for DerSimonian & Laird show no hospital where there are enough."""
        p: Parameters = question.parameters
        known = int(arrays["hospitals"]) if "hospitals" in arrays else len(question.hospitals)
        if refused.rule != "per_hospital_permit" or p.show != "totals" or p.tau2 == "DL" or OPENED["DL"] >= 2 * known:
            return None
        return {"tau2": "DL"}

    def example(self, random: np.random.Generator) -> Example:
        n = 400
        treated = (random.random(n) < 0.5).astype(float)
        event = (random.random(n) < 0.35 + 0.15 * treated).astype(float)
        asked = {"outcome": "event", "group": "treated", "mantel_haenszel": False}
        return Example(pl.DataFrame({"event": event, "treated": treated}), asked, {**asked, "by": "ward"})


def _checked(question: Question) -> None:
    """Raises UnknownColumn or InvalidParameter for what the question alone tells."""
    p: Parameters = question.parameters
    if p.outcome is None or p.group is None:
        return
    two = [("group", p.group), *([("outcome", p.outcome)] if p.two_by_two else [])]
    for parameter, name in two:
        column = question.column(name)
        if len(column.levels) != 2 or column.kind == "number":
            problem = Words(
                f"'{name}' has to be a 0/1 column or a category of two levels",
                f"'{name}'은(는) 0/1 열이거나 수준이 둘인 범주여야 합니다",
            )
            raise InvalidParameter(method="meta_analysis", parameter=parameter, problem=problem)
    if not p.two_by_two and question.column(p.outcome).kind not in ("number", "flag"):
        problem = Words(f"'{p.outcome}' is not a column of numbers", f"'{p.outcome}'은(는) 숫자 열이 아닙니다")
        raise InvalidParameter(method="meta_analysis", parameter="outcome", problem=problem)
    if p.by != "site" and not question.column(p.by).levels:
        problem = Words(f"'{p.by}' has no levels", f"'{p.by}'에 수준이 없습니다")
        raise InvalidParameter(method="meta_analysis", parameter="by", problem=problem)


def _opens(question: Question, state: State, hospitals: int | None = None) -> bool:
    """Whether the sums of all rounds are at least as many as what they hide: two numbers for each hospital, and four
    where the terms of Mantel & Haenszel are opened too."""
    p: Parameters = question.parameters
    if p.show != "totals":
        return False
    asked = len(question.hospitals)
    known, opened = min(asked, hospitals or state.get("hospitals") or asked), OPENED.get(p.tau2)
    if opened is None or len(state.get("points", [0])) != 1:  # a hub that asks at more points than the method does
        return True
    return bool(opened >= 2 * known or (p.haenszel and opened + 5 >= 4 * known))


def _wanted(p: Parameters, state: State) -> list[int]:
    """Which of the nine sums Σ wᵖ (θ − c)ʲ are asked, row by row: DerSimonian & Laird need the first powers only."""
    if p.tau2 != "DL":
        return list(range(9))
    return [0, 1, 2, 3] if state["phase"] == "sums" else [0, 1, 2]


def _after(total: Total, question: Question, state: State) -> State | Result:
    """The next round of sums, or the Result."""
    p: Parameters = question.parameters
    if state["phase"] == "who":
        known = total.count("hospitals")
        if not known:
            raise NoEstimate()
        if question.minimum_people and known < min(FEWEST, len(question.hospitals)):
            raise Refused(
                "minimum_hospitals",
                Words("Too few hospitals have an estimate to sum.", "합칠 추정값이 있는 병원이 너무 적습니다."),
                Words(
                    "Widen the cohort, use coarser groups, or add hospitals.",
                    "코호트를 넓히거나 집단을 더 굵게 나누거나 병원을 더하십시오.",
                ),
            )
        started = {"meta": random_effects.start(), "left_out": total.count("left_out"), "people": total.count("people")}
        return {"phase": "sums", "hospitals": known, "points": [0.0], "centre": 0.0, HUB: started}
    hub: dict[str, Any] = state[HUB]
    known = int(state["hospitals"])
    opened = np.zeros((len(state["points"]), 9))
    opened[:, _wanted(p, state)] = total["sums"]
    meta = dict(hub["meta"])
    if state["phase"] == "sums" and p.haenszel:
        hub = {**hub, "mantel_haenszel": total["mantel_haenszel"]}
    sums = np.asarray(opened.reshape(-1, 3, 3))
    try:
        done = random_effects.advance(meta, sums, known, p.tau2, p.level, p.profile)
        if not done and p.tau2 == "DL" and meta["zero"] is None:  # the same sums about another centre: nothing to ask
            sums = random_effects.recentred(sums, meta["centre"])
            done = random_effects.advance(meta, sums, known, p.tau2, p.level, p.profile)
    except random_effects.Unsettled:
        raise NotConverged(rounds=int(meta["round"])) from None
    hub = {**hub, "meta": meta}
    if done:
        combined = random_effects.conclude(meta, known, p.interval, p.level)
        return of_totals(p, combined, hub["people"], hub["left_out"], hub.get("mantel_haenszel"))
    points = [float(point) for point in random_effects.points(meta)]
    return {**state, "phase": "more", "points": points, "centre": float(meta["centre"]), HUB: hub}


def _of_cells(total: Total, question: Question) -> Result:
    """The levels of a column in the place of hospitals: 2×2 tables summed over hospitals."""
    p: Parameters = question.parameters
    cells = total["cells"].astype(np.int64)
    found = np.array([effect(row, p.measure) for row in cells]).reshape(-1, 2)
    usable = np.asarray((cells >= max(1, question.minimum_people)).all(axis=1))
    counted = [row for row in cells if row.any() and (row >= question.minimum_people).all()]
    haenszel = np.sum([haenszel_sums(row, p.measure) for row in counted], axis=0) if p.haenszel and counted else None
    names = question.column(p.by).levels
    return of_estimates(p, question, names, found[:, 0], found[:, 1], usable, cells.sum(axis=1), haenszel)


method = MetaAnalysis()
