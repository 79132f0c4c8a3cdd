"""A validation as tables that know who stands behind each number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import special

from dure.estimation.grids import merge_until
from dure.language import Words
from dure.methods.validation import discrimination
from dure.methods.validation.parameters import Parameters
from dure.methods.validation.recalibration import Recalibrated
from dure.study.method import Question
from dure.study.result import Table
from dure.study.summary import Total

Vector = NDArray[np.float64]

CLASSES = (
    Words("cases", "환자"),
    Words("non-cases", "비환자"),
    Words("people with another than the commonest score", "가장 흔한 점수가 아닌 사람"),
)
TEXT, WHOLE, NUMBER = pl.String, pl.Int64, pl.Float64
INTERVAL = ("std_error", "ci_low", "ci_high")
HIDDEN = "–"
SLOPE_NEEDS = 2
"""Times the rules' smallest count: two coefficients, each with ten of either class (rule parameters_per_event)."""
UNTOLD = -1.0
"""In place of a variance: of nearly all people there the score is one, and a number would tell of the others."""
ROUNDED = 5
"""Shares that no release fills in (net benefit, observed to expected) are of counts rounded as they are shown; an exact
one would give the exact counts away."""


@dataclass(frozen=True)
class Answer:
    """What the rounds brought: the sums of the first, and each set's recalibration."""

    question: Question
    total: Total
    sets: list[tuple[str, str, int]]
    fits: list[Recalibrated | None]

    @property
    def p(self) -> Parameters:
        found: Parameters = self.question.parameters
        return found

    @property
    def minimum(self) -> int:
        return self.question.minimum_people

    def everyone(self, score: str) -> int:
        """The place of the set of all people of a score."""
        return self.sets.index((score, "", 0))

    def shown(self, count: float) -> float:
        return ROUNDED * round(count / ROUNDED) if self.minimum else float(count)

    def enough(self, place: int, times: int = 1) -> bool:
        """Whether both classes of a set are large enough, and enough people have another than the commonest score."""
        events, n = self.total["events"][place], self.total["n"][place]
        varying = n - self.total["alike"][place].max() >= self.minimum
        return bool(varying and min(events, n - events) >= max(1, times * self.minimum))

    def few(self, place: int) -> bool:
        """Whether sums of a set's scores are withheld: of nearly equal scores they tell how many events there are, of a
        flag how many people have it."""
        return self.minimum > 0 and not self.enough(place)


class Rows:
    """Rows of a table under way, and which of their cells are withheld."""

    def __init__(self, **schema: Any) -> None:
        self.schema, self.rows, self.withheld = schema, list[dict[str, object]](), dict[tuple[int, str], str]()

    def add(self, hidden: Mapping[str, str] | None = None, /, **values: object) -> None:
        """One row; NaN is nothing, and `hidden` columns show a reason in place of a number."""
        self.withheld |= {(len(self.rows), name): why for name, why in (hidden or {}).items()}
        row = {name: None if isinstance(v, float) and not np.isfinite(v) else v for name, v in values.items()}
        self.rows.append({name: None if name in (hidden or {}) else row.get(name) for name in self.schema})

    def table(self, **more: Any) -> Table:
        return Table(pl.DataFrame(self.rows, schema=self.schema), withheld=self.withheld, **more)


def withheld(answer: Answer, name: str) -> NDArray[np.int64]:
    """(hospitals, …) 0 where a hospital's `name` is told, else 1 + the place among CLASSES of who are too few."""
    codes = answer.total.withheld[name]
    return np.asarray(np.where((codes == 0) & (answer.total[name + "_variance"] < 0), len(CLASSES), codes))


def slope_needs(question: Question) -> int:
    return max(1, SLOPE_NEEDS * question.minimum_people)


def interval(estimate: float, error: float, level: float, logit: bool = False) -> dict[str, float]:
    """A normal interval; of an AUROC on its logit, which stays between 0 and 1 (Qin & Hotilovac 2008)."""
    width = float(special.ndtri(0.5 + level / 2))
    if not np.isfinite(error) or error <= 0 or (logit and not 0 < estimate < 1):
        return dict.fromkeys(INTERVAL, float("nan"))
    if not logit:
        return {"std_error": error, "ci_low": estimate - width * error, "ci_high": estimate + width * error}
    middle, away = np.log(estimate / (1 - estimate)), width * error / (estimate * (1 - estimate))
    low, high = (float(1 / (1 + np.exp(-(middle + shift)))) for shift in (-away, away))
    return {"std_error": error, "ci_low": low, "ci_high": high}


def aurocs(answer: Answer) -> Table:
    """One row per score and hospital; where a class is too small the reason stands in place of the number."""
    p, total, minimum = answer.p, answer.total, max(1, answer.minimum)
    numbers = ("auroc", *INTERVAL, *(("average_precision",) if p.auprc else ()))
    rows = Rows(score=TEXT, hospital=TEXT, **dict.fromkeys(numbers, NUMBER), n=WHOLE, reason=TEXT, reason_ko=TEXT)
    codes = withheld(answer, "auroc")
    for place, name in enumerate(p.scores):
        for here, hospital in enumerate(answer.question.hospitals):
            code = int(codes[here, place])
            hidden = any(total.withheld[of][here, place] > 0 for of in ("cases", "non_cases"))
            reason = CLASSES[code - 1] if code else None
            why = dict.fromkeys(numbers[:1], f"<{minimum} {reason.en}") if reason else {}
            why |= dict.fromkeys(numbers[4:], HIDDEN) if reason else {}
            area, spread = float(total["auroc"][here, place]), float(total["auroc_variance"][here, place])
            found = {"average_precision": float(total["average_precision"][here, place])} if p.auprc else {}
            rows.add(
                why | ({"n": HIDDEN} if hidden else {}),
                score=name,
                hospital=hospital,
                auroc=area,
                n=int(total["cases"][here, place] + total["non_cases"][here, place]),
                reason=f"withheld: fewer than {minimum} {reason.en}" if reason else None,
                reason_ko=f"비공개: {reason.ko} {minimum}명 미만" if reason else None,
                **(interval(area, float(np.sqrt(spread)), p.level, logit=True) if not reason else {}),
                **found,
            )
    return rows.table(counts=("n",), behind=dict.fromkeys(numbers, "n"), derived=("ci_low", "ci_high"))


def calibration(answer: Answer) -> Table:
    """Bins merged until each holds enough cases and non-cases; the observed rate is that of the rounded counts."""
    p, total = answer.p, answer.total
    rows = Rows(score=TEXT, **dict.fromkeys(("bin_low", "bin_high", "predicted"), NUMBER), n=WHOLE, cases=WHOLE)
    for place, name in enumerate(p.scores):
        cases, others = total["bin_cases"][place], total["bin_non_cases"][place]
        for run in merge_until(np.stack([cases, others]), answer.minimum):
            n = float(cases[run].sum() + others[run].sum())
            if n:
                predicted = round(float(total["bin_predicted"][place][run].sum()) / n, 3)
                low, high = run.start / p.bins, run.stop / p.bins
                rows.add(
                    {"predicted": HIDDEN} if answer.few(answer.everyone(name)) else {},
                    score=name,
                    bin_low=low,
                    bin_high=high,
                    predicted=predicted,
                    n=int(n),
                    cases=int(cases[run].sum()),
                )
    return rows.table(
        counts=("n", "cases"),
        behind={"predicted": "n"},
        shares={"observed": ("cases", "n", 1.0)},
        derived=("bin_low", "bin_high", "observed"),
    )


def _ratio(answer: Answer, n: float, events: float, predicted: float) -> dict[str, float]:
    """Observed to expected of counts as they are shown, with the interval of its logarithm (Debray et al. 2017)."""
    n, events = answer.shown(n), answer.shown(events)
    if not events or not n or not predicted:
        return {}
    ratio = events / n / predicted
    away = float(special.ndtri(0.5 + answer.p.level / 2)) * np.sqrt(max(0.0, 1 - events / n) / events)
    return {"observed_expected": ratio, "oe_low": ratio * np.exp(-away), "oe_high": ratio * np.exp(away)}


OE = ("observed_expected", "oe_low", "oe_high")


def overall(answer: Answer) -> Table:
    p = answer.p
    names = ("brier", "scaled_brier", "mean_predicted", *OE) if p.probabilities else ()
    rows = Rows(score=TEXT, n=WHOLE, events=WHOLE, **dict.fromkeys(names, NUMBER))
    for name in p.scores:
        place = answer.everyone(name)
        why = dict.fromkeys(names[:3], HIDDEN) if answer.few(place) else {}
        rows.add(why, score=name, **_overall(answer, place, answer.enough(place)))
    derived = tuple(name for name in names if name not in ("brier", "mean_predicted"))
    return rows.table(counts=("n", "events"), behind=dict.fromkeys(names, "n"), derived=derived)


def _overall(answer: Answer, place: int, enough: bool) -> dict[str, Any]:
    """Counts, Brier score, what it is beside that of predicting everyone the same (scaled), observed to expected."""
    total, n, events = answer.total, answer.total["n"][place], answer.total["events"][place]
    found: dict[str, Any] = {"n": int(n), "events": int(events)}
    if not n or not answer.p.probabilities:
        return found
    found |= {"brier": float(total["brier"][place] / n), "mean_predicted": float(total["predicted"][place] / n)}
    if enough:
        share = answer.shown(events) / answer.shown(n)
        found |= _ratio(answer, n, events, found["mean_predicted"])
        found["scaled_brier"] = 1 - found["brier"] / (share * (1 - share)) if 0 < share < 1 else float("nan")
    return found


LARGE = ("in_the_large", "large_std_error", "large_low", "large_high")
SLOPE = ("slope", "slope_std_error", "slope_low", "slope_high")


def _named(names: tuple[str, ...], estimate: float, error: float, level: float) -> dict[str, float]:
    found = interval(estimate, error, level)
    return dict(zip(names, (estimate, *found.values()))) if np.isfinite(found["std_error"]) else {}


def _fit(answer: Answer, place: int) -> dict[str, float]:
    """The recalibration of a set with enough people in both classes."""
    fit = answer.fits[place]
    if fit is None or not answer.enough(place):
        return {}
    level = answer.p.level
    large = _named(LARGE, fit.intercept, fit.intercept_error, level)
    return large | (_named(SLOPE, fit.slope, fit.slope_error, level) if answer.enough(place, SLOPE_NEEDS) else {})


def recalibration(answer: Answer) -> Table:
    """Calibration-in-the-large and slope of each score over all people; null where the data give none."""
    rows = Rows(score=TEXT, **dict.fromkeys((*LARGE, *SLOPE), NUMBER))
    for name in answer.p.scores:
        rows.add(score=name, **_fit(answer, answer.everyone(name)))
    return rows.table(derived=(*LARGE[2:], *SLOPE[2:]))


def by_hospital(answer: Answer) -> Table:
    """Calibration inside each hospital, of those with enough people in both classes."""
    p, total, minimum = answer.p, answer.total, max(1, answer.minimum)
    numbers = (*OE, *LARGE, *SLOPE)
    rows = Rows(score=TEXT, hospital=TEXT, **dict.fromkeys(numbers, NUMBER))
    for place, name in enumerate(p.scores):
        for here, hospital in enumerate(answer.question.hospitals):
            code = int(withheld(answer, "auroc")[here, place])
            if code:
                reason = f"<{minimum} {CLASSES[code - 1].en}"
                rows.add(dict.fromkeys((OE[0], LARGE[0], SLOPE[0]), reason), score=name, hospital=hospital)
                continue
            events = total["cases"][here, place]
            n = events + total["non_cases"][here, place]
            large, slope = (tuple(map(float, total[of][here, place])) for of in ("in_the_large", "slope"))
            few = answer.minimum and not slope[1]
            rows.add(
                {SLOPE[0]: HIDDEN} if few else {},
                score=name,
                hospital=hospital,
                **_ratio(answer, n, events, float(total["expected"][here, place] / n)),
                **_named(LARGE, large[0], large[1], p.level),
                **_named(SLOPE, slope[0], slope[1], p.level),
            )
    return rows.table(derived=(*OE[1:], *LARGE[2:], *SLOPE[2:]))


def comparison(answer: Answer) -> Table:
    """How much each score's AUROC exceeds the reference's, in each hospital, on people who have both."""
    p, total, minimum = answer.p, answer.total, max(1, answer.minimum)
    numbers = ("difference", *INTERVAL, "p_value")
    rows = Rows(score=TEXT, reference=TEXT, hospital=TEXT, **dict.fromkeys(numbers, NUMBER))
    for place, name in enumerate(p.others):
        for here, hospital in enumerate(answer.question.hospitals):
            said = {"score": name, "reference": p.reference, "hospital": hospital}
            code = int(withheld(answer, "difference")[here, place])
            if code:
                rows.add({"difference": f"<{minimum} {CLASSES[code - 1].en}"}, **said)
                continue
            value = float(total["difference"][here, place])
            found = interval(value, float(np.sqrt(max(0.0, total["difference_variance"][here, place]))), p.level)
            p_value = float(2 * special.ndtr(-abs(value / found["std_error"])))
            rows.add(**said, difference=value, p_value=p_value, **found)
    return rows.table(derived=("ci_low", "ci_high", "p_value"))


def pooled_aurocs(answer: Answer) -> Table:
    """AUROC and average precision over all people, whatever their hospital, of scores rounded to the resolution."""
    rows = Rows(score=TEXT, auroc=NUMBER, **dict.fromkeys((*INTERVAL, "average_precision"), NUMBER))
    for name in answer.p.scores:
        rows.add(score=name, **_fine(answer, answer.everyone(name)))
    return rows.table(derived=("ci_low", "ci_high"))


def _fine(answer: Answer, place: int) -> dict[str, float]:
    if not answer.p.resolution or not answer.enough(place):
        return {}
    cases, others = answer.total["fine_cases"][place], answer.total["fine_non_cases"][place]
    area, spread = discrimination.auroc_of_counts(cases, others)
    found = interval(area, float(np.sqrt(spread)), answer.p.level, logit=True)
    return {"auroc": area, **found, "average_precision": discrimination.average_precision(cases, others)}


CUT = ("true_positive", "false_positive", "true_negative", "false_negative")
WHOLES = ("cases", "non_cases", "positive", "negative")


def thresholds(answer: Answer) -> Table:
    """Counts at each threshold and their shares; all withheld where a cell is small, or where too few people lie
    between it and the last one shown."""
    p, total, minimum = answer.p, answer.total, answer.minimum
    rows = Rows(score=TEXT, threshold=NUMBER, **dict.fromkeys((*CUT, *WHOLES), WHOLE))
    for place, name in enumerate(p.scores):
        cases, others = total["between_cases"][place], total["between_non_cases"][place]
        since = 0.0
        for at, threshold in enumerate(p.thresholds, start=1):
            since += cases[at - 1] + others[at - 1]
            positive, negative = (cases[at:].sum(), others[at:].sum()), (others[:at].sum(), cases[:at].sum())
            counts = dict(zip(CUT, map(int, (*positive, *negative))))
            wholes = dict(zip(WHOLES, map(int, (cases.sum(), others.sum(), sum(positive), sum(negative)))))
            small = minimum and (min(counts.values()) < minimum or since < minimum)
            hidden = dict.fromkeys((*CUT, *WHOLES), f"<{minimum}") if small else {}
            rows.add(hidden, score=name, threshold=threshold, **counts, **wholes)
            since = since if small else 0.0
    shares = {
        "sensitivity": ("true_positive", "cases", 1.0),
        "specificity": ("true_negative", "non_cases", 1.0),
        "ppv": ("true_positive", "positive", 1.0),
        "npv": ("true_negative", "negative", 1.0),
    }
    return rows.table(counts=(*CUT, *WHOLES), shares=shares, derived=("threshold", *WHOLES, *shares))


EVERYONE, NOBODY = Words("everyone", "모두"), Words("nobody", "아무도")


def net_benefit(answer: Answer, at: Table) -> Table:
    """The decision curve (Vickers & Elkin 2006) of each score by name, beside treating everyone who has the first score
    and nobody: of the counts shown."""
    rows = Rows(strategy=TEXT, strategy_ko=TEXT, threshold=NUMBER, net_benefit=NUMBER)
    for row in at.frame.iter_rows(named=True):
        if row["cases"] is None:
            continue
        odds = row["threshold"] / (1 - row["threshold"])
        cases, others, right, wrong = (
            answer.shown(row[name]) for name in ("cases", "non_cases", "true_positive", "false_positive")
        )
        strategies = [(Words(row["score"], row["score"]), right, wrong)]
        if row["score"] == answer.p.scores[0]:
            strategies += [(EVERYONE, cases, others), (NOBODY, 0.0, 0.0)]
        for said, treated, needless in strategies:
            benefit = (treated - odds * needless) / (cases + others)
            rows.add(strategy=said.en, strategy_ko=said.ko, threshold=row["threshold"], net_benefit=benefit)
    return rows.table(derived=("threshold", "net_benefit"))


def subgroups(answer: Answer) -> Table:
    """Each level of each column: what `overall` and `recalibration` say of everyone. A level with too few people in a
    class shows nothing, and where there is one such level, or few people of none, the smallest other one goes too."""
    p, total = answer.p, answer.total
    numbers = ("brier", "scaled_brier", "mean_predicted", *OE, *LARGE, *SLOPE)
    fine = ("auroc", *INTERVAL, "average_precision") if p.resolution else ()
    counted = {"n": WHOLE, "events": WHOLE}
    rows = Rows(score=TEXT, subgroup=TEXT, level=TEXT, **counted, **dict.fromkeys((*numbers, *fine), NUMBER))
    for score in p.scores:
        for column in p.subgroups:
            places = [place for place, (name, of, _) in enumerate(answer.sets) if (name, of) == (score, column)]
            small = {place for place in places if answer.minimum and not answer.enough(place)}
            rest = [place for place in places if place not in small]
            beside = total["n"][answer.everyone(score)] - total["n"][places].sum()  # people of no level
            lone = len(small) + int(0 < beside < answer.minimum) == 1
            also = {min(rest, key=lambda place: float(total["n"][place]))} if lone and rest else set()
            for place, level in zip(places, answer.question.column(column).levels):
                said = {"score": score, "subgroup": column, "level": level}
                if place in small | also:
                    why = f"<{answer.minimum}" if place in small else HIDDEN
                    rows.add(dict.fromkeys(("n", "events"), why), **said)
                    continue
                enough = answer.enough(place)
                found = _overall(answer, place, enough) | _fit(answer, place)
                rows.add(**said, **found, **_fine(answer, place))
    derived = ("scaled_brier", *OE, *LARGE[2:], *SLOPE[2:], "ci_low", "ci_high")
    return rows.table(
        counts=("n", "events"), behind=dict.fromkeys((*numbers, *fine), "n"), derived=derived if fine else derived[:-2]
    )
