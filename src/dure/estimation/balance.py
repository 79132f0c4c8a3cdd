"""Balance of covariates between treated and controls, before and after weighting or matching.

The standardised mean difference is the difference of means (of shares, for each level of a category) over a standard
deviation, by default √((s₁² + s₀²)/2) of the people before weighting, so that it can shrink only where means come
together (Austin 2009, Stat Med 28:3083; as R's cobalt with s.d.denom = "pooled"). The variance of a share is p(1 − p);
that of weighted numbers is Σw(x − x̄)² / (Σw − Σw²/Σw).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dure.errors import InvalidParameter
from dure.estimation import people
from dure.estimation.suppression import taken_along
from dure.language import Words
from dure.study.method import Question
from dure.study.result import Figure, Table
from dure.study.rows import Rows
from dure.study.summary import ArraySpec, Declaration, Summary, Total

Vector = NDArray[np.float64]
Mask = NDArray[np.bool_]
Denominator = Literal["pooled", "treated", "control", "weighted"]
SCHEMA: dict[str, Any] = {
    "term": pl.String,
    "variable": pl.String,
    "sample": pl.String,
    "treated": pl.Int64,
    "control": pl.Int64,
    "mean_treated": pl.Float64,
    "mean_control": pl.Float64,
    "smd": pl.Float64,
    "variance_ratio": pl.Float64,
}
SAMPLES = ("before", "after")
COARSE = 0.01
"""Where only a few people were left out, a difference after is told to this or coarser (`APART`): means before and
after, exactly known, would give the sum over those few."""
APART = 4.0
"""Standard deviations within which a difference so told leaves that sum."""
ROUNDING = 1e-13
"""Share of a squared mean below which a variance is rounding of the sums."""
LONE = 1e-7
"""Of an arm in which one person has all but this share of the weight, no variance can be told."""
CONSTANT = 1e-12
"""Share of a column's size below which its spread is rounding of its values."""


@dataclass(frozen=True)
class Covariates:
    """Numbers, and the levels of the others one after another; a 0/1 column is told by its second level."""

    numbers: tuple[str, ...]
    levels: dict[str, tuple[str, ...]]
    flags: frozenset[str]

    @property
    def cells(self) -> tuple[tuple[str, str], ...]:
        """Variable and level of each place."""
        return tuple((name, level) for name, levels in self.levels.items() for level in levels)


def covariates_of(question: Question, names: tuple[str, ...], method: str) -> Covariates:
    """Raises UnknownColumn or InvalidParameter."""
    numbers: list[str] = []
    levels: dict[str, tuple[str, ...]] = {}
    flags: set[str] = set()
    for name in dict.fromkeys(names):
        column = question.column(name)
        if column.kind == "number":
            numbers.append(name)
            continue
        if name == "site":
            problem = Words("The hospital is not a covariate here", "병원은 여기서 공변량이 아닙니다")
            raise InvalidParameter(method=method, parameter="balance", problem=problem)
        if not column.levels and column.kind != "flag":
            problem = Words(f"'{name}' has no declared levels", f"'{name}'의 수준이 선언되지 않았습니다")
            raise InvalidParameter(method=method, parameter="balance", problem=problem)
        levels[name] = ("0", "1") if column.kind == "flag" else column.levels
        if column.kind == "flag":
            flags.add(name)
    return Covariates(tuple(numbers), levels, frozenset(flags))


# ── the first round: who is known, and means to centre by ──


def declare_means(of: Covariates) -> Declaration:
    k = len(of.numbers)
    if not k:
        return ()
    return (
        ArraySpec("balance_known", (2, k), "count"),
        ArraySpec("balance_nonzero", (2, k), "count", on_small="refuse", labels=by_arm(of.numbers)),
        ArraySpec("balance_sums", (2, k), "moment", people=("balance_nonzero",)),
    )


def by_arm(names: tuple[str, ...]) -> tuple[str, ...]:
    """What the cells of a (2, names) array are called, one row after the other."""
    return tuple(f"{name} ({arm})" for arm in ("controls", "treated") for name in names)


def means(rows: Rows, of: Covariates, present: Mask, treated: Mask) -> Summary:
    if not of.numbers:
        return {}
    known, nonzero = (np.zeros((2, len(of.numbers)), dtype=np.int64) for _ in range(2))
    sums = np.zeros((2, len(of.numbers)))
    for place, name in enumerate(of.numbers):
        values = rows.numbers(name)[present]
        for arm in (0, 1):
            mine = values[(treated == arm) & ~np.isnan(values)]
            known[arm, place], nonzero[arm, place], sums[arm, place] = len(mine), np.count_nonzero(mine), mine.sum()
    return {"balance_known": known, "balance_nonzero": nonzero, "balance_sums": sums}


def centres(total: Total, of: Covariates) -> Vector:
    """(numbers,) means of everybody, to centre by."""
    if not of.numbers:
        return np.zeros(0)
    people_known = total["balance_known"].sum(axis=0)
    return np.asarray(total["balance_sums"].sum(axis=0) / np.maximum(people_known, 1))


# ── the second: what is compared ──


def declare_balance(of: Covariates) -> Declaration:
    k, size = len(of.numbers), len(of.cells)
    found: Declaration = ()
    if k:
        found = (
            ArraySpec("balance_known", (2, k), "count"),
            ArraySpec("balance_kept", (2, k), "count"),
            ArraySpec("balance_before", (2, k, 2), "moment", people=("balance_known",)),
            ArraySpec("balance_after", (2, k, 4), "moment", people=("balance_kept",)),
            ArraySpec("balance_powers", (k, 4), "moment", people=("arms",), sides=True, labels=of.numbers),
        )
    if size:
        found += (
            ArraySpec("balance_levels", (2, size), "count"),
            ArraySpec("balance_levels_kept", (2, size), "count"),
            ArraySpec("balance_levels_after", (2, size), "moment", people=("balance_levels_kept",)),
        )
    return found


def compared(rows: Rows, of: Covariates, present: Mask, treated: Mask, weights: Vector, centre: Vector) -> Summary:
    """`treated`, `weights` (people present,): a weight of zero is nobody after."""
    k, size = len(of.numbers), len(of.cells)
    found: Summary = {}
    if k:
        known, kept = (np.zeros((2, k), dtype=np.int64) for _ in range(2))
        before, after, powers = np.zeros((2, k, 2)), np.zeros((2, k, 4)), np.zeros((k, 4))
        for place, name in enumerate(of.numbers):
            values = rows.numbers(name)[present] - centre[place]
            there = ~np.isnan(values)
            powers[place] = people.powers(values[there][None, :], np.zeros(1))[0]
            for arm in (0, 1):
                mine = there & (treated == arm)
                x, w = values[mine], weights[mine]
                known[arm, place], kept[arm, place] = len(x), np.count_nonzero(w)
                before[arm, place] = x.sum(), x @ x
                after[arm, place] = w.sum(), w @ w, w @ x, w @ (x * x)
        found |= {"balance_known": known, "balance_kept": kept, "balance_before": before, "balance_after": after}
        found["balance_powers"] = powers
    if size:
        counts: list[Any] = []
        stay: list[Any] = []
        sums: list[Any] = []
        for name, levels in of.levels.items():
            codes = rows.codes(name, rows.columns[name])[present]
            for arm in (0, 1):
                mine = (codes >= 0) & (treated == arm)
                c, w = codes[mine], weights[mine]
                counts.append(np.bincount(c, minlength=len(levels)))
                stay.append(np.bincount(c[w != 0], minlength=len(levels)))
                sums.append(np.bincount(c, weights=w, minlength=len(levels)))
        found["balance_levels"] = _by_arm(counts).astype(np.int64)
        found["balance_levels_kept"] = _by_arm(stay).astype(np.int64)
        found["balance_levels_after"] = _by_arm(sums)
    return found


def _by_arm(parts: list[Any]) -> NDArray[Any]:
    return np.stack([np.concatenate(parts[0::2]), np.concatenate(parts[1::2])])


# ── the answer ──


@dataclass(frozen=True)
class _Side:
    """One sample of one covariate, by arm (2,): people, mean beyond `centre`, and variance."""

    people: Vector
    mean: Vector
    variance: Vector
    centre: float = 0.0


def balance_table(total: Total, of: Covariates, centre: Vector, denominator: Denominator, minimum: int) -> Table:
    """Two rows of each covariate or level: `before` and `after`; see the module for the formulas."""
    found: list[dict[str, Any]] = []
    withheld: dict[tuple[int, str], str] = {}
    for place, name in enumerate(of.numbers):
        sides = _number(total, place, float(centre[place]))
        few = _few_gone(sides, minimum)
        for sample, side in zip(SAMPLES, sides):
            hidden = few if sample == "after" else np.zeros(2, dtype=bool)
            row = {
                "term": name,
                "variable": name,
                "sample": sample,
                "treated": int(side.people[1]),
                "control": int(side.people[0]),
                "mean_treated": None if hidden[1] else _finite(side.centre + side.mean[1]),
                "mean_control": None if hidden[0] else _finite(side.centre + side.mean[0]),
                "smd": _coarse(_difference(side, sides, denominator), hidden, side),
                "variance_ratio": None if hidden.any() else _ratio(side),
            }
            for arm, column in ((1, "mean_treated"), (0, "mean_control")):
                if hidden[arm]:
                    withheld[len(found), column] = "–"
            if hidden.any():
                withheld[len(found), "variance_ratio"] = "–"
            found.append(row)
    for place, (name, level) in enumerate(of.cells):
        if name in of.flags and level == "0":
            continue
        sides, wholes = _level(total, of, place, name)
        few = _few_gone(sides, minimum)
        for sample, side, whole in zip(SAMPLES, sides, wholes):
            rest = whole - side.people
            beside = (rest < minimum) & (side.people >= minimum)
            row = {
                "term": f"{name}={level}",
                "variable": name,
                "sample": sample,
                "treated": int(side.people[1]),
                "control": int(side.people[0]),
                "mean_treated": None,
                "mean_control": None,
                "smd": _coarse(_difference(side, sides, denominator), few & (sample == "after"), side),
                "variance_ratio": None,
            }
            for arm, column in ((1, "treated"), (0, "control")):
                if beside[arm]:  # all but a few: the complement would be seen
                    row[column] = None
                    withheld[len(found), column] = "–"
            if beside.any():
                row["smd"] = None
                withheld[len(found), "smd"] = "–"
            found.append(row)
    return _guarded(_table(pl.DataFrame(found, schema=SCHEMA), withheld), minimum)


def plain(table: Table) -> dict[str, Any]:
    """The table as plain data, for a state that waits for further rounds."""
    withheld = [[row, column, why] for (row, column), why in table.withheld.items()]
    return {"columns": table.frame.to_dict(as_series=False), "withheld": withheld}


def restored(raw: Mapping[str, Any]) -> Table:
    return _table(
        pl.DataFrame(raw["columns"], schema=SCHEMA), {(row, column): why for row, column, why in raw["withheld"]}
    )


def _table(frame: pl.DataFrame, withheld: dict[tuple[int, str], str]) -> Table:
    return Table(
        frame,
        counts=("treated", "control"),
        behind={"mean_treated": "treated", "mean_control": "control"},
        group=("variable", "sample"),
        withheld=withheld,
    )


def _guarded(table: Table, minimum: int) -> Table:
    """What rests on both arms goes where either has too few; a table's `behind` knows one count for each column."""
    frame, withheld = table.frame, dict(table.withheld)
    small = (frame["treated"] < minimum).fill_null(False) | (frame["control"] < minimum).fill_null(False)
    lone = taken_along(frame, minimum)
    for row in np.flatnonzero(small.to_numpy() | lone):
        for column in ("smd", "variance_ratio"):
            withheld[int(row), column] = "–"
    gone = pl.Series(small.to_numpy() | lone)
    frame = frame.with_columns(
        pl.when(gone).then(None).otherwise(pl.col(name)).alias(name) for name in ("smd", "variance_ratio")
    )
    return Table(frame, table.counts, table.behind, table.group, table.derived, table.shares, withheld)


def largest(table: Table, sample: str) -> float | None:
    """The largest absolute standardised difference that is shown."""
    values = table.frame.filter(pl.col("sample") == sample)["smd"].drop_nulls().abs()
    found = values.max()
    return float(found) if isinstance(found, float) else None


def love_plot() -> Figure:
    return Figure(
        "dots", "balance", "smd", "term",
        Words("Balance of covariates", "공변량 균형"),
        Words("Standardised mean difference", "표준화 평균 차이"),
        Words("Covariate", "공변량"),
        group="sample", rule=(-0.1, 0.0, 0.1),
    )  # fmt: skip


def unbalanced(cells: Mapping[str, Any], of: Covariates, asked: tuple[str, ...]) -> dict[str, Any] | None:
    """`balance` without the numbers behind which too few people stand, where that is what was refused."""
    if not cells or not set(cells) <= {"balance_nonzero", "balance_powers"}:
        return None
    bad: set[str] = set()
    for mask in cells.values():
        small: Mask = np.asarray(np.atleast_2d(np.asarray(mask, dtype=bool)).any(axis=0))
        bad |= {name for name, gone in zip(of.numbers, small) if gone}
    return {"balance": [name for name in asked if name not in bad]}


def _number(total: Total, place: int, centre: float) -> tuple[_Side, _Side]:
    n = total["balance_known"][:, place]
    sums, squares = total["balance_before"][:, place].T
    w, w2, wx, wxx = total["balance_after"][:, place].T
    with np.errstate(all="ignore"):
        mean = sums / n
        before = _Side(n, mean, _settled((squares - n * mean**2) / n, mean, centre) * n / (n - 1), centre)
        middle = wx / w
        others = 1 - w2 / w**2
        spread = _settled((wxx - w * middle**2) / w, middle, centre) / np.where(others > LONE, others, np.nan)
    return before, _Side(total["balance_kept"][:, place], middle, spread, centre)


def _settled(variance: Vector, mean: Vector, centre: float) -> Vector:
    """Zero where what is left of a constant column is rounding alone: another split would leave something else."""
    noise = ROUNDING * mean**2 + (CONSTANT * centre) ** 2
    return np.where(variance <= noise, 0.0, variance)


def _level(total: Total, of: Covariates, place: int, name: str) -> tuple[tuple[_Side, _Side], tuple[Vector, Vector]]:
    part = np.array([cell[0] == name for cell in of.cells])
    counts, kept, weights = (
        total[array] for array in ("balance_levels", "balance_levels_kept", "balance_levels_after")
    )
    sides = []
    for shown, summed in ((counts, counts), (kept, weights)):
        with np.errstate(all="ignore"):
            share = summed[:, place] / summed[:, part].sum(axis=1)
        sides.append(_Side(shown[:, place], share, share * (1 - share)))
    return (sides[0], sides[1]), (counts[:, part].sum(axis=1), kept[:, part].sum(axis=1))


def _few_gone(sides: tuple[_Side, _Side], minimum: int) -> Mask:
    gone = sides[0].people - sides[1].people
    return np.asarray((gone > 0) & (gone < minimum))


def _difference(side: _Side, sides: tuple[_Side, _Side], denominator: Denominator) -> float | None:
    spread = (side if denominator == "weighted" else sides[0]).variance
    variance = spread[1] if denominator == "treated" else spread[0] if denominator == "control" else spread.mean()
    gap = float(side.mean[1] - side.mean[0])
    if not np.isfinite(gap) or not np.isfinite(variance):
        return None
    if variance <= 0:
        return 0.0 if abs(gap) <= CONSTANT * abs(side.centre) else None
    return gap / float(np.sqrt(variance))


def _ratio(side: _Side) -> float | None:
    return (
        float(side.variance[1] / side.variance[0]) if side.variance[0] > 0 and np.isfinite(side.variance[1]) else None
    )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _coarse(value: float | None, few: Mask, side: _Side) -> float | None:
    """To `COARSE`, and no finer than leaves what the `few` left out of an arm add up to within `APART` deviations."""
    if value is None or not few.any():
        return value
    to = max(COARSE, APART / float(max(side.people[few].min(), 1.0)))
    return round(value / to) * to
