"""The answer: coefficients in the formula's own units, their errors, and what to say of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.errors import NotConverged
from dure.estimation import newton
from dure.estimation.coefficients import coefficient_table, ratio_table
from dure.estimation.families import gamma_likelihood
from dure.language import Words
from dure.methods.regression.model import Model
from dure.methods.regression.telling import figures, paragraph, references
from dure.study.method import HUB, State
from dure.study.result import Fitted, Result
from dure.study.summary import Total

Matrix = NDArray[np.float64]

ERRORS = {
    "model": "expected information",
    "observed": "observed information",
    "HC0": "HC0",
    "HC1": "HC1: n/(n−p)",
    "cluster": "clusters: G/(G−1)·(n−1)/(n−p)",
}


def result(total: Total, model: Model, state: State) -> Result:
    """The Result, from the sums at the fitted coefficients and a fit on centred columns."""
    asked, hub, names = model.parameters, state[HUB], model.design.names
    active = np.asarray(hub["active"], dtype=bool)
    fitted, n = int(active.sum()), int(hub["n"])
    freedom, overdispersed = n - fitted, "size" in total.arrays
    back = np.eye(len(names))
    if model.design.intercept:
        back[0, 1:] = -np.where(active, state["centre"], 0.0)[1:]
    beta = back @ np.where(active, state["beta"], 0.0)
    deviance, likelihood = float(total["deviance"]), float(total["log_likelihood"])
    dispersion = _dispersion(total, model, freedom)
    clusters = total.count("clusters") if "clusters" in total.arrays else None
    try:
        covariance, size_variance = _covariance(total, model, active, n, dispersion, clusters)
    except newton.Stuck:
        raise NotConverged(rounds=state["round"]) from None
    covariance = back @ covariance @ back.T
    facts: dict[str, Any] = {"n": n, "events": hub["events"], "deviance": deviance}
    estimated = 0
    if asked.family == "gaussian":
        likelihood = likelihood - n / 2 * (np.log(2 * np.pi * deviance / n) + 1) if deviance > 0 else float("nan")
        estimated = 1
    elif asked.family == "gamma":
        weight, saturated = float(hub["sum_w"]), likelihood + deviance / 2
        likelihood = gamma_likelihood(weight, saturated, deviance, deviance / weight) if deviance > 0 else float("nan")
        estimated = 1
    elif overdispersed:
        theta, estimated = float(state["theta"]), 1
        error = float(np.sqrt(size_variance)) * theta
        facts |= {"theta": theta, "theta_std_error": error, "alpha": 1 / theta, "alpha_std_error": error / theta**2}
    elif asked.family == "negative_binomial":
        facts |= {"theta": None, "alpha": 0.0}
    if asked.firth:
        log_det = float(np.linalg.slogdet(total["hessian"][np.ix_(active, active)])[1])
        facts["penalised_log_likelihood"] = likelihood + log_det / 2
    facts |= {
        "log_likelihood": _known(likelihood),
        "aic": _known(-2 * likelihood + 2 * (fitted + estimated)),
        "dispersion": dispersion,
        "family": asked.family,
        "link": model.family().link_name,
        "covariance": ERRORS[asked.covariance],
        "formula": asked.formula,
    }
    small = (clusters - 1 if clusters else freedom) if asked.family in ("gaussian", "gamma") else None
    table = coefficient_table(names, beta, covariance, active, asked.level, small)
    tables = {"coefficients": table}
    if model.family().link_name in ("log", "logit", "cloglog"):
        tables["ratios"] = ratio_table(table)
    counted = ["n"]
    if hub["events"] is not None:
        counted.append("events")
    if clusters is not None:
        facts["clusters"] = clusters
        counted += [] if model.by_site else ["clusters"]
    events = hub["events"]
    return Result(
        method="regression",
        tables=tables,
        facts=facts,
        people_facts=tuple(counted),
        fitted=Fitted(fitted + overdispersed, n, events, None if events is None else n - events),
        portable={"beta": beta, "active": active},
        notes=_notes(model, active, overdispersed),
        figures=figures(asked),
        paragraph=paragraph(asked),
        references=references(asked),
    )


def _known(value: float) -> float | None:
    """None where a fit without any deviance has no likelihood."""
    return float(value) if np.isfinite(value) else None


def _dispersion(total: Total, model: Model, freedom: int) -> float:
    """Residual variance of gaussian, Pearson's χ²/(n − p) of gamma (McCullagh & Nelder 2.2.2 and 8.3.6), else 1."""
    if model.parameters.family not in ("gaussian", "gamma"):
        return 1.0
    if freedom <= 0:
        return float("nan")
    return float(total["deviance" if model.parameters.family == "gaussian" else "pearson"]) / freedom


def _covariance(
    total: Total, model: Model, active: NDArray[np.bool_], n: int, dispersion: float, clusters: int | None
) -> tuple[Matrix, float]:
    """(p, p) covariance of centred coefficients, and the variance of log θ.

    Robust ones: Huber 1967, White 1980; clusters: Liang & Zeger 1986; corrections as statsmodels, and as
    sandwich::vcovHC and vcovCL with type HC1. For a negative binomial, `model` is given θ (as MASS::glm.nb, whose
    information is block-diagonal), and `observed` the joint one of coefficients and θ (as statsmodels).
    """
    wanted, p = model.parameters.covariance, int(active.sum())
    size_variance = float("nan")
    if "size" in total.arrays:
        size_variance = 1 / float(total["size"][1])
    if wanted == "observed":
        both, chosen = total["observed" if "observed" in total.arrays else "hessian"], active
        if "size" in total.arrays:
            both = np.pad(both, ((0, 1), (0, 1)))
            both[-1, :-1] = both[:-1, -1] = total["size"][2:]
            both[-1, -1] = float(total["size"][1])
            chosen = np.append(active, True)
        full = newton.inverse(both, chosen)
        if "size" in total.arrays:
            size_variance = float(full[-1, -1])
        return full[: len(active), : len(active)] * dispersion, size_variance
    bread = newton.inverse(total["hessian"], active)
    if wanted == "model":
        return bread * dispersion, size_variance
    factor = n / (n - p) if wanted == "HC1" and n > p else 1.0
    if wanted == "cluster" and clusters is not None:
        factor = clusters / (clusters - 1) * (n - 1) / (n - p) if clusters > 1 and n > p else float("nan")
    return bread @ total["meat"] @ bread * factor, size_variance


def _notes(model: Model, active: NDArray[np.bool_], overdispersed: bool) -> tuple[Words, ...]:
    dropped = ", ".join(name for name, kept in zip(model.design.names, active) if not kept)
    found = []
    if dropped:
        found.append(
            Words(
                f"Left out, because constant or a combination of other terms: {dropped}.",
                f"변하지 않거나 다른 항의 조합이어서 뺀 항: {dropped}.",
            )
        )
    if model.parameters.family == "negative_binomial" and not overdispersed:
        found.append(
            Words(
                "The counts show no overdispersion: the fit is that of a Poisson model.",
                "과산포가 없어 포아송 모형의 적합과 같습니다.",
            )
        )
    if model.parameters.firth:
        found.append(
            Words(
                "Intervals and p-values are Wald's; near separation, profile-likelihood intervals would be asymmetric.",
                "구간과 p값은 Wald 방식입니다. 분리에 가까우면 프로파일 가능도 구간은 비대칭일 수 있습니다.",
            )
        )
    return tuple(found)
