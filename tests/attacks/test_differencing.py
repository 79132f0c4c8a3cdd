"""Differencing: two cohorts that differ by one person tell that person's secret, unless cohorts are compared.

The attacker knows who the target is, and a code that only the target has; the criterion `without(target)` leaves the
target out. Denning & Denning 1979 ("The tracker"); Gadotti et al. 2019 ("When the signal is in the noise").
"""

from __future__ import annotations

import types
from pathlib import Path

import numpy as np

from dure.guard.release import rounded
from dure.guard.rules import DEFAULT, Limits

TARGETS, PAIRS = 200, 30


def told(count: int, limits: Limits) -> int | None:
    """A released count under a small-cell threshold and rounding, and nothing else."""
    return None if count < limits.minimum_people else rounded(count, limits)


def guesses(secret: np.ndarray, limits: Limits, pairs: int, seed: int) -> np.ndarray:
    """The attack on the unprotected twin: for every target, counts of the secret in random halves of the people, each
    with and without the target; a difference in any of them says yes."""
    random = np.random.default_rng(seed)
    found = np.zeros(len(secret), dtype=bool)
    for target in range(len(secret)):
        for _ in range(pairs):
            half = random.random(len(secret)) < 0.5
            half[target] = True
            with_target = told(int(secret[half].sum()), limits)
            half[target] = False
            found[target] |= with_target != told(int(secret[half].sum()), limits)
    return found


def test_differencing_reads_a_secret_unless_cohorts_are_compared(made: types.ModuleType, tmp_path: Path) -> None:
    hospital = made.Hospital(tmp_path, "one", TARGETS)
    hospital.secret = np.arange(TARGETS) % 2 == 0
    hospital.write(np.ones(TARGETS, dtype=bool))
    secret = hospital.secret

    # the twin: a small-cell threshold alone, then rounding as well
    threshold = Limits(round_to=1)
    assert (guesses(secret, threshold, 1, 1) == secret).mean() == 1.0
    one_pair = (guesses(secret, DEFAULT, 1, 1) == secret).mean()
    assert 0.55 <= one_pair <= 0.65  # 1/2 + 1/10 in theory: one count in five crosses a multiple of 5
    assert (guesses(secret, DEFAULT, PAIRS, 1) == secret).mean() >= 0.99

    # ours: the same pairs, asked of a real runner, each by another proposer, so that none is locked out
    whole = hospital.answer(made.study(), "nobody")
    assert whole.arrays["by secret"].tolist()[:2] == [100, 100]
    refused, found = 0, np.zeros(TARGETS, dtype=bool)
    for place, person in enumerate(hospital.people):
        part = hospital.answer(made.study(made.without(int(person))), f"proposer {person}")
        refused += part.kind == "error" and part.error["fields"]["rule"] == "history_overlap"
        if part.kind == "summary":
            found[place] = part.arrays["by secret"][1] != whole.arrays["by secret"][1]
    assert refused == TARGETS
    assert (found == secret).mean() <= 0.55


def test_many_pairs_about_one_person_end_in_a_lockout(made: types.ModuleType, tmp_path: Path) -> None:
    """Random halves with and without the target: each second one is refused, and after seven the proposer is out."""
    hospital = made.Hospital(tmp_path, "one", 400, tags=PAIRS)
    target = int(hospital.people[0])
    hospital.tags[0] = True
    hospital.write(np.ones(400, dtype=bool))
    rules = []
    for tag in range(10):
        for criteria in ([made.tagged(tag)], [made.tagged(tag), made.without(target)]):
            answer = hospital.answer(made.study(*criteria), "stubborn")
            rules.append("" if answer.kind == "summary" else str(answer.error["fields"]["rule"]))
    assert rules == ["", "history_overlap"] * 7 + ["lockout"] * 6
