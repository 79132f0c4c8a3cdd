"""A meta-analysis as tables: pooled effects, heterogeneity, each hospital's estimate, and leaving one out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import special

from dure.errors import NoEstimate, NotConverged
from dure.estimation import random_effects
from dure.estimation.random_effects import Combined, Effect
from dure.language import Words
from dure.methods.meta_analysis.parameters import Parameters
from dure.study.method import Question
from dure.study.result import Figure, Result, Table

Vector = NDArray[np.float64]

LAIRD = "DerSimonian R, Laird N. Meta-analysis in clinical trials. Control Clin Trials. 1986;7(3):177-88."
REML = (
    "Viechtbauer W. Bias and efficiency of meta-analytic variance estimators in the random-effects model. "
    "J Educ Behav Stat. 2005;30(3):261-93."
)
MANDEL = "Paule RC, Mandel J. Consensus values and weighting factors. J Res Natl Bur Stand. 1982;87(5):377-85."
KNAPP = (
    "Hartung J, Knapp G. A refined method for the meta-analysis of controlled clinical trials with binary outcome. "
    "Stat Med. 2001;20(24):3875-89."
)
SIDIK = "Sidik K, Jonkman JN. A simple confidence interval for meta-analysis. Stat Med. 2002;21(21):3153-9."
PREDICTION = (
    "Higgins JPT, Thompson SG, Spiegelhalter DJ. A re-evaluation of random-effects meta-analysis. "
    "J R Stat Soc Ser A Stat Soc. 2009;172(1):137-59."
)
INTHOUT = (
    "IntHout J, Ioannidis JPA, Rovers MM, Goeman JJ. Plea for routinely presenting prediction intervals in "
    "meta-analysis. BMJ Open. 2016;6(7):e010247."
)
INCONSISTENCY = "Higgins JPT, Thompson SG. Quantifying heterogeneity in a meta-analysis. Stat Med. 2002;21(11):1539-58."
PROFILE = (
    "Viechtbauer W. Confidence intervals for the amount of heterogeneity in meta-analysis. Stat Med. 2007;26(1):37-52."
)
HAENSZEL = (
    "Mantel N, Haenszel W. Statistical aspects of the analysis of data from retrospective studies of disease. "
    "J Natl Cancer Inst. 1959;22(4):719-48."
)

ESTIMATORS = {
    "REML": (Words("restricted maximum likelihood", "제한 최대가능도"), REML),
    "DL": (Words("the method of DerSimonian and Laird", "DerSimonian–Laird 방법"), LAIRD),
    "PM": (Words("the method of Paule and Mandel", "Paule–Mandel 방법"), MANDEL),
}
MEASURES = {
    "odds_ratio": Words("odds ratio", "오즈비"),
    "risk_ratio": Words("risk ratio", "위험비"),
    "risk_difference": Words("risk difference", "위험 차이"),
    "mean_difference": Words("mean difference", "평균 차이"),
}


def of_estimates(
    p: Parameters,
    question: Question,
    names: Sequence[str],
    estimate: Vector,
    variance: Vector,
    usable: NDArray[np.bool_],
    people: NDArray[np.int64],
    haenszel: Vector | None,
) -> Result:
    """The Result where each hospital's (k,) estimate is shown; `people` is −1 where even that may not be."""
    usable = usable & (variance > 0)
    if not usable.any():
        raise NoEstimate()
    combined = _combine(p, estimate[usable], variance[usable])
    shown = [place for place in range(len(names)) if people[place] != 0]
    left = [names[place] for place in shown if not usable[place]]
    tables = {
        **_pooled(p, combined, int(people[usable].sum()), haenszel),
        "estimates": _estimates(p, question, names, shown, estimate, variance, usable, people, combined),
    }
    if usable.sum() > 2:
        tables["leave_one_out"] = _leave_one_out(p, names, estimate, variance, usable)
    tables["forest"] = _forest(p, tables["estimates"], combined)
    forest = Figure(
        "forest",
        "forest",
        x="ratio" if p.ratio else "estimate",
        y="hospital",
        low="ratio_low" if p.ratio else "ci_low",
        high="ratio_high" if p.ratio else "ci_high",
        title=Words("Estimate in each hospital and pooled", "병원별 추정값과 합친 값"),
        x_title=_measured(p),
        y_title=Words("Hospital", "병원"),
        log=p.ratio,
        rule=(1.0 if p.ratio else 0.0,),
    )
    notes = (
        Words(
            f"Left out, because too few people stand behind an estimate or there is none: {', '.join(left)}.",
            f"추정값의 근거가 되는 사람이 너무 적거나 추정값이 없어 뺀 병원: {', '.join(left)}.",
        ),
    )
    return _result(p, combined, tables, int(people[usable].sum()), len(left), {"forest": forest}, notes if left else ())


def of_totals(p: Parameters, combined: Combined, people: int, left_out: int, haenszel: Vector | None) -> Result:
    """The Result where only sums over hospitals were opened."""
    notes = (
        Words(
            "Some hospitals were left out, because too few people stand behind their estimate or they have none.",
            "추정값의 근거가 되는 사람이 너무 적거나 추정값이 없는 병원은 뺐습니다.",
        ),
    )
    return _result(p, combined, _pooled(p, combined, people, haenszel), people, left_out, {}, notes if left_out else ())


def _combine(p: Parameters, estimate: Vector, variance: Vector) -> Combined:
    try:
        return random_effects.combine(estimate, variance, how=p.tau2, interval=p.interval, level=p.level)
    except random_effects.Unsettled:
        raise NotConverged(rounds=random_effects.MOST_ROUNDS) from None


def _result(
    p: Parameters,
    combined: Combined,
    tables: dict[str, Table],
    people: int,
    left_out: int,
    figures: dict[str, Figure],
    notes: tuple[Words, ...],
) -> Result:
    paragraph, references = _written(p)
    return Result(
        method="meta_analysis",
        tables=tables,
        facts={"n": people, "hospitals": combined.hospitals, "hospitals_left_out": left_out},
        people_facts=("n",),
        notes=notes,
        figures=figures,
        paragraph=paragraph,
        references=references,
    )


def _pooled(p: Parameters, combined: Combined, people: int, haenszel: Vector | None) -> dict[str, Table]:
    effects = {"fixed": combined.fixed, "random": combined.random}
    if haenszel is not None and haenszel[0] > 0 and haenszel[1] > 0:
        effects["mantel_haenszel"] = _mantel_haenszel(p, haenszel)
    rows = [
        {
            "model": name,
            "estimate": effect.estimate,
            "std_error": effect.std_error,
            "statistic": effect.statistic,
            "p_value": effect.p_value,
            "ci_low": effect.ci[0],
            "ci_high": effect.ci[1],
            "prediction_low": effect.prediction[0],
            "prediction_high": effect.prediction[1],
        }
        for name, effect in effects.items()
    ]
    frame = _ratios(p, pl.DataFrame(rows), ("prediction_low", "prediction_high"))
    spread = pl.DataFrame(
        {
            "hospitals": [combined.hospitals],
            "q": [combined.q],
            "freedom": [combined.hospitals - 1],
            "p_value": [combined.q_p_value],
            "i2": [combined.i2],
            "h2": [combined.h2],
            "tau2": [combined.tau2],
            "tau2_low": [combined.tau2_ci[0]],
            "tau2_high": [combined.tau2_ci[1]],
        }
    ).with_columns(pl.col(pl.Float64).fill_nan(None))
    return {
        "pooled": Table(frame, derived=tuple(name for name in frame.columns if name not in ("estimate", "std_error"))),
        "heterogeneity": Table(spread, derived=("hospitals", "freedom", "p_value", "i2", "h2")),
    }


def _mantel_haenszel(p: Parameters, sums: Vector) -> Effect:
    """The logarithm of Mantel & Haenszel's ratio with its robust large-sample error (`haenszel_sums`)."""
    r, s, first, second, third = map(float, sums)
    if p.measure == "risk_ratio":
        variance = first / (r * s)
    else:
        variance = first / (2 * r**2) + second / (2 * r * s) + third / (2 * s**2)
    estimate, error = math.log(r / s), math.sqrt(variance)
    width = float(special.ndtri(0.5 + p.level / 2)) * error
    statistic = estimate / error
    return Effect(
        estimate, error, statistic, float(2 * special.ndtr(-abs(statistic))), (estimate - width, estimate + width)
    )


def _estimates(
    p: Parameters,
    question: Question,
    names: Sequence[str],
    shown: list[int],
    estimate: Vector,
    variance: Vector,
    usable: NDArray[np.bool_],
    people: NDArray[np.int64],
    combined: Combined,
) -> Table:
    """One row per hospital; null where its estimate is left out."""
    tau2 = 0.0 if math.isnan(combined.tau2) else combined.tau2
    fixed = np.where(usable, 1 / np.where(usable, variance, 1.0), 0.0)
    random = np.where(usable, 1 / np.where(usable, variance + tau2, 1.0), 0.0)
    width = special.ndtri(0.5 + p.level / 2)
    rows: list[dict[str, Any]] = []
    withheld: dict[tuple[int, str], str] = {}
    for place in shown:
        known = bool(usable[place])
        error = math.sqrt(variance[place]) if known else math.nan
        value = float(estimate[place]) if known else math.nan
        rows.append(
            {
                "hospital": names[place],
                "estimate": value,
                "std_error": error,
                "ci_low": value - width * error,
                "ci_high": value + width * error,
                "weight_fixed": 100 * fixed[place] / fixed.sum() if known else math.nan,
                "weight_random": 100 * random[place] / random.sum() if known else math.nan,
                "n": int(people[place]) if people[place] >= 0 else None,
            }
        )
        if not known:
            withheld[len(rows) - 1, "estimate"] = "–"
        if people[place] < 0:
            withheld[len(rows) - 1, "n"] = f"<{question.minimum_people}"
    frame = _ratios(p, pl.DataFrame(rows, schema_overrides={"n": pl.Int64}))
    derived = tuple(name for name in frame.columns if name not in ("hospital", "estimate", "std_error", "n"))
    behind = dict.fromkeys((*derived, "estimate", "std_error"), "n")
    return Table(frame, counts=("n",), behind=behind, derived=derived, withheld=withheld)


def _forest(p: Parameters, estimates: Table, combined: Combined) -> Table:
    """What the forest plot draws: hospitals with an estimate, both pooled effects, and the prediction interval."""
    rows = [
        {"hospital": row["hospital"], "hospital_ko": row["hospital"]}
        | {name: row[name] for name in ("estimate", "ci_low", "ci_high")}
        for row in estimates.frame.iter_rows(named=True)
        if row["estimate"] is not None
    ]
    random = combined.random
    for words, effect, ends in (
        (Words("Fixed effect", "고정효과"), combined.fixed, combined.fixed.ci),
        (Words("Random effects", "무작위효과"), random, random.ci),
        (Words("Prediction interval", "예측구간"), random, random.prediction),
    ):
        if all(map(math.isfinite, ends)):
            said = {"hospital": words.en, "hospital_ko": words.ko}
            rows.append(said | {"estimate": effect.estimate, "ci_low": ends[0], "ci_high": ends[1]})
    frame = _ratios(p, pl.DataFrame(rows))
    return Table(frame, derived=tuple(frame.columns))


def _leave_one_out(
    p: Parameters, names: Sequence[str], estimate: Vector, variance: Vector, usable: NDArray[np.bool_]
) -> Table:
    """The random effect without each hospital: it restates the estimates shown."""
    rows = []
    for place in np.flatnonzero(usable).tolist():
        rest = usable.copy()
        rest[place] = False
        found = _combine(p, estimate[rest], variance[rest])
        rows.append(
            {
                "left_out": names[place],
                "estimate": found.random.estimate,
                "std_error": found.random.std_error,
                "ci_low": found.random.ci[0],
                "ci_high": found.random.ci[1],
                "q": found.q,
                "i2": found.i2,
                "tau2": found.tau2,
            }
        )
    frame = _ratios(p, pl.DataFrame(rows))
    return Table(frame, derived=tuple(frame.columns))


def _ratios(p: Parameters, frame: pl.DataFrame, more: tuple[str, ...] = ()) -> pl.DataFrame:
    """With the exponentials of a ratio measure beside its logarithms; NaN as null."""
    if p.ratio:
        names = {"estimate": "ratio", "ci_low": "ratio_low", "ci_high": "ratio_high"}
        names |= {name: f"ratio_{name}" for name in more}
        frame = frame.with_columns(pl.col(old).exp().alias(new) for old, new in names.items())
    return frame.with_columns(pl.col(pl.Float64).fill_nan(None))


def _measured(p: Parameters) -> Words:
    if p.outcome is not None:
        return MEASURES[p.measure]
    return Words(f"{p.term} (exponential)", f"{p.term}(지수)") if p.ratio else Words(f"{p.term}", f"{p.term}")


def _written(p: Parameters) -> tuple[Words, tuple[str, ...]]:
    """The methods section's sentences, from the parameters alone, and what they cite."""
    name, source = ESTIMATORS[p.tau2]
    references = [LAIRD, *([source] if source != LAIRD else [])]
    by = len(references)
    percent = f"{100 * p.level:g}%"
    if p.interval == "normal":
        references += [PREDICTION]
        interval = Words("normal confidence intervals", "정규분포 신뢰구간")
        prediction = f"[{by + 1}]"
    else:
        references += [KNAPP, SIDIK, INTHOUT]
        adhoc = p.interval == "hksj_adhoc"
        interval = Words(
            f"Hartung–Knapp–Sidik–Jonkman confidence intervals{', never narrower than without' if adhoc else ''} "
            f"[{by + 1},{by + 2}]",
            f"Hartung–Knapp–Sidik–Jonkman 신뢰구간{'(보정하지 않은 것보다 좁아지지 않게 함)' if adhoc else ''} "
            f"[{by + 1},{by + 2}]",
        )
        prediction = f"[{by + 3}]"
    references.append(INCONSISTENCY)
    spread = f"[{len(references)}]"
    english = (
        f"Estimates of the hospitals were combined by inverse-variance fixed-effect and random-effects meta-analysis "
        f"[1], with the between-hospital variance τ² estimated by {name.en}{f' [{by}]' if by > 1 else ''}, "
        f"{interval.en} at {percent}, and a prediction interval {prediction}. Heterogeneity was described by Cochran's "
        f"Q and I² {spread}"
    )
    korean = (
        f"병원별 추정값을 역분산 가중 고정효과 및 무작위효과 메타분석으로 합쳤고 [1], 병원 간 분산 τ²는 {name.ko}"
        f"{f' [{by}]' if by > 1 else ''}으로 추정하였으며, {percent} {interval.ko}과 예측구간 {prediction}을 구하였다. "
        f"이질성은 Cochran의 Q와 I² {spread}로 기술하였다"
    )
    if p.profile:
        references.append(PROFILE)
        english += f", and the interval of τ² by the Q-profile method [{len(references)}]"
        korean += f". τ²의 구간은 Q-profile 방법 [{len(references)}]으로 구하였다"
    if p.show == "totals":
        english += "; only sums over hospitals were exchanged"
        korean += ". 병원 간에는 합만 주고받았다"
    english, korean = english + ".", korean + "."
    if p.haenszel:
        references.append(HAENSZEL)
        english += f" The {MEASURES[p.measure].en} of Mantel and Haenszel [{len(references)}] is given beside them."
        korean += f" Mantel–Haenszel {MEASURES[p.measure].ko} [{len(references)}]도 함께 제시하였다."
    return Words(english, korean), tuple(references)
