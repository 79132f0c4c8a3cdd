"""No differencing: how two cohorts are compared, which questions are equivalent, and when too many are alike.

Arithmetic and rules only; what a hospital remembers lies in its own store (`dure.site.history`).
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.errors import Refused
from dure.guard.rules import refusal
from dure.study.packing import pack
from dure.study.spec import Study

NEAR = 0.05
"""Share of its people by which a cohort differs from an earlier one of the same proposer and is still alike."""
People = NDArray[np.int64]
"""Sorted person ids, each once."""


def people_of(person: NDArray[np.int64]) -> People:
    people = np.sort(np.asarray(person, dtype=np.int64), kind="stable")
    return people[np.concatenate([[True], np.diff(people) > 0])] if len(people) else people


def packed(people: People) -> bytes:
    """Exact and small: the steps from each id to the next, compressed (a million people take about 1 MB)."""
    return zlib.compress(np.diff(people, prepend=np.int64(0)).astype("<i8").tobytes(), level=1)


def unpacked(data: bytes) -> People:
    return np.cumsum(np.frombuffer(zlib.decompress(data), dtype="<i8"), dtype=np.int64)


def digest(people: People) -> str:
    return hashlib.sha256(people.astype("<i8").tobytes()).hexdigest()


def difference(one: People, other: People) -> int:
    """People in one cohort and not in the other: |A Δ B|."""
    merged = np.sort(np.concatenate([one, other]), kind="stable")  # two sorted runs: merged in one pass
    return len(merged) - 2 * int((merged[1:] == merged[:-1]).sum())


def check_overlap(changed: int, minimum: int, studies: Sequence[str]) -> None:
    """Raise Refused where answers about two cohorts would tell of a few people: they differ, by fewer than `minimum`.
    How many, and which studies, stay at the hospital."""
    if 0 < changed < minimum:
        raise overlap(f"differs by {changed} people from the cohort of {', '.join(studies)}")


def alike(changed: int, people: int) -> bool:
    """Whether the cohort is an earlier one with a few people exchanged."""
    return 0 < changed < NEAR * people


def overlap(detail: str) -> Refused:
    """The refusal, with what only the hospital's own log holds."""
    error = refusal("history_overlap")
    error.detail = detail
    return error


def cohort_digest(study: Study) -> str:
    """Who is asked about, whatever the cohort and its criteria are called and whatever is known of its people."""
    return _digest(_unnamed(study.cohort.model_dump(mode="json", exclude_defaults=True)))


def question_digest(study: Study, asked: Any) -> str:
    """A question by what its answer depends on: the cohort, what is known of each person, and `asked` (plain data:
    methods with their sources and parameters, hospitals, state, round). Names and labels change no number."""
    variables = {name: variable.model_dump(mode="json") for name, variable in study.variables.items()}
    return _digest([cohort_digest(study), _unnamed(variables), asked])


def _unnamed(data: Any) -> Any:
    """Without the bilingual names and labels of a document."""
    if isinstance(data, dict):
        return {key: _unnamed(value) for key, value in data.items() if not _is_words(key, value)}
    return [_unnamed(item) for item in data] if isinstance(data, list | tuple) else data


def _is_words(key: str, value: Any) -> bool:
    return key in ("name", "label") and isinstance(value, dict) and set(value) <= {"en", "ko"}


def _digest(data: Any) -> str:
    return hashlib.sha256(pack(data)).hexdigest()
