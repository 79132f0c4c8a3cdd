"""Validation of scores against an outcome: exact AUROC inside each hospital, calibration over all.

An AUROC leaves its hospital as one number behind which stand its cases and its non-cases (Hanley & McNeil
1982: the Mann–Whitney statistic, ties count half). Calibration and the Brier score are sums.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.stats import rankdata

from dure.errors import NobodyLeft, NotAnOutcome
from dure.estimation.grids import merge_until
from dure.language import Words
from dure.study.method import DerivesNothing, Example, Kept, Law, Question, State
from dure.study.result import Result, Table
from dure.study.rows import Rows
from dure.study.summary import ArraySpec, Declaration, Summary, Total

CLASSES = (Words("cases", "환자"), Words("non-cases", "비환자"))


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    outcome: str = Field(
        description="0/1 column that happened or not", json_schema_extra={"ko": "일어났으면 1, 아니면 0인 열"}
    )
    scores: list[str] = Field(
        min_length=1,
        description="columns with predicted probabilities, e.g. model.prediction",
        json_schema_extra={"ko": "예측 확률 열(예: model.prediction)"},
    )
    bins: int = Field(
        10,
        ge=2,
        le=100,
        description="equal-width bins of predicted probability for calibration",
        json_schema_extra={"ko": "보정도를 볼 예측 확률 구간 수(같은 너비)"},
    )


class Validation(DerivesNothing):
    name = "validation"
    title = Words("Validation", "검증")
    about = Words(
        "Discrimination (AUROC) in each hospital and calibration over all, for one or more scores.",
        "점수마다 병원별 판별력(AUROC)과 전체의 보정도.",
    )
    law: Law = "by_hospital"
    parameters = Parameters

    def declare(self, question: Question, state: State) -> Declaration:
        p: Parameters = question.parameters
        for name in (p.outcome, *p.scores):
            question.column(name)
        single, scores = (len(question.hospitals), len(p.scores)), len(p.scores)
        return (
            ArraySpec("cases", single, "count", per_hospital=True),
            ArraySpec("non_cases", single, "count", per_hospital=True),
            ArraySpec("auroc", single, "moment", people=("cases", "non_cases"), per_hospital=True),
            ArraySpec("n", (scores,), "count"),
            ArraySpec("events", (scores,), "count"),
            ArraySpec("brier", (scores,), "moment", people=("n",)),
            ArraySpec("bin_cases", (scores, p.bins), "count"),
            ArraySpec("bin_non_cases", (scores, p.bins), "count"),
            ArraySpec("bin_predicted", (scores, p.bins), "moment", people=("bin_cases", "bin_non_cases")),
        )

    def start(self, question: Question) -> State:
        return {}

    def summarise(self, rows: Rows, question: Question, state: State, kept: Kept) -> tuple[Summary, Kept]:
        p: Parameters = question.parameters
        found = {spec.name: np.zeros(spec.shape, dtype=spec.dtype) for spec in self.declare(question, state)}
        here = question.hospitals.index(rows.hospital)
        outcome = rows.numbers(p.outcome)
        known = outcome[~np.isnan(outcome)]
        if not np.isin(known, (0.0, 1.0)).all():
            raise NotAnOutcome(
                column=p.outcome,
                family="validation",
                problem=Words("It holds values other than 0 and 1", "0과 1이 아닌 값이 있습니다"),
                hint=Words("Recode it as 0 and 1.", "0과 1로 바꾸십시오."),
            )
        for place, name in enumerate(p.scores):
            score = rows.numbers(name)
            keep = ~np.isnan(outcome) & ~np.isnan(score)
            y, s = outcome[keep] == 1, score[keep]
            found["cases"][here, place], found["non_cases"][here, place] = y.sum(), (~y).sum()
            found["auroc"][here, place] = _auroc(s, y)
            found["n"][place], found["events"][place] = len(y), y.sum()
            found["brier"][place] = ((s - y) ** 2).sum()
            bins = np.clip((s * p.bins).astype(np.int64), 0, p.bins - 1)
            found["bin_cases"][place] = np.bincount(bins[y], minlength=p.bins)
            found["bin_non_cases"][place] = np.bincount(bins[~y], minlength=p.bins)
            found["bin_predicted"][place] = np.bincount(bins, weights=s, minlength=p.bins)
        return {**found}, {}

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        p: Parameters = question.parameters
        if not total["n"].any():
            raise NobodyLeft(columns=", ".join((p.outcome, *p.scores)))
        return Result(
            method=self.name,
            tables={
                "auroc": _auroc_table(total, question),
                "calibration": _calibration(total, question),
                "overall": _overall(total, question),
            },
            facts={"n": int(total["n"].max()), "events": int(total["events"].max())},
            people_facts=("n", "events"),
        )

    def example(self, random: np.random.Generator) -> Example:
        score = random.random(300)
        y = (random.random(300) < score).astype(float)
        return Example(pl.DataFrame({"y": y, "score": score}), {"outcome": "y", "scores": ["score"]})


def _auroc(score: NDArray[np.float64], case: NDArray[np.bool_]) -> float:
    cases, others = int(case.sum()), int((~case).sum())
    if not cases or not others:
        return 0.0  # nobody behind it: the gate withholds it
    ranks = float(rankdata(score)[case].sum())
    return (ranks - cases * (cases + 1) / 2) / (cases * others)


def _auroc_table(total: Total, question: Question) -> Table:
    """One row per score and hospital; where a class is too small the reason stands in place of the number."""
    rows: list[dict[str, object]] = []
    withheld: dict[tuple[int, str], str] = {}
    codes = total.withheld["auroc"]
    small = {name: total.withheld[name] > 0 for name in ("cases", "non_cases")}
    for place, name in enumerate(question.parameters.scores):
        for here, hospital in enumerate(question.hospitals):
            code = int(codes[here, place])
            hidden = bool(small["cases"][here, place] or small["non_cases"][here, place])
            people = int(total["cases"][here, place] + total["non_cases"][here, place])
            reason = CLASSES[code - 1] if code else None
            minimum = max(1, question.minimum_people)
            rows.append(
                {
                    "score": name,
                    "hospital": hospital,
                    "auroc": None if code else float(total["auroc"][here, place]),
                    "n": None if hidden else people,
                    "reason": f"withheld: fewer than {minimum} {reason.en}" if reason else None,
                    "reason_ko": f"비공개: {reason.ko} {minimum}명 미만" if reason else None,
                }
            )
            if code:
                withheld[len(rows) - 1, "auroc"] = f"<{minimum} {CLASSES[code - 1].en}"
            if hidden:
                withheld[len(rows) - 1, "n"] = "–"
    schema = {
        "score": pl.String,
        "hospital": pl.String,
        "auroc": pl.Float64,
        "n": pl.Int64,
        "reason": pl.String,
        "reason_ko": pl.String,
    }
    return Table(pl.DataFrame(rows, schema=schema), counts=("n",), behind={"auroc": "n"}, withheld=withheld)


def _calibration(total: Total, question: Question) -> Table:
    """Bins merged until each holds enough cases and non-cases; the observed rate is that of the rounded counts."""
    p: Parameters = question.parameters
    rows: list[dict[str, object]] = []
    for place, name in enumerate(p.scores):
        cases, others = total["bin_cases"][place], total["bin_non_cases"][place]
        for run in merge_until(np.stack([cases, others]), question.minimum_people):
            n = float(cases[run].sum() + others[run].sum())
            if not n:
                continue
            rows.append(
                {
                    "score": name,
                    "bin_low": run.start / p.bins,
                    "bin_high": run.stop / p.bins,
                    "predicted": round(float(total["bin_predicted"][place][run].sum()) / n, 3),
                    "n": int(n),
                    "cases": int(cases[run].sum()),
                }
            )
    schema = dict.fromkeys(("bin_low", "bin_high", "predicted"), pl.Float64)
    columns = {"score": pl.String, **schema, "n": pl.Int64, "cases": pl.Int64}
    return Table(
        pl.DataFrame(rows, schema=columns),
        counts=("n", "cases"),
        behind={"predicted": "n"},
        shares={"observed": ("cases", "n", 1.0)},
        derived=("bin_low", "bin_high", "observed"),
    )


def _overall(total: Total, question: Question) -> Table:
    n = total["n"]
    with np.errstate(invalid="ignore", divide="ignore"):
        brier, predicted = total["brier"] / n, total["bin_predicted"].sum(axis=1) / n
    frame = pl.DataFrame(
        {
            "score": question.parameters.scores,
            "n": n.astype(np.int64),
            "events": total["events"].astype(np.int64),
            "brier": brier,
            "mean_predicted": predicted,
        }
    ).with_columns(pl.col(pl.Float64).fill_nan(None))
    return Table(frame, counts=("n", "events"), behind={"brier": "n", "mean_predicted": "n"})


method = Validation()
