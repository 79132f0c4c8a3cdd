"""A small neural network for a binary outcome: its layers are averaged over hospitals as sums, while each
hospital's own output head stays in `kept` and never leaves.

Rounds: counts and sums; squares about the pooled mean; `rounds` of training; one that measures the last loss.
Averaging: McMahan et al. 2017 (FedAvg); heads that stay: Arivazhagan et al. 2019 (FedPer). Only the first
weights are random and every gradient is over all rows, so a resumed run repeats bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dure.errors import NobodyLeft, NotAnOutcome, OneClass
from dure.language import Words
from dure.study.method import HUB, Example, Kept, Law, Question, State
from dure.study.result import Result, Table
from dure.study.rows import Column, Rows
from dure.study.summary import ArraySpec, Declaration, Summary, Total

Matrix = NDArray[np.float64]


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    outcome: str = Field(
        description="a 0/1 column, or a category of two levels, the second being the event",
        json_schema_extra={"ko": "0/1 열, 또는 둘째 수준이 사건인 두 수준 범주"},
    )
    inputs: tuple[str, ...] = Field(
        min_length=1,
        description="columns; a category: one input per level",
        json_schema_extra={"ko": "입력 열. 범주는 수준마다 입력 하나"},
    )
    hidden: int = Field(
        8,
        ge=1,
        le=256,
        description="units of the shared hidden layer",
        json_schema_extra={"ko": "공유 은닉층의 단위 수"},
    )
    rounds: int = Field(40, ge=1, le=1000, description="training rounds", json_schema_extra={"ko": "학습 라운드 수"})
    local_epochs: int = Field(
        2,
        ge=1,
        le=50,
        description="full-batch gradient steps at a hospital per round",
        json_schema_extra={"ko": "라운드마다 병원에서 전체 자료로 하는 경사 하강 횟수"},
    )
    learning_rate: float = Field(
        1.0, gt=0, le=10, description="length of a gradient step", json_schema_extra={"ko": "경사 하강 보폭"}
    )
    l2: float = Field(
        0.001,
        ge=0,
        le=1,
        description="penalty on weights; pulls own heads to the shared one",
        json_schema_extra={"ko": "가중치 벌점. 자기 출력층을 공유 출력층으로 당김"},
    )
    personal: bool = Field(
        True,
        description="each hospital trains and keeps an output head of its own",
        json_schema_extra={"ko": "병원마다 자기 출력층을 학습하고 간직함"},
    )
    seed: int = Field(0, ge=0, description="of the initial weights", json_schema_extra={"ko": "처음 가중치의 시드"})

    @model_validator(mode="after")
    def _usable(self) -> Parameters:
        if self.outcome in self.inputs or len(set(self.inputs)) < len(self.inputs):
            raise ValueError("Each input is named once, and the outcome is none of them")
        if "site" in self.inputs:
            raise ValueError("The hospital is no input: `personal` gives each a head of its own")
        if self.learning_rate * self.l2 > 1:
            raise ValueError("learning_rate * l2 is above 1: every step would enlarge the weights")
        return self


class Network:
    name = "network"
    title = Words("Neural network", "신경망")
    about = Words(
        "A small neural network trained by federated averaging; each hospital keeps its own output head.",
        "연합 평균으로 학습하는 작은 신경망. 출력층은 병원마다 따로 두고 내보내지 않습니다.",
    )
    law: Law = "approximate"
    parameters = Parameters

    def declare(self, question: Question, state: State) -> Declaration:
        parameters, phase = question.parameters, state["phase"]
        names, levels = _inputs(question)
        width, labels = len(names), tuple(levels)
        if phase == "counts":
            event = (f"{parameters.outcome} (events)",)
            return (
                ArraySpec("n", (), "count", on_small="refuse"),
                ArraySpec("events", (), "count", whole="n", on_small="refuse", labels=event),
                ArraySpec("levels", (len(levels),), "count", whole="n", on_small="refuse", labels=labels),
                ArraySpec("nonzero", (width,), "count", on_small="refuse", labels=names),
                ArraySpec("sum_x", (width,), "moment", people=("nonzero",)),
            )
        if phase == "spread":
            return (ArraySpec("squares", (width,), "moment", people=("nonzero",)),)
        loss = ArraySpec("loss", (), "moment", people=("n",))
        if phase == "measure":
            return (loss,)
        return (
            ArraySpec("hidden", (width + 1, parameters.hidden), "weights", people=("n",)),
            ArraySpec("shared_head", (parameters.hidden + 1,), "weights", people=("n",)),
            loss,
        )

    def start(self, question: Question) -> State:
        _inputs(question)
        return {"phase": "counts"}

    def summarise(self, rows: Rows, question: Question, state: State, kept: Kept) -> tuple[Summary, Kept]:
        (raw, y, complete), phase = _people(rows, question), state["phase"]
        if phase == "counts":
            levels = [(rows.levels(name)[complete] == i).sum() for name, i in _inputs(question)[1].values()]
            return {
                "n": np.array(len(y), dtype=np.int64),
                "events": np.array(y.sum(), dtype=np.int64),
                "levels": np.array(levels, dtype=np.int64),
                "nonzero": (raw != 0).sum(axis=0, dtype=np.int64),
                "sum_x": raw.sum(axis=0),
            }, {}
        if phase == "spread":
            return {"squares": ((raw - state["centre"]) ** 2).sum(axis=0)}, {}
        x = rows.remember_latest(
            ("standardised", question.parameters),
            np.asarray(state["centre"]).tobytes() + np.asarray(state["scale"]).tobytes(),
            lambda: _standardised(raw, state),
        )
        # A hospital of one class keeps no head: nothing there tells cases from non-cases.
        personal = question.parameters.personal and 0 < y.sum() < len(y)
        own = kept.get("head", _first_weights(question.parameters, raw.shape[1])["own"]) if personal else None
        loss = _loss(x, y, state["hidden"], state["head"] if own is None else own)
        if phase == "measure":
            return {"loss": loss}, kept
        hidden, head, own = _trained(x, y, state["hidden"], state["head"], own, question.parameters)
        n = len(y)
        moved = {"hidden": n * (hidden - state["hidden"]), "shared_head": n * (head - state["head"])}
        return {**moved, "loss": loss}, {} if own is None else {"head": own}

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        parameters: Parameters = question.parameters
        if state["phase"] == "counts":
            n, events = total.count("n"), total.count("events")
            if n == 0:
                raise NobodyLeft(columns=", ".join((parameters.outcome, *parameters.inputs)))
            if events in (0, n):
                raise OneClass(outcome=parameters.outcome)
            return {"phase": "spread", "centre": total["sum_x"] / n, HUB: {"n": n, "events": events, "loss": []}}
        hub = state[HUB]
        n = int(hub["n"])
        if state["phase"] == "spread":
            deviation = np.sqrt(total["squares"] / n)
            constant = deviation <= 1e-9 * (1 + np.abs(state["centre"]))  # what rounding leaves of no spread
            scale = np.where(constant, 1.0, deviation)
            first = _first_weights(parameters, len(scale))
            weights = {"hidden": first["hidden"], "head": first["head"]}
            return {**state, "phase": "train", "scale": scale, **weights}
        losses = [*hub["loss"], float(total["loss"]) / n]
        if state["phase"] == "measure":
            return _result(losses, question, state)
        return {
            **state,
            "phase": "measure" if len(losses) == parameters.rounds else "train",
            "hidden": state["hidden"] + total["hidden"] / n,
            "head": state["head"] + total["shared_head"] / n,
            HUB: {**hub, "loss": losses},
        }

    def derives(self, question: Question) -> Mapping[str, Column]:
        return {"prediction": Column("number", label=Words("Predicted probability", "예측 확률"))}

    def derive(self, rows: Rows, question: Question, result: Result, kept: Kept) -> Mapping[str, Any]:
        """`prediction` by the own head, or by the shared one if none is kept; NaN if an input is missing."""
        x, known = _raw_inputs(rows, question)
        found, values = result.portable, np.full(rows.n, np.nan)
        activations = _activations(_standardised(x[known], found), found["hidden"])
        values[known] = _probability(_score(activations, kept.get("head", found["head"])))
        return {"prediction": values}

    def example(self, random: np.random.Generator) -> Example:
        n = 240
        age, marker = random.normal(60, 9, n), random.normal(5, 2, n)
        group = random.choice(["a", "b", "c"], n)
        score = 0.08 * (age - 60) + 0.3 * (marker - 5) ** 2 - 1 + 0.8 * (group == "b")
        y = (random.random(n) < _probability(score)).astype(float)
        return Example(
            pl.DataFrame({"y": y, "age": age, "marker": marker, "group": group}),
            {"outcome": "y", "inputs": ["age", "marker", "group"], "hidden": 4, "rounds": 10},
        )


# ── the network: arrays in, arrays out ──


def _first_weights(parameters: Parameters, width: int) -> dict[str, Matrix]:
    """Glorot-scaled weights of the seed; the last row of `hidden` and the last entry of a head are biases."""
    random, units = np.random.default_rng(parameters.seed), parameters.hidden
    hidden = random.normal(0, np.sqrt(2 / (width + units)), (width, units))
    heads = [np.append(random.normal(0, np.sqrt(2 / (units + 1)), units), 0.0) for _ in range(2)]
    return {"hidden": np.vstack([hidden, np.zeros(units)]), "head": heads[0], "own": heads[1]}


def _activations(x: Matrix, hidden: Matrix) -> Matrix:
    return np.asarray(np.tanh(x @ hidden[:-1] + hidden[-1]))


def _score(activations: Matrix, head: Matrix) -> Matrix:
    return np.asarray(activations @ head[:-1] + head[-1])


def _probability(score: Matrix) -> Matrix:
    return np.asarray(np.exp(-np.logaddexp(0.0, -score)))


def _loss(x: Matrix, y: Matrix, hidden: Matrix, head: Matrix) -> Matrix:
    """() sum of the log losses, without the penalty."""
    score = _score(_activations(x, hidden), head)
    return np.array(np.logaddexp(0.0, np.where(y == 1, -score, score)).sum())


def _trained(
    x: Matrix, y: Matrix, hidden: Matrix, head: Matrix, own: Matrix | None, parameters: Parameters
) -> tuple[Matrix, Matrix, Matrix | None]:
    """`local_epochs` full-batch steps of (hidden, shared head, own head), from this hospital's people only.

    The hidden layer follows the hospital's own head where there is one; the shared head learns beside it,
    from other first weights, so that its step is not the own head's.
    """
    n, rate, shared = len(y), parameters.learning_rate, head
    shrink = np.append(np.full(len(head) - 1, parameters.l2), 0.0)  # the bias carries the outcome's level
    for _ in range(parameters.local_epochs if n else 0):
        a = _activations(x, hidden)
        error = (_probability(_score(a, head)) - y) / n
        head_step, leading = np.append(error @ a, error.sum()) + shrink * head, head
        if own is not None:
            leading, error = own, (_probability(_score(a, own)) - y) / n
            own = own - rate * (np.append(error @ a, error.sum()) + shrink * (own - shared))
        back = np.outer(error, leading[:-1]) * (1 - a**2)
        hidden_step = np.vstack([x.T @ back + parameters.l2 * hidden[:-1], back.sum(axis=0)])
        hidden, head = hidden - rate * hidden_step, head - rate * head_step
    return hidden, head, own


# ── rows in, arrays out ──


def _inputs(question: Question) -> tuple[tuple[str, ...], dict[str, tuple[str, int]]]:
    """Names of the network's inputs; label → (column, level index) of the levels that they count."""
    question.column(question.parameters.outcome)
    names: list[str] = []
    levels: dict[str, tuple[str, int]] = {}
    for name in question.parameters.inputs:
        column = question.column(name)
        cells = {f"{name}={level}": (name, index) for index, level in enumerate(column.levels)}
        names += list(cells) if column.kind == "category" else [name]
        levels |= {} if column.kind == "number" else cells
    return tuple(names), levels


def _raw_inputs(rows: Rows, question: Question) -> tuple[Matrix, NDArray[np.bool_]]:
    """(n, inputs) as they stand, and which rows have all of them."""
    blocks, known = [], np.ones(rows.n, dtype=bool)
    for name in question.parameters.inputs:
        column = question.column(name)
        if column.kind == "category":
            codes = rows.levels(name)
            blocks.append((codes[:, None] == np.arange(len(column.levels))).astype(np.float64))
            known &= codes >= 0
        else:
            blocks.append(rows.numbers(name)[:, None])
            known &= ~np.isnan(blocks[-1][:, 0])
    return np.concatenate(blocks, axis=1), known


def _outcome(rows: Rows, question: Question) -> Matrix:
    """(n,) 0 and 1, missing as NaN. Raises NotAnOutcome."""
    name, classes = question.parameters.outcome, 2
    if question.column(name).kind == "category":
        codes, classes = rows.levels(name), len(question.column(name).levels)
        y = np.where(codes < 0, np.nan, codes).astype(np.float64)
    else:
        y = rows.numbers(name)
    if classes != 2 or not np.isin(y[~np.isnan(y)], (0, 1)).all():
        problem = Words("It has values other than two classes", "두 가지가 아닌 값이 있습니다")
        hint = Words(
            "Give a 0/1 column or a category of two levels, the second being the event.",
            "0/1 열이나 수준이 둘인 범주를 주십시오. 둘째 수준이 사건입니다.",
        )
        raise NotAnOutcome(column=name, family="network", problem=problem, hint=hint)
    return y


def _people(rows: Rows, question: Question) -> tuple[Matrix, Matrix, NDArray[np.bool_]]:
    """Complete cases, read once per step: raw inputs (n, inputs), outcome (n,), and which rows they are."""

    def build() -> tuple[Matrix, Matrix, NDArray[np.bool_]]:
        (x, known), y = _raw_inputs(rows, question), _outcome(rows, question)
        complete = known & ~np.isnan(y)
        return x[complete], y[complete], complete

    return rows.remember(("network people", question.parameters), build)


def _standardised(x: Matrix, by: Mapping[str, Any]) -> Matrix:
    """Centred and scaled by the moments of all hospitals together: a unit means the same everywhere."""
    return np.asarray((x - by["centre"]) / by["scale"])


def _result(losses: list[float], question: Question, state: State) -> Result:
    table = pl.DataFrame({"round": np.arange(len(losses)), "loss": losses})
    return Result(
        method="network",
        tables={"training": Table(table, derived=("round",))},
        facts={"n": state[HUB]["n"], "events": state[HUB]["events"], "rounds": question.parameters.rounds},
        people_facts=("n", "events"),
        portable={name: state[name] for name in ("centre", "scale", "hidden", "head")},
    )


method = Network()
