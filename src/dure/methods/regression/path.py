"""Ridge, lasso and elastic-net paths with federated cross-validation: what `penalty` asks for.

Rounds: one of counts, one of moments (a linear path is then done), and about six of proximal Newton steps in which all
λ and all folds go together. A person's fold follows from the person's number and the seed alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.errors import InvalidParameter, NobodyLeft, NotConverged, NothingVaries, OneClass, Refused
from dure.estimation import penalised, people
from dure.estimation.carried import refuse_few, refuse_few_rates, relative
from dure.estimation.families import Family
from dure.estimation.fold_sums import FoldRows, FoldSums, by_fold, fold_of, sums_of_models
from dure.estimation.parameters import Penalty
from dure.estimation.remedy import merged_design
from dure.language import Words
from dure.methods.regression.model import Model, model_of, model_rows
from dure.methods.regression.path_answer import answer
from dure.study.method import HUB, Kept, Question, State
from dure.study.result import Result
from dure.study.rows import Column, Rows
from dure.study.summary import ArraySpec, Declaration, Kind, Summary, Total


class Path:
    """The method protocol's parts for a penalised model; `Regression` hands them on."""

    def start(self, question: Question) -> State:
        _possible(model_of(question))
        return {"phase": "counts", "round": 0}

    def declare(self, question: Question, state: State) -> Declaration:
        model, penalty = _asked(question)
        design, p = model.design, len(model.design.columns)
        opens = any(factor.column == "site" for factor in design.factors)

        def array(name: str, shape: tuple[int, ...], kind: Kind, **more: Any) -> ArraySpec:
            return ArraySpec(name, shape, kind, opens_hospitals=opens, **more)

        names = _fold_names(penalty)
        if state["phase"] == "counts":
            cells, pairs = design.cells(), design.pair_names()
            counts: list[ArraySpec] = []
            for end in names:
                n = f"n{end}"
                counts.append(array(n, (), "count", on_small="refuse"))
                if model.parameters.family == "binomial":
                    label = (f"{model.outcome.text} (events)",)
                    counts.append(array(f"events{end}", (), "count", whole=n, on_small="refuse", labels=label))
                shape = (cells.size,)
                counts.append(array(f"cells{end}", shape, "count", whole=n, on_small="refuse", labels=cells.labels))
                counts.append(array(f"pairs{end}", (len(pairs),), "count", on_small="refuse", labels=pairs))
            every = tuple(f"{name}{end}" for end in names for name in ("cells", "pairs"))
            everybody = tuple(f"n{end}" for end in names)
            return (
                *counts,
                array("sum_x", (p,), "moment", people=every),
                array("sum_spread", (len(design.spreads()),), "moment", people=every),
                array("sum_y", (len(names),), "moment", people=everybody),
                array("sum_w", (len(names),), "moment", people=everybody),
                *((array("sum_ww", (), "moment", people=everybody),) if model.parameters.weights else ()),
                *((array("sum_offset", (), "moment", people=everybody),) if model.rates else ()),
            )
        behind = {"people": tuple(f"{name}{end}" for end in names for name in ("n", "cells", "pairs"))}
        everybody = tuple(f"n{end}" for end in names)
        if state["phase"] == "moments":
            spreads = tuple(column.name for column in design.spreads())
            return (
                *((array("relative", (2,), "moment", people=everybody),) if model.rates else ()),
                array("gram", (len(names), p, p), "moment", **behind),
                array("cross", (len(names), p), "moment", **behind),
                array("square", (len(names),), "moment", people=everybody),
                array("powers", (len(spreads), 4), "moment", people=everybody, sides=True, labels=spreads),
            )
        models = len(state["group"])
        return (
            array("gradient", (models, p), "moment", **behind),
            array("hessian", (models, p, p), "moment", **behind),
            array("deviance", (models,), "moment", people=everybody),
            array("held_out", (models,), "moment", people=everybody),
        )

    def summarise(self, rows: Rows, question: Question, state: State, kept: Kept) -> tuple[Summary, Kept]:
        model, penalty = _asked(question)
        if state["phase"] == "counts":
            return _counts(rows, model, penalty), {}
        centred = rows.remember_latest(
            ("centred path", model.key),
            np.asarray(state["centre"]).tobytes(),
            lambda: _sorted(rows, model, penalty, np.asarray(state["centre"])),
        )
        if state["phase"] == "moments":
            data, keep = model_rows(rows, model)
            found = _moments(centred, float(state["mean_y"]))
            if model.rates and data.offset is not None:
                found["relative"] = relative(data.offset, state["mean_offset"], data.weights)
            found["powers"] = people.powers(model.design.spread_rows(rows, keep, data.x), np.asarray(state["means"]))
            return found, {}
        sums = sums_of_models(
            model.family(), centred, np.asarray(state["centre"]), np.asarray(state["beta"]), state["group"], True
        )
        assert sums.hessian is not None
        return {
            "gradient": sums.gradient,
            "hessian": sums.hessian,
            "deviance": sums.deviance,
            "held_out": sums.held_out,
        }, {}

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        model, penalty = _asked(question)
        state = {**state, "round": state["round"] + 1}
        if state["phase"] == "counts":
            found = _centres(total, model, penalty)
            if weights := model.parameters.weights:
                refuse_few(float(total["sum_w"].sum()), float(total["sum_ww"]), weights, question.minimum_people)
            if model.rates:
                found["mean_offset"] = float(total["sum_offset"]) / found[HUB]["n"]
            return {**state, **found}
        if state["phase"] == "moments" and model.rates:
            refuse_few_rates(total["relative"], str(model.parameters.offset), question.minimum_people)
        hub = state[HUB]
        if state["phase"] == "moments":
            fit, dropped, copies = _fit(total, model, penalty, state)
            hub = {**hub, "dropped": dropped, "copies": copies}
            if model.parameters.family == "gaussian":
                fit = penalised.gaussian_path(fit, penalty, total["gram"], total["cross"], total["square"])
                return answer(model, penalty, {**hub, "fit": fit}, state)
        else:
            sums = FoldSums(total["gradient"], total["deviance"], total["held_out"], total["hessian"])
            fit = penalised.advance(hub["fit"], penalty, sums)
            if penalised.finished(fit):
                return answer(model, penalty, {**hub, "fit": fit}, state)
            if fit["models"]["rounds"] >= model.parameters.rounds:
                raise NotConverged(rounds=model.parameters.rounds)
        beta, group = penalised.asked(fit)
        return {**state, "phase": "fit", "beta": beta, "group": group, HUB: {**hub, "fit": fit}}

    def remedy(self, question: Question, refused: Refused, arrays: Summary) -> dict[str, Any] | None:
        """Fewer folds where a fold has too few people or events; else merged levels, fewer knots or fewer terms."""
        if "effective" in refused.cells:
            return None
        model, penalty = _asked(question)
        names = _fold_names(penalty)
        bases = {name.rsplit("_", 1)[0] if penalty.folds else name for name in refused.cells}
        if bases & {"n", "events"}:
            return _fewer_folds(question, penalty, arrays, names)
        least = {
            base: np.min([np.asarray(arrays[f"{base}{end}"]) for end in names], axis=0)
            for base in ("n", "cells", "pairs")
            if all(f"{base}{end}" in arrays for end in names)
        }
        cells = {
            (name if name in ("powers", "most_parameters") else name.rsplit("_", 1)[0] if penalty.folds else name): mask
            for name, mask in refused.cells.items()
        }
        again = Refused(refused.rule, refused.way_out, refused.way_out)
        again.cells = cells
        return merged_design(model.parameters.formula, question, model.design, again, least) or _fewer_folds(
            question, penalty, arrays, names
        )

    def derives(self, question: Question) -> Mapping[str, Column]:
        return {"prediction": Column("number", label=Words("Predicted value", "예측값"))}

    def derive(self, rows: Rows, question: Question, result: Result, kept: Kept) -> Mapping[str, Any]:
        """`prediction`: the fitted mean at the chosen λ, NaN where a term is missing."""
        model = model_of(question)
        x, keep = model.design.read(rows)
        eta = np.asarray(result.portable["beta"]) @ x
        if model.parameters.offset:
            eta = eta + rows.numbers(model.parameters.offset)[keep]
        values = np.full(rows.n, np.nan)
        values[keep] = model.family().mean(eta)
        return {"prediction": values}


def _asked(question: Question) -> tuple[Model, Penalty]:
    model = model_of(question)
    penalty = model.parameters.penalty
    assert penalty is not None
    return model, penalty


def _possible(model: Model) -> None:
    """Raise InvalidParameter where a penalised model cannot be what is asked."""
    asked, penalty = model.parameters, model.parameters.penalty
    assert penalty is not None
    given = penalised.strengths(penalty)
    problem: Words | None = None
    name = "penalty"
    if asked.family not in ("gaussian", "binomial", "poisson") or not model.family().canonical:
        name = "family"
        problem = Words(
            "A penalised model is gaussian, binomial (logit) or poisson (log)",
            "벌점 모형은 gaussian, binomial(logit), poisson(log)만 됩니다",
        )
    elif asked.firth or asked.covariance != "model":
        name = "firth" if asked.firth else "covariance"
        problem = Words("A penalised model has no standard errors", "벌점 모형에는 표준오차가 없습니다")
    elif not model.design.intercept:
        name = "formula"
        problem = Words("A penalised model has an intercept", "벌점 모형에는 절편이 있어야 합니다")
    elif given is not None and (len(given) > 200 or not np.isfinite(given).all() or (given <= 0).any()):
        problem = Words("`strength` is positive, at most 200 values", "`strength`는 양수이며 200개 이하입니다")
    elif penalty.l1_ratio == 0 and not penalty.folds and (given is None or len(given) > 1):
        problem = Words("A ridge's λ is chosen by `folds`, or given", "능형의 λ는 `folds`로 고르거나 직접 주십시오")
    if problem is not None:
        raise InvalidParameter(method="regression", parameter=name, problem=problem)


def _fold_names(penalty: Penalty) -> tuple[str, ...]:
    return tuple(f"_{fold}" for fold in range(penalty.folds)) if penalty.folds else ("",)


def _folds(rows: Rows, penalty: Penalty, keep: NDArray[np.bool_]) -> NDArray[np.int64]:
    return fold_of(rows.person, rows.n, penalty.folds, penalty.seed)[keep]


def _counts(rows: Rows, model: Model, penalty: Penalty) -> Summary:
    data, keep = model_rows(rows, model)
    fold, places = _folds(rows, penalty, keep), np.flatnonzero(keep)
    weights = np.ones_like(data.y) if data.weights is None else data.weights
    names = _fold_names(penalty)
    found: Summary = {}
    for number, end in enumerate(names):
        here = fold == number
        chosen = np.zeros_like(keep)
        chosen[places[here]] = True
        x = data.x if penalty.folds is None else data.x[:, here]
        found[f"n{end}"] = np.array(here.sum(), dtype=np.int64)
        found[f"cells{end}"] = model.design.count_cells(rows, chosen)
        found[f"pairs{end}"] = model.design.count_pairs(rows, chosen, x)
        if model.parameters.family == "binomial":
            found[f"events{end}"] = np.array((data.y[here] == 1).sum(), dtype=np.int64)
    found["sum_x"] = data.x @ weights
    found["sum_spread"] = model.design.spread_rows(rows, keep, data.x).sum(axis=1)
    found["sum_y"] = np.bincount(fold, weights=data.y * weights, minlength=len(names))
    found["sum_w"] = np.bincount(fold, weights=weights, minlength=len(names))
    if model.rates and data.offset is not None:
        found["sum_offset"] = np.array(data.offset.sum())
    if data.weights is not None:
        found["sum_ww"] = np.array(weights @ weights)
    return found


def _sorted(rows: Rows, model: Model, penalty: Penalty, centre: NDArray[np.float64]) -> FoldRows:
    """Centred columns without the intercept, people sorted by fold."""
    data, keep = model_rows(rows, model)
    x = data.x[1:] - centre[:, None]
    fold = _folds(rows, penalty, keep)
    return by_fold(x, data.y, data.weights, data.offset, None, fold, penalty.folds or 1)


def _moments(rows: FoldRows, mean_y: float) -> Summary:
    """Of each fold, Σw(1, x)(1, x)ᵀ, Σw(1, x)(y − mean) and Σw(y − mean)²; an offset is part of a linear outcome."""
    folds, p = len(rows.begins) - 1, len(rows.x) + 1
    gram, cross, square = np.zeros((folds, p, p)), np.zeros((folds, p)), np.zeros(folds)
    for fold, part, _ in rows.blocks(8192):
        x = np.vstack([np.ones(part.stop - part.start), rows.x[:, part]])
        y = rows.y[part] - mean_y - (0.0 if rows.offset is None else rows.offset[part])
        if rows.weights is not None:
            root = np.sqrt(rows.weights[part])
            x, y = x * root, y * root
        gram[fold] += x @ x.T
        cross[fold] += x @ y
        square[fold] += y @ y
    return {"gram": gram, "cross": cross, "square": square}


def _centres(total: Total, model: Model, penalty: Penalty) -> State:
    """The state after the first round; raises NobodyLeft or OneClass."""
    names = _fold_names(penalty)
    n, sum_w = sum(total.count(f"n{end}") for end in names), total["sum_w"]
    if n == 0 or not sum_w.all():
        raise NobodyLeft(columns=", ".join(model.design.parsed.columns()))
    binomial = model.parameters.family == "binomial"
    events = sum(total.count(f"events{end}") for end in names) if binomial else None
    learnt_y = total["sum_y"].sum() - (total["sum_y"] if penalty.folds else 0.0)
    learnt_w = sum_w.sum() - (sum_w if penalty.folds else 0.0)
    mean = float(total["sum_y"].sum() / sum_w.sum())
    means = np.atleast_1d(learnt_y / learnt_w)
    alike = (means <= 0).any() or (binomial and (means >= 1).any())
    if events in (0, n) or (model.parameters.family != "gaussian" and alike):
        raise OneClass(outcome=model.outcome.text)
    return {
        "phase": "moments",
        "centre": (total["sum_x"] / sum_w.sum())[1:],
        "means": total["sum_spread"] / n,
        "mean_y": mean if model.parameters.family == "gaussian" else 0.0,
        HUB: {"n": n, "events": events, "sum_w": sum_w, "mean": mean, "group_means": means},
    }


def _fit(total: Total, model: Model, penalty: Penalty, state: State) -> tuple[dict[str, Any], list[str], list[str]]:
    """Scales among the people each group learns from, the first models, and the columns that cannot enter."""
    hub, centre, names = state[HUB], np.asarray(state["centre"]), np.array(model.design.names[1:])
    weight, scale, twins = penalised.scales(total["gram"], centre, bool(penalty.folds), penalty.l1_ratio == 1.0)
    dropped, copies = ([str(name) for name in names[mask]] for mask in ((scale[0] == 0) > twins, twins))
    if not scale[0].any():
        raise NothingVaries(terms=", ".join(names))
    family: Family = model.family()
    if model.parameters.family == "gaussian":
        start, bend = np.zeros(len(weight)), 1.0
    else:
        means_y = np.r_[hub["mean"], hub["group_means"]] if penalty.folds else np.array([hub["mean"]])
        start, bend = family.link(means_y), float(family.variance(np.array([hub["mean"]]))[0])
    return penalised.begin(penalty, weight, scale, start, bend, True), dropped, copies


def _fewer_folds(
    question: Question, penalty: Penalty, arrays: Summary, names: tuple[str, ...]
) -> dict[str, Any] | None:
    """As many folds as leave each about two and a half times the people and events it needs."""
    if not penalty.folds or not all(f"n{end}" in arrays for end in names):
        return None
    n = sum(int(arrays[f"n{end}"]) for end in names)
    events = [int(arrays[f"events{end}"]) for end in names if f"events{end}" in arrays]
    fewest = min(sum(events), n - sum(events)) if events else n
    folds = min(int(fewest / (2.5 * max(question.minimum_people, 1))), penalty.folds - 1)
    if folds < 2 and fewest < question.minimum_people:
        return None
    changed = {**penalty.model_dump(), "folds": folds if folds >= 2 else None}
    if folds < 2 and penalty.l1_ratio == 0 and not isinstance(penalty.strength, float):
        return None
    return {"penalty": changed}
