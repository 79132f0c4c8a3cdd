"""People by column and by pairs of columns against pandas, and what suppression leaves to be worked out."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dure.client.simulate import Simulated, simulate
from dure.errors import InvalidParameter, UnknownColumn
from dure.estimation.suppression import hidden_cells
from dure.report.charts import drawable


def people(seed: int = 0, n: int = 900) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    age = np.where(random.random(n) < 0.05, np.nan, random.normal(60, 14, n))
    return pl.DataFrame(
        {
            "age": pl.Series(age).fill_nan(None),
            "sex": random.choice(["f", "m"], n),
            "year": random.integers(2018, 2024, n),
            "stroke": random.integers(0, 2, n).astype(float),
        }
    )


def ask(frame: pl.DataFrame, rules: Any = "off", hospitals: int = 4, **asked: Any) -> Simulated:
    asked.setdefault("levels", {"age": [40, 65, 80]})
    return simulate({f"h{i}": frame[i::hospitals] for i in range(hospitals)}, "feasibility", asked, rules=rules)


def test_counts_by_year_age_sex_and_their_crossing_are_pandas(compared: Any) -> None:
    frame = people(1)
    found = ask(frame, by=["age", "year", "sex", "stroke"], crossed=[["age", "sex"], ["year", "sex"]])
    pooled = frame.to_pandas()
    pooled["age"] = pd.cut(pooled["age"], [-np.inf, 40, 65, 80, np.inf], right=False)
    for name in ("age", "year", "sex", "stroke"):
        table = found[f"by_{name}"]
        compared(
            method="feasibility",
            oracle="pandas",
            what=f"people by {name}",
            ours=table["n"].to_list(),
            theirs=pooled[name].value_counts().sort_index().tolist(),
            tolerance=0,
        )
        assert table["missing"].to_list()[0] == pooled[name].isna().sum()
        assert table["of"].unique().to_list() == [len(pooled)]
    for one in ("age", "year"):
        theirs = pd.crosstab(pooled[one], pooled["sex"]).to_numpy().ravel()
        assert found[f"by_{one}_and_sex"]["n"].to_list() == theirs.tolist()
    assert found["attrition"]["persons"].to_list() == [len(pooled)]


counts = st.integers(1, 5).flatmap(
    lambda rows: st.integers(1, 5).flatmap(
        lambda columns: st.lists(
            st.one_of(st.integers(0, 30), st.integers(0, 2000)), min_size=rows * columns, max_size=rows * columns
        ).map(lambda cells: np.array(cells, dtype=np.int64).reshape(rows, columns))
    )
)


@settings(max_examples=200, deadline=None)
@given(table=counts, minimum=st.integers(0, 12))
def test_no_small_cell_follows_from_the_sum_of_its_row_or_column(table: np.ndarray, minimum: int) -> None:
    hidden = hidden_cells(table, minimum)
    assert hidden[table < minimum].all()
    if minimum == 0 or not (table < minimum).any():
        assert not hidden.any()
    for cells, out in itertools.chain(zip(table, hidden), zip(table.T, hidden.T)):
        if out.any() and not out.all():
            # What the line's sum leaves for its hidden cells is at least two cells and enough people.
            assert out.sum() >= 2
            assert cells[out].sum() >= minimum


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(40, 400))
def test_under_the_rules_no_released_cell_is_small_and_levels_hidden_alone_are_hidden_crossed(
    seed: int, n: int
) -> None:
    random = np.random.default_rng(seed)
    frame = people(seed, n).with_columns(group=pl.Series(random.choice(list("abcd"), n, p=[0.7, 0.2, 0.07, 0.03])))
    found = ask(frame, "default", by=["group", "year", "sex"], crossed=[["group", "sex"]])
    exact = frame.group_by("group").len()
    for table in found.tables.values():
        for column in ("n", "missing", "of"):
            shown = table[column].drop_nulls().to_list() if column in table.columns else []
            assert all(count >= 10 and count % 5 == 0 for count in shown)
    alone = found["by_group"]
    gone = set(alone.filter(pl.col("n").is_null())["level"])
    small = {row["group"] for row in exact.iter_rows(named=True) if row["len"] < 10}
    assert small <= gone
    crossed = found["by_group_and_sex"]
    assert crossed.filter(pl.col("group").is_in(sorted(gone)))["n"].null_count() == 2 * len(
        gone & set(crossed["group"])
    )
    for level in set(crossed["group"]) - gone:
        row = crossed.filter(pl.col("group") == level)
        assert row["n"].null_count() in (0, 2)  # of two cells never one
        assert row.filter(pl.col("n").is_null())["percent"].null_count() == row["n"].null_count()


def test_a_hidden_cell_says_whether_it_is_small_or_beside_a_small_one() -> None:
    frame = pl.DataFrame({"x": ["a"] * 50 + ["b"] * 30 + ["c"] * 4})
    found = ask(frame, "default", by=["x"], levels=None)
    assert found["by_x"]["n"].to_list() == [50, None, None]
    assert found.result.tables["by_x"].withheld[2, "n"] == "<10"
    assert found.result.tables["by_x"].withheld[1, "n"] == "–"


def test_figures_are_bars_of_released_tables_and_the_paragraph_says_what_was_counted() -> None:
    found = ask(people(3), "default", by=["age"], crossed=[["age", "sex"]])
    assert {name: figure.drawn for name, figure in found.result.figures.items()} == {
        "attrition": "bars",
        "by_age": "bars",
        "by_age_and_sex": "bars",
    }
    assert set(drawable(found.result)) == {"by_age", "by_age_and_sex"}  # one bar alone says nothing
    said = found.result.paragraph
    assert said is not None
    assert "age × sex" in said.en
    assert "age × sex" in said.ko


def test_by_hospital_stays_as_it_was() -> None:
    found = ask(people(4), "default", by_hospital=True, by=["sex"], levels=None)["attrition"]
    assert [found[f"h{i}"].to_list() for i in range(4)] == [[225]] * 4


@pytest.mark.parametrize(
    ("asked", "error", "says"),
    [
        ({"by": ["agee"]}, UnknownColumn, "agee"),
        ({"by": ["age"], "levels": None}, InvalidParameter, "cut points"),
        ({"by": ["site"]}, InvalidParameter, "by_hospital"),
        ({"by": ["sex", "sex"]}, InvalidParameter, "twice"),
        ({"crossed": [["sex", "sex"]]}, InvalidParameter, "itself"),
        ({"crossed": [["sex", "year"], ["year", "sex"]]}, InvalidParameter, "twice"),
    ],
)
def test_what_cannot_be_counted_is_said(asked: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        ask(people(5), **asked)
