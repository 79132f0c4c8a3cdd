"""Checks of a standardised database that a data steward reads before the hospital opens it to studies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb

from dure.language import Words
from dure.omop.database import open_read_only
from dure.omop.schema import DOMAINS
from dure.standardise.mapping import ColumnPlan, MappingPlan

Status = Literal["ok", "look", "fail"]

# Shares from which a steward should look, and from which the column is of no use as it is.
LOOK_AT, FAIL_AT = 0.2, 0.95


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: `count` of `of` rows or persons. For the hospital's own people; counts may be small."""

    name: str
    says: Words
    subject: str
    count: int
    of: int
    status: Status

    @property
    def share(self) -> float:
        return self.count / self.of if self.of else 0.0


def quality(database: duckdb.DuckDBPyConnection | Path, plan: MappingPlan) -> tuple[Check, ...]:
    """Every check of one database against its plan, in the order a steward reads them."""
    if isinstance(database, Path):
        with open_read_only(database) as connection:
            return quality(connection, plan)
    return (
        *_unmapped(database),
        *_unlisted(database, plan),
        *_implausible(database, plan),
        *_missing(database, plan),
        *_visits(database),
    )


def _unmapped(connection: duckdb.DuckDBPyConnection) -> Iterator[Check]:
    says = Words("Rows whose concept is 0, OMOP's 'no matching concept'", "개념이 0(맞는 개념 없음)인 행")
    concepts = {domain.table: domain.concept for domain in DOMAINS.values()} | {"person": "gender_concept_id"}
    for table, column in concepts.items():
        count, of = _counts(connection, f"SELECT count(*) FILTER (WHERE {column} = 0), count(*) FROM {table}")
        if of:
            yield Check("unmapped", says, f"{table}.{column}", count, of, "fail" if count else "ok")


def _unlisted(connection: duckdb.DuckDBPyConnection, plan: MappingPlan) -> Iterator[Check]:
    says = Words("Concepts of the plan that CONCEPT does not list", "계획에 쓰였으나 CONCEPT에 없는 개념")
    ids = sorted({concept.id for concept in plan.concepts()})
    sql = """SELECT count(*) FILTER (WHERE id NOT IN (SELECT concept_id FROM concept)), count(*)
        FROM unnest(?) AS written(id)"""
    count, of = _counts(connection, sql, ids)
    yield Check("unlisted", says, "concept", count, of, "look" if count else "ok")


def _implausible(connection: duckdb.DuckDBPyConnection, plan: MappingPlan) -> Iterator[Check]:
    says = Words("Numbers outside the range that the plan calls plausible", "계획이 정한 그럴듯한 범위를 벗어난 값")
    for column in plan.columns:
        if column.number is None or column.number.plausible is None:
            continue
        domain = DOMAINS[column.number.domain]
        count, of = _counts(
            connection,
            f"""SELECT count(*) FILTER (WHERE value_as_number NOT BETWEEN ? AND ?), count(*)
            FROM {domain.table} WHERE {domain.concept} = ?""",
            *column.number.plausible,
            column.number.concept.id,
        )
        yield Check("implausible", says, column.column, count, of, "look" if count else "ok")


def _missing(connection: duckdb.DuckDBPyConnection, plan: MappingPlan) -> Iterator[Check]:
    says = Words("Visits at which nothing is recorded of the column", "그 열의 기록이 없는 방문")
    for column in plan.columns:
        recorded = " UNION ALL ".join(
            f"SELECT visit_occurrence_id FROM {DOMAINS[domain].table} WHERE visit_occurrence_id IS NOT NULL"
            f" AND {DOMAINS[domain].concept} = ?"
            for domain, _ in _recorded(column)
        )
        count, of = _counts(
            connection,
            f"""SELECT count(*) FILTER (WHERE visit_occurrence_id NOT IN ({recorded})), count(*)
            FROM visit_occurrence""",
            *(concept for _, concept in _recorded(column)),
        )
        share = count / of if of else 0.0
        # Without a recorded no, a visit without a record is the no itself.
        silent = column.finding is not None and column.finding.absent is None
        status: Status = "ok" if silent or share < LOOK_AT else "look" if share < FAIL_AT else "fail"
        yield Check("missing", says, column.column, count, of, status)


def _recorded(column: ColumnPlan) -> list[tuple[str, int]]:
    """The events that a column can become: domain and concept."""
    if column.number is not None:
        return [(column.number.domain, column.number.concept.id)]
    if column.category is not None:
        return [(column.category.domain, column.category.concept.id)]
    assert column.finding is not None  # `ColumnPlan` has exactly one meaning
    found = [column.finding.present] + ([column.finding.absent] if column.finding.absent else [])
    return [(finding.domain, finding.concept.id) for finding in found]


def _visits(connection: duckdb.DuckDBPyConnection) -> Iterator[Check]:
    says = Words("Persons without a visit", "방문이 없는 사람")
    sql = """SELECT count(*) FILTER (WHERE person_id NOT IN (SELECT person_id FROM visit_occurrence)),
        count(*) FROM person"""
    count, of = _counts(connection, sql)
    yield Check("no_visit", says, "person", count, of, "fail" if count else "ok")


def _counts(connection: duckdb.DuckDBPyConnection, sql: str, *parameters: Any) -> tuple[int, int]:
    row = connection.execute(sql, list(parameters)).fetchone()
    assert row is not None  # an aggregate always answers
    return int(row[0]), int(row[1])
