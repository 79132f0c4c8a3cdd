"""The arrays of table 1 and what a hospital puts into them: counts and sums first, then squares about the means."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dure.estimation.quantile_search import weights_of
from dure.methods.table_one.layout import Layout
from dure.study.method import Question, State
from dure.study.rows import Rows
from dure.study.summary import ArraySpec, Declaration, Kind, Summary

POWERS = ("squares", "cubes", "fourths")
"""Sums of powers of deviations from the mean: of a column of two values they tell how many have each."""


def declare(layout: Layout, phase: str) -> Declaration:
    """`phase`: "sums" or "squares"; anything else declares nothing."""
    g, numbers, categories = len(layout.groups), len(layout.numbers), len(layout.categories)

    def array(name: str, size: int | None, kind: Kind, *people: str, whole: str | None = None) -> ArraySpec:
        return ArraySpec(name, (g,) if size is None else (g, size), kind, people, whole, per_hospital=layout.by_site)

    known = array("known", numbers, "count")
    # Who adds something to a sum: of a number that three people have, mean and spread are theirs.
    nonzero = array("nonzero", numbers, "count")
    heavy = array("weighted_known", numbers, "count")
    if phase == "squares":
        powers = [array(name, numbers, "moment", "nonzero") for name in POWERS]
        more = (heavy, array("weighted_squares", numbers, "moment", "weighted_known")) if layout.weights else ()
        return (known, nonzero, *powers, *more)
    if phase != "sums":
        return ()
    plain = (
        array("n", None, "count"),
        array("levels", layout.size, "count", whole="n"),
        array("missing_numbers", numbers, "count", whole="n"),
        array("missing_levels", categories, "count", whole="n"),
        known,
        nonzero,
        array("sums", numbers, "moment", "nonzero"),
    )
    if not layout.weights:
        return plain
    return (
        *plain,
        array("weighted_n", None, "count"),
        array("weight", None, "moment", "weighted_n"),
        array("weight_squares", None, "moment", "weighted_n"),
        heavy,
        array("weight_known", numbers, "moment", "weighted_known"),
        array("weight_known_squares", numbers, "moment", "weighted_known"),
        array("weighted_sums", numbers, "moment", "weighted_known"),
        # A level's weight tells the weight of the other levels' people: both sides stand behind it.
        array("weighted_levels", layout.size, "count", whole="weighted_n"),
        array("weighted_others", layout.size, "count"),
        array("weight_levels", layout.size, "moment", "weighted_levels", "weighted_others"),
    )


def summarise(layout: Layout, rows: Rows, question: Question, state: State) -> Summary:
    """This hospital's part."""
    phase = state["phase"]
    found: Summary = {spec.name: np.zeros(spec.shape, dtype=spec.dtype) for spec in declare(layout, phase)}
    if not found:
        return found
    by = question.parameters.by
    group = np.zeros(rows.n, dtype=np.int64) if by is None else rows.codes(by, question.column(by))
    weights = weights_of(rows, layout.weights) if layout.weights else None
    for place in range(len(layout.groups)):
        chosen = group == place
        own = None if weights is None else weights[chosen]
        if phase == "sums":
            found["n"][place] = chosen.sum()
            _levels(found, place, layout, rows, question, chosen, own)
            if own is not None:
                found["weighted_n"][place] = (own > 0).sum()
                found["weight"][place], found["weight_squares"][place] = own.sum(), own @ own
        for column, name in enumerate(layout.numbers):
            values = rows.numbers(name)[chosen]
            known = ~np.isnan(values)
            present = values[known]
            heavy = None if own is None else own[known]
            found["known"][place, column] = len(present)
            found["nonzero"][place, column] = np.count_nonzero(present)
            if heavy is not None:
                found["weighted_known"][place, column] = (heavy > 0).sum()
            if phase == "sums":
                found["sums"][place, column] = present.sum()
                found["missing_numbers"][place, column] = len(values) - len(present)
                if heavy is not None:
                    found["weight_known"][place, column] = heavy.sum()
                    found["weight_known_squares"][place, column] = heavy @ heavy
                    found["weighted_sums"][place, column] = (heavy * present).sum()
                continue
            apart = present - state["means"][place][column]
            for power, of in enumerate(POWERS, start=2):
                found[of][place, column] = (apart**power).sum()
            if heavy is not None:
                squares = heavy * (present - state["weighted_means"][place][column]) ** 2
                found["weighted_squares"][place, column] = squares.sum()
    return found


def _levels(
    found: Summary,
    place: int,
    layout: Layout,
    rows: Rows,
    question: Question,
    chosen: NDArray[np.bool_],
    weights: NDArray[np.float64] | None,
) -> None:
    for column, name in enumerate(layout.categories):
        codes = rows.codes(name, question.column(name))[chosen]
        known, part, count = codes >= 0, layout.part(name), len(layout.levels[name])
        found["levels"][place, part] = np.bincount(codes[known], minlength=count)
        found["missing_levels"][place, column] = (~known).sum()
        if weights is None:
            continue
        heavy = known & (weights > 0)
        people = np.bincount(codes[heavy], minlength=count)
        found["weighted_levels"][place, part] = people
        found["weighted_others"][place, part] = (weights > 0).sum() - people
        found["weight_levels"][place, part] = np.bincount(codes[heavy], weights[heavy], count)
