"""Suppressed cells: what linear programming tells of each from everything that was released beside it.

The attacker knows the rules: what rounding does, that `<10` is 0 to 9, that `–` beside a `<10` is at least 10, and that
rows and columns add up (Dobra & Fienberg 2000; Hundepool et al. 2012, chapter 4). A cell is protected if it could
still be any of at least `minimum_people` numbers, which is what `<10` says by itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy.optimize import linprog

from dure.client.simulate import simulate
from dure.guard.release import release, rounded
from dure.guard.rules import DEFAULT
from dure.study.result import Result, Table

MINIMUM = DEFAULT.minimum_people
Bounds = dict[Hashable, tuple[float, float]]
Sums = list[tuple[Hashable, Sequence[Hashable]]]
ENDLESS = 1e6


def bounds(table: Table, row: int, column: str) -> tuple[float, float]:
    """What one released cell says by itself."""
    value = table.frame[column][row]
    if value is not None:
        return max(0, value - DEFAULT.round_to // 2), value + DEFAULT.round_to // 2
    marks = {mark for (_, name), mark in table.withheld.items() if name == column}
    if table.withheld.get((row, column)) == f"<{MINIMUM}":
        return 0, MINIMUM - 1
    return MINIMUM if f"<{MINIMUM}" in marks else 0, ENDLESS


def possible(cells: Bounds, sums: Sums) -> dict[Hashable, float]:
    """How many whole numbers each cell could be."""
    place = {name: number for number, name in enumerate(cells)}
    equal = np.zeros((len(sums), len(cells)))
    for row, (whole, parts) in zip(equal, sums):
        row[place[whole]] = -1
        for part in parts:
            row[place[part]] += 1
    found = {}
    for name, number in place.items():
        ends = []
        for sign in (1, -1):
            aim = np.zeros(len(cells))
            aim[number] = sign
            ended = linprog(aim, A_eq=equal, b_eq=np.zeros(len(sums)), bounds=list(cells.values()), method="highs")
            assert ended.status == 0, "the released numbers contradict each other"
            ends.append(sign * ended.fun)
        found[name] = np.floor(ends[1] + 1e-6) - np.ceil(ends[0] - 1e-6) + 1
    return found


def threshold_only(result: Result) -> Result:
    """The twin: small cells hidden and marked, the others rounded, nothing taken along."""
    tables = {}
    for name, table in result.tables.items():
        values, withheld = table.frame["n"].to_list(), {}
        for row, value in enumerate(values):
            if value < MINIMUM:
                withheld[row, "n"], values[row] = f"<{MINIMUM}", None
            else:
                values[row] = rounded(value, DEFAULT)
        of = [rounded(value, DEFAULT) for value in table.frame["of"]]
        tables[name] = Table(table.frame.with_columns(n=pl.Series(values, dtype=pl.Int64), of=pl.Series(of)))
        tables[name] = Table(tables[name].frame, withheld=withheld)
    return Result("m", tables)


def one_way(random: np.random.Generator) -> Result:
    """Levels of one variable, and how many people there are."""
    while True:
        counts = [int(random.integers(0, random.choice([10, 30, 200]))) for _ in range(random.integers(2, 6))]
        if sum(counts) >= MINIMUM:
            frame = pl.DataFrame({"v": ["x"] * len(counts), "n": counts, "of": [sum(counts)] * len(counts)})
            return Result("m", {"t": Table(frame, counts=("n", "of"), group=("v",))})


def narrowest_level(result: Result) -> float:
    table = result.tables["t"]
    cells: Bounds = {row: bounds(table, row, "n") for row in range(table.frame.height)}
    hidden = [row for row in cells if table.frame["n"][row] is None]  # type: ignore[call-overload]
    cells["of"] = bounds(table, 0, "of")
    found = possible(cells, [("of", list(range(table.frame.height)))])
    return min((found[row] for row in hidden), default=np.inf)


def test_no_level_of_a_variable_follows_from_the_others_and_their_sum() -> None:
    random = np.random.default_rng(1)
    results = [one_way(random) for _ in range(200)]
    assert min(narrowest_level(threshold_only(result)) for result in results[:40]) <= 6
    assert min(narrowest_level(release(result, DEFAULT)) for result in results) >= MINIMUM


def test_no_cell_of_two_crossed_columns_follows_from_rows_columns_and_the_total() -> None:
    random = np.random.default_rng(2)
    hidden = 0
    for _ in range(25):
        rows, columns = int(random.integers(2, 4)), int(random.integers(2, 5))
        people = random.choice(
            rows * columns, int(random.integers(60, 300)), p=random.dirichlet([0.5] * rows * columns)
        )
        frame = pl.DataFrame(
            {"g": [f"g{cell // columns}" for cell in people], "v": [f"v{cell % columns}" for cell in people]}
        )
        found = simulate(
            {f"h{place}": frame[place::3] for place in range(3)},
            "feasibility",
            {"by": ["g", "v"], "crossed": [["g", "v"]]},
        )
        cells, sums = crossed(found.result.tables)
        counted = possible(cells, sums)
        for name, (low, high) in cells.items():
            if high - low > DEFAULT.round_to:
                hidden += 1
                assert counted[name] >= MINIMUM, (name, counted[name])
    assert hidden > 50


def crossed(tables: Mapping[str, Any]) -> tuple[Bounds, Sums]:
    """Cells, margins and totals of a released cross table with the two tables of its columns."""
    table = tables["by_g_and_v"]
    names = list(table.frame.select("g", "v").rows())
    cells: Bounds = {name: bounds(table, row, "n") for row, name in enumerate(names)}
    sums: Sums = []
    for place, column in enumerate("gv"):
        margin = tables[f"by_{column}"]
        levels = margin.frame["level"].to_list()
        for row, level in enumerate(levels):
            cells[column, level] = bounds(margin, row, "n")
            sums.append(((column, level), [name for name in names if name[place] == level]))
        cells["of", column] = bounds(margin, 0, "of")
        sums.append((("of", column), [(column, level) for level in levels]))
    return cells, sums
