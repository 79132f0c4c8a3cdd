"""Numbers become integers and come back: exact where the page says so, rounded once where it says that."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dure.errors import SumOutOfRange
from dure.federation.secure_sum import fixed_point, masks
from dure.federation.secure_sum.fixed_point import COUNT, FORMATS, MOMENT, POWERS, WEIGHTS, Format
from dure.study.summary import ArraySpec, Declaration

FRACTIONS = pytest.mark.parametrize("format", [WEIGHTS, MOMENT, POWERS], ids=["weights", "moment", "powers"])
WIDE = st.floats(allow_nan=False, allow_infinity=False)


def whole(values: list[float], format: Format) -> list[int]:
    """Each value's integer, by the code under test."""
    digits = np.zeros((len(values), 2 * format.limbs), np.int64)
    fixed_point.encode(np.array(values), format, digits)
    words = np.empty(digits.shape, np.uint32)
    fixed_point.carry(digits, words)
    bits = 64 * format.limbs
    found = [int.from_bytes(row.astype("<u4").tobytes(), "little") for row in words]
    return [number - (1 << bits) if number >> (bits - 1) else number for number in found]


def words_of(numbers: list[int], format: Format) -> Any:
    data = b"".join((number % (1 << 64 * format.limbs)).to_bytes(8 * format.limbs, "little") for number in numbers)
    return np.frombuffer(data, "<u4").reshape(len(numbers), 2 * format.limbs)


@FRACTIONS
@given(data=st.data())
def test_a_value_is_its_multiple_of_the_last_place_rounded_half_to_even(format: Format, data: st.DataObject) -> None:
    most = format.most(8)
    values = data.draw(st.lists(WIDE.filter(lambda x: abs(x) < most), min_size=1, max_size=20))
    assert whole(values, format) == [round(Fraction(value) * 2**format.fraction) for value in values]


@FRACTIONS
@given(data=st.data())
def test_halves_of_the_last_place_go_to_the_even_neighbour(format: Format, data: st.DataObject) -> None:
    odd = data.draw(st.integers(-(2**40), 2**40))
    value = math.ldexp(2 * odd + 1, -format.fraction - 1)
    assert whole([value], format) == [round(Fraction(value) * 2**format.fraction)]
    assert whole([value], format)[0] % 2 == 0


@FRACTIONS
@given(data=st.data())
def test_an_integer_comes_back_as_the_nearest_float(format: Format, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 64 * format.limbs - 1))
    number = st.integers(-(2**size), 2**size - 1)
    near = st.builds(
        lambda a, b, c: (a << b) + c, st.integers(-(2**54), 2**54), st.integers(0, size), st.integers(-1, 1)
    )
    half = 1 << (64 * format.limbs - 1)
    numbers = [n for n in data.draw(st.lists(number | near, min_size=1, max_size=20)) if -half <= n < half]
    found = fixed_point.decode(words_of(numbers, format), format).tolist()
    assert found == [float(Fraction(number, 2**format.fraction)) for number in numbers]


@given(st.lists(st.lists(st.integers(-76, 121), min_size=3, max_size=3), min_size=1, max_size=30), st.integers())
def test_moments_of_the_stated_range_add_exactly(sizes: list[list[int]], seed: int) -> None:
    """2^-76 ≤ |x| < 2^122: nothing is rounded but the sum, once, as `math.fsum` does."""
    random = np.random.default_rng(abs(seed))
    parts = random.choice([-1.0, 1.0], (len(sizes), 3)) * random.uniform(1, 2, (len(sizes), 3))
    parts = np.ldexp(parts, np.array(sizes))
    declaration = (ArraySpec("sums", (3,), "moment"),)
    vectors = [masks.masked({"sums": part}, declaration, len(sizes), []) for part in parts]
    found = masks.opened(masks.added(vectors, declaration), declaration, [])["sums"]
    assert found.tolist() == [math.fsum(column) for column in parts.T]


@given(st.lists(st.integers(-(2**57), 2**57), min_size=1, max_size=32))
def test_counts_are_exact(values: list[int]) -> None:
    declaration = (ArraySpec("n", (), "count"),)
    vectors = [masks.masked({"n": np.array(value)}, declaration, 32, []) for value in values]
    assert int(masks.opened(masks.added(vectors, declaration), declaration, [])["n"]) == sum(values)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("hospitals", [2, 8, 32, 33, 200])
def test_as_many_hospitals_as_there_are_cannot_leave_the_range(format: Format, hospitals: int) -> None:
    assert hospitals * format.most(hospitals) * 2**format.fraction <= 2 ** (64 * format.limbs - 1)


@pytest.mark.parametrize(
    ("spec", "format"),
    [
        (ArraySpec("secret_array", (2,), "moment"), MOMENT),
        (ArraySpec("secret_array", (2,), "weights"), WEIGHTS),
        (ArraySpec("secret_array", (2,), "moment", sides=True), POWERS),
        (ArraySpec("secret_array", (2,), "count"), COUNT),
    ],
)
def test_a_number_beyond_the_range_names_its_array_and_no_value(spec: ArraySpec, format: Format) -> None:
    most = format.most(4)
    inside = np.array([most / 2, -most / 2]).astype(spec.dtype)
    masks.masked({"secret_array": inside}, (spec,), 4, [])
    for beyond in (most, -most):
        with pytest.raises(SumOutOfRange) as caught:
            masks.masked({"secret_array": np.array([0, beyond]).astype(spec.dtype)}, (spec,), 4, [])
        assert "secret_array" in caught.value.text("en")
        assert caught.value.fields == {"array": "secret_array", "bits": int(math.log2(most))}


def test_the_vector_of_a_declaration_is_as_long_as_the_page_says() -> None:
    declaration: Declaration = (
        ArraySpec("a", (7, 3), "moment"),
        ArraySpec("b", (0,), "count"),
        ArraySpec("c", (2,), "count"),
        ArraySpec("d", (4,), "weights"),
        ArraySpec("e", (1, 4), "moment", sides=True),
    )
    assert 4 * fixed_point.words_of(declaration) == 2 * 8 + 4 * 16 + 21 * 32 + 4 * 64
    assert sum(fixed_point.bytes_of(spec) for spec in declaration) == 4 * fixed_point.words_of(declaration)


@given(st.integers(0, 10**6), st.integers(2, 6))
def test_masks_of_pairs_cancel_and_own_masks_are_taken_away(seed: int, hospitals: int) -> None:
    """Also where vectors are longer than what is worked on at a time."""
    declaration = (ArraySpec("n", (40_000,), "count"), ArraySpec("x", (9_000,), "moment"))
    random = np.random.default_rng(seed)
    own = [random.bytes(32) for _ in range(hospitals)]
    pair = {(a, b): random.bytes(32) for a in range(hospitals) for b in range(a)}
    total, vectors = {"n": 0, "x": 0}, []
    for here in range(hospitals):
        part = {"n": random.integers(0, 99, 40_000), "x": random.integers(-99, 99, 9_000).astype(float)}
        total = {name: total[name] + part[name] for name in part}
        streams = [masks.Stream(own[here], 1)]
        streams += [masks.Stream(key, 1 if here == a else -1) for (a, b), key in pair.items() if here in (a, b)]
        vectors.append(masks.masked(part, declaration, hospitals, streams))
    found = masks.opened(masks.added(vectors, declaration), declaration, [masks.Stream(key, -1) for key in own])
    assert all((found[name] == total[name]).all() for name in total)
