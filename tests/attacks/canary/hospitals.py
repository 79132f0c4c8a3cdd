"""Hospitals in which every patient is marked: numbers of 50 random bits that nobody else has, and texts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dure.omop.database import create
from dure.study.spec import Study

HOSPITALS = ("Northern", "Southern", "Western", "Eastern")
PEOPLE = 500
VISIT, MMHG, FEMALE, MALE = 9202, 8876, 8532, 8507
PRESSURE, MARKER, TIME = 2_000_000_101, 2_000_000_102, 2_000_000_103
DISEASE, TREATED, EVENT, GROUP = 2_000_000_401, 2_000_000_402, 2_000_000_403, 2_000_000_201
LEVELS = {"a": 2_000_000_211, "b": 2_000_000_212, "c": 2_000_000_213}
MEASURED = {"pressure": PRESSURE, "marker": MARKER, "time": TIME}
"""The variables that hold a mark; age, sex, group and yes-or-no variables have too few values to be one."""
WORDS = {"en": "canary", "ko": "카나리아"}
PREDICTORS = "age + sex + group + pressure + marker"


@dataclass(frozen=True)
class Patients:
    """One hospital's people: `numbers` and `values` (people, 3) are marks, `text` is in all their texts."""

    hospital: str
    text: str
    numbers: np.ndarray
    values: np.ndarray
    age: np.ndarray
    sex: np.ndarray
    group: np.ndarray
    flags: dict[int, np.ndarray]


def patients(hospital: str, seed: int) -> Patients:
    random = np.random.default_rng([seed, HOSPITALS.index(hospital)])
    n = PEOPLE
    age, sex, group = random.integers(40, 85, n), random.random(n) < 0.5, random.integers(0, 3, n)
    pressure = np.clip(random.normal(135, 15, n), 80, 220)
    marker = np.clip(random.normal(5, 1.5, n) + 0.8 * (group == 1), 1, 12)
    risk = 0.05 * (age - 62) + 0.02 * (pressure - 135) + 0.3 * (marker - 5)
    treated = random.random(n) < 1 / (1 + np.exp(-0.6 * risk))
    disease = random.random(n) < 1 / (1 + np.exp(-risk - 0.4 * treated))
    death, censored = random.exponential(20 * np.exp(-0.4 * risk)), random.uniform(5, 40, n)
    time = np.clip(np.minimum(death, censored), 0.1, 39.9)
    values = np.column_stack([pressure, marker, time])
    values.view(np.int64)[:] ^= random.integers(0, 2**24, values.shape)  # random to the last bit
    numbers = np.sort(random.choice(2**51, n, replace=False) + 2**51)
    text = f"밭머리-{random.bytes(8).hex()}"
    return Patients(
        hospital, text, numbers, values, age, sex, group, {DISEASE: disease, TREATED: treated, EVENT: death <= censored}
    )


def write(people: Patients, database: Path) -> None:
    """The hospital's OMOP database, with the mark in every text that a patient has."""
    person, day = pl.Series(people.numbers), pl.lit("2025-06-15").str.to_date()
    texts = pl.Series([f"{people.text}/{place:04d}" for place in range(PEOPLE)])
    zero = pl.lit(0)
    born = pl.DataFrame(
        {
            "person_id": person,
            "year_of_birth": 2025 - people.age,
            "gender_concept_id": np.where(people.sex, FEMALE, MALE),
            "person_source_value": texts,
        }
    ).with_columns(race_concept_id=zero, ethnicity_concept_id=zero)
    visits = pl.DataFrame({"visit_occurrence_id": person, "person_id": person}).with_columns(
        visit_concept_id=pl.lit(VISIT), visit_start_date=day, visit_end_date=day, visit_type_concept_id=zero
    )
    notes = pl.DataFrame({"note_id": person, "person_id": person, "note_text": "메모 " + texts}).with_columns(
        note_date=day, note_type_concept_id=zero, note_class_concept_id=zero, encoding_concept_id=zero
    )
    notes = notes.with_columns(language_concept_id=zero)
    measured = pl.concat(
        pl.DataFrame(
            {"measurement_id": person + place, "person_id": person, "value_as_number": people.values[:, place]}
        ).with_columns(measurement_concept_id=pl.lit(concept), measurement_source_value=texts)
        for place, concept in enumerate(MEASURED.values())
    ).with_columns(measurement_date=day, measurement_type_concept_id=zero, unit_concept_id=pl.lit(MMHG))
    conditions = pl.concat(
        pl.DataFrame({"person_id": person.filter(pl.Series(has))}).with_columns(condition_concept_id=pl.lit(concept))
        for concept, has in people.flags.items()
    ).with_columns(condition_start_date=day, condition_type_concept_id=zero)
    conditions = conditions.with_columns(condition_occurrence_id=pl.int_range(conditions.height))
    observed = pl.DataFrame(
        {
            "observation_id": person,
            "person_id": person,
            "value_as_concept_id": np.array(list(LEVELS.values()))[people.group],
        }
    ).with_columns(observation_concept_id=pl.lit(GROUP), observation_date=day, observation_type_concept_id=zero)
    tables = {"person": born, "visit_occurrence": visits, "note": notes, "measurement": measured}
    with create(database) as connection:
        for table, rows in (tables | {"condition_occurrence": conditions, "observation": observed}).items():
            names = ", ".join(rows.columns)
            connection.register("incoming", rows.to_arrow())
            connection.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM incoming")
            connection.unregister("incoming")


def _label(name: str) -> dict[str, str]:
    return {"en": name, "ko": name}


def _flag(concept: int) -> dict[str, Any]:
    return {"present": {"domain": "condition", "concepts": [concept]}}


VARIABLES: dict[str, Any] = {
    "age": {"age": True},
    "sex": {"sex": {"female": FEMALE, "male": MALE}},
    "group": {
        "category": {"domain": "observation", "concepts": [GROUP]},
        "levels": {k: [v] for k, v in LEVELS.items()},
    },
    "disease": _flag(DISEASE),
    "treated": _flag(TREATED),
    "event": _flag(EVENT),
    **{
        name: {"number": {"domain": "measurement", "concepts": [concept], "unit": MMHG}}
        for name, concept in MEASURED.items()
    },
}
_MODEL = {"formula": f"disease ~ {PREDICTORS}", "family": "binomial"}
_INPUTS = {"outcome": "disease", "inputs": ["age", "sex", "group", "pressure", "marker"]}
STEPS: tuple[dict[str, Any], ...] = (
    {"name": "leak", "method": "leaking", "parameters": {"columns": list(MEASURED)}},
    {"name": "count", "method": "feasibility", "parameters": {"by": ["sex", "group"], "by_hospital": True}},
    {
        "name": "table",
        "method": "table_one",
        "parameters": {
            "variables": ["age", "sex", "group", "pressure", "marker"],
            "by": "disease",
            "medians": {"pressure": 1},
        },
    },
    {"name": "table_hospitals", "method": "table_one", "parameters": {"variables": ["pressure", "age"], "by": "site"}},
    {"name": "model", "method": "regression", "parameters": _MODEL},
    {
        "name": "linear",
        "method": "regression",
        "parameters": {"formula": "marker ~ age + sex + pressure", "family": "gaussian", "covariance": "HC0"},
    },
    {"name": "own", "method": "regression", "scope": "each", "parameters": _MODEL},
    {"name": "without", "method": "regression", "scope": "all_but_one", "release": False, "parameters": _MODEL},
    {
        "name": "median",
        "method": "quantiles",
        "parameters": {"columns": ["pressure", "marker"], "resolution": {"pressure": 1, "marker": 0.1}, "by": "sex"},
    },
    {
        "name": "curves",
        "method": "survival",
        "parameters": {"time": "time", "event": "event", "group": "sex", "grid": {"width": 4, "until": 40}},
    },
    {
        "name": "rates",
        "method": "incidence",
        "parameters": {"event": "event", "time": "time", "by": "sex", "per": 100},
    },
    {
        "name": "hazard",
        "method": "cox",
        "parameters": {"formula": "age + sex + pressure + marker", "time": "time", "event": "event"},
    },
    {
        "name": "score",
        "method": "propensity",
        "parameters": {"treatment": "treated", "formula": "age + sex + group + pressure + marker"},
    },
    {
        "name": "matched",
        "method": "matching",
        "uses": ["score"],
        "parameters": {"treatment": "treated", "score": "score.score", "balance": ["age", "pressure"]},
    },
    {
        "name": "weighted",
        "method": "weighting",
        "uses": ["score"],
        "parameters": {"treatment": "treated", "score": "score.score", "outcome": "disease", "kind": "overlap"},
    },
    {
        "name": "judged",
        "method": "validation",
        "uses": ["model"],
        "parameters": {"outcome": "disease", "scores": ["model.prediction"], "bins": 5, "hospitals": True},
    },
    {
        "name": "combined",
        "method": "meta_analysis",
        "parameters": {"outcome": "disease", "group": "treated", "mantel_haenszel": False},
    },
    {"name": "net", "method": "training", "parameters": {**_INPUTS, "hidden": [5], "rounds": 3, "batch_size": 64}},
    {"name": "forest", "method": "trees", "parameters": {**_INPUTS, "trees": 2, "depth": 2, "bins": 8}},
    {"name": "small_net", "method": "network", "parameters": {**_INPUTS, "hidden": 3, "rounds": 3}},
)
FEW = ("leak", "count", "table", "model")
"""The steps of the fast half."""


def study(*names: str) -> Study:
    """The study of the steps named; every step, where none is."""
    steps = [step for step in STEPS if not names or step["name"] in names]
    document = {
        "dure": 1,
        "title": WORDS,
        "question": WORDS,
        "cohort": {"name": WORDS, "entry": {"domain": "visit", "concepts": [VISIT]}},
        "variables": {name: {"label": _label(name), **found} for name, found in VARIABLES.items()},
        "steps": steps,
    }
    return Study.model_validate(json.loads(json.dumps(document)))
