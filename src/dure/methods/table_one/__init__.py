"""Table 1: people, missing values, means, medians, levels, and standardised differences, also weighted.

Two rounds: counts and sums; then squares about the means, so that no digits are lost. Medians and quartiles are
searched in the same rounds and a few more (`dure.estimation.quantile_search`). By `site` the columns are single
hospitals, each under the rules of a per-hospital answer. No range is given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from dure.errors import NobodyLeft
from dure.language import Words
from dure.methods.table_one.counting import declare, summarise
from dure.methods.table_one.layout import Layout, Parameters, layout_of
from dure.methods.table_one.tables import result
from dure.study.method import HUB, DerivesNothing, Example, Kept, Law, Question, State
from dure.study.result import Result
from dure.study.rows import Rows
from dure.study.summary import Declaration, Summary, Total


class TableOne(DerivesNothing):
    name = "table_one"
    title = Words("Table 1", "표 1")
    about = Words(
        "Characteristics of the people: means, standard deviations, medians, counts, missing values, differences, "
        "before and after weighting.",
        "대상자 특성: 평균, 표준편차, 중앙값, 수, 결측, 표준화 차이. 가중 전과 후.",
    )
    law: Law = "lossless"
    parameters = Parameters

    def start(self, question: Question) -> State:
        searches = {name: search.start() for name, search in layout_of(question).searches.items()}
        return {"phase": "sums", "searches": searches}

    def declare(self, question: Question, state: State) -> Declaration:
        layout = layout_of(question)
        found = list(declare(layout, state["phase"]))
        for name, search in layout.searches.items():
            found += search.declare(question, state["searches"][name])
        return tuple(found)

    def summarise(self, rows: Rows, question: Question, state: State, kept: Kept) -> tuple[Summary, Kept]:
        layout = layout_of(question)
        found = summarise(layout, rows, question, state)
        for name, search in layout.searches.items():
            found |= search.summarise(rows, question, state["searches"][name])
        return found, {}

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        layout = layout_of(question)
        phase, hub = state["phase"], dict(state.get(HUB, {"arrays": {}, "withheld": {}, "searches": {}}))
        own = [spec.name for spec in declare(layout, phase)]
        hub["arrays"] = {**hub["arrays"], **{name: total[name] for name in own}}
        hub["withheld"] = {
            **hub["withheld"],
            **{name: total.withheld[name] > 0 for name in own if name in total.withheld},
        }
        after: State = {"phase": {"sums": "squares"}.get(phase, "done")}
        if phase == "sums":
            if not total["n"].sum() and not any(total.withheld.get("n", np.zeros(1)).ravel()):
                raise NobodyLeft(columns=", ".join(question.parameters.variables))
            after["means"] = _means(total, "sums", "known")
            if layout.weights:
                after["weighted_means"] = _means(total, "weighted_sums", "weight_known")
            hub["arrays"] |= {name: after[name] for name in ("means", "weighted_means") if name in after}
        after["searches"], hub["searches"] = _searched(layout, total, question, state, hub["searches"])
        unfinished = [name for name, search in layout.searches.items() if not search.finished(after["searches"][name])]
        if after["phase"] == "squares" or unfinished:
            return {**after, HUB: hub}
        medians = {
            name: search.found({**after["searches"][name], HUB: hub["searches"][name]})
            for name, search in layout.searches.items()
        }
        arrays = {name: np.asarray(values, dtype=np.float64) for name, values in hub["arrays"].items()}
        hidden = {name: np.asarray(values, dtype=bool) for name, values in hub["withheld"].items()}
        return result(layout, question, arrays, hidden, medians)

    def example(self, random: np.random.Generator) -> Example:
        n = 150
        age = np.where(random.random(n) < 0.1, np.nan, random.normal(60, 9, n))
        frame = pl.DataFrame(
            {
                "age": pl.Series(age).fill_nan(None),
                "sex": random.choice(["f", "m"], n),
                "arm": random.choice(["a", "b", "c"], n),
                "weight": random.uniform(0.5, 2, n),
            }
        )
        asked = {"variables": ["age", "sex"], "by": "arm", "medians": {"age": 0.5}, "weights": "weight"}
        return Example(frame, asked)


def _means(total: Total, sums: str, weight: str) -> Any:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total[weight] > 0, total[sums] / total[weight], 0.0)


def _searched(
    layout: Layout, total: Total, question: Question, state: State, hub: dict[str, Any]
) -> tuple[dict[str, State], dict[str, Any]]:
    """The searches a round further: what hospitals are told of each, and what stays at the hub."""
    told, held = {}, {}
    for name, search in layout.searches.items():
        now = {**state["searches"][name], **({HUB: hub[name]} if name in hub else {})}
        after = now if search.finished(now) else search.conclude(total, question, now)
        held[name] = after[HUB]
        told[name] = {key: value for key, value in after.items() if key != HUB}
    return told, held


method = TableOne()
