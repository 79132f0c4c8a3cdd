"""Who is studied and what is known of each: a cohort and its variables, as plain data over OMOP concepts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from dure.language import plain
from dure.study.document import Bilingual, Strict

Domain = Literal["condition", "drug", "measurement", "observation", "procedure", "visit"]
Kind = Literal["number", "flag", "category", "codes"]


def _in_order(value: Any) -> Any:
    return dict(value) if isinstance(value, list | tuple) else value


def _as_pairs(value: Mapping[str, Any] | None) -> list[list[Any]] | None:
    return None if value is None else [[name, item] for name, item in value.items()]


# The first level is the reference, so the order counts: canonical JSON, which sorts keys, keeps levels as pairs.
Sexes = Annotated[dict[str, int] | None, BeforeValidator(_in_order), PlainSerializer(_as_pairs)]
Levels = Annotated[dict[str, tuple[int, ...]] | None, BeforeValidator(_in_order), PlainSerializer(_as_pairs)]


class Range(Strict):
    """A closed interval; either end may be open."""

    at_least: float | None = None
    at_most: float | None = None


class Event(Strict):
    """Something recorded of a person: any of `concepts` in one OMOP domain.

    `days` is the window around the index date in days, both ends included; without it, any time counts.
    `value` keeps only measurements whose number lies in the range, in `unit` (an OMOP unit concept).
    """

    domain: Domain
    concepts: tuple[int, ...] = Field(min_length=1)
    days: tuple[int, int] | None = None
    value: Range | None = None
    unit: int | None = None

    @model_validator(mode="after")
    def _forwards(self) -> Event:
        if self.days and self.days[0] > self.days[1]:
            raise ValueError("`days` runs from the earlier to the later day, e.g. [-30, 0]")
        return self


class Criterion(Strict):
    """One line of the attrition table. Exactly one of age (years at index), sex (concepts), event or `observed_days`
    (of observation before the index date, at least) is set."""

    name: Bilingual
    age: Range | None = None
    sex: tuple[int, ...] | None = None
    event: Event | None = None
    observed_days: int | None = Field(None, ge=0)
    exclude: bool = False

    @model_validator(mode="after")
    def _one_question(self) -> Criterion:
        if sum(part is not None for part in (self.age, self.sex, self.event, self.observed_days)) != 1:
            raise ValueError("a criterion asks exactly one of `age`, `sex`, `event` or `observed_days`")
        return self


class Cohort(Strict):
    """People enter at their first `entry` event (the index date) and stay if every criterion holds."""

    name: Bilingual
    entry: Event
    criteria: tuple[Criterion, ...] = ()


class FollowUp(Strict):
    """From the index date to the first `event` after it (from `first_day` on), and no longer than the person's
    observation period, their death, or `at_most` days; whichever comes first. `event` has no window of its own."""

    event: Event
    first_day: int = Field(1, ge=0)
    at_most: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _no_window(self) -> FollowUp:
        if self.event.days is not None:
            raise ValueError("a follow-up's event has no `days`; use `first_day` and `at_most`")
        return self


SOURCES = ("age", "year", "sex", "present", "days_until", "happened", "number", "category", "codes")


class Variable(Strict):
    """One column of the analysis table. Exactly one source is set.

    - `age`: years at the index date.
    - `year`: the calendar year of the index date; a number.
    - `sex`: level name for each OMOP gender concept; a category.
    - `present`: 1 if the event is recorded, else 0; a flag. With `absent`, 0 only where that event is
      recorded and missing where neither is.
    - `days_until`: days of follow-up; a number, missing where nobody observed the person on the index date.
    - `happened`: 1 if that follow-up ends with its event, else 0; a flag.
    - `number`: the value of the measurement nearest to the index date (ties: the earlier), in its `unit`.
    - `category`: the level whose concept is the event's value (`value_as_concept_id`), nearest to the index.
    - `codes`: which of the event's concepts are recorded in its window, each of them a 0/1 covariate; a list of codes
      (at most some thousands of concepts; kept sparse).
    """

    label: Bilingual
    age: bool = False
    year: bool = False
    sex: Sexes = None
    present: Event | None = None
    absent: Event | None = None
    days_until: FollowUp | None = None
    happened: FollowUp | None = None
    number: Event | None = None
    category: Event | None = None
    codes: Event | None = None
    levels: Levels = None

    @model_validator(mode="after")
    def _one_source(self) -> Variable:
        found = {name: getattr(self, name) for name in SOURCES}
        if sum(part is not None and part is not False for part in found.values()) != 1:
            raise ValueError(f"a variable has exactly one of `{'`, `'.join(SOURCES)}`")
        if (self.category is None) != (self.levels is None):
            raise ValueError("`category` and `levels` go together")
        if self.absent is not None and self.present is None:
            raise ValueError("`absent` goes with `present`")
        if not all(plain(name) for name in (*(self.sex or ()), *(self.levels or ()))):
            raise ValueError("the name of a level holds letters that cannot be seen")
        return self

    @property
    def kind(self) -> Kind:
        if self.present is not None or self.happened is not None:
            return "flag"
        if self.codes is not None:
            return "codes"
        return "category" if self.sex is not None or self.category is not None else "number"

    @property
    def level_names(self) -> tuple[str, ...]:
        """Declared levels in order; the first is the reference. Empty for numbers, ('0', '1') for flags."""
        if self.kind == "flag":
            return ("0", "1")
        if self.codes is not None:
            return tuple(str(concept) for concept in sorted(set(self.codes.concepts)))
        return tuple(self.sex or self.levels or ())
