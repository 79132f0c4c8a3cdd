"""Score inversion: a gradient of one person is that person's row; the difference of two gradients is too.

Zhu, Liu & Han 2019 ("Deep leakage from gradients"); for a generalised linear model it needs no optimisation: the score
is (y − p)·x, so each entry divided by the intercept's is the person's own value (Geiping et al. 2020, proposition 3.1).
"""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np

from dure.federation.answer import Desk, answer
from dure.federation.kept import InMemory
from dure.federation.messages import Answer, Ask
from dure.federation.plan import plan_of
from dure.guard.rules import OFF
from dure.study.method import installed_methods

TARGETS = 40
MODEL = {
    "name": "model",
    "method": "regression",
    "parameters": {"formula": "secret ~ pressure + C(sex)", "family": "binomial"},
}
AT_ZERO = {"phase": "newton", "round": 1, "beta": np.zeros(3), "centre": np.zeros(3)}
"""The state of a hub that asks for the score at coefficients of its own choice."""
HOSPITALS = ("one", "x", "y")


def unprotected(hospital: Any, study: Any) -> np.ndarray:
    """The twin: the same rows and the same method, and no rule between them and the hub."""
    plan = plan_of(study, installed_methods())
    rows = hospital.runner.rows(study, plan)
    desk = Desk("one", plan, frozenset({"per_hospital"}), OFF, lambda: rows, InMemory())
    reply = Answer.from_bytes(answer(Ask("run", study.hash, "model", 1, HOSPITALS, AT_ZERO), desk))
    return np.asarray(reply.arrays["gradient"])


def protected(hospital: Any, study: Any) -> np.ndarray | None:
    reply = hospital.answer(study, f"proposer of {study.hash}", round=1, state=AT_ZERO)
    return np.asarray(reply.arrays["gradient"]) if reply.kind == "summary" else None


def row_of(score: np.ndarray | None) -> np.ndarray | None:
    """(pressure, male) of the one person whose score this is."""
    return score[1:] / score[0] if score is not None and abs(score[0]) > 1e-9 else None


def only(made: types.ModuleType, person: int) -> dict[str, Any]:
    return {"name": made.WORDS, "event": {"domain": "observation", "concepts": [made.OWN + person]}}


def test_a_score_gives_rows_back_unless_cohorts_have_people_and_history(made: types.ModuleType, tmp_path: Path) -> None:
    hospital = made.Hospital(tmp_path, "one", 200)
    everybody = made.study(steps=[MODEL])

    def recovered(score: Any) -> tuple[int, int]:
        """People whose row comes out of the score of them alone, and out of the difference of two."""
        whole, alone, apart = score(hospital, everybody), 0, 0
        for place in range(TARGETS):
            person = int(hospital.people[place])
            true = np.array([hospital.pressure[place], float(not hospital.sex[place])])
            own = row_of(score(hospital, made.study(only(made, person), steps=[MODEL])))
            rest = score(hospital, made.study(made.without(person), steps=[MODEL]))
            difference = row_of(whole - rest) if whole is not None and rest is not None else None
            alone += own is not None and np.allclose(own, true, atol=1e-6)
            apart += difference is not None and np.allclose(difference, true, atol=1e-6)
        return alone, apart

    assert recovered(unprotected) == (TARGETS, TARGETS)
    assert recovered(protected) == (0, 0)
    refused = [entry["rule"] for entry in hospital.site.audit.entries() if entry["event"] == "refused"]
    assert sorted(refused) == ["history_overlap"] * TARGETS + ["minimum_cohort"] * TARGETS
