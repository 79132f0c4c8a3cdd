"""Weights that rest on a few people: why they are refused, and the bounds with which they pass."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.errors import Refused
from dure.estimation.balancing import effective, whole_people
from dure.language import Words
from dure.methods.weighting.parameters import Parameters

Vector = NDArray[np.float64]
Mask = NDArray[np.bool_]

TRUNCATIONS = (0.01, 0.025, 0.05, 0.1, 0.2)
"""Bounds of the score that a remedy tries where a few people carry all the weight; then overlap weights."""


def dominated(small: Mask) -> Refused:
    error = Refused(
        "minimum_people",
        Words(
            "The weights rest on too few people in an arm: its effective sample size is below the smallest count.",
            "가중치가 한 집단의 너무 적은 사람에 몰려 있습니다. 유효 표본 수가 최소 인원보다 작습니다.",
        ),
        Words(
            "Truncate the score (truncate), leave out people beyond bounds (trim), or use overlap weights.",
            "점수를 절단하거나(truncate), 범위를 벗어난 사람을 빼거나(trim), 중첩 가중치를 쓰십시오.",
        ),
    )
    error.cells = {"effective": small}
    return error


def steadier(p: Parameters, minimum: int, instead: Vector) -> dict[str, Any] | None:
    """The mildest bounds, else overlap weights, with which both arms have enough effective people."""
    enough = [bool((whole_people(effective(one[..., 0], one[..., 1])) >= minimum).all()) for one in instead]
    for bound, good in zip(TRUNCATIONS, enough):
        if good and (p.truncate is None or (p.truncate[0] < bound and p.truncate[1] > 1 - bound)):
            return {"truncate": [bound, 1 - bound]}
    return {"kind": "overlap", "truncate": None, "stabilised": False} if enough[-1] and p.kind != "overlap" else None
