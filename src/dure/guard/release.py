"""From a working Result to a released one: rounding, small cells, complementary suppression, model limits."""

from __future__ import annotations

import math
from dataclasses import replace

import polars as pl

from dure.errors import Refused
from dure.estimation.suppression import small_can_be_named
from dure.guard.rules import Limits, refusal
from dure.study.result import Fact, Result, Table


def release(result: Result, limits: Limits) -> Result:
    """What researchers may see of `result`; without what only hospitals need. Raises Refused."""
    check_model(result, limits)
    tables = {name: _released(table, limits) for name, table in result.tables.items()}
    facts = {
        name: _fact(value, limits) if name in result.people_facts else value for name, value in result.facts.items()
    }
    return replace(result, tables=tables, facts=facts, portable={}, fitted=None)


def check_model(result: Result, limits: Limits) -> None:
    """Fitted parameters against people and events. Raises Refused."""
    fitted = result.fitted
    if fitted is None:
        return
    if fitted.parameters > limits.parameters_per_person * fitted.n:
        raise _too_many("parameters_per_person", limits.parameters_per_person * fitted.n)
    classes = [count for count in (fitted.events, fitted.non_events) if count is not None]
    if classes and fitted.parameters > limits.parameters_per_event * min(classes):
        raise _too_many("parameters_per_event", limits.parameters_per_event * min(classes))


def _too_many(rule: str, most: float) -> Refused:
    error = refusal(rule)
    error.cells = {"most_parameters": math.floor(most)}
    return error


def numbers(result: Result) -> int:
    """Released numbers: every shown cell of numbers that does not merely restate others."""
    found = 0
    for table in result.tables.values():
        for column, dtype in table.frame.schema.items():
            if dtype.is_numeric() and column not in table.derived:
                found += table.frame.height - table.frame[column].null_count()
    return found


def rounded(count: int, limits: Limits) -> int:
    """5·round(count/5) under the default rules; what noise made negative is 0."""
    return limits.round_to * round(max(count, 0) / limits.round_to)


def _fact(value: Fact, limits: Limits) -> Fact:
    if not isinstance(value, int):
        return value
    return f"<{limits.minimum_people}" if value < limits.minimum_people else rounded(value, limits)


def _released(table: Table, limits: Limits) -> Table:
    frame, withheld = table.frame, dict(table.withheld)
    shown = f"<{limits.minimum_people}"
    for column in table.counts:
        values = frame[column].to_list()
        small = {row for row, value in enumerate(values) if value is not None and value < limits.minimum_people}
        also, unnamed = _complement(frame, table, column, small, limits.minimum_people)
        hidden = small | also
        for row in hidden:
            withheld[row, column] = shown if row in small - unnamed else "–"
        kept = [None if row in hidden or value is None else rounded(value, limits) for row, value in enumerate(values)]
        frame = frame.with_columns(pl.Series(column, kept, dtype=pl.Int64))
        for other, behind in table.behind.items():
            if behind == column:
                for row in hidden:
                    withheld[row, other] = "–"
                mask = pl.Series([row in hidden for row in range(frame.height)], dtype=pl.Boolean)
                frame = frame.with_columns(pl.when(mask).then(None).otherwise(pl.col(other)).alias(other))
    for column, (count, whole, factor) in table.shares.items():
        share = (factor * pl.col(count) / pl.col(whole)).clip(0.0, factor)
        frame = frame.with_columns(pl.when(pl.col(whole) > 0).then(share).otherwise(None).alias(column))
        withheld |= {(row, column): "–" for row, place in list(withheld) if place in (count, whole)}
    return replace(table, frame=frame, withheld=withheld)


def _complement(
    frame: pl.DataFrame, table: Table, column: str, small: set[int], minimum: int
) -> tuple[set[int], set[int]]:
    """Cells that go with the small ones of their group, and cells that must not be told apart.

    Whoever knows a group's sum knows how many people its hidden cells have together: so at least two are hidden, with
    `minimum` people between them, the smallest first. What a hospital withheld is hidden too, and counts as nobody.
    """
    also: set[int] = set()
    unnamed: set[int] = set()
    if not table.group or not minimum:
        return also, unnamed
    groups: dict[tuple[object, ...], list[int]] = {}
    for row, key in enumerate(frame.select(table.group).rows()):
        groups.setdefault(key, []).append(row)
    for rows in groups.values():
        counts = {row: int(frame[row, column]) for row in rows if frame[row, column] is not None}
        gone = sum((row, column) in table.withheld for row in rows if row not in counts)
        few = [row for row in counts if row in small]
        if not (few or gone) or len(counts) + gone < 2:
            continue
        people, taken = sum(counts[row] for row in few), list[int]()
        for row in sorted(counts.keys() - set(few), key=lambda row: (counts[row], row)):
            if len(few) + gone + len(taken) >= 2 and people >= minimum:
                break
            taken.append(row)
            people += counts[row]
        also.update(taken)
        if gone or not small_can_be_named(len(few), len(taken), people, minimum):
            unnamed.update(few)
    return also, unnamed
