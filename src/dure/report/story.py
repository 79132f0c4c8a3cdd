"""What a study's report tells, as frozen facts; nothing here computes statistics or reads a hospital's rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from dure.language import Words
from dure.study.result import Fact, Table

PointKind = Literal["federated", "pooled", "local"]
Status = Literal["done", "waiting", "refused", "failed"]

EQUAL_BELOW = 1e-6
"""Relative difference under which federated and pooled are called equal: far below any printed digit."""


@dataclass(frozen=True)
class Hospital:
    """`persons` is the released (rounded) count, or None where it is withheld."""

    name: str
    persons: int | None


@dataclass(frozen=True)
class ForestPoint:
    """One estimate on the ratio scale (odds ratio) with its interval; `status` says why there is none."""

    series: Words
    kind: PointKind
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    status: Words | None = None

    def __post_init__(self) -> None:
        if self.estimate is None and self.status is None:
            raise ValueError(f"a missing estimate needs its reason: {self.series.en}")


@dataclass(frozen=True)
class ForestRow:
    term: str
    label: Words
    points: tuple[ForestPoint, ...]


@dataclass(frozen=True)
class ModelFit:
    """One fitted model; `coefficients` has at least `term` and `estimate`, as `regression` gives them.

    `ratio` names exp(estimate), e.g. "Odds ratio"; None where the estimates are read as they are.
    """

    title: Words
    coefficients: Table
    facts: Mapping[str, Fact] = field(default_factory=dict)
    notes: tuple[Words, ...] = ()
    ratio: Words | None = None


@dataclass(frozen=True)
class AurocCell:
    """How well the model trained at one place ranks the people of another; `withheld` says why not."""

    trained_at: Words
    tested_at: Words
    auroc: float | None = None
    n: int | None = None
    withheld: Words | None = None

    def __post_init__(self) -> None:
        if self.auroc is None and self.withheld is None:
            raise ValueError(f"a missing AUROC needs its reason: {self.trained_at.en}, {self.tested_at.en}")


@dataclass(frozen=True)
class CalibrationPoint:
    """Mean predicted and observed share (0 to 1) of `n` people."""

    predicted: float
    observed: float
    n: int


@dataclass(frozen=True)
class CalibrationSeries:
    model: Words
    points: tuple[CalibrationPoint, ...]


@dataclass(frozen=True)
class LeftEntry:
    """One array of one message that left one hospital, as its gate wrote it down.

    `fold` is the hospital left out where a step is run once without each.
    """

    hospital: str
    step: str
    round: int
    array: str
    shape: tuple[int, ...]
    bytes: int
    rules: tuple[str, ...]
    fold: str | None = None

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Departure:
    """What left one hospital, in total; a message is one answer of one round of one step."""

    hospital: str
    messages: int
    numbers: int
    bytes: int


@dataclass(frozen=True)
class StepOutcome:
    step: str
    status: Status
    reason: Words | None = None


@dataclass(frozen=True)
class OracleCheck:
    """Largest relative differences between the federated fit and `against`, the same fit on pooled rows."""

    coefficients: float
    std_errors: float
    against: Words

    @property
    def largest(self) -> float:
        return max(self.coefficients, self.std_errors)

    @property
    def equal(self) -> bool:
        return self.largest < EQUAL_BELOW


@dataclass(frozen=True)
class Story:
    """Everything the report says. Parts that a study does not have stay empty and are left out.

    `labels` names columns, levels (`column:level` or the level alone) and other words of the tables;
    `headings` names table columns beyond those the report knows. `table_one_by` is the column whose levels are
    the groups of `table_one`; `differences` are its standardised mean differences by variable. `people` is
    everybody as released, where that is not the sum of the hospitals' rounded counts.
    """

    title: Words
    question: Words
    study_hash: str
    made_at: datetime
    hospitals: tuple[Hospital, ...]
    people: int | None = None
    documents: tuple[Words, ...] = ()
    owner_note: Words | None = None
    finding: Words | None = None
    attrition: Table | None = None
    table_one: Table | None = None
    table_one_by: str = ""
    differences: Mapping[str, float | None] = field(default_factory=dict)
    models: tuple[ModelFit, ...] = ()
    forest: tuple[ForestRow, ...] = ()
    auroc: tuple[AurocCell, ...] = ()
    calibration: tuple[CalibrationSeries, ...] = ()
    left: tuple[LeftEntry, ...] = ()
    outcomes: tuple[StepOutcome, ...] = ()
    oracle: OracleCheck | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    next_steps: tuple[Words, ...] = ()
    labels: Mapping[str, Words] = field(default_factory=dict)
    headings: Mapping[str, Words] = field(default_factory=dict)

    @property
    def persons(self) -> int | None:
        """Everybody, or None where one hospital's count is withheld."""
        if self.people is not None:
            return self.people
        counts = [hospital.persons for hospital in self.hospitals]
        return None if None in counts else sum(count for count in counts if count is not None)


def departures(left: tuple[LeftEntry, ...]) -> tuple[Departure, ...]:
    """Totals by hospital, in the order in which hospitals first appear."""
    found: dict[str, list[LeftEntry]] = {}
    for entry in left:
        found.setdefault(entry.hospital, []).append(entry)
    return tuple(
        Departure(
            hospital=hospital,
            messages=len({(entry.step, entry.fold, entry.round) for entry in entries}),
            numbers=sum(entry.numbers for entry in entries),
            bytes=sum(entry.bytes for entry in entries),
        )
        for hospital, entries in found.items()
    )
