"""What a study's cohort means, on a database small enough to count by hand."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dure.errors import FileMissing, NotACdm, Unanswerable
from dure.omop.cohort_query import cohort_rows
from dure.omop.database import create, open_read_only
from dure.omop.schema import TABLES
from dure.study.cohort import Cohort, Variable

INDEX = date(2024, 6, 15)
NAME = {"en": "name", "ko": "이름"}
VISIT, PRESSURE, PAIN, DIABETES, NO_DIABETES = 9202, 11, 12, 13, 14
MMHG, KPA = 8876, 2
FEMALE, MALE = 8532, 8507


class Hospital:
    """A hand-made CDM: only the columns that a line of a test is about."""

    def __init__(self, path: Path) -> None:
        self.connection = create(path)
        self.ids = 0

    def row(self, table: str, **values: Any) -> None:
        columns = ", ".join(f'"{name}"' for name in values)
        marks = ", ".join("?" for _ in values)
        self.connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", list(values.values()))

    def person(self, person: int, born: tuple[int | None, ...] = (1960,), sex: int = FEMALE) -> None:
        year, month, day = (*born, None, None)[:3]
        self.row(
            "person",
            person_id=person,
            gender_concept_id=sex,
            year_of_birth=year,
            month_of_birth=month,
            day_of_birth=day,
            race_concept_id=0,
            ethnicity_concept_id=0,
        )

    def visit(self, person: int, days: int = 0) -> None:
        self.ids += 1
        day = INDEX + timedelta(days)
        self.row(
            "visit_occurrence",
            visit_occurrence_id=self.ids,
            person_id=person,
            visit_concept_id=VISIT,
            visit_start_date=day,
            visit_end_date=day,
            visit_type_concept_id=0,
        )

    def measured(self, person: int, days: int, number: float | None, unit: int | None = MMHG) -> None:
        self.ids += 1
        self.row(
            "measurement",
            measurement_id=self.ids,
            person_id=person,
            measurement_concept_id=PRESSURE,
            measurement_date=INDEX + timedelta(days),
            measurement_type_concept_id=0,
            value_as_number=number,
            unit_concept_id=unit,
        )

    def observed(self, person: int, days: int, value: int | None = None, concept: int = PAIN) -> None:
        self.ids += 1
        self.row(
            "observation",
            observation_id=self.ids,
            person_id=person,
            observation_concept_id=concept,
            observation_date=INDEX + timedelta(days),
            observation_type_concept_id=0,
            value_as_concept_id=value,
        )

    def diagnosed(self, person: int, days: int, concept: int = DIABETES) -> None:
        self.ids += 1
        self.row(
            "condition_occurrence",
            condition_occurrence_id=self.ids,
            person_id=person,
            condition_concept_id=concept,
            condition_start_date=INDEX + timedelta(days),
            condition_type_concept_id=0,
        )


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path / "cdm.duckdb")


def cohort(*criteria: dict[str, Any]) -> Cohort:
    entry = {"domain": "visit", "concepts": [VISIT]}
    return Cohort.model_validate({"name": NAME, "entry": entry, "criteria": [{"name": NAME, **c} for c in criteria]})


def column(hospital: Hospital, variable: dict[str, Any], *criteria: dict[str, Any]) -> list[Any]:
    asked = Variable.model_validate({"label": NAME, **variable})
    return cohort_rows(hospital.connection, cohort(*criteria), {"x": asked}).table["x"].to_pylist()


def attrition(hospital: Hospital, *criteria: dict[str, Any]) -> tuple[int, ...]:
    return cohort_rows(hospital.connection, cohort(*criteria), {}).attrition


def pressure(**more: Any) -> dict[str, Any]:
    return {"domain": "measurement", "concepts": [PRESSURE], **more}


def test_people_enter_at_their_first_entry_event(hospital: Hospital) -> None:
    hospital.person(1)
    hospital.visit(1, days=400)
    hospital.visit(1, days=0)
    assert column(hospital, {"age": True}) == [64]


def test_events_of_someone_who_is_no_person_here_are_nobody(hospital: Hospital) -> None:
    hospital.visit(99)
    assert attrition(hospital) == (0,)


@pytest.mark.parametrize(
    ("born", "age"),
    [
        ((1960,), 64),
        ((1960, 6), 64),
        ((1960, 7), 63),
        ((1960, 6, 15), 64),
        ((1960, 6, 16), 63),
        ((1960, 5, 31), 64),
    ],
)
def test_age_counts_a_birthday_as_far_as_it_is_known(hospital: Hospital, born: tuple[int, ...], age: int) -> None:
    hospital.person(1, born)
    hospital.visit(1)
    assert column(hospital, {"age": True}) == [age]


def test_year_is_that_of_the_index_date_and_not_of_another_event(hospital: Hospital) -> None:
    for person, days in ((1, 0), (2, 199), (3, 200), (4, -400)):
        hospital.person(person)
        hospital.visit(person, days)
        hospital.visit(person, days + 365)
        hospital.diagnosed(person, days - 700)
    assert column(hospital, {"year": True}) == [2024.0, 2024.0, 2025.0, 2023.0]
    assert Variable.model_validate({"label": NAME, "year": True}).kind == "number"


def test_rows_are_sorted_and_typed(hospital: Hospital) -> None:
    for person in (3, 1, 2):
        hospital.person(person)
        hospital.visit(person)
    variables = {
        "number": {"number": pressure()},
        "flag": {"present": pressure()},
        "level": {"category": {"domain": "observation", "concepts": [PAIN]}, "levels": {"a": [1]}},
    }
    asked = {name: Variable.model_validate({"label": NAME, **v}) for name, v in variables.items()}
    table = cohort_rows(hospital.connection, cohort(), asked).table
    assert table["person_id"].to_pylist() == [1, 2, 3]
    assert table.schema.types == [pa.int64(), pa.float64(), pa.float64(), pa.string()]
    assert table["number"].null_count == table["level"].null_count == 3


def test_windows_include_both_ends(hospital: Hospital) -> None:
    for person, days in enumerate((-8, -7, 0, 3, 4)):
        hospital.person(person)
        hospital.visit(person)
        hospital.measured(person, days, 120)
    assert column(hospital, {"present": pressure(days=[-7, 3])}) == [0, 1, 1, 1, 0]


def test_the_nearest_number_counts_and_ties_go_to_the_earlier(hospital: Hospital) -> None:
    for person in (1, 2):
        hospital.person(person)
        hospital.visit(person)
    for days, number in ((-9, 1), (4, 2), (-4, 3), (2, None)):
        hospital.measured(1, days, number)
    for days, number in ((1, 5), (-2, 4)):
        hospital.measured(2, days, number)
    assert column(hospital, {"number": pressure()}) == [3, 5]


def test_of_one_day_the_first_recorded_number_counts(hospital: Hospital) -> None:
    hospital.person(1)
    hospital.visit(1)
    hospital.measured(1, 0, 140)
    hospital.measured(1, 0, 120)
    assert column(hospital, {"number": pressure()}) == [140]


def test_a_number_in_another_unit_is_missing_and_hides_nothing(hospital: Hospital) -> None:
    for person in (1, 2, 3):
        hospital.person(person)
        hospital.visit(person)
    hospital.measured(1, 0, 16.0, KPA)
    hospital.measured(2, 0, 16.0, KPA)
    hospital.measured(2, -30, 130.0)
    hospital.measured(3, 0, 16.0, None)
    assert column(hospital, {"number": pressure(unit=MMHG)}) == [None, 130.0, None]


def test_a_range_keeps_its_ends(hospital: Hospital) -> None:
    for person, number in enumerate((139.9, 140.0, 180.0, 180.1)):
        hospital.person(person)
        hospital.visit(person)
        hospital.measured(person, 0, number)
    event = pressure(value={"at_least": 140, "at_most": 180}, unit=MMHG)
    assert column(hospital, {"present": event}) == [0, 1, 1, 0]


def test_a_level_may_hold_several_concepts_and_an_undeclared_answer_is_missing(hospital: Hospital) -> None:
    for person, answers in enumerate(([(0, 21)], [(0, 22)], [(0, 23)], [(0, 99), (-3, 21)], [(0, 0), (-3, 23)], [])):
        hospital.person(person)
        hospital.visit(person)
        for days, value in answers:
            hospital.observed(person, days, value)
    variable = {
        "category": {"domain": "observation", "concepts": [PAIN]},
        "levels": {"angina": [21, 22], "none": [23]},
    }
    assert column(hospital, variable) == ["angina", "angina", "none", None, "none", None]


def test_sex_is_a_category_and_an_unmapped_sex_is_missing(hospital: Hospital) -> None:
    for person, sex in enumerate((FEMALE, MALE, 0)):
        hospital.person(person, sex=sex)
        hospital.visit(person)
    assert column(hospital, {"sex": {"female": FEMALE, "male": MALE}}) == ["female", "male", None]
    assert attrition(hospital, {"sex": [FEMALE, MALE]}) == (3, 2)


def test_a_flag_with_absent_is_missing_where_neither_is_recorded(hospital: Hospital) -> None:
    for person in range(4):
        hospital.person(person)
        hospital.visit(person)
    hospital.diagnosed(0, -1)
    hospital.observed(1, 0, concept=NO_DIABETES)
    hospital.diagnosed(2, -1)
    hospital.observed(2, 0, concept=NO_DIABETES)
    present = {"domain": "condition", "concepts": [DIABETES]}
    absent = {"domain": "observation", "concepts": [NO_DIABETES]}
    assert column(hospital, {"present": present}) == [1, 0, 1, 0]
    assert column(hospital, {"present": present, "absent": absent}) == [1, 0, 1, None]


def test_criteria_narrow_in_order_and_exclude_turns_one_round(hospital: Hospital) -> None:
    for person, born in enumerate((1950, 1960, 2010, 1970)):
        hospital.person(person, (born,))
        hospital.visit(person)
    hospital.diagnosed(0, -5)
    hospital.diagnosed(2, -5)
    diabetes = {"event": {"domain": "condition", "concepts": [DIABETES], "days": [-10, 0]}}
    adults = {"age": {"at_least": 18}}
    assert attrition(hospital, adults, diabetes) == (4, 3, 1)
    assert attrition(hospital, diabetes, adults) == (4, 2, 1)
    assert attrition(hospital, adults, {**diabetes, "exclude": True}) == (4, 3, 2)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-20, 20), st.integers(0, 99)), max_size=12))
def test_law_nearest_is_what_a_plain_search_finds(tmp_path: Path, rows: list[tuple[int, int, int]]) -> None:
    path = tmp_path / "law.duckdb"
    path.unlink(missing_ok=True)
    hospital = Hospital(path)
    for person in range(5):
        hospital.person(person)
        hospital.visit(person)
    for person, days, number in rows:
        hospital.measured(person, days, number)
    found = column(hospital, {"number": pressure(days=[-15, 15])})
    hospital.connection.close()
    for person in range(5):
        mine = [(abs(d), d, place, n) for place, (p, d, n) in enumerate(rows) if p == person and abs(d) <= 15]
        assert found[person] == (min(mine)[3] if mine else None)


@pytest.mark.parametrize(
    "variable",
    [
        {"number": {"domain": "condition", "concepts": [1]}},
        {"category": {"domain": "drug", "concepts": [1]}, "levels": {"a": [1]}},
        {"present": {"domain": "procedure", "concepts": [1], "unit": MMHG}},
    ],
)
def test_a_domain_without_values_is_not_asked_for_one(hospital: Hospital, variable: dict[str, Any]) -> None:
    with pytest.raises(Unanswerable) as caught:
        column(hospital, variable)
    assert all(caught.value.parts("en"))
    assert all(caught.value.parts("ko"))


def test_an_odd_variable_name_stays_a_name(hospital: Hospital) -> None:
    name = 'x"; DROP TABLE person; --'
    asked = {name: Variable.model_validate({"label": NAME, "age": True})}
    assert cohort_rows(hospital.connection, cohort(), asked).table.column_names == ["person_id", name]


def test_a_file_is_asked_read_only(tmp_path: Path) -> None:
    path = tmp_path / "cdm.duckdb"
    hospital = Hospital(path)
    hospital.person(1)
    hospital.visit(1)
    hospital.connection.close()
    before = path.read_bytes()
    assert cohort_rows(path, cohort(), {}).attrition == (1,)
    assert path.read_bytes() == before
    with open_read_only(path) as connection, pytest.raises(duckdb.Error):
        connection.execute("DELETE FROM person")


def test_only_a_cdm_is_opened_and_nothing_is_overwritten(tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        open_read_only(tmp_path / "nowhere.duckdb")
    (tmp_path / "text.duckdb").write_text("not a database")
    duckdb.connect(str(tmp_path / "empty.duckdb")).close()
    for name in ("text.duckdb", "empty.duckdb"):
        with pytest.raises(NotACdm) as caught:
            open_read_only(tmp_path / name)
        assert all(caught.value.parts("en"))
        assert all(caught.value.parts("ko"))
    with pytest.raises(NotACdm):
        create(tmp_path / "text.duckdb")


def test_the_schema_is_cdm_5_4() -> None:
    """Numbers of columns counted in OHDSI's published DDL; identifiers are BIGINT, `offset` is quoted."""
    columns = {
        "person": 18,
        "visit_occurrence": 17,
        "measurement": 23,
        "observation": 21,
        "drug_exposure": 23,
    }
    columns |= {"note_nlp": 14, "condition_occurrence": 16, "cdm_source": 11, "concept": 10, "cost": 22}
    columns |= {"visit_detail": 19, "device_exposure": 19, "procedure_occurrence": 16, "specimen": 15}
    assert {name: len(TABLES[name].columns) for name in columns} == columns
    assert TABLES["person"].column("person_id").type == "BIGINT"
    assert '"offset" VARCHAR' in TABLES["note_nlp"].definition
    assert TABLES["concept"].column("concept_code").type == "VARCHAR"
    assert TABLES["measurement"].column("value_as_number").type == "DOUBLE"


def test_codes_list_each_concept_of_the_window_once_and_in_order(hospital: Hospital) -> None:
    for person in (1, 2):
        hospital.person(person)
        hospital.visit(person)
    for days, concept in ((-10, DIABETES), (-9, DIABETES), (-5, PAIN), (-400, NO_DIABETES), (3, NO_DIABETES)):
        hospital.observed(1, days, concept=concept)
    wanted = {"domain": "observation", "concepts": [DIABETES, PAIN, NO_DIABETES], "days": [-365, 0]}
    assert column(hospital, {"codes": wanted}) == [[PAIN, DIABETES], None]
