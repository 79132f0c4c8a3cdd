"""The hub's steps: what to centre by, where to start, the next coefficients, and when they are settled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.errors import NobodyLeft, NotAnOutcome, NotConverged, NothingVaries, OneClass, Separation
from dure.estimation import newton
from dure.language import Words
from dure.methods.regression.model import Model
from dure.study.method import HUB, State
from dure.study.summary import Total

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

POISSON_FROM = 1e3
"""Where θ is so many times the mean, and the likelihood still rises to no overdispersion at all, there is none."""
SEPARABLE = {
    ("binomial", "logit"),
    ("binomial", "probit"),
    ("binomial", "cloglog"),
    ("poisson", "log"),
    ("negative_binomial", "log"),
}
"""Families and links whose coefficients may run away; with others the means stop at a bound."""
MOST_PAIRS = 12


def overdispersed(model: Model, state: State) -> bool:
    """Whether θ is estimated; not when the data showed no overdispersion (`theta` is then infinite)."""
    return model.parameters.family == "negative_binomial" and bool(np.isfinite(state.get("theta", 1.0)))


def centres(total: Total, model: Model) -> State:
    """The state after the first round: what to centre by, where to start, and whether anybody is there."""
    n, sum_w = total.count("n"), float(total["sum_w"])
    if n == 0:
        raise NobodyLeft(columns=", ".join(model.design.parsed.columns()))
    events = total.count("events") if model.parameters.family == "binomial" else None
    mean = float(total["sum_y"]) / sum_w
    if events in (0, n) or (model.parameters.family in ("poisson", "negative_binomial") and mean == 0):
        raise OneClass(outcome=model.outcome.text)
    if model.parameters.family == "gaussian" and model.family().link_name != "identity" and mean <= 0:
        raise NotAnOutcome(
            column=model.outcome.text,
            family="gaussian",
            problem=Words("Its mean is not positive", "평균이 양수가 아닙니다"),
            hint=Words(
                "This link needs positive means; use identity.",
                "이 연결은 양수인 평균이 필요합니다. identity를 쓰십시오.",
            ),
        )
    p = len(model.design.columns)
    centre = total["sum_x"] / sum_w if model.design.intercept else np.zeros(p)
    if model.design.intercept:
        centre[0] = 0.0
    sizes = 1 if model.parameters.family == "negative_binomial" else 0
    return {
        "phase": "start",
        "centre": centre,
        "means": total["sum_spread" if model.spreads_apart else "sum_x"] / n,
        "mean_y": mean,
        **({} if model.parameters.family == "binomial" else {"outcome": float(total["sum_outcome"]) / n}),
        "beta": np.zeros(p),
        HUB: {"n": n, "events": events, "sum_w": sum_w, "newton": newton.first(p + sizes)},
    }


def advance(total: Total, model: Model, state: State) -> tuple[State, bool]:
    """The next state, and whether its coefficients are settled. Raises NothingVaries, Separation, NotConverged."""
    hub, p = state[HUB], len(model.design.columns)
    if state["phase"] == "start":
        aliased = newton.aliased_columns(total["hessian"], state["centre"], hub["sum_w"])
        if aliased.all():
            raise NothingVaries(terms=", ".join(model.design.names))
        hub = {**hub, "active": ~aliased}
    active = np.asarray(hub["active"], dtype=bool)
    gradient, hessian, objective, chosen = _system(total, model, state, active)
    separable = (model.parameters.family, model.family().link_name) in SEPARABLE and not model.parameters.firth
    try:
        step = newton.advance(
            hub["newton"], gradient, hessian, objective, chosen, hub["sum_w"] / hub["n"], model.parameters.tolerance
        )
    except newton.Lost:
        raise NotConverged(rounds=state["round"]) from None
    except newton.Stuck:
        if not separable:
            raise NotConverged(rounds=state["round"]) from None
        raise Separation(", ".join(_named(model, active)), _firth_helps(model)) from None
    running = step.separating[:p]
    if running.any() and separable:
        raise Separation(", ".join(_named(model, running)), _firth_helps(model))
    ahead = step.state
    if state["phase"] == "start":
        ahead = _from_the_mean(ahead, total, model, state)
    after: State = {**state, "phase": "newton", "beta": ahead["beta"][:p]}
    if overdispersed(model, state):
        ahead, none = _next_size(ahead, hub["newton"], p) if state["phase"] == "newton" else (ahead, False)
        theta = float(np.exp(ahead["beta"][p]))
        if none and theta > POISSON_FROM * max(1.0, state["mean_y"]):
            theta, ahead = float("inf"), {**ahead, "decrement": float("inf"), "deviance": float("inf")}
        after["theta"] = theta
    if model.parameters.firth and state["phase"] == "penalty":
        hub = {**hub, "pairs": hub["pairs"][-MOST_PAIRS:]}
        if ahead["halved"] == 0:
            hub["at"], hub["slope"] = state["beta"], gradient
    after[HUB] = {**hub, "newton": ahead}
    settled = state["phase"] != "start" and step.converged and np.isfinite(ahead["decrement"])
    if not settled and state["round"] >= model.parameters.rounds:
        raise NotConverged(rounds=model.parameters.rounds)
    return after, bool(settled)


def _system(
    total: Total, model: Model, state: State, active: NDArray[np.bool_]
) -> tuple[Vector, Matrix, float, NDArray[np.bool_]]:
    """Gradient, curvature, what must not rise, and who takes part: coefficients, and log θ after them."""
    if state["phase"] == "penalty":
        return _penalised(total, state, active)
    gradient, hessian, objective = total["gradient"], total["hessian"], float(total["deviance"])
    first = state["phase"] == "start"
    if "observed" in total.arrays:
        hessian = _definite(total["observed"], hessian, active)
    if model.parameters.family == "negative_binomial":
        size = total["size"] if overdispersed(model, state) and not first else np.zeros(len(gradient) + 2)
        # A step in −α, in units of α, where the likelihood is nearly quadratic as α goes to 0; at most to 3 α.
        slope = float(size[0])
        bend = max(float(size[1]) - slope, abs(slope) / 2)
        gradient, block = np.append(gradient, slope), np.pad(hessian, ((0, 1), (0, 1)))
        block[-1, -1] = bend
        active = np.append(active, bend > 0)
        joint = block.copy()
        joint[-1, :-1] = joint[:-1, -1] = size[2:]
        hessian = _definite(joint, block, active)
        if objective < newton.UNDEFINED:
            objective = -2 * float(total["log_likelihood"])
    return gradient, hessian, float("inf") if first else objective, active


def _next_size(ahead: dict[str, Any], before: dict[str, Any], place: int) -> tuple[dict[str, Any], bool]:
    """A step v in −α, in units of α, as one in log θ, and whether α would be gone; of a halved step, half of log θ."""
    if ahead["halved"]:
        return ahead, False
    step, beta = ahead["step"].copy(), ahead["beta"].copy()
    taken = -np.log(max(1.0 - step[place], 0.1))
    gone = bool(step[place] >= 1)
    step[place], beta[place] = taken, before["beta"][place] + taken
    return {**ahead, "step": step, "beta": beta}, gone


def _definite(wanted: Matrix, instead: Matrix, active: NDArray[np.bool_]) -> Matrix:
    """`wanted`, or `instead` where it has a direction of no curvature."""
    try:
        newton.inverse(wanted, active)
    except newton.Stuck:
        return instead
    return wanted


def ask_for_the_penalty(total: Total, state: State) -> State:
    """Firth's gradient needs the inverse information at the same coefficients: the state of the round that sums it."""
    hub = state[HUB]
    held = {name: np.asarray(total[name]) for name in ("gradient", "hessian", "deviance")}
    try:
        inverse = newton.inverse(held["hessian"], np.asarray(hub["active"], dtype=bool))
    except newton.Stuck:
        raise NotConverged(rounds=state["round"]) from None
    return {**state, "phase": "penalty", "inverse": inverse, HUB: {"pairs": [], **hub, "held": held}}


def _penalised(
    total: Total, state: State, active: NDArray[np.bool_]
) -> tuple[Vector, Matrix, float, NDArray[np.bool_]]:
    """Firth's system. The information leaves out how the penalty bends; the pairs of steps and changes of the gradient
    so far bring it in (BFGS: Nocedal & Wright 2006, formula 6.17)."""
    hub, held = state[HUB], state[HUB]["held"]
    gradient = np.where(active, held["gradient"] + total["penalty"], 0.0)
    objective = float(held["deviance"])
    if objective < newton.UNDEFINED:
        objective -= float(np.linalg.slogdet(held["hessian"][np.ix_(active, active)])[1])
    if "at" in hub:
        hub["pairs"].append([state["beta"] - hub["at"], hub["slope"] - gradient])
    inverse = np.asarray(state["inverse"])
    for step, change in hub["pairs"]:
        along = float(step @ change)
        if along > 1e-12 * float(np.linalg.norm(step) * np.linalg.norm(change)):
            turn = np.eye(len(step)) - np.outer(step, change) / along
            inverse = turn @ inverse @ turn.T + np.outer(step, step) / along
    hessian = np.zeros_like(inverse)
    hessian[np.ix_(active, active)] = np.linalg.inv(inverse[np.ix_(active, active)])
    return gradient, hessian, objective, active


def _from_the_mean(ahead: dict[str, Any], total: Total, model: Model, state: State) -> dict[str, Any]:
    """The first step as one from the model of the mean alone, so that half of it is half way there; and a first θ."""
    p = len(model.design.columns)
    begin = np.zeros(len(ahead["beta"]))
    if model.design.intercept:
        begin[0] = float(model.family().link(np.array(state["mean_y"])))
    after = {**ahead, "beta": ahead["beta"].copy()}
    if model.parameters.family == "negative_binomial":
        mean = state["mean_y"]
        variance = float(total["size"][0]) / state[HUB]["sum_w"]
        theta = mean**2 / max(variance - mean, 1e-3 * mean)
        begin[p] = after["beta"][p] = np.log(np.clip(theta, 0.02, 1e3))
    return {**after, "from": begin, "step": after["beta"] - begin}


def _firth_helps(model: Model) -> bool:
    return model.parameters.family == "binomial" and model.family().link_name == "logit"


def _named(model: Model, chosen: NDArray[np.bool_]) -> list[str]:
    names = [name for name, picked in zip(model.design.names, chosen) if picked]
    return [name for name in names if name != "Intercept"] or names
