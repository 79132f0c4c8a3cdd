"""Frames people have (polars, pandas, Arrow) as rows of hospitals, with levels collected over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa

from dure.errors import InvalidParameter
from dure.language import Words
from dure.study.rows import Column, level_text

MOST_LEVELS = 50
"""Numbers with at most this many distinct whole values can be used as C(column)."""
MOST_CODES = 20_000
"""Codes of one column of lists."""
MOST_TEXT_LEVELS = 200
"""Text with more distinct values is no category."""


def to_polars(frame: Any) -> pl.DataFrame:
    """A polars, pandas or Arrow table, or a dict of columns, as polars; raises InvalidParameter."""
    if isinstance(frame, pl.DataFrame):
        return frame
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    module = type(frame).__module__.split(".")[0]
    if module == "pandas":
        twice = sorted({str(name) for name in frame.columns[frame.columns.duplicated()]})
        if twice:
            problem = Words(
                f"Two columns are called {', '.join(twice)}", f"이름이 같은 열이 있습니다: {', '.join(twice)}"
            )
            raise InvalidParameter(method="simulate", parameter="sites", problem=problem)
        return pl.DataFrame({str(name): _from_pandas(frame[name]) for name in frame.columns})
    if module == "pyarrow":
        converted = pl.from_arrow(frame)
        assert isinstance(converted, pl.DataFrame)
        return converted
    if isinstance(frame, Mapping):
        return pl.DataFrame(dict(frame))
    raise InvalidParameter(
        method="simulate",
        parameter="sites",
        problem=Words(f"A {type(frame).__name__} is not a table", f"{type(frame).__name__}은(는) 표가 아닙니다"),
    )


def _from_pandas(series: Any) -> pl.Series:
    """One pandas column; a Categorical keeps its order of levels, a column of mixed types becomes text."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        levels = [str(level) for level in series.cat.categories]
        texts = [None if code < 0 else levels[code] for code in series.cat.codes]
        return pl.Series(texts, dtype=pl.Enum(levels))
    try:
        converted = pl.from_pandas(series.reset_index(drop=True))
        assert isinstance(converted, pl.Series)
        return converted
    except (TypeError, ValueError, pl.exceptions.PolarsError, pa.ArrowException):
        return pl.Series([None if missing else str(value) for value, missing in zip(series, series.isna())])


def columns_of(frames: Mapping[str, pl.DataFrame]) -> dict[str, Column]:
    """Kinds and levels of every column, over all frames together.

    Text and categories: their levels, sorted (a pandas Categorical or polars Enum keeps its own order); none
    where there are too many to be levels, since names of levels are shown and free text must not be.
    Numbers that are only 0 and 1: flags. Other numbers: numbers, with levels where few and whole; so are columns
    that are numbers in one frame and text in another, which is an error as soon as they are used. Lists of whole
    numbers or text: codes, each a 0/1 covariate.
    """
    names = dict.fromkeys(name for frame in frames.values() for name in frame.columns)
    return {name: _column([frame[name] for frame in frames.values() if name in frame.columns]) for name in names}


def _column(parts: list[pl.Series]) -> Column:
    known = [part for part in parts if part.dtype != pl.Null and part.len() > part.null_count()]
    if not known:
        return Column("number")
    if all(isinstance(part.dtype, pl.List) for part in known):
        return _codes(known)
    numeric = all(part.dtype.is_numeric() or part.dtype == pl.Boolean for part in known)
    if not numeric and any(part.dtype.is_numeric() for part in known):
        return Column("number")
    if not numeric:
        declared = next((part.dtype.categories.to_list() for part in known if isinstance(part.dtype, pl.Enum)), None)
        texts = {str(value) for part in known for value in level_text(part.unique()).drop_nulls().to_list()}
        if len(texts) > MOST_TEXT_LEVELS:
            return Column("category")
        ordered = [level for level in declared or [] if level in texts]
        return Column("category", tuple(ordered + sorted(texts - set(ordered))))
    if any(part.head(1000).n_unique() > MOST_LEVELS + 2 for part in known):  # among them null and NaN
        return Column("number")
    distinct: set[Any] = set()
    for part in known:
        distinct.update((part.fill_nan(None) if part.dtype.is_float() else part).unique().drop_nulls().to_list())
        if len(distinct) > MOST_LEVELS:
            return Column("number")
    if distinct <= {0, 1}:
        return Column("flag", ("0", "1"))
    whole = all(float(value).is_integer() for value in distinct)
    levels = tuple(level_text(pl.Series(sorted(distinct))).to_list()) if whole else ()
    return Column("number", levels)


def _codes(parts: list[pl.Series]) -> Column:
    """Lists of codes: every code of any frame, numbers in their order and else as text."""
    found: set[Any] = set()
    for part in parts:
        found.update(part.list.explode().unique().drop_nulls().to_list())
    if len(found) > MOST_CODES or not all(isinstance(code, int | str) for code in found):
        return Column("codes")
    numbers = all(isinstance(code, int) for code in found)
    return Column("codes", tuple(str(code) for code in (sorted(found) if numbers else sorted(map(str, found)))))
