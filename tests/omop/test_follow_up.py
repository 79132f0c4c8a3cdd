"""Follow-up as a study's variables, on databases small enough to count by hand."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from dure.omop.cohort_query import cohort_rows
from dure.omop.database import create
from dure.study.cohort import Cohort, Criterion, Variable

INDEX = date(2024, 3, 1)
DRUG, STROKE = 21, 31
NAME = {"en": "name", "ko": "이름"}
COHORT = Cohort.model_validate({"name": NAME, "entry": {"domain": "drug", "concepts": [DRUG]}})


def hospital(path: Path, *, watched: tuple[int, int] | None, strokes: list[int], death: int | None = None) -> Any:
    """One person whose days are counted from the index date."""
    connection = create(path)

    def row(table: str, **values: Any) -> None:
        marks = ", ".join("?" for _ in values)
        connection.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", list(values.values()))

    def day(number: int) -> date:
        return INDEX + timedelta(number)

    row("person", person_id=1, gender_concept_id=8507, year_of_birth=1950, race_concept_id=0, ethnicity_concept_id=0)
    row("drug_exposure", drug_exposure_id=1, person_id=1, drug_concept_id=DRUG, drug_exposure_start_date=INDEX,
        drug_exposure_end_date=INDEX, drug_type_concept_id=0)  # fmt: skip
    if watched is not None:
        row("observation_period", observation_period_id=1, person_id=1, period_type_concept_id=0,
            observation_period_start_date=day(watched[0]), observation_period_end_date=day(watched[1]))  # fmt: skip
    for place, at in enumerate(strokes):
        row("condition_occurrence", condition_occurrence_id=place, person_id=1, condition_concept_id=STROKE,
            condition_start_date=day(at), condition_type_concept_id=0)  # fmt: skip
    if death is not None:
        row("death", person_id=1, death_date=day(death))
    return connection


def followed(connection: duckdb.DuckDBPyConnection, **more: Any) -> tuple[Any, Any]:
    asked = {"event": {"domain": "condition", "concepts": [STROKE]}, **more}
    variables = {
        name: Variable.model_validate({"label": NAME, source: asked})
        for name, source in (("time", "days_until"), ("event", "happened"))
    }
    table = cohort_rows(connection, COHORT, variables).table
    return table["time"].to_pylist()[0], table["event"].to_pylist()[0]


@pytest.mark.parametrize(
    ("history", "asked", "expected"),
    [
        ({"watched": (-400, 300), "strokes": []}, {}, (300, 0)),
        ({"watched": (-400, 300), "strokes": [120, 200]}, {}, (120, 1)),
        ({"watched": (-400, 300), "strokes": [300]}, {}, (300, 1)),
        ({"watched": (-400, 300), "strokes": [301]}, {}, (300, 0)),
        ({"watched": (-400, 300), "strokes": [-5, 0]}, {}, (300, 0)),
        ({"watched": (-400, 300), "strokes": [0]}, {"first_day": 0}, (0, 1)),
        ({"watched": (-400, 300), "strokes": [20, 90]}, {"first_day": 30}, (90, 1)),
        ({"watched": (-400, 300), "strokes": [120]}, {"at_most": 100}, (100, 0)),
        ({"watched": (-400, 300), "strokes": [100]}, {"at_most": 100}, (100, 1)),
        ({"watched": (-400, 300), "strokes": [120], "death": 50}, {}, (50, 0)),
        ({"watched": (-400, 300), "strokes": [50], "death": 50}, {}, (50, 1)),
        ({"watched": (-400, 0), "strokes": []}, {}, (0, 0)),
        ({"watched": (10, 300), "strokes": [120]}, {}, (None, None)),
        ({"watched": None, "strokes": [120]}, {}, (None, None)),
    ],
)
def test_follow_up_ends_with_what_comes_first(
    tmp_path: Path, history: dict[str, Any], asked: dict[str, Any], expected: tuple[Any, Any]
) -> None:
    with hospital(tmp_path / "cdm.duckdb", **history) as connection:
        assert followed(connection, **asked) == expected


def test_a_follow_up_has_no_window_of_its_own() -> None:
    event = {"domain": "condition", "concepts": [STROKE], "days": [0, 30]}
    with pytest.raises(ValueError, match="no `days`"):
        Variable.model_validate({"label": NAME, "happened": {"event": event}})


@pytest.mark.parametrize(("watched", "left"), [((-365, 10), 1), ((-364, 10), 0), ((5, 10), 0), (None, 0)])
def test_people_have_to_be_observed_before_the_index_date(
    tmp_path: Path, watched: tuple[int, int] | None, left: int
) -> None:
    asked = COHORT.model_copy(update={"criteria": (Criterion.model_validate({"name": NAME, "observed_days": 365}),)})
    with hospital(tmp_path / "cdm.duckdb", watched=watched, strokes=[]) as connection:
        assert cohort_rows(connection, asked, {}).attrition == (1, left)
