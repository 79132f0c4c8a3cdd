"""Open questions: whole-number noise for counts, and the loss of privacy that it is charged with.

OpenDP behind three functions (extra `budget`). Differential privacy here: one person more or less in a hospital's
database changes the probability of any answer by at most a factor of e^ε (Dwork, McSherry, Nissim & Smith 2006).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from dure.errors import MissingPackage
from dure.guard.rules import refusal
from dure.language import Words
from dure.study.summary import Summary

ROUNDING = 1e-9
"""Sums of losses are compared to this precision."""


def measurement(sensitivity: int, epsilon: float) -> Any:
    """OpenDP's discrete Laplace mechanism over a vector of int64 counts that one person changes by at most
    `sensitivity` in all (L1): P(noise = k) ∝ exp(−|k|·ε/sensitivity). Raises MissingPackage."""
    dp = _opendp()
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l1_distance(T="i64")
    scale = dp.binary_search_param(
        lambda scale: dp.m.make_laplace(*space, scale=scale), d_in=sensitivity, d_out=epsilon, T=float
    )
    return dp.m.make_laplace(*space, scale=scale)


def loss(sensitivity: int, epsilon: float) -> float:
    """ε of one such answer, as OpenDP proves it."""
    return float(measurement(sensitivity, epsilon).map(sensitivity))


def with_noise(counts: Summary, sensitivity: int, epsilon: float) -> Summary:
    """Every count with noise of its own; whole numbers, some of them negative."""
    shapes = {name: np.asarray(values).shape for name, values in counts.items()}
    flat = [int(value) for values in counts.values() for value in np.asarray(values, dtype=np.int64).ravel()]
    noisy = np.array(measurement(sensitivity, epsilon)(flat), dtype=np.int64)
    found, start = {}, 0
    for name, shape in shapes.items():
        size = int(np.prod(shape, dtype=np.int64))
        found[name] = noisy[start : start + size].reshape(shape)
        start += size
    return found


def check_budget(spent: Iterable[float], more: float, most: float, detail: str) -> None:
    """Raise Refused where losses so far and this one add up to more than allowed (basic composition: ε adds up)."""
    total = sum(spent) + more
    if total > most + ROUNDING:
        error = refusal("budget")
        error.detail = f"{detail}: ε {total:g} of {most:g}"
        raise error


def _opendp() -> Any:
    try:
        import opendp.prelude as dp
    except ImportError:
        raise MissingPackage(
            purpose=Words("An open question", "공개 질문"), package="opendp", command='pip install "dure[budget]"'
        ) from None
    dp.enable_features("contrib")
    return dp
