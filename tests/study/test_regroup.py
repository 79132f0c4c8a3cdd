"""Levels of a step's own: put in order, merged, or cut from a number, at the hub and at every hospital alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

import dure
from dure.errors import InvalidParameter, Refused, UnknownColumn
from dure.study.regroup import regrouped, regrouped_columns
from dure.study.rows import Column, Rows

COLUMNS = {
    "stage": Column("category", ("I", "II", "III", "IV")),
    "age": Column("number"),
    "grade": Column("number", ("1", "2", "3")),
    "smokes": Column("flag", ("0", "1")),
}


def rows(**values: list[Any]) -> Rows:
    return Rows(pl.DataFrame(values), "north", {name: COLUMNS[name] for name in values})


def codes(how: Any, name: str, values: list[Any]) -> tuple[tuple[str, ...], list[int]]:
    found = regrouped(rows(**{name: values}), {name: how})
    assert found.columns == {name: regrouped_columns(COLUMNS, {name: how})[name]}
    return found.columns[name].levels, found.levels(name).tolist()


def test_levels_in_another_order_change_the_reference() -> None:
    assert codes(["III", "I"], "stage", ["I", "III", None, "IV"]) == (("III", "I", "II", "IV"), [1, 0, -1, 3])


def test_merged_levels_stand_before_those_that_stay() -> None:
    assert codes({"late": ["III", "IV"]}, "stage", ["I", "III", "IV", "II"]) == (("late", "I", "II"), [1, 0, 0, 2])


def test_a_number_is_cut_into_bands_that_hold_their_lower_end() -> None:
    found = codes((40, 65), "age", [39.9, 40.0, 64.9, 65.0, None, 90.0])
    assert found == (("<40", "40 to <65", "≥65"), [0, 1, 1, 2, -1, 2])


def test_a_number_of_few_values_and_a_flag_have_levels_too() -> None:
    assert codes({"high": ["2", "3"]}, "grade", [1, 2, 3, None]) == (("high", "1"), [1, 0, 0, -1])
    assert codes(["1", "0"], "smokes", [0.0, 1.0, None]) == (("1", "0"), [1, 0, -1])


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("stage", {"late": ["III", "V"]}),
        ("stage", {"a": ["I"], "b": ["I"]}),
        ("stage", {"I": ["III", "IV"]}),
        ("stage", []),
        ("stage", (1.0, 2.0)),
        ("age", (65.0, 40.0)),
        ("age", ["old"]),
    ],
)
def test_what_cannot_be_is_said(name: str, how: Any) -> None:
    with pytest.raises(InvalidParameter, match="levels"):
        regrouped_columns(COLUMNS, {name: how})


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(UnknownColumn, match="stages"):
        regrouped_columns(COLUMNS, {"stages": ["I"]})


def sites() -> dict[str, pl.DataFrame]:
    random = np.random.default_rng(5)
    stage = np.array(["I"] * 300 + ["II"] * 294 + ["III"] * 6)
    y = (random.random(600) < np.where(stage == "I", 0.3, 0.5)).astype(float)
    frame = pl.DataFrame({"stage": stage, "y": y, "age": random.normal(60, 9, 600)})[random.permutation(600).tolist()]
    return {f"h{place}": frame[place::3] for place in range(3)}


def test_a_refusal_names_levels_that_pass() -> None:
    asked = {"formula": "y ~ C(stage) + age", "family": "binomial"}
    with pytest.raises(Refused) as caught:
        dure.simulate(sites(), "regression", asked)
    assert set(caught.value.setting) == {"levels"}
    assert "levels" in caught.value.text("en")
    assert "통과" in caught.value.text("ko")
    found = dure.simulate(sites(), "regression", asked | caught.value.setting)
    assert found["coefficients"].height == 3


def test_levels_of_a_step_reach_what_it_derives() -> None:
    steps = [
        {"name": "model", "method": "regression", "parameters": {
            "formula": "y ~ C(stage)", "family": "binomial", "levels": {"stage": {"late": ["II", "III"]}}}},
        {"name": "check", "method": "validation", "uses": ["model"],
         "parameters": {"outcome": "y", "scores": ["model.prediction"]}},
    ]  # fmt: skip
    found = dure.simulate_steps(sites(), steps)
    assert found.status() == {"model": "finished", "check": "finished"}
    assert found["check"].facts["n"] == 600


def test_what_was_remembered_of_a_state_counts_only_where_the_last_question_went_on_from_it() -> None:
    """An answer is that of a process which has just begun, whatever else was asked of this one, and whatever failed."""
    rows, built = Rows(pl.DataFrame({"x": [1.0]}), "a", {}), []

    def latest(key: str) -> str:
        return rows.remember_latest("slot", "the same key", lambda: built.append(key) or key)  # type: ignore[func-returns-value]

    with rows.going_on(None, b"one"):
        assert latest("one") == "one"
    with rows.going_on(b"one", b"two"):
        assert latest("two") == "one"
    with rows.going_on(b"something else", b"three"):
        assert latest("three") == "three"
    with pytest.raises(ValueError, match="it fails"), rows.going_on(b"three", b"four"):
        raise ValueError("it fails")
    with rows.going_on(b"three", b"four"):
        assert latest("four") == "four"
    with rows.going_on(None, b"five"):
        assert latest("five") == "five"
    assert built == ["one", "three", "four", "five"]
