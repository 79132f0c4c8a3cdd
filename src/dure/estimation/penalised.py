"""Elastic-net paths at the hub: proximal Newton steps of many models at once, the choice of λ, and nothing of people.

The objective is that of `Penalty` (Friedman, Hastie & Tibshirani 2010, J Stat Softw 33(1)): the mean of half the
deviance, and λ·(l1_ratio·|b| + ½(1 − l1_ratio)·b²) over columns scaled to unit standard deviation (divisor n, weights
count) among the people a model learns from. Models differ in λ and in the fold that they do not see (group 0: none).

Curvature is either summed (the information of every model) or, for thousands of columns, learnt from the gradients of
earlier rounds (BFGS in the compact form of Byrd, Nocedal & Schnabel 1994, Math Program 63), so that no number about two
columns together ever leaves a hospital.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.estimation.fold_sums import FoldSums
from dure.estimation.parameters import Penalty
from dure.estimation.quadratic import solve, violation

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Fit = dict[str, Any]
"""Plain data, kept in the ledger: see `begin`."""

NEVER = 1e200
"""A penalty no column pays: it stays out."""
LEAST_RATIO = 1e-3
"""λ at which a path begins is that of a lasso share of at least this; a ridge never lets a term go (as glmnet)."""
EXACT = {True: 1e-10, False: 1e-9}
"""Optimality conditions missed at most, relative to the largest gradient of the empty model; by summed curvature."""
CONSTANT = 1e-12
"""Standard deviation relative to the mean below which a column is constant."""
COPY = 1e-11
"""Two columns whose correlation is this near to one say the same."""
PAIRS = 30
"""Earlier steps from which curvature is learnt."""
TOGETHER = 12
"""Models of one round without summed curvature."""
LARGEST_ROUND = 1 << 20
"""Numbers of one round with summed curvature."""


def strengths(penalty: Penalty) -> Vector | None:
    """The λ asked for, strongest first; None where a path is to be found."""
    if penalty.strength is None:
        return None
    return np.sort(np.atleast_1d(np.asarray(penalty.strength, dtype=np.float64)))[::-1].copy()


def scales(gram: NDArray[np.float64], centre: Vector, folds: bool, lasso: bool) -> tuple[Vector, Matrix, Vector]:
    """(G,) weight and (G, p) standard deviations of the people each group learns from, by Σw(1, x)(1, x)ᵀ of each
    fold (F, p + 1, p + 1) of columns centred by `centre`; 0 for a constant. The third, (p,), is True for what a lasso
    cannot tell from an earlier column, and is left out, since its answer would not be one."""
    whole = gram.sum(axis=0)
    learnt = [whole, *(whole - part for part in gram)] if folds else [whole]
    weight = np.array([part[0, 0] for part in learnt])
    means = np.array([part[0, 1:] for part in learnt]) / weight[:, None]
    variance = np.array([np.diag(part)[1:] for part in learnt]) / weight[:, None] - means**2
    scale = np.sqrt(np.maximum(variance, 0.0))
    scale[scale <= CONSTANT * (np.abs(centre) + np.abs(means)) + CONSTANT * scale[0]] = 0.0
    twins = np.zeros(len(centre), dtype=bool)
    if lasso:
        used = np.flatnonzero(scale[0] > 0)
        unit = whole[1:, 1:][np.ix_(used, used)] / np.outer(scale[0][used], scale[0][used]) / weight[0]
        twins[used] = np.triu(np.abs(unit) >= 1 - COPY, 1).any(axis=0)
        scale[:, twins] = 0.0
    return weight, scale, twins


def path(penalty: Penalty, steepest: float) -> Vector:
    """λ from the strongest that matters, evenly on the logarithmic scale; `steepest`: max |gradient| without terms."""
    largest = steepest / max(penalty.l1_ratio, LEAST_RATIO)
    return np.asarray(largest * penalty.least ** (np.arange(penalty.path) / (penalty.path - 1)))


def begin(penalty: Penalty, weight: Vector, scale: Matrix, start: Vector, variance: float, information: bool) -> Fit:
    """The state before any model: `weight` (G,) and `scale` (G, p) of the people each group learns from (0: a column
    that never enters), `start` (G,) intercepts, `variance` a person's curvature there."""
    found = {
        "weight": weight,
        "scale": scale,
        "start": start,
        "variance": variance,
        "information": information,
        "lambdas": None,
        "size": 0.0,
        "next": 0,
    }
    known = strengths(penalty)
    return _open(found, penalty, None) if known is None else _with_path(found, penalty, known)


def _with_path(fit: Fit, penalty: Penalty, lambdas: Vector) -> Fit:
    groups, columns = fit["scale"].shape
    count = len(lambdas)
    return _open(
        {
            **fit,
            "lambdas": lambdas,
            "next": 0,
            "solutions": np.zeros((groups, count, columns + 1)),
            "deviance": np.zeros((groups, count)),
            "held_out": np.zeros((groups, count)),
        },
        penalty,
        None,
    )


def _open(fit: Fit, penalty: Penalty, last: Fit | None) -> Fit:
    """The next models: as many λ, for every group, as a round can carry; they start where the λ before ended."""
    groups, columns = fit["scale"].shape
    if fit["lambdas"] is None:
        group, place = np.zeros(1, dtype=np.int64), np.full(1, -1, dtype=np.int64)
    else:
        most = LARGEST_ROUND // (columns + 1) ** 2 if fit["information"] else TOGETHER
        several = max(1, most // groups)
        places = np.arange(fit["next"], min(fit["next"] + several, len(fit["lambdas"])))
        group, place = np.tile(np.arange(groups), len(places)), np.repeat(places, groups)
    theta = np.zeros((len(group), columns + 1))
    theta[:, 0] = fit["start"][group]
    if fit["next"]:
        theta = fit["solutions"][group, fit["next"] - 1].copy()
    pairs = {}
    if last is not None:  # what earlier λ taught about curvature
        pairs = {int(g): last["pairs"][number] for number, g in enumerate(last["all_groups"])}
    opened = {
        "group": group,
        "place": place,
        "theta": theta,
        "from": theta.copy(),
        "step": np.zeros_like(theta),
        "objective": np.full(len(group), np.inf),
        "missed": np.full(len(group), np.inf),
        "halved": np.zeros(len(group), dtype=np.int64),
        "gradient": np.zeros_like(theta),
        "pairs": [list(pairs.get(int(g), [])) for g in group],
        "rounds": 0,
    }
    return {**fit, "models": opened, "next": int(place[-1]) + 1 if place[-1] >= 0 else 0}


def asked(fit: Fit) -> tuple[Matrix, NDArray[np.int64]]:
    """Coefficients (M, p + 1) on centred columns in their own units, and groups (M,), of the models of this round."""
    models = fit["models"]
    return np.asarray(models["theta"] / _units(fit), dtype=np.float64), np.asarray(models["group"])


def _units(fit: Fit) -> Vector:
    scale = np.asarray(fit["scale"])[0]
    return np.asarray(np.r_[1.0, np.where(scale > 0, scale, 1.0)], dtype=np.float64)


def penalties(fit: Fit, penalty: Penalty, group: int, place: int) -> tuple[Vector, Vector]:
    """(p + 1,) weights of |b| and of ½b², in the units of group 0's scale; the intercept is free."""
    scale = np.asarray(fit["scale"])
    usable = (scale[0] > 0) & (scale[group] > 0)
    if place < 0:
        return np.r_[0.0, np.full(scale.shape[1], NEVER)], np.zeros(scale.shape[1] + 1)
    ratio = np.divide(scale[group], scale[0], out=np.zeros(scale.shape[1]), where=usable)
    strength = fit["lambdas"][place]
    l1 = np.where(usable, strength * penalty.l1_ratio * ratio, NEVER)
    return np.r_[0.0, l1], np.r_[0.0, strength * (1 - penalty.l1_ratio) * ratio**2]


def advance(fit: Fit, penalty: Penalty, sums: FoldSums) -> Fit:
    """One step of every model still open, from sums at `asked`; finished ones are written down, and when none is left
    the next ones open. `finished` says whether there are more."""
    models, units = fit["models"], _units(fit)
    gradient = -sums.gradient / units / fit["weight"][models["group"]][:, None]
    if not fit["size"]:
        steepest = np.abs(gradient[:, 1:]) * (fit["scale"][0] > 0)
        fit = {**fit, "size": float(steepest.max(initial=0.0)) or 1.0}
    after: Fit = {
        name: list(value) if isinstance(value, list) else np.array(value) if isinstance(value, np.ndarray) else value
        for name, value in models.items()
    }
    done = np.zeros(len(after["group"]), dtype=bool)
    for m in range(len(done)):
        done[m] = _advance(fit, penalty, after, m, gradient[m], sums, units)
    if fit["lambdas"] is None and done.all():
        steepest = float((np.abs(gradient[0, 1:]) * (fit["scale"][0] > 0)).max(initial=0.0))
        fit = {**fit, "size": steepest or 1.0, "start": fit["start"] + (after["theta"][0, 0] - fit["start"][0])}
        return _with_path(fit, penalty, path(penalty, steepest or 1.0))
    if fit["lambdas"] is not None:
        fit = _written(fit, after, done, sums)
    left = {name: _kept(value, ~done) for name, value in after.items()}
    taught = {**fit.get("taught", {}), **{int(g): p for g, p, d in zip(after["group"], after["pairs"], done) if d}}
    left["rounds"] = models["rounds"] + 1
    fit = {**fit, "models": left, "taught": {} if fit["information"] else taught}
    if not done.all() or fit["next"] >= len(fit["lambdas"]):
        return fit
    return _open(fit, penalty, {"all_groups": list(fit["taught"]), "pairs": list(fit["taught"].values())})


def finished(fit: Fit) -> bool:
    return fit["lambdas"] is not None and not len(fit["models"]["group"])


def _kept(value: Any, mask: NDArray[np.bool_]) -> Any:
    if isinstance(value, list):
        return [item for item, keep in zip(value, mask) if keep]
    return value[mask] if isinstance(value, np.ndarray) else value


def _advance(fit: Fit, penalty: Penalty, after: Fit, m: int, gradient: Vector, sums: FoldSums, units: Vector) -> bool:
    """The next point of one model, or True where this one is the answer."""
    group, theta = int(after["group"][m]), after["theta"][m]
    l1, l2 = penalties(fit, penalty, group, int(after["place"][m]))
    weight = float(fit["weight"][group])
    objective = float(sums.deviance[m]) / 2 / weight + l1 @ np.abs(theta) + l2 @ theta**2 / 2
    worse = objective > after["objective"][m] + 1e-13 * max(abs(after["objective"][m]), 1e-3)
    if worse and after["missed"][m] > 1e-7 * fit["size"] and after["halved"][m] < 40:
        after["step"][m] /= 2
        after["theta"][m] = after["from"][m] + after["step"][m]
        after["halved"][m] += 1
        return False
    missed = violation(gradient + l2 * theta, theta, l1)
    exact = EXACT[bool(fit["information"])] * fit["size"]
    if missed <= exact or (missed <= 100 * exact and missed > 0.5 * after["missed"][m]):
        return True
    if fit["information"]:
        assert sums.hessian is not None
        curvature = sums.hessian[m] / weight / np.outer(units, units)
    else:
        after["pairs"][m] = _learnt(after["pairs"][m], after, m, gradient)
        curvature = _compact(np.full(len(theta), fit["variance"]), after["pairs"][m])
    new = solve(curvature + np.diag(l2), curvature @ theta - gradient, l1, theta)
    after["from"][m], after["step"][m], after["theta"][m] = theta, new - theta, new
    after["objective"][m], after["missed"][m], after["halved"][m] = objective, missed, 0
    after["gradient"][m] = gradient
    return False


def _learnt(pairs: list[Matrix], after: Fit, m: int, gradient: Vector) -> list[Matrix]:
    """Earlier (step, change of gradient) pairs with the newest, where it bends upwards beyond rounding."""
    if not np.isfinite(after["objective"][m]):
        return pairs
    pair = np.stack([after["theta"][m] - after["from"][m], gradient - after["gradient"][m]])
    if pair[0] @ pair[1] <= 1e-10 * np.linalg.norm(pair[0]) * np.linalg.norm(pair[1]):
        return pairs
    return [*pairs, pair][-PAIRS:]


def _compact(diagonal: Vector, pairs: list[Matrix]) -> Matrix:
    """The BFGS matrix of a diagonal start and the pairs (Byrd, Nocedal & Schnabel 1994, Theorem 2.3)."""
    if not pairs:
        return np.diag(diagonal)
    step, change = (np.array([pair[side] for pair in pairs]).T for side in (0, 1))
    scaled, both = diagonal[:, None] * step, step.T @ change
    lower = np.tril(both, -1)
    middle = np.block([[step.T @ scaled, lower], [lower.T, -np.diag(np.diag(both))]])
    wide = np.hstack([scaled, change])
    scales = 1.0 / np.sqrt(np.abs(np.diag(middle)))
    wide, middle = wide * scales, middle * np.outer(scales, scales)
    found = np.diag(diagonal) - wide @ np.linalg.solve(middle, wide.T)
    return np.asarray((found + found.T) / 2)


def _written(fit: Fit, after: Fit, done: NDArray[np.bool_], sums: FoldSums) -> Fit:
    """The finished models' answers."""
    fit = {**fit, **{name: fit[name].copy() for name in ("solutions", "deviance", "held_out")}}
    for m in np.flatnonzero(done):
        group, place, theta = int(after["group"][m]), int(after["place"][m]), after["theta"][m]
        fit["solutions"][group, place] = theta
        fit["deviance"][group, place] = sums.deviance[m]
        fit["held_out"][group, place] = sums.held_out[m]
    return fit


def coefficients(fit: Fit, group: int, place: int) -> Vector:
    """(p + 1,) intercept and coefficients of centred columns, in the columns' own units."""
    return np.asarray(fit["solutions"][group, place] / _units(fit))


def held_out_deviance(fit: Fit) -> tuple[Vector, Vector]:
    """(L,) mean held-out deviance per person and its standard error over folds (weighted by the folds' people, as
    glmnet's cv.glmnet does)."""
    everybody = fit["weight"][0]
    size = everybody - fit["weight"][1:]
    each = fit["held_out"][1:] / size[:, None]
    mean = size @ each / size.sum()
    spread = size @ (each - mean) ** 2 / size.sum()
    return mean, np.sqrt(spread / (len(size) - 1))


def choose(fit: Fit, penalty: Penalty, gaussian: bool, people: int) -> int:
    """The place of the λ chosen: by cross-validation, or without folds by least BIC (Zou, Hastie & Tibshirani 2007,
    Ann Stat 35(5): as many degrees of freedom as terms)."""
    if penalty.folds:
        mean, error = held_out_deviance(fit)
        best = int(np.argmin(mean))
        if penalty.choose == "least":
            return best
        return int(np.flatnonzero(mean <= mean[best] + error[best])[0])
    return int(np.argmin(criterion(fit, gaussian, people)))


def criterion(fit: Fit, gaussian: bool, people: int) -> Vector:
    """(L,) Schwarz's criterion of each λ."""
    deviance = np.asarray(fit["deviance"][0])
    misfit = people * np.log(np.maximum(deviance, 1e-300) / people) if gaussian else deviance
    return np.asarray(misfit + np.log(people) * (terms(fit) + 1))


def terms(fit: Fit) -> NDArray[np.int64]:
    """(L,) non-zero coefficients beside the intercept."""
    return np.asarray((fit["solutions"][0][:, 1:] != 0).sum(axis=1))


def gaussian_path(fit: Fit, penalty: Penalty, gram: Matrix, cross: Matrix, square: Vector) -> Fit:
    """Every model of a linear path from one round: of each fold (F, p + 1, p + 1) Σw(1, x)(1, x)ᵀ, (F, p + 1)
    Σw(1, x)y and (F,) Σwy², columns and outcome centred."""
    units = _units(fit)
    gram, cross = gram / np.outer(units, units), cross / units
    groups, _ = fit["scale"].shape
    total, cross_total, square_total = gram.sum(axis=0), cross.sum(axis=0), float(square.sum())
    weight = fit["weight"]
    if fit["lambdas"] is None:
        empty = cross_total[1:] - total[1:, 0] * (cross_total[0] / total[0, 0])
        steepest = float((np.abs(empty) * (fit["scale"][0] > 0)).max(initial=0.0)) / weight[0]
        fit = _with_path({**fit, "size": steepest or 1.0}, penalty, path(penalty, steepest or 1.0))
    fit = {**fit, **{name: fit[name].copy() for name in ("solutions", "deviance", "held_out")}}
    for group in range(groups):
        other = gram[group - 1] * (group > 0), cross[group - 1] * (group > 0), square[group - 1] * (group > 0)
        hessian, linear = (total - other[0]) / weight[group], (cross_total - other[1]) / weight[group]
        theta = np.zeros(len(linear))
        for place in range(len(fit["lambdas"])):
            l1, l2 = penalties(fit, penalty, group, place)
            theta = solve(hessian + np.diag(l2), linear, l1, theta)
            left = square_total - other[2] + theta @ (weight[group] * (hessian @ theta - 2 * linear))
            fit["solutions"][group, place] = theta
            fit["deviance"][group, place] = left
            if group:
                fit["held_out"][group, place] = other[2] + theta @ (other[0] @ theta - 2 * other[1])
    nothing = np.zeros(0, dtype=np.int64)
    return {**fit, "models": {"group": nothing, "place": nothing, "rounds": 0}}
