"""Propensity weights: balance before and after, and weighted means of an outcome with errors that know the score.

Rounds: counts and means; weighted sums; with an outcome the influence of each person on the weighted means, and before
that, where the score was estimated by maximum likelihood, its information.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dure.errors import InvalidParameter, NobodyLeft, NotACount, OneClass, Refused
from dure.estimation import balance, newton, people
from dure.estimation.arms import Scored, check_columns, preference, scored
from dure.estimation.balancing import balancing_weights, between, effective, variation, whole_people
from dure.estimation.stacked import effects
from dure.language import Words
from dure.methods.weighting import score_model, telling
from dure.methods.weighting.parameters import Parameters
from dure.methods.weighting.steadying import TRUNCATIONS, dominated, steadier
from dure.study.method import HUB, Example, Kept, Law, Question, State
from dure.study.result import Fact, Figure, Fitted, Result, Table
from dure.study.rows import Column, Rows
from dure.study.summary import ArraySpec, Declaration, Summary, Total

Vector = NDArray[np.float64]
Mask = NDArray[np.bool_]

EQUIPOISE = (0.3, 0.7)
"""Preference scores of people who could have been given either (Walker et al. 2013)."""
SETTLED = 1e-6
"""Squared distance in standard errors from the score's maximum likelihood up to which it counts as there."""


class Weighting:
    name = "weighting"
    title = Words("Propensity weighting", "성향점수 가중")
    about = Words(
        "Inverse-probability, overlap or matching weights from a propensity score; balance before and after; effects "
        "with standard errors that know the score was estimated.",
        "성향점수로 만든 역확률·중첩·매칭 가중치, 가중 전후의 균형, 점수의 추정을 반영한 표준오차의 효과 추정.",
    )
    law: Law = "lossless"
    parameters = Parameters

    def start(self, question: Question) -> State:
        p: Parameters = question.parameters
        check_columns(question, self.name, p.treatment, p.score)
        balance.covariates_of(question, p.balance, self.name)
        if p.outcome and question.column(p.outcome).kind == "category":
            problem = Words(f"'{p.outcome}' is a category", f"'{p.outcome}'은(는) 범주입니다")
            raise InvalidParameter(method=self.name, parameter="outcome", problem=problem)
        return {"phase": "counts", "model": score_model.told(question)}

    # ── what leaves ──

    def declare(self, question: Question, state: State) -> Declaration:
        p: Parameters = question.parameters
        model = score_model.model_of(question, state)
        covariates = balance.covariates_of(question, p.balance, self.name)
        phase = state["phase"]
        if phase == "counts":
            found: Declaration = (
                ArraySpec("arms", (2,), "count", on_small="refuse"),
                *balance.declare_means(covariates),
            )
            if p.outcome:
                found += (
                    ArraySpec("outcome_known", (2,), "count", on_small="refuse"),
                    ArraySpec("outcome_present", (2,), "count", on_small="refuse"),
                    ArraySpec("outcome_sum", (2,), "moment", people=("outcome_present",)),
                )
            return found + (score_model.declare_counts(model) if model else ())
        if phase == "bread":
            assert model is not None
            return score_model.declare_bread(model)
        if phase == "meat":
            return score_model.declare_meat(model)
        found = (
            ArraySpec("arms", (2,), "count", on_small="refuse"),
            ArraySpec("kept", (2,), "count", on_small="refuse"),
            ArraySpec("equipoise", (2,), "count"),
            ArraySpec("weight_sums", (2, 2), "moment", people=("kept",)),
            ArraySpec("instead", (len(TRUNCATIONS) + 1, 2, 2, 2), "moment", people=("kept_all",)),
            ArraySpec("kept_all", (), "count", on_small="refuse"),
            *balance.declare_balance(covariates),
        )
        if p.outcome:
            found += (
                ArraySpec("outcome_people", (2,), "count", on_small="refuse"),
                ArraySpec("outcome_sums", (2, 3), "moment", people=("outcome_people",)),
            )
            if _binary(question):
                found += (ArraySpec("outcome_events", (2,), "count", whole="outcome_people", on_small="refuse"),)
            else:
                found += (
                    ArraySpec("outcome_powers", (1, 4), "moment", people=("arms",), sides=True, labels=(p.outcome,)),
                )
        return found + ((score_model.declare_behind(model),) if model else ())

    def summarise(self, rows: Rows, question: Question, state: State, kept: Kept) -> tuple[Summary, Kept]:
        p: Parameters = question.parameters
        arms = scored(rows, question, p.treatment, p.score)
        model = score_model.model_of(question, state)
        covariates = balance.covariates_of(question, p.balance, self.name)
        phase = state["phase"]
        outcome = _outcome(rows, question, arms) if p.outcome else None
        if phase == "counts":
            found: Summary = {"arms": arms.people} | balance.means(rows, covariates, arms.present, arms.treated)
            if outcome is not None:
                there = ~np.isnan(outcome)
                # of a 0/1 outcome events are counted in the next round, each with its complement
                shown = there if _binary(question) else there & (outcome != 0)
                filled = np.where(there, outcome, 0.0)
                found["outcome_known"] = _counted(there, arms.treated)
                found["outcome_present"] = _counted(shown, arms.treated)
                sums = [filled[arms.treated == arm].sum() for arm in (0, 1)]
                found["outcome_sum"] = np.zeros(2) if _binary(question) else np.array(sums)
            return found | (score_model.count(rows, model, arms) if model else {}), {}
        weights, slopes = _weights(arms, p, state)
        if phase == "weights":
            return self._weighted(rows, question, state, arms, weights, outcome), {}
        assert outcome is not None
        means = np.asarray(state["means"])
        counted = ~np.isnan(outcome) & (weights > 0)
        residual = np.where(counted, outcome - float(state["centre_y"]) - means[arms.treated.astype(np.int64)], 0.0)
        if phase == "bread":
            assert model is not None
            return score_model.breads(rows, model, arms, np.asarray(state["centre_x"]), slopes, residual), {}
        found_meat = score_model.meat(rows, model if "through" in state else None, arms, state, weights, residual)
        return {"meat": found_meat}, {}

    def _weighted(
        self, rows: Rows, question: Question, state: State, arms: Scored, weights: Vector, outcome: Vector | None
    ) -> Summary:
        p: Parameters = question.parameters
        covariates = balance.covariates_of(question, p.balance, self.name)
        stays = weights > 0
        pref = preference(arms.score, float(state["share"]))
        counted = stays if outcome is None else stays & ~np.isnan(outcome)
        instead = np.zeros((len(TRUNCATIONS) + 1, 2, 2, 2))
        for place, bound in enumerate((*TRUNCATIONS, None)):
            kind = p.kind if bound else "overlap"
            other, _ = balancing_weights(kind, arms.score, arms.treated, (bound, 1 - bound) if bound else None)
            instead[place] = _kish(other, stays, arms.treated), _kish(other, counted, arms.treated)
        found: Summary = {
            "arms": arms.people,
            "kept": _counted(stays, arms.treated),
            "kept_all": np.array(stays.sum(), dtype=np.int64),
            "equipoise": _counted(between(pref, EQUIPOISE), arms.treated),
            "weight_sums": _kish(weights, stays, arms.treated),
            "instead": instead,
        }
        centre = np.asarray(state["centre"])
        found |= balance.compared(rows, covariates, arms.present, arms.treated, weights, centre)
        if outcome is not None:
            y = np.where(counted, outcome - float(state["centre_y"]), 0.0)
            sums = [weights[mask := counted & (arms.treated == arm)] @ y[mask] for arm in (0, 1)]
            found["outcome_people"] = _counted(counted, arms.treated)
            found["outcome_sums"] = np.column_stack([_kish(weights, counted, arms.treated), sums])
            if _binary(question):
                found["outcome_events"] = _counted(counted & (outcome == 1), arms.treated)
            else:
                found["outcome_powers"] = people.powers(y[counted][None, :], np.zeros(1))
        model = score_model.model_of(question, state)
        if model:
            found["arm_columns"] = score_model.behind(rows, model, arms, counted)
        return found

    # ── at the hub ──

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        p: Parameters = question.parameters
        model = score_model.model_of(question, state)
        if state["phase"] == "counts":
            return self._counted(total, question, state, model)
        if state["phase"] == "weights":
            return self._compared(total, question, state)
        if state["phase"] == "bread":
            gradient, information = total["gradient"], total["information"]
            everyone = np.ones(len(gradient), dtype=bool)
            try:
                inverse = newton.inverse(information, everyone)
            except newton.Stuck:
                inverse = None
            if inverse is None or not gradient @ inverse @ gradient < SETTLED:
                return {**state, "phase": "meat", "model": None, "fallen_back": True}
            return {**state, "phase": "meat", "through": total["change"] @ inverse}
        means = np.asarray(state["means"]) + float(state["centre_y"])
        table = effects(means, total["meat"], _binary(question), p.level)
        return self._result(question, state, state[HUB], table)

    def _counted(self, total: Total, question: Question, state: State, model: score_model.ScoreModel | None) -> State:
        p: Parameters = question.parameters
        arms = total["arms"]
        if not arms.sum():
            raise NobodyLeft(columns=f"{p.treatment}, {p.score}")
        if not arms.all():
            raise OneClass(outcome=p.treatment)
        covariates = balance.covariates_of(question, p.balance, self.name)
        found: State = {
            **state,
            "phase": "weights",
            "share": float(arms[1] / arms.sum()),
            "centre": balance.centres(total, covariates),
            "centre_y": 0.0,
        }
        if p.outcome:
            if not total.count("outcome_known"):
                raise NobodyLeft(columns=p.outcome)
            found["centre_y"] = float(total["outcome_sum"].sum() / total["outcome_known"].sum())
        if model:
            found["centre_x"] = score_model.centre(model, total["sum_x"], float(total["design_people"]))
        return found

    def _compared(self, total: Total, question: Question, state: State) -> State | Result:
        """Refuses weights that leave the moments to a few people; else the tables, and what comes next."""
        p: Parameters = question.parameters
        stays = total["kept"]
        if not stays.all():
            raise OneClass(outcome=p.treatment)
        sums, squares = total["weight_sums"].T
        sizes = [effective(sums, squares)]
        if p.outcome:
            if not total["outcome_people"].all():
                raise OneClass(outcome=p.treatment)
            sizes.append(effective(total["outcome_sums"][:, 0], total["outcome_sums"][:, 1]))
        small = whole_people(np.min(sizes, axis=0)) < question.minimum_people
        if small.any():
            raise dominated(small)
        covariates = balance.covariates_of(question, p.balance, self.name)
        minimum = question.minimum_people
        compared = balance.balance_table(total, covariates, np.asarray(state["centre"]), p.denominator, minimum)
        hub = {
            "summary": _summary(total, p, sizes[0]),
            "balance": balance.plain(compared),
            "n": int(stays.sum()),
            "kept_share": float(stays[1] / stays.sum()),
        }
        if not p.outcome:
            return self._result(question, state, hub, None)
        if _binary(question):
            hub["events"] = total.count("outcome_events")
        hub["outcome_people"] = total.count("outcome_people")
        weighed = total["outcome_sums"]
        return {
            **state,
            "phase": "bread" if state.get("model") else "meat",
            "means": weighed[:, 2] / weighed[:, 0],
            "sums": weighed[:, 0],
            HUB: hub,
        }

    def _result(self, question: Question, state: State, hub: Mapping[str, Any], found: Table | None) -> Result:
        p: Parameters = question.parameters
        stacked = "through" in state
        tables = {"summary": _summary_table(hub["summary"])}
        figures: dict[str, Figure] = {}
        facts: dict[str, Fact] = {"n": hub["n"], "target": telling.TARGETS[p.kind]}
        if p.balance:
            tables["balance"] = balance.restored(hub["balance"])
            figures["balance"] = balance.love_plot()
            facts |= {f"largest_smd_{sample}": balance.largest(tables["balance"], sample) for sample in balance.SAMPLES}
        notes = [telling.TRIMMED] if p.trim and p.outcome else []
        fitted, counted = None, ["n"]
        if found is not None:
            tables["effects"] = found
            events, n = hub.get("events"), hub["outcome_people"]
            facts |= {"outcome_people": n, "events": events, "errors": "stacked" if stacked else "robust"}
            counted += ["outcome_people"] + (["events"] if events is not None else [])
            fitted = Fitted(2, n, events, None if events is None else n - events)
            if not stacked:
                notes.append(telling.NOT_MAXIMAL if state.get("fallen_back") else telling.AS_KNOWN)
        paragraph, references = telling.told(p, stacked)
        return Result(
            method=self.name,
            tables=tables,
            facts=facts,
            people_facts=tuple(counted),
            fitted=fitted,
            portable={"share": float(state["share"]), "kept_share": hub["kept_share"]},
            notes=tuple(notes),
            figures=figures,
            paragraph=paragraph,
            references=references,
        )

    def remedy(self, question: Question, refused: Refused, arrays: Summary) -> dict[str, Any] | None:
        """Bounds for the score or overlap weights that leave enough people; fewer covariates; weights as known; no
        outcome; no trimming."""
        p: Parameters = question.parameters
        cells = {name: np.asarray(mask) for name, mask in refused.cells.items()}
        if "effective" in cells:
            return steadier(p, question.minimum_people, np.asarray(arrays["instead"]))
        if set(cells) & {"kept", "kept_all"} and p.trim:
            return {"trim": None}
        if any(name.startswith("outcome") for name in cells) or "most_parameters" in cells:
            return {"outcome": None}
        if set(cells) & {"cells", "pairs", "design_people", "arm_columns"}:
            return {"errors": "robust"}
        covariates = balance.covariates_of(question, p.balance, self.name)
        return balance.unbalanced(cells, covariates, p.balance)

    # ── for later steps ──

    def derives(self, question: Question) -> Mapping[str, Column]:
        return {"weight": Column("number", label=Words("Propensity weight", "성향점수 가중치"))}

    def derive(self, rows: Rows, question: Question, result: Result, kept: Kept) -> Mapping[str, Any]:
        """`weight`: 0 for people left out by trimming, NaN without treatment or score."""
        p: Parameters = question.parameters
        arms = scored(rows, question, p.treatment, p.score)
        weights, _ = _weights(arms, p, result.portable)
        if p.stabilised:
            share = float(result.portable["kept_share"])
            weights = weights * np.where(arms.treated, share, 1 - share)
        found = np.full(rows.n, np.nan)
        found[arms.present] = weights
        return {"weight": found}

    def example(self, random: np.random.Generator) -> Example:
        n = 300
        age, severe = random.normal(60, 9, n), (random.random(n) < 0.4).astype(float)
        score = 1 / (1 + np.exp(-(0.04 * (age - 60) + 0.6 * severe - 0.2)))
        treated = (random.random(n) < score).astype(float)
        died = (random.random(n) < 0.25 + 0.1 * severe - 0.05 * treated).astype(float)
        stage = random.choice(["I", "II", "III"], n)
        frame = {"treated": treated, "score": score, "died": died, "age": age, "severe": severe, "stage": stage}
        asked = {"treatment": "treated", "score": "score", "outcome": "died", "balance": ["age", "severe", "stage"]}
        return Example(pl.DataFrame(frame), {**asked, "kind": "overlap"})


def _binary(question: Question) -> bool:
    return question.column(question.parameters.outcome).kind == "flag"


def _outcome(rows: Rows, question: Question, arms: Scored) -> Vector:
    """(people present,) with NaN where it is missing. Raises NotACount where a 0/1 column holds something else."""
    values = rows.numbers(question.parameters.outcome)[arms.present]
    known = values[~np.isnan(values)]
    if _binary(question) and ((known != 0) & (known != 1)).any():
        raise NotACount(
            column=question.parameters.outcome,
            role=Words("a 0/1 outcome", "0/1 결과 변수"),
            problem=Words("It holds values other than 0 and 1", "0과 1이 아닌 값이 있습니다"),
        )
    return values


def _weights(arms: Scored, p: Parameters, state: Mapping[str, Any]) -> tuple[Vector, Vector]:
    """(people present,) weights and their slopes in logit e; 0 for people left out."""
    weights, slopes = balancing_weights(p.kind, arms.score, arms.treated, p.truncate)
    if p.trim is None:
        return weights, slopes
    judged = arms.score if p.trim_on == "score" else preference(arms.score, float(state["share"]))
    stays = between(judged, p.trim)
    return np.where(stays, weights, 0.0), np.where(stays, slopes, 0.0)


def _counted(mask: Mask, treated: Mask) -> NDArray[np.int64]:
    return np.array([(mask & ~treated).sum(), (mask & treated).sum()], dtype=np.int64)


def _kish(weights: Vector, mask: Mask, treated: Mask) -> Vector:
    """(2, 2) of controls and treated: Σw, Σw²."""
    parts = [weights[mask & (treated == arm)] for arm in (0, 1)]
    return np.array([[w.sum(), w @ w] for w in parts])


def _summary(total: Total, p: Parameters, sizes: Vector) -> dict[str, Any]:
    """Plain columns of the table `summary`, for the state."""
    arms, stays, sums = total["arms"], total["kept"], total["weight_sums"]
    share = float(stays[1] / stays.sum())
    scale = np.array([1 - share, share]) if p.stabilised else np.ones(2)
    order = (1, 0)
    return {
        "arm": ["treated", "control"],
        "people": [int(arms[arm]) for arm in order],
        "kept": [int(stays[arm]) for arm in order],
        "equipoise": [int(total["equipoise"][arm]) for arm in order],
        "effective": [int(whole_people(sizes)[arm]) for arm in order],
        "mean_weight": [float(scale[arm] * sums[arm, 0] / stays[arm]) for arm in order],
        "cv_weight": [float(variation(stays, sizes)[arm]) for arm in order],
    }


def _summary_table(columns: Mapping[str, Any]) -> Table:
    return Table(
        pl.DataFrame(dict(columns)),
        counts=("people", "kept", "equipoise", "effective"),
        behind={"mean_weight": "effective", "cv_weight": "effective"},
        shares={"equipoise_share": ("equipoise", "people", 1.0)},
    )


method = Weighting()
