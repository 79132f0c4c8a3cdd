"""A mapping plan: what each column of a hospital's export means in OMOP, written by a steward in YAML."""

from __future__ import annotations

import codecs
from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from dure.study.document import Bilingual, Strict, read_document


class Concept(Strict):
    """An OMOP concept by id, with its name so that a reader need not look it up."""

    id: int = Field(ge=0)
    name: str


class MissingMark(Strict):
    """A value of one column that means "not known", and why: a cleaning rule in words."""

    mark: str
    because: Bilingual


class Conversion(Strict):
    """From the export's unit to the plan's: `number * multiply + add`."""

    from_unit: str
    multiply: float = 1.0
    add: float = 0.0


class NumberPlan(Strict):
    """A number with its unit. `decimals` rounds after the conversion; outside `plausible` is only flagged."""

    domain: Literal["measurement", "observation"] = "measurement"
    concept: Concept
    unit: Concept | None = None
    convert: Conversion | None = None
    decimals: int | None = Field(default=None, ge=0, le=12)
    plausible: tuple[float, float] | None = None


class CategoryPlan(Strict):
    """A question whose answers are concepts. Codes are text: quote 01 and yes, which YAML would change."""

    domain: Literal["observation", "measurement"] = "observation"
    concept: Concept
    values: dict[str, Concept] = Field(min_length=1)


class Rule(Strict):
    """When something counts as recorded: the code is one of a list, or the number lies above or below."""

    one_of: tuple[str, ...] | None = Field(default=None, min_length=1)
    greater_than: float | None = None
    less_than: float | None = None

    @model_validator(mode="after")
    def _codes_or_numbers(self) -> Rule:
        if (self.one_of is not None) == (self.greater_than is not None or self.less_than is not None):
            raise ValueError("a rule is either `one_of` a list of codes or `greater_than`/`less_than` a number")
        return self

    def holds(self, number: float) -> bool:
        return (self.greater_than is None or number > self.greater_than) and (
            self.less_than is None or number < self.less_than
        )


class Finding(Strict):
    """What is recorded of the person where the rule holds."""

    domain: Literal["condition", "drug", "observation", "procedure"]
    concept: Concept
    when: Rule | None = None


class FindingPlan(Strict):
    """Something a person has or has not. `absent` records the no, so that a no differs from not known.

    `absent` without `when` means every other number; codes must be listed, since an unknown code is no "no".
    """

    present: Finding
    absent: Finding | None = None

    @model_validator(mode="after")
    def _rules_that_decide(self) -> FindingPlan:
        if self.present.when is None:
            raise ValueError("`present` needs `when`")
        by_code = self.present.when.one_of is not None
        if by_code and self.absent is not None and (self.absent.when is None or not self.absent.when.one_of):
            raise ValueError("list the codes of `absent` too: an unknown code must not count as a no")
        if not by_code and self.absent is not None and self.absent.when is not None and self.absent.when.one_of:
            raise ValueError("`present` reads numbers, so `absent` cannot list codes")
        return self


class ColumnPlan(Strict):
    """One meaning of one column; a column may be listed twice. Exactly one of number, category or finding.

    `unreadable: missing` counts a value that cannot be read as missing; the default stops the load.
    """

    column: str
    label: Bilingual
    number: NumberPlan | None = None
    category: CategoryPlan | None = None
    finding: FindingPlan | None = None
    missing: tuple[MissingMark, ...] = ()
    unreadable: Literal["stop", "missing"] = "stop"

    @model_validator(mode="after")
    def _one_meaning(self) -> ColumnPlan:
        if sum(part is not None for part in (self.number, self.category, self.finding)) != 1:
            raise ValueError("a column is exactly one of `number`, `category` or `finding`")
        return self


class SexPlan(Strict):
    column: str
    codes: dict[str, Concept] = Field(min_length=1)
    unreadable: Literal["stop", "missing"] = "stop"


class PersonPlan(Strict):
    """Who a row is about. With `age`, the year of birth is the visit's year less the age."""

    column: str
    sex: SexPlan
    birth_year: str | None = None
    age: str | None = None

    @model_validator(mode="after")
    def _one_birth(self) -> PersonPlan:
        if (self.birth_year is None) == (self.age is None):
            raise ValueError("a person needs exactly one of `birth_year` or `age`")
        return self


class VisitPlan(Strict):
    """The visit that a row describes; a row without a date takes `default_date`, or stops the load."""

    concept: Concept
    column: str | None = None
    format: str = "%Y-%m-%d"
    default_date: date | None = None

    @model_validator(mode="after")
    def _some_date(self) -> VisitPlan:
        if self.column is None and self.default_date is None:
            raise ValueError("a visit needs `column` or `default_date`")
        return self


class UnusedColumn(Strict):
    """A column that is left out on purpose; one that the plan does not name at all stops the load."""

    column: str
    because: Bilingual


class MappingPlan(Strict):
    """How one export file becomes OMOP rows: one row of the file is one visit of one person."""

    dure: Literal[1]
    hospital: Bilingual
    file: str
    format: Literal["csv", "excel"] = "csv"
    sheet: str | None = None
    encoding: str = "utf-8"
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    decimal_comma: bool = False
    missing: tuple[str, ...] = ("",)
    record_type: Concept
    person: PersonPlan
    visit: VisitPlan
    columns: tuple[ColumnPlan, ...] = ()
    not_used: tuple[UnusedColumn, ...] = ()

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str) -> str:
        try:
            codecs.lookup(encoding)
        except LookupError:
            raise ValueError("no such encoding; utf-8 and cp949 are the usual ones") from None
        return encoding

    def named_columns(self) -> list[str]:
        """Every column that the plan speaks of."""
        who = [self.person.column, self.person.sex.column, self.person.birth_year, self.person.age]
        named = [*who, self.visit.column, *(plan.column for plan in self.columns)]
        return [name for name in named if name is not None] + [unused.column for unused in self.not_used]

    def concepts(self) -> list[Concept]:
        """Every concept that the plan writes."""
        found = [self.record_type, self.visit.concept, *self.person.sex.codes.values()]
        for plan in self.columns:
            if plan.number is not None:
                found += [plan.number.concept] + ([plan.number.unit] if plan.number.unit else [])
            if plan.category is not None:
                found += [plan.category.concept, *plan.category.values.values()]
            if plan.finding is not None:
                found.append(plan.finding.present.concept)
                found += [plan.finding.absent.concept] if plan.finding.absent else []
        return found


def read_plan(path: Path) -> MappingPlan:
    """A plan's YAML file; raises FileMissing, WrongEncoding, MalformedYaml or InvalidDocument."""
    return read_document(path, MappingPlan)
