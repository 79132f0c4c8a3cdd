"""Complementary suppression: which cells of a table of counts go so that no small one follows from rows and columns."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray


def hidden_cells(counts: NDArray[np.int64], minimum: int, also: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """(A, B) cells to hide where the sums of all rows and columns are known.

    Small cells go (zeros too), and those of `also`. In every row and column with a hidden cell, further ones go, the
    smallest first, until at least two are hidden and together they count `minimum` people, or all are hidden: what
    is left of the line's sum then stands for enough people. (Cell suppression; Hundepool et al. 2012, Statistical
    Disclosure Control, chapter 4. The fewest cells are not looked for.)
    """
    hidden = counts < minimum
    if also is not None:
        hidden |= also
    changed = True
    while changed:
        changed = False
        for values, gone in ((counts, hidden), (counts.T, hidden.T)):
            for line, out in zip(values, gone):
                while out.any() and not out.all() and (out.sum() < 2 or line[out].sum() < minimum):
                    out[np.where(out, np.iinfo(np.int64).max, line).argmin()] = True
                    changed = True
    return hidden


def small_can_be_named(small: int, others: int, people: int, minimum: int) -> bool:
    """Whether a line may say which of its hidden cells are small. Whoever knows the line's sum knows the `people` in
    its hidden cells together; with `small` of them known to be below the minimum and `others` known not to be, each
    must still be any of as many numbers as the minimum."""
    if others:
        return people >= minimum * others + minimum - 1
    return minimum - 1 <= people <= (minimum - 1) * (small - 1)


def marks(counts: NDArray[np.int64], hidden: NDArray[np.bool_], minimum: int) -> dict[tuple[int, int], str]:
    """What stands in each hidden cell of an (A, B) table: `<10` where there are too few people, `–` beside such a cell.

    Where telling them apart would tell too much of them (`small_can_be_named`) all are `–`; so are all in a table of
    several lines, where rows and columns together would.
    """
    small = hidden & (counts < minimum)
    few, people = int(small.sum()), int(counts[hidden].sum())
    named = len(counts) == 1 and small_can_be_named(few, int(hidden.sum()) - few, people, minimum)
    return {
        (int(row), int(column)): f"<{minimum}" if named and small[row, column] else "–"
        for row, column in np.argwhere(hidden)
    }


def taken_along(frame: pl.DataFrame, minimum: int) -> NDArray[np.bool_]:
    """(rows,) levels whose count release takes out beside a single small one of their variable, and as many more as it
    takes until those not told count enough people: what is told exactly gives the count of all others together."""
    also = np.zeros(frame.height, dtype=bool)
    if not minimum:
        return also
    for _, part in frame.with_row_index("row").group_by("variable", "sample"):
        for column in ("treated", "control"):
            counted = part.filter(pl.col(column).is_not_null()).sort(column, "row")
            small = int((counted[column] < minimum).sum())
            if counted.height > 1 and small:
                people = counted[column].cum_sum().to_numpy()
                least = max(2, 1 + int(np.searchsorted(people, minimum)))
                also[counted["row"].to_numpy()[small:least]] = True
    return also
