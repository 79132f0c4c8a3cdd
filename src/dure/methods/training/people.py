"""A hospital's people as a network sees them: inputs, outcome, and who is held out for validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.errors import NotAnOutcome
from dure.language import Words
from dure.study.method import Question
from dure.study.rows import Rows

Matrix = NDArray[Any]


@dataclass(frozen=True, repr=False)
class People:
    """Complete cases: inputs (n, inputs), outcome and person (n,) to train on; inputs and outcome to validate on."""

    x: Matrix
    y: Matrix
    person: NDArray[np.int64]
    validated_x: Matrix
    validated_y: Matrix

    def standardised(self, by: Mapping[str, Any], dtype: np.dtype[Any]) -> People:
        """Centred and scaled by the moments of all hospitals together: a unit means the same everywhere."""
        x, validated = (((x - by["centre"]) / by["scale"]).astype(dtype) for x in (self.x, self.validated_x))
        return People(x, self.y.astype(dtype), self.person, validated, self.validated_y.astype(dtype))


def people(rows: Rows, question: Question) -> People:
    """Read once per step; who is validated on follows from the seed and the person."""

    def build() -> People:
        (x, known), y = raw_inputs(rows, question), _outcome(rows, question)
        complete, p = known & ~np.isnan(y), question.parameters
        person = np.arange(rows.n, dtype=np.int64) if rows.person is None else rows.person
        held_out = draws(person, p.seed) < p.validation
        train, validate = complete & ~held_out, complete & held_out
        return People(x[train], y[train], person[train], x[validate], y[validate])

    return rows.remember(("training people", question.parameters), build)


def draws(person: NDArray[np.int64], *seeds: int) -> NDArray[np.float64]:
    """(n,) a number in [0, 1) for each person, from the seeds and the person alone (SplitMix64, Steele et al. 2014)."""
    found: NDArray[Any] = person.astype(np.uint64)
    for seed in seeds:
        found = found + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
        found = (found ^ (found >> 30)) * 0xBF58476D1CE4E5B9
        found = (found ^ (found >> 27)) * 0x94D049BB133111EB
        found = found ^ (found >> 31)
    return np.asarray((found >> 11) * 2.0**-53)


def inputs(question: Question) -> tuple[tuple[str, ...], dict[str, tuple[int, int]]]:
    """Names of the network's inputs; label → (place, value) of the levels whose people are counted."""
    question.column(question.parameters.outcome)
    names: list[str] = []
    cells: dict[str, tuple[int, int]] = {}
    for name in question.parameters.inputs:
        column = question.column(name)
        if column.kind == "category":
            cells |= {f"{name}={level}": (len(names) + i, 1) for i, level in enumerate(column.levels)}
            names += [f"{name}={level}" for level in column.levels]
            continue
        cells |= {f"{name}={value}": (len(names), value) for value in (0, 1)} if column.kind == "flag" else {}
        names.append(name)
    return tuple(names), cells


def raw_inputs(rows: Rows, question: Question) -> tuple[Matrix, NDArray[np.bool_]]:
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
        raise NotAnOutcome(column=name, family="training", problem=problem, hint=hint)
    return y
