"""Feasibility: how many people remain after each criterion of the cohort, over all hospitals or by hospital."""

from __future__ import annotations

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from dure.language import Words
from dure.study.method import DerivesNothing, Example, Kept, Law, Question, State
from dure.study.result import Result, Table
from dure.study.rows import Rows
from dure.study.summary import ArraySpec, Declaration, Summary, Total

EVERYONE = (Words("People", "대상자"),)


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    by_hospital: bool = Field(
        False,
        description="also count each hospital (needs per_hospital permits)",
        json_schema_extra={"ko": "병원별로도 셈(per_hospital 허가 필요)"},
    )


class Feasibility(DerivesNothing):
    name = "feasibility"
    title = Words("Feasibility", "연구 가능성")
    about = Words("People who remain after each criterion (attrition).", "기준마다 남는 사람 수(대상자 선정 과정).")
    law: Law = "lossless"
    parameters = Parameters

    def declare(self, question: Question, state: State) -> Declaration:
        lines = len(question.criteria or EVERYONE)
        everyone = ArraySpec("persons", (lines,), "count")
        if not question.parameters.by_hospital:
            return (everyone,)
        single = ArraySpec("by_hospital", (len(question.hospitals), lines), "count", per_hospital=True)
        return (everyone, single)

    def start(self, question: Question) -> State:
        return {}

    def summarise(self, rows: Rows, question: Question, state: State, kept: Kept) -> tuple[Summary, Kept]:
        counts = np.asarray(rows.attrition, dtype=np.int64)
        found: Summary = {"persons": counts}
        if question.parameters.by_hospital:
            own = np.zeros((len(question.hospitals), len(counts)), dtype=np.int64)
            own[question.hospitals.index(rows.hospital)] = counts
            found["by_hospital"] = own
        return found, {}

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        criteria = question.criteria or EVERYONE
        columns = {
            "criterion": [words.en for words in criteria],
            "criterion_ko": [words.ko for words in criteria],
            "persons": [int(value) for value in total["persons"]],
        }
        withheld: dict[tuple[int, str], str] = {}
        counts = ["persons"]
        if question.parameters.by_hospital:
            for place, hospital in enumerate(question.hospitals):
                codes = total.withheld["by_hospital"][place]
                values = total["by_hospital"][place]
                columns[hospital] = [None if code else int(value) for code, value in zip(codes, values)]
                withheld |= {(row, hospital): f"<{question.minimum_people}" for row, code in enumerate(codes) if code}
                counts.append(hospital)
        frame = pl.DataFrame(columns, schema_overrides=dict.fromkeys(counts, pl.Int64))
        return Result(
            method=self.name,
            tables={"attrition": Table(frame, counts=tuple(counts), withheld=withheld)},
            facts={"n": int(total["persons"][-1])},
            people_facts=("n",),
        )

    def example(self, random: np.random.Generator) -> Example:
        return Example(pl.DataFrame({"x": random.normal(size=80)}), {})


method = Feasibility()
