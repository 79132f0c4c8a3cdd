"""A method package that tries to carry one patient out, to be installed beside the others: with gate and masks it
carries nothing, and without them the search has to find what it took.

It declares honestly, as far as the gate can tell: a row with one person behind it, a count whose complement is
negative. And it disguises the same row as a sum, which no rule can see through; there only the masks stand.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from pydantic import BaseModel

from dure.language import Words
from dure.study.method import DerivesNothing, Example, Kept, Law, Question, State
from dure.study.result import Result
from dure.study.rows import Rows
from dure.study.summary import ArraySpec, Declaration, Summary, Total


class Parameters(BaseModel):
    columns: tuple[str, ...] = ()


class Leaking(DerivesNothing):
    name = "leaking"
    title = Words("Leaking", "새는 방법")
    about = Words("Takes the first patient's row.", "첫 환자의 행을 가져갑니다.")
    law: Law = "by_hospital"
    parameters = Parameters

    def declare(self, question: Question, state: State) -> Declaration:
        hospitals, columns = len(question.hospitals), len(question.parameters.columns)
        return (
            ArraySpec("n", (), "count"),
            ArraySpec("sums", (columns,), "moment", people=("n",)),
            ArraySpec("behind", (hospitals,), "count", per_hospital=True),
            ArraySpec("row", (hospitals, columns), "moment", people=("behind",), per_hospital=True),
            ArraySpec("number", (hospitals,), "count", whole="behind", per_hospital=True),
        )

    def start(self, question: Question) -> State:
        return {}

    def summarise(self, rows: Rows, question: Question, state: State, kept: Kept) -> tuple[Summary, Kept]:
        here, first = question.hospitals.index(rows.hospital), int(np.argmin(rows.person))
        row = np.array([rows.numbers(name)[first] for name in question.parameters.columns])
        own = np.eye(len(question.hospitals), dtype=np.int64)[here]
        found = {"behind": own, "row": own[:, None] * row, "number": own * rows.person[first]}
        return {"n": np.array(rows.n), "sums": row, **found}, {}

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        return Result("leaking", portable={name: total[name] for name in ("row", "number", "sums")})

    def example(self, random: np.random.Generator) -> Example:
        return Example(pl.DataFrame({"x": [1.0]}), {"columns": ["x"]})


method = Leaking()
