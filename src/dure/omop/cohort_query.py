"""A study's cohort asked of one OMOP database: who enters, who stays, and one row per person who stayed.

The semantics are those of `dure.study.cohort`. Concepts and numbers travel as parameters; the only words
written into the SQL are the schema's own names and variable names, quoted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from dure.errors import Unanswerable
from dure.language import Words
from dure.omop.covariates import codes_of_people
from dure.omop.database import open_read_only
from dure.omop.schema import DOMAINS
from dure.study.cohort import Cohort, Criterion, Event, FollowUp, Range, Variable


@dataclass(frozen=True, slots=True)
class CohortRows:
    """`table`: person_id (int64) and one column per variable, sorted by person_id; missing is null.

    `attrition`: people at entry, then those left after each criterion in order.
    """

    table: pa.Table
    attrition: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of SQL with the parameters its question marks stand for, in order."""

    sql: str
    parameters: tuple[Any, ...] = ()


@dataclass(slots=True)
class _Conditions:
    """Conditions joined by AND, each with its parameters."""

    words: list[str] = field(default_factory=list)
    parameters: list[Any] = field(default_factory=list)

    def add(self, sql: str, *parameters: Any) -> None:
        self.words.append(sql)
        self.parameters += parameters

    def in_range(self, column: str, interval: Range | None) -> None:
        if interval is not None and interval.at_least is not None:
            self.add(f"{column} >= ?", interval.at_least)
        if interval is not None and interval.at_most is not None:
            self.add(f"{column} <= ?", interval.at_most)

    def piece(self) -> Piece:
        return Piece(" AND ".join(self.words) or "true", tuple(self.parameters))


# A birthday counts only as far as it is known: with the year alone, age is a difference of years.
AGE = """year(entry.index_date) - person.year_of_birth - CAST(coalesce(
    person.month_of_birth > month(entry.index_date)
    OR (person.month_of_birth = month(entry.index_date) AND person.day_of_birth > day(entry.index_date)),
    false) AS INTEGER)"""


def cohort_rows(
    database: duckdb.DuckDBPyConnection | Path, cohort: Cohort, variables: dict[str, Variable]
) -> CohortRows:
    """The cohort's table and attrition; raises Unanswerable where a domain cannot hold what is asked.

    Columns: a number is float64, a flag float64 (0, 1 or null), a category the name of its level, codes a list of
    concepts (int64; null where there is none).
    """
    if isinstance(database, Path):
        with open_read_only(database) as connection:
            return cohort_rows(connection, cohort, variables)
    # A cursor has its own temporary tables, so two questions at once do not meet.
    with database.cursor() as connection:
        _enter(connection, cohort.entry)
        attrition = _attrition(connection, cohort.criteria)
        return CohortRows(_table(connection, variables), attrition)


def _enter(connection: duckdb.DuckDBPyConnection, entry: Event) -> None:
    """Temporary table `entry`: each person's index date, age then, and gender concept."""
    if entry.days is not None:
        problem = Words(
            "The entry event sets the index date, so no window can be counted from it",
            "시작 사건이 기준일을 정하므로 그 전후 기간을 셀 수 없습니다",
        )
        hint = Words("Leave `days` out of the entry.", "시작 사건에서 `days`를 빼십시오.")
        raise _unanswerable("cohort.entry", problem, hint)
    events = _events(entry, "cohort.entry")
    connection.execute(
        f"""CREATE TEMP TABLE entry AS
        SELECT entry.person_id, entry.index_date, {AGE} AS age, person.gender_concept_id AS gender
        FROM (SELECT person_id, min(event_date) AS index_date FROM ({events.sql}) GROUP BY person_id) AS entry
        JOIN person USING (person_id)""",
        list(events.parameters),
    )


def _attrition(connection: duckdb.DuckDBPyConnection, criteria: tuple[Criterion, ...]) -> tuple[int, ...]:
    """Temporary table `stayed`, the people for whom every criterion holds; and how many were left."""
    holds = [_criterion(criterion, f"criteria[{place}]") for place, criterion in enumerate(criteria)]
    columns = "".join(f", ({piece.sql}) AS c{place}" for place, piece in enumerate(holds))
    connection.execute(
        f"CREATE TEMP TABLE judged AS SELECT entry.*{columns} FROM entry",
        [parameter for piece in holds for parameter in piece.parameters],
    )
    left = [" AND ".join([f"c{earlier}" for earlier in range(count)] or ["true"]) for count in range(len(holds) + 1)]
    counts = ", ".join(f"count(*) FILTER (WHERE {sql})" for sql in left)
    row = connection.execute(f"SELECT {counts} FROM judged").fetchone()
    connection.execute(f"CREATE TEMP TABLE stayed AS SELECT * FROM judged WHERE {left[-1]}")
    return tuple(int(count) for count in row or ())


def _criterion(criterion: Criterion, where: str) -> Piece:
    if criterion.event is not None:
        people = _people_with(criterion.event, "entry", where)
        piece = Piece(f"person_id IN ({people.sql})", people.parameters)
    elif criterion.observed_days is not None:
        piece = Piece(
            """EXISTS (FROM observation_period AS period WHERE period.person_id = entry.person_id
            AND entry.index_date BETWEEN observation_period_start_date AND observation_period_end_date
            AND date_diff('day', observation_period_start_date, entry.index_date) >= ?)""",
            (criterion.observed_days,),
        )
    else:
        conditions = _Conditions()
        if criterion.sex is not None:
            conditions.add("gender = ANY(?)", list(criterion.sex))
        conditions.in_range("age", criterion.age)
        piece = conditions.piece()
    return Piece(f"NOT ({piece.sql})", piece.parameters) if criterion.exclude else piece


def _table(connection: duckdb.DuckDBPyConnection, variables: dict[str, Variable]) -> pa.Table:
    columns, joins = [], []
    for place, (name, variable) in enumerate(variables.items()):
        value, join = _variable(variable, f"v{place}", f"variables.{name}")
        columns.append(Piece(f"{value.sql} AS {_quoted(name)}", value.parameters))
        joins.append(join)
    selected = "".join(f", {piece.sql}" for piece in columns)
    joined = " ".join(piece.sql for piece in joins)
    result = connection.execute(
        f"SELECT stayed.person_id{selected} FROM stayed {joined} ORDER BY stayed.person_id",
        [parameter for piece in columns + joins for parameter in piece.parameters],
    )
    return result.to_arrow_table()


def _variable(variable: Variable, alias: str, where: str) -> tuple[Piece, Piece]:
    """The expression of one column, and the join it needs (maybe none)."""
    if variable.age:
        return Piece("CAST(stayed.age AS DOUBLE)"), Piece("")
    if variable.year:
        return Piece("CAST(year(stayed.index_date) AS DOUBLE)"), Piece("")
    if variable.sex is not None:
        return _level("stayed.gender", {name: (concept,) for name, concept in variable.sex.items()}), Piece("")
    if variable.present is not None:
        return _flag(variable.present, variable.absent, where), Piece("")
    follow_up = variable.days_until or variable.happened
    if follow_up is not None:
        followed = _followed(follow_up, where)
        join = Piece(
            f"LEFT JOIN ({followed.sql}) AS {alias} ON {alias}.person_id = stayed.person_id", followed.parameters
        )
        return Piece(f"CAST({alias}.{'days' if variable.days_until else 'happened'} AS DOUBLE)"), join
    if variable.codes is not None:
        coded = _in_window(variable.codes, "stayed", where)
        listed = codes_of_people(coded.sql)
        join = Piece(f"LEFT JOIN ({listed}) AS {alias} ON {alias}.person_id = stayed.person_id", coded.parameters)
        return Piece(f"{alias}.codes"), join
    event = variable.number or variable.category
    assert event is not None  # `Variable` holds exactly one source
    value = "value_as_number" if variable.number is not None else "value_as_concept_id"
    nearest = _nearest(event, value, where)
    join = Piece(f"LEFT JOIN ({nearest.sql}) AS {alias} ON {alias}.person_id = stayed.person_id", nearest.parameters)
    if variable.levels is not None:
        return _level(f"{alias}.value", variable.levels), join
    return Piece(f"CAST({alias}.value AS DOUBLE)"), join


def _flag(present: Event, absent: Event | None, where: str) -> Piece:
    """1 where the event is recorded, else 0; with `absent`, null where neither is. A yes wins over a no."""
    yes = _people_with(present, "stayed", where)
    if absent is None:
        return Piece(f"CASE WHEN stayed.person_id IN ({yes.sql}) THEN 1.0::DOUBLE ELSE 0 END", yes.parameters)
    no = _people_with(absent, "stayed", where)
    return Piece(
        f"""CASE WHEN stayed.person_id IN ({yes.sql}) THEN 1.0::DOUBLE
        WHEN stayed.person_id IN ({no.sql}) THEN 0 END""",
        yes.parameters + no.parameters,
    )


def _level(column: str, levels: dict[str, tuple[int, ...]]) -> Piece:
    """The name of the level that holds the concept in `column`; a concept of no level is missing."""
    cases = " ".join(f"WHEN {column} = ANY(?) THEN ?" for _ in levels)
    parameters = tuple(part for name, concepts in levels.items() for part in (list(concepts), name))
    return Piece(f"CAST(CASE {cases} END AS VARCHAR)", parameters)


def _nearest(event: Event, value: str, where: str) -> Piece:
    """One value per person: nearest to the index date, then the earlier day, then the first recorded.

    A number in another unit is not in `_events`, so it can neither be read nor hide one in the right unit.
    A category concept that no level declares does stand (and is missing): an older answer is not today's.
    """
    if not DOMAINS[event.domain].has_values:
        raise _unanswerable(where, *_no_values(event.domain))
    events = _in_window(event, "stayed", where)
    known = f"{value} IS NOT NULL" + (" AND value_as_concept_id <> 0" if value == "value_as_concept_id" else "")
    return Piece(
        f"""SELECT person_id,
        arg_min({value}, row(abs(date_diff('day', index_date, event_date)), event_date, event_id)) AS value
        FROM ({events.sql}) WHERE {known} GROUP BY person_id""",
        events.parameters,
    )


def _followed(follow_up: FollowUp, where: str) -> Piece:
    """Per person observed on the index date: `days` to the end of follow-up, and `happened`, whether the event ended
    it. What happens on the last observed day still counts."""
    events = _events(follow_up.event, where)
    longest = "" if follow_up.at_most is None else ", index_date + CAST(? AS INTEGER)"
    parameters = () if follow_up.at_most is None else (follow_up.at_most,)
    return Piece(
        f"""SELECT watched.person_id, date_diff('day', any_value(watched.index_date),
            coalesce(min(events.event_date), any_value(watched.last_day))) AS days,
            count(events.event_date) > 0 AS happened
        FROM (SELECT stayed.person_id, stayed.index_date,
                least(max(observation_period_end_date), min(death_date){longest}) AS last_day
            FROM stayed JOIN observation_period ON observation_period.person_id = stayed.person_id
                AND index_date BETWEEN observation_period_start_date AND observation_period_end_date
            LEFT JOIN death ON death.person_id = stayed.person_id AND death_date >= index_date
            GROUP BY stayed.person_id, stayed.index_date) AS watched
        LEFT JOIN ({events.sql}) AS events ON events.person_id = watched.person_id
            AND date_diff('day', watched.index_date, events.event_date) >= ? AND events.event_date <= watched.last_day
        GROUP BY watched.person_id""",
        (*parameters, *events.parameters, follow_up.first_day),
    )


def _people_with(event: Event, cohort: str, where: str) -> Piece:
    events = _in_window(event, cohort, where)
    return Piece(f"SELECT person_id FROM ({events.sql})", events.parameters)


def _in_window(event: Event, cohort: str, where: str) -> Piece:
    """Events of the people in `cohort`, inside the window around their index date, both ends included."""
    events = _events(event, where)
    conditions = _Conditions()
    if event.days is not None:
        conditions.add("date_diff('day', people.index_date, events.event_date) BETWEEN ? AND ?", *event.days)
    window = conditions.piece()
    return Piece(
        f"""SELECT events.*, people.index_date FROM ({events.sql}) AS events
        JOIN {cohort} AS people ON people.person_id = events.person_id WHERE {window.sql}""",
        events.parameters + window.parameters,
    )


def _events(event: Event, where: str) -> Piece:
    """Every record of the event, at any time: person_id, event_id, event_date and, where kept, its values."""
    domain = DOMAINS[event.domain]
    conditions = _Conditions()
    conditions.add(f"{domain.concept} = ANY(?)", list(event.concepts))
    if event.unit is not None or event.value is not None:
        if not domain.has_values:
            raise _unanswerable(where, *_no_values(event.domain))
        if event.unit is not None:
            conditions.add("unit_concept_id = ?", event.unit)
        conditions.in_range("value_as_number", event.value)
    values = ", value_as_number, value_as_concept_id" if domain.has_values else ""
    kept = conditions.piece()
    return Piece(
        f"""SELECT person_id, {domain.id} AS event_id, {domain.date} AS event_date, {domain.concept} AS concept{values}
        FROM {domain.table} WHERE {kept.sql}""",
        kept.parameters,
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _no_values(domain: str) -> tuple[Words, Words]:
    return (
        Words(f"The domain '{domain}' keeps no values", f"'{domain}' 영역에는 값이 기록되지 않습니다"),
        Words("Ask a measurement or an observation.", "측정(measurement)이나 관찰(observation)에서 찾으십시오."),
    )


def _unanswerable(where: str, problem: Words, hint: Words) -> Unanswerable:
    return Unanswerable(part=where, problem=problem, hint=hint)
