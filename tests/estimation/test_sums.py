"""What methods share: designs that are the same everywhere, merged grids, aliased columns, sums block by block."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import approx_fprime

from dure.estimation.design import design
from dure.estimation.families import FAMILIES
from dure.estimation.formula import parse
from dure.estimation.grids import merge_until
from dure.estimation.likelihood import BLOCK, ModelRows, sums_at
from dure.estimation.newton import Stuck, aliased_columns, inverse
from dure.study.rows import Column, Rows

COLUMNS = {
    "x": Column("number"),
    "d": Column("flag", ("0", "1")),
    "g": Column("category", ("a", "b", "c")),
}


@given(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=12), min_size=1, max_size=3), st.integers(0, 40))
def test_merged_bins_cover_everything_once_and_reach_the_minimum_where_they_can(
    rows: list[list[int]], minimum: int
) -> None:
    width = min(map(len, rows))
    counts = np.array([row[:width] for row in rows], dtype=float)
    runs = merge_until(counts, minimum)
    assert [place for run in runs for place in range(run.start, run.stop)] == list(range(width))
    if (counts.sum(axis=1) >= minimum).all():
        assert all((counts[:, run].sum(axis=1) >= minimum).all() for run in runs)
    else:
        assert len(runs) == 1
    if minimum == 0:
        assert len(runs) == width


@pytest.mark.parametrize("family", ["gaussian", "binomial", "poisson"])
def test_the_gradient_and_hessian_are_those_of_the_deviance(family: str) -> None:
    random = np.random.default_rng(0)
    x = np.vstack([np.ones(50), random.normal(size=(2, 50))])
    y = random.integers(0, 2, 50).astype(float)
    rows = ModelRows(x, y, random.uniform(0.5, 2, 50), random.normal(size=50))
    beta = np.array([0.2, -0.3, 0.4])
    sums = sums_at(FAMILIES[family], rows, beta)
    slope = approx_fprime(beta, lambda b: sums_at(FAMILIES[family], rows, b).deviance, 1e-7)
    np.testing.assert_allclose(sums.gradient, -slope / 2, rtol=1e-4, atol=1e-4)
    for j in range(3):
        curve = approx_fprime(beta, lambda b, j=j: sums_at(FAMILIES[family], rows, b).gradient[j], 1e-7)
        np.testing.assert_allclose(sums.hessian[j], -curve, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("people", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5])
def test_blocks_add_up_whatever_their_number(people: int) -> None:
    random = np.random.default_rng(1)
    x, y = random.normal(size=(2, people)), random.integers(0, 2, people).astype(float)
    sums = sums_at(FAMILIES["binomial"], ModelRows(x, y, None, None), np.array([0.1, 0.2]), robust=True)
    mean = 1 / (1 + np.exp(-np.array([0.1, 0.2]) @ x))
    np.testing.assert_allclose(sums.gradient, x @ (y - mean), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(sums.hessian, (x * mean * (1 - mean)) @ x.T, rtol=1e-9, atol=1e-9)
    assert sums.meat is not None
    np.testing.assert_allclose(sums.meat, (x * (y - mean) ** 2) @ x.T, rtol=1e-9, atol=1e-9)


def test_aliased_columns_are_the_later_of_two_and_scales_do_not_matter() -> None:
    random = np.random.default_rng(2)
    a, b = random.normal(size=(2, 200))
    x = np.stack([a, 1e9 * b, 1e-6 * a, a + 1e9 * b, random.normal(size=200)])
    means = x.mean(axis=1)
    centred = x - means[:, None]
    assert aliased_columns(centred @ centred.T, means, 200).tolist() == [False, False, True, True, False]


def test_an_inverse_ignores_columns_left_out_and_a_singular_one_is_said() -> None:
    hessian = np.diag([4.0, 0.0, 1e-12])
    found = inverse(hessian, np.array([True, False, True]))
    np.testing.assert_allclose(np.diag(found), [0.25, 0.0, 1e12])
    with pytest.raises(Stuck):
        inverse(hessian, np.ones(3, dtype=bool))
    with pytest.raises(Stuck):
        inverse(np.ones((2, 2)), np.ones(2, dtype=bool))
    with pytest.raises(Stuck):
        inverse(np.full((2, 2), np.nan), np.ones(2, dtype=bool))


@pytest.mark.parametrize(
    ("formula", "names"),
    [
        ("~ x + g", ("Intercept", "x", "g[T.b]", "g[T.c]")),
        ("~ 0 + g", ("g[a]", "g[b]", "g[c]")),
        ("~ C(g, Treatment('c'))", ("Intercept", "C(g, Treatment('c'))[T.a]", "C(g, Treatment('c'))[T.b]")),
        ("~ d", ("Intercept", "d")),
        ("~ C(d)", ("Intercept", "C(d)[T.1]")),
        ("~ x:g", ("Intercept", "x:g[a]", "x:g[b]", "x:g[c]")),
        ("~ x*d", ("Intercept", "x", "d", "x:d")),
        ("~ site", ("Intercept", "site[T.south]")),
        ("~ 1", ("Intercept",)),
    ],
)
def test_columns_come_from_declared_levels_and_not_from_rows(formula: str, names: tuple[str, ...]) -> None:
    assert design(parse(formula, COLUMNS, ("north", "south"))).names == names


def test_a_design_is_the_same_for_nobody() -> None:
    found = design(parse("~ x * g + I(x > 1) + site", COLUMNS, ("north", "south")))
    nobody = pl.DataFrame(schema={"x": pl.Float64, "g": pl.String})
    matrix, keep = found.read(Rows(nobody, "south", COLUMNS))
    assert matrix.shape == (len(found.columns), 0)
    assert found.count_cells(Rows(nobody, "south", COLUMNS), keep).tolist() == [0] * found.cells().size


def test_cells_count_levels_pairs_and_both_sides_of_a_comparison() -> None:
    rows = Rows(
        pl.DataFrame({"x": [0.0, 2.0, 3.0, None], "g": ["a", "b", "b", "c"]}),
        "north",
        {name: COLUMNS[name] for name in ("x", "g")},
    )
    found = design(parse("~ g + I(x > 1)", COLUMNS))
    _, keep = found.read(rows)
    counts = dict(zip(found.cells().labels, found.count_cells(rows, keep).tolist()))
    assert keep.tolist() == [True, True, True, False]
    assert (counts["g=a"], counts["g=b"], counts["g=c"]) == (1, 2, 0)
    assert (counts["I(x > 1)=0"], counts["I(x > 1)=1"]) == (1, 2)
    assert counts["g=b & I(x > 1)=1"] == 2


@given(st.lists(st.floats(-1e6, 1e6) | st.none(), max_size=30))
def test_numbers_are_finite_or_missing(values: list[float | None]) -> None:
    rows = Rows(pl.DataFrame({"x": values}, schema={"x": pl.Float64}), "h", COLUMNS)
    for expression in ("log(x)", "sqrt(x)", "I(1/x)", "exp(x)", "logit(x)"):
        factor = parse(f"~ 0 + {expression}", COLUMNS).terms[0][0]
        found = factor.numbers(rows)
        assert len(found) == len(values)
        assert (np.isfinite(found) | np.isnan(found)).all()
