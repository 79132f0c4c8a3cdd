"""Reconstruction: many counts of random halves of the people determine everybody's secret.

Dinur & Nissim 2003 ("Revealing information while preserving privacy"); Cohen & Nissim 2020 on a real interface. The
attacker knows of everybody which half they are in (attributes such as `tag3`), and wants the one bit that is secret.
Accuracy is over all people; a coin has 0.5.
"""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from dure.guard.release import rounded
from dure.guard.rules import DEFAULT
from dure.hub import studies
from dure.site import inbox, open_feasibility
from dure.study.method import installed_methods

PEOPLE = [400, 400, 400]
TAGS = 100
ENTRY = 1
"""Numbers that every released attrition table of a cohort without criteria holds."""


def accuracy(halves: np.ndarray, told: np.ndarray, secret: np.ndarray) -> float:
    """The attack: the secrets nearest to one half each that fit what was told (least squares of least norm).

    halves (queries, people) 0/1; told (queries,) people with the secret in each, NaN where nothing was told.
    """
    known = ~np.isnan(told)
    design = halves[known].astype(float)
    rest = told[known] - 0.5 * design.sum(axis=1)
    if len(design) > design.shape[1]:
        found = 0.5 + np.linalg.solve(design.T @ design, design.T @ rest)
    else:
        found = 0.5 + np.linalg.lstsq(design, rest, rcond=1e-10)[0]
    return float(((found > 0.5) == secret).mean())


def crossed(tables: dict[str, Any], tags: range) -> tuple[list[int], np.ndarray]:
    """(rows of the design, told) from released tables `tag × secret`: those with the tag, and those without it."""
    rows, told = [], []
    for tag in tags:
        name = f"by_tag{tag}_and_secret"
        if name not in tables:
            continue
        frame = tables[name].frame.filter(pl.col("secret") == "1")
        rows += [tag, -1 - tag]
        told += [frame.filter(pl.col(f"tag{tag}") == level)["n"][0] for level in ("1", "0")]
    return rows, np.array([np.nan if value is None else value for value in told], dtype=float)


def design(tags: np.ndarray, rows: list[int]) -> np.ndarray:
    return np.array([tags[:, row] if row >= 0 else ~tags[:, -1 - row] for row in rows])


def question(made: types.ModuleType, tags: range, **more: Any) -> Any:
    """How many people there are of each tag, with and without the secret."""
    variables = {
        f"tag{tag}": {"label": made.WORDS, "present": {"domain": "observation", "concepts": [made.TAG + tag]}}
        for tag in tags
    }
    pairs = [[f"tag{tag}", "secret"] for tag in tags]
    step = {"name": "counts", "method": "feasibility", "parameters": {"crossed": pairs}}
    return made.study(steps=[step], variables=variables, **more)


@pytest.fixture
def alliance(made: types.ModuleType, tmp_path: Path) -> Any:
    found = made.Alliance(tmp_path, PEOPLE, tags=TAGS)
    for hospital in found.hospitals.values():
        hospital.settings(open_feasibility={"epsilon_per_study": 1.0, "epsilon_per_month": 2.0})
    return found


def twin(secret: np.ndarray, queries: int, limits: Any = DEFAULT) -> float:
    """Counts of random halves, as many as one likes, under a small-cell threshold and rounding and nothing else."""
    random = np.random.default_rng(2)
    halves = random.random((queries, len(secret))) < 0.5
    counts = halves @ secret.astype(int)
    told = [rounded(int(n), limits) if n >= limits.minimum_people else np.nan for n in counts]
    return accuracy(halves, np.array(told, dtype=float), secret)


def test_many_free_counts_reconstruct_everybody_unless_they_draw_on_a_budget(
    made: types.ModuleType, alliance: Any
) -> None:
    pytest.importorskip("opendp", reason="open questions need the extra 'budget'")
    assert twin(alliance.secret, 4 * len(alliance.secret)) >= 0.95

    # ours: open questions until the budget of a month is spent, each with as many counts as the cap lets through
    rows: list[int] = []
    told = np.array([])
    status = []
    size = int((DEFAULT.open_numbers_per_person * sum(PEOPLE) - 10) / 4 / 2)
    for number in range(4):
        tags = range(number * size, (number + 1) * size)
        asked = question(made, tags, open={"epsilon": 1.0})
        studies.submit(alliance.store, asked, installed_methods(), "curious")
        for name, hospital in alliance.hospitals.items():
            hospital.arrive(asked, "curious")
            open_feasibility.admit(hospital.site, asked, installed_methods())
            studies.receive_permit(alliance.store, asked.hash, name, inbox.own_permit(hospital.site, asked.hash))
        fold = alliance.run(asked)[1]["counts"].folds[None]
        status.append(fold.error.rule if fold.error else fold.status)
        if fold.released:
            more, values = crossed(fold.released.tables, tags)
            rows, told = rows + more, np.concatenate([told, values])
    assert status == ["finished", "finished", "budget", "budget"]
    assert accuracy(design(alliance.tags, rows), told, alliance.secret) <= 0.55


def test_a_study_that_boards_permitted_tells_no_more_than_its_cap(made: types.ModuleType, tmp_path: Path) -> None:
    """No noise here, so every count tells something; the cap of 0.33 numbers a person keeps them far too few.

    m independent counts about n people let an attacker who knows everything else guess right for
    Φ(√(m/(n − m))) of them: 0.62 here, where four numbers are one independent count. Nobody is reconstructed.
    """
    alliance = made.Alliance(tmp_path, [200] * 3, tags=TAGS)
    assert twin(alliance.secret, 4 * len(alliance.secret)) >= 0.95
    most = int(DEFAULT.numbers_per_person * len(alliance.secret))
    fits, over = (most - ENTRY) // 4, (most - ENTRY) // 4 + 1
    _, refused = alliance.ask(question(made, range(over)))
    assert refused["counts"].folds[None].error.rule == "numbers_per_person"
    _, outcomes = alliance.ask(question(made, range(fits)), "another")
    fold = outcomes["counts"].folds[None]
    rows, told = crossed(fold.released.tables, range(fits))
    found = accuracy(design(alliance.tags, rows), told, alliance.secret)
    assert found <= 0.65
    # and the next study of these people, by whomever, gets nothing more
    _, more = alliance.ask(question(made, range(fits, fits + 1)), "a third")
    assert more["counts"].folds[None].error.rule == "numbers_per_person"
