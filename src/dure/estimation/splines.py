"""Regression splines with knots that the study declares: the bases of R's `ns` and `bs`, for every hospital the same.

A knot or a bound taken from rows would differ between hospitals and show somebody's value; so both stand in the
formula: `ns(age, knots=(40, 60), bounds=(20, 90))`, `bs(age, knots=(50,), degree=3, bounds=(20, 90))`. Central
quantiles come from an earlier step of the method `quantiles`, at its resolution; any round numbers near them serve.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

from dure.language import Words

Vector = NDArray[np.float64]
MOST_KNOTS = 20
HOW = Words(
    "takes a column, knots=(…) in increasing order, bounds=(low, high) around them, and for bs degree=1 to 5",
    "에는 열, 커지는 순서의 knots=(…), 그 바깥의 bounds=(하한, 상한)을 쓰고, bs에는 degree=1~5도 쓸 수 있습니다",
)


class Unreadable(ValueError):
    """The call is no spline that can be used."""


@dataclass(frozen=True)
class Spline:
    """`ns`: cubic, linear beyond the bounds; `bs`: polynomials of `degree`, the last one going on beyond a bound.

    Without an intercept, as R's `splines::ns` and `splines::bs` (Hastie 1992, in Statistical Models in S, ch. 7).
    """

    kind: Literal["ns", "bs"]
    knots: tuple[float, ...]
    bounds: tuple[float, float]
    degree: int = 3

    @property
    def width(self) -> int:
        """Columns of the basis."""
        return len(self.knots) + (1 if self.kind == "ns" else self.degree)

    @property
    def intervals(self) -> tuple[str, ...]:
        """Names of the parts between knots: whoever is alone in one is alone in a function that the basis spans."""
        text = [f"{knot:g}" for knot in self.knots]
        return (f"<{text[0]}", *(f"{low} to {high}" for low, high in pairwise(text)), f">{text[-1]}")

    def places(self, x: Vector) -> NDArray[np.int64]:
        """(n,) index into `intervals`; -1 for a missing value and on a knot, where local functions vanish."""
        found = np.searchsorted(self.knots, x, side="right")
        return np.where(np.isnan(x) | np.isin(x, self.knots), -1, found).astype(np.int64)

    def basis(self, x: Vector) -> NDArray[np.float64]:
        """(width, n) columns at x (n,), NaN where missing."""
        if self.kind == "bs":
            return np.asarray(self._local(x).T[1:])
        low, high = self.bounds
        inside = np.clip(x, low, high)
        found = self._local(inside) @ self._natural
        for bound in self.bounds:
            beyond = x < low if bound == low else x > high
            if beyond.any():
                found[beyond] += np.outer(x[beyond] - bound, self._local.derivative()(bound) @ self._natural)
        return np.asarray(found.T)

    @cached_property
    def _local(self) -> BSpline:
        """All B-splines at once, the first of which stands for the intercept."""
        order = self.degree + 1
        ends = np.repeat(self.bounds, order)
        places = np.sort(np.concatenate([ends, self.knots]))
        return BSpline(places, np.eye(len(places) - order), self.degree)

    @cached_property
    def _natural(self) -> NDArray[np.float64]:
        """(B-splines, width): combinations without a second derivative at the bounds, as R's QR gives them."""
        bent = np.asarray(self._local.derivative(2)(np.array(self.bounds)))[:, 1:]
        rotation, _ = np.linalg.qr(bent.T, mode="complete")
        return np.vstack([np.zeros(len(self.knots) + 1), rotation[:, 2:]])

    def written(self, column: str) -> str:
        """The spline in a formula."""
        knots = ", ".join(f"{knot:.12g}" for knot in self.knots) + ("," if len(self.knots) == 1 else "")
        degree = "" if self.kind == "ns" else f", degree={self.degree}"
        return f"{self.kind}({column}, knots=({knots}){degree}, bounds=({self.bounds[0]:.12g}, {self.bounds[1]:.12g}))"


def spline_of(call: ast.Call, kind: Literal["ns", "bs"]) -> Spline:
    """The spline that a call in a formula describes; raises Unreadable."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    allowed = {"knots", "bounds"} | ({"degree"} if kind == "bs" else set())
    if len(call.args) != 1 or not {"knots", "bounds"} <= set(given) <= allowed or len(given) != len(call.keywords):
        raise Unreadable
    knots, bounds = _numbers(given["knots"]), _numbers(given["bounds"])
    degree = _number(given["degree"]) if "degree" in given else 3
    if not knots or len(knots) > MOST_KNOTS or len(bounds) != 2 or degree not in (1, 2, 3, 4, 5):
        raise Unreadable
    if not all(low < high for low, high in pairwise([bounds[0], *knots, bounds[1]])):
        raise Unreadable
    return Spline(kind, tuple(knots), (bounds[0], bounds[1]), int(degree))


def _numbers(tree: ast.expr) -> Sequence[float]:
    return [_number(item) for item in (tree.elts if isinstance(tree, ast.Tuple | ast.List) else [tree])]


def _number(tree: ast.expr) -> float:
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        return -_number(tree.operand)
    value = tree.value if isinstance(tree, ast.Constant) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= 1e300:
        raise Unreadable
    return float(value)
