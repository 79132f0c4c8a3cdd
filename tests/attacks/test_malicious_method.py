"""A method that tries to carry more than it declared is stopped at the gate, before anything leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import BaseModel

from dure.client.simulate import run_frames
from dure.errors import Refused
from dure.guard.rules import DEFAULT
from dure.language import Words
from dure.study.method import DerivesNothing, Example, Kept, Law, Question, State
from dure.study.packing import unpack
from dure.study.result import Result
from dure.study.rows import Rows
from dure.study.spec import Step
from dure.study.summary import ArraySpec, Declaration, Summary, Total

Trick = Callable[[Rows, Question], Summary]


class Nothing(BaseModel):
    pass


class Malicious(DerivesNothing):
    name = "malicious"
    title = Words("Malicious", "악의적")
    about = Words("Sends what it should not.", "보내지 말아야 할 것을 보냄.")
    law: Law = "lossless"
    parameters = Nothing

    def __init__(self, trick: Trick) -> None:
        self.trick = trick

    def declare(self, question: Question, state: State) -> Declaration:
        hospitals = len(question.hospitals)
        return (
            ArraySpec("n", (), "count"),
            ArraySpec("sums", (2,), "moment", people=("n",)),
            ArraySpec("own", (hospitals,), "count", per_hospital=True),
        )

    def start(self, question: Question) -> State:
        return {}

    def summarise(self, rows: Rows, question: Question, state: State, kept: Kept) -> tuple[Summary, Kept]:
        honest = np.zeros(len(question.hospitals), dtype=np.int64)
        honest[question.hospitals.index(rows.hospital)] = rows.n
        good: Summary = {"n": np.array(rows.n), "sums": np.zeros(2), "own": honest}
        return {**good, **self.trick(rows, question)}, {}

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        return Result("malicious", facts={"n": total.count("n")})

    def example(self, random: np.random.Generator) -> Example:
        return Example(pl.DataFrame({"x": [1.0]}), {})


class Recorder:
    """Every byte that left a hospital."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def __call__(self, answerer: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
        def answer(message: bytes) -> bytes:
            reply = answerer(message)
            self.sent.append(reply)
            return reply

        return answer


def play(trick: Trick, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[Mapping[str, Any]]]:
    import dure.client.simulate as module

    recorder, answerer = Recorder(), module._answerer
    monkeypatch.setattr(module, "_answerer", lambda desk: recorder(answerer(desk)))
    frames = {name: pl.DataFrame({"x": np.arange(30.0)}) for name in "abc"}
    outcomes, _ = run_frames(
        frames, (Step(name="s", method="malicious"),), DEFAULT, methods={"malicious": Malicious(trick)}
    )
    return outcomes["s"].folds[None], [unpack(reply) for reply in recorder.sent]


def test_the_honest_version_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    fold, _ = play(lambda rows, question: {}, monkeypatch)
    assert fold.status == "finished"
    assert fold.released.facts["n"] == 90


def everybody(rows: Rows, question: Question) -> Summary:
    return {"own": np.full(len(question.hospitals), rows.n)}


def somebody_else(rows: Rows, question: Question) -> Summary:
    return {"own": np.roll(np.eye(len(question.hospitals), dtype=np.int64)[0] * 30, 1)}


TRICKS: dict[str, Trick] = {
    "an undeclared array": lambda rows, question: {"rows": rows.numbers("x")},
    "a companion of its own": lambda rows, question: {"own.withheld": np.zeros(3, dtype=np.int64)},
    "a longer array": lambda rows, question: {"sums": rows.numbers("x")},
    "a matrix": lambda rows, question: {"sums": np.zeros((2, 1))},
    "a scalar": lambda rows, question: {"sums": np.array(1.0)},
    "NaN": lambda rows, question: {"sums": np.array([np.nan, 0.0])},
    "infinity": lambda rows, question: {"sums": np.array([np.inf, 0.0])},
    "a negative count": lambda rows, question: {"n": np.array(-5)},
    "a fractional count": lambda rows, question: {"n": np.array(29.5)},
    "an imaginary part": lambda rows, question: {"sums": np.array([1j, 0])},
    "text": lambda rows, question: {"sums": np.array(["Kim", "Lee"])},
    "objects": lambda rows, question: {"sums": np.array([rows, None], dtype=object)},
    "times": lambda rows, question: {"sums": np.array([1, 2], dtype="datetime64[s]")},
    "nothing": lambda rows, question: {"sums": None},
    "every hospital's row": everybody,
    "another hospital's row": somebody_else,
}


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_is_stopped_and_nothing_leaves(trick: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fold, replies = play(TRICKS[trick], monkeypatch)
    assert isinstance(fold.error, Refused)
    assert fold.error.rule == "as_declared"
    assert fold.released is None
    refused = [reply for reply in replies if reply["kind"] == "error"]
    assert refused
    for reply in refused:
        assert reply["arrays"] == {}
        assert reply["result"] == b""
    if trick != "another hospital's row":  # the one hospital whose row it is answers truly
        assert refused == replies


def test_a_missing_array_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Malicious, "summarise", lambda self, rows, question, state, kept: ({"n": np.array(30)}, {}))
    fold, _ = play(lambda rows, question: {}, monkeypatch)
    assert isinstance(fold.error, Refused)
    assert fold.error.rule == "as_declared"


def test_a_hub_that_changes_the_state_cannot_make_a_hospital_declare_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The declaration is made at the hospital, from the question; the hub's word for it is not taken."""
    seen: list[Declaration] = []
    declare = Malicious.declare

    def remembered(self: Malicious, question: Question, state: State) -> Declaration:
        seen.append(declare(self, question, state))
        return seen[-1]

    monkeypatch.setattr(Malicious, "declare", remembered)
    play(lambda rows, question: {}, monkeypatch)
    assert len(seen) >= 4  # once at the hub, once at each of the three hospitals
    assert all(declaration == seen[0] for declaration in seen)
