"""The method protocol: one question of one cohort, answered by sums; and the registry of methods."""

from __future__ import annotations

import hashlib
import inspect
import platform
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import polars as pl
from pydantic import BaseModel, ValidationError

from dure.errors import InvalidParameter, UnknownColumn, UnknownMethod, UnknownParameter
from dure.language import Words
from dure.study.result import Result
from dure.study.rows import Column, Rows
from dure.study.summary import Declaration, Summary, Total

Law = Literal["lossless", "by_hospital", "approximate"]
State = dict[str, Any]
"""Plain data and arrays (`dure.study.packing`), kept in the hub's ledger after every round. What stands under
the key HUB stays there: hospitals are told the rest, so exact totals belong under it."""
HUB = "hub"
Kept = dict[str, Any]
"""Plain data and arrays that stay at the hospital from round to round and never leave."""


@dataclass(frozen=True)
class Question:
    """What a method is asked: the same words at the hub and at every hospital.

    `hospitals` are those taking part, in the order of the hospital axis. `results` are those of the steps
    named in `uses`; `criteria` names the lines of the attrition table. `minimum_people` is the rules' smallest
    count: methods choose a grid or bins by it, and the gate and the release hold them to it.
    """

    parameters: Any
    columns: Mapping[str, Column]
    hospitals: tuple[str, ...]
    results: Mapping[str, Result] = field(default_factory=dict)
    criteria: tuple[Words, ...] = ()
    minimum_people: int = 0

    def column(self, name: str) -> Column:
        """The declaration of a column; raises UnknownColumn with the nearest name."""
        if name == "site":
            return Column("category", self.hospitals)
        if name not in self.columns:
            raise UnknownColumn(name, [*self.columns, "site"])
        return self.columns[name]


@dataclass(frozen=True)
class Example:
    """Pooled rows and parameters that show the method at work; the generic tests split them at will.

    `pooled`: for a method of the law `by_hospital`, the parameters with which pooled rows that carry the hospital in
    a column `ward` give the same answer; where it is None, each hospital's tables are compared with it alone. A
    column `person_id` of the frame, if there is one, numbers people for seeded draws.
    """

    frame: pl.DataFrame
    parameters: Mapping[str, Any]
    pooled: Mapping[str, Any] | None = None


@runtime_checkable
class Method(Protocol):
    """Rounds repeat `declare` → `summarise` at each hospital → sum → `conclude` until it returns a Result.

    `law` states how the answer depends on the split of people over hospitals: `lossless` (not at all),
    `by_hospital` (equals pooled with `site` kept) or `approximate` (has its own test).

    A method may also have `remedy(question, refused, arrays)`: parameters to change so that a total refused by a rule
    would pass, from the arrays of the step so far (`Refused.cells` says which cells were too small), or None where
    no setting of its own would. It runs at the hub, and names levels, terms and grids, never counts.
    """

    name: str
    title: Words
    about: Words
    law: Law
    parameters: type[BaseModel]

    def declare(self, question: Question, state: State) -> Declaration:
        """The arrays this round sends: the exact preview of what leaves. Raises on unusable parameters."""
        ...

    def start(self, question: Question) -> State:
        """The first state (hub)."""
        ...

    def summarise(self, rows: Rows, question: Question, state: State, kept: Kept) -> tuple[Summary, Kept]:
        """This hospital's part of the sum, and what it keeps for the next round (site; no I/O)."""
        ...

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        """The next state, or the Result (hub; sees only the total). Raises NotEstimable."""
        ...

    def derives(self, question: Question) -> Mapping[str, Column]:
        """Names and kinds of the columns that `derive` gives; later steps see them as `step.column`."""
        ...

    def derive(self, rows: Rows, question: Question, result: Result, kept: Kept) -> Mapping[str, Any]:
        """One value per row for each derived column; stays at the hospital."""
        ...

    def example(self, random: np.random.Generator) -> Example:
        """Rows and parameters for the generic tests."""
        ...


class DerivesNothing:
    """For methods without derived columns."""

    def derives(self, question: Question) -> Mapping[str, Column]:
        return {}

    def derive(self, rows: Rows, question: Question, result: Result, kept: Kept) -> Mapping[str, Any]:
        return {}


Methods = Mapping[str, Method]


@cache
def installed_methods() -> Methods:
    """Every method of the entry point group `dure.methods`, by name, dure's own and other packages'."""
    found = []
    for entry in entry_points(group="dure.methods"):
        try:
            found.append(entry.load())
        except Exception as error:  # somebody else's package: the other methods must stay usable
            package = entry.dist.name if entry.dist else entry.value
            warnings.warn(f"the method package '{package}' cannot be loaded: {error}", stacklevel=2)
    return {method.name: method for method in sorted(found, key=lambda method: str(method.name))}


def find_method(name: str, methods: Methods) -> Method:
    if name not in methods:
        raise UnknownMethod(name, methods)
    return methods[name]


def read_parameters(method: Method, values: Mapping[str, Any]) -> BaseModel:
    """The method's parameters from plain data; raises UnknownParameter or InvalidParameter."""
    for name in values:
        if name not in method.parameters.model_fields:
            raise UnknownParameter(method.name, name, method.parameters.model_fields)
    try:
        return method.parameters.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "parameters"
        problem = first["msg"].removeprefix("Value error, ")
        if first["type"] == "missing":
            raise InvalidParameter(
                method=method.name,
                parameter=name,
                problem=Words("It is required and not given", "꼭 필요한데 주어지지 않았습니다"),
            ) from None
        raise InvalidParameter(method=method.name, parameter=name, problem=Words(problem, problem)) from None


CALCULATING = ("dure", "numpy", "scipy", "polars", "formulaic")


@cache
def calculating() -> dict[str, str]:
    """Versions of Python and of the packages that calculate, for whoever repeats a result."""
    return {"python": platform.python_version(), **{name: version(name) for name in CALCULATING}}


def source_hash(method: Method) -> str:
    """`sha256:` of the files that define the method and of `dure.estimation`: what a permit binds to.

    A method written as a package is all the files of it.
    """
    file = Path(inspect.getsourcefile(sys.modules[type(method).__module__]) or "")
    files = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
    files += sorted((Path(__file__).parents[1] / "estimation").glob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return "sha256:" + digest.hexdigest()
