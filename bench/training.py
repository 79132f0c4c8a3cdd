"""How well strategies and own heads predict at uneven hospitals: held-out log loss and AUROC, as a Markdown table.

    .venv/bin/python bench/training.py [--seeds 10]

Three alliances. `uneven`: six made-up hospitals of 40 to 600 people whose inputs are shifted and whose outcome is
rare here and usual there; 2,000 people of each are held out. `alike`: the same without shifts. `UCI`: the four real
hospitals of UCI Heart Disease (complete cases under the demonstration's cleaning rules), three tenths held out. Every
model has the method's default parameters, and a fifth of the training people to choose the round by; nothing was
tuned. A seed draws people (but UCI's), split, first weights and orders. Intervals are t-intervals over seeds.
"""

from __future__ import annotations

import sys

sys.path.pop(0)  # this folder: its `statistics.py` would pass for the standard library's

import argparse
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import t as student
from sklearn.metrics import log_loss, roc_auc_score

from dure.client.frames import columns_of
from dure.demo.oracle import cleaned
from dure.errors import OneClass
from dure.federation.answer import Desk, answer
from dure.federation.kept import InMemory
from dure.federation.ledger import InMemoryLedger
from dure.federation.local_engine import LocalEngine
from dure.federation.messages import Ask
from dure.federation.plain_sum import PlainSum
from dure.federation.plan import Plan
from dure.federation.rounds import Run
from dure.guard.rules import OFF
from dure.methods.training import method
from dure.study.packing import unpack
from dure.study.permit import Grant
from dure.study.rows import Rows
from dure.study.spec import Step

Frames = dict[str, pl.DataFrame]
Vector = NDArray[np.float64]
ASKED = {"validation": 0.2}
MODELS: dict[str, dict[str, Any]] = {
    "each hospital alone": {},
    "FedAvg": {},
    "FedProx": {"strategy": "fedprox"},
    "FedAdam": {"strategy": "fedadam"},
    "FedAvg, own heads": {"personal": True},
    "FedAdam, own heads": {"strategy": "fedadam", "personal": True},
    "pooled rows": {},
}
SIZES = (600, 300, 200, 120, 80, 40)
LEVELS = (-3.0, -1.8, -0.6, 0.6, 1.8, 3.0)
HELD_OUT = 2000
NON_CASES = 5
"""Held-out cases and non-cases that a hospital needs for its AUROC to count."""


def made(seed: int, uneven: float) -> tuple[Frames, Frames]:
    """Eight inputs; the outcome follows a line, a bend and an interaction. `uneven` 1: from another level at each
    hospital, with other means of the inputs; 0: hospitals differ in size only."""
    random = np.random.default_rng([2026, seed])
    train, test = {}, {}
    levels = random.permutation(LEVELS)  # the rare outcome is not always at the large hospital
    for place, (size, level) in enumerate(zip(SIZES, levels)):
        shift = uneven * random.normal(0, 0.7, 8)
        x = random.normal(size=(size + HELD_OUT, 8)) + shift
        score = 1.2 * x[:, 0] + np.abs(x[:, 1] - shift[1]) * 1.5 - 1.2 + x[:, 2] * x[:, 3] + uneven * level
        y = (random.random(len(x)) < 1 / (1 + np.exp(-score))).astype(float)
        frame = pl.DataFrame({"y": y, **{f"x{i}": x[:, i] for i in range(8)}})
        train[f"h{place}"], test[f"h{place}"] = frame[:size], frame[size:]
    return train, test


def uci(seed: int) -> tuple[Frames, Frames]:
    used = ["age", "sex", "chest_pain", "pressure", "heart_rate", "exercise_angina", "st_depression", "disease"]
    people = cleaned().dropna(subset=used)
    random, train, test = np.random.default_rng([2026, seed]), {}, {}
    for name, part in people.groupby("hospital"):
        frame = pl.from_pandas(part[used].reset_index(drop=True)).rename({"disease": "y"})
        order = random.permutation(frame.height).tolist()
        cut = round(0.7 * frame.height)
        train[str(name)], test[str(name)] = frame[order[:cut]], frame[order[cut:]]
    return train, test


def predictions(train: Frames, test: Frames, more: Mapping[str, Any], seed: int) -> dict[str, Vector]:
    """Hospital → predicted probabilities of its held-out people, by what this alliance of hospitals trained."""
    inputs = [name for name in next(iter(train.values())).columns if name != "y"]
    asked = {"outcome": "y", "inputs": inputs, "seed": seed, **ASKED, **more}
    step = Step(name="train", method="training", parameters=asked)
    both = {**train, **{f"{name} held out": frame for name, frame in test.items()}}
    plan = Plan("bench", (step,), columns_of(both), {"training": method})
    memories = {name: InMemory() for name in train}
    grants: frozenset[Grant] = frozenset(("per_hospital",))

    def rows(name: str, frame: pl.DataFrame) -> Rows:
        return Rows(frame, name, plan.columns, person=np.arange(frame.height, dtype=np.int64))

    def hospital(name: str) -> Any:
        here = rows(name, train[name])
        desk = Desk(name, plan, grants, OFF, lambda: here, memories[name])
        return lambda message: answer(Ask.from_bytes(message), desk)

    engine = LocalEngine({name: hospital(name) for name in train})
    granted = dict.fromkeys(train, grants)
    run = Run("run", plan, tuple(train), granted, OFF, engine, PlainSum(), InMemoryLedger(), cap=False)
    fold = run.steps()["train"].folds[None]
    if fold.working is None:
        assert fold.error is not None
        raise fold.error
    question, found = plan.question(step, tuple(train)), {}
    for name, frame in test.items():
        entry = memories[name].last("run", "train", None) if name in memories else None
        kept = unpack(entry.kept) if entry else {}
        found[name] = method.derive(rows(name, frame), question, fold.working, kept)["prediction"]
    return found


def alone(train: Frames, test: Frames, seed: int) -> dict[str, Vector]:
    """Each hospital's own network; where it has one class only, that class's share, a little drawn to one half."""
    found = {}
    for name, frame in train.items():
        try:
            found |= predictions({name: frame}, {name: test[name]}, {}, seed)
        except OneClass:
            found[name] = np.full(test[name].height, (frame["y"].sum() + 0.5) / (frame.height + 1))
    return found


def measured(test: Frames, predicted: Mapping[str, Vector]) -> tuple[float, float]:
    """Mean over hospitals of the log loss, and of the AUROC where both classes are there to rank."""
    losses, ranks = [], []
    for name, frame in test.items():
        y = frame["y"].to_numpy()
        losses.append(log_loss(y, predicted[name], labels=[0, 1]))
        if min(y.sum(), len(y) - y.sum()) >= NON_CASES:
            ranks.append(roc_auc_score(y, predicted[name]))
    return float(np.mean(losses)), float(np.mean(ranks))


def one(name: str, train: Frames, test: Frames, seed: int) -> tuple[float, float]:
    if name == "each hospital alone":
        return measured(test, alone(train, test, seed))
    if name == "pooled rows":
        return measured(test, predictions({"all": pl.concat(list(train.values()))}, test, {}, seed))
    return measured(test, predictions(train, test, MODELS[name], seed))


def interval(values: Vector, sign: str = "") -> str:
    """Mean and half-width of the 95 % t-interval."""
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():{sign}.3f} ± {half:.3f}"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    arguments.add_argument("--seeds", type=int, default=10)
    seeds, start = arguments.parse_args().seeds, time.perf_counter()
    print("| alliance | model | log loss | less FedAvg's, paired | AUROC |")
    print("|---|---|--:|--:|--:|")
    alliances = {"uneven": partial(made, uneven=1.0), "alike": partial(made, uneven=0.0), "UCI": uci}
    for alliance, draw in alliances.items():
        found = {name: np.empty((seeds, 2)) for name in MODELS}
        for seed in range(seeds):
            train, test = draw(seed)
            for name in MODELS:
                found[name][seed] = one(name, train, test, seed)
        for name, values in found.items():
            less = "" if name == "FedAvg" else interval(values[:, 0] - found["FedAvg"][:, 0], "+")
            print(f"| {alliance} | {name} | {interval(values[:, 0])} | {less} | {interval(values[:, 1])} |", flush=True)
    print(f"\n{seeds} seeds, {time.perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
