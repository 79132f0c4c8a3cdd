"""A plan turns an export into OMOP: units, missing marks, codes, findings; whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import dure.demo
from dure.errors import DureError, InvalidDocument, TextWhereNumbers, UnknownColumn, UnmappedColumn
from dure.omop.database import open_read_only
from dure.standardise.cell import as_number, converted
from dure.standardise.load import LoadReport, standardise
from dure.standardise.mapping import MappingPlan, NumberPlan, read_plan
from dure.standardise.quality import Check, quality

BOTH = {"en": "words", "ko": "말"}
YES, NO, PAIN, TYPICAL, PRESSURE, GRADE, ILL, WELL = range(2_000_000_001, 2_000_000_009)


def concept(identifier: int) -> dict[str, Any]:
    return {"id": identifier, "name": f"concept {identifier}"}


def plan_of(*columns: dict[str, Any], **changes: Any) -> MappingPlan:
    plan = {
        "dure": 1,
        "hospital": {"en": "Test", "ko": "시험"},
        "file": "export.csv",
        "record_type": concept(1),
        "person": {
            "column": "id",
            "age": "age",
            "sex": {"column": "sex", "codes": {"M": concept(8507), "F": concept(8532)}},
        },
        "visit": {"concept": concept(9202), "default_date": "2025-03-01"},
        "columns": [{"label": BOTH, **column} for column in columns],
    }
    return MappingPlan.model_validate({**plan, **changes})


def number(column: str = "x", *, missing: tuple[dict[str, Any], ...] = (), **number: Any) -> dict[str, Any]:
    return {"column": column, "missing": missing, "number": {"concept": concept(PRESSURE), **number}}


def yes_no() -> dict[str, Any]:
    present = {"domain": "observation", "concept": concept(YES), "when": {"one_of": ["1"]}}
    absent = {"domain": "observation", "concept": concept(NO), "when": {"one_of": ["2"]}}
    return {"column": "x", "finding": {"present": present, "absent": absent}}


def grade() -> dict[str, Any]:
    present = {"domain": "condition", "concept": concept(ILL), "when": {"greater_than": 0}}
    return {
        "column": "x",
        "finding": {"present": present, "absent": {"domain": "observation", "concept": concept(WELL)}},
    }


def category() -> dict[str, Any]:
    return {"column": "x", "category": {"concept": concept(PAIN), "values": {"typ": concept(TYPICAL)}}}


Loaded = Callable[..., tuple[LoadReport, Path]]


@pytest.fixture
def load(tmp_path: Path) -> Loaded:
    """Load cells of a column `x`, one person each, by a plan."""

    def run(plan: MappingPlan, *cells: str, text: str | None = None) -> tuple[LoadReport, Path]:
        lines = [f'P{place},{50 + place},{"MF"[place % 2]},"{cell}"' for place, cell in enumerate(cells)]
        (tmp_path / "export.csv").write_text(text or "\n".join(["id,age,sex,x", *lines]), encoding="utf-8")
        database = tmp_path / "cdm.duckdb"
        return standardise(plan, tmp_path, database), database

    return run


def rows(database: Path, sql: str) -> list[Any]:
    with open_read_only(database) as connection:
        return connection.execute(sql).fetchall()


def refused(error: DureError, *secrets: str) -> None:
    """Says what, why and what to do in both languages, and no value of a patient."""
    for language in ("en", "ko"):
        assert all(part.strip() and "{" not in part for part in error.parts(language))
        assert not [secret for secret in secrets if secret in error.text(language)]
    assert error.text("en") != error.text("ko")


def test_numbers_are_converted_rounded_and_keep_what_was_written(load: Loaded) -> None:
    plan = plan_of(
        number(unit=concept(8876), convert={"from_unit": "kPa", "multiply": 7.50062}, decimals=0),
    )
    report, database = load(plan, "16.0", "18.7", "")
    found = rows(
        database,
        """SELECT value_as_number, unit_concept_id, value_source_value, unit_source_value,
        measurement_source_value FROM measurement ORDER BY measurement_id""",
    )
    assert found == [(120.0, 8876, "16.0", "kPa", "x"), (140.0, 8876, "18.7", "kPa", "x")]
    assert report.missing == {"x": 1}
    assert report.rows["measurement"] == 2


@given(st.integers(80, 700), st.integers(40, 300))
def test_law_local_units_give_whole_numbers_back(cholesterol: int, pressure: int) -> None:
    plan = {"concept": concept(1), "decimals": 0}
    mmol = NumberPlan.model_validate({**plan, "convert": {"from_unit": "mmol/L", "multiply": 38.67}})
    kpa = NumberPlan.model_validate({**plan, "convert": {"from_unit": "kPa", "multiply": 7.50062}})
    assert converted(round(cholesterol / 38.67, 2), mmol) == cholesterol
    assert converted(round(pressure / 7.50062, 1), kpa) == pressure


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_law_a_number_is_read_to_its_last_digit(value: float) -> None:
    assert as_number(repr(value), plan_of()) == value
    assert as_number(repr(value).replace(".", ","), plan_of(decimal_comma=True)) == value


@pytest.mark.parametrize("text", ["nan", "inf", "1_000", "٣", "1,5", "12 mmHg", "<10", "--1", ".", "1e999"])
def test_what_a_hospital_does_not_mean_as_a_number_is_none(text: str) -> None:
    assert as_number(text, plan_of()) is None


def test_a_point_is_not_guessed_to_be_a_decimal_where_commas_are() -> None:
    assert as_number("1.234", plan_of(decimal_comma=True)) is None


def test_missing_marks_of_the_file_and_of_one_column(load: Loaded) -> None:
    zero = {"mark": "0", "because": BOTH}
    plan = plan_of(number(missing=(zero,)), missing=["", "미상", "-9"])
    report, database = load(plan, "미상", "-9", "0", "0.0", "120", "")
    assert rows(database, "SELECT value_as_number FROM measurement") == [(120.0,)]
    assert report.missing == {"x": 5}


def test_zero_is_a_number_unless_the_plan_says_otherwise(load: Loaded) -> None:
    _, database = load(plan_of(number()), "0")
    assert rows(database, "SELECT value_as_number FROM measurement") == [(0.0,)]


def test_a_yes_a_no_and_silence_are_three_things(load: Loaded) -> None:
    _, database = load(plan_of(yes_no()), "1", "2", "")
    found = rows(database, "SELECT person_id, observation_concept_id FROM observation ORDER BY 1")
    assert found == [(1, YES), (2, NO)]


def test_a_grade_above_zero_is_a_condition_and_zero_a_recorded_no(load: Loaded) -> None:
    _, database = load(plan_of(grade()), "0", "1", "4", "")
    assert rows(database, "SELECT person_id FROM condition_occurrence ORDER BY 1") == [(2,), (3,)]
    assert rows(database, "SELECT person_id, observation_concept_id FROM observation") == [(1, WELL)]


def test_one_person_with_two_rows_is_one_person_with_two_visits(load: Loaded) -> None:
    text = "id,age,sex,day,x\nA,50,M,2025-01-05,1\nA,50,M,2026-02-06,2\n"
    text += "B,40,F,2025-01-05,3\nB,40,M,2025-01-06,4\n"
    plan = plan_of(number(), visit={"concept": concept(9202), "column": "day"})
    report, database = load(plan, text=text)
    # A is 50 in both years, which a birthday explains; only B's sex contradicts itself.
    assert (report.rows_read, report.people, report.contradictions) == (4, 2, 1)
    assert rows(database, "SELECT person_id, year_of_birth, gender_concept_id FROM person ORDER BY 1") == [
        (1, 1975, 8507),
        (2, 1985, 8532),
    ]
    periods = rows(
        database,
        """SELECT observation_period_start_date, observation_period_end_date FROM observation_period
        ORDER BY person_id""",
    )
    assert periods == [(date(2025, 1, 5), date(2026, 2, 6)), (date(2025, 1, 5), date(2025, 1, 6))]
    visits = rows(
        database,
        """SELECT value_as_number, visit_start_date = measurement_date FROM measurement
        JOIN visit_occurrence USING (visit_occurrence_id) ORDER BY 1""",
    )
    assert visits == [(1.0, True), (2.0, True), (3.0, True), (4.0, True)]


def test_a_sex_that_is_not_known_is_counted(load: Loaded) -> None:
    report, database = load(plan_of(number()), text="id,age,sex,x\nA,50,,1\nB,50,F,2\n")
    assert report.sexes_unmapped == 1
    assert rows(database, "SELECT gender_concept_id FROM person ORDER BY person_id") == [(0,), (8532,)]
    found = checks(quality(database, plan_of(number())))
    assert found["unmapped", "person.gender_concept_id"] == (1, 2, "fail")


def test_unreadable_values_count_as_missing_only_where_the_plan_says_so(load: Loaded) -> None:
    report, database = load(plan_of({**number(), "unreadable": "missing"}), "120", "high", "130")
    assert report.unreadable == {"x": 1}
    assert len(rows(database, "SELECT * FROM measurement")) == 2


@pytest.mark.parametrize(
    ("column", "cell", "error"),
    [
        (number(), "SECRET", TextWhereNumbers),
        (number(), "777,5", TextWhereNumbers),
        (grade(), "SECRET", TextWhereNumbers),
        (category(), "SECRET", UnmappedColumn),
        (yes_no(), "777", UnmappedColumn),
    ],
)
def test_a_value_the_plan_cannot_read_stops_the_load_at_its_line(
    load: Loaded, column: dict[str, Any], cell: str, error: type[DureError]
) -> None:
    good = "1" if "category" not in column else "typ"
    with pytest.raises(error) as caught:
        load(plan_of(column), good, good, cell)
    refused(caught.value, cell, "P2")
    for language in ("en", "ko"):
        assert "'x'" in caught.value.text(language)
        assert "export.csv" in caught.value.text(language)
        assert any(line in caught.value.text(language) for line in (":4)", "Line 4 ", "4행"))  # header: line 1


def test_rows_without_a_readable_person_sex_age_or_date_stop_the_load(load: Loaded) -> None:
    dated = plan_of(number(), visit={"concept": concept(9202), "column": "day"})
    head = "id,age,sex,day,x\nA,50,M,2025-01-05,1\n"
    for line, error in (
        (",50,M,2025-01-05,1", UnmappedColumn),
        ("B,SECRET,M,2025-01-05,1", TextWhereNumbers),
        ("B,,M,2025-01-05,1", TextWhereNumbers),
        ("B,-9,M,2025-01-05,1", UnmappedColumn),
        ("B,9999999999,M,2025-01-05,1", UnmappedColumn),
        ("B,50,SECRET,2025-01-05,1", UnmappedColumn),
        ("B,50,M,SECRET,1", UnmappedColumn),
        ("B,50,M,,1", UnmappedColumn),
    ):
        with pytest.raises(error) as caught:
            load(dated, text=f"{head}{line}\n")
        refused(caught.value, "SECRET")
        assert ":3)" in caught.value.text("en") or "Line 3 " in caught.value.text("en")


def test_a_column_the_file_lacks_and_one_the_plan_lacks(load: Loaded) -> None:
    with pytest.raises(UnknownColumn) as lacking:
        load(plan_of(number("cholesterole")), text="id,age,sex,cholesterol\nA,50,M,SECRET\n")
    refused(lacking.value, "SECRET")
    assert "Did you mean 'cholesterol'?" in lacking.value.text("en")
    with pytest.raises(UnmappedColumn) as unspoken:
        load(plan_of(), "SECRET")
    refused(unspoken.value, "SECRET")
    assert "not_used" in unspoken.value.text("ko")
    load(plan_of(not_used=[{"column": "x", "because": BOTH}]), "SECRET")


def test_a_failed_load_leaves_nothing_and_a_later_one_replaces(load: Loaded, tmp_path: Path) -> None:
    with pytest.raises(TextWhereNumbers):
        load(plan_of(number()), "120", "SECRET")
    assert [path.name for path in tmp_path.iterdir()] == ["export.csv"]
    _, database = load(plan_of(number()), "120")
    before = database.read_bytes()
    with pytest.raises(TextWhereNumbers):
        load(plan_of(number()), "121", "SECRET")
    assert database.read_bytes() == before
    load(plan_of(number()), "130", "131")
    assert len(rows(database, "SELECT * FROM person")) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cdm.duckdb", "export.csv"]


def test_a_failure_while_writing_leaves_nothing_either(load: Loaded, tmp_path: Path) -> None:
    """The concept list is read inside the transaction; a broken one must not leave a half-written file."""
    load(plan_of(number()), "120")
    (tmp_path / "cdm.duckdb").unlink()
    (tmp_path / "concepts.csv").write_text("concept_id,vocabulary\n1,x\n")
    with pytest.raises(UnknownColumn):
        standardise(plan_of(number()), tmp_path, tmp_path / "cdm.duckdb", concepts=tmp_path / "concepts.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["concepts.csv", "export.csv"]


def checks(found: tuple[Check, ...]) -> dict[tuple[str, str], tuple[int, int, str]]:
    return {(check.name, check.subject): (check.count, check.of, check.status) for check in found}


def test_quality_counts_what_a_steward_should_look_at(load: Loaded) -> None:
    plan = plan_of(number(plausible=[60, 260]), {**category(), "column": "y"})
    text = "id,age,sex,x,y\n" + "".join(
        f"{person},50,M,{x},{y}\n" for person, x, y in (("A", 120, "typ"), ("B", 20, ""), ("C", 300, ""))
    )
    _, database = load(plan, text=text)
    found = checks(quality(database, plan))
    assert found["implausible", "x"] == (2, 3, "look")
    assert found["missing", "x"] == (0, 3, "ok")
    assert found["missing", "y"] == (2, 3, "look")
    assert found["no_visit", "person"] == (0, 3, "ok")
    assert found["unmapped", "measurement.measurement_concept_id"] == (0, 3, "ok")
    assert found["unlisted", "concept"][2] == "look"  # no concept list was loaded


@pytest.mark.parametrize(
    "column",
    [
        {"column": "x"},
        {**number(), **category()},
        {"column": "x", "finding": {"present": {"domain": "condition", "concept": concept(1)}}},
        {"column": "x", "finding": {**yes_no()["finding"], "absent": grade()["finding"]["absent"]}},
        {"column": "x", "finding": {**grade()["finding"], "absent": yes_no()["finding"]["absent"]}},
    ],
)
def test_a_plan_that_could_mean_two_things_is_no_plan(column: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        plan_of(column)


def test_a_plan_s_mistake_is_found_at_its_line(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    good = (Path(dure.demo.__file__).parent / "hospitals" / "cleveland.yaml").read_text(encoding="utf-8")
    for word, wrong in (
        ("encoding: utf-8", "encoding: utf-9"),
        ("not_used:", "notused:"),
        ("age: age", "aeg: age"),
    ):
        path.write_text(good.replace(word, wrong), encoding="utf-8")
        with pytest.raises(InvalidDocument) as caught:
            read_plan(path)
        refused(caught.value)
        line = next(at for at, text in enumerate(path.read_text().splitlines(), 1) if wrong in text)
        assert f"line {line}" in caught.value.text("en")
