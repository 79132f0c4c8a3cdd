"""Quantiles of many columns, groups and probabilities at once, in rounds of counts: what methods share of them.

Every quantile is searched to the multiple of its resolution that it rounds to, and no finer, except where a quantile
lies between two people whose values round differently (definitions 2 and 7): there the two values are searched as far
as the rounding needs. What is opened at the hub are counts of people on either side of edges, and edges close in.

A quantile is shown where enough people have it or less, and enough have it or more, and where weights are not those of
a few people. Where hospitals are the groups,
counts below the minimum never leave, so enough people are needed at the ranks themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.errors import InvalidParameter, NotACount
from dure.estimation import order
from dure.estimation.carried import few
from dure.language import Words
from dure.study.method import HUB, Question, State
from dure.study.rows import Rows
from dure.study.summary import ArraySpec, Declaration, Kind, Summary, Total

Numbers = NDArray[np.float64]
Whole = NDArray[np.int64]
EQUAL = 1e-10
"""Sums of weights this near, relative to all weight, are equal: the order of adding must not decide."""
FIRST, CELLS, VALUES, DONE = "first", "cells", "values", "done"


@dataclass(frozen=True)
class Found:
    """`values` (groups, columns, probabilities), NaN where nobody has one; `shown`: enough people on both sides.

    people, missing (groups, columns), and where a hospital withheld them.
    """

    values: Numbers
    shown: NDArray[np.bool_]
    people: Whole
    missing: Whole
    people_withheld: NDArray[np.bool_]
    missing_withheld: NDArray[np.bool_]


@dataclass(frozen=True)
class Search:
    """What is looked for: `columns` with a resolution each, all `probabilities`, in each group of the column `by`.

    `definition` is 1, 2 or 7 (`order.ranks`). With weights it is 1 or 2: the smallest value with at least the share p
    of all weight at or below it, and for 2 its mean with the next value where that share is exactly p. Arrays are
    called `prefix` + name.
    """

    method: str
    columns: tuple[str, ...]
    resolutions: tuple[float, ...]
    probabilities: tuple[float, ...]
    definition: int
    by: str | None = None
    weights: str | None = None
    prefix: str = ""

    def start(self) -> State:
        return {"stage": FIRST if self.columns else DONE, "pieces": order.PIECES}

    def finished(self, state: State) -> bool:
        return bool(state["stage"] == DONE)

    # ── a round ──

    def declare(self, question: Question, state: State) -> Declaration:
        """People below each edge: in the first round of each column, later of each (column, probability) pair."""
        if self.finished(state):
            return ()
        first = state["stage"] == FIRST
        lines = len(self.columns) if first else len(state["pairs"])
        each = (len(groups_of(question, self.by, self.method)), lines)
        wide = (*each, state["pieces"] - 1)

        def array(name: str, shape: tuple[int, ...], kind: Kind, *people: str) -> ArraySpec:
            whole = self.prefix + "people" if len(shape) == 3 and kind == "count" else None
            behind = tuple(self.prefix + other for other in people)
            return ArraySpec(self.prefix + name, shape, kind, behind, whole, per_hospital=self.by == "site")

        found = [array("people", each, "count"), array("below", wide, "count")]
        if first:
            found.append(array("missing", each, "count"))
        if self.weights:
            found += [array(of, each, "moment", "people") for of in ("weight", "weight_squares")] if first else []
            found += [array("above", wide, "count"), array("weight_below", wide, "moment", "below", "above")]
        return tuple(found)

    def summarise(self, rows: Rows, question: Question, state: State) -> Summary:
        found: Summary = {spec.name: np.zeros(spec.shape, dtype=spec.dtype) for spec in self.declare(question, state)}
        if not found:
            return found
        first, name = state["stage"] == FIRST, self.prefix
        if first:
            groups = len(groups_of(question, self.by, self.method))
            columns = list(range(len(self.columns)))
            edges = np.broadcast_to(order.first_edges(), (groups, len(columns), order.PIECES - 1))
        else:
            columns = [int(column) for column in np.asarray(state["pairs"])[:, 0]]
            edges = order.edges(np.asarray(state["low"]), np.asarray(state["high"]), state["pieces"])
        for column in dict.fromkeys(columns):
            lines = [line for line, other in enumerate(columns) if other == column]
            at = edges[:, lines]
            if state["stage"] == VALUES:
                people, below, weight_below = self._near(rows, question, column, at)
            else:
                in_order, missing = self._in_order(rows, question, column)
                people, (below, weight_below) = in_order.people, in_order.below(at)
                if first:
                    found[name + "missing"][:, lines] = missing[:, None]
                if first and in_order.weight is not None:
                    found[name + "weight"][:, lines] = in_order.weight[:, None]
                    found[name + "weight_squares"][:, lines] = self._squares(rows, question, column)[:, None]
            found[name + "people"][:, lines], found[name + "below"][:, lines] = people[:, None], below
            if weight_below is not None:
                found[name + "above"][:, lines] = people[:, None, None] - below
                found[name + "weight_below"][:, lines] = weight_below
        return found

    def _in_order(self, rows: Rows, question: Question, column: int) -> tuple[order.InOrder, Whole]:
        """The column's people by cell, and (groups,) how many of each group lack a value."""
        name, resolution = self.columns[column], self.resolutions[column]

        def build() -> tuple[order.InOrder, Whole]:
            values, group, weights, missing = self._people(rows, question, name)
            return order.in_cells(values, resolution, group, len(missing), weights), missing

        slot = ("in order", self.prefix, column)
        return rows.remember_latest(slot, (name, resolution, self.by, self.weights), build)

    def _squares(self, rows: Rows, question: Question, column: int) -> Numbers:
        """(groups,) sums of squared weights."""
        _, group, weights, missing = self._people(rows, question, self.columns[column])
        assert weights is not None
        return _tally(np.ones(len(weights), dtype=bool), group, weights**2, len(missing))

    def _near(self, rows: Rows, question: Question, column: int, edges: Whole) -> tuple[Whole, Whole, Numbers | None]:
        """People of each group; below each edge, and their weight: only those between the edges are put in order."""
        values, group, weights, missing = self._people(rows, question, self.columns[column])
        groups = len(missing)
        low, high = order.unordered(np.array([edges.min(), edges.max()]))

        inside = (values >= low) & (values < high)
        own = None if group is None else group[inside]
        heavy = None if weights is None else weights[inside]
        below, weight_below = order.InOrder(order.ordered(values[inside]), own, groups, heavy).below(edges)
        under = values < low
        below = below + _tally(under, group, None, groups)[:, None, None].astype(np.int64)
        if weight_below is not None:
            weight_below = weight_below + _tally(under, group, weights, groups)[:, None, None]
        everyone = _tally(np.ones(len(values), dtype=bool), group, None, groups)
        return everyone.astype(np.int64), below, weight_below

    def _people(self, rows: Rows, question: Question, name: str) -> tuple[Numbers, Whole | None, Numbers | None, Whole]:
        """Values, groups and weights of those who have all of them; (groups,) people who lack only the value."""
        values, groups = rows.numbers(name), len(groups_of(question, self.by, self.method))
        group = rows.codes(self.by, question.column(self.by)) if self.by else None
        weights = weights_of(rows, self.weights) if self.weights else None
        if group is None and weights is None and values.size and not np.isnan(values.min()):
            return values, None, None, np.zeros(1, dtype=np.int64)
        gone = np.isnan(values)
        here = np.ones(rows.n, dtype=bool) if group is None else group >= 0
        if weights is not None:
            here &= weights > 0
        lacking = here & gone
        missing = np.array([lacking.sum()]) if group is None else np.bincount(group[lacking], minlength=groups)
        keep = here & ~gone
        group = None if group is None else group[keep]
        return values[keep], group, None if weights is None else weights[keep], missing

    # ── at the hub ──

    def conclude(self, total: Total, question: Question, state: State) -> State:
        """The next state, `finished` or not. What stands under HUB are exact counts and all brackets."""
        below = self._filled(total, "below", total[self.prefix + "people"][..., None])
        measure = self._filled(total, "weight_below", np.array(np.inf)) if self.weights else below
        if state["stage"] == FIRST:
            hub, stage = self._begun(total, question.minimum_people), CELLS
            shape = (*hub["low"].shape[:-1], order.PIECES - 1)
            chosen: Any = ...
            at = np.broadcast_to(order.first_edges(), shape)
            below, measure = (np.broadcast_to(found[:, :, None], shape) for found in (below, measure))
        else:
            stage = state["stage"]
            hub = {name: np.array(value) for name, value in state[HUB].items()}
            pairs = np.asarray(state["pairs"])
            chosen = (slice(None), pairs[:, 0], pairs[:, 1])
            at = order.edges(np.asarray(state["low"]), np.asarray(state["high"]), state["pieces"])
        low, high = hub["low"][chosen], hub["high"][chosen]
        place = (measure[..., None, :] < hub["wanted"][chosen][..., None]).sum(axis=-1)
        left, right = order.around(at, place, low, high)
        under, upto = order.around(below, place, hub["under"][chosen], hub["upto"][chosen])
        # Edges of one rank's bracket may lie outside the other's, and nobody's bracket is empty: only what lies inside
        # says something new.
        above, beneath = (left > low) & (left < high), (right < high) & (right > low)
        hub["low"][chosen], hub["high"][chosen] = np.where(above, left, low), np.where(beneath, right, high)
        hub["under"][chosen] = np.where(above, under, hub["under"][chosen])
        hub["upto"][chosen] = np.where(beneath, upto, hub["upto"][chosen])
        return self._next(hub, stage, question.minimum_people)

    def _filled(self, total: Total, name: str, everyone: Numbers) -> Numbers:
        """What lies below each edge. A count that a hospital withheld is fewer than the minimum, or all but fewer;
        no quantile that may be shown depends on which, so none and all stand in for it."""
        codes = total.withheld.get(self.prefix + name, np.zeros(1, dtype=np.int64))
        return np.where(codes == 1, 0.0, np.where(codes == 2, everyone, total[self.prefix + name]))

    def _begun(self, total: Total, minimum: int) -> dict[str, Any]:
        people = total.arrays[self.prefix + "people"]
        shape = (*people.shape, len(self.probabilities))
        n = np.broadcast_to(people[..., None], shape).astype(np.float64)
        p = np.broadcast_to(np.asarray(self.probabilities), shape)
        one, two, share = order.ranks(n, p, self.definition)
        wanted = np.stack([one, two], axis=-1) - 0.5
        if self.weights:
            weight = total[self.prefix + "weight"][..., None]
            twice = self.definition == 2
            wanted = np.stack(
                [p * weight - EQUAL * weight, p * weight + (EQUAL if twice else -EQUAL) * weight], axis=-1
            )
            share = np.full(shape, 0.5 if twice else 0.0)
        heavy = np.zeros(people.shape, dtype=bool)
        if self.weights:  # a quantile of weights that nearly one person has is that person's value
            heavy = few(total[self.prefix + "weight"], total[self.prefix + "weight_squares"], minimum)
        nobody = (n == 0)[..., None] & np.ones(2, dtype=bool)
        gone = {
            name: total.withheld.get(self.prefix + name, np.zeros(people.shape)) > 0 for name in ("people", "missing")
        }
        return {
            "low": np.where(nobody, 0, -order.LARGEST),
            "high": np.where(nobody, 0, order.LARGEST + 1),
            "under": np.zeros((*shape, 2)),
            "upto": np.repeat(n[..., None], 2, axis=-1),
            "wanted": wanted,
            "share": share,
            "ranks": np.stack([one, n + 1 - two], axis=-1),
            "people": people,
            "missing": total.arrays[self.prefix + "missing"],
            "heavy": heavy,
            "people_withheld": gone["people"],
            "missing_withheld": gone["missing"],
        }

    def _next(self, hub: dict[str, Any], stage: str, minimum: int) -> State:
        open_: NDArray[np.bool_] = np.asarray((_length(hub) > 1).any(axis=-1))
        if stage == CELLS and not open_.any():
            self._settle_cells(hub, minimum)
            stage = VALUES
        if stage == VALUES:
            # Of values that may not be shown nothing finer is asked.
            low, high = self._between(hub)
            open_ = hub["apart"] & hub["shown"] & (low != high)
            hub["cells"] = np.where(hub["apart"], low, hub["cells"])
        if not open_.any():
            return {"stage": DONE, "pieces": 1, HUB: hub}
        pairs = np.argwhere(open_.any(axis=0))
        chosen = (slice(None), pairs[:, 0], pairs[:, 1])
        low, high = hub["low"][chosen], hub["high"][chosen]
        high = np.where(open_[chosen][..., None], high, low)  # what is done is not cut further
        two = (low[..., 0] != low[..., 1]).any()
        longest = int(_length(hub)[open_].max())
        pieces = min(order.PIECES, max(2, longest * (2 if two else 1)))
        return {"stage": stage, "pairs": pairs, "low": low, "high": high, "pieces": pieces, HUB: hub}

    def _settle_cells(self, hub: dict[str, Any], minimum: int) -> None:
        """Every value's cell is known: who may be shown, and which quantiles lie between values of two cells."""
        cells, n = hub["low"], hub["people"][..., None]
        sides = hub["upto"][..., 0], n - hub["under"][..., 1]
        if self.by == "site":
            sides = hub["ranks"][..., 0], hub["ranks"][..., 1]
            if self.weights:
                sides = hub["under"][..., 0], n - hub["upto"][..., 1]
        hub["shown"] = (n > 0) & (sides[0] >= minimum) & (sides[1] >= minimum) & ~hub["heavy"][..., None]
        beyond = ((np.abs(cells) >= order.LARGEST).any(axis=-1) & hub["shown"]).any(axis=(0, 2))
        if beyond.any():
            name = self.columns[int(np.flatnonzero(beyond)[0])]
            problem = Words(
                f"The resolution of '{name}' is too fine for values as large as its own; take a coarser one",
                f"'{name}'의 값 크기에 비해 너무 촘촘합니다. 더 굵게 하십시오",
            )
            raise InvalidParameter(method=self.method, parameter="resolution", problem=problem)
        hub["apart"] = (cells[..., 0] != cells[..., 1]) & (hub["share"] > 0)
        hub["cells"] = cells[..., 0]
        middle = np.stack([order.multiples(cells[:, v], r) for v, r in enumerate(self.resolutions)], axis=1)
        width = np.asarray(self.resolutions)[None, :, None, None]
        apart = hub["apart"][..., None]
        hub["low"] = np.where(apart, order.ordered(middle - width), 0)
        hub["high"] = np.where(apart, order.ordered(middle + width) + 1, 0)

    def _between(self, hub: Mapping[str, Any]) -> tuple[Whole, Whole]:
        """The cells of the quantile if both its values are the lowest, and the highest, that they can be."""
        found = []
        for keys in (hub["low"], np.maximum(hub["high"] - 1, hub["low"])):
            values, share = order.unordered(keys), hub["share"]
            between = (1 - share) * values[..., 0] + share * values[..., 1]
            parts = [order.cells(between[:, v], r) for v, r in enumerate(self.resolutions)]
            found.append(np.stack(parts, axis=1))
        return found[0], found[1]

    def found(self, state: State) -> Found:
        """Quantiles as multiples of their resolution."""
        hub = {name: np.asarray(value) for name, value in state[HUB].items()}
        cells, people = hub["cells"], hub["people"]
        values = np.stack([order.multiples(cells[:, v], r) for v, r in enumerate(self.resolutions)], axis=1)
        values = np.where(people[..., None] > 0, values, np.nan)
        gone = hub["people_withheld"], hub["missing_withheld"]
        return Found(values, hub["shown"], people, hub["missing"], *gone)


def groups_of(question: Question, by: str | None, method: str) -> tuple[str, ...]:
    """Levels of the column that makes groups, `overall` without one; raises InvalidParameter where it has none."""
    levels = question.column(by).levels if by else ("overall",)
    if not levels:
        problem = Words(f"'{by}' has no declared levels", f"'{by}'의 수준이 선언되지 않았습니다")
        raise InvalidParameter(method=method, parameter="by", problem=problem)
    return levels


def _tally(chosen: NDArray[np.bool_], group: Whole | None, weights: Numbers | None, groups: int) -> NDArray[Any]:
    """(groups,) how many are chosen, or their weight."""
    if group is None:
        return np.array([chosen.sum() if weights is None else weights[chosen].sum()])
    return np.bincount(group[chosen], None if weights is None else weights[chosen], groups)


def weights_of(rows: Rows, name: str) -> Numbers:
    """(n,) weights; nobody where missing or 0. Raises NotACount where one is negative."""

    def build() -> Numbers:
        weights = np.nan_to_num(rows.numbers(name), nan=0.0)
        if (weights < 0).any():
            problem = Words("It holds negative weights", "음수인 가중치가 있습니다")
            raise NotACount(column=name, role="weights", problem=problem)
        return weights

    return rows.remember_latest(("weights", name), rows.frame.columns, build)


def _length(hub: Mapping[str, Any]) -> NDArray[np.uint64]:
    """(…, 2) whole numbers in each bracket; a bracket may be longer than the largest signed one."""
    return np.asarray(hub["high"].astype(np.uint64) - hub["low"].astype(np.uint64))
