"""Invented hospitals for the worked study: people who begin drug A or drug B, as OMOP databases.

Doctors prefer A for older and sicker people, by hospital more or less; A lowers the hazard of stroke by the factor
`HAZARD_RATIO`. An ingrown nail depends on age only, so any effect of A on it would be confounding. All
concepts are invented (identifiers from 2,000,000,000), as are the people; the same seed gives the same databases.
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from dure.omop.database import create

DRUG_A, DRUG_B = 2_000_000_001, 2_000_000_002
DIABETES, KIDNEY, STROKE, NAIL = 2_000_000_011, 2_000_000_012, 2_000_000_021, 2_000_000_022
PRESSURE, MMHG = 2_000_000_031, 2_000_000_041
FEMALE, MALE = 8532, 8507
HAZARD_RATIO = 0.7
STUDY_START = date(2018, 1, 1)
HOSPITALS = {"Seorak": 2600, "Hallasan": 2100, "Jirisan": 1700, "Odaesan": 1300, "Naejangsan": 900}


def build(folder: Path, seed: int = 4) -> dict[str, Path]:
    """One database for each hospital; their files by name."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for place, (name, people) in enumerate(HOSPITALS.items()):
        path = folder / f"{name}.duckdb"
        _database(path, people, np.random.default_rng([seed, place]), preference=0.25 * (place - 2))
        found[name] = path
    return found


def _database(path: Path, n: int, random: np.random.Generator, preference: float) -> None:
    age = np.clip(random.normal(64, 11, n), 25, 95)
    male = random.random(n) < 0.52
    diabetes = random.random(n) < 1 / (1 + np.exp(-(-1.4 + 0.03 * (age - 64))))
    kidney = random.random(n) < 1 / (1 + np.exp(-(-2.2 + 0.04 * (age - 64) + 0.5 * diabetes)))
    pressure = 128 + 0.3 * (age - 64) + 6 * diabetes + random.normal(0, 12, n)
    logit = preference + 0.035 * (age - 64) + 0.7 * diabetes + 0.6 * kidney + 0.015 * (pressure - 128)
    on_a = random.random(n) < 1 / (1 + np.exp(-logit))
    risk = 0.055 * (age - 64) + 0.5 * diabetes + 0.6 * kidney + 0.2 * male + 0.012 * (pressure - 128)
    years_to_stroke = random.exponential(1 / (0.035 * np.exp(risk + np.log(HAZARD_RATIO) * on_a)))
    years_to_nail = random.exponential(1 / (0.04 * np.exp(0.03 * (age - 64))))
    index = [STUDY_START + timedelta(int(day)) for day in random.integers(0, 1400, n)]
    before = random.integers(30, 1500, n)  # some were observed for less than a year
    after = np.minimum(random.exponential(1500, n), 1800).astype(int) + 1
    person = np.arange(1, n + 1)

    def days(offset: np.ndarray) -> list[date]:
        return [start + timedelta(int(shift)) for start, shift in zip(index, offset)]

    tables = {
        "person": {
            "person_id": person,
            "gender_concept_id": np.where(male, MALE, FEMALE),
            "year_of_birth": [start.year - int(years) for start, years in zip(index, age)],
            "race_concept_id": 0,
            "ethnicity_concept_id": 0,
        },
        "observation_period": {
            "observation_period_id": person,
            "person_id": person,
            "observation_period_start_date": days(-before),
            "observation_period_end_date": days(after),
            "period_type_concept_id": 0,
        },
        "drug_exposure": {
            "drug_exposure_id": person,
            "person_id": person,
            "drug_concept_id": np.where(on_a, DRUG_A, DRUG_B),
            "drug_exposure_start_date": index,
            "drug_exposure_end_date": days(np.full(n, 30)),
            "drug_type_concept_id": 0,
        },
        "measurement": {
            "measurement_id": person,
            "person_id": person,
            "measurement_concept_id": PRESSURE,
            "measurement_date": days(-random.integers(0, 90, n)),
            "measurement_type_concept_id": 0,
            "value_as_number": pressure.round(),
            "unit_concept_id": MMHG,
        },
    }
    recorded = [
        *((at, DIABETES, -200) for at in np.flatnonzero(diabetes)),
        *((at, KIDNEY, -150) for at in np.flatnonzero(kidney)),
        *((at, STROKE, -400) for at in np.flatnonzero(random.random(n) < 0.04)),
        *((at, STROKE, int(years_to_stroke[at] * 365.25) + 1) for at in range(n) if years_to_stroke[at] < 8),
        *((at, NAIL, int(years_to_nail[at] * 365.25) + 1) for at in range(n) if years_to_nail[at] < 8),
    ]
    tables["condition_occurrence"] = {
        "condition_occurrence_id": np.arange(1, len(recorded) + 1),
        "person_id": [int(person[at]) for at, _, _ in recorded],
        "condition_concept_id": [concept for _, concept, _ in recorded],
        "condition_start_date": [index[at] + timedelta(int(shift)) for at, _, shift in recorded],
        "condition_type_concept_id": 0,
    }
    path.unlink(missing_ok=True)
    with create(path) as connection:
        for table, columns in tables.items():
            frame = pl.DataFrame(columns)  # noqa: F841 -- read by name below
            connection.execute(f"INSERT INTO {table} ({', '.join(columns)}) SELECT * FROM frame")
