"""Settings that would pass: a refused design's levels merged, knots taken out or terms left out, by its own counts.

Works at the hub on opened totals. Counts of merged levels are sums of counts, and people who were left out for a
term's missing values only come back when the term goes, so what passes here passes when it is asked again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.errors import Refused
from dure.estimation.design import Design, DesignColumn
from dure.estimation.formula import Factor, formula_text
from dure.study.method import Question
from dure.study.summary import Summary

Counts = NDArray[np.int64]
Group = tuple[int, ...]


def merged_design(
    formula: str, question: Question, design: Design, refused: Refused, arrays: Summary
) -> dict[str, Any] | None:
    """`levels` and `formula` with which the same question passes, or None where no setting of a design would.

    `arrays` holds, as far as they were opened, `n` (), `cells` and `pairs` as `Design.cells` and
    `Design.numeric_pairs` order them; `refused.cells` marks small ones of `cells`, `pairs` or `powers` (p, 4), or gives
    `most_parameters`. Levels are merged smallest with smallest (of cut points and knots, neighbours); a term goes
    where that is not enough.
    """
    search = _Search(question, design, {name: np.asarray(values) for name, values in arrays.items()})
    if "most_parameters" in refused.cells:
        if not search.at_most(int(str(refused.cells["most_parameters"]))):
            return None
    elif not refused.cells or not set(refused.cells) <= {"cells", "pairs", "powers"}:
        return None
    elif "powers" in refused.cells:
        hidden = np.asarray(refused.cells["powers"], dtype=bool)
        columns = design.spreads() if len(hidden) == len(design.spreads()) else design.columns
        for column in (column for column, bad in zip(columns, hidden) if bad):
            search.leave_out(lambda term, column=column: column.factors() <= set(term))
    if "cells" in arrays and not search.settle():
        return None
    return search.setting(formula)


@dataclass
class _Search:
    """Terms still in the model, and how the levels of its columns are merged."""

    question: Question
    design: Design
    arrays: Mapping[str, Counts]
    terms: list[tuple[int, ...]] = field(init=False)
    merged: dict[str, list[Group]] = field(init=False)

    def __post_init__(self) -> None:
        of = {factor: index for index, factor in enumerate(self.design.factors)}
        self.terms = [tuple(of[factor] for factor in term) for term in self.design.parsed.terms if term]
        self.merged = {
            factor.label: [(code,) for code in range(len(factor.levels))]
            for factor in self.design.factors
            if factor.levels
        }

    # ── what stands against the rule ──

    def settle(self) -> bool:
        """Merge and leave out until every count passes; False where not even one term can stay."""
        if int(self.arrays["n"]) < self.question.minimum_people:
            return False
        while self.terms:
            if not (self._one_cell() or self._one_pair()):
                return True
        return self.design.parsed.outcome is not None

    def _one_cell(self) -> bool:
        """Mend one factor or combination with a cell too small; False if there is none."""
        found: list[tuple[int, Group, NDArray[np.bool_]]] = []
        for group, counts in self._groups():
            bad = (counts < self.question.minimum_people) | (self._left(group, counts) < self.question.minimum_people)
            if bad.any():
                found.append((len(group), group, bad))
        if not found:
            return False
        size, group, bad = min(found, key=lambda item: (item[0], -int(item[2].sum())))
        choices = [index for index in group if self._can_merge(index)]
        if choices:
            index = max(choices, key=lambda index: (len(self._of(index)), index))
            axis = tuple(place for place in range(len(group)) if group[place] != index)
            self._merge(index, np.flatnonzero(bad.any(axis=axis)))
        elif size > 2:
            self.leave_out(lambda term: set(group) <= set(term))
        else:
            self.leave_out(lambda term: max(group) in term)
        return True

    def _one_pair(self) -> bool:
        small = [key for key, count in self._pairs().items() if count < self.question.minimum_people]
        if not small:
            return False
        pieces = [piece for side in small[0] for piece in side]
        choices = [(index, level) for index, level in pieces if level is not None and self._can_merge(index)]
        if choices:
            index, level = max(choices, key=lambda piece: (len(self._of(piece[0])), piece))
            self._merge(index, np.array([level]))
            return True
        largest = max(small[0], key=len)
        if len(largest) > 1:
            self.leave_out(lambda term: {index for index, _ in largest} <= set(term))
        else:
            number = max(index for index, level in pieces if not self.design.factors[index].levels)
            self.leave_out(lambda term: number in term)
        return True

    def _groups(self) -> Iterable[tuple[Group, Counts]]:
        """Combinations of factors whose counts the remaining design would send, with merged counts."""
        start, alive = 0, {index for term in self.terms for index in term}
        for group in self.design.cells().factors:
            sizes = [len(self.design.factors[index].levels) for index in group]
            counts = self.arrays["cells"][start : start + int(np.prod(sizes))].reshape(sizes)
            start += counts.size
            kept = set(group) <= alive if len(group) <= 2 else any(set(group) <= set(term) for term in self.terms)
            if not kept:
                continue
            for axis, index in enumerate(group):
                parts = [counts.take(part, axis=axis).sum(axis=axis) for part in self._of(index)]
                counts = np.stack(parts, axis=axis)
            yield group, counts

    def _left(self, group: Group, counts: Counts) -> Counts:
        """At least so many people beside each cell (who stand on a knot would join an interval without it)."""
        if any(self.design.factors[index].knots for index in group):
            return np.asarray(counts.sum() - counts)
        return np.asarray(int(self.arrays["n"]) - counts)

    def _pairs(self) -> dict[tuple[Any, Any], int]:
        """People non-zero in both of two columns, by the merged columns' pieces."""
        columns = self.design.supports()
        pieces = {column.pieces for column in columns}
        keys: list[Any] = []
        for column in columns:
            stays = any(column.factors() <= set(term) for term in self.terms)
            key = tuple((i, None if level is None else self._part(i, level)) for i, level in column.pieces)
            keys.append(key if stays and not self._joins_reference(column, pieces) else None)
        found: dict[tuple[Any, Any], int] = {}
        for (j, k), count in zip(self.design.numeric_pairs(), self.arrays["pairs"]):
            if keys[j] is not None and keys[k] is not None:
                found[keys[j], keys[k]] = found.get((keys[j], keys[k]), 0) + int(count)
        return found

    def _joins_reference(self, column: DesignColumn, pieces: set[Any]) -> bool:
        """Whether the column's level is now part of a reference that has no column."""
        for index, level in column.pieces:
            factor = self.design.factors[index]
            if level is None or not factor.is_category or level == factor.reference:
                continue
            swapped = tuple((i, factor.reference if i == index else code) for i, code in column.pieces)
            if swapped not in pieces and self._part(index, level) == self._part(index, factor.reference):
                return True
        return False

    # ── what can be done about it ──

    def _of(self, index: int) -> list[Group]:
        return self.merged[self.design.factors[index].label]

    def _part(self, index: int, level: int) -> int:
        return next(place for place, part in enumerate(self._of(index)) if level in part)

    def _can_merge(self, index: int) -> bool:
        factor = self.design.factors[index]
        if len(self._of(index)) < 3:
            return False
        if factor.knots:
            return True
        name = factor.column
        if not factor.is_category or name is None or name not in self.question.columns:
            return False
        parsed = self.design.parsed
        others = [other for other in self.design.factors if name in other.columns() and not other.is_category]
        used = parsed.outcome is not None and name in parsed.outcome.columns()
        asked = self.question.parameters.model_dump(exclude={"formula", "levels"})
        named = any(value == name or (isinstance(value, list | tuple) and name in value) for value in asked.values())
        return not others and not used and not named

    def _merge(self, index: int, places: NDArray[np.int64]) -> None:
        """The smallest of the levels at `places` with the smallest other, or neighbour where levels have an order."""
        parts, single = self._of(index), self._single(index)
        here = min(places, key=lambda place: (single[place], place))
        ordered = bool(self.design.factors[index].knots) or self._cut(self.design.factors[index].label)
        others = [place for place in range(len(parts)) if place != here and (not ordered or abs(place - here) == 1)]
        partner = min(others, key=lambda place: (single[place], place))
        first, second = sorted((int(here), int(partner)))
        parts[first] = parts[first] + parts[second]
        del parts[second]

    def _single(self, index: int) -> list[int]:
        start = 0
        for group in self.design.cells().factors:
            size = int(np.prod([len(self.design.factors[other].levels) for other in group]))
            if group == (index,):
                counts = self.arrays["cells"][start : start + size]
                return [int(counts[list(part)].sum()) for part in self._of(index)]
            start += size
        return [0] * len(self._of(index))

    def leave_out(self, which: Any) -> None:
        """Take out the terms that `which` names, and every interaction that contains one of them."""
        gone = [set(term) for term in self.terms if which(term)]
        self.terms = [term for term in self.terms if not any(part <= set(term) for part in gone)]

    def at_most(self, most: int) -> bool:
        """Leave out last terms until the design has at most `most` columns."""
        while self.terms:
            alive = [c for c in self.design.columns if any(c.factors() <= set(term) for term in self.terms)]
            if len(alive) <= most:
                return True
            self.terms.pop()
        return most >= 1 and self.design.parsed.outcome is not None

    # ── in the words of the question ──

    def setting(self, formula: str) -> dict[str, Any] | None:
        alive = {index for term in self.terms for index in term}
        levels = {name: dict(how) if isinstance(how, Mapping) else list(how) for name, how in self._given().items()}
        names: dict[str, list[str]] = {}
        for index in sorted(alive):
            factor = self.design.factors[index]
            if factor.is_category and len(self._of(index)) < len(factor.levels):
                levels[factor.label], names[factor.label] = self._regrouped(factor)
        texts = [":".join(self._text(self.design.factors[index], names) for index in term) for term in self.terms]
        told = formula_text(self.design.parsed, texts)
        changed = {"levels": levels} if names else {}
        whole = len(self.terms) == len([term for term in self.design.parsed.terms if term])
        same = whole and all(
            self.design.factors[index].written() == text
            for index, text in ((index, self._text(self.design.factors[index], names)) for index in alive)
        )
        return {**changed, **({} if same else {"formula": told})} or None

    def _given(self) -> Mapping[str, Any]:
        return getattr(self.question.parameters, "levels", None) or {}

    def _cut(self, name: str) -> bool:
        how = self._given().get(name)
        return how is not None and not isinstance(how, Mapping) and not isinstance(how[0], str)

    def _regrouped(self, factor: Factor) -> tuple[Any, list[str]]:
        """What `levels` says of the column, in the levels that the study declares, and the new levels' names."""
        how, parts = self._given().get(factor.label), self.merged[factor.label]
        if self._cut(factor.label):
            assert how is not None
            points = [how[part[0] - 1] for part in parts[1:]]
            text = [f"{point:g}" for point in points]
            inner = [f"{low} to <{high}" for low, high in itertools.pairwise(text)]
            return points, [f"<{text[0]}", *inner, f"≥{text[-1]}"]
        olds = how if isinstance(how, Mapping) else {}
        found: dict[str, list[str]] = {}
        for part in parts:
            members = [factor.levels[code] for code in part]
            found[" or ".join(members)] = [str(old) for level in members for old in olds.get(level, (level,))]
        return found, list(found)

    def _text(self, factor: Factor, names: Mapping[str, list[str]]) -> str:
        """The factor in a formula, with its reference's new name or the knots that stay."""
        if factor.knots:
            return factor.with_knots([factor.knots[part[0] - 1] for part in self.merged[factor.label][1:]])
        if factor.is_category and factor.label in names and "Treatment" in factor.text:
            parts = self.merged[factor.label]
            place = next(place for place, part in enumerate(parts) if factor.reference in part)
            if len(parts[place]) > 1:
                return f"C({factor.label}, Treatment({names[factor.label][place]!r}))"
        return factor.written()
