"""What travels comes back as it was, equal values as equal bytes, and nothing else travels."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dure.errors import DureError, LifecycleError, Refused, RunWaits, Separation, UnknownColumn
from dure.federation.messages import Answer, Ask, error_data, error_from
from dure.guard.rules import refusal
from dure.language import Words
from dure.study.packing import pack, unpack
from dure.study.result import Fitted, Result, Table, pack_result, unpack_result

ARRAYS = st.one_of(
    *(
        hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
        for dtype in (np.float64, np.float32, np.int64, np.int32, np.uint8, np.bool_)
    )
)
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    ARRAYS,
)
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@given(VALUES)
def test_plain_data_and_arrays_come_back_as_they_were(value: Any) -> None:
    assert same(unpack(pack(value)), value)
    assert pack(unpack(pack(value))) == pack(value)


@given(ARRAYS)
def test_how_an_array_lies_in_memory_does_not_show(array: np.ndarray) -> None:
    assert pack(array.copy(order="F")) == pack(array)
    assert pack(array.astype(array.dtype.newbyteorder(">"))) == pack(array)


@given(st.floats())
def test_a_number_keeps_every_bit(value: float) -> None:
    assert np.float64(unpack(pack(value))).tobytes() == np.float64(value).tobytes()


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, np.array([object()]), np.array(["text"]), np.array([1j]), lambda: 1, pl.DataFrame({"x": [1]})],
)
def test_nothing_else_travels(value: Any) -> None:
    with pytest.raises(TypeError):
        pack(value)


@given(st.binary(max_size=60))
def test_broken_bytes_are_a_value_error_or_a_value(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        unpack(data)


@given(VALUES, st.data())
def test_cut_bytes_are_a_value_error(value: Any, data: st.DataObject) -> None:
    whole = pack(value)
    with pytest.raises(ValueError):
        unpack(whole[: data.draw(st.integers(0, len(whole) - 1))])


def test_a_result_comes_back_whole() -> None:
    frame = pl.DataFrame({"name": ["a", None], "n": [1, None], "x": [0.1, None], "flag": [True, None]})
    table = Table(
        frame,
        counts=("n",),
        behind={"x": "n"},
        group=("name",),
        derived=("x",),
        shares={"percent": ("n", "n", 100.0)},
        withheld={(1, "n"): "<10"},
    )
    result = Result(
        "m",
        {"t": table, "empty": Table(frame.clear())},
        {"n": 3, "words": ["a"], "none": None},
        ("n",),
        Fitted(2, 30, 4, 26),
        {"beta": np.array([1.0])},
        (Words("note", "주석"),),
    )
    again = unpack_result(pack_result(result))
    assert pack_result(again) == pack_result(result)
    assert again.tables["t"].frame.equals(frame)
    assert again.tables["empty"].frame.schema == frame.schema
    assert again.tables["t"].withheld == {(1, "n"): "<10"}
    assert again.fitted == result.fitted
    assert again.notes == result.notes


def test_questions_and_answers_come_back() -> None:
    ask = Ask(
        "run",
        "sha256:x",
        "step",
        3,
        ("a", "b"),
        {"beta": np.zeros(2)},
        {"one": b"x", "two": None},
        fold="a",
        alone=True,
    )
    again = Ask.from_bytes(ask.to_bytes())
    assert again.to_bytes() == ask.to_bytes()
    assert (again.hospitals, again.fold, again.alone) == (("a", "b"), "a", True)
    answer = Answer("a", "summary", {"n": np.array(3)}, {"n": ["as_declared"]})
    assert Answer.from_bytes(answer.to_bytes()).to_bytes() == answer.to_bytes()
    with pytest.raises(ValueError, match="protocol"):
        Ask.from_bytes(pack({**unpack(ask.to_bytes()), "protocol": 1}))


@pytest.mark.parametrize(
    "error",
    [
        UnknownColumn("agee", ["age"], "north"),
        Separation(terms="x"),
        refusal("minimum_people"),
        RunWaits("step", ["b", "a"], "difference"),
        LifecycleError(action="a", state="s", role="r", open="o"),
    ],
)
def test_an_error_travels_in_both_languages(error: DureError) -> None:
    again = error_from(unpack(pack(error_data(error))))
    assert type(again) is type(error)
    assert again.text("en") == error.text("en")
    assert again.text("ko") == error.text("ko")
    if isinstance(error, Refused):
        assert isinstance(again, Refused)
        assert again.rule == error.rule
    if isinstance(error, RunWaits):
        assert isinstance(again, RunWaits)
        assert (again.step, again.hospitals, again.grant) == (error.step, error.hospitals, error.grant)


def test_an_unknown_error_becomes_one_of_a_site() -> None:
    assert error_from({"code": "nobody-knows", "fields": {}}, "north", "model").code() == "site-failed"
