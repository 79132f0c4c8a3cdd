"""Frames as people have them: pandas, polars, Arrow; orders of levels, mixed columns, free text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import dure
from dure.client.frames import columns_of, to_polars
from dure.errors import DureError, InvalidParameter, NotEnoughHospitals, TextWhereNumbers


def hospital(seed: int, n: int = 90) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "y": random.integers(0, 2, n).astype(bool),
            "age": np.where(random.random(n) < 0.1, np.nan, random.normal(60, 9, n)),
            "dose": pd.Categorical(random.choice(["low", "high"], n), categories=["low", "high"]),
            "visits": random.integers(1, 4, n),
            "name": [f"Patient {seed}-{place}" for place in range(n)],
        }
    )


SITES = {name: hospital(seed) for seed, name in enumerate("ABC")}
ASKED = {"formula": "y ~ age + dose + C(visits)", "family": "binomial"}


def coefficients(sites: dict[str, Any]) -> dict[str, float]:
    table = dure.simulate(sites, "regression", ASKED).tables["coefficients"]
    return dict(table.select("term", "estimate").rows())


def test_pandas_polars_and_arrow_give_the_same_answer() -> None:
    expected = coefficients(SITES)
    polars = {name: to_polars(frame) for name, frame in SITES.items()}
    arrow = {name: frame.to_arrow() for name, frame in polars.items()}
    assert all(isinstance(table, pa.Table) for table in arrow.values())
    assert coefficients(polars) == pytest.approx(expected, rel=1e-12)
    found = coefficients(arrow)
    assert len(found) == len(expected)


def test_a_categorical_keeps_its_order_and_its_first_level_is_the_reference() -> None:
    assert columns_of({name: to_polars(frame) for name, frame in SITES.items()})["dose"].levels == ("low", "high")
    assert "dose[T.high]" in coefficients(SITES)


def test_a_column_that_is_text_at_one_hospital_is_an_error_that_shows_no_value() -> None:
    mixed = {**SITES, "C": SITES["C"].assign(age="sixty-seven")}
    with pytest.raises(TextWhereNumbers) as caught:
        coefficients(mixed)
    text = caught.value.text("en") + caught.value.text("ko")
    assert "(C)" in text
    assert "sixty" not in text
    assert str(SITES["A"]["age"].dropna().iloc[0])[:8] not in text


def test_a_mixed_column_that_nobody_uses_does_not_matter() -> None:
    mixed = {**SITES, "C": SITES["C"].assign(name=range(90))}
    assert coefficients(mixed) == coefficients(SITES)


def test_a_pandas_column_of_mixed_objects_is_text() -> None:
    frame = pd.DataFrame({"x": [1, "two", None, 3.5]}, dtype=object)
    assert to_polars(frame)["x"].to_list() == ["1", "two", None, "3.5"]


def test_free_text_has_no_levels_that_a_message_could_show() -> None:
    assert columns_of({name: to_polars(frame) for name, frame in SITES.items()})["name"].levels == ()
    with pytest.raises(DureError) as caught:
        dure.simulate(SITES, "regression", {"formula": "y ~ C(name)", "family": "binomial"})
    assert "Patient" not in caught.value.text("en") + caught.value.text("ko")


def test_things_that_are_no_tables_and_no_hospitals_are_named() -> None:
    with pytest.raises(InvalidParameter, match="A list is not a table"):
        coefficients({"A": [1, 2, 3]})
    with pytest.raises(NotEnoughHospitals):
        coefficients({})
    assert to_polars({"x": [1]}).equals(pl.DataFrame({"x": [1]}))
