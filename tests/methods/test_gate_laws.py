"""Whatever the people and whatever the method: nothing small is released, and a refusal's setting passes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dure.client.frames import columns_of
from dure.client.simulate import run_frames
from dure.errors import DataError, DureError, InputError, NotEstimable, Refused
from dure.federation.ledger import Fold
from dure.guard.rules import DEFAULT, RULES
from dure.study.method import Method, installed_methods
from dure.study.result import Result
from dure.study.spec import Step

METHODS = list(installed_methods().values())
EVERY = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
SOME = settings(max_examples=12, deadline=None, derandomize=True)
MOST_SETTINGS = 6
"""A setting that passes one rule may meet the next; more than so many in a row would be no help to anybody."""


@st.composite
def people(draw: st.DrawFn, method: Method) -> dict[str, pl.DataFrame]:
    """A few or many of the example's people at three to five hospitals, some columns made rare."""
    times = draw(st.sampled_from([1, 2, 6]))
    frame = pl.concat([method.example(np.random.default_rng(seed)).frame for seed in range(times)])
    if "person_id" in frame.columns:
        frame = frame.with_columns(person_id=pl.int_range(frame.height, dtype=pl.Int64))
    size = draw(st.integers(30, frame.height))
    order = np.random.default_rng(draw(st.integers(0, 2**16))).permutation(frame.height)[:size]
    frame = frame[order.tolist()]
    for name in draw(st.lists(st.sampled_from(frame.columns), max_size=2, unique=True)):
        frame = _rare(frame, name, draw(st.integers(1, 12)))
    hospitals = draw(st.integers(3, 5))
    return {f"h{place}": frame[place::hospitals] for place in range(hospitals)}


def _rare(frame: pl.DataFrame, name: str, left: int) -> pl.DataFrame:
    """All but `left` people get the most frequent value of a column of few values."""
    column = frame[name]
    if not (column.dtype.is_numeric() or column.dtype == pl.String) or column.drop_nulls().n_unique() > 8:
        return frame
    most = column.drop_nulls().value_counts(sort=True)[name][0] if column.drop_nulls().len() else None
    place = pl.int_range(frame.height)
    return frame.with_columns(
        pl.when((place >= left) & pl.col(name).is_not_null())
        .then(pl.lit(most))
        .otherwise(pl.col(name))
        .cast(column.dtype)
        .alias(name)
    )


def ask(frames: Mapping[str, pl.DataFrame], method: Method, parameters: Mapping[str, Any], columns: Any) -> Fold:
    step = Step(name="step", method=method.name, parameters=dict(parameters))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcomes, _ = run_frames(frames, (step,), DEFAULT, frozenset(), columns=columns)
    return outcomes["step"].folds[None]


@EVERY
@SOME
@given(data=st.data())
def test_no_released_cell_breaks_a_rule_and_what_a_refusal_names_would_pass(
    method: Method, data: st.DataObject
) -> None:
    frames = data.draw(people(method), label="people")
    columns = columns_of(frames)
    parameters = dict(method.example(np.random.default_rng(0)).parameters)
    for _ in range(MOST_SETTINGS):
        try:
            fold = ask(frames, method, parameters, columns)
        except (InputError, DataError):  # a column that became constant is no outcome, before anybody is asked
            return assume(False) and None
        if fold.released is not None:
            return _within_the_rules(fold.released)
        error = fold.error
        assert isinstance(error, DureError)
        if not isinstance(error, Refused):
            assert isinstance(error, NotEstimable | DataError | InputError), error
            return None
        assert error.rule in RULES
        assert (
            not any(letter.isdigit() for letter in error.way_out.en.split("grid")[0].replace("0/1", ""))
            or error.setting
        )
        if not error.setting:
            return _nothing_helps(method, error)
        assert any(parameters.get(name) != value for name, value in error.setting.items()), error.setting
        parameters |= error.setting
    raise AssertionError(f"{method.name}: {MOST_SETTINGS} settings in a row did not pass: {parameters}")


def _nothing_helps(method: Method, error: Refused) -> None:
    """A refusal without a setting says at least what to do."""
    assert error.way_out.en
    assert error.way_out.ko


def _within_the_rules(result: Result) -> None:
    least, step = DEFAULT.minimum_people, DEFAULT.round_to
    for table in result.tables.values():
        for column in table.counts:
            for row, value in enumerate(table.frame[column].to_list()):
                if value is None:
                    continue
                assert value >= least, (column, row)
                assert value % step == 0, (column, row)
        for column, behind in table.behind.items():
            if behind not in table.counts:
                continue
            gone = table.frame[behind].is_null() & pl.Series(
                [(row, behind) in table.withheld for row in range(table.frame.height)]
            )
            assert table.frame.filter(gone)[column].null_count() == int(gone.sum()), column
    for name in result.people_facts:
        value = result.facts[name]
        assert value is None or isinstance(value, str) or (value >= least and value % step == 0), name
