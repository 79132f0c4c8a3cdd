"""Gradient-boosted trees (Chen & Guestrin 2016) from summed histograms, on bin edges that all hospitals share.

Rounds: counts of ordered bits that give the edges (2 or 3, `dure.estimation.edges`); then one for each level of each
tree, in which hospitals send gradients, Hessians and people by node, column and bin, and are told the splits; and one
that measures the last trees.

No edge needs a minimum or maximum. Every bin, and both sides of every split, hold at least the rules' smallest number
of people. Trees stay in the run, as a model's weights do; released are importance and losses. What cells of few people
show, they show to the hub's process alone, as working totals: at the first tree a cell's gradient and people give the
events in it, and a leaf's value restates the share of events among its people (ten or more).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from dure.errors import NobodyLeft, NothingVaries, OneClass, Refused
from dure.estimation.carried import refuse_few
from dure.estimation.edges import STAGES, Cells, divided_counts, first_counts, single
from dure.estimation.histograms import unit_for
from dure.language import Words
from dure.methods.trees.answer import result_of
from dure.methods.trees.forest import margins, portable_layout, xgboost_features, xgboost_json
from dure.methods.trees.growing import first_tree, grown
from dure.methods.trees.parameters import Parameters, family, inputs
from dure.methods.trees.people import layout_of, people, standing
from dure.study.method import HUB, Example, Kept, Law, Question, State
from dure.study.result import Result
from dure.study.rows import Column, Rows
from dure.study.summary import Array, ArraySpec, Declaration, Summary, Total

__all__ = ["Trees", "method", "xgboost_features", "xgboost_json"]


class Trees:
    name = "trees"
    title = Words("Boosted trees", "부스팅 트리")
    about = Words(
        "Gradient-boosted trees from summed histograms, as XGBoost grows them on pooled data.",
        "히스토그램의 합으로 키우는 그래디언트 부스팅 트리. 자료를 모아 XGBoost로 키운 것과 같습니다.",
    )
    law: Law = "lossless"
    parameters = Parameters

    def start(self, question: Question) -> State:
        inputs(question)
        family(question)
        return {"phase": "edges"}

    def declare(self, question: Question, state: State) -> Declaration:
        p: Parameters = question.parameters
        columns = inputs(question)
        if state["phase"] == "edges":
            return self._first_round(question, columns)
        if state["phase"] == "divide":
            cells = sum(len(part) for part in state["cells"])
            counted = ArraySpec("cells", (cells, 1 << STAGES[state["stage"]]), "count")
            spread = ArraySpec("spread", (), "moment", people=("n",))
            return (counted, *((spread,) if state["stage"] == 1 and family(question) == "gaussian" else ()))
        out = ArraySpec("validated_loss", (), "moment", people=("validated",))
        losses = (ArraySpec("loss", (), "moment", people=("n",)), *((out,) if p.validation else ()))
        if state["phase"] == "measure":
            return losses
        nodes, cells = len(state["compute"]), sum(layout_of(question, state).sizes)
        return (
            ArraySpec("people", (nodes, cells), "count"),
            ArraySpec("gradients", (nodes, cells, 2), "moment", people=("people",)),
            *(losses if state["compute"] == [0] else ()),
        )

    def _first_round(self, question: Question, columns: Mapping[str, Column]) -> Declaration:
        p: Parameters = question.parameters
        numbers = sum(column.kind == "number" for column in columns.values())
        specs = [
            ArraySpec("n", (), "count", on_small="refuse"),
            ArraySpec("first", (numbers, 1 << STAGES[0]), "count"),
        ]
        if family(question) == "binomial":
            labels = (f"{p.outcome} (events)",)
            specs.append(ArraySpec("events", (), "count", whole="n", on_small="refuse", labels=labels))
        else:
            specs.append(ArraySpec("nonzero", (), "count", on_small="refuse", labels=(p.outcome,)))
        behind = "events" if family(question) == "binomial" else "nonzero"
        if p.weights is not None or family(question) == "gaussian":
            specs.append(ArraySpec("outcome", (), "moment", people=(behind,)))
        if p.weights is not None:
            specs += [ArraySpec(name, (), "moment", people=("n",)) for name in ("weight", "weight_squares")]
        if p.validation:
            specs.append(ArraySpec("validated", (), "count", on_small="refuse"))
            if p.weights is not None:
                specs.append(ArraySpec("validated_weight", (), "moment", people=("validated",)))
        return tuple(specs)

    def summarise(self, rows: Rows, question: Question, state: State, kept: Kept) -> tuple[Summary, Kept]:
        p: Parameters = question.parameters
        if state["phase"] in ("grow", "measure"):
            here = standing(rows, question, state)
            found: Summary = {}
            if state["phase"] == "measure" or state["compute"] == [0]:
                found["loss"] = here.loss()
                found |= {"validated_loss": here.held_out_loss()} if p.validation else {}
            if state["phase"] == "grow":
                sums = here.sums(state["compute"])
                found["people"] = np.rint(sums[..., 2]).astype(np.int64)
                found["gradients"] = sums[..., :2]
            return found, {}
        read = people(rows, question)
        numbers = [name for name, column in inputs(question).items() if column.kind == "number"]
        values = [single(rows.numbers(name)[read.train]) for name in numbers]
        values = [column[~np.isnan(column)] for column in values]
        y = read.y[read.train]
        w = np.ones(len(y)) if read.w is None else read.w[read.train]
        if state["phase"] == "divide":
            cells = [np.asarray(part, dtype=np.int64) for part in state["cells"]]
            counted = [divided_counts(column, part, state["stage"]) for column, part in zip(values, cells)]
            found = {"cells": np.concatenate(counted) if counted else np.zeros((0, 1 << STAGES[state["stage"]]), int)}
            if state["stage"] == 1 and family(question) == "gaussian":
                found["spread"] = np.array(w @ (y - state["base"]) ** 2)
            return found, {}
        empty = np.zeros((0, 1 << STAGES[0]), dtype=np.int64)
        found = {
            "n": np.array(len(y), dtype=np.int64),
            "first": np.stack([first_counts(column) for column in values]) if values else empty,
            "events" if family(question) == "binomial" else "nonzero": np.array(np.count_nonzero(y), dtype=np.int64),
        }
        optional: dict[str, Array] = {
            "outcome": np.array(w @ y),
            "weight": np.array(w.sum()),
            "weight_squares": np.array(w @ w),
            "validated": np.array(len(read.held_out), dtype=np.int64),
            "validated_weight": np.array(0.0 if read.w is None else read.w[read.held_out].sum()),
        }
        return found | {
            spec.name: optional[spec.name] for spec in self.declare(question, state) if spec.name in optional
        }, {}

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        p: Parameters = question.parameters
        minimum = max(p.minimum_leaf, question.minimum_people)
        if state["phase"] == "edges":
            return self._begun(total, question)
        if state["phase"] == "divide":
            return self._divided(total, question, state)
        if state["phase"] == "measure" or state["compute"] == [0]:
            hub = dict(state[HUB])
            loss = [float(total["loss"]) / hub["weight"]]
            loss += [float(total["validated_loss"]) / hub["validated_weight"]] if p.validation else []
            hub["losses"] = [*hub["losses"], loss]
            state = {**state, HUB: hub}
            best, last = _best(hub["losses"], p), len(hub["losses"]) - 1
            if state["phase"] == "measure" or (p.patience is not None and last - best >= p.patience):
                return result_of(question, state, best)
        sums = np.concatenate([total["gradients"], total["people"][..., None]], axis=2)
        return grown(state, sums, layout_of(question, state), p, minimum)

    def _begun(self, total: Total, question: Question) -> State:
        p: Parameters = question.parameters
        n = total.count("n")
        validated = total.count("validated") if p.validation else 0
        if not n or (p.validation and not validated):
            raise NobodyLeft(columns=p.outcome)
        if p.weights is not None:
            refuse_few(float(total["weight"]), float(total["weight_squares"]), p.weights, question.minimum_people)
        weight = float(total["weight"]) if p.weights is not None else float(n)
        out_weight = float(total["validated_weight"]) if p.validation and p.weights is not None else float(validated)
        hub: dict[str, Any] = {"n": n, "weight": weight, "validated": validated, "validated_weight": out_weight}
        if family(question) == "binomial":
            hub["events"] = events = total.count("events")
            if events in (0, n):
                raise OneClass(outcome=p.outcome)
            mean = (float(total["outcome"]) if p.weights is not None else events) / weight
            # In single precision, as XGBoost keeps it: the last bits of a sum do not show.
            mean = float(np.clip(np.float32(mean), np.float32(1e-7), np.float32(1 - 1e-7)))
            base = float(np.log(mean) - np.log1p(-mean))
            units = {"gradient": unit_for(weight), "hessian": unit_for(weight), "loss": unit_for(64 * weight)}
        else:
            base, units = float(np.float32(float(total["outcome"]) / weight)), {}
        found = [Cells.first(row) for row in np.asarray(total.arrays["first"])]
        return self._next_cells({"base": base, "units": units, HUB: hub}, found, question, 1)

    def _next_cells(self, state: State, found: list[Cells], question: Question, stage: int) -> State:
        """Ask for cells to be divided; once there are none to divide, the edges, and the first tree."""
        p: Parameters = question.parameters
        least = max(1, question.minimum_people)
        heavy = [cells.heavy(p.bins, least, stage) for cells in found] if stage < len(STAGES) else []
        if sum(len(part) for part in heavy) or (stage == 1 and family(question) == "gaussian"):
            hub = {**state[HUB], "found": [[cells.start, cells.width, cells.people] for cells in found]}
            return {**state, "phase": "divide", "stage": stage, "cells": heavy, HUB: hub}
        edges = [cells.edges(p.bins, least) for cells in found]
        hub = {name: value for name, value in state[HUB].items() if name != "found"}
        told: State = {"base": state["base"], "units": state["units"], HUB: hub}
        told["edges"] = np.concatenate([*edges, np.zeros(0)])
        told["ends"] = np.cumsum([len(part) for part in edges], dtype=np.int64)
        columns = inputs(question)
        if not any(len(part) for part in edges) and all(column.kind == "number" for column in columns.values()):
            raise NothingVaries(terms=", ".join(columns))
        return first_tree(told, p, len(columns))

    def _divided(self, total: Total, question: Question, state: State) -> State:
        stage, start = int(state["stage"]), 0
        counts = np.asarray(total.arrays["cells"])
        found = []
        for raw, part in zip(state[HUB]["found"], state["cells"]):
            cells = Cells(*(np.asarray(array, dtype=np.int64) for array in raw))
            own = counts[start : start + len(part)]
            start += len(part)
            found.append(cells.divided(np.asarray(part, dtype=np.int64), own, stage))
        if stage == 1 and family(question) == "gaussian":
            weight, spread = state[HUB]["weight"], float(total["spread"])
            units = {
                "gradient": unit_for(float(np.sqrt(weight * spread))),
                "hessian": unit_for(weight),
                "loss": unit_for(4 * spread),
            }
            state = {**state, "units": units}
        return self._next_cells(state, found, question, stage + 1)

    def derives(self, question: Question) -> Mapping[str, Column]:
        label = Words("Predicted probability", "예측 확률")
        if family(question) == "gaussian":
            label = Words("Predicted mean", "예측 평균")
        margin = Words("Margin (sum of leaves)", "마진(잎의 합)")
        return {"prediction": Column("number", label=label), "margin": Column("number", label=margin)}

    def derive(self, rows: Rows, question: Question, result: Result, kept: Kept) -> Mapping[str, Any]:
        """For everybody: a missing input follows its learned side."""
        found = result.portable
        layout = portable_layout(found)
        margin = margins(layout, layout.codes(rows), found["trees"], found["base"], rows.n)
        with np.errstate(over="ignore"):
            prediction = 1 / (1 + np.exp(-margin)) if found["family"] == "binomial" else margin
        return {"prediction": prediction, "margin": margin}

    def remedy(self, question: Question, refused: Refused, arrays: Summary) -> dict[str, Any] | None:
        """Without a held-out share, where that was too small."""
        if "validated" in refused.cells:
            return {"validation": 0.0, "patience": None}
        return None

    def example(self, random: np.random.Generator) -> Example:
        n = 240
        age, marker = random.normal(60, 9, n), random.normal(5, 2, n).round(1)
        group = random.choice(["a", "b", "c"], n)
        risk = 0.08 * (age - 60) + 0.3 * (marker - 5) ** 2 - 1 + 0.8 * (group == "b")
        y = (random.random(n) < 1 / (1 + np.exp(-risk))).astype(float)
        marker[random.random(n) < 0.15] = np.nan
        frame = pl.DataFrame({"person_id": np.arange(n), "y": y, "age": age, "marker": marker, "group": group})
        asked = {"outcome": "y", "inputs": ["age", "marker", "group"], "trees": 6, "depth": 3, "bins": 16}
        return Example(frame, {**asked, "learning_rate": 0.3, "validation": 0.25, "subsample": 0.8})


def _best(losses: list[list[float]], p: Parameters) -> int:
    """How many trees to keep: all, or with `patience` those at the lowest validated loss (at least one)."""
    last = len(losses) - 1
    if p.patience is None or last < 1:
        return last
    return 1 + int(np.argmin([loss[1] for loss in losses[1:]]))


method = Trees()
