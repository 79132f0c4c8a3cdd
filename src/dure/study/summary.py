"""Summaries: named arrays of numbers that know how many people stand behind them, and that add."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["count", "moment", "weights"]
Array = NDArray[Any]
"""float64 for moments and weights, int64 for counts."""
Summary = dict[str, Array]
"""Array by name. Adding two summaries of the same declaration adds each array."""


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One array that a round will send, known before anybody's rows are read.

    - `kind`: `count` (int64; each cell is a number of people), `moment` (float64 sums), `weights` (learning).
    - `people`: names of count arrays that broadcast to `shape` (of this round, or, for sums, of an earlier one
      of the step) and say how many people stand behind each cell: those with a non-zero contribution before centring.
      Several names mean that each class needs its own minimum (cases and non-cases of an AUROC).
    - `whole`: name of a count array that broadcasts to `shape`; its difference from a cell is the cell's
      complement, which needs as many people as the cell.
    - `per_hospital`: the first axis is the hospital; each site fills its own row, and the rules of a
      per-hospital answer hold for that row.
    - `opens_hospitals`: the total shows single hospitals although it is a sum (a `site` term).
    - `on_small`: a total with too few people in a cell refuses the step, or is suppressed cell by cell in the
      released table.
    - `sides`: this array holds power sums (…, 4) of columns' deviations from their means, powers 0, 2, 3, 4. A
      column that takes nearly two values is a count in disguise, however it is coded: its smaller side needs as
      many people as a cell.
    - `labels`: what each cell along the last axis is called when a remedy has to name it.
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind
    people: tuple[str, ...] = ()
    whole: str | None = None
    per_hospital: bool = False
    opens_hospitals: bool = False
    on_small: Literal["refuse", "suppress"] = "suppress"
    sides: bool = False
    labels: tuple[str, ...] = ()

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int64) if self.kind == "count" else np.dtype(np.float64)

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * 8


Declaration = tuple[ArraySpec, ...]


@dataclass(frozen=True, slots=True)
class Total:
    """The opened sum of one round: what `conclude` sees, and all it sees.

    `withheld` holds, per per-hospital array, 0 where the number stands and otherwise 1 + the index of the
    `people` class that was too small.
    """

    arrays: Summary
    withheld: Mapping[str, NDArray[np.int64]]

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        """An array as float64 (counts below 2**53 are exact)."""
        return np.asarray(self.arrays[name], dtype=np.float64)

    def count(self, name: str) -> int:
        return int(self.arrays[name].sum()) if self.arrays[name].shape else int(self.arrays[name])


def zeros(declaration: Declaration) -> Summary:
    """The summary of nobody."""
    return {spec.name: np.zeros(spec.shape, dtype=spec.dtype) for spec in declaration}


def add(summaries: Iterable[Summary], declaration: Declaration) -> Summary:
    """The sum, array by array; compensated for moments so that the split of people hardly shows."""
    total = zeros(declaration)
    lost = {spec.name: np.zeros(spec.shape) for spec in declaration if spec.kind == "moment"}
    for summary in summaries:
        for spec in declaration:
            value = np.asarray(summary[spec.name])
            if spec.kind == "moment":
                before = total[spec.name]
                after = before + value
                larger = np.abs(before) >= np.abs(value)
                lost[spec.name] += np.where(larger, (before - after) + value, (value - after) + before)
                total[spec.name] = np.asarray(after)
            else:
                total[spec.name] = np.asarray(total[spec.name] + value)
    for name, correction in lost.items():
        total[name] = np.asarray(total[name] + correction)
    return total


def withheld_spec(spec: ArraySpec) -> ArraySpec:
    """The companion of a per-hospital array: which of its numbers were withheld, and for which class."""
    return ArraySpec(f"{spec.name}.withheld", spec.shape, "count", per_hospital=True)
