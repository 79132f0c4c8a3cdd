"""A hospital's people as trees see them: outcome, weights, who is held out, where each stands in the trees so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dure.errors import NotACount, NotAnOutcome
from dure.estimation.draws import draws
from dure.estimation.histograms import Columns, Places, quantised
from dure.language import Words
from dure.methods.trees.forest import Layout, Tree, empty_tree, leaves, margins, tree_of
from dure.methods.trees.parameters import Parameters, family
from dure.study.method import Question, State
from dure.study.rows import Column, Rows

Vector = NDArray[np.float64]
LARGEST = 1e18
"""Of an outcome: XGBoost keeps leaves, and this method the mean, in single precision."""
HELD_OUT, SEEN = 0, 1
"""Streams of draws: who is held out; from SEEN on, whom each tree sees."""


@dataclass(frozen=True, repr=False)
class People:
    """Rows with an outcome and a weight above zero: to train on, and held out. `y` and `w` of all of them, (n,)."""

    y: Vector
    w: Vector | None
    person: NDArray[np.int64]
    train: NDArray[np.int64]
    held_out: NDArray[np.int64]


def people(rows: Rows, question: Question) -> People:
    """Read once per step. Inputs may be missing. Raises NotAnOutcome or NotACount."""
    p: Parameters = question.parameters

    def build() -> People:
        y, w = _outcome(rows, question), None
        known = ~np.isnan(y)
        if p.weights is not None:
            w = rows.numbers(p.weights)
            if (w < 0).any():
                problem = Words("Weights cannot be negative", "가중치는 음수일 수 없습니다")
                raise NotACount(column=p.weights, role="weights", problem=problem)
            known &= w > 0  # a weight of zero is nobody
        person = np.arange(rows.n, dtype=np.int64) if rows.person is None else rows.person
        out = draws(person, p.seed, HELD_OUT) < p.validation if p.validation else np.zeros(rows.n, dtype=bool)
        return People(y, w, person, np.flatnonzero(known & ~out), np.flatnonzero(known & out))

    return rows.remember(("tree people", p.model_dump_json()), build)


def _outcome(rows: Rows, question: Question) -> Vector:
    """(n,) 0 and 1, or numbers; missing as NaN. Raises NotAnOutcome."""
    name = question.parameters.outcome
    if question.column(name).kind == "category":
        codes = rows.levels(name)
        return np.where(codes < 0, np.nan, codes).astype(np.float64)
    y = rows.numbers(name)
    values, of = y[~np.isnan(y)], family(question)
    if of == "binomial" and not np.isin(values, (0, 1)).all():
        problem = Words("It has values other than 0 and 1", "0과 1이 아닌 값이 있습니다")
        hint = Words(
            "Give a 0/1 column or a category of two levels, the second being the event.",
            "0/1 열이나 수준이 둘인 범주를 주십시오. 둘째 수준이 사건입니다.",
        )
        raise NotAnOutcome(column=name, family=of, problem=problem, hint=hint)
    if of == "gaussian" and (np.abs(values) > LARGEST).any():
        problem = Words("It has numbers too large for single precision", "단정밀도로 나타내기에 너무 큰 수가 있습니다")
        hint = Words("Measure it in a larger unit.", "더 큰 단위로 재십시오.")
        raise NotAnOutcome(column=name, family=of, problem=problem, hint=hint)
    return y


class Standing:
    """Where a hospital's people stand in the trees that the hub tells.

    It follows the state from wherever it was, and starts anew where the state is not a continuation: a repeated or
    resumed round gives the same.
    """

    def __init__(self, rows: Rows, question: Question, layout: Layout, state: State) -> None:
        self.p: Parameters = question.parameters
        self.binomial = family(question) == "binomial"
        self.layout, self.base = layout, float(state["base"])
        self.units: Mapping[str, float] = state["units"]
        read = people(rows, question)
        codes = layout.codes(rows)
        self.columns = Columns([column[read.train] for column in codes], layout.sizes)
        self.out = [column[read.held_out] for column in codes]
        self.y, self.person = read.y[read.train], read.person[read.train]
        self.w = None if read.w is None else read.w[read.train]
        self.out_y = read.y[read.held_out]
        self.out_w = None if read.w is None else read.w[read.held_out]
        self.trees: Tree = {}
        self._restart(state["trees"])

    def follow(self, state: State) -> None:
        """Up to the trees told, and to the splits of the tree that is growing."""
        told = state["trees"]
        done, count = len(self.trees["column"]), len(told["column"])
        if done > count or any(not np.array_equal(told[name][:done], self.trees[name]) for name in told):
            self._restart(told)
        else:
            for number in range(done, count):
                self._finish(tree_of(told, number), number)
            self.trees = {name: np.array(array) for name, array in told.items()}
            if done < count:
                self._new_tree()
        if count < self.p.trees:
            self._split(state["tree"])

    def sums(self, nodes: list[int]) -> NDArray[np.float64]:
        """(nodes, cells, 3) sums of gradients, Hessians and ones over the people in each node."""
        return self.columns.sums([self.groups[node] for node in nodes], self.values)

    def loss(self) -> NDArray[np.float64]:
        return self._loss(self.margin, self.y, self.w)

    def held_out_loss(self) -> NDArray[np.float64]:
        return self._loss(self.out_margin, self.out_y, self.out_w)

    # ── inside ──

    def _restart(self, told: Tree) -> None:
        by_column, base = self.columns.by_column, self.base
        self.margin = margins(self.layout, by_column, told, base, len(self.y))
        self.out_margin = margins(self.layout, self.out, told, base, len(self.out_y))
        self.trees = {name: np.array(array) for name, array in told.items()}
        self._new_tree()

    def _new_tree(self) -> None:
        number = len(self.trees["column"])
        if number < self.p.trees:
            self.values = self._gradients()
            self.groups: dict[int, Places] = {0: self._seen(number)}
            self.tree = empty_tree(self.p.depth)

    def _seen(self, number: int) -> Places:
        if self.p.subsample == 1:
            return np.arange(len(self.y), dtype=np.int32)
        chosen = draws(self.person, self.p.seed, SEEN + number) < self.p.subsample
        return np.flatnonzero(chosen).astype(np.int32)

    def _split(self, told: Tree) -> None:
        split = self.tree["column"] >= 0
        if any(
            not np.array_equal(told[name][split], self.tree[name][split]) for name in ("column", "slot", "missing_left")
        ):
            self.groups, self.tree = {0: self._seen(len(self.trees["column"]))}, empty_tree(self.p.depth)
            split = self.tree["column"] >= 0
        for node in np.flatnonzero((np.asarray(told["column"]) >= 0) & ~split).tolist():
            column, slot = int(told["column"][node]), int(told["slot"][node])
            left = self.layout.goes_left(column, slot, bool(told["missing_left"][node]))
            here = self.groups.pop(node)
            goes = left.take(self.columns.by_column[column].take(here))
            self.groups[2 * node + 1], self.groups[2 * node + 2] = here.compress(goes), here.compress(~goes)
        self.tree = {name: np.array(array) for name, array in told.items()}

    def _finish(self, tree: Tree, number: int) -> None:
        """Add the leaves of a tree that has stopped growing."""
        if self.p.subsample == 1:
            self._split(tree)
            for node, here in self.groups.items():
                self.margin[here] += tree["value"][node]
        else:
            self.margin += tree["value"][leaves(self.layout, self.columns.by_column, tree)]
        self.out_margin += tree["value"][leaves(self.layout, self.out, tree)]

    def _gradients(self) -> NDArray[np.float64]:
        """(n, 3) first and second derivatives of the loss at each person's margin, and ones."""
        found = np.ones((len(self.y), 3))
        if self.binomial:
            with np.errstate(over="ignore"):
                mean = 1 / (1 + np.exp(-self.margin))
            gradient, hessian = mean - self.y, mean * (1 - mean)
        else:
            gradient, hessian = self.margin - self.y, np.ones(len(self.y))
        if self.w is not None:
            gradient, hessian = gradient * self.w, hessian * self.w
        found[:, 0] = quantised(gradient, self.units["gradient"])
        found[:, 1] = quantised(hessian, self.units["hessian"])
        return found

    def _loss(self, margin: Vector, y: Vector, w: Vector | None) -> NDArray[np.float64]:
        """() sum of log losses, or of squared errors."""
        if self.binomial:
            each = np.log(1 + np.exp(-np.abs(margin))) + np.maximum(margin, 0) - y * margin
        else:
            each = (margin - y) ** 2
        return np.asarray(quantised(each if w is None else each * w, self.units["loss"]).sum())


def standing(rows: Rows, question: Question, state: State) -> Standing:
    """The hospital's standing at `state`; kept between rounds of one process only to save work."""
    layout = layout_of(question, state)
    key = (question.parameters.model_dump_json(), layout.key, str(state["units"]), state["base"])
    found = rows.remember_latest("trees", key, lambda: Standing(rows, question, layout, state))
    found.follow(state)
    return found


def layout_of(question: Question, state: State) -> Layout:
    """Columns as the state's `edges` bin them: those of all numbers one after the other, and where each's `ends`."""
    columns = tuple((name, question.column(name)) for name in question.parameters.inputs)
    return _layout(columns, np.asarray(state["edges"]).tobytes(), np.asarray(state["ends"]).tobytes())


@lru_cache(maxsize=8)
def _layout(columns: tuple[tuple[str, Column], ...], edges: bytes, ends: bytes) -> Layout:
    found = np.split(np.frombuffer(edges, dtype=np.float64), np.frombuffer(ends, dtype=np.int64)[:-1])
    return Layout.of(dict(columns), found)
