"""A PyTorch network for a binary outcome, trained across hospitals of which only sums leave: Σ n·Δ of its weights.

Rounds: counts and sums; powers about the pooled mean; `rounds` of training; one that measures the last weights.
Strategies: FedAvg (McMahan et al. 2017), FedProx (Li et al. 2020), FedAdam (Reddi et al. 2021, Algorithm 2); heads
that stay: Arivazhagan et al. 2019 (FedPer). PyTorch is needed where people are, in `summarise`; the hub and
predictions use NumPy. Orders of people and the held-out share are drawn per person, and PyTorch itself draws
nothing and runs on one thread, so that a repeated or resumed run is equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from dure.errors import InvalidParameter, NobodyLeft, OneClass
from dure.estimation.likelihood import BLAS
from dure.estimation.people import powers
from dure.language import Words
from dure.methods.training.network import first_weights, layers, moved, one_thread, pytorch, score, summed_loss, trained
from dure.methods.training.parameters import Parameters
from dure.methods.training.people import inputs, people, raw_inputs
from dure.methods.training.telling import figures, paragraph
from dure.study.method import HUB, Example, Kept, Law, Question, State
from dure.study.result import Result, Table
from dure.study.rows import Column, Rows
from dure.study.summary import ArraySpec, Declaration, Summary, Total

ROUNDS_SHOWN = 20
"""Every loss is a released number, and a study may release only so many."""


class Training:
    name = "training"
    title = Words("Training", "학습")
    about = Words(
        "A neural network (PyTorch) trained over hospitals by averaged steps: FedAvg, FedProx or FedAdam.",
        "병원들의 걸음을 평균해 학습하는 신경망(PyTorch): FedAvg, FedProx, FedAdam.",
    )
    law: Law = "approximate"
    parameters = Parameters

    def declare(self, question: Question, state: State) -> Declaration:
        p: Parameters = question.parameters
        names, cells = inputs(question)
        width = len(names)
        if state["phase"] == "counts":
            held_out = ArraySpec("validated", (), "count", on_small="refuse")
            return (
                ArraySpec("n", (), "count", on_small="refuse"),
                ArraySpec("events", (), "count", whole="n", on_small="refuse", labels=(f"{p.outcome} (events)",)),
                ArraySpec("levels", (len(cells),), "count", whole="n", on_small="refuse", labels=tuple(cells)),
                ArraySpec("nonzero", (width,), "count", on_small="refuse", labels=names),
                ArraySpec("sum_x", (width,), "moment", people=("nonzero",)),
                *((held_out,) if p.validation else ()),
            )
        if state["phase"] == "spread":
            return (ArraySpec("powers", (width, 4), "moment", people=("nonzero",), sides=True, labels=names),)
        validated = ArraySpec("validated_loss", (), "moment", people=("validated",))
        losses = (ArraySpec("loss", (), "moment", people=("n",)), *((validated,) if p.validation else ()))
        if state["phase"] == "measure":
            return losses
        return (*(ArraySpec(layer, shape, "weights", ("n",)) for layer, shape in layers(question).items()), *losses)

    def start(self, question: Question) -> State:
        layers(question)
        return {"phase": "counts"}

    def summarise(self, rows: Rows, question: Question, state: State, kept: Kept) -> tuple[Summary, Kept]:
        torch, p, phase = pytorch(rows.hospital), question.parameters, state["phase"]
        raw = people(rows, question)
        n = len(raw.y)
        if phase == "counts":
            cells = inputs(question)[1].values()
            held_out = {"validated": np.array(len(raw.validated_y), dtype=np.int64)} if p.validation else {}
            return {
                "n": np.array(n, dtype=np.int64),
                "events": np.array(raw.y.sum(), dtype=np.int64),
                "levels": np.array([(raw.x[:, place] == value).sum() for place, value in cells], dtype=np.int64),
                "nonzero": (raw.x != 0).sum(axis=0, dtype=np.int64),
                "sum_x": raw.x.sum(axis=0),
                **held_out,
            }, {}
        if phase == "spread":
            with BLAS.limit(limits=1):
                return {"powers": powers(raw.x.T, state["centre"])}, {}
        moments = np.asarray(state["centre"]).tobytes() + np.asarray(state["scale"]).tobytes()
        data = rows.remember_latest(("standardised", p), moments, lambda: raw.standardised(state, p.dtype))
        # A hospital of one class keeps no head: nothing there tells cases from non-cases.
        personal = p.personal and 0 < raw.y.sum() < n
        own = kept.get("head", first_weights(p, state["weights"][-1:], 1)[0]) if personal else None
        used = state["weights"] if own is None else [*state["weights"][:-1], own]
        summary: Summary = {}
        held: Kept = {} if own is None else {"head": own, "measured": own, "round": state["round"]}
        if own is not None and state["best"] == kept.get("round"):
            held["best"] = kept["measured"]
        elif own is not None and "best" in kept:
            held["best"] = kept["best"]
        with one_thread(torch):
            summary["loss"] = summed_loss(torch, data.x, data.y, used)
            if p.validation:
                summary["validated_loss"] = summed_loss(torch, data.validated_x, data.validated_y, used)
            if phase == "train":
                after, head = trained(torch, data, state["weights"], own, p, state["round"])
                for name, new, old in zip(layers(question), after, state["weights"]):
                    summary[name] = n * (new.astype(np.float64) - old)
                held |= {} if head is None else {"head": head}
        if not all(np.isfinite(array).all() for array in summary.values()):
            problem = Words("Training ran away to weights without bound", "학습이 발산하여 가중치가 한없이 커졌습니다")
            raise InvalidParameter(method=self.name, parameter="learning_rate", problem=problem)
        return summary, held

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        p: Parameters = question.parameters
        if state["phase"] == "counts":
            n, events = total.count("n"), total.count("events")
            validated = total.count("validated") if p.validation else 0
            if n == 0 or (p.validation and validated == 0):
                raise NobodyLeft(columns=", ".join((p.outcome, *p.inputs)))
            if events in (0, n):
                raise OneClass(outcome=p.outcome)
            counts = {"n": n, "events": events, "validated": validated, "losses": []}
            return {"phase": "spread", "centre": total["sum_x"] / n, HUB: counts}
        hub: dict[str, Any] = state[HUB]
        if state["phase"] == "spread":
            deviation = np.sqrt(total["powers"][:, 1] / hub["n"])
            constant = deviation <= 1e-9 * (1 + np.abs(state["centre"]))  # what rounding leaves of no spread
            weights = first_weights(p, [np.empty(shape, p.dtype) for shape in layers(question).values()], 0)
            scale = np.where(constant, 1.0, deviation)
            return {**state, "phase": "train", "scale": scale, "weights": weights, "round": 0, "best": -1}
        losses = [*hub["losses"], [float(total["loss"]) / hub["n"]]]
        if p.validation:
            losses[-1].append(float(total["validated_loss"]) / hub["validated"])
        here, best = int(state["round"]), int(state["best"])
        # Without people to validate on, the last weights are the answer; untrained ones (round 0) never are.
        improved = not p.validation or best < 1 or losses[here][1] < losses[best][1]
        best, found = (here, state["weights"]) if improved else (best, hub["best"])
        if state["phase"] == "measure" or (p.patience is not None and here - best >= p.patience):
            return _result(losses, best, found, question, state)
        steps = (total[name] / hub["n"] for name in layers(question))
        weights, moments = moved(p, state["weights"], steps, hub.get("moments", ()))
        kept_at_hub = {**hub, "losses": losses, "moments": moments, "best": found if p.validation else []}
        phase = "measure" if here + 1 == p.rounds else "train"
        return {**state, "phase": phase, "round": here + 1, "best": best, "weights": weights, HUB: kept_at_hub}

    def derives(self, question: Question) -> Mapping[str, Column]:
        return {"prediction": Column("number", label=Words("Predicted probability", "예측 확률"))}

    def derive(self, rows: Rows, question: Question, result: Result, kept: Kept) -> Mapping[str, Any]:
        """`prediction` by the own head of the best round, or by the shared one; NaN if an input is missing."""
        found, values = result.portable, np.full(rows.n, np.nan)
        own = kept.get("measured" if kept.get("round") == found["round"] else "best")
        used = found["weights"] if own is None else [*found["weights"][:-1], own]
        x, known = raw_inputs(rows, question)
        scaled = ((x[known] - found["centre"]) / found["scale"]).astype(question.parameters.dtype)
        values[known] = np.exp(-np.logaddexp(0.0, -score(scaled, used).astype(np.float64)))
        return {"prediction": values}

    def example(self, random: np.random.Generator) -> Example:
        n = 240
        age, marker = random.normal(60, 9, n), random.normal(5, 2, n)
        group = random.choice(["a", "b", "c"], n)
        risk = 0.08 * (age - 60) + 0.3 * (marker - 5) ** 2 - 1 + 0.8 * (group == "b")
        y = (random.random(n) < 1 / (1 + np.exp(-risk))).astype(float)
        frame = pl.DataFrame({"y": y, "age": age, "marker": marker, "group": group})
        network = {"hidden": [6, 4], "rounds": 8, "batch_size": 32, "strategy": "fedadam", "personal": True}
        asked = {"outcome": "y", "inputs": ["age", "marker", "group"], "validation": 0.25, "patience": 4}
        return Example(frame, {**asked, **network})


def _result(losses: list[list[float]], best: int, weights: list[Any], question: Question, state: State) -> Result:
    p, hub, last = question.parameters, state[HUB], len(losses) - 1
    shown = sorted({*np.linspace(0, last, min(last + 1, ROUNDS_SHOWN)).round().astype(int).tolist(), best})
    names = ("loss", "validated_loss")[: len(losses[0])]
    frame = pl.DataFrame(
        {"round": shown, **{name: [round(losses[r][i], 4) for r in shown] for i, name in enumerate(names)}}
    )
    counted = {"n": hub["n"], "events": hub["events"], **({"validated": hub["validated"]} if p.validation else {})}
    measured = {name: round(losses[best][i], 4) for i, name in enumerate(names)}
    size = {"best_round": best, "last_round": last, "weights": sum(layer.size for layer in weights)}
    notes = [
        Words("The weights stay in the run; no report shows them.", "가중치는 실행 안에만 있고 공개하지 않습니다.")
    ]
    if last < p.rounds:
        notes.append(
            Words(
                f"Stopped after round {last}: {p.patience} rounds without a lower validated loss.",
                f"{last}번째 라운드에서 멈춤: {p.patience}번의 라운드 동안 검증 손실이 낮아지지 않았습니다.",
            )
        )
    told, works = paragraph(p)
    return Result(
        method="training",
        tables={"training": Table(frame, derived=("round",))},
        facts={**counted, **measured, **size},
        people_facts=tuple(counted),
        portable={"centre": state["centre"], "scale": state["scale"], "weights": weights, "round": best},
        notes=tuple(notes),
        figures=figures(),
        paragraph=told,
        references=works,
    )


method = Training()
