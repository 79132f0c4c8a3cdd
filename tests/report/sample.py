"""A story with everything a report may have to say; its numbers are invented."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl

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
from dure.study.result import Table

HOSPITALS = {"Cleveland": 300, "Hungary": 295, "Switzerland": 125, "VA Long Beach": 200}
FEDERATED = Words("All four, federated", "네 병원 연합")
SEPARATED = Words("not estimable: separation", "추정 불가: 완전 분리")
FEW_WELL = Words("withheld: fewer than 10 non-cases", "공개 안 함: 환자 아닌 사람 10명 미만")

LABELS = {
    "age": Words("Age (years)", "나이(세)"),
    "sex": Words("Sex", "성별"),
    "male": Words("male", "남성"),
    "female": Words("female", "여성"),
    "chest_pain": Words("Chest pain", "흉통"),
    "angina": Words("angina", "협심증"),
    "non_anginal": Words("non-anginal", "비협심증성"),
    "asymptomatic": Words("asymptomatic", "무증상"),
    "pressure": Words("Resting blood pressure (mmHg)", "안정 혈압(mmHg)"),
    "heart_rate": Words("Maximum heart rate in exercise (per minute)", "운동 시 최대 심박수(분당)"),
    "exercise_angina": Words("Angina provoked by exercise", "운동 유발 협심증"),
    "st_depression": Words("ST depression by exercise (mm)", "운동 시 ST 하강(mm)"),
    "disease:0": Words("No disease", "질환 없음"),
    "disease:1": Words("Disease", "질환 있음"),
}

# term, estimate, standard error, and how far each hospital's own estimate lies from it
_TERMS = (
    ("age", 0.022, 0.0101, (0.004, 0.013, None)),
    ("sex[T.male]", 1.346, 0.213, (0.21, -0.28, None)),
    ("chest_pain[T.non_anginal]", 0.211, 0.240, (-0.5, 0.5, None)),
    ("chest_pain[T.asymptomatic]", 1.772, 0.212, (0.3, 0.15, -0.6)),
    ("pressure", 0.0062, 0.0049, (0.012, -0.004, 0.002)),
    ("heart_rate", -0.0143, 0.0041, (-0.012, 0.001, 0.008)),
    ("exercise_angina", 0.911, 0.205, (-0.1, 0.55, -0.4)),
    ("st_depression", 0.642, 0.101, (-0.08, 0.5, -0.3)),
)


def story(hospitals: dict[str, int] | None = None, *, rounds: int = 8, folds: bool = False) -> Story:
    places = hospitals or HOSPITALS
    return Story(
        title=Words(
            "Signs at an outpatient visit and coronary heart disease found by angiography",
            "외래에서 본 징후와 혈관조영으로 확인된 관상동맥질환",
        ),
        question=Words(
            "Which signs known before angiography go with coronary heart disease, in four hospitals together?",
            "혈관조영 전에 알 수 있는 어떤 징후가 관상동맥질환과 관련되는가? 네 병원을 함께 본다.",
        ),
        study_hash="sha256:9f2c54d0ab81c77be6f0a98d1c2a5b7f40e1d3c2b5a69788990011223344a1ab",
        made_at=datetime(2026, 11, 23, 9, 30, tzinfo=UTC),
        hospitals=tuple(Hospital(name, people) for name, people in places.items()),
        documents=(
            Words(
                "Source: UCI Heart Disease (Detrano et al., Am J Cardiol 1989;64:304-310), CC BY 4.0.",
                "출처: UCI Heart Disease(Detrano 등, Am J Cardiol 1989;64:304-310), CC BY 4.0.",
            ),
            Words(
                "Cholesterol 0 is missing, not a value: all 123 patients in Switzerland and 49 at the VA have it.",
                "콜레스테롤 0은 값이 아니라 결측이다. 스위스의 123명 모두와 보훈병원의 49명이 그렇다.",
            ),
        ),
        owner_note=Words(
            "A demonstration on one machine, with real patients of four hospitals.",
            "한 대의 컴퓨터에서 네 병원의 실제 환자 자료로 보인 시연입니다.",
        ),
        finding=Words(
            "Asymptomatic chest pain, male sex and angina provoked by exercise go with coronary heart disease.",
            "무증상 흉통, 남성, 운동 유발 협심증이 관상동맥질환과 관련되었습니다.",
        ),
        attrition=_attrition(),
        table_one=_table_one(),
        table_one_by="disease",
        models=(_model(),),
        forest=_forest(list(places)),
        auroc=_auroc(list(places)),
        calibration=_calibration(),
        left=_left(list(places), rounds, folds),
        outcomes=(
            StepOutcome("attrition", "done"),
            StepOutcome("table_one", "done"),
            StepOutcome("model", "done"),
            StepOutcome(
                "cholesterol_model",
                "refused",
                Words(
                    "Every cell needs at least 10 people; one level holds fewer.",
                    "모든 칸에 10명 이상이 필요한데, 한 수준에 그보다 적습니다.",
                ),
            ),
            StepOutcome(
                "by_hospital",
                "waiting",
                Words(
                    "VA Long Beach has not yet given its permit for numbers of its own.",
                    "롱비치 보훈병원이 병원별 수치를 아직 허가하지 않았습니다.",
                ),
            ),
        ),
        oracle=OracleCheck(2.9e-12, 1.4e-13, Words("statsmodels on the pooled rows", "통합 자료의 statsmodels")),
        seconds={"attrition": 0.21, "table_one": 0.44, "model": 1.83},
        next_steps=(
            Words(
                "Change the question in study.yaml and run it again.", "study.yaml의 질문을 바꾸어 다시 실행하십시오."
            ),
            Words("Ask a hospital's steward for a site of your own.", "병원의 데이터 관리자에게 참여를 요청하십시오."),
        ),
        labels=LABELS,
    )


def _attrition() -> Table:
    frame = pl.DataFrame(
        {
            "criterion": ["Outpatient visit", "Aged 18 or older at the visit", "An angiography result is known"],
            "criterion_ko": ["외래 방문", "방문 당시 18세 이상", "혈관조영 결과를 알고 있음"],
            "persons": [1240, 1180, 920],
            "Cleveland": [405, 390, 300],
            "Switzerland": [190, 175, None],
        }
    )
    return Table(frame, counts=("persons", "Cleveland", "Switzerland"), withheld={(2, "Switzerland"): "<10"})


def _table_one() -> Table:
    rows: list[tuple[str, str | None, str, int | None, int | None, float | None, float | None, float | None]] = [
        ("", None, "0", 410, None, None, None, None),
        ("", None, "1", 510, None, None, None, None),
        ("age", None, "0", 410, 0, 50.5, 9.43, None),
        ("age", None, "1", 510, 0, 55.9, 8.72, None),
        ("sex", "female", "0", 145, 0, None, None, 35.4),
        ("sex", "female", "1", 50, 0, None, None, 9.8),
        ("sex", "male", "0", 265, 0, None, None, 64.6),
        ("sex", "male", "1", 460, 0, None, None, 90.2),
        ("chest_pain", "angina", "0", None, 0, None, None, None),
        ("chest_pain", "angina", "1", 45, 0, None, None, 8.8),
        ("chest_pain", "asymptomatic", "0", None, 0, None, None, None),
        ("chest_pain", "asymptomatic", "1", 390, 0, None, None, 76.5),
        ("pressure", None, "0", 390, 20, 130.0, 17.1, None),
        ("pressure", None, "1", 470, 40, 134.0, 20.1, None),
    ]
    schema = {
        "variable": pl.String, "level": pl.String, "group": pl.String, "n": pl.Int64, "missing": pl.Int64,
        "mean": pl.Float64, "sd": pl.Float64, "percent": pl.Float64,
    }  # fmt: skip
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return Table(frame, counts=("n", "missing"), withheld={(8, "n"): "<10", (10, "n"): "–"})


def _model() -> ModelFit:
    rows = [("Intercept", -3.214, 0.951), *((term, estimate, error) for term, estimate, error, _ in _TERMS)]
    frame = pl.DataFrame(
        {
            "term": [row[0] for row in rows],
            "estimate": [row[1] for row in rows],
            "std_error": [row[2] for row in rows],
            "statistic": [row[1] / row[2] for row in rows],
            "p_value": [0.0007, 0.031, 1e-9, 0.38, 3e-16, 0.21, 0.0005, 9e-6, 2e-10],
            "ci_low": [row[1] - 1.96 * row[2] for row in rows],
            "ci_high": [row[1] + 1.96 * row[2] for row in rows],
        }
    )
    return ModelFit(
        title=Words("Coronary heart disease, logistic regression", "관상동맥질환, 로지스틱 회귀"),
        coefficients=Table(frame, derived=("statistic", "p_value", "ci_low", "ci_high")),
        facts={
            "n": 815, "events": 450, "deviance": 703.412, "aic": 721.412, "family": "binomial",
            "formula": "disease ~ age + sex + chest_pain + pressure + heart_rate + exercise_angina + st_depression",
        },
        notes=(
            Words("Complete cases only: 105 people lack a value.", "결측 없는 사람만 분석: 105명은 값이 없습니다."),
        ),
        ratio=Words("Odds ratio", "오즈비"),
    )  # fmt: skip


def _forest(names: list[str]) -> tuple[ForestRow, ...]:
    from math import exp

    from dure.report.term_labels import term_words

    rows = []
    for term, estimate, error, shifts in _TERMS:
        ends = exp(estimate), exp(estimate - 1.96 * error), exp(estimate + 1.96 * error)
        points = [
            ForestPoint(Words("Federated", "연합"), "federated", *ends),
            ForestPoint(Words("Pooled", "통합"), "pooled", *ends),
        ]
        for name, shift, wider in zip(names, (*shifts[:2], shifts[2], None), (1.7, 1.8, 3.4, 0.0)):
            place = Words(name, name)
            if shift is None:
                points.append(ForestPoint(place, "local", status=SEPARATED))
            else:
                at = estimate + shift
                ends = exp(at), exp(at - 1.96 * wider * error), exp(at + 1.96 * wider * error)
                points.append(ForestPoint(place, "local", *ends))
        rows.append(ForestRow(term, term_words(term, LABELS), tuple(points)))
    return tuple(rows)


def _auroc(names: list[str]) -> tuple[AurocCell, ...]:
    places = [FEDERATED, *(Words(name, name) for name in names)]
    found = []
    for i, trained in enumerate(places[:4]):
        for j, tested in enumerate(places[1:]):
            if j == 2:
                found.append(AurocCell(trained, tested, withheld=FEW_WELL))
            else:
                found.append(AurocCell(trained, tested, 0.89 - 0.06 * j - 0.03 * i, HOSPITALS.get(tested.en, 200)))
    found += [AurocCell(places[4], tested, withheld=SEPARATED) for tested in places[1:]]
    return tuple(found)


def _calibration() -> tuple[CalibrationSeries, ...]:
    steps = [0.08, 0.19, 0.34, 0.5, 0.63, 0.77, 0.91]
    own = tuple(CalibrationPoint(p, p + 0.03 * (-1) ** k, 60 + 20 * k) for k, p in enumerate(steps))
    other = tuple(CalibrationPoint(p, min(1.0, p * 0.8 + 0.15), 90) for p in steps)
    return (
        CalibrationSeries(FEDERATED, own),
        CalibrationSeries(Words("Cleveland's model elsewhere", "다른 곳에서 쓴 클리블랜드 모형"), other),
    )


def _left(names: list[str], rounds: int, folds: bool) -> tuple[LeftEntry, ...]:
    site, rules = ("as_declared", "minimum_cohort"), ("as_declared", "minimum_cohort", "minimum_people")
    found = []
    for name in names:
        found.append(LeftEntry(name, "attrition", 0, "persons", (3,), 24, rules))
        for fold in (None, *(other for other in names if folds and other != name)):
            found.append(LeftEntry(name, "model", 0, "n", (), 8, rules, fold))
            for number in range(1, rounds + 1):
                found.append(LeftEntry(name, "model", number, "gradient", (9,), 72, site, fold))
                found.append(LeftEntry(name, "model", number, "hessian", (9, 9), 648, site, fold))
                found.append(LeftEntry(name, "model", number, "deviance", (), 8, site, fold))
    return tuple(found)
