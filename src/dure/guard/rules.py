"""The rules as data: each rule's name, where it works, what it says and what would pass; and their limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, ValidationError

from dure.errors import InvalidParameter, Refused, UnknownParameter
from dure.language import Words
from dure.study.document import Strict

Place = Literal["site", "total", "release"]


@dataclass(frozen=True, slots=True)
class Rule:
    """`where`: at the hospital before anything leaves, on the opened total, or when a result is released."""

    name: str
    where: Place
    says: Words
    way_out: Words


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            "as_declared",
            "site",
            Words(
                "Only arrays declared beforehand leave, in their declared shape.",
                "미리 알린 배열만, 알린 모양으로만 나갑니다.",
            ),
            Words(
                "Run the method version that the hospital permitted.",
                "병원이 허가한 판의 방법을 실행하십시오.",
            ),
        ),
        Rule(
            "minimum_cohort",
            "site",
            Words(
                "A hospital answers only for nobody or for enough people.",
                "병원은 대상자가 아예 없거나 충분할 때만 답합니다.",
            ),
            Words(
                "Widen the cohort's criteria, or run the study without this hospital.",
                "코호트 기준을 넓히거나 이 병원 없이 연구하십시오.",
            ),
        ),
        Rule(
            "minimum_hospitals",
            "site",
            Words(
                "A sum over too few hospitals shows single hospitals.",
                "너무 적은 병원의 합은 한 병원의 수치를 드러냅니다.",
            ),
            Words(
                "Add a hospital, or ask each for a permit with `per_hospital: true`: their numbers then follow the "
                "rules of a per-hospital answer.",
                "병원을 더하거나, 병원마다 `per_hospital: true`인 허가를 받으십시오. "
                "그러면 병원별 답의 규칙을 따릅니다.",
            ),
        ),
        Rule(
            "per_hospital_permit",
            "site",
            Words(
                "Numbers of one hospital need its permit with `per_hospital: true`.",
                "한 병원만의 수치에는 그 병원의 `per_hospital: true` 허가가 필요합니다.",
            ),
            Words(
                "Ask the hospital for it, or leave out `site` and per-hospital outputs.",
                "병원에 요청하거나 `site`와 병원별 출력을 빼십시오.",
            ),
        ),
        Rule(
            "difference_permit",
            "site",
            Words(
                "Sums that differ by fewer than three hospitals need `difference: true` of each in the difference.",
                "병원 세 곳 미만만큼 다른 합에는 차이에 해당하는 병원마다 `difference: true`가 필요합니다.",
            ),
            Words(
                "Ask those hospitals for it, or take the step out.",
                "그 병원들에 요청하거나 그 단계를 빼십시오.",
            ),
        ),
        Rule(
            "history_overlap",
            "site",
            Words(
                "Cohorts that differ by a few people would tell of those people.",
                "몇 사람만 다른 코호트는 그 사람들을 드러냅니다.",
            ),
            Words(
                "Ask the earlier cohort exactly, or change its criteria so that clearly more people differ. Where only "
                "the hospital's database was refreshed: let it answer from the copy it answered from before, or wait "
                "until more people have changed.",
                "이전 코호트를 그대로 쓰거나, 차이 나는 사람이 확실히 많아지도록 기준을 바꾸십시오. "
                "병원 데이터베이스만 갱신되었다면 이전에 답한 사본으로 답하게 하거나 더 많은 사람이 바뀔 때까지 "
                "기다리십시오.",
            ),
        ),
        Rule(
            "lockout",
            "site",
            Words(
                "Whoever has asked too many similar questions is asked to stop.",
                "비슷한 질문을 너무 많이 한 사람은 더 물을 수 없습니다.",
            ),
            Words(
                "Ask the hospital's review board to lift it (dure site unlock).",
                "병원 심의위원회에 해제를 요청하십시오(dure site unlock).",
            ),
        ),
        Rule(
            "budget",
            "site",
            Words(
                "Open questions draw on a budget of privacy loss, and it is spent.",
                "공개 질문은 프라이버시 손실 예산을 쓰며, 그 예산이 다 쓰였습니다.",
            ),
            Words(
                "Wait until earlier questions are 30 days old, ask with a smaller epsilon, or propose a study for "
                "review by the boards.",
                "이전 질문이 30일을 넘길 때까지 기다리거나, 더 작은 epsilon으로 묻거나, "
                "심의를 받는 연구를 제안하십시오.",
            ),
        ),
        Rule(
            "minimum_people",
            "total",
            Words(
                "Every count, and what is left of its whole, needs enough people behind it; zeros too.",
                "모든 칸과 그 나머지에는 충분한 사람이 있어야 하며, 0도 마찬가지입니다.",
            ),
            Words(
                "Merge levels, use coarser groups, or leave the term out.",
                "수준을 합치거나 더 굵게 나누거나 항을 빼십시오.",
            ),
        ),
        Rule(
            "parameters_per_person",
            "release",
            Words(
                "A model may not have too many parameters for its people.",
                "모형의 매개변수는 사람 수에 비해 너무 많을 수 없습니다.",
            ),
            Words("Use fewer terms, or more people.", "항을 줄이거나 대상자를 늘리십시오."),
        ),
        Rule(
            "parameters_per_event",
            "release",
            Words(
                "A model may not have too many parameters for its events.",
                "모형의 매개변수는 사건 수에 비해 너무 많을 수 없습니다.",
            ),
            Words(
                "Use fewer terms, merge levels, or widen the cohort.",
                "항을 줄이거나 수준을 합치거나 코호트를 넓히십시오.",
            ),
        ),
        Rule(
            "round_counts",
            "release",
            Words(
                "Released counts are rounded; small ones are shown as fewer than the minimum.",
                "공개하는 수는 반올림하고, 작은 수는 최소값 미만으로만 보입니다.",
            ),
            Words("Use coarser groups to see more.", "더 굵게 나누면 더 보입니다."),
        ),
        Rule(
            "numbers_per_person",
            "release",
            Words(
                "A study may not release too many numbers about its people.",
                "한 연구가 공개하는 수치는 사람 수에 비해 너무 많을 수 없습니다.",
            ),
            Words("Ask for fewer tables, levels or models.", "표, 수준, 모형을 줄이십시오."),
        ),
    )
}


class Limits(Strict):
    """The numbers in the rules. A hospital may tighten any of them, never loosen one (`tighten`)."""

    minimum_people: int = Field(
        10,
        ge=0,
        description="people behind a count, its complement, a class",
        json_schema_extra={"ko": "수, 그 나머지, 한 집단에 있어야 하는 사람 수"},
    )
    minimum_cohort: int = Field(
        10,
        ge=0,
        description="people in a hospital's cohort, unless nobody",
        json_schema_extra={"ko": "아무도 없는 경우가 아니면 병원 코호트에 있어야 하는 사람 수"},
    )
    minimum_hospitals: int = Field(
        3, ge=1, description="hospitals in a sum", json_schema_extra={"ko": "한 합에 들어가는 병원 수"}
    )
    round_to: int = Field(
        5,
        ge=1,
        description="released counts are rounded to multiples of this",
        json_schema_extra={"ko": "공개하는 수는 이 수의 배수로 반올림"},
    )
    parameters_per_person: float = Field(
        0.33,
        gt=0,
        description="fitted parameters for each person",
        json_schema_extra={"ko": "한 사람당 추정하는 매개변수 수"},
    )
    parameters_per_event: float = Field(
        0.1,
        gt=0,
        description="fitted parameters for each event and non-event",
        json_schema_extra={"ko": "사건·비사건 한 건당 추정하는 매개변수 수"},
    )
    numbers_per_person: float = Field(
        0.33,
        gt=0,
        description="released numbers in a study for each person",
        json_schema_extra={"ko": "연구에서 한 사람당 공개하는 수치의 수"},
    )
    open_numbers_per_person: float = Field(
        0.1,
        gt=0,
        description="the same where a study was asked openly, without boards",
        json_schema_extra={"ko": "심의 없이 공개로 물은 연구에서의 같은 한도"},
    )
    minimum_difference: int = Field(
        10,
        ge=0,
        description="people by which two cohorts of a hospital differ, unless they are equal",
        json_schema_extra={"ko": "같지 않은 두 코호트가 한 병원에서 차이 나야 하는 사람 수"},
    )
    similar_questions: int = Field(
        7,
        ge=1,
        description="similar studies of one proposer after which they are locked out",
        json_schema_extra={"ko": "한 제안자의 비슷한 연구가 이만큼이면 잠김"},
    )
    similar_days: int = Field(
        30,
        ge=1,
        description="days within which similar studies are counted",
        json_schema_extra={"ko": "비슷한 연구를 세는 기간(일)"},
    )


DEFAULT = Limits()
OFF = Limits(
    minimum_people=0,
    minimum_cohort=0,
    minimum_hospitals=1,
    round_to=1,
    parameters_per_person=float("inf"),
    parameters_per_event=float("inf"),
    numbers_per_person=1e12,
    open_numbers_per_person=1e12,
    minimum_difference=0,
    similar_questions=1_000_000,
)
"""No rule: for simulation on data that one person owns. No hospital can be configured so."""

_HIGHER_IS_TIGHTER = {
    "minimum_people",
    "minimum_cohort",
    "minimum_hospitals",
    "round_to",
    "minimum_difference",
    "similar_days",
}


def with_overrides(values: Mapping[str, Any], start: Limits = DEFAULT) -> Limits:
    """Limits with some replaced; raises UnknownParameter or InvalidParameter."""
    for name in values:
        if name not in Limits.model_fields:
            raise UnknownParameter("rules", name, Limits.model_fields)
    try:
        return Limits.model_validate({**start.model_dump(), **values})
    except ValidationError as error:
        first = error.errors()[0]
        problem = Words(first["msg"], first["msg"])
        raise InvalidParameter(method="rules", parameter=str(first["loc"][0]), problem=problem) from None


def tighten(values: Mapping[str, Any], start: Limits = DEFAULT) -> Limits:
    """A hospital's own limits; raises InvalidParameter where a value would loosen the alliance's."""
    limits = with_overrides(values, start)
    for name in values:
        new, old = getattr(limits, name), getattr(start, name)
        if (new < old) if name in _HIGHER_IS_TIGHTER else (new > old):
            problem = Words(
                f"A hospital may tighten a rule, never loosen it (the alliance's value is {old})",
                f"병원은 규칙을 조일 수만 있고 풀 수는 없습니다(연합의 값: {old})",
            )
            raise InvalidParameter(method="rules", parameter=name, problem=problem)
    return limits


def strictest(limits: Iterable[Limits], start: Limits = DEFAULT) -> Limits:
    """Each limit at its tightest: what holds for a sum in which hospitals of different limits take part."""
    found = start.model_dump()
    for name, value in ((name, value) for item in limits for name, value in item.model_dump().items()):
        tighter = max if name in _HIGHER_IS_TIGHTER else min
        found[name] = tighter(found[name], value)
    return Limits.model_validate(found)


def refusal(rule: str, place: str = "", way_out: Words | None = None) -> Refused:
    """The error of a rule: its sentence and its way out; never a count."""
    return Refused(rule, RULES[rule].says, way_out or RULES[rule].way_out, place)
