"""The trees as plain arrays: how columns are binned, who goes left, what is predicted, and XGBoost's JSON.

A tree is a heap: node k has the children 2k + 1 (left) and 2k + 2. `column` is −1 where a node is not split. `slot` is
the last bin that goes left (of a number or flag), the level that goes right (of a category), or the code of missing
values (all known go left, missing right). `missing_left`: missing values go left.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.estimation.edges import binned, single
from dure.estimation.histograms import Codes
from dure.study.rows import Column, Rows

Tree = Mapping[str, NDArray[Any]]
"""`column`, `slot` (int32), `missing_left` (uint8), `value` (float64), each (nodes,); of a forest, (trees, nodes)."""
TOGETHER = 1 << 16
"""People who walk a tree at a time."""
FLAG_EDGE = np.array([0.5])


@dataclass(frozen=True)
class Layout:
    """Columns in order: their names, their edges (numbers and flags), their levels (categories)."""

    names: tuple[str, ...]
    edges: tuple[NDArray[np.float64], ...]
    levels: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, columns: Mapping[str, Column], edges: Sequence[NDArray[np.float64]]) -> Layout:
        """`edges` of the numbers among the columns, in order."""
        numbers = iter(edges)
        found: list[NDArray[np.float64]] = []
        for column in columns.values():
            flag = FLAG_EDGE if column.kind == "flag" else np.zeros(0)
            found.append(np.asarray(next(numbers), dtype=np.float64) if column.kind == "number" else flag)
        levels = (column.levels if column.kind == "category" else () for column in columns.values())
        return cls(tuple(columns), tuple(found), tuple(levels))

    @cached_property
    def key(self) -> bytes:
        return b"|".join(edges.tobytes() for edges in self.edges)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Codes of each column: its bins or levels, and one more, the last, for missing values."""
        return tuple(len(levels) + 1 if levels else len(edges) + 2 for edges, levels in zip(self.edges, self.levels))

    def codes(self, rows: Rows) -> list[Codes]:
        """(n,) for each column: the bin or level each person is in."""
        found = []
        for name, edges, levels, size in zip(self.names, self.edges, self.levels, self.sizes):
            if levels:
                codes = rows.levels(name)
                found.append(np.where(codes < 0, size - 1, codes).astype(np.uint8))
            else:
                found.append(binned(single(rows.numbers(name)), edges, size - 1))
        return found

    def goes_left(self, column: int, slot: int, missing_left: bool) -> NDArray[np.bool_]:
        """(256,) by code."""
        code, missing = np.arange(256), self.sizes[column] - 1
        known_left = code != slot if self.levels[column] else code <= slot
        return np.where(code == missing, missing_left, known_left | (slot == missing)).astype(bool)


def empty_tree(depth: int) -> dict[str, NDArray[Any]]:
    """A root that is not split, and places for all nodes below it."""
    nodes = 2 ** (depth + 1) - 1
    whole = {"column": np.full(nodes, -1, np.int32), "slot": np.zeros(nodes, np.int32)}
    return {**whole, "missing_left": np.zeros(nodes, np.uint8), "value": np.zeros(nodes)}


def leaves(layout: Layout, codes: Sequence[Codes], tree: Tree) -> NDArray[np.int32]:
    """(n,) the node where each person's way ends."""
    column = np.asarray(tree["column"])
    split = np.flatnonzero(column >= 0)
    left = np.zeros((len(column), 256), dtype=bool)
    for node in split.tolist():
        left[node] = layout.goes_left(int(column[node]), int(tree["slot"][node]), bool(tree["missing_left"][node]))
    people = len(codes[0]) if codes else 0
    found = np.zeros(people, dtype=np.int32)
    used = sorted({int(column[node]) for node in split})
    place = np.full(len(layout.names), -1)
    place[used] = np.arange(len(used))
    for start in range(0, people if used else 0, TOGETHER):
        part = np.stack([codes[name][start : start + TOGETHER] for name in used])
        at, who = found[start : start + TOGETHER], np.arange(part.shape[1])
        for _ in range(int(np.log2(len(column) + 1)) - 1):
            here = column[at]
            code = part[place[here], who]
            at = np.where(here < 0, at, 2 * at + 2 - left[at, code]).astype(np.int32)
        found[start : start + TOGETHER] = at
    return found


def tree_of(forest: Tree, number: int) -> Tree:
    return {name: array[number] for name, array in forest.items()}


def margins(layout: Layout, codes: Sequence[Codes], forest: Tree, base: float, people: int) -> NDArray[np.float64]:
    """(n,) base plus the leaves of all trees, added in order."""
    found = np.full(people, base)
    for number in range(len(forest["column"])):
        tree = tree_of(forest, number)
        found += tree["value"][leaves(layout, codes, tree)]
    return found


# ── XGBoost's own format ──


def portable_layout(portable: Mapping[str, Any]) -> Layout:
    edges = tuple(np.asarray(edges, dtype=np.float64) for edges in portable["edges"])
    return Layout(tuple(portable["names"]), edges, tuple(tuple(levels) for levels in portable["levels"]))


def xgboost_features(portable: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that the exported model reads, in order: numbers and flags by their names, `name=level` (0 or 1) for
    every level of a category; a missing value of any is NaN. XGBoost allows no [, ] and < in names: they become (, )
    and `under `."""
    layout = portable_layout(portable)
    names = []
    for name, levels in zip(layout.names, layout.levels):
        names += [f"{name}={level}" for level in levels] or [name]
    return tuple(name.replace("[", "(").replace("]", ")").replace("<", "under ") for name in names)


def xgboost_json(portable: Mapping[str, Any]) -> str:
    """The model as XGBoost's JSON (version 3), from the `portable` of a working Result (a released one has none).

    `xgboost.Booster().load_model(bytearray(xgboost_json(…), "utf-8"))` predicts as `derive` does, to the rounding of
    single precision, in which XGBoost keeps leaves. Gains and Hessians are left out (zeros): they are exact totals.
    """
    layout, forest = portable_layout(portable), portable["trees"]
    width = [len(levels) or 1 for levels in layout.levels]
    first = np.concatenate([[0], np.cumsum(width)[:-1]]).astype(int)
    features = xgboost_features(portable)
    trees = [
        _exported(layout, tree_of(forest, number), first, number, len(features))
        for number in range(len(forest["column"]))
    ]
    binomial = portable["family"] == "binomial"
    base = portable["base"]
    objective: dict[str, Any] = {
        "name": "binary:logistic" if binomial else "reg:squarederror",
        "reg_loss_param": {"scale_pos_weight": "1"},
    }
    count = len(trees)
    model = {
        "cats": {"enc": [], "feature_segments": [], "sorted_idx": []},
        "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(count)},
        "iteration_indptr": list(range(count + 1)),
        "tree_info": [0] * count,
        "trees": trees,
    }
    score = float(1 / (1 + np.exp(-base))) if binomial else base
    learner = {
        "attributes": {},
        "feature_names": list(features),
        "feature_types": ["float"] * len(features),
        "gradient_booster": {"model": model, "name": "gbtree"},
        "learner_model_param": {
            "base_score": f"[{np.float32(score)!s}]",
            "boost_from_average": "0",
            "num_class": "0",
            "num_feature": str(len(features)),
            "num_target": "1",
        },
        "objective": objective,
    }
    return json.dumps({"learner": learner, "version": [3, 2, 0]})


def _exported(layout: Layout, tree: Tree, first: NDArray[np.int64], number: int, features: int) -> dict[str, Any]:
    """One tree, nodes renumbered in breadth-first order."""
    order, place = [0], {0: 0}
    for node in order:
        if tree["column"][node] >= 0:
            for child in (2 * node + 1, 2 * node + 2):
                place[child] = len(order)
                order.append(child)
    nodes: dict[str, list[Any]] = {
        name: []
        for name in ("default_left", "left_children", "parents", "right_children", "split_conditions", "split_indices")
    }
    for node in order:
        column = int(tree["column"][node])
        feature, condition = (0, float(tree["value"][node])) if column < 0 else _condition(layout, tree, node, first)
        nodes["default_left"].append(int(tree["missing_left"][node]) if column >= 0 else 0)
        nodes["left_children"].append(place[2 * node + 1] if column >= 0 else -1)
        nodes["right_children"].append(place[2 * node + 2] if column >= 0 else -1)
        nodes["parents"].append(place[(node - 1) // 2] if node else 2147483647)
        nodes["split_indices"].append(feature)
        nodes["split_conditions"].append(float(np.float32(condition)))
    zeros = [0.0] * len(order)
    return {
        **nodes,
        "base_weights": zeros,
        "categories": [],
        "categories_nodes": [],
        "categories_segments": [],
        "categories_sizes": [],
        "id": number,
        "loss_changes": zeros,
        "split_type": [0] * len(order),
        "sum_hessian": zeros,
        "tree_param": {
            "num_deleted": "0",
            "num_feature": str(features),
            "num_nodes": str(len(order)),
            "size_leaf_vector": "1",
        },
    }


def _condition(layout: Layout, tree: Tree, node: int, first: NDArray[np.int64]) -> tuple[int, float]:
    """Feature and threshold: a value below it goes left."""
    column, slot = int(tree["column"][node]), int(tree["slot"][node])
    levels = layout.levels[column]
    if slot == layout.sizes[column] - 1:
        return int(first[column]), float(np.finfo(np.float32).max)
    if levels:
        return int(first[column]) + slot, 0.5
    return int(first[column]), float(layout.edges[column][slot])
