"""Incidence: events and person-time by groups, rates with intervals, ratios, and standardised rates.

A rate and its interval together tell the exact events behind them, as the coefficients of a Poisson model do; what is
protected are small cells. A group with fewer people with an event, or without one, than the minimum is shown by nothing
but its name, and where the total would give it away, so is the next smallest. A standardised rate is a Poisson model
with a parameter for each group and age: the people of each cell, the number of cells for its events, and the events
that count effectively (squared rate over variance, Fay & Feuer's shape) have to be enough.

Robust variances allow for people with several events: Σ(x − rate·t)²/T² over people (Stukel et al. 1994).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dure.errors import NobodyLeft, Refused
from dure.estimation.merging import fewer_levels, merged_levels
from dure.language import Words
from dure.methods.incidence import layout
from dure.methods.incidence.cells import cells_of
from dure.methods.incidence.parameters import Parameters
from dure.methods.incidence.tables import result
from dure.study.method import HUB, DerivesNothing, Example, Kept, Law, Question, State
from dure.study.result import Result
from dure.study.rows import Rows
from dure.study.summary import ArraySpec, Declaration, Summary, Total

RESIDUALS = ("squares", "cross", "times")


class Incidence(DerivesNothing):
    name = "incidence"
    title = Words("Incidence", "발생률")
    about = Words(
        "Rates with person-time, exact and robust intervals, rate ratios, and standardised rates.",
        "인시당 발생률, 정확·로버스트 신뢰구간, 발생률비, 표준화 발생률.",
    )
    law: Law = "lossless"
    parameters = Parameters

    def declare(self, question: Question, state: State) -> Declaration:
        p: Parameters = question.parameters
        for name in (p.event, p.time, p.entry):
            if name is not None:
                question.column(name)
        groups, over = layout.groups(question), layout.over(question)
        layout.weights(question)
        size, opens = (len(groups) * len(over),), "site" in p.columns
        named = (*p.columns, p.over) if p.over else p.columns
        labels = tuple(
            " & ".join(f"{name}={level}" for name, level in zip(named, (*group, age)))
            for group in groups
            for age in over
        )
        if state:
            return tuple(
                ArraySpec(name, size, "moment", people=("people",), opens_hospitals=opens) for name in RESIDUALS
            )
        return (
            ArraySpec(
                "people", size, "count", on_small="refuse" if p.over else "suppress", opens_hospitals=opens,
                labels=labels,
            ),
            ArraySpec("cases", size, "count", opens_hospitals=opens),
            ArraySpec("events", size, "count", people=("cases",), opens_hospitals=opens),
            ArraySpec("time", size, "moment", people=("people",), opens_hospitals=opens),
        )  # fmt: skip

    def start(self, question: Question) -> State:
        return {}

    def summarise(self, rows: Rows, question: Question, state: State, kept: Kept) -> tuple[Summary, Kept]:
        cell, events, time = rows.remember(
            ("incidence", repr(question.parameters)), lambda: layout.people(rows, question)
        )
        size = len(layout.groups(question)) * len(layout.over(question))

        def sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.asarray(np.bincount(cell, weights=values, minlength=size), dtype=np.float64)

        if state:
            residual = events - np.asarray(state["rates"])[cell] * time
            return {
                "squares": sums(residual * residual), "cross": sums(residual * time), "times": sums(time * time),
            }, {}  # fmt: skip
        counts = {
            "people": np.bincount(cell, minlength=size),
            "cases": np.bincount(cell[events > 0], minlength=size),
            "events": np.round(sums(events)),
        }
        return {**{name: found.astype(np.int64) for name, found in counts.items()}, "time": sums(time)}, {}

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        p: Parameters = question.parameters
        shape = (len(layout.groups(question)), len(layout.over(question)))
        if state:
            arrays = {name: np.asarray(values) for name, values in state[HUB].items()}
            residuals = tuple(total[name].reshape(shape) for name in RESIDUALS)
            return result(question, cells_of(arrays, np.asarray(state["rates"]), residuals, shape))
        arrays = {name: total[name] for name in ("people", "cases", "events", "time")}
        if not arrays["people"].sum():
            raise NobodyLeft(columns=", ".join(name for name in (p.event, p.time, p.entry, *p.columns, p.over) if name))
        told = (arrays["cases"] >= question.minimum_people) & (arrays["time"] > 0)
        rates = np.divide(arrays["events"], arrays["time"], out=np.zeros(len(told)), where=told)
        if p.interval == "robust":
            # Hospitals take squares about each cell's rate; about nothing where few people stand behind it.
            return {"rates": rates, HUB: arrays}
        return result(question, cells_of(arrays, rates, None, shape))

    def remedy(self, question: Question, refused: Refused, arrays: Mapping[str, Any]) -> dict[str, Any] | None:
        """Coarser levels of `over` (with the standard's weights added up), or rates that are not standardised."""
        p: Parameters = question.parameters
        if p.over is None:
            return None
        plain = {"over": None, "standard": None, "reference": None}
        shape = (len(layout.groups(question)), len(layout.over(question)))
        if "most_parameters" in refused.cells:
            levels = fewer_levels(question, p.over, int(str(refused.cells["most_parameters"])) // shape[0], p.levels)
        elif "people" in refused.cells and "people" in arrays:
            people = np.asarray(arrays["people"]).reshape(shape).T
            levels = merged_levels(question, p.over, people, question.minimum_people, p.levels)
        else:
            return None
        if levels is None or p.reference is not None:
            return plain  # reference rates of merged levels are not known
        if not isinstance(p.standard, dict):
            return {"levels": levels}
        return {"levels": levels, "standard": layout.added(question, p, levels[p.over])}

    def example(self, random: np.random.Generator) -> Example:
        n = 400
        age, sex = random.choice(["under 50", "50 to 69", "70 and over"], n), random.choice(["f", "m"], n)
        time = random.uniform(0.2, 6, n)
        rate = 0.1 * np.where(sex == "m", 1.5, 1.0) * np.where(age == "70 and over", 1.8, 1.0)
        frame = pl.DataFrame({"age": age, "sex": sex, "years": time, "events": random.poisson(rate * time)})
        standard = {"under 50": 70, "50 to 69": 20, "70 and over": 10}
        asked = {"event": "events", "time": "years", "by": "sex", "over": "age", "standard": standard, "per": 100}
        return Example(frame, {**asked, "interval": "robust"})


method = Incidence()
