"""One hospital's rows of a cohort, as a method sees them; they never leave the hospital."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from dure.errors import TextWhereNumbers, UndeclaredLevel, UnknownColumn
from dure.language import Words
from dure.study.cohort import Kind
from dure.study.result import Result

Built = TypeVar("Built")
MISSING_LEVEL = -1
GOING_ON = "going on"


@dataclass(frozen=True, slots=True)
class Column:
    """What everyone may know of a column: its kind, its declared levels (first: reference), its label."""

    kind: Kind
    levels: tuple[str, ...] = ()
    label: Words | None = None


@dataclass(frozen=True)
class Rows:
    """Rows of one hospital, one per person of the cohort.

    `frame` has one column per variable and per derived column (`step.column`). `attrition` counts the people
    at entry and after each criterion. `person` holds one stable number per row, for seeding random draws.
    `own` holds this hospital's own Results of the steps used that ran inside each hospital (scope `each`).
    None of them stands in the repr, which ends in logs and tracebacks.
    """

    frame: pl.DataFrame = field(repr=False)
    hospital: str
    columns: Mapping[str, Column]
    attrition: tuple[int, ...] = ()
    person: NDArray[np.int64] | None = field(default=None, repr=False)
    own: Mapping[str, Result] = field(default_factory=dict, repr=False)
    _built: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def n(self) -> int:
        return self.frame.height

    def numbers(self, name: str) -> NDArray[np.float64]:
        """(n,) float64, missing as NaN; raises UnknownColumn or TextWhereNumbers."""

        def build() -> NDArray[np.float64]:
            series = self._series(name)
            if series.dtype == pl.Boolean:
                series = series.cast(pl.Int8)
            if not (series.dtype.is_numeric() or series.dtype == pl.Null):
                raise TextWhereNumbers(name, self.hospital)
            values = (
                series.cast(pl.Float64).to_numpy(allow_copy=True) if series.dtype != pl.Float64 else series.to_numpy()
            )
            values = np.asarray(values, dtype=np.float64)
            return values if np.isfinite(values).all() else np.where(np.isfinite(values), values, np.nan)

        return self.remember(("numbers", name), build)

    def levels(self, name: str) -> NDArray[np.int64]:
        """(n,) int64 index into the declared levels, MISSING_LEVEL where missing; raises UndeclaredLevel."""

        def build() -> NDArray[np.int64]:
            declared = self.columns[name].levels if name in self.columns else ()
            text = level_text(self._series(name))
            codes = text.replace_strict(
                {level: index for index, level in enumerate(declared)}, default=-2, return_dtype=pl.Int64
            )
            codes = pl.select(pl.when(text.is_null()).then(pl.lit(MISSING_LEVEL)).otherwise(codes)).to_series()
            values = codes.to_numpy().astype(np.int64)
            if (values == -2).any():
                raise UndeclaredLevel(column=name)
            return values

        return self.remember(("levels", name), build)

    def codes(self, name: str, column: Column) -> NDArray[np.int64]:
        """(n,) int64 index into `column.levels`, MISSING_LEVEL where missing: of a category, of a 0/1 flag, or of
        `site`, whose levels are the hospitals that take part."""
        if name == "site":
            here = column.levels.index(self.hospital) if self.hospital in column.levels else MISSING_LEVEL
            return np.full(self.n, here, dtype=np.int64)
        if column.kind == "flag":
            values = self.numbers(name)
            return np.where(np.isnan(values), MISSING_LEVEL, values != 0).astype(np.int64)
        return self.levels(name)

    def code_matrix(self, name: str) -> sparse.csr_matrix:
        """(n, declared codes) 0/1 of a column that lists each person's codes; no list is no code. Its indices are
        int32, so that a million people with twenty codes each take 240 MB; raises UndeclaredLevel."""

        def build() -> sparse.csr_matrix:
            declared = self.columns[name].levels if name in self.columns else ()
            return code_matrix(self._series(name), declared, name)

        return self.remember(("code matrix", name), build)

    def remember(self, key: Any, build: Callable[[], Built]) -> Built:
        """`build()`, once for these rows in this process: design matrices are built once per step."""
        if key not in self._built:
            self._built[key] = build()
        value: Built = self._built[key]
        return value

    def remember_latest(self, slot: Any, key: Any, build: Callable[[], Built]) -> Built:
        """As `remember`, but only the latest key of a slot is kept: one centred matrix, not one per fold."""
        held = self._built.get(("latest", slot))
        if held is None or held[0] != key:
            held = self._built[("latest", slot)] = (key, build())
        value: Built = held[1]
        return value

    @contextmanager
    def going_on(self, before: bytes | None, asked: bytes) -> Iterator[None]:
        """While `asked` is computed. What was remembered of the latest state counts only where the last that was
        computed here, and did not fail, is `before`: an answer is then that of a process that has just begun, whatever
        else was asked of this one."""
        if self._built.pop(GOING_ON, None) != before or before is None:
            for key in [key for key in self._built if isinstance(key, tuple) and key[:1] == ("latest",)]:
                del self._built[key]
        yield
        self._built[GOING_ON] = asked

    def batches(self, size: int) -> Iterator[Rows]:
        """The same rows in pieces of at most `size`; summaries of pieces add up to the summary of all."""
        for start in range(0, max(self.n, 1), size):
            person = None if self.person is None else self.person[start : start + size]
            attrition = self.attrition if start == 0 else tuple(0 for _ in self.attrition)
            yield replace(self, frame=self.frame.slice(start, size), attrition=attrition, person=person, _built={})

    def with_columns(self, values: Mapping[str, Any], columns: Mapping[str, Column]) -> Rows:
        """These rows with derived columns joined on; what was built of the old ones is theirs, since a column of the
        same name may hold other values."""
        frame = self.frame.with_columns([pl.Series(name, value) for name, value in values.items()])
        return replace(self, frame=frame, columns={**self.columns, **columns}, _built={})

    def _series(self, name: str) -> pl.Series:
        if name not in self.frame.columns:
            raise UnknownColumn(name, [*self.frame.columns, "site"], self.hospital)
        return self.frame.get_column(name)


WIDEST = 1 << 28
"""Codes as numbers below this are looked up in a table of which only the touched pages exist."""


def code_matrix(series: pl.Series, declared: Sequence[str], name: str = "") -> sparse.csr_matrix:
    """(n, declared) 0/1 with int32 indices, sorted in each row; raises UndeclaredLevel."""
    if series.dtype == pl.Null:
        return sparse.csr_matrix((series.len(), len(declared)))
    lengths = series.list.len().fill_null(0).to_numpy()
    pointers = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int32)
    flat = series.drop_nulls()
    values = flat.filter(flat.list.len() > 0).list.explode()
    indices = _code_places(values, declared)
    if values.null_count() or (indices < 0).any():
        raise UndeclaredLevel(column=name)
    found = sparse.csr_matrix((np.ones(len(indices)), indices, pointers), shape=(series.len(), len(declared)))
    rising = np.diff(indices) > 0
    inner = pointers[1:-1]
    rising[inner[(inner > 0) & (inner < len(indices))] - 1] = True
    if not rising.all():  # in another order, or a code twice: it counts once
        found.sort_indices()
        found.sum_duplicates()
        found.data[:] = 1.0
    return found


def _code_places(values: pl.Series, declared: Sequence[str]) -> NDArray[np.int32]:
    """(codes of all people,) place among the declared codes, −1 where there is none."""
    numbers = [int(code) for code in declared if code.isdigit() and str(int(code)) == code]
    if values.dtype.is_integer() and len(numbers) == len(declared) and max(numbers, default=0) < WIDEST:
        place = np.zeros(max(numbers, default=0) + 2, dtype=np.int32)
        place[numbers] = np.arange(1, len(numbers) + 1)
        known = values.fill_null(-1).to_numpy()
        within = (known >= 0) & (known < len(place) - 1)
        return place[known if within.all() else np.where(within, known, len(place) - 1)] - np.int32(1)
    table = {code: number for number, code in enumerate(declared)}
    text = values.cast(pl.String)
    return text.replace_strict(table, default=-1, return_dtype=pl.Int32).fill_null(-1).to_numpy()


def level_text(series: pl.Series) -> pl.Series:
    """A column's values as level names: whole numbers without a decimal point, NaN as missing."""
    if series.dtype == pl.Boolean:
        return series.cast(pl.Int8).cast(pl.String)
    if series.dtype.is_float():
        series = series.fill_nan(None)
        values = series.drop_nulls()
        if values.len() == 0 or bool(((values == values.round()) & (values.abs() < 2**53)).all()):
            return series.cast(pl.Int64).cast(pl.String)
    if series.dtype == pl.Null:
        return series.cast(pl.String)
    return series.cast(pl.String)
