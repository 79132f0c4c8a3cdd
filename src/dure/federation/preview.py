"""What a study will send, before anybody is asked: the page a review board reads first."""

from __future__ import annotations

from dataclasses import dataclass

from dure.federation.plan import plan_of
from dure.guard import gate
from dure.guard.rules import DEFAULT
from dure.study.method import Methods
from dure.study.permit import Grant
from dure.study.spec import Study


@dataclass(frozen=True, slots=True)
class Sent:
    """One array of a step's first round."""

    step: str
    method: str
    array: str
    shape: tuple[int, ...]
    kind: str
    per_hospital: bool


def preview(
    study: Study, methods: Methods, hospitals: tuple[str, ...]
) -> tuple[tuple[Sent, ...], dict[Grant, list[str]]]:
    """The arrays of every step's first round at these hospitals, and which steps need which permission.

    Raises DureError where a step cannot be asked.
    """
    plan = plan_of(study, methods, DEFAULT.minimum_people)
    found: list[Sent] = []
    for step in plan.steps:
        question, method = plan.question(step, hospitals), plan.method(step)
        for spec in gate.sent(method.declare(question, method.start(question))):
            if spec.bytes:
                found.append(Sent(step.name, step.method, spec.name, spec.shape, spec.kind, spec.per_hospital))
    return tuple(found), plan.grants_needed(hospitals, DEFAULT.minimum_hospitals)
