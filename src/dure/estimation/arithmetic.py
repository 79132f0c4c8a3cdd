"""The arithmetic of formulas: which operations and functions an expression may use, and their values for rows."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.study.rows import Rows

Vector = NDArray[np.float64]

FUNCTIONS: dict[str, Callable[[Vector], Vector]] = {
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "exp": np.exp,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "logit": lambda p: np.log(p) - np.log1p(-p),
    "I": lambda x: x,
}
OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def dotted(tree: ast.AST) -> str | None:
    """`a` or `a.b.c` as text; None for anything else."""
    if isinstance(tree, ast.Name):
        return tree.id
    if isinstance(tree, ast.Attribute):
        left = dotted(tree.value)
        return f"{left}.{tree.attr}" if left else None
    return None


def function(tree: ast.Call) -> str:
    return (dotted(tree.func) or "").removeprefix("np.")


def evaluate(tree: ast.AST | None, rows: Rows) -> Any:
    assert tree is not None
    name = dotted(tree)
    if name is not None:
        return rows.numbers(name)
    if isinstance(tree, ast.Constant):
        return np.float64(tree.value)  # type: ignore[arg-type]  # never whole: 9**9**9 must overflow, not be computed
    if isinstance(tree, ast.BinOp):
        return OPERATORS[type(tree.op)](evaluate(tree.left, rows), evaluate(tree.right, rows))
    if isinstance(tree, ast.UnaryOp):
        return OPERATORS[type(tree.op)](evaluate(tree.operand, rows))
    if isinstance(tree, ast.Compare):
        left, right = evaluate(tree.left, rows), evaluate(tree.comparators[0], rows)
        truth = np.asarray(OPERATORS[type(tree.ops[0])](left, right), dtype=np.float64)
        return np.where(np.isnan(left) | np.isnan(right), np.nan, truth)
    assert isinstance(tree, ast.Call)
    return FUNCTIONS[function(tree)](evaluate(tree.args[0], rows))


def names(tree: ast.AST | None) -> list[str]:
    """Columns read by an expression (function names are not columns)."""
    if tree is None:
        return []
    name = dotted(tree)
    if name is not None:
        return [name]
    children = tree.args if isinstance(tree, ast.Call) else list(ast.iter_child_nodes(tree))
    return [found for child in children for found in names(child)]
