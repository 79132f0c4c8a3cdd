"""A formula is read, never run: whatever looks like a program is an error, and soon."""

from __future__ import annotations

import builtins
import os
import subprocess
import time

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dure.client.simulate import simulate
from dure.errors import DureError, FormulaError, NobodyLeft, UnknownColumn
from dure.estimation.design import design
from dure.estimation.formula import FUNCTIONS, parse
from dure.study.rows import Column, Rows

COLUMNS = {"y": Column("flag", ("0", "1")), "x": Column("number"), "g": Column("category", ("a", "b"))}

CODE = [
    "__import__('os').system('true')",
    "import os",
    "exec('1')",
    "eval('x')",
    "open('secrets')",
    "x.__class__.__mro__",
    "x.__class__()",
    "().__class__.__bases__[0].__subclasses__()",
    "getattr(x, 'tofile')('out')",
    "getattr(getattr(x, 'a'), 'b')(1)",
    "(lambda: 1)()",
    "lambda x: x",
    "f'{x}'",
    "f'{open(1)}'",
    "(z := x)",
    "[a for a in (1, 2)]",
    "{a: a for a in (1, 2)}",
    "x if x else x",
    "x[0]",
    "x[:, 0]",
    "x @ x",
    "x and x",
    "not x",
    "x in x",
    "x is x",
    "x << 2",
    "x // 1",
    "x % 2",
    "~x",
    "*x",
    "'text'",
    "b'bytes'",
    "1j * x",
    "None",
    "True + x",
    "...",
    "await x",
    "(yield x)",
    "np.load('x')",
    "np.log.__globals__",
    "log(x, x)",
    "log(x=x)",
    "log(*x)",
    "log(**x)",
    "log",
    "x.tofile('out')",
    "os.system('true')",
    "C(x.y)",
    "C(__import__('os'))",
    "C(g, __import__('os'))",
    "C(g, Treatment(__import__('os')))",
    "C(g, Treatment('a'), levels=[1])",
    "C(g, spans_intercept=False)",
    "bs(x, df=3)",
    "poly(x, 2)",
    "center(x)",
    "scale(x)",
    "hashed(x)",
    "I(open('x'))",
    "`x`.__class__",
    "`__import__('os')`",
]


@pytest.fixture
def _nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a formula could reach raises another error than the one that is expected."""

    def ran(*args: object, **more: object) -> None:
        raise AssertionError("a formula ran code")

    monkeypatch.setattr(os, "system", ran)
    monkeypatch.setattr(subprocess, "Popen", ran)
    for name in ("eval", "exec", "open"):
        monkeypatch.setattr(builtins, name, ran)


@pytest.mark.usefixtures("_nothing_runs")
@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize("place", ["y ~ {}", "y ~ x + I({})", "y ~ x + {}", "{} ~ x", "y ~ x:{}", "y ~ log({})"])
def test_code_in_a_formula_is_an_error(code: str, place: str) -> None:
    with pytest.raises((FormulaError, UnknownColumn)):
        design(parse(place.format(code), COLUMNS))


def test_a_column_with_a_programs_name_is_a_column() -> None:
    columns = {**COLUMNS, "eval": Column("number"), "step.prediction": Column("number")}
    assert design(parse("y ~ eval + step.prediction", columns)).names == ("Intercept", "eval", "step.prediction")


DEEP = {
    "parentheses": "y ~ I(" + "(" * 5_000 + "x" + ")" * 5_000 + ")",
    "bare parentheses": "y ~ " + "(" * 5_000 + "x" + ")" * 5_000,
    "minus signs": "y ~ I(" + "-" * 20_000 + "x)",
    "calls": "y ~ " + "log(" * 3_000 + "x" + ")" * 3_000,
    "sum": "y ~ I(" + "x+" * 200_000 + "x)",
    "attributes": "y ~ x" + ".a" * 100_000,
    "powers": "y ~ I(x" + "**9" * 20_000 + ")",
    "interactions": "y ~ " + ":".join(["x", "g"] * 20_000),
    "crossed": "y ~ " + "*".join(f"I(x+{i})" for i in range(60)),
    "raised": "y ~ (x + g + I(x+1) + I(x+2) + I(x+3) + I(x+4) + I(x+5))**60",
    "a million letters": "y ~ " + "x" * 1_000_000,
    "a million terms": "y ~ " + "+".join(["x"] * 500_000),
    "a million spaces": "y ~ " + " " * 1_000_000 + "oops",
    "a million quotes": "y ~ " + "'" * 1_000_000,
    "a long number": "y ~ I(x + " + "9" * 100_000 + ")",
    "few parentheses": "y ~ I(" + "(" * 900 + "x" + ")" * 900 + ")",
    "few bare parentheses": "y ~ " + "(" * 900 + "x" + ")" * 900 + " + oops",
    "few minus signs": "y ~ I(" + "-" * 5_000 + "x)",
    "few powers": "y ~ I(x" + "**9" * 2_000 + ")",
    "few terms": "y ~ " + "+".join(f"I(x+{i})" for i in range(900)),
    "a short tower": "y ~ x**9**9**9 + oops",
    "a long sum": "y ~ I(" + "x+" * 4_000 + "x)",
    "a chain of comparisons": "y ~ I(" + "x<" * 3_000 + "x)",
    "colons": "y ~ " + ":".join(["x", "g"] * 2_000) + ":oops",
    "two tildes": "y ~ x ~ g",
    "a null": "y ~ x\0",
    "surrogates": "y ~ x\ud800",
}


@pytest.mark.parametrize("kind", DEEP)
def test_deep_and_endless_formulas_end_with_an_error_and_soon(kind: str) -> None:
    start = time.perf_counter()
    with pytest.raises(DureError):
        design(parse(DEEP[kind], COLUMNS))
    assert time.perf_counter() - start < 5


def test_a_tower_of_powers_is_not_computed_as_a_whole_number() -> None:
    start = time.perf_counter()
    frame = pl.DataFrame({"y": [0.0, 1.0] * 20, "x": np.arange(40.0)})
    with pytest.raises(NobodyLeft):  # infinite, so missing in everybody
        simulate({"a": frame}, "regression", {"formula": "y ~ I(x + 9**9**9**9)"}, rules="off")
    assert time.perf_counter() - start < 5


@settings(max_examples=300, deadline=None)
@example("0|0")
@example("y ~ g ** [0]")
@example("y ~ x^00")
@example("y | x ~ x | g")
@example("y ~ x | g ~ 1")
@given(st.text(alphabet="xyg01 +-*/():~.,'[]{}=<>!&|^%@#\"\\_logIC", max_size=40))
def test_any_text_is_a_design_or_an_error_of_ours(text: str) -> None:
    try:
        found = design(parse(text, COLUMNS))
    except DureError:
        return
    for factor in found.factors:
        assert set(factor.columns()) <= {*COLUMNS, "site"}


def test_what_is_accepted_is_computed_from_columns_and_the_listed_functions_alone() -> None:
    rows = Rows(pl.DataFrame({"x": [1.0, 2.0, 3.0]}), "h", {"x": Column("number")})
    for name in FUNCTIONS:
        found = design(parse(f"~ 0 + {name}(x / 4)", {"x": Column("number")}))
        matrix, keep = found.read(rows)
        np.testing.assert_allclose(matrix[0], FUNCTIONS[name](np.array([1.0, 2.0, 3.0]) / 4))
        assert keep.all()
