"""What a survival analysis says of its methods: a journal's paragraph, its references, figures and notes."""

from __future__ import annotations

from collections.abc import Callable

from dure.language import Words
from dure.methods.survival.parameters import Parameters
from dure.study.result import Figure

KAPLAN = (
    "Kaplan EL, Meier P. Nonparametric estimation from incomplete observations. J Am Stat Assoc. 1958;53(282):457-81."
)
GREENWOOD = (
    "Greenwood M. The natural duration of cancer. Reports on Public Health and Medical Subjects, no. 33. London: HMSO; "
    "1926."
)
MANTEL = (
    "Mantel N. Evaluation of survival data and two new rank order statistics arising in its consideration. Cancer "
    "Chemother Rep. 1966;50(3):163-70."
)
FLEMING = (
    "Harrington DP, Fleming TR. A class of rank test procedures for censored survival data. Biometrika. "
    "1982;69(3):553-66."
)
GEHAN = (
    "Gehan EA. A generalized Wilcoxon test for comparing arbitrarily singly-censored samples. Biometrika. "
    "1965;52(1-2):203-23."
)
TARONE = (
    "Tarone RE, Ware J. On distribution-free tests for equality of survival distributions. Biometrika. "
    "1977;64(1):156-60."
)
XIE = (
    "Xie J, Liu C. Adjusted Kaplan-Meier estimator and log-rank test with inverse probability of treatment weighting "
    "for survival data. Stat Med. 2005;24(20):3089-110."
)
UNO = (
    "Uno H, Claggett B, Tian L, Inoue E, Gallo P, Miyata T, et al. Moving beyond the hazard ratio in quantifying the "
    "between-group difference in survival analysis. J Clin Oncol. 2014;32(22):2380-5."
)
AALEN = (
    "Aalen OO, Johansen S. An empirical transition matrix for non-homogeneous Markov chains based on censored "
    "observations. Scand J Stat. 1978;5(3):141-50."
)
BROOKMEYER = (
    "Brookmeyer R, Crowley J. A confidence interval for the median survival time. Biometrics. 1982;38(1):29-41."
)

SCALES = {
    "log-log": Words("log-minus-log", "로그-로그"),
    "log": Words("logarithmic", "로그"),
    "plain": Words("untransformed", "변환하지 않은"),
    "logit": Words("logit", "로짓"),
    "arcsine": Words("arcsine square-root", "아크사인 제곱근"),
}


def told(p: Parameters) -> tuple[Words, tuple[str, ...]]:
    """The paragraph and the works it cites, in order."""
    works: list[str] = []

    def cite(work: str) -> str:
        if work not in works:
            works.append(work)
        return f"[{works.index(work) + 1}]"

    scale, level = SCALES[p.transform], f"{100 * p.level:g}%"
    weighted = Words("Weighted survival", "가중 생존율") if p.weights else Words("Survival", "생존율")
    kaplan = cite(KAPLAN)
    green = "" if p.robustly else cite(GREENWOOD)
    errors = (
        Words("infinitesimal-jackknife standard errors", "무한소 잭나이프 표준오차")
        if p.robustly
        else Words(f"Greenwood's standard errors {green}", f"Greenwood 표준오차 {green}")
    )
    late = (", with delayed entry (left truncation)", " 지연 진입(좌측 절단)을 반영하여") if p.entry else ("", "")
    median = cite(BROOKMEYER)
    en = (
        f"{weighted.en} was estimated by the Kaplan–Meier method {kaplan}{late[0]} on times grouped at the ends of "
        f"prespecified intervals, with {errors.en} and {level} confidence intervals on the {scale.en} scale; medians "
        f"have intervals by inversion of those limits {median}."
    )
    ko = (
        f"{weighted.ko}은 미리 정한 구간의 끝으로 묶은 시간에서 Kaplan–Meier 방법{kaplan}으로{late[1]} 추정하였고, "
        f"{errors.ko}와 {scale.ko} 척도의 {level} 신뢰구간을 구하였다. "
        f"중앙값의 신뢰구간은 그 한계를 뒤집어 구하였다 {median}."
    )
    if p.causes:
        aalen = cite(AALEN)
        en += f" Cumulative incidences of competing events were estimated by the Aalen–Johansen method {aalen}."
        ko += f" 경쟁 사건의 누적발생률은 Aalen–Johansen 방법 {aalen}으로 추정하였다."
    if p.group:
        test = _test(p, cite)
        mean = cite(UNO)
        by = p.by_strata
        apart = (f", stratified by {' and '.join(by)}", f"{'·'.join(by)}(으)로 층화한 ") if by else ("", "")
        en += (
            f" Groups were compared by the {test.en}{apart[0]}, and by differences and ratios of restricted mean "
            f"survival time {mean}."
        )
        ko += f" 집단은 {apart[1]}{test.ko}과 제한평균생존시간의 차이와 비 {mean}로 비교하였다."
    return Words(en, ko), tuple(works)


def _test(p: Parameters, cite: Callable[[str], str]) -> Words:
    weighting = f" {cite(XIE)}" if p.weights else ""
    if p.test == "gehan":
        said = Words(f"Gehan–Wilcoxon test {cite(GEHAN)}", f"Gehan–Wilcoxon 검정 {cite(GEHAN)}")
    elif p.test == "tarone_ware":
        said = Words(f"Tarone–Ware test {cite(TARONE)}", f"Tarone–Ware 검정 {cite(TARONE)}")
    elif p.rho or p.gamma:
        bent = f"ρ = {p.rho:g}, γ = {p.gamma:g}"
        said = Words(
            f"Fleming–Harrington test ({bent}) {cite(FLEMING)}", f"Fleming–Harrington 검정({bent}) {cite(FLEMING)}"
        )
    else:
        said = Words(f"log-rank test {cite(MANTEL)}", f"로그순위 검정 {cite(MANTEL)}")
    return Words(said.en + weighting, said.ko + weighting)


def figures(p: Parameters) -> dict[str, Figure]:
    time = Words("Time", "시간")
    found = {
        "curve": Figure(
            "steps", "curve", "time", "survival", Words("Survival", "생존곡선"), time, Words("Survival", "생존율"),
            low="ci_low", high="ci_high", group="group", start=(0.0, 1.0),
        ),
    }  # fmt: skip
    if p.group:
        found["rmst"] = Figure(
            "forest", "rmst", "rmst", "group", Words("Restricted mean survival time", "제한평균생존시간"), time,
            Words("Group", "집단"), low="ci_low", high="ci_high",
        )  # fmt: skip
    return found


COARSER = Words(
    "Points of the declared grid or times lie closer than the rules allow to show: the curve stands only where enough "
    "events lie between its points. Medians, restricted means and tests use the declared grid.",
    "선언한 격자점이나 때가 규칙이 보이도록 허용하는 것보다 촘촘합니다. 곡선은 점 사이에 사건이 충분한 곳만 보입니다. "
    "중앙값, 제한평균, 검정은 선언한 격자로 계산했습니다.",
)
NOT_COMPARED = Words(
    "The groups are not compared: too few events stand behind one of them.",
    "집단을 비교하지 않았습니다: 사건이 너무 적은 집단이 있습니다.",
)
ANY_CAUSE = Words(
    "Causes compete: curves, medians, means and tests are of the first event of any cause; cumulative incidence tells "
    "each cause by itself.",
    "사건이 서로 경쟁합니다. 곡선, 중앙값, 평균, 검정은 원인을 가리지 않은 첫 사건에 대한 것이고, "
    "누적발생률이 원인별로 알려 줍니다.",
)
DOMINATED = Words(
    "Numbers of a group are withheld: its weights are so uneven that they stand for too few people.",
    "가중치가 너무 고르지 않아 실제로는 적은 사람을 나타내므로 그 집단의 수치를 공개하지 않았습니다.",
)
EMPTY_RISK = Words(
    "A curve fell to zero while people were still to enter; with delayed entry it then says nothing of later times. "
    "Let the grid begin later, or widen its first interval.",
    "아직 진입할 사람이 있는데 곡선이 0이 되었습니다. 지연 진입에서는 그 뒤의 시간을 말해 주지 못합니다. "
    "격자를 더 늦게 시작하거나 첫 구간을 넓히십시오.",
)
BEYOND = Words(
    "The restricted mean of a group is not told: nobody of it is followed to tau.",
    "tau까지 추적된 사람이 없는 집단의 제한평균은 알리지 않았습니다.",
)
