"""What incidence rates say of their methods: a journal's paragraph, its references, figures and notes."""

from __future__ import annotations

from collections.abc import Callable

from dure.language import Words
from dure.methods.incidence.parameters import Parameters
from dure.study.result import Figure

GARWOOD = "Garwood F. Fiducial limits for the Poisson distribution. Biometrika. 1936;28(3-4):437-42."
MIDP = "Cohen GR, Yang SY. Mid-P confidence intervals for the Poisson expectation. Stat Med. 1994;13(21):2189-203."
PRZYBOROWSKI = (
    "Przyborowski J, Wilenski H. Homogeneity of results in testing samples from Poisson series. Biometrika. "
    "1940;31(3-4):313-23."
)
STUKEL = (
    "Stukel TA, Glynn RJ, Fisher ES, Sharp SM, Lu-Yao G, Wennberg JE. Standardized rates of recurrent outcomes. Stat "
    "Med. 1994;13(17):1781-91."
)
FAY = (
    "Fay MP, Feuer EJ. Confidence intervals for directly standardized rates: a method based on the gamma distribution. "
    "Stat Med. 1997;16(7):791-801."
)
BRESLOW = (
    "Breslow NE, Day NE. Statistical methods in cancer research. Volume II: the design and analysis of cohort studies. "
    "Lyon: International Agency for Research on Cancer; 1987."
)
POPULATIONS = {
    "who_2000_2025": (
        Words("the WHO world standard population 2000-2025", "WHO 세계표준인구(2000-2025)"),
        "Ahmad OB, Boschi-Pinto C, Lopez AD, Murray CJL, Lozano R, Inoue M. Age standardization of rates: a new WHO "
        "standard. GPE Discussion Paper Series no. 31. Geneva: World Health Organization; 2001.",
    ),
    "segi": (
        Words("Segi's world standard population", "Segi 세계표준인구"),
        "Doll R, Payne P, Waterhouse J, editors. Cancer incidence in five continents: a technical report. Berlin: "
        "Springer-Verlag; 1966.",
    ),
    "european_2013": (
        Words("the European standard population 2013", "유럽표준인구(2013)"),
        "Eurostat. Revision of the European Standard Population: report of Eurostat's task force. Luxembourg: "
        "Publications Office of the European Union; 2013.",
    ),
}
NO_STANDARD = Words(
    "A standardised rate is not told: a level has no person-time, or too few events count effectively. Merge levels.",
    "어떤 수준에 인시가 없거나 실제로 반영되는 사건이 너무 적어 표준화 발생률을 알리지 않았습니다. 수준을 합치십시오.",
)


def told(p: Parameters) -> tuple[Words, tuple[str, ...]]:
    """The paragraph and the works it cites, in order."""
    works: list[str] = []

    def cite(work: str) -> str:
        if work not in works:
            works.append(work)
        return f"[{works.index(work) + 1}]"

    level, said = f"{100 * p.level:g}%", _interval(p, cite)
    en = f"Incidence rates were events divided by person-time, with {level} {said.en}."
    ko = f"발생률은 사건 수를 인시로 나누어 구하고 {level} {said.ko}을 구하였다."
    if p.columns:
        if p.interval in ("exact", "mid_p"):
            by = cite(PRZYBOROWSKI)
            en += (
                f" Rate ratios were tested by the conditional binomial distribution {by}, differences by Wald's method."
            )
            ko += f" 발생률비는 조건부 이항분포로 {by}, 발생률차는 Wald 방법으로 검정하였다."
        else:
            en += " Rate ratios (on the logarithmic scale) and differences were compared by Wald's method."
            ko += " 발생률비(로그 척도)와 발생률차는 Wald 방법으로 비교하였다."
    if p.standard is not None:
        population = Words("a declared standard population", "미리 정한 표준인구")
        if isinstance(p.standard, str):
            population, source = POPULATIONS[p.standard]
            population = Words(f"{population.en} {cite(source)}", f"{population.ko} {cite(source)}")
        gamma = "" if p.interval == "robust" else cite(FAY)
        en += f" Rates were directly standardised over {p.over} to {population.en}"
        en += f", with gamma intervals {gamma}." if gamma else "."
        ko += f" 발생률은 {p.over}에 대해 {population.ko}로 직접 표준화하였다"
        ko += f"(감마 신뢰구간 {gamma})." if gamma else "."
    if p.reference is not None:
        ratio = cite(BRESLOW)
        en += f" Standardised incidence ratios compare the events with those expected at reference rates {ratio}."
        ko += f" 표준화 발생비는 사건 수를 기준 발생률에서 기대되는 수로 나누어 구하였다 {ratio}."
    return Words(en, ko), tuple(works)


def _interval(p: Parameters, cite: Callable[[str], str]) -> Words:
    if p.interval == "exact":
        return Words(f"exact Poisson intervals {cite(GARWOOD)}", f"정확 푸아송 신뢰구간 {cite(GARWOOD)}")
    if p.interval == "mid_p":
        return Words(f"mid-p Poisson intervals {cite(MIDP)}", f"mid-p 푸아송 신뢰구간 {cite(MIDP)}")
    if p.interval == "log_normal":
        return Words("intervals normal on the logarithmic scale", "로그 척도의 정규 신뢰구간")
    return Words(
        f"intervals from variances that allow for repeated events of a person {cite(STUKEL)}",
        f"한 사람의 반복 사건을 반영한 분산의 신뢰구간 {cite(STUKEL)}",
    )


def figures(p: Parameters) -> dict[str, Figure]:
    per = Words(f"Events per {p.per:g} of person-time", f"인시 {p.per:g}당 사건")
    group, title = Words("Group", "집단"), Words("Incidence rates", "발생률")
    found = {"rates": Figure("forest", "rates", "rate", "group", title, per, group, low="ci_low", high="ci_high")}
    if p.standard is not None:
        title = Words("Standardised rates", "표준화 발생률")
        found["standardised"] = Figure(
            "forest", "standardised", "rate", "group", title, per, group, low="ci_low", high="ci_high"
        )
    if p.columns:
        found["rate_ratios"] = Figure(
            "forest", "rate_ratios", "estimate", "term", Words("Rate ratios", "발생률비"),
            Words("Rate ratio", "발생률비"), Words("Groups", "집단"), low="ci_low", high="ci_high", group="measure",
            log=True, rule=(1.0,),
        )  # fmt: skip
    return found
