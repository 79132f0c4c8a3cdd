"""A cohort and its variables in plain sentences, for people who decide without reading YAML."""

from __future__ import annotations

from collections.abc import Iterable

from dure.language import Words
from dure.study.cohort import Cohort, Criterion, Domain, Event, Range, Variable

DOMAINS: dict[Domain, Words] = {
    "condition": Words("a diagnosis", "진단"),
    "drug": Words("a drug", "약물"),
    "measurement": Words("a measurement", "검사·측정"),
    "observation": Words("an observation", "관찰"),
    "procedure": Words("a procedure", "시술·처치"),
    "visit": Words("a visit", "내원"),
}


def cohort_words(cohort: Cohort) -> list[Words]:
    """Who enters, then one sentence for each criterion in order."""
    entry = event_words(cohort.entry)
    lines = [Words(f"People enter with their first record of {entry.en}.", f"{entry.ko}이(가) 처음 기록된 사람.")]
    return lines + [_criterion(criterion) for criterion in cohort.criteria]


def _criterion(criterion: Criterion) -> Words:
    name, asks = criterion.name.words(), _asks(criterion)
    if criterion.exclude:
        return Words(f"Excluded: {name.en} ({asks.en}).", f"제외: {name.ko} ({asks.ko}).")
    return Words(f"Kept: {name.en} ({asks.en}).", f"포함: {name.ko} ({asks.ko}).")


def _asks(criterion: Criterion) -> Words:
    if criterion.age is not None:
        interval = _range(criterion.age)
        return Words(f"age at the index date {interval.en} years", f"기준일 나이(세) {interval.ko}")
    if criterion.sex is not None:
        concepts = _concepts(criterion.sex)
        return Words(f"sex: {concepts}", f"성별: {concepts}")
    if criterion.observed_days is not None:
        days = criterion.observed_days
        return Words(f"observed for at least {days} days before", f"그 전 {days}일 이상 관찰됨")
    assert criterion.event is not None  # a criterion asks exactly one thing
    return event_words(criterion.event)


def event_words(event: Event) -> Words:
    """Domain, concepts, window and value of an event."""
    domain, concepts = DOMAINS[event.domain], _concepts(event.concepts)
    en, ko = f"{domain.en} (OMOP {concepts})", f"{domain.ko}(OMOP {concepts})"
    if event.days is not None:
        first, last = event.days
        en, ko = f"{en}, days {first} to {last} from the index date", f"{ko}, 기준일 {first}일~{last}일"
    if event.value is not None:
        interval = _range(event.value)
        en, ko = f"{en}, value {interval.en}", f"{ko}, 값 {interval.ko}"
    return Words(en, ko)


def variable_words(variable: Variable) -> Words:
    """Where a column of the analysis table comes from."""
    if variable.age:
        return Words("age in years at the index date", "기준일의 나이(년)")
    if variable.year:
        return Words("calendar year of the index date", "기준일의 연도")
    if variable.sex is not None:
        return Words("sex", "성별")
    follow_up = variable.days_until or variable.happened
    if follow_up is not None:
        said = event_words(follow_up.event)
        what = Words("days until", "까지의 일수") if variable.days_until else Words("whether it came to", "발생 여부")
        return Words(f"{what.en} {said.en}", f"{said.ko} {what.ko}")
    event = variable.present or variable.number or variable.category or variable.codes
    assert event is not None  # a variable has exactly one source
    said = event_words(event)
    if variable.present is not None:
        return Words(f"whether there is {said.en}", f"{said.ko} 유무")
    if variable.codes is not None:
        return Words(f"which of these are recorded: {said.en}", f"기록된 코드: {said.ko}")
    return Words(f"value of {said.en}", f"{said.ko}의 값")


def _range(interval: Range) -> Words:
    low, high = interval.at_least, interval.at_most
    if low is not None and high is not None:
        return Words(f"{low:g} to {high:g}", f"{low:g}~{high:g}")
    if low is not None:
        return Words(f"at least {low:g}", f"{low:g} 이상")
    return Words(f"at most {high:g}", f"{high:g} 이하") if high is not None else Words("any", "제한 없음")


def _concepts(concepts: Iterable[int]) -> str:
    listed = [str(concept) for concept in concepts]
    return ", ".join(listed[:6]) + (f" +{len(listed) - 6}" if len(listed) > 6 else "")
