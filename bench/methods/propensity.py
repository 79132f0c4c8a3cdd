"""A propensity score with an L1 penalty on 1,000 sparse codes, against glum on one tabmat matrix of the pooled rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

import dure

Frames = dict[str, pl.DataFrame]

CODES = 1000
CARRIED = 20
FIRST = 4_000_000
STRENGTH = 2e-3
"""λ: a lasso that keeps some two hundred codes of a million people."""


def frames(rows: int, covariates: int, hospitals: int) -> Frames:
    """People with some of forty hidden conditions, each of which brings its own codes with it: about twenty of a
    thousand codes each, common and rare, some that belong together. `covariates` is not used."""
    del covariates
    random = np.random.default_rng(11)
    common = 1.0 / (np.arange(CODES) + 20.0)
    common *= 8.0 / common.sum()
    condition = random.integers(0, 40, CODES)
    effect = np.where(random.random(CODES) < 0.1, random.normal(0, 0.5, CODES), 0.0)
    everybody = np.cumsum(common)
    own = [np.flatnonzero(condition == place) for place in range(40)]
    found = {}
    for place, size in enumerate(np.diff(np.linspace(0, rows, hospitals + 1).astype(int))):
        person = [np.repeat(np.arange(size), 11)]
        code = [np.searchsorted(everybody / everybody[-1], random.random(11 * size)).clip(0, CODES - 1)]
        ill = random.random((size, 40)) < 0.045
        for number, codes in enumerate(own):
            people = np.flatnonzero(ill[:, number])
            drawn = min(7, len(codes))
            person.append(np.repeat(people, drawn))
            code.append(codes[random.integers(0, len(codes), drawn * len(people))])
        both = np.unique(np.concatenate(person).astype(np.int64) * CODES + np.concatenate(code))
        who, what = both // CODES, both % CODES
        eta = np.bincount(who, weights=effect[what], minlength=size)
        treated = random.random(size) < 1 / (1 + np.exp(-(eta - 0.5 - 0.02 * place)))
        ends = np.concatenate([[0], np.cumsum(np.bincount(who, minlength=size))])
        listed = pl.Series("codes", what + FIRST).to_frame().select(pl.col("codes"))
        lists = (
            listed.with_columns(person=pl.Series(who))
            .group_by("person", maintain_order=True)
            .agg("codes")
            .join(pl.DataFrame({"person": np.arange(size)}), on="person", how="right", maintain_order="right")
        )
        assert int(ends[-1]) == len(what)
        found[f"h{place}"] = pl.DataFrame({"treated": treated.astype(float), "codes": lists["codes"]})
    return found


def ours(data: Frames) -> tuple[float, Any]:
    """Everything `simulate` does, from lists of codes to the score's distribution, rules on."""
    start = time.perf_counter()
    asked = {"treatment": "treated", "covariates": "codes", "penalty": {"strength": STRENGTH}}
    found = dure.simulate(data, "propensity", asked)
    seconds = time.perf_counter() - start
    beta = np.zeros(CODES)
    for term, estimate in found["coefficients"].select("term", "estimate").rows():
        if term != "Intercept":
            beta[int(term.split("[")[1][:-1]) - FIRST] = estimate
    return seconds, beta


def _matrix(data: Frames) -> tuple[sparse.csc_matrix, np.ndarray[Any, Any]]:
    pooled = pl.concat(data.values())
    lengths = pooled["codes"].list.len().fill_null(0).to_numpy()
    indices = pooled["codes"].drop_nulls().list.explode().to_numpy() - FIRST
    pointers = np.concatenate([[0], np.cumsum(lengths)])
    x = sparse.csr_matrix((np.ones(len(indices)), indices, pointers), shape=(pooled.height, CODES))
    return x.tocsc(), pooled["treated"].to_numpy()


def glum(data: Frames) -> tuple[float, Any]:
    """glum's own coordinate descent on a tabmat sparse matrix, standardised as ours, its tolerance on the gradient set
    so that coefficients agree; the matrix is made outside the clock."""
    import tabmat
    from glum import GeneralizedLinearRegressor

    x, y = _matrix(data)
    matrix = tabmat.SparseMatrix(x)
    start = time.perf_counter()
    fit = GeneralizedLinearRegressor(
        family="binomial",
        alpha=STRENGTH,
        l1_ratio=1,
        scale_predictors=True,
        solver="irls-cd",
        gradient_tol=1e-7,
        max_iter=200,
    ).fit(matrix, y)
    return time.perf_counter() - start, fit.coef_


PEERS: dict[str, Callable[[Frames], tuple[float, Any]]] = {"glum": glum}
TARGETS: dict[str, float] = {"glum": 1.0}
METHOD, WHAT = "propensity", "L1 score, 1,000 sparse codes"


def agree(ours: Any, peer: Any) -> float:
    """The largest difference of a coefficient, relative to the largest coefficient."""
    return float(np.abs(np.asarray(ours) - np.asarray(peer)).max() / np.abs(np.asarray(peer)).max())
