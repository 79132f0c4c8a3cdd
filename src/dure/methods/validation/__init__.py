"""Validation of scores against an outcome: discrimination inside each hospital, calibration over all.

An AUROC leaves its hospital as one number behind which stand its cases and its non-cases. Calibration, the Brier
score, counts at thresholds and the AUROC of rounded scores are sums. Rounds: one of counts and sums, then Newton steps
of the recalibration (4 to 6).

Internal–external validation is a chain of steps: a model with `scope: all_but_one` and `release: false`, then a
validation that uses it, scores `<step>.prediction`, with `hospitals: true`. Each person is then scored by the model
made without their hospital; `auroc`, `calibration_hospitals` and `summary` say how it does in each hospital, and how it
would in a new one (prediction interval).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dure.errors import InvalidParameter, NobodyLeft, NotACount, NotAnOutcome
from dure.language import Words
from dure.methods.validation import discrimination, recalibration, tables, wording
from dure.methods.validation.parameters import Parameters
from dure.methods.validation.summary import summary
from dure.study.method import HUB, DerivesNothing, Example, Kept, Law, Question, State
from dure.study.result import Result, Table
from dure.study.rows import Rows
from dure.study.summary import ArraySpec, Declaration, Kind, Summary, Total

Vector = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Validation(DerivesNothing):
    name = "validation"
    title = Words("Validation", "검증")
    about = Words(
        "Discrimination in each hospital, calibration over all, thresholds and subgroups, for one or more scores.",
        "점수마다 병원별 판별력, 전체의 보정도, 문턱값과 하위군.",
    )
    law: Law = "by_hospital"
    parameters = Parameters

    def declare(self, question: Question, state: State) -> Declaration:
        p: Parameters = question.parameters
        sets = len(_sets(question))
        if state["phase"] == "newton":
            return (ArraySpec("recalibration", (sets, 9), "moment", people=("n",)),)
        hospitals, scores = len(question.hospitals), len(p.scores)

        def own(name: str, kind: Kind, people: tuple[str, ...] = (), size: tuple[int, ...] = (scores,)) -> ArraySpec:
            return ArraySpec(name, (hospitals, *size), kind, people=people, per_hospital=True)

        both = ("cases", "non_cases")
        found = [own(name, "count") for name in both] + [own("auroc", "moment", both)]
        found += [own("auroc_variance", "moment", both)]
        if p.auprc:
            found += [own("average_precision", "moment", both)]
        if p.others:
            compared, size = ("both_cases", "both_non_cases"), (len(p.others),)
            found += [own(name, "count", size=size) for name in compared]
            found += [own("difference", "moment", compared, size), own("difference_variance", "moment", compared, size)]
        if p.hospitals:
            found += [own("expected", "moment", both)]
            found += [own(name, "moment", both, (scores, 2)) for name in ("in_the_large", "slope")]
        found += [ArraySpec("n", (sets,), "count"), ArraySpec("events", (sets,), "count")]
        found += [ArraySpec("alike", (sets, discrimination.KINDS), "count")]
        if p.thresholds:
            cut = (scores, len(p.thresholds) + 1)
            found += [ArraySpec("between_cases", cut, "count"), ArraySpec("between_non_cases", cut, "count")]
        if not p.probabilities:
            return tuple(found)
        behind = ("bin_cases", "bin_non_cases")
        return (
            *found,
            *(ArraySpec(name, (sets,), "moment", people=("n",)) for name in ("brier", "predicted", "logit", "logit2")),
            *(ArraySpec(name, (scores, p.bins), "count") for name in behind),
            ArraySpec("bin_predicted", (scores, p.bins), "moment", people=behind),
            *(ArraySpec(name, (sets, _fine(p)), "count") for name in _fine_names(p)),
        )

    def start(self, question: Question) -> State:
        p: Parameters = question.parameters
        for name in (p.outcome, *p.scores):
            question.column(name)
        for name in p.subgroups:
            if not question.column(name).levels:
                problem = Words(f"'{name}' has no levels", f"'{name}'에 수준이 없습니다")
                raise InvalidParameter(method=self.name, parameter="subgroups", problem=problem)
        return {"phase": "counts"}

    def summarise(self, rows: Rows, question: Question, state: State, kept: Kept) -> tuple[Summary, Kept]:
        found = {spec.name: np.zeros(spec.shape, dtype=spec.dtype) for spec in self.declare(question, state)}
        if state["phase"] == "newton":
            _recalibrate(found["recalibration"], rows, question, state)
            return {**found}, {}
        here = question.hospitals.index(rows.hospital)
        p: Parameters = question.parameters
        for place in range(len(p.scores)):
            _of_hospital(found, rows, question, here, place)
        for place, name in enumerate(p.others):
            case, _, score = _read(rows, p, (p.reference or "", name))
            found["both_cases"][here, place] = case.sum()
            found["both_non_cases"][here, place] = (~case).sum()
            if min(discrimination.varying(one) for one in score) < question.minimum_people:
                found["difference_variance"][here, place] = tables.UNTOLD
                continue
            area, covariance = discrimination.auroc(score, case)
            found["difference"][here, place] = area[1] - area[0]
            found["difference_variance"][here, place] = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
        for place, (score_name, of, level) in enumerate(_sets(question)):
            case, score = _of_set(rows, question, score_name, of, level)
            found["n"][place], found["events"][place] = len(case), case.sum()
            found["alike"][place] = discrimination.alike(score)
            if not p.probabilities:
                continue
            logit = recalibration.logits(score)
            found["brier"][place] = ((score - case) ** 2).sum()
            found["predicted"][place] = score.sum()
            found["logit"][place], found["logit2"][place] = logit.sum(), logit @ logit
            if p.resolution:
                fine = np.rint(score / p.resolution).astype(np.int64)
                found["fine_cases"][place] = np.bincount(fine[case], minlength=_fine(p))
                found["fine_non_cases"][place] = np.bincount(fine[~case], minlength=_fine(p))
        return {**found}, {}

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        p: Parameters = question.parameters
        if state["phase"] == "counts":
            if not total["n"].any():
                raise NobodyLeft(columns=", ".join((p.outcome, *p.scores)))
            first = {"arrays": dict(total.arrays), "withheld": {k: np.asarray(v) for k, v in total.withheld.items()}}
            if not p.probabilities:
                return _result(question, {"first": first, "fits": []})
            fits, centres = _begun(total, question)
            hub = {"first": first, "fits": fits}
        else:
            hub, centres = state[HUB], np.asarray(state["centres"])
            fits = [dict(fit) if fit else None for fit in hub["fits"]]
            for fit, sums in zip(fits, total["recalibration"]):
                if fit and not all(fit["done"].values()):
                    recalibration.step(fit, sums)
            hub = {**hub, "fits": fits}
        steps = state.get("steps", 0) + 1
        asked = [int(fit is not None and not all(fit["done"].values())) for fit in fits]
        if not any(asked) or steps > recalibration.MOST_STEPS:
            return _result(question, hub, centres)
        at = [recalibration.coefficients(fit) if fit else np.zeros(3) for fit in fits]
        told = {"asked": asked, "at": np.array(at), "centres": centres, "steps": steps}
        return {"phase": "newton", **told, HUB: hub}

    def example(self, random: np.random.Generator) -> Example:
        n = 300
        score = random.random(n)
        y = (random.random(n) < score).astype(float)
        other = np.clip(score + random.normal(0, 0.2, n), 0.01, 0.99)
        asked = {
            "outcome": "y",
            "scores": ["score", "other"],
            "resolution": 0.01,
            "thresholds": [0.3, 0.6],
            "auprc": True,
            "hospitals": True,
            "reference": "score",
            "summary": False,  # what hospitals say together is no sum over people
        }
        return Example(pl.DataFrame({"y": y, "score": score, "other": other}), asked)


# ── one hospital ──


def _read(rows: Rows, p: Parameters, names: Sequence[str]) -> tuple[Mask, Mask, Vector]:
    """Who has the event (n,), which rows are complete, and their scores (m, n); raises NotAnOutcome, NotACount."""

    def build() -> tuple[Mask, Mask, Vector]:
        outcome = rows.numbers(p.outcome)
        known = outcome[~np.isnan(outcome)]
        if not np.isin(known, (0.0, 1.0)).all():
            raise NotAnOutcome(
                column=p.outcome,
                family="validation",
                problem=Words("It holds values other than 0 and 1", "0과 1이 아닌 값이 있습니다"),
                hint=Words("Recode it as 0 and 1.", "0과 1로 바꾸십시오."),
            )
        scores = [rows.numbers(name) for name in names]
        for name, score in zip(names, scores):
            if p.probabilities and ((score < 0) | (score > 1)).any():
                raise NotACount(
                    column=name,
                    role=Words("a predicted probability", "예측 확률"),
                    problem=Words(
                        "It holds values outside 0 to 1; give `probabilities: false` for a score in points",
                        "0~1을 벗어나는 값이 있습니다. 점수제라면 `probabilities: false`로 두십시오",
                    ),
                )
        keep = ~np.isnan(outcome) & ~np.isnan(scores).any(axis=0)
        return outcome[keep] == 1, keep, np.stack([score[keep] for score in scores])

    return rows.remember(("scores", p.outcome, tuple(names), p.probabilities), build)


def _of_hospital(found: Summary, rows: Rows, question: Question, here: int, place: int) -> None:
    """This hospital's own row of one score, and the score's bins."""
    p: Parameters = question.parameters
    case, _, scores = _read(rows, p, (p.scores[place],))
    score = scores[0]
    classes = int(case.sum()), int((~case).sum())
    found["cases"][here, place], found["non_cases"][here, place] = classes
    told = discrimination.varying(score) >= question.minimum_people
    found["auroc_variance"][here, place] = tables.UNTOLD
    if told:
        area, covariance = discrimination.auroc(scores, case)
        found["auroc"][here, place], found["auroc_variance"][here, place] = area[0], covariance[0, 0]
    if p.auprc and told:
        found["average_precision"][here, place] = discrimination.average_precision(
            *discrimination.by_value(score, case)
        )
    if p.thresholds:
        between = np.searchsorted(p.thresholds, score, side="right")
        found["between_cases"][place] = np.bincount(between[case], minlength=len(p.thresholds) + 1)
        found["between_non_cases"][place] = np.bincount(between[~case], minlength=len(p.thresholds) + 1)
    if not p.probabilities:
        return
    bins = np.clip((score * p.bins).astype(np.int64), 0, p.bins - 1)
    found["bin_cases"][place] = np.bincount(bins[case], minlength=p.bins)
    found["bin_non_cases"][place] = np.bincount(bins[~case], minlength=p.bins)
    found["bin_predicted"][place] = np.bincount(bins, weights=score, minlength=p.bins)
    if p.hospitals and min(classes) and told:
        fit = recalibration.fitted(recalibration.logits(score), case.astype(np.float64))
        found["expected"][here, place] = score.sum()
        if np.isfinite(fit.intercept):
            found["in_the_large"][here, place] = fit.intercept, fit.intercept_error
        if np.isfinite(fit.slope) and min(classes) >= tables.slope_needs(question):
            found["slope"][here, place] = fit.slope, fit.slope_error


def _of_set(rows: Rows, question: Question, score: str, of: str, level: int) -> tuple[Mask, Vector]:
    """Outcome and score of everyone, or of one level of a subgroup's column."""
    case, keep, scores = _read(rows, question.parameters, (score,))
    if not of:
        return case, scores[0]
    chosen = rows.codes(of, question.column(of))[keep] == level
    return case[chosen], scores[0][chosen]


def _recalibrate(found: NDArray[Any], rows: Rows, question: Question, state: State) -> None:
    for place, (score, of, level) in enumerate(_sets(question)):
        if not state["asked"][place]:
            continue

        def build(score: str = score, of: str = of, level: int = level) -> tuple[Vector, Vector]:
            case, values = _of_set(rows, question, score, of, level)
            return recalibration.logits(values), case.astype(np.float64)

        logit, case = rows.remember(("logits", question.parameters.outcome, score, of, level), build)
        found[place] = recalibration.sums(logit - state["centres"][place], case, np.asarray(state["at"])[place])


# ── the hub ──


def _sets(question: Question) -> list[tuple[str, str, int]]:
    """(score, column, level): everyone first, then each level of each subgroup, for each score."""
    p: Parameters = question.parameters
    levels = [(name, place) for name in p.subgroups for place in range(len(question.column(name).levels))]
    return [(score, *of) for score in p.scores for of in [("", 0), *levels]]


def _fine(p: Parameters) -> int:
    return int(np.rint(1 / p.resolution)) + 1 if p.resolution else 0


def _fine_names(p: Parameters) -> tuple[str, ...]:
    return ("fine_cases", "fine_non_cases") if p.resolution else ()


def _begun(total: Total, question: Question) -> tuple[list[dict[str, Any] | None], Vector]:
    """Where the recalibration of each set begins, None where its classes are too small; and its mean logit."""
    n, events = total["n"], total["events"]
    centres = np.divide(total["logit"], n, out=np.zeros(len(n)), where=n > 0)
    enough = np.minimum(events, n - events) >= max(1, question.minimum_people)
    fits: list[dict[str, Any] | None] = []
    for place, centre in enumerate(centres):
        fit = recalibration.begun(float(centre)) if enough[place] else None
        squares = float(total["logit2"][place]) - float(n[place]) * centre**2
        few = min(events[place], n[place] - events[place]) < tables.slope_needs(question)
        if fit and (few or not recalibration.varies(squares, float(centre), float(n[place]))):
            recalibration.lose(fit, "slope")
        fits.append(fit)
    return fits, centres


def _result(question: Question, hub: dict[str, Any], centres: Vector | None = None) -> Result:
    p: Parameters = question.parameters
    total = Total(hub["first"]["arrays"], hub["first"]["withheld"])
    known = np.zeros(0) if centres is None else centres
    fits = [recalibration.told(fit, float(centre)) if fit else None for fit, centre in zip(hub["fits"], known)]
    answer = tables.Answer(question, total, _sets(question), fits)
    paragraph, references = wording.written(p)
    return Result(
        method="validation",
        tables=_every(answer),
        facts={"n": int(total["n"].max()), "events": int(total["events"].max())},
        people_facts=("n", "events"),
        figures=wording.figures(p),
        paragraph=paragraph,
        references=references,
    )


def _every(answer: tables.Answer) -> dict[str, Table]:
    """All tables of a result, by name."""
    p = answer.p
    found = {"auroc": tables.aurocs(answer)}
    if p.probabilities:
        found |= {"calibration": tables.calibration(answer), "recalibration": tables.recalibration(answer)}
    found["overall"] = tables.overall(answer)
    if p.resolution:
        found["discrimination"] = tables.pooled_aurocs(answer)
    if p.hospitals:
        found["calibration_hospitals"] = tables.by_hospital(answer)
    if p.others:
        found["comparison"] = tables.comparison(answer)
    if p.thresholds:
        found["thresholds"] = tables.thresholds(answer)
        if p.probabilities:
            found["net_benefit"] = tables.net_benefit(answer, found["thresholds"])
    if p.subgroups:
        found["subgroups"] = tables.subgroups(answer)
    if p.summary:
        found["summary"] = summary(answer, found)
    return found


method = Validation()
