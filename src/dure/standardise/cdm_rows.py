"""The OMOP rows that one export becomes, gathered in memory before a single one is written."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import duckdb
import pyarrow as pa

from dure.errors import TextWhereNumbers, UnmappedColumn
from dure.omop.schema import DOMAINS
from dure.standardise.cell import (
    Place,
    converted,
    is_missing,
    read_birth_year,
    read_code,
    read_date,
    read_finding,
    read_number,
    unknown_code,
)
from dure.standardise.export import Export, Row
from dure.standardise.mapping import ColumnPlan, Finding, MappingPlan

ORIGIN = """CREATE TABLE dure_origin
    ("table" VARCHAR NOT NULL, id BIGINT NOT NULL, file VARCHAR NOT NULL, line BIGINT NOT NULL)"""


@dataclass(slots=True)
class CdmRows:
    """Rows by table, each with its origin, and the counts that the report gives. Counts only, no values."""

    plan: MappingPlan
    export: Export
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    origins: list[dict[str, Any]] = field(default_factory=list)
    people: dict[str, dict[str, Any]] = field(default_factory=dict)
    seen: dict[int, list[date]] = field(default_factory=dict)
    missing: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)
    contradicting: set[int] = field(default_factory=set)

    def add(self, row: Row) -> None:
        """One row of the export: its person, its visit, and everything its columns say."""
        day = self._day(row)
        person = self._person(row, day)
        visit = self._visit(row, person, day)
        at = {"person_id": person, "visit_occurrence_id": visit}
        for column in self.plan.columns:
            text = row.cells[column.column]
            if is_missing(text, self.plan, column):
                self.missing[column.column] += 1
                continue
            try:
                self._record(row, column, text, at, day)
            except (TextWhereNumbers, UnmappedColumn):
                if column.unreadable == "stop":
                    raise
                self.unreadable[column.column] += 1

    def finish(self) -> None:
        """Observation periods: from each person's first visit to the last."""
        first_line = {origin["id"]: origin["line"] for origin in self.origins if origin["table"] == "person"}
        for person, days in self.seen.items():
            period = {
                "person_id": person,
                "observation_period_start_date": min(days),
                "observation_period_end_date": max(days),
                "period_type_concept_id": self.plan.record_type.id,
            }
            self._put("observation_period", "observation_period_id", period, first_line[person])

    def write(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Every row and its origin, through Arrow: row-by-row inserts take a second per thousand."""
        connection.execute(ORIGIN)
        for table, rows in [*self.tables.items(), ("dure_origin", self.origins)]:
            columns = list(dict.fromkeys(name for row in rows for name in row))
            connection.register("incoming", pa.table({name: [row.get(name) for row in rows] for name in columns}))
            connection.execute(f'INSERT INTO "{table}" BY NAME SELECT * FROM incoming')
            connection.unregister("incoming")

    def _place(self, row: Row, column: str) -> Place:
        return Place(self.export.path, row.line, column)

    def _day(self, row: Row) -> date:
        visit = self.plan.visit
        text = row.cells[visit.column] if visit.column is not None else ""
        if visit.column is not None and not is_missing(text, self.plan):
            return read_date(text, visit.format, self._place(row, visit.column))
        if visit.default_date is not None:
            return visit.default_date
        return read_date("", visit.format, self._place(row, visit.column or ""))

    def _person(self, row: Row, day: date) -> int:
        who = self.plan.person
        number = row.cells[who.column]
        if is_missing(number, self.plan):
            raise unknown_code(self._place(row, who.column))
        stated = self._sex(row), self._birth_year(row, day)
        known = self.people.get(number)
        if known is not None:
            person = int(known["person_id"])
            # An age moves the year of birth by one with the visit's date, which contradicts nothing.
            apart = abs(known["year_of_birth"] - stated[1]) > (1 if who.age is not None else 0)
            if known["gender_concept_id"] != stated[0] or apart:
                self.contradicting.add(person)
            return person
        record = {
            "gender_concept_id": stated[0],
            "year_of_birth": stated[1],
            "race_concept_id": 0,
            "ethnicity_concept_id": 0,
            "person_source_value": number,
            "gender_source_value": row.cells[who.sex.column],
        }
        self.people[number] = record
        return self._put("person", "person_id", record, row.line)

    def _sex(self, row: Row) -> int:
        """0, OMOP's "no matching concept", where the export does not say."""
        plan = self.plan.person.sex
        text = row.cells[plan.column]
        if is_missing(text, self.plan):
            self.missing[plan.column] += 1
            return 0
        try:
            return read_code(text, plan.codes, self._place(row, plan.column)).id
        except UnmappedColumn:
            if plan.unreadable == "stop":
                raise
            self.unreadable[plan.column] += 1
            return 0

    def _birth_year(self, row: Row, day: date) -> int:
        """The CDM requires a year of birth, so a row without one stops the load as text would."""
        who = self.plan.person
        column = who.birth_year or who.age or ""
        place = self._place(row, column)
        number = read_number(row.cells[column], self.plan, place)
        return read_birth_year(number if who.birth_year is not None else day.year - math.floor(number), day, place)

    def _visit(self, row: Row, person: int, day: date) -> int:
        self.seen.setdefault(person, []).append(day)
        record = {
            "person_id": person,
            "visit_concept_id": self.plan.visit.concept.id,
            "visit_start_date": day,
            "visit_end_date": day,
            "visit_type_concept_id": self.plan.record_type.id,
        }
        return self._put("visit_occurrence", "visit_occurrence_id", record, row.line)

    def _record(self, row: Row, column: ColumnPlan, text: str, at: dict[str, int], day: date) -> None:
        place = self._place(row, column.column)
        if column.number is not None:
            values: dict[str, Any] = {
                "value_as_number": converted(read_number(text, self.plan, place), column.number),
                "unit_concept_id": column.number.unit.id if column.number.unit else None,
                "value_source_value": text,
            }
            if column.number.convert is not None:
                values["unit_source_value"] = column.number.convert.from_unit
            self._event(row, column, column.number.domain, column.number.concept.id, at, day, values)
        elif column.category is not None:
            answer = read_code(text, column.category.values, place)
            values = {"value_as_concept_id": answer.id, "value_source_value": text}
            self._event(row, column, column.category.domain, column.category.concept.id, at, day, values)
        elif column.finding is not None:
            found: Finding | None = read_finding(text, column.finding, self.plan, place)
            if found is not None:
                values = {"value_source_value": text} if DOMAINS[found.domain].has_values else {}
                self._event(row, column, found.domain, found.concept.id, at, day, values)

    def _event(
        self,
        row: Row,
        column: ColumnPlan,
        domain: str,
        concept: int,
        at: dict[str, int],
        day: date,
        values: dict[str, Any],
    ) -> None:
        table = DOMAINS[domain]
        record = {
            **at,
            table.concept: concept,
            table.date: day,
            table.type_concept: self.plan.record_type.id,
            table.source_value: column.column,
            **values,
        }
        if domain == "drug":
            record["drug_exposure_end_date"] = day  # the CDM requires one; the export knows this day only
        self._put(table.table, table.id, record, row.line)

    def _put(self, table: str, key: str, record: dict[str, Any], line: int) -> int:
        rows = self.tables.setdefault(table, [])
        record[key] = len(rows) + 1
        rows.append(record)
        origin = {"table": table, "id": record[key], "file": self.export.path.name, "line": line}
        self.origins.append(origin)
        return len(rows)
