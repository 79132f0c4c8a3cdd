"""Whether a number is carried by a few people: by weights of nearly nobody else, or by values that nobody else has."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dure.errors import Refused
from dure.language import Words

Numbers = NDArray[np.float64]
TWO_VALUES = 0.1
"""As of the gate's: share of a column's kurtosis beyond that of two values."""

FURTHEST = 150.0
"""Of offsets: further from their mean rates are no numbers."""


def few(weight: Numbers, squares: Numbers, minimum: int) -> NDArray[np.bool_]:
    """Whether weights stand for fewer people than the minimum: (Σw)²/Σw² (Kish 1965), from Σw and Σw²."""
    return np.asarray((squares > 0) & (weight**2 < minimum * squares * (1 - 1e-9)))


def refuse_few(weight: float, squares: float, column: str, minimum: int) -> None:
    """Raises Refused where the weights stand for too few people: a mean would be theirs."""
    if not few(np.array(weight), np.array(squares), minimum):
        return
    error = Refused(
        "minimum_people",
        Words(
            "The weights rest on too few people: their effective number is below the smallest count.",
            "가중치가 너무 적은 사람에 몰려 있습니다. 유효 표본 수가 최소 인원보다 작습니다.",
        ),
        Words(
            f"Use weights that are more even than '{column}', or bound them.",
            f"'{column}'보다 고른 가중치를 쓰거나 상한을 두십시오.",
        ),
    )
    error.cells = {"effective": np.array(True)}
    raise error


def relative(offset: Numbers, mean: float, weights: Numbers | None) -> Numbers:
    """(2,) Σr and Σr² of the rates r that an offset alone gives people, relative to that at its mean."""
    rates = np.exp(np.clip(offset - mean, -FURTHEST, FURTHEST)) * (1.0 if weights is None else weights)
    return np.array([rates.sum(), rates @ rates])


def refuse_few_rates(sums: Numbers, column: str, minimum: int) -> None:
    """Raises Refused where nearly all of Σ exp(offset) is that of too few people: its logarithm is their offset."""
    if not few(sums[0], sums[1], minimum):
        return
    error = Refused(
        "minimum_people",
        Words(
            "The offset gives nearly the whole expected number to too few people.",
            "오프셋 때문에 기대 수가 너무 적은 사람에 몰려 있습니다.",
        ),
        Words(
            f"With a log link an offset is the logarithm of time or of people; take that of '{column}', or cap it.",
            f"로그 연결에서 오프셋은 시간이나 사람 수의 로그입니다. '{column}'의 로그를 취하거나 상한을 두십시오.",
        ),
    )
    error.cells = {"effective": np.array(True)}
    raise error


def two_sided(powers: Numbers, minimum: int) -> NDArray[np.bool_]:
    """(…,) whether a column of nearly two values has fewer people than the minimum on its smaller side; `powers`
    (…, 4) sums of powers 0, 2, 3 and 4 of deviations from its mean, as the gate holds models to (`ArraySpec.sides`)."""
    people, squares, cubes, fourths = np.moveaxis(powers, -1, 0)
    with np.errstate(all="ignore"):
        spread = squares / people
        skewness, kurtosis = cubes / people / spread**1.5, fourths / people / spread**2
        between = (kurtosis - skewness**2 - 1) / kurtosis
        smaller = people * (0.5 - np.abs(skewness) / np.sqrt(skewness**2 + 4) / 2)
    return np.asarray((squares > 0) & (between < TWO_VALUES) & (smaller < minimum - 0.5))
