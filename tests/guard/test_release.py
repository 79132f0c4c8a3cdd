"""Release: rounded counts, hidden cells with their complement, percentages that give nothing back, model limits."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dure.errors import InvalidParameter, Refused, UnknownParameter
from dure.guard.release import numbers, release, rounded
from dure.guard.rules import DEFAULT, OFF, Limits, tighten, with_overrides
from dure.study.result import Fitted, Result, Table


def shown(table: Table, limits: Limits = DEFAULT) -> Table:
    return release(Result("m", {"t": table}), limits).tables["t"]


def levels(*counts: int | None, **more: Any) -> Table:
    frame = pl.DataFrame(
        {"v": ["x"] * len(counts), "n": list(counts), "of": [sum(c or 0 for c in counts)] * len(counts)},
        schema_overrides={"n": pl.Int64},
    )
    return Table(frame, counts=("n", "of"), group=("v",), shares={"percent": ("n", "of", 100.0)}, **more)


@given(st.integers(10, 10**9))
def test_counts_are_rounded_to_the_nearest_five(count: int) -> None:
    assert rounded(count, DEFAULT) == 5 * round(count / 5)
    assert abs(rounded(count, DEFAULT) - count) <= 2
    assert shown(Table(pl.DataFrame({"n": [count]}), counts=("n",))).frame["n"][0] == 5 * round(count / 5)


@pytest.mark.parametrize("count", range(10))
def test_nine_and_fewer_are_shown_as_fewer_than_ten_zero_too(count: int) -> None:
    table = shown(Table(pl.DataFrame({"n": [count]}), counts=("n",)))
    assert table.frame["n"].to_list() == [None]
    assert table.withheld == {(0, "n"): "<10"}


def test_a_single_small_cell_takes_the_next_smallest_with_it() -> None:
    table = shown(levels(100, 40, 4, 60))
    assert table.frame["n"].to_list() == [100, None, None, 60]
    assert table.withheld[2, "n"] == "<10"
    assert table.withheld[1, "n"] == "–"


def test_small_cells_hide_each_other_if_they_are_enough_people_together() -> None:
    assert shown(levels(100, 7, 3, 60)).frame["n"].to_list() == [100, None, None, 60]
    assert shown(levels(100, 0, 0, 60)).frame["n"].to_list() == [100, None, None, None]  # else both are known to be 0


def test_hidden_cells_that_are_few_together_are_not_told_apart() -> None:
    """Two cells of 8 and 9 whose sum is known: `<10` twice would leave a few numbers for each."""
    assert set(shown(levels(8, 9)).withheld.values()) == {"–"}
    assert shown(levels(96, 4)).withheld[1, "n"] == "<10"


def test_what_a_hospital_withheld_is_not_what_the_others_leave_of_the_sum() -> None:
    table = levels(100, None, 60, withheld={(1, "n"): "<10"})
    assert shown(table).frame["n"].to_list() == [100, None, None]


def test_groups_are_complemented_each_for_itself() -> None:
    frame = pl.DataFrame({"v": ["x", "x", "y", "y"], "n": [50, 3, 25, 28]})
    found = shown(Table(frame, counts=("n",), group=("v",)))
    assert found.frame["n"].to_list() == [None, None, 25, 30]


def test_what_stands_on_a_hidden_count_goes_with_it() -> None:
    frame = pl.DataFrame({"n": [50, 4], "mean": [1.25, 987.5]})
    found = shown(Table(frame, counts=("n",), behind={"mean": "n"}))
    assert found.frame["mean"].to_list() == [1.25, None]
    assert found.withheld[1, "mean"] == "–"


def test_percentages_come_from_rounded_counts() -> None:
    found = shown(levels(33, 67))
    assert found.frame["percent"].to_list() == [35.0, 65.0]
    hidden = shown(levels(96, 4))
    assert hidden.frame["percent"].to_list() == [None, None]
    assert hidden.withheld[0, "percent"] == "–"


def test_facts_about_people_are_rounded_and_small_ones_hidden() -> None:
    result = Result("m", facts={"n": 123, "events": 7, "deviance": 12.25}, people_facts=("n", "events"))
    assert release(result, DEFAULT).facts == {"n": 125, "events": "<10", "deviance": 12.25}


def test_what_only_hospitals_need_is_not_released() -> None:
    assert release(Result("m", portable={"beta": [1.0]}), DEFAULT).portable == {}


def test_without_rules_nothing_changes() -> None:
    found = shown(levels(96, 4), OFF)
    assert found.frame["n"].to_list() == [96, 4]
    assert not found.withheld


@pytest.mark.parametrize(
    ("fitted", "rule"),
    [
        (Fitted(33, 100), None),
        (Fitted(34, 100), "parameters_per_person"),
        (Fitted(5, 1000, 50, 950), None),
        (Fitted(5, 1000, 49, 951), "parameters_per_event"),
        (Fitted(5, 1000, 951, 49), "parameters_per_event"),
    ],
)
def test_a_model_has_few_parameters_for_its_people_and_events(fitted: Fitted, rule: str | None) -> None:
    if rule is None:
        release(Result("m", fitted=fitted), DEFAULT)
        return
    with pytest.raises(Refused) as caught:
        release(Result("m", fitted=fitted), DEFAULT)
    assert caught.value.rule == rule


def test_released_numbers_are_those_that_restate_nothing() -> None:
    frame = pl.DataFrame({"name": ["a", "b"], "x": [1.0, None], "y": [1.0, 2.0], "z": [3, 4]})
    assert numbers(Result("m", {"t": Table(frame, derived=("y",))})) == 3


# ── limits ──

TIGHTER = {
    "minimum_people": (11, 9),
    "minimum_cohort": (20, 0),
    "minimum_hospitals": (4, 2),
    "round_to": (10, 1),
    "parameters_per_person": (0.1, 0.34),
    "parameters_per_event": (0.05, 0.2),
    "numbers_per_person": (0.1, 1.0),
    "open_numbers_per_person": (0.05, 0.33),
    "minimum_difference": (20, 1),
    "similar_questions": (3, 8),
    "similar_days": (60, 29),
}


def test_every_limit_has_a_tighter_and_a_looser_value_here() -> None:
    assert TIGHTER.keys() == Limits.model_fields.keys()


@pytest.mark.parametrize("name", TIGHTER)
def test_a_hospital_tightens_a_limit_and_never_loosens_it(name: str) -> None:
    tight, loose = TIGHTER[name]
    assert getattr(tighten({name: tight}), name) == tight
    assert getattr(tighten({name: getattr(DEFAULT, name)}), name) == getattr(DEFAULT, name)
    with pytest.raises(InvalidParameter, match="never loosen") as caught:
        tighten({name: loose})
    assert name in str(caught.value)


@given(st.dictionaries(st.sampled_from(sorted(TIGHTER)), st.integers(1, 50), max_size=3))
def test_what_tighten_accepts_is_nowhere_looser(values: dict[str, int]) -> None:
    try:
        limits = tighten(values)
    except InvalidParameter:
        return
    for name, (tight, _) in TIGHTER.items():
        new, old = getattr(limits, name), getattr(DEFAULT, name)
        assert new >= old if tight > old else new <= old


def test_an_unknown_limit_gets_the_nearest_name() -> None:
    with pytest.raises(UnknownParameter, match="minimum_people"):
        with_overrides({"minimum_peple": 10})


@pytest.mark.parametrize("values", [{"minimum_people": "many"}, {"round_to": 0}, {"parameters_per_event": -1}])
def test_a_limit_that_is_none_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter):
        tighten(values)
