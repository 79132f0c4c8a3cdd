"""What weighting says of itself: a journal's paragraph with its references, and notes."""

from __future__ import annotations

from dure.language import Words
from dure.methods.weighting.parameters import Parameters

ROSENBAUM = (
    "Rosenbaum PR, Rubin DB. The central role of the propensity score in observational studies for causal effects. "
    "Biometrika. 1983;70(1):41-55."
)
ROBINS = (
    "Robins JM, Hernán MA, Brumback B. Marginal structural models and causal inference in epidemiology. Epidemiology. "
    "2000;11(5):550-60."
)
LI = (
    "Li F, Morgan KL, Zaslavsky AM. Balancing covariates via propensity score weighting. J Am Stat Assoc. "
    "2018;113(521):390-400."
)
GREENE = (
    "Li L, Greene T. A weighting analogue to pair matching in propensity score analysis. Int J Biostat. "
    "2013;9(2):215-34."
)
ZHOU = (
    "Zhou Y, Matsouaka RA, Thomas L. Propensity score weighting under limited overlap and model misspecification. Stat "
    "Methods Med Res. 2020;29(12):3721-56."
)
CRUMP = (
    "Crump RK, Hotz VJ, Imbens GW, Mitnik OA. Dealing with limited overlap in estimation of average treatment effects. "
    "Biometrika. 2009;96(1):187-99."
)
WALKER = (
    "Walker AM, Patrick AR, Lauer MS, Hornbrook MC, Marin MG, Platt R, et al. A tool for assessing the feasibility of "
    "comparative effectiveness research. Comp Eff Res. 2013;3:11-20."
)
AUSTIN = (
    "Austin PC. Balance diagnostics for comparing the distribution of baseline covariates between treatment groups in "
    "propensity-score matched samples. Stat Med. 2009;28(25):3083-107."
)
LUNCEFORD = (
    "Lunceford JK, Davidian M. Stratification and weighting via the propensity score in estimation of causal treatment "
    "effects: a comparative study. Stat Med. 2004;23(19):2937-60."
)

KINDS = {
    "ate": (Words("inverse probability of treatment", "치료 확률의 역수"), ROBINS),
    "att": (
        Words("odds of treatment in controls (weights for the treated)", "대조군에서 치료 오즈(치료군 기준)"),
        ROBINS,
    ),
    "atc": (
        Words("odds of control in the treated (weights for controls)", "치료군에서 비치료 오즈(대조군 기준)"),
        ROBINS,
    ),
    "overlap": (Words("overlap weights", "중첩 가중치"), LI),
    "matching": (Words("matching weights", "매칭 가중치"), GREENE),
    "entropy": (Words("entropy weights", "엔트로피 가중치"), ZHOU),
}
TARGETS = {
    "ate": "all people (ATE)",
    "att": "the treated (ATT)",
    "atc": "controls (ATC)",
    "overlap": "the overlap population (ATO)",
    "matching": "people who could be matched (ATM)",
    "entropy": "people in equipoise (ATEN)",
}


def told(p: Parameters, stacked: bool) -> tuple[Words, tuple[str, ...]]:
    """The paragraph and the works it cites, in order."""
    works: list[str] = []

    def cite(work: str) -> str:
        if work not in works:
            works.append(work)
        return f"[{works.index(work) + 1}]"

    kind, work = KINDS[p.kind]
    steady = ("stabilised ", "안정화한 ") if p.stabilised else ("", "")
    en = f"People were weighted by the propensity score {cite(ROSENBAUM)} with {steady[0]}{kind.en} {cite(work)}"
    ko = f"성향점수{cite(ROSENBAUM)}로 {steady[1]}{kind.ko}{cite(work)}를 가중치로 주었다"
    if p.trim:
        what = ("preference score", "선호 점수") if p.trim_on == "preference" else ("propensity score", "성향점수")
        from_ = cite(WALKER if p.trim_on == "preference" else CRUMP)
        en += f"; people with a {what[0]} outside {p.trim[0]:g} to {p.trim[1]:g} were left out {from_}"
        ko += f". {what[1]}가 {p.trim[0]:g}~{p.trim[1]:g}을 벗어난 사람은 제외하였다{from_}"
    if p.truncate:
        en += f"; propensity scores were truncated at {p.truncate[0]:g} and {p.truncate[1]:g}"
        ko += f". 성향점수는 {p.truncate[0]:g}와 {p.truncate[1]:g}에서 절단하였다"
    en, ko = en + ".", ko + "."
    if p.balance:
        en += f" Balance was judged by standardised mean differences, 0.1 or less being good {cite(AUSTIN)}."
        ko += f" 균형은 표준화 평균 차이로 보았고 0.1 이하이면 좋다고 판단하였다{cite(AUSTIN)}."
    if p.outcome:
        how = (
            Words(
                f"sandwich standard errors that account for the estimated score {cite(LUNCEFORD)}",
                f"점수의 추정을 반영한 샌드위치 표준오차{cite(LUNCEFORD)}",
            )
            if stacked
            else Words(
                "robust standard errors that take the weights as known", "가중치를 아는 값으로 본 로버스트 표준오차"
            )
        )
        en += f" Weighted means of the outcome were compared with {how.en} and {100 * p.level:g}% confidence intervals."
        ko += f" 결과 변수의 가중 평균을 {how.ko}와 {100 * p.level:g}% 신뢰구간으로 비교하였다."
    return Words(en, ko), tuple(works)


AS_KNOWN = Words(
    "Standard errors take the weights as known: the score is penalised, comes from outside the study's steps, or "
    "robust errors were asked. For the whole population (ate) such intervals are usually too wide.",
    "표준오차는 가중치를 아는 값으로 보았습니다(점수가 벌점 추정이거나 이 연구의 단계에서 온 것이 아니거나 "
    "robust를 요청). 전체 집단(ate)에서는 이런 구간이 대개 넓은 편입니다.",
)
NOT_MAXIMAL = Words(
    "Standard errors take the weights as known: on these people the score's model is not at its maximum likelihood (it "
    "was weighted, penalised, or fitted on other people).",
    "표준오차는 가중치를 아는 값으로 보았습니다. 이 사람들에서 점수 모형이 최대가능도에 있지 않습니다"
    "(가중·벌점 추정이거나 다른 사람들에서 적합).",
)
TRIMMED = Words(
    "The bounds of trimming are taken as fixed in the standard errors; results speak of the people left only.",
    "표준오차에서 제외 기준은 고정된 것으로 보았으며, 결과는 남은 사람들에만 해당합니다.",
)
