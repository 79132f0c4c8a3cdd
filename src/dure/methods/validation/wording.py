"""What a validation says of itself: the methods section's sentences, their references, and its figures."""

from __future__ import annotations

from dure.language import Words
from dure.methods.validation.parameters import Parameters
from dure.study.result import Figure

DELONG = (
    "DeLong ER, DeLong DM, Clarke-Pearson DL. Comparing the areas under two or more correlated receiver operating "
    "characteristic curves: a nonparametric approach. Biometrics. 1988;44(3):837-45."
)
CALIBRATION = (
    "Van Calster B, McLernon DJ, van Smeden M, Wynants L, Steyerberg EW. Calibration: the Achilles heel of predictive "
    "analytics. BMC Med. 2019;17(1):230."
)
BRIER = (
    "Steyerberg EW, Vickers AJ, Cook NR, Gerds T, Gonen M, Obuchowski N, et al. Assessing the performance of "
    "prediction models: a framework for traditional and novel measures. Epidemiology. 2010;21(1):128-38."
)
DECISION = (
    "Vickers AJ, Elkin EB. Decision curve analysis: a novel method for evaluating prediction models. "
    "Med Decis Making. 2006;26(6):565-74."
)
DEBRAY = (
    "Debray TPA, Damen JAAG, Snell KIE, Ensor J, Hooft L, Reitsma JB, et al. A guide to systematic review and "
    "meta-analysis of prediction model performance. BMJ. 2017;356:i6460."
)


def written(p: Parameters) -> tuple[Words, tuple[str, ...]]:
    """Two or three sentences from the parameters alone, and the works they cite, in order."""
    works = [DELONG]
    first = Words(
        f"Discrimination was assessed within each hospital by the area under the receiver operating characteristic "
        f"curve (AUROC) with {100 * p.level:g}% confidence intervals from DeLong's variance on the logit scale [1]",
        f"판별력은 병원마다 수신자 조작 특성 곡선 아래 면적(AUROC)으로 평가하고, DeLong 분산을 로짓 척도에 적용하여 "
        f"{100 * p.level:g}% 신뢰구간을 구하였다 [1]",
    )
    more_en, more_ko = "", ""
    if p.resolution:
        more_en = f"; over all people it was computed from scores rounded to {p.resolution:g}"
        more_ko = f". 전체 대상자의 AUROC는 {p.resolution:g} 단위로 반올림한 점수로 구하였다"
    english, korean = f"{first.en}{more_en}.", f"{first.ko}{more_ko}."
    if p.probabilities:
        works += [CALIBRATION, BRIER]
        english += (
            " Calibration was assessed by calibration-in-the-large, the calibration slope, the ratio of observed to "
            "expected events and a calibration plot [2], and overall performance by the Brier score [3]."
        )
        korean += (
            " 보정도는 전반적 보정(calibration-in-the-large), 보정 기울기, 관찰/기대 사건 비와 보정 그림으로 [2], "
            "전반적 성능은 Brier 점수로 [3] 평가하였다."
        )
        if p.thresholds:
            works.append(DECISION)
            english += f" Clinical usefulness was judged by decision curve analysis [{len(works)}]."
            korean += f" 임상적 유용성은 의사결정곡선 분석 [{len(works)}]으로 평가하였다."
    if p.summary:
        works.append(DEBRAY)
        english += (
            f" Hospitals were summarised by random-effects meta-analysis with prediction intervals [{len(works)}]."
        )
        korean += f" 병원별 결과는 무작위효과 메타분석과 예측구간으로 요약하였다 [{len(works)}]."
    return Words(english, korean), tuple(works)


def figures(p: Parameters) -> dict[str, Figure]:
    """What to draw: AUROC by hospital, the calibration plot, the decision curve."""
    found = {
        "auroc": Figure(
            "forest",
            "auroc",
            x="auroc",
            y="hospital",
            low="ci_low",
            high="ci_high",
            group="score",
            title=Words("Discrimination in each hospital", "병원별 판별력"),
            x_title=Words("AUROC", "AUROC"),
            y_title=Words("Hospital", "병원"),
            rule=(0.5,),
        )
    }
    if p.probabilities:
        found["calibration"] = Figure(
            "points",
            "calibration",
            x="predicted",
            y="observed",
            group="score",
            title=Words("Calibration", "보정도"),
            x_title=Words("Predicted probability", "예측 확률"),
            y_title=Words("Observed proportion", "관찰 비율"),
            diagonal=True,
        )
    if p.thresholds and p.probabilities:
        found["net_benefit"] = Figure(
            "lines",
            "net_benefit",
            x="threshold",
            y="net_benefit",
            group="strategy",
            title=Words("Decision curve", "의사결정곡선"),
            x_title=Words("Threshold probability", "문턱 확률"),
            y_title=Words("Net benefit", "순편익"),
            rule=(0.0,),
        )
    return found
