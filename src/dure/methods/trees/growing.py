"""At the hub: a tree grows by one level a round, from the sums of one child of every pair.

The other child's sums are the parent's minus those; sums are exact (`dure.estimation.histograms`), so nothing is lost.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.methods.trees.forest import Layout, empty_tree
from dure.methods.trees.parameters import Parameters
from dure.methods.trees.splits import able, best_splits, leaf
from dure.study.method import HUB, State

Sums = NDArray[np.float64]
COLUMNS_SEEN = 2
"""Stream of draws: the columns each tree sees."""


def first_tree(state: State, p: Parameters, columns: int) -> State:
    """The state that asks for the root of the first tree."""
    tree = empty_tree(p.depth)
    none = {name: np.zeros((0, *array.shape), array.dtype) for name, array in tree.items()}
    per_tree = {name: np.zeros((0, columns)) for name in ("gain", "cover", "splits")}
    hub = {**state[HUB], **per_tree, **_blank(columns), "losses": []}
    return {**state, "phase": "grow", "trees": none, "tree": tree, "compute": [0], HUB: hub}


def grown(state: State, sums: Sums, layout: Layout, p: Parameters, minimum: int) -> State:
    """The state after one more level: further splits, or a finished tree. `sums` (nodes, cells, 3) of the nodes that
    were asked for."""
    hub: dict[str, Any] = dict(state[HUB])
    nodes, histograms = _siblings(hub, state["compute"], sums)
    first = layout.sizes[0]
    totals = histograms[:, :first].sum(axis=1)  # every person stands in one cell of the first column
    tree = {name: np.array(array) for name, array in state["tree"].items()}
    if nodes == [0]:
        tree["value"][0] = leaf(totals, p)[0]
    candidates = np.flatnonzero(able(totals, p, minimum))
    histograms, totals = histograms[candidates], totals[candidates]
    compute: list[int] = []
    pairs: list[list[int]] = []
    parents: list[int] = []
    measured = {name: np.array(hub[name]) for name in ("tree_gain", "tree_cover", "tree_splits")}
    if len(candidates):
        columns = _columns_seen(p, len(state["trees"]["column"]), len(layout.names))
        found = best_splits(histograms, totals, layout, p, minimum, columns)
        deeper = 2 * (max(nodes) + 1) < len(tree["column"]) and _level(max(nodes)) + 1 < p.depth
        for row in np.flatnonzero(found.gain > 0).tolist():
            node, column = nodes[candidates[row]], int(found.column[row])
            tree["column"][node], tree["slot"][node] = column, int(found.slot[row])
            tree["missing_left"][node] = found.missing_left[row]
            children = np.stack([found.left[row], totals[row] - found.left[row]])
            left, right = 2 * node + 1, 2 * node + 2
            tree["value"][[left, right]] = leaf(children, p)
            measured["tree_gain"][column] += found.gain[row]
            measured["tree_cover"][column] += totals[row, 1]
            measured["tree_splits"][column] += 1
            if deeper and able(children, p, minimum).any():
                smaller, larger = (left, right) if children[0, 2] <= children[1, 2] else (right, left)
                compute.append(smaller)
                pairs.append([smaller, larger])
                parents.append(row)
    hub |= measured
    if compute:
        return {**state, "tree": tree, "compute": compute, HUB: {**hub, "pairs": pairs, "parents": histograms[parents]}}
    return _finished({**state, "tree": tree, HUB: hub}, p)


def _siblings(hub: dict[str, Any], computed: list[int], sums: Sums) -> tuple[list[int], Sums]:
    """Nodes in order and their histograms: those asked for, and their siblings by subtraction."""
    if computed == [0]:
        return [0], sums
    nodes = [node for pair in hub["pairs"] for node in pair]
    both = np.stack([sums, np.asarray(hub["parents"]) - sums], axis=1)
    histograms = both.reshape(-1, *sums.shape[1:])
    order = np.argsort(nodes)
    return [nodes[place] for place in order], histograms[order]


def _finished(state: State, p: Parameters) -> State:
    """With the tree among the others, and the next one begun, if there is one."""
    tree = state["tree"]
    # Values of nodes that were split are nobody's prediction.
    tree = {**tree, "value": np.where(tree["column"] >= 0, 0.0, tree["value"])}
    trees = {name: np.concatenate([state["trees"][name], array[None]]) for name, array in tree.items()}
    hub = dict(state[HUB])
    for name in ("gain", "cover", "splits"):
        hub[name] = np.concatenate([hub[name], hub[f"tree_{name}"][None]])
    columns = hub["gain"].shape[1]
    phase = "grow" if len(trees["column"]) < p.trees else "measure"
    return {
        **state,
        "phase": phase,
        "trees": trees,
        "tree": empty_tree(p.depth),
        "compute": [0],
        HUB: {**hub, **_blank(columns)},
    }


def _blank(columns: int) -> dict[str, Any]:
    measured = {name: np.zeros(columns) for name in ("tree_gain", "tree_cover", "tree_splits")}
    return {**measured, "pairs": [], "parents": np.zeros((0, 0, 3))}


def _level(node: int) -> int:
    return int(np.floor(np.log2(node + 1)))


def _columns_seen(p: Parameters, number: int, columns: int) -> NDArray[np.bool_]:
    if p.colsample == 1:
        return np.ones(columns, dtype=bool)
    order = np.random.default_rng([p.seed, COLUMNS_SEEN, number]).permutation(columns)
    seen = np.zeros(columns, dtype=bool)
    seen[order[: max(1, round(p.colsample * columns))]] = True
    return seen
