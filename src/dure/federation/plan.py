"""What is run: the steps of a study with everything both sides need to ask and answer the same questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dure.language import Words
from dure.study.method import Method, Methods, Question, find_method, read_parameters
from dure.study.permit import Grant
from dure.study.regroup import regrouped_columns
from dure.study.result import Result
from dure.study.rows import Column
from dure.study.spec import Step, Study, lineage


@dataclass(frozen=True)
class Plan:
    """Steps over declared columns. `study` is the spec's hash; hub and hospitals build the same plan from it."""

    study: str
    steps: tuple[Step, ...]
    columns: Mapping[str, Column]
    methods: Methods
    criteria: tuple[Words, ...] = ()
    minimum_people: int = 0

    def step(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)

    def method(self, step: Step) -> Method:
        return find_method(step.method, self.methods)

    def lineage(self, step: Step) -> tuple[Step, ...]:
        """Steps that `step` builds on, in order."""
        return lineage(self.steps, step)

    def question(self, step: Step, hospitals: tuple[str, ...], results: Mapping[str, Result] | None = None) -> Question:
        """The step's question: declared columns, those derived by the steps it uses, and their results."""
        columns = dict(self.columns)
        for earlier in self.lineage(step):
            columns.update(self.derived(earlier, hospitals))
        method = self.method(step)
        parameters = read_parameters(method, step.parameters)
        used = {name: result for name, result in (results or {}).items() if name in step.uses}
        columns = regrouped_columns(columns, getattr(parameters, "levels", None))
        return Question(parameters, columns, hospitals, used, self.criteria, self.minimum_people)

    def derived(self, step: Step, hospitals: tuple[str, ...]) -> dict[str, Column]:
        """`step.column` → declaration, for the columns the step derives."""
        given = self.method(step).derives(self.question(step, hospitals))
        return {f"{step.name}.{name}": column for name, column in given.items()}

    def check(self, hospitals: tuple[str, ...]) -> None:
        """Read every step's parameters and declare its first round: errors before anybody is asked."""
        for step in self.steps:
            question = self.question(step, hospitals)
            method = self.method(step)
            method.declare(question, method.start(question))

    def grants_needed(self, hospitals: tuple[str, ...], minimum: int) -> dict[Grant, list[str]]:
        """Which steps need which permission of every hospital, as far as their first rounds tell."""
        needed: dict[Grant, list[str]] = {}
        for step in self.steps:
            question, method = self.question(step, hospitals), self.method(step)
            declared = method.declare(question, method.start(question))
            members = len(hospitals) - (step.scope == "all_but_one")
            alone = any(spec.per_hospital or spec.opens_hospitals for spec in declared)
            if alone or (step.scope == "each" and step.release) or members < minimum:
                needed.setdefault("per_hospital", []).append(step.name)
            if step.scope == "all_but_one":
                needed.setdefault("difference", []).append(step.name)
        return needed


def plan_of(study: Study, methods: Methods, minimum_people: int = 0) -> Plan:
    """The plan of a study document."""
    columns = {
        name: Column(variable.kind, variable.level_names, variable.label.words())
        for name, variable in study.variables.items()
    }
    criteria = (study.cohort.name.words(), *(criterion.name.words() for criterion in study.cohort.criteria))
    return Plan(study.hash, study.steps, columns, methods, criteria, minimum_people)
