"""The report's own words in both languages: headings, explanations, column names."""

from __future__ import annotations

from dure.language import Words
from dure.report.headings import STATISTICS

PHRASES: dict[str, Words] = {
    "report": Words("Study report", "연구 보고서"),
    "contents": Words("Contents", "차례"),
    "results": Words("Results", "결과"),
    "answered_by": Words(
        "From {hospitals}; rounds: {rounds}.",
        "참여: {hospitals}. 라운드: {rounds}회.",
    ),
    "no_answer": Words("No answer", "답 없음"),
    "rounded_to": Words(
        "Counts of people are rounded to {number}, so parts may not add up to their whole.",
        "사람 수는 {number} 단위로 반올림했으므로 부분의 합이 전체와 다를 수 있습니다.",
    ),
    "suppressed_about": Words(
        "A dotted cell is withheld; its reason is shown in it.",
        "점선이 있는 칸은 공개하지 않은 값이며 그 이유를 칸에 적었습니다.",
    ),
    "methods_paragraph": Words("For the methods section", "논문의 방법 항목에 쓸 문단"),
    "provenance": Words("Parameters, hashes, versions", "매개변수, 해시, 버전"),
    "skip": Words("Skip to the report", "본문으로 건너뛰기"),
    "study_hash": Words("Study document", "연구 문서"),
    "made": Words("Made", "작성"),
    "people": Words("people", "대상자"),
    "hospitals": Words("hospitals", "병원"),
    "messages_left": Words("messages left the hospitals", "병원 밖으로 나간 메시지"),
    "numbers_left": Words("numbers in them", "그 안의 숫자"),
    "at_a_glance": Words("At a glance", "한눈에 보기"),
    "owner_note": Words("Note", "알림"),
    "question": Words("The question", "연구 질문"),
    "where": Words("Hospitals", "참여 병원"),
    "where_about": Words(
        "Each hospital kept its patients' rows. Only the sums listed below left it. Released counts are rounded to 5, "
        "so parts may not add up to their whole.",
        "환자 자료는 각 병원 안에 그대로 있었습니다. 아래에 적힌 합계만 밖으로 나갔습니다. "
        "공개하는 수는 5 단위로 반올림하므로 부분의 합이 전체와 다를 수 있습니다.",
    ),
    "attrition": Words("Who remains", "대상자 선정"),
    "attrition_about": Words(
        "People left after each criterion, all hospitals together.",
        "기준을 차례로 적용한 뒤 남은 사람 수이며, 모든 병원을 합한 것입니다.",
    ),
    "table_one": Words("Table 1", "표 1"),
    "table_one_about": Words(
        "Who the people are. A dotted cell is withheld; its reason is shown in it.",
        "대상자의 특성. 점선이 있는 칸은 공개하지 않은 값이며 그 이유를 칸에 적었습니다.",
    ),
    "model": Words("The model", "모형"),
    "model_about": Words(
        "Fitted from sums over the hospitals, without bringing rows together.",
        "환자 자료를 한곳에 모으지 않고 병원별 합계만으로 적합한 모형입니다.",
    ),
    "forest": Words("Odds ratios: federated, pooled, single hospitals", "오즈비: 연합·통합·병원별"),
    "forest_about": Words(
        "Lines are confidence intervals; an arrow marks one that runs beyond the axis. Where the diamond sits on "
        "the dot, federated and pooled agree.",
        "선은 신뢰구간이고, 화살표는 축을 벗어난 구간입니다. 마름모가 점과 겹치면 연합과 통합이 같은 것입니다.",
    ),
    "discrimination": Words("How well it predicts", "예측력"),
    "discrimination_about": Words(
        "Area under the ROC curve: 0.5 is a coin toss, 1 ranks everybody rightly. The model of each row is tested "
        "on the people of each column. Where those people also trained it, the number flatters; the row that leaves "
        "the tested hospital out, and cells off the diagonal of single hospitals, are the honest ones.",
        "ROC 곡선 아래 면적. 0.5는 동전 던지기, 1은 완벽한 순위입니다. 각 행의 모형을 각 열의 사람들에게 시험했습니다. "
        "그 사람들로 학습한 모형의 수치는 후하게 나옵니다. "
        "시험 병원을 뺀 행과, 다른 병원에서 시험한 칸이 정직한 수치입니다.",
    ),
    "calibration": Words("Calibration", "보정도"),
    "calibration_about": Words(
        "Observed share of events against the predicted one, in groups of people; on the dashed line they agree.",
        "집단별로 관찰된 비율을 예측 확률과 견준 것입니다. 점선 위에서는 둘이 같습니다.",
    ),
    "left": Words("What left each hospital", "병원 밖으로 나간 것"),
    "left_about": Words(
        "Every array that passed a hospital's gate, as the hub received it; its own audit log lists the same.",
        "병원의 관문을 지나 허브가 받은 모든 배열이며, 각 병원의 감사 기록에도 똑같이 적혀 있습니다.",
    ),
    "left_full": Words("Complete listing", "전체 목록"),
    "rules_meaning": Words("What the rules say", "규칙의 뜻"),
    "checked": Words("How it was checked", "확인한 방법"),
    "documents": Words("Documents and sources", "문서와 출처"),
    "next": Words("How to go on", "다음에 할 일"),
    "steps": Words("Steps of the run", "실행 단계"),
    "as_table": Words("The figure as a table", "그림을 표로 보기"),
    "headline_equal": Words(
        "Federated equals pooled: largest relative difference {difference}.",
        "연합 분석과 통합 분석이 같습니다: 가장 큰 상대 차이 {difference}.",
    ),
    "headline_differs": Words(
        "Federated and pooled differ: largest relative difference {difference}.",
        "연합 분석과 통합 분석이 다릅니다: 가장 큰 상대 차이 {difference}.",
    ),
    "headline_unchecked": Words(
        "Fitted from sums; not compared with a pooled fit.",
        "합계만으로 적합했으며, 통합 분석과 견주지는 않았습니다.",
    ),
    "oracle": Words(
        "Compared with {against}: coefficients differ by at most {coefficients}, standard errors by at most "
        "{std_errors} (relative).",
        "비교 대상: {against}. 상대 차이는 계수에서 최대 {coefficients}, 표준오차에서 최대 {std_errors}입니다.",
    ),
    "departed": Words(
        "{messages} messages, {numbers} numbers, {bytes}", "메시지 {messages}개, 숫자 {numbers}개, {bytes}"
    ),
    "entries": Words("arrays: {count}", "배열 {count}개"),
    "federated": Words("Federated", "연합"),
    "pooled": Words("Pooled", "통합"),
    "odds_ratio": Words("Odds ratio", "오즈비"),
    "effect": Words("Odds ratio (log scale)", "오즈비(로그 눈금)"),
    "confidence": Words("95% CI", "95% 신뢰구간"),
    "predicted": Words("Predicted", "예측"),
    "observed": Words("Observed", "관찰"),
    "tested_at": Words("Tested at", "시험한 곳"),
    "trained_at": Words("Trained at", "학습한 곳"),
    "all_people": Words("Total", "합계"),
    "aria_forest": Words(
        "Forest plot of {terms} terms; every number is in the table below.",
        "항 {terms}개의 숲 그림. 모든 수치는 아래 표에 있습니다.",
    ),
    "aria_auroc": Words(
        "AUROC of models trained at {rows} and tested at {columns} places; every number is in the table below.",
        "{rows}곳에서 학습하고 {columns}곳에서 시험한 모형의 AUROC. 모든 수치는 아래 표에 있습니다.",
    ),
    "aria_calibration": Words(
        "Calibration of {models} models; every number is in the table below.",
        "모형 {models}개의 보정 그림. 모든 수치는 아래 표에 있습니다.",
    ),
    "mean_sd": Words("mean (SD)", "평균(표준편차)"),
    "median_quartiles": Words("median [quartiles]", "중앙값 [사분위수]"),
    "small": Words(
        "Withheld: too few people ({shown}) to show without risk to them",
        "공개 안 함: 사람 수가 너무 적어({shown}) 개인이 드러날 수 있음",
    ),
    "beside": Words(
        "Withheld: it would give away a suppressed number beside it",
        "공개 안 함: 옆의 가려진 수를 알아낼 수 있음",
    ),
    "done": Words("Done", "완료"),
    "waiting": Words("Waiting", "대기"),
    "refused": Words("Refused", "거절"),
    "failed": Words("Failed", "실패"),
}

HEADINGS: dict[str, Words] = {
    "term": Words("Term", "항"),
    "estimate": Words("Coefficient", "계수"),
    "std_error": Words("Std. error", "표준오차"),
    "statistic": Words("Statistic", "통계량"),
    "p_value": Words("p", "p값"),
    "ci": Words("95% CI", "95% 신뢰구간"),
    "ci_low": Words("Lower", "하한"),
    "ci_high": Words("Upper", "상한"),
    "criterion": Words("Criterion", "기준"),
    "n": Words("People", "사람 수"),
    "people": Words("People", "사람 수"),
    "persons": Words("People", "사람 수"),
    "variable": Words("Variable", "변수"),
    "level": Words("Level", "수준"),
    "mean": Words("Mean", "평균"),
    "sd": Words("SD", "표준편차"),
    "missing": Words("Missing", "결측"),
    "all": Words("All", "전체"),
    "percent": Words("%", "%"),
    "smd": Words("SMD", "표준화 차이"),
    "hospital": Words("Hospital", "병원"),
    "site": Words("Hospital", "병원"),
    "step": Words("Step", "단계"),
    "round": Words("Round", "회차"),
    "array": Words("Array", "배열"),
    "shape": Words("Shape", "모양"),
    "bytes": Words("Size", "크기"),
    "rules": Words("Rules passed", "통과한 규칙"),
    "fold": Words("Left out", "제외한 병원"),
    "messages": Words("Messages", "메시지"),
    "numbers": Words("Numbers", "숫자"),
    "status": Words("Status", "상태"),
    "reason": Words("Why", "이유"),
    "seconds": Words("Seconds", "초"),
    "series": Words("Fit", "분석"),
    "events": Words("Events", "사건"),
    "deviance": Words("Deviance", "이탈도"),
    "log_likelihood": Words("Log-likelihood", "로그 가능도"),
    "aic": Words("AIC", "AIC"),
    "dispersion": Words("Dispersion", "산포"),
    "family": Words("Family", "분포족"),
    "formula": Words("Formula", "모형식"),
    "model": Words("Model", "모형"),
    "median": Words("Median", "중앙값"),
    "q1": Words("1st quartile", "제1사분위수"),
    "q3": Words("3rd quartile", "제3사분위수"),
    "smd_weighted": Words("SMD, weighted", "가중 표준화 차이"),
    "differences": Words("Differences between groups", "집단 간 차이"),
    "attrition": Words("Who remains", "대상자 선정"),
    "subgroup": Words("Subgroup", "하위군"),
    "hospitals": Words("Hospitals", "병원 수"),
    "cause": Words("Cause", "원인"),
    "incidence": Words("Cumulative incidence", "누적발생률"),
    "cumulative_incidence": Words("Cumulative incidence", "누적발생률"),
    "standardised_ratios": Words("Standardised incidence ratios", "표준화 발생비"),
    "stratum": Words("Stratum", "층"),
    "hazard": Words("Cumulative hazard", "누적위험"),
    "score_test": Words("Score test (χ²)", "점수 검정(χ²)"),
    "score_test_p": Words("p (score)", "p값(점수)"),
    "rows": Words("Rows", "행 수"),
    "concordance": Words("Concordance", "일치도"),
    "forest": Words("Forest plot", "숲그림"),
    "subgroups": Words("Subgroups", "하위군"),
    "summary": Words("Summary", "요약"),
}


HEADINGS |= STATISTICS


def phrase(name: str, **fields: object) -> Words:
    """A phrase, its `{fields}` filled in; a field may itself be Words."""
    words = PHRASES[name]
    if not fields:
        return words
    return Words(
        words.en.format(**{key: _in(value, "en") for key, value in fields.items()}),
        words.ko.format(**{key: _in(value, "ko") for key, value in fields.items()}),
    )


def _in(value: object, language: str) -> object:
    return value if not isinstance(value, Words) else (value.ko if language == "ko" else value.en)
