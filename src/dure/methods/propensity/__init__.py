"""The propensity score: a logistic model of the treatment, by maximum likelihood or with an L1 penalty on thousands of
sparse codes.

Rounds: one of counts, one of moments, Newton steps (about 6) or, with codes, rounds of gradients alone (about 15), and
one of the score's distribution. No number about two codes together leaves a hospital: `estimation.penalised`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from dure.errors import NobodyLeft, NotConverged, NothingVaries, OneClass, Refused, Separation
from dure.estimation import newton, penalised, people
from dure.estimation.families import FAMILIES
from dure.estimation.fold_sums import FoldRows, FoldSums, sums_of_models
from dure.estimation.remedy import merged_design
from dure.language import Words
from dure.methods.propensity.answer import BINS, answer, fewer_folds
from dure.methods.propensity.model import Model, Parameters, centred, model_of, people_of
from dure.study.method import HUB, Example, Kept, Law, Question, State
from dure.study.result import Result
from dure.study.rows import Column, Rows
from dure.study.summary import ArraySpec, Declaration, Kind, Summary, Total

LOGISTIC = FAMILIES["binomial"]


class Propensity:
    name = "propensity"
    title = Words("Propensity score", "성향점수")
    about = Words(
        "The probability of treatment given covariates: maximum likelihood, or an L1 penalty on thousands of codes.",
        "공변량이 주어졌을 때 치료받을 확률. 최대가능도, 또는 수천 개 코드에 L1 벌점을 두어 추정합니다.",
    )
    law: Law = "lossless"
    parameters = Parameters

    def start(self, question: Question) -> State:
        model_of(question)
        return {"phase": "counts", "round": 0}

    def declare(self, question: Question, state: State) -> Declaration:
        model = model_of(question)
        design, p = model.design, len(model.design.columns)

        def array(name: str, shape: tuple[int, ...], kind: Kind, **more: Any) -> ArraySpec:
            return ArraySpec(name, shape, kind, opens_hospitals=model.by_site, **more)

        ends = fold_names(model)
        if state["phase"] == "counts":
            cells, pairs, found = design.cells(), design.pair_names(), []
            label = (f"{model.parameters.treatment} (treated)",)
            for end in ends:
                n = f"n{end}"
                found += [
                    array(n, (), "count", on_small="refuse"),
                    array(f"treated{end}", (), "count", whole=n, on_small="refuse", labels=label),
                    array(f"cells{end}", (cells.size,), "count", whole=n, on_small="refuse", labels=cells.labels),
                    array(f"pairs{end}", (len(pairs),), "count", on_small="refuse", labels=pairs),
                ]
                if model.codes:
                    found.append(array(f"carriers{end}", (len(model.codes),), "count", whole=n))
            every = tuple(f"{name}{end}" for end in ends for name in ("cells", "pairs"))
            spreads = len(design.spreads())
            return (
                *found,
                array("sum_x", (p - 1,), "moment", people=every),
                array("sum_spread", (spreads,), "moment", people=every),
            )
        everybody = tuple(f"n{end}" for end in ends)
        behind = tuple(f"{name}{end}" for end in ends for name in ("n", "cells", "pairs"))
        if state["phase"] == "moments":
            names, kept = tuple(column.name for column in design.spreads()), int(np.sum(state["kept"]))
            # Codes with too few people were left out; here the gate sees that every one that stays has enough.
            carried = [
                spec
                for end in ends
                if kept
                for spec in (
                    array(f"people{end}", (), "count", on_small="refuse"),
                    array(f"carried{end}", (kept,), "count", whole=f"people{end}", on_small="refuse"),
                )
            ]
            return (
                array("gram", (len(ends), p, p), "moment", people=behind),
                array("powers", (len(names), 4), "moment", people=everybody, sides=True, labels=names),
                *carried,
            )
        if state["phase"] == "scores":
            return (array("score_bins", (2, BINS), "count"),)
        models, width = np.asarray(state["beta"]).shape
        codes = tuple(f"carried{end}" for end in ends) if width > p else ()
        sums: tuple[ArraySpec, ...] = (
            array("gradient", (models, width), "moment", people=(*behind, *codes)),
            array("deviance", (models,), "moment", people=everybody),
            array("held_out", (models,), "moment", people=everybody),
        )
        return sums if model.codes else (*sums, array("hessian", (models, p, p), "moment", people=behind))

    def summarise(self, rows: Rows, question: Question, state: State, kept: Kept) -> tuple[Summary, Kept]:
        model = model_of(question)
        if state["phase"] == "counts":
            return _counts(rows, model), {}
        centre, stays = np.asarray(state["centre"]), np.asarray(state["kept"], dtype=bool)
        data = centred(rows, model, centre, stays)
        if state["phase"] == "moments":
            return _moments(rows, model, data, np.asarray(state["means"]), bool(stays.any())), {}
        if state["phase"] == "scores":
            return {"score_bins": _bins(data, centre, np.asarray(state["beta"])[0], state["shift"])}, {}
        beta, group = np.asarray(state["beta"]), np.asarray(state["group"])
        sums = sums_of_models(LOGISTIC, data, centre, beta, group, not model.codes)
        found: Summary = {"gradient": sums.gradient, "deviance": sums.deviance, "held_out": sums.held_out}
        return (found if sums.hessian is None else {**found, "hessian": sums.hessian}), {}

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        model = model_of(question)
        penalty, state = model.parameters.penalty, {**state, "round": state["round"] + 1}
        if state["phase"] == "counts":
            return {**state, **_centres(total, model, question.minimum_people)}
        hub = state[HUB]
        if state["phase"] == "scores":
            return answer(model, hub, state, total["score_bins"], question.minimum_people)
        if state["phase"] == "moments":
            return {**state, **_first(total, model, hub, state)}
        if penalty is None:
            return self._newton(total, model, state)
        hessian = None if model.codes else total["hessian"]
        sums = FoldSums(total["gradient"], total["deviance"], total["held_out"], hessian)
        fit = penalised.advance(hub["fit"], penalty, sums)
        if penalised.finished(fit):
            chosen = penalised.choose(fit, penalty, False, hub["n"])
            beta = penalised.coefficients(fit, 0, chosen)[None]
            return _to_scores({**state, "beta": beta, HUB: {**hub, "fit": fit, "chosen": chosen}})
        if fit["models"]["rounds"] >= model.parameters.rounds:
            raise NotConverged(rounds=model.parameters.rounds)
        beta, group = penalised.asked(fit)
        return {**state, "beta": beta, "group": group, HUB: {**hub, "fit": fit}}

    def _newton(self, total: Total, model: Model, state: State) -> State:
        """One step of maximum likelihood; raises Separation or NotConverged."""
        hub, names = state[HUB], np.array(model.design.names)
        hessian, active = total["hessian"][0], np.asarray(hub["active"], dtype=bool)
        try:
            step = newton.advance(hub["newton"], total["gradient"][0], hessian, float(total["deviance"][0]), active)
        except newton.Stuck:
            raise Separation(terms=", ".join(names[1:][active[1:]])) from None
        if step.separating.any():
            raise Separation(terms=", ".join(names[step.separating]))
        after = {**state, "beta": step.state["beta"][None], HUB: {**hub, "newton": step.state}}
        if step.converged:
            covariance = newton.inverse(hessian, active)
            return _to_scores(
                {**after, HUB: {**after[HUB], "covariance": covariance, "deviance": float(total["deviance"][0])}}
            )
        if state["round"] >= model.parameters.rounds:
            raise NotConverged(rounds=model.parameters.rounds)
        return after

    def remedy(self, question: Question, refused: Refused, arrays: Summary) -> dict[str, Any] | None:
        """Fewer folds where a fold is too small; else merged levels, fewer knots or fewer terms."""
        model = model_of(question)
        ends, folds = fold_names(model), model.folds > 1

        def base(name: str) -> str:
            return name.rsplit("_", 1)[0] if folds and name not in ("powers", "most_parameters") else name

        if {base(name) for name in refused.cells} & {"n", "treated", "people", "carried"}:
            return fewer_folds(question, model, arrays, ends)
        least = {
            name: np.min([np.asarray(arrays[f"{name}{end}"]) for end in ends], axis=0)
            for name in ("n", "cells", "pairs")
            if all(f"{name}{end}" in arrays for end in ends)
        }
        if model.parameters.formula is None or (model.codes and "most_parameters" in refused.cells):
            return None
        again = Refused(refused.rule, refused.way_out, refused.way_out)
        again.cells = {base(name): mask for name, mask in refused.cells.items()}
        found = merged_design(model.parameters.formula, question, model.design, again, least)
        return found or fewer_folds(question, model, arrays, ends)

    def derives(self, question: Question) -> Mapping[str, Column]:
        return {
            "score": Column("number", label=Words("Propensity score", "성향점수")),
            "preference": Column("number", label=Words("Preference score", "선호점수")),
            "linear": Column("number", label=Words("Logit of the propensity score", "성향점수의 로짓")),
        }

    def derive(self, rows: Rows, question: Question, result: Result, kept: Kept) -> Mapping[str, Any]:
        """`score`: the probability of treatment; `preference` (Walker et al. 2013); `linear`: its logit. NaN where a
        term is missing."""
        model, told = model_of(question), result.portable
        x, keep = model.design.read(rows)
        linear = np.full(rows.n, np.nan)
        linear[keep] = np.asarray(told["beta"]) @ x
        if model.parameters.covariates is not None:
            of_codes = np.zeros(len(model.codes))
            of_codes[np.asarray(told["code_places"])] = np.asarray(told["code_beta"])
            linear += rows.code_matrix(model.parameters.covariates) @ of_codes
        shift = np.log(told["treated"]) - np.log(told["n"] - told["treated"])
        return {"score": LOGISTIC.mean(linear), "preference": LOGISTIC.mean(linear - shift), "linear": linear}

    def example(self, random: np.random.Generator) -> Example:
        n = 360
        age, sex = random.normal(60, 9, n), random.choice(["f", "m"], n)
        carried = random.random((n, 12)) < np.linspace(0.1, 0.5, 12)
        eta = 0.05 * (age - 60) + 0.4 * (sex == "m") + carried @ np.linspace(-0.8, 0.8, 12)
        treated = (random.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
        codes = [[int(4_000_000 + 17 * code) for code in np.flatnonzero(one)] or None for one in carried]
        return Example(
            pl.DataFrame(
                {"treated": treated, "age": age, "sex": sex, "codes": pl.Series(codes, dtype=pl.List(pl.Int64))}
            ),
            {
                "treatment": "treated",
                "formula": "age + C(sex)",
                "covariates": "codes",
                "penalty": {"strength": 0.04},
            },
        )


def fold_names(model: Model) -> tuple[str, ...]:
    return tuple(f"_{fold}" for fold in range(model.folds)) if model.folds > 1 else ("",)


def _counts(rows: Rows, model: Model) -> Summary:
    data, found = people_of(rows, model), dict[str, Any]()
    places = np.flatnonzero(data.keep)
    full = np.vstack([np.ones(data.x.shape[1]), data.x])
    for number, end in enumerate(fold_names(model)):
        here = data.fold == number
        chosen = np.zeros_like(data.keep)
        chosen[places[here]] = True
        found[f"n{end}"] = np.array(here.sum(), dtype=np.int64)
        found[f"treated{end}"] = np.array((data.y[here] == 1).sum(), dtype=np.int64)
        found[f"cells{end}"] = model.design.count_cells(rows, chosen)
        found[f"pairs{end}"] = model.design.count_pairs(rows, chosen, full if here.all() else full[:, here])
        if data.codes is not None:
            codes = data.codes if here.all() else data.codes[here]
            found[f"carriers{end}"] = np.bincount(codes.indices, minlength=len(model.codes)).astype(np.int64)
    found["sum_x"] = data.x.sum(axis=1)
    found["sum_spread"] = model.design.spread_rows(rows, data.keep, full).sum(axis=1)
    return found


def _centres(total: Total, model: Model, minimum: int) -> State:
    """The state after the first round: which codes stay, what to centre by; raises NobodyLeft or OneClass."""
    ends = fold_names(model)
    n, treated = (np.array([total.count(f"{name}{end}") for end in ends]) for name in ("n", "treated"))
    if not n.all():
        raise NobodyLeft(columns=", ".join((model.parameters.treatment, *model.design.parsed.columns())))
    if treated.sum() in (0, n.sum()) or (len(n) > 1 and np.isin(treated.sum() - treated, (0, *(n.sum() - n))).any()):
        raise OneClass(outcome=model.parameters.treatment)
    carriers = np.array([total[f"carriers{end}"] for end in ends]) if model.codes else np.zeros((len(ends), 0))
    least = max(minimum, 1)
    kept = ((carriers >= least) & (n[:, None] - carriers >= least)).all(axis=0)
    hub = {"n": int(n.sum()), "treated": int(treated.sum()), "fold_n": n, "fold_treated": treated}
    return {
        "phase": "moments",
        "kept": kept,
        "centre": np.r_[total["sum_x"], carriers.sum(axis=0)[kept]] / n.sum(),
        "means": total["sum_spread"] / n.sum(),
        HUB: {**hub, "carriers": carriers[:, kept]},
    }


def _moments(rows: Rows, model: Model, data: FoldRows, means: Any, codes: bool) -> Summary:
    """Of each fold Σ(1, x)(1, x)ᵀ over the formula's columns, and who carries the codes that stay."""
    folds, p = model.folds, len(data.x) + 1
    found: Summary = {"gram": np.zeros((folds, p, p))}
    for fold, part, _ in data.blocks(8192):
        x = np.vstack([np.ones(part.stop - part.start), data.x[:, part]])
        found["gram"][fold] += x @ x.T
    chosen = people_of(rows, model)
    full = np.vstack([np.ones(chosen.x.shape[1]), chosen.x])
    found["powers"] = people.powers(model.design.spread_rows(rows, chosen.keep, full), means)
    for number, end in enumerate(fold_names(model)):
        if codes and data.codes is not None:
            begin, stop = data.begins[number : number + 2]
            indices = data.codes.indices[data.codes.indptr[begin] : data.codes.indptr[stop]]
            found[f"people{end}"] = np.array(stop - begin, dtype=np.int64)
            found[f"carried{end}"] = np.bincount(indices, minlength=data.codes.shape[1]).astype(np.int64)
    return found


def _first(total: Total, model: Model, hub: State, state: State) -> State:
    """The state before the first model, at the share of the treated."""
    gram, penalty = total["gram"], model.parameters.penalty
    whole = gram.sum(axis=0)
    n, treated = np.asarray(hub["fold_n"]), np.asarray(hub["fold_treated"])
    learnt_n, learnt_t = (np.r_[part.sum(), part.sum() - part] if len(n) > 1 else part for part in (n, treated))
    start = LOGISTIC.link(learnt_t / learnt_n)
    share = hub["treated"] / hub["n"]
    dense = np.asarray(state["centre"])[: len(whole) - 1]
    if penalty is None:
        aliased = newton.aliased_columns(whole, np.r_[0.0, dense], float(hub["n"]))
        if aliased[1:].all():
            raise NothingVaries(terms=", ".join(model.design.names[1:]))
        first = newton.first(len(whole))
        first["beta"] = np.r_[start[0], np.zeros(len(whole) - 1)]
        return {
            "phase": "fit",
            "beta": first["beta"][None],
            "group": np.zeros(1, dtype=np.int64),
            HUB: {**hub, "active": ~aliased, "newton": first},
        }
    weight, spread, _ = penalised.scales(gram, dense, len(n) > 1, penalty.l1_ratio == 1.0)
    carriers = np.asarray(hub["carriers"])
    learnt_c = np.vstack([carriers.sum(axis=0), carriers.sum(axis=0) - carriers]) if len(n) > 1 else carriers
    rate = learnt_c / learnt_n[:, None]
    scale = np.hstack([spread, np.sqrt(rate * (1 - rate))])
    if not scale[0].any():
        raise NothingVaries(terms=", ".join((*model.design.names[1:], *filter(None, [model.parameters.covariates]))))
    fit = penalised.begin(penalty, weight, scale, start, share * (1 - share), not model.codes)
    beta, group = penalised.asked(fit)
    return {"phase": "fit", "beta": beta, "group": group, HUB: {**hub, "fit": fit}}


def _to_scores(state: State) -> State:
    hub = state[HUB]
    shift = float(np.log(hub["treated"]) - np.log(hub["n"] - hub["treated"]))
    return {**state, "phase": "scores", "shift": shift}


def _bins(data: FoldRows, centre: Any, beta: Any, shift: float) -> Any:
    """(2, bins) people by preference score, comparison and treated; rounded so that rounding moves nobody."""
    dense = len(data.x)
    linear = beta[0] - centre[dense:] @ beta[dense + 1 :] + beta[1 : dense + 1] @ data.x
    if data.codes is not None:
        linear = linear + data.codes @ beta[dense + 1 :]
    preference = np.round(LOGISTIC.mean(linear - shift), 9)
    place = np.minimum((preference * BINS + 1e-9).astype(np.int64), BINS - 1)
    return np.bincount(data.y.astype(np.int64) * BINS + place, minlength=2 * BINS).reshape(2, BINS)


method = Propensity()
