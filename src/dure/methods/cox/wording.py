"""The sentences of a paper's methods section, from what was asked alone, and the works they rest on."""

from __future__ import annotations

from dure.language import Words
from dure.methods.cox.parameters import Parameters

COX = "Cox DR. Regression models and life-tables. J R Stat Soc Series B Stat Methodol. 1972;34(2):187-220."
EFRON = "Efron B. The efficiency of Cox's likelihood function for censored data. J Am Stat Assoc. 1977;72(359):557-65."
BRESLOW = "Breslow N. Covariance analysis of censored survival data. Biometrics. 1974;30(1):89-99."
LIN_WEI = (
    "Lin DY, Wei LJ. The robust inference for the Cox proportional hazards model. J Am Stat Assoc. 1989;84(408):1074-8."
)
GRAMBSCH = (
    "Grambsch PM, Therneau TM. Proportional hazards tests and diagnostics based on weighted residuals. "
    "Biometrika. 1994;81(3):515-26."
)
HARRELL = (
    "Harrell FE, Califf RM, Pryor DB, Lee KL, Rosati RA. Evaluating the yield of medical tests. "
    "JAMA. 1982;247(18):2543-6."
)
CHANGES = {
    "identity": Words("time", "시간"),
    "log": Words("the logarithm of time", "시간의 로그"),
    "km": Words("the Kaplan–Meier curve", "카플란–마이어 곡선"),
    "rank": Words("the rank of times", "시간의 순위"),
}


def paragraph(p: Parameters) -> tuple[Words, tuple[str, ...]]:
    """Korean and English, with references in the order in which they are cited."""
    cited = [COX, EFRON if p.ties == "efron" else BRESLOW]
    ties = Words("Efron's", "Efron") if p.ties == "efron" else Words("Breslow's", "Breslow")
    columns = ", ".join(p.strata_columns)
    if p.by_hospital:
        within = Words(
            f"stratified by hospital{f' and {columns}' if columns else ''}",
            f"병원{f'과 {columns}' if columns else ''}별로 층화한",
        )
    else:
        within = Words(
            f"{f'stratified by {columns}, ' if columns else ''}with one baseline hazard across hospitals and follow-up "
            f"times grouped into {len(p.points())} intervals",
            f"{f'{columns}별로 층화하고 ' if columns else ''}모든 병원에 같은 기저위험을 두며 "
            f"추적 시간을 {len(p.points())}개 구간으로 묶은",
        )
    en = [
        f"Hazard ratios were estimated by a Cox proportional hazards model {within.en} [1], with {ties.en} method for "
        f"tied event times [2]"
    ]
    ko = [f"위험비는 {within.ko} 콕스 비례위험모형[1]으로 추정했고, 동시 사건은 {ties.ko} 방법[2]으로 처리했다."]
    if p.entry:
        en.append(f"; people were at risk from '{p.entry}' (left truncation)")
        ko.append(f"관찰은 '{p.entry}' 시점부터 시작하는 것으로 보았다(좌측 절단).")
    if p.weights:
        en.append(f"; rows were weighted by '{p.weights}'")
        ko.append(f"각 행에 '{p.weights}' 가중치를 주었다.")
    text_en = "".join(en) + "."
    if p.robust:
        cited.append(LIN_WEI)
        text_en += f" Standard errors were robust{f', clustered by {p.cluster}' if p.cluster else ''} [{len(cited)}]."
        ko.append(f"표준오차는 {f'{p.cluster} 단위로 묶은 ' if p.cluster else ''}로버스트 추정량을 썼다[{len(cited)}].")
    if p.schoenfeld:
        cited.append(GRAMBSCH)
        change = CHANGES[p.schoenfeld]
        text_en += f" Proportional hazards were tested against effects that change with {change.en} [{len(cited)}]."
        ko.append(f"비례위험 가정은 효과가 {change.ko}에 따라 변하는지로 검정했다[{len(cited)}].")
    if p.concordance:
        cited.append(HARRELL)
        text_en += f" Discrimination was measured by concordance over pairs within strata [{len(cited)}]."
        ko.append(f"변별력은 층 안의 짝으로 센 일치도로 평가했다[{len(cited)}].")
    return Words(text_en, " ".join(ko)), tuple(cited)
