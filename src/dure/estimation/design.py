"""Design matrices: the same columns at every hospital, because levels come from the study, never from rows.

Which dummies a term needs (the reference left out or not) is formulaic's contrast algebra, asked once on a
two-row prototype; the numbers are filled in here, column by column, as a (p, n) array.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from formulaic import Formula
from numpy.typing import NDArray

from dure.estimation import people
from dure.estimation.formula import Factor, Parsed
from dure.study.rows import Rows

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class DesignColumn:
    """A product of factors: (factor index, level index) for a dummy, (factor index, place in the basis) for a spline,
    (factor index, None) for a number."""

    name: str
    pieces: tuple[tuple[int, int | None], ...]

    def factors(self) -> set[int]:
        return {index for index, _ in self.pieces}


@dataclass(frozen=True)
class Cells:
    """Counts that a design contains in disguise: every level, and every combination of levels of two factors
    or of an interaction. `labels` names each cell."""

    factors: tuple[tuple[int, ...], ...]
    labels: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Design:
    """What a formula becomes. `columns` may start with the intercept (no pieces)."""

    parsed: Parsed
    factors: tuple[Factor, ...]
    columns: tuple[DesignColumn, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def intercept(self) -> bool:
        return bool(self.columns) and not self.columns[0].pieces

    def discrete(self) -> tuple[int, ...]:
        """Indices of factors with levels: categories, flags, and splines, whose intervals are counted."""
        return tuple(index for index, factor in enumerate(self.factors) if factor.levels)

    def cells(self) -> Cells:
        """The counts that stand in this design's cross-products (see `Cells`)."""
        discrete = self.discrete()
        groups: list[tuple[int, ...]] = [(index,) for index in discrete]
        groups += list(itertools.combinations(discrete, 2))
        for column in self.columns:
            group = tuple(sorted({index for index, _ in column.pieces if index in discrete}))
            if len(group) > 2:
                groups.append(group)
        groups = [group for group in dict.fromkeys(groups) if not self._nested(group)]
        labels = [
            " & ".join(f"{self.factors[index].label}={level}" for index, level in zip(group, levels))
            for group in groups
            for levels in itertools.product(*(self.factors[index].levels for index in group))
        ]
        return Cells(tuple(groups), tuple(labels))

    def _nested(self, group: tuple[int, ...]) -> bool:
        """Two factors of the same column (x and C(x)) have impossible combinations by construction."""
        columns = [self.factors[index].label for index in group]
        if any(self.factors[index].spline for index in group):
            columns = [name for index in group for name in self.factors[index].columns()]
        return len(set(columns)) < len(columns)

    def supports(self) -> tuple[DesignColumn, ...]:
        """The columns as people are counted behind them: a spline's as the intervals between its knots."""
        splines = {index for index, factor in enumerate(self.factors) if factor.spline}
        if not splines:
            return self.columns
        found: dict[tuple[tuple[int, int | None], ...], DesignColumn] = {}
        for column in self.columns:
            choices = [
                [(index, place) for place in range(len(self.factors[index].levels))]
                if index in splines
                else [(index, level)]
                for index, level in column.pieces
            ]
            for pieces in itertools.product(*choices):
                parts = [
                    self.factors[index].text
                    if level is None
                    else f"{self.factors[index].label}={self.factors[index].levels[level]}"
                    for index, level in pieces
                ]
                found.setdefault(pieces, DesignColumn(":".join(parts) or "Intercept", pieces))
        return tuple(found.values())

    def spreads(self) -> tuple[DesignColumn, ...]:
        """The columns whose spread is looked at (`ArraySpec.sides`): a spline's is that of its own column."""
        found: dict[tuple[tuple[int, int | None], ...], DesignColumn] = {}
        for column in self.columns:
            pieces = tuple((index, None if self.factors[index].spline else level) for index, level in column.pieces)
            names = (
                self.factors[index].column if self.factors[index].spline else part
                for (index, _), part in zip(column.pieces, column.name.split(":"))
            )
            same = pieces == column.pieces
            found.setdefault(pieces, column if same else DesignColumn(":".join(map(str, names)), pieces))
        return tuple(found.values())

    def spread_rows(self, rows: Rows, keep: NDArray[np.bool_], x: Matrix) -> Matrix:
        """(columns of `spreads`, n kept), where `x` is `read`'s."""
        spreads = self.spreads()
        return x if spreads == self.columns else self._filled(rows, keep, spreads)

    def numeric_pairs(self) -> tuple[tuple[int, int], ...]:
        """Pairs (j ≤ k) of `supports()` whose cross-product involves a number and can have people behind it."""
        numbers = {index for index, factor in enumerate(self.factors) if not factor.levels}
        columns = self.supports()
        return tuple(
            (j, k)
            for j, k in itertools.combinations_with_replacement(range(len(columns)), 2)
            if any(index in numbers for index, _ in (*columns[j].pieces, *columns[k].pieces))
            and not self._disjoint(columns[j], columns[k])
        )

    def pair_names(self) -> tuple[str, ...]:
        """What each of `numeric_pairs` is called when a remedy has to name it."""
        names = [column.name for column in self.supports()]
        return tuple(names[j] if j == k else f"{names[j]} & {names[k]}" for j, k in self.numeric_pairs())

    def count_pairs(self, rows: Rows, keep: NDArray[np.bool_], x: Matrix) -> NDArray[np.int64]:
        """(pairs,) people non-zero in both columns of each of `numeric_pairs()`, where `x` (p, n kept) is `read`'s."""
        return people.together(self.support_rows(rows, keep, x), self.numeric_pairs())

    def support_rows(self, rows: Rows, keep: NDArray[np.bool_], x: Matrix) -> Matrix:
        """(columns of `supports`, n kept), where `x` is `read`'s: non-zero where a person stands behind the column."""
        columns = self.supports()
        return x if columns is self.columns else self._filled(rows, keep, columns)

    def _filled(self, rows: Rows, keep: NDArray[np.bool_], columns: tuple[DesignColumn, ...]) -> Matrix:
        """(columns, n kept) of columns in which a spline stands for an interval or for its own column."""
        codes = {index: self.factors[index].codes(rows)[keep] for index in self.discrete()}
        values = {index: f.numbers(rows)[keep] for index, f in enumerate(self.factors) if not f.is_category}
        filled = np.ones((len(columns), int(keep.sum())))
        for row, column in zip(filled, columns):
            for index, level in column.pieces:
                row *= values[index] if level is None else codes[index] == level
        return filled

    @staticmethod
    def _disjoint(one: DesignColumn, other: DesignColumn) -> bool:
        levels = {index: level for index, level in one.pieces if level is not None}
        return any(level is not None and levels.get(index, level) != level for index, level in other.pieces)

    def read(self, rows: Rows, *extra: NDArray[np.float64]) -> tuple[Matrix, NDArray[np.bool_]]:
        """X as (p, n kept) and the mask of rows kept: those with a value in every factor and in `extra`."""
        keep = np.ones(rows.n, dtype=bool)
        numbers: dict[int, NDArray[np.float64]] = {}
        codes: dict[int, NDArray[np.int64]] = {}
        for index, factor in enumerate(self.factors):
            if factor.is_category:
                codes[index] = factor.codes(rows)
                keep &= codes[index] >= 0
            else:
                values = factor.numbers(rows)
                numbers[index] = values if factor.spline is None else factor.spline.basis(values)
                keep &= ~np.isnan(values)
        for values in extra:
            keep &= ~np.isnan(values)
        everyone = bool(keep.all())
        if not everyone:
            numbers = {index: values[..., keep] for index, values in numbers.items()}
            codes = {index: values[keep] for index, values in codes.items()}
        matrix = np.empty((len(self.columns), int(keep.sum())))
        for row, column in zip(matrix, self.columns):
            parts = [
                codes[index] == level
                if index in codes
                else numbers[index]
                if self.factors[index].spline is None
                else numbers[index][level]
                for index, level in column.pieces
            ]
            row[:] = parts[0] if parts else 1.0
            for part in parts[1:]:
                row *= part
        return matrix, keep

    def count_cells(self, rows: Rows, keep: NDArray[np.bool_]) -> NDArray[np.int64]:
        """(cells,) people in each cell of `cells()`, among the rows kept."""
        found: list[NDArray[np.int64]] = []
        codes = {index: self.factors[index].codes(rows)[keep] for index in self.discrete()}
        for group in self.cells().factors:
            sizes = [len(self.factors[index].levels) for index in group]
            chosen = [codes[index] for index in group]
            if any(self.factors[index].spline for index in group):
                between = np.min(chosen, axis=0) >= 0  # not on a knot
                chosen = [part[between] for part in chosen]
            flat = np.ravel_multi_index(chosen, sizes)
            found.append(np.bincount(flat, minlength=int(np.prod(sizes))).astype(np.int64))
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)


@lru_cache(maxsize=64)
def design(parsed: Parsed) -> Design:
    """The design of a parsed formula's right-hand side."""
    factors = tuple(dict.fromkeys(factor for term in parsed.terms for factor in term))
    names = {factor: f"f{index}" for index, factor in enumerate(factors)}
    prototype = pd.DataFrame(
        {
            names[factor]: pd.Categorical([factor.levels[0]] * 2, categories=list(factor.levels))
            if factor.is_category
            else [0.0, 1.0]
            for factor in factors
        },
        index=range(2),
    )
    text = " + ".join(
        ["1" if parsed.intercept else "0"] + [":".join(names[f] for f in term) for term in parsed.terms if term]
    )
    spec = Formula(text).get_model_matrix(prototype).model_spec
    columns: list[DesignColumn] = []
    for structure in spec.structure:
        for scoped in structure.scoped_terms:
            pieces = [(int(str(item.factor.expr)[1:]), bool(item.reduced)) for item in scoped.factors]
            columns += _expand(sorted(pieces, key=lambda piece: _position(structure.term, piece[0])), factors)
    return Design(parsed, factors, tuple(columns))


def _position(term: object, index: int) -> int:
    return [str(factor) for factor in term.factors].index(f"f{index}")  # type: ignore[attr-defined]


def _expand(pieces: list[tuple[int, bool]], factors: tuple[Factor, ...]) -> list[DesignColumn]:
    """All level combinations of one scoped term."""
    choices: list[list[tuple[str, tuple[int, int | None]]]] = []
    for index, reduced in pieces:
        factor = factors[index]
        if factor.spline is not None:
            choices.append([(f"{factor.text}[{place + 1}]", (index, place)) for place in range(factor.spline.width)])
            continue
        if not factor.is_category:
            choices.append([(factor.text, (index, None))])
            continue
        choices.append(
            [
                (f"{factor.text}[{'T.' if reduced else ''}{level}]", (index, position))
                for position, level in enumerate(factor.levels)
                if not (reduced and position == factor.reference)
            ]
        )
    return [
        DesignColumn(":".join(name for name, _ in combination) or "Intercept", tuple(piece for _, piece in combination))
        for combination in itertools.product(*choices)
    ]
