"""From outcomes to the report's story and to `result.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from scipy import stats

from dure.demo.alliance import Alliance
from dure.demo.comparison import POOLED, Comparison
from dure.demo.oracle import Oracle
from dure.federation.ledger import Fold, Outcome
from dure.guard.release import rounded
from dure.guard.rules import DEFAULT
from dure.language import Words
from dure.report.story import (
    AurocCell,
    CalibrationPoint,
    CalibrationSeries,
    ForestPoint,
    ForestRow,
    Hospital,
    LeftEntry,
    ModelFit,
    OracleCheck,
    StepOutcome,
    Story,
)
from dure.study.result import Result

FEDERATED = Words("Federated", "연합")
SCORED = Words("Federated, all four", "연합, 네 곳 모두")
WITHOUT = Words("Federated, without the one tested", "연합, 시험 병원 제외")
NETWORK = Words("Federated network, all four", "연합 신경망, 네 곳 모두")
SCORES = {"validation": SCORED, "validation_without": WITHOUT, "validation_network": NETWORK}
ODDS = Words("Odds ratio", "오즈비")


@dataclass(frozen=True)
class Played:
    """Everything the demonstration knows at its end."""

    alliance: Alliance
    outcomes: Mapping[str, Outcome]
    comparison: Comparison
    oracle: Oracle
    seconds: dict[str, float]


def differences(played: Played) -> tuple[float, float]:
    """Largest relative difference of coefficients and of standard errors, federated against the oracle."""
    terms, estimate, error = _vectors(_working(played.outcomes["model"]))
    order = [terms.index(term) for term in played.oracle.terms]
    expected = np.array(played.oracle.estimate), np.array(played.oracle.std_error)
    found = np.array(estimate)[order], np.array(error)[order]
    return tuple(float(np.max(np.abs(a / b - 1))) for a, b in zip(found, expected))  # type: ignore[return-value]


def result_json(played: Played) -> dict[str, Any]:
    """The machine-readable result: who, what, how equal, how good, what left, how long."""
    working = _working(played.outcomes["model"])
    terms, estimate, error = _vectors(working)
    coefficients, errors = differences(played)
    people = {name: counts[0] for name, counts in played.oracle.by_hospital.items()}
    totals = {"n": working.facts["n"], "events": working.facts["events"]}
    raw = {"n": played.oracle.n, "events": played.oracle.events}
    released = _fold(played.outcomes["model"]).released
    persons = _working(played.outcomes["attrition"]).facts["n"]
    return {
        "study": {"hash": played.alliance.study.hash, "title": played.alliance.study.title.model_dump()},
        "hospitals": [{"name": name, "persons": people[name]} for name in played.alliance.sites],
        "oracle": {
            "terms": played.oracle.terms,
            "estimate": played.oracle.estimate,
            "std_error": played.oracle.std_error,
        },
        "federated": {"terms": terms, "estimate": estimate, "std_error": error},
        "checks": {
            "largest_relative_difference": {"coefficients": coefficients, "std_errors": errors},
            "counts_equal": totals == raw and persons == sum(people.values()),
            "counts": {
                "raw": {**raw, "persons": sum(people.values())},
                "total": {**totals, "persons": persons},
                "released": {name: released.facts[name] for name in totals} if released else None,
            },
        },
        "models": [
            {
                "trained_at": cell.trained_at.en,
                "tested_at": cell.tested_at.en,
                "auroc": cell.auroc,
                "n": cell.n,
                "withheld": cell.withheld.en if cell.withheld else None,
            }
            for cell in auroc_cells(played)
        ],
        "left": [
            {
                "hospital": entry.hospital,
                "step": entry.step,
                "round": entry.round,
                "array": entry.array,
                "shape": list(entry.shape),
                "bytes": entry.bytes,
                "rules": list(entry.rules),
                "fold": entry.fold,
            }
            for entry in left_entries(played)
        ],
        "steps": {name: {"status": outcome.status} for name, outcome in played.outcomes.items()},
        "seconds": {name: round(value, 3) for name, value in played.seconds.items()},
    }


def story(played: Played) -> Story:
    """The report's story; every number in it is released, but for the owner's comparison, which says so."""
    coefficients, errors = differences(played)
    study = played.alliance.study
    by_hospital = {name: counts[0] for name, counts in played.oracle.by_hospital.items()}
    attrition, table_one = _fold(played.outcomes["attrition"]), _fold(played.outcomes["table_one"])
    return Story(
        title=study.title.words(),
        question=study.question.words(),
        study_hash=study.hash,
        made_at=datetime.now(UTC),
        hospitals=tuple(Hospital(name, rounded(by_hospital[name], DEFAULT)) for name in played.alliance.sites),
        people=rounded(sum(by_hospital.values()), DEFAULT),
        documents=tuple(document.words() for document in study.documents),
        owner_note=Words(
            "This demonstration plays all four hospitals on one machine and owns their data. Only therefore can it "
            "also show the fits of single hospitals and of pooled rows beside the federated one; in an alliance "
            "nobody could pool, and only what is listed under “What left each hospital” would be seen.",
            "이 시연은 한 컴퓨터에서 네 병원을 모두 맡고 자료도 갖고 있습니다. "
            "그래서 병원별 분석과 자료를 모은 분석을 연합 분석 옆에 보일 수 있습니다. "
            "실제 연합에서는 아무도 자료를 모을 수 없고, ‘병원에서 나간 것’에 적힌 것만 보입니다.",
        ),
        finding=Words(
            "Four hospitals answered together, and no row left its hospital: coefficients and standard errors equal "
            "those of the pooled analysis.",
            "네 병원이 함께 답했고, 어떤 행도 병원을 떠나지 않았습니다. 계수와 표준오차는 자료를 모은 분석과 같습니다.",
        ),
        attrition=attrition.released.tables["attrition"] if attrition.released else None,
        table_one=table_one.released.tables["table_one"] if table_one.released else None,
        table_one_by="disease",
        differences=dict(table_one.released.tables["differences"].frame.rows()) if table_one.released else {},
        models=tuple(_models(played)),
        forest=tuple(_forest(played)),
        auroc=tuple(auroc_cells(played)),
        calibration=tuple(_calibration(played)),
        left=tuple(left_entries(played)),
        outcomes=tuple(StepOutcome(name, *_status(outcome)) for name, outcome in played.outcomes.items()),
        oracle=OracleCheck(coefficients, errors, Words("statsmodels on the raw file", "원자료에 대한 statsmodels")),
        seconds=played.seconds,
        next_steps=NEXT_STEPS,
        labels=_labels(played),
    )


NEXT_STEPS = (
    Words(
        "Play the alliance on a table of your own: .venv/bin/dure try my.csv --hospital COLUMN --outcome COLUMN",
        "자신의 표로 연합을 해 보기: .venv/bin/dure try my.csv --hospital 열 --outcome 열",
    ),
    Words(
        "See the methods and their parameters: .venv/bin/dure methods", "방법과 매개변수 보기: .venv/bin/dure methods"
    ),
    Words(
        "Read the study and the mapping plans that were used: src/dure/demo/study.yaml, src/dure/demo/hospitals/",
        "쓰인 연구와 매핑 계획 읽기: src/dure/demo/study.yaml, src/dure/demo/hospitals/",
    ),
)


def auroc_cells(played: Played) -> list[AurocCell]:
    """The matrix, trained at × tested at: single hospitals and pooled (the owner's), then the alliance's."""
    hospitals = list(played.alliance.sites)
    cells: list[AurocCell] = []
    for trained in (*hospitals, POOLED):
        name = Words("Pooled", "통합") if trained == POOLED else Words(trained, trained)
        error = played.comparison.errors.get(trained)
        for tested in hospitals:
            place = Words(tested, tested)
            if error:
                cells.append(AurocCell(name, place, withheld=_short(error)))
                continue
            auroc, n, reason, reason_ko = played.comparison.auroc[trained, tested]
            cells.append(AurocCell(name, place, auroc, n, Words(reason, reason_ko or reason) if reason else None))
    for step, label in SCORES.items():
        if step not in played.outcomes:
            continue
        released = _fold(played.outcomes[step]).released
        if released is None:
            reason_words = _status(played.outcomes[step])[1] or Words("no result", "결과 없음")
            cells += [AurocCell(label, Words(tested, tested), withheld=reason_words) for tested in hospitals]
            continue
        for row in released.tables["auroc"].frame.to_dicts():
            why = Words(row["reason"], row["reason_ko"]) if row["reason"] else None
            cells.append(AurocCell(label, Words(row["hospital"], row["hospital"]), row["auroc"], row["n"], why))
    return cells


def left_entries(played: Played) -> list[LeftEntry]:
    return [
        LeftEntry(item.hospital, item.step, item.round, item.array, item.shape, item.bytes, item.rules, item.fold)
        for outcome in played.outcomes.values()
        for item in outcome.left
    ]


def _models(played: Played) -> list[ModelFit]:
    titles = {
        "model": Words("Disease and signs known before angiography", "질환과 혈관조영 전의 징후"),
        "model_cholesterol": Words("The same with cholesterol", "콜레스테롤을 더한 모형"),
    }
    models: list[ModelFit] = []
    for step, title in titles.items():
        released = _fold(played.outcomes[step]).released
        if released is None:
            continue
        notes = list(released.notes)
        if step == "model_cholesterol":
            absent = [name for name, counts in played.oracle.by_hospital.items() if not counts[2]]
            said = ", ".join(absent)
            notes.append(
                Words(
                    f"{said} contributes nobody: it has no cholesterol value. Its part of every sum is zero, and the "
                    f"others' answer stands.",
                    f"{said}에는 콜레스테롤 값이 없어 아무도 포함되지 않습니다. "
                    f"합에서 그 병원의 몫은 0이고 나머지 병원의 답은 그대로입니다.",
                )
            )
        models.append(ModelFit(title, released.tables["coefficients"], released.facts, tuple(notes), ODDS))
    return models


def _forest(played: Played) -> list[ForestRow]:
    working = _working(played.outcomes["model"])
    labels, rows = _labels(played), []
    for term in working.tables["coefficients"].frame["term"].to_list():
        if term == "Intercept":
            continue
        points = [_point(FEDERATED, "federated", working, term)]
        points.append(_point(Words("Pooled", "통합"), "pooled", played.comparison.fits[POOLED], term))
        for name in played.alliance.sites:
            words = Words(name, name)
            if name in played.comparison.fits:
                points.append(_point(words, "local", played.comparison.fits[name], term))
            else:
                points.append(ForestPoint(words, "local", status=_short(played.comparison.errors[name])))
        rows.append(ForestRow(term, labels.get(term, Words(term, term)), tuple(points)))
    return rows


def _point(series: Words, kind: Any, result: Result, term: str) -> ForestPoint:
    row = result.tables["coefficients"].frame.filter(term=term).to_dicts()[0]
    if row["estimate"] is None:
        return ForestPoint(series, kind, status=Words("left out: it does not vary here", "제외: 여기서는 변하지 않음"))
    width = stats.norm.ppf(0.975) * row["std_error"]
    estimate, low, high = (float(np.exp(row["estimate"] + shift)) for shift in (0.0, -width, width))
    return ForestPoint(series, kind, estimate, low, high)


def _calibration(played: Played) -> list[CalibrationSeries]:
    series = []
    for step, label in SCORES.items():
        released = _fold(played.outcomes[step]).released if step in played.outcomes else None
        if released is None:
            continue
        rows = [row for row in released.tables["calibration"].frame.to_dicts() if row["observed"] is not None]
        points = tuple(CalibrationPoint(row["predicted"], row["observed"], row["n"]) for row in rows)
        series.append(CalibrationSeries(label, points))
    return series


def _labels(played: Played) -> dict[str, Words]:
    labels: dict[str, Words] = dict(LEVELS)
    for name, variable in played.alliance.study.variables.items():
        label = variable.label.words()
        labels[name] = label
        for level in variable.level_names[1:] if variable.kind == "category" else ():
            said = LEVELS.get(f"{name}:{level}", Words(level, level))
            labels[f"{name}[T.{level}]"] = Words(f"{label.en}: {said.en}", f"{label.ko}: {said.ko}")
    return labels


LEVELS = {
    "sex:female": Words("female", "여성"),
    "sex:male": Words("male", "남성"),
    "chest_pain:angina": Words("angina", "협심증"),
    "chest_pain:non_anginal": Words("non-anginal pain", "비협심증 흉통"),
    "chest_pain:asymptomatic": Words("asymptomatic", "무증상"),
    "exercise_angina:0": Words("no", "없음"),
    "exercise_angina:1": Words("yes", "있음"),
    "disease:0": Words("No disease", "질환 없음"),
    "disease:1": Words("Disease", "질환 있음"),
}


def _short(error: Any) -> Words:
    """The first clause of an error: enough for a cell of a table."""
    what = error.parts("en")[0], error.parts("ko")[0]
    return Words(what[0].split(" (")[0].rstrip(".").lower(), what[1].split("(")[0].rstrip("."))


def _status(outcome: Outcome) -> tuple[Any, Words | None]:
    """The report's word for what became of a step, and the reason of its first fold without a result."""
    errors = [fold.error for fold in outcome.folds.values() if fold.error]
    reason = errors[0].words() if errors else None
    said = {"finished": "done", "waiting": "waiting", "refused": "refused"}
    return said.get(outcome.status, "failed"), reason


def _fold(outcome: Outcome) -> Fold:
    return outcome.folds.get(None) or next(iter(outcome.folds.values()))


def _working(outcome: Outcome) -> Result:
    found = _fold(outcome)
    if found.working is None:
        assert found.error is not None
        raise found.error
    return found.working


def _vectors(result: Result) -> tuple[list[str], list[float], list[float]]:
    frame = result.tables["coefficients"].frame
    return frame["term"].to_list(), frame["estimate"].to_list(), frame["std_error"].to_list()
