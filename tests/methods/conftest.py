"""Comparisons with outside programs, asserted and remembered for the page `docs/reference/accuracy.md`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Compared = Callable[..., None]


@pytest.fixture(scope="session")
def compared() -> Iterator[Compared]:
    """`compared(method=, oracle=, what=, ours=, theirs=, tolerance=)` asserts that numbers agree, and remembers.

    The difference is relative to the larger of |theirs| and `scale` (its own array or number, e.g. a standard error,
    for estimates near nothing). With DURE_COMPARED set, all are written there at the end.
    """
    found: list[dict[str, Any]] = []

    def compare(
        *, method: str, oracle: str, what: str, ours: Any, theirs: Any, tolerance: float = 1e-8, scale: Any = 0.0
    ) -> None:
        one, other = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
        assert one.shape == other.shape, (what, one.shape, other.shape)
        assert (np.isnan(one) == np.isnan(other)).all(), what
        size = np.maximum(np.abs(other), np.abs(np.asarray(scale, dtype=np.float64)))
        known = ~np.isnan(one)
        gap = np.abs(one - other)[known]
        off = np.divide(
            gap,
            np.broadcast_to(size, one.shape)[known],
            out=np.where(gap > 0, np.inf, 0.0),
            where=np.broadcast_to(size, one.shape)[known] > 0,
        )
        largest = float(off.max()) if off.size else 0.0
        found.append({"method": method, "oracle": oracle, "what": what, "largest": largest, "tolerance": tolerance})
        assert largest <= tolerance, f"{method}, {what}, against {oracle}: {largest:.2e} > {tolerance:.0e}"

    yield compare
    folder = os.environ.get("DURE_COMPARED")
    if folder:
        name = os.environ.get("PYTEST_XDIST_WORKER", "all")
        (Path(folder) / f"{name}.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
