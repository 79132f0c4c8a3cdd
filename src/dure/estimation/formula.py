"""Formulas: parsed by formulaic, evaluated only by this module, so that a study can never carry code.

formulaic would evaluate any Python expression in a formula. Here each factor is read as a syntax tree of
which only column names, numbers, arithmetic, comparisons and the functions below are accepted.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from formulaic import Formula
from formulaic.formula import SimpleFormula
from numpy.typing import NDArray

from dure.errors import FormulaError, UnknownColumn
from dure.estimation.arithmetic import FUNCTIONS, OPERATORS, dotted, evaluate, function, names
from dure.estimation.splines import HOW, Spline, Unreadable, spline_of
from dure.language import Words
from dure.study.rows import Column, Rows

Vector = NDArray[np.float64]

MOST_LETTERS = 10_000
MOST_TERMS = 500
"""Terms of one formula: crossing doubles them, and no study needs to make a hub or a hospital expand 2**60."""
LARGEST = 1e300
QUOTED = re.compile(r"`[^`]*`")


@dataclass(frozen=True)
class Factor:
    """One factor of a term: a category (`levels` with a reference index), a 0/1 flag, a spline or a numeric expression.

    A comparison is a flag: it splits people in two, and both parts are counted like levels. So are the intervals
    between a spline's knots, which are its `levels` here.
    """

    text: str
    column: str | None
    expression: ast.expr | None = field(compare=False)
    levels: tuple[str, ...] = ()
    reference: int = 0
    flag: bool = False
    spline: Spline | None = None

    @property
    def is_category(self) -> bool:
        return bool(self.levels) and not self.flag and self.spline is None

    @property
    def label(self) -> str:
        """What its levels are levels of."""
        return self.text if self.spline else self.column or self.text

    @property
    def knots(self) -> tuple[float, ...]:
        return self.spline.knots if self.spline else ()

    def with_knots(self, knots: Sequence[float]) -> str:
        """The spline with other knots, as a formula writes it."""
        assert self.spline is not None
        return replace(self.spline, knots=tuple(knots)).written(self.column or "")

    def written(self) -> str:
        """The factor as a formula writes it."""
        plain = self.text != self.column or all(part.isidentifier() for part in self.text.split("."))
        return self.text if plain else f"`{self.text}`"

    def columns(self) -> tuple[str, ...]:
        return (self.column,) if self.column else tuple(names(self.expression))

    def codes(self, rows: Rows) -> NDArray[np.int64]:
        """(n,) level index, -1 where missing; for categories and 0/1 flags, and splines (-1 on a knot, too)."""
        if self.spline is not None:
            return self.spline.places(self.numbers(rows))
        if self.column is not None and not self.flag:
            return rows.codes(self.column, Column("category", self.levels))
        values = self.numbers(rows)
        return np.where(np.isnan(values), -1, values != 0).astype(np.int64)

    def numbers(self, rows: Rows) -> Vector:
        """(n,) float64, NaN where missing or undefined (the logarithm of a negative number); of a spline its column."""
        if self.column is not None:
            return rows.numbers(self.column)
        with np.errstate(all="ignore"):
            values = np.asarray(evaluate(self.expression, rows), dtype=np.float64)
        return np.where(np.isfinite(values), np.broadcast_to(values, rows.n), np.nan)


@dataclass(frozen=True)
class Parsed:
    """`outcome ~ terms`: each term is a tuple of factors; the empty tuple is the intercept."""

    text: str
    outcome: Factor | None
    terms: tuple[tuple[Factor, ...], ...]

    @property
    def intercept(self) -> bool:
        return () in self.terms

    def columns(self) -> tuple[str, ...]:
        """Every column the formula reads, each once, outcome first."""
        factors = ([self.outcome] if self.outcome else []) + [factor for term in self.terms for factor in term]
        return tuple(dict.fromkeys(name for factor in factors for name in factor.columns()))


def formula_text(parsed: Parsed, terms: Sequence[str]) -> str:
    """A formula of these terms with the outcome and the intercept of `parsed`; of no terms the intercept alone."""
    right = " + ".join([*(() if parsed.intercept else ("0",)), *terms]) if terms else "1"
    return f"{parsed.outcome.written()} ~ {right}" if parsed.outcome else right


def parse(text: str, columns: Mapping[str, Column], hospitals: tuple[str, ...] = ()) -> Parsed:
    """Read a formula against declared columns; `site` is the hospital's name.

    Raises FormulaError or UnknownColumn.
    """
    return _parse(text, tuple(columns.items()), hospitals)


@lru_cache(maxsize=64)  # every round at every hospital reads the same formula, and formulaic takes 10 ms
def _parse(text: str, columns: tuple[tuple[str, Column], ...], hospitals: tuple[str, ...]) -> Parsed:
    if len(text) > MOST_LETTERS:
        raise _broken(text[:60] + " …", f"It has more than {MOST_LETTERS:,} letters", f"{MOST_LETTERS:,}자를 넘습니다")
    try:
        return _read(text, columns, hospitals)
    except (RecursionError, MemoryError):
        raise _broken(text[:60] + " …", "It is nested too deeply", "너무 깊이 중첩되었습니다") from None


def _bounded(text: str) -> None:
    """Raise FormulaError where crossing would give too many terms; formulaic would expand them all first."""
    for side in QUOTED.sub("x", text).split("~"):
        try:
            tree = ast.parse(f"({side.replace(':', '@').replace('^', '**')})" if side.strip() else "1", mode="eval")
        except (SyntaxError, ValueError) as error:
            problem = str(getattr(error, "msg", None) or "it is not a formula")
            raise _broken(text, f"It cannot be parsed: {problem}", "해석할 수 없습니다") from None
        if _terms(tree.body) > MOST_TERMS:
            raise _broken(text, f"It has more than {MOST_TERMS} terms", f"항이 {MOST_TERMS}개를 넘습니다")


def _terms(tree: ast.AST) -> int:
    """At most so many terms; capped, so that no tower of powers is computed."""
    if not isinstance(tree, ast.BinOp):
        return _terms(tree.operand) if isinstance(tree, ast.UnaryOp) else 1
    left, right = _terms(tree.left), _terms(tree.right)
    if isinstance(tree.op, ast.Pow):
        power = tree.right.value if isinstance(tree.right, ast.Constant) else MOST_TERMS
        size = (1 + left) ** min(power, 20) if isinstance(power, int) and left > 1 else left
    elif isinstance(tree.op, ast.Add | ast.Sub):
        size = left + right
    elif isinstance(tree.op, ast.MatMult):
        size = left * right
    else:
        size = left + right + left * right
    return min(size, MOST_TERMS + 1)


def _read(text: str, columns: tuple[tuple[str, Column], ...], hospitals: tuple[str, ...]) -> Parsed:
    _bounded(text)
    try:
        formula = Formula(text)
    except Exception as error:  # whatever somebody else's parser stumbles over is a formula nobody can read
        said = (str(error).strip().splitlines() or ["it is not a formula"])[0]
        raise _broken(text, f"It cannot be parsed: {said}", "해석할 수 없습니다") from None
    known = {**dict(columns), "site": Column("category", hospitals)}
    parts: list[Any] = [getattr(formula, "lhs", None), getattr(formula, "rhs", None)]
    if isinstance(formula, SimpleFormula):
        outcome, right = None, list(formula)
    elif all(isinstance(part, SimpleFormula) for part in parts):
        left, right = (list(part) for part in parts)
        if len(left) != 1 or len(left[0].factors) != 1:
            raise _broken(text, "Exactly one outcome stands left of ~", "~ 왼쪽에는 결과 변수 하나만 둡니다")
        outcome = _factor(str(left[0].factors[0].expr), text, known)
    else:
        raise _broken(text, "It has several parts (|), which mean nothing here", "여러 부분(|)으로 나뉘어 있습니다")
    terms: list[tuple[Factor, ...]] = []
    for term in right:
        texts = [str(factor.expr) for factor in term.factors]
        if "0" in texts:
            continue
        terms.append(tuple(_factor(factor, text, known) for factor in texts if factor != "1"))
    if not terms:
        raise _broken(text, "It has no terms", "항이 없습니다")
    return Parsed(text, outcome, tuple(dict.fromkeys(terms)))


def _factor(text: str, formula: str, known: Mapping[str, Column]) -> Factor:
    if text in known:
        return _column_factor(text, text, known)
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError:
        raise UnknownColumn(text, known) from None
    name = dotted(tree)
    if name is not None:
        if name not in known:
            raise UnknownColumn(name, known)
        return _column_factor(text, name, known)
    if isinstance(tree, ast.Call) and dotted(tree.func) == "C":
        return _category(tree, text, formula, known)
    if isinstance(tree, ast.Call) and (kind := dotted(tree.func)) in ("ns", "bs"):
        return _spline(tree, "ns" if kind == "ns" else "bs", text, formula, known)
    compared = _comparison(tree)
    if compared is None:
        _check(tree, formula, known)
        return Factor(text, None, tree)
    for part in (compared.left, *compared.comparators):
        _check(part, formula, known)
    if len(compared.ops) != 1 or type(compared.ops[0]) not in OPERATORS:
        raise _broken(
            formula, f"'{text[:60]}' compares more than two things", f"'{text[:60]}'은(는) 둘만 비교해야 합니다"
        )
    return Factor(text, None, compared, ("0", "1"), flag=True)


def _comparison(tree: ast.AST) -> ast.Compare | None:
    """The comparison that a factor is as a whole, in I() or bare."""
    while isinstance(tree, ast.Call) and function(tree) == "I" and len(tree.args) == 1 and not tree.keywords:
        tree = tree.args[0]
    return tree if isinstance(tree, ast.Compare) else None


def _column_factor(text: str, name: str, known: Mapping[str, Column]) -> Factor:
    column = known[name]
    if column.kind == "category":
        return Factor(text, name, None, column.levels)
    if column.kind == "flag":
        return Factor(text, name, None, ("0", "1"), flag=True)
    return Factor(text, name, None)


def _category(tree: ast.Call, text: str, formula: str, known: Mapping[str, Column]) -> Factor:
    name = dotted(tree.args[0]) if tree.args else None
    if name is None:
        raise _broken(formula, f"'{text}' does not name a column", f"'{text}'에 열 이름이 없습니다")
    if name not in known:
        raise UnknownColumn(name, known)
    levels = known[name].levels
    if not levels:
        raise _broken(
            formula,
            f"'{name}' has no declared levels, so its columns could differ between hospitals",
            f"'{name}'의 수준이 선언되지 않아 병원마다 열이 달라질 수 있습니다",
        )
    reference = 0
    if len(tree.args) == 2 and not tree.keywords:
        wanted = _reference(tree.args[1])
        if wanted not in levels:
            raise _broken(
                formula,
                f"The reference of '{text}' is not one of the declared levels: {', '.join(levels)}",
                f"'{text}'의 기준이 선언된 수준이 아닙니다: {', '.join(levels)}",
            )
        reference = levels.index(wanted)
    elif len(tree.args) != 1 or tree.keywords:
        raise _broken(
            formula,
            f"'{text}' takes a column and a Treatment reference",
            f"'{text}'에는 열과 Treatment 기준만 씁니다",
        )
    return Factor(text, name, None, levels, reference)


def _spline(tree: ast.Call, kind: Literal["ns", "bs"], text: str, formula: str, known: Mapping[str, Column]) -> Factor:
    name = dotted(tree.args[0]) if tree.args else None
    try:
        spline = spline_of(tree, kind)
    except Unreadable:
        name = None
    if name is None:
        raise _broken(formula, f"'{text[:60]}': {kind} {HOW.en}", f"'{text[:60]}': {kind}{HOW.ko}")
    if name not in known:
        raise UnknownColumn(name, known)
    if known[name].kind != "number":
        raise _broken(formula, f"'{name}' is not a column of numbers", f"'{name}'은(는) 숫자 열이 아닙니다")
    return Factor(text, name, None, spline.intervals, spline=spline)


def _reference(tree: ast.expr) -> str | None:
    """The level of `Treatment('x')` or `Treatment(reference='x')`."""
    if not isinstance(tree, ast.Call) or dotted(tree.func) not in ("Treatment", "contr.treatment"):
        return None
    values = [
        *tree.args,
        *(keyword.value for keyword in tree.keywords if keyword.arg in ("reference", "base")),
    ]
    return str(values[0].value) if len(values) == 1 and isinstance(values[0], ast.Constant) else None


def _check(tree: ast.AST, formula: str, known: Mapping[str, Column]) -> None:
    """Accept only names, numbers, arithmetic and the listed functions of one argument.

    A comparison or a flag inside arithmetic is refused: x + (x > 5) and I(flag * x) would carry a handful of people
    where nobody counts them; as a term or in an interaction they are counted.
    """
    name = dotted(tree)
    if name is not None:
        if name not in known:
            raise UnknownColumn(name, known)
        if known[name].kind == "category":
            raise _broken(
                formula,
                f"'{name}' is a category and cannot be calculated with",
                f"'{name}'은(는) 범주라 계산에 쓸 수 없습니다",
            )
        if known[name].kind == "flag":
            raise _broken(
                formula,
                f"'{name}' is a yes/no column: use it as a term or in an interaction ({name}:x), not in arithmetic",
                f"'{name}'은(는) 예/아니오 열입니다. 계산이 아니라 항이나 상호작용({name}:x)으로 쓰십시오",
            )
        return
    value = tree.value if isinstance(tree, ast.Constant) else None
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST:
        return
    if isinstance(tree, ast.BinOp) and type(tree.op) in OPERATORS:
        parts: list[ast.AST] = [tree.left, tree.right]
    elif isinstance(tree, ast.UnaryOp) and type(tree.op) in OPERATORS:
        parts = [tree.operand]
    elif isinstance(tree, ast.Compare):
        what = ast.unparse(tree)[:60]
        raise _broken(
            formula, f"'{what}' must stand alone: write I({what})", f"'{what}'은(는) 단독으로 I({what})처럼 써야 합니다"
        )
    elif isinstance(tree, ast.Call) and function(tree) in FUNCTIONS and len(tree.args) == 1 and not tree.keywords:
        parts = [tree.args[0]]
    else:
        what = ast.unparse(tree)[:60]
        raise _broken(formula, f"'{what}' is not something a formula may do", f"'{what}'은(는) 식에서 쓸 수 없습니다")
    for part in parts:
        _check(part, formula, known)


def _broken(formula: str, en: str, ko: str) -> FormulaError:
    return FormulaError(formula=formula, problem=Words(en, ko))
