"""Made hospitals for attacks: real OMOP databases, real runners, and a secret that the attacker is after."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from dure.federation.ledger import Outcome
from dure.federation.local_engine import LocalEngine
from dure.federation.messages import Answer, Ask
from dure.federation.plan import plan_of
from dure.federation.rounds import Run
from dure.hub import studies
from dure.hub.runs import run_study
from dure.hub.store import Store
from dure.omop.database import create
from dure.site import inbox
from dure.site.runner import Runner
from dure.site.settings import Site, create_site
from dure.study.method import installed_methods
from dure.study.permit import Grant
from dure.study.spec import Study

VISIT, SECRET, NO_SECRET, PRESSURE, MMHG = 9202, 2_000_000_401, 2_000_000_402, 2_000_000_101, 8876
FEMALE, MALE = 8532, 8507
OWN = 2_001_000_000
"""+ a person's number: a concept recorded of that person alone, with which a criterion names them."""
TAG = 2_002_000_000
"""+ k: a concept recorded of a random half of the people."""
ENTRY = {"domain": "visit", "concepts": [VISIT]}
WORDS = {"en": "name", "ko": "이름"}
VARIABLES: dict[str, Any] = {
    "secret": {
        "label": {"en": "Secret", "ko": "비밀"},
        "present": {"domain": "condition", "concepts": [SECRET]},
    },
    "sex": {"label": {"en": "Sex", "ko": "성별"}, "sex": {"female": FEMALE, "male": MALE}},
    "pressure": {
        "label": {"en": "Pressure", "ko": "혈압"},
        "number": {"domain": "measurement", "concepts": [PRESSURE], "unit": MMHG},
    },
}
COUNT = {"name": "count", "method": "feasibility", "parameters": {"by": ["secret"]}}


def without(*people: int) -> dict[str, Any]:
    """A criterion that leaves out the people named."""
    event = {"domain": "observation", "concepts": [OWN + person for person in people]}
    return {"name": WORDS, "event": event, "exclude": True}


def tagged(tag: int) -> dict[str, Any]:
    """A criterion that keeps the random half who have the tag."""
    return {"name": WORDS, "event": {"domain": "observation", "concepts": [TAG + tag]}}


def study(
    *criteria: Mapping[str, Any],
    steps: Sequence[Mapping[str, Any]] = (COUNT,),
    title: str = "study",
    **more: Any,
) -> Study:
    """A study of everybody with a visit for whom all criteria hold."""
    cohort = {"name": WORDS, "entry": ENTRY, "criteria": list(criteria)}
    words = {"en": title, "ko": title}
    known = more.pop("variables", {}) | VARIABLES
    document = {"dure": 1, "title": words, "question": words, "cohort": cohort, "variables": known, "steps": steps}
    return Study.model_validate(json.loads(json.dumps({**document, **more})))


class Bare(Runner):
    """A hospital's runner whose answers can be read before they are masked; every rule is on."""

    def _check_masks(self, ask: Any, permit: Any) -> None:
        return


class Hospital:
    """One hospital of `people` with a fair secret each; person ids count from `first`."""

    def __init__(self, folder: Path, name: str, people: int, first: int = 1, tags: int = 0, seed: int = 1) -> None:
        random = np.random.default_rng([seed, first])
        self.site = create_site(folder / name, name)
        self.people = np.arange(first, first + people)
        self.secret = random.random(people) < 0.5
        self.sex = random.random(people) < 0.5
        self.tags = random.random((people, tags)) < 0.5
        self.pressure = random.normal(130, 15, people).round()
        self.runner = Bare(self.site, installed_methods())
        self.write(np.ones(people, dtype=bool))

    def write(self, there: np.ndarray) -> None:
        """The database with only the people for whom `there` is true."""
        self.site.database.unlink(missing_ok=True)
        people = pl.Series(self.people[there])
        sex = np.where(self.sex, FEMALE, MALE)[there]
        day = pl.lit("2024-06-15").str.to_date()
        born = pl.DataFrame({"person_id": people, "gender_concept_id": sex}).with_columns(
            year_of_birth=pl.lit(1960), race_concept_id=pl.lit(0), ethnicity_concept_id=pl.lit(0)
        )
        visits = pl.DataFrame({"visit_occurrence_id": people, "person_id": people}).with_columns(
            visit_concept_id=pl.lit(VISIT), visit_start_date=day, visit_end_date=day, visit_type_concept_id=pl.lit(0)
        )
        ill = pl.Series(self.people[there & self.secret])
        conditions = pl.DataFrame({"condition_occurrence_id": ill, "person_id": ill}).with_columns(
            condition_concept_id=pl.lit(SECRET), condition_start_date=day, condition_type_concept_id=pl.lit(0)
        )
        measured = pl.DataFrame(
            {"measurement_id": people, "person_id": people, "value_as_number": self.pressure[there]}
        ).with_columns(
            measurement_concept_id=pl.lit(PRESSURE),
            measurement_date=day,
            measurement_type_concept_id=pl.lit(0),
            unit_concept_id=pl.lit(MMHG),
        )
        row, column = np.nonzero(self.tags[there])
        of = np.concatenate([self.people[there], self.people[there][row]])
        concept = np.concatenate([OWN + self.people[there], TAG + column])
        observed = pl.DataFrame(
            {"observation_id": np.arange(len(of)), "person_id": of, "observation_concept_id": concept}
        ).with_columns(observation_date=day, observation_type_concept_id=pl.lit(0))
        tables = {
            "person": born,
            "visit_occurrence": visits,
            "condition_occurrence": conditions,
            "measurement": measured,
            "observation": observed,
        }
        with create(self.site.database) as connection:
            for table, rows in tables.items():
                names = ", ".join(rows.columns)
                connection.register("incoming", rows.to_arrow())
                connection.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM incoming")
                connection.unregister("incoming")
        self.restart()

    def settings(self, **written: Any) -> None:
        """Other settings in `site.yaml`."""
        path = self.site.folder / "site.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | written), encoding="utf-8")
        self.restart()

    def restart(self) -> None:
        """As a new process: settings and data are read again, what was written stays."""
        self.site = Site(self.site.folder)
        self.runner = Bare(self.site, installed_methods())

    def arrive(self, asked: Study, proposer: str = "somebody") -> None:
        """The study is in the inbox, with the name of who proposed it."""
        inbox.receive(self.site, asked)
        path = self.site.folder / "inbox" / asked.hash.removeprefix("sha256:") / "proposer.json"
        path.write_text(json.dumps({"name": proposer}), encoding="utf-8")

    def receive(self, asked: Study, proposer: str = "somebody", grants: tuple[Grant, ...] = ()) -> None:
        """The study has arrived and is permitted."""
        self.arrive(asked, proposer)
        inbox.permit(self.site, asked.hash, installed_methods(), grants)

    def answer(self, asked: Study, proposer: str = "somebody", run: str = "", **changes: Any) -> Answer:
        """This hospital's reply to the first round of the study's first step, asked with two others, before any
        mask: what the rules alone let out."""
        if inbox.own_permit(self.site, asked.hash) is None or proposer != inbox.proposer(self.site, asked.hash):
            self.receive(asked, proposer)
        step, plan = asked.steps[0], plan_of(asked, installed_methods())
        hospitals = tuple(sorted({self.site.hospital, "x", "y"}))
        state = plan.method(step).start(plan.question(step, hospitals))
        fields = {"run": run or asked.hash, "study": asked.hash, "step": step.name, "round": 0, "state": state}
        message = Ask(**{**fields, "hospitals": hospitals, **changes}).to_bytes()
        return Answer.from_bytes(self.runner.answer(message))


class Alliance:
    """Several made hospitals and a hub; `ask` plays a study from proposal to released results."""

    def __init__(self, folder: Path, people: Sequence[int], tags: int = 0, seed: int = 1) -> None:
        self.hospitals: dict[str, Hospital] = {}
        first = 1
        for place, count in enumerate(people):
            name = f"h{place}"
            self.hospitals[name] = Hospital(folder, name, count, first, tags, seed)
            first += count
        self.store = Store(folder / "hub.db")
        for name, hospital in self.hospitals.items():
            self.store.add_hospital(name, hospital.site.public_key())

    @property
    def secret(self) -> np.ndarray:
        return np.concatenate([hospital.secret for hospital in self.hospitals.values()])

    @property
    def tags(self) -> np.ndarray:
        return np.concatenate([hospital.tags for hospital in self.hospitals.values()])

    def ask(
        self,
        asked: Study,
        proposer: str = "somebody",
        grants: Mapping[str, tuple[Grant, ...]] | None = None,
        without: Sequence[str] = (),
    ) -> tuple[Run, Mapping[str, Outcome]]:
        """Proposed, permitted by all but those named, run."""
        studies.submit(self.store, asked, installed_methods(), proposer)
        for name, hospital in self.hospitals.items():
            hospital.receive(asked, proposer, (grants or {}).get(name, ()))
            envelope = None if name in without else inbox.own_permit(hospital.site, asked.hash)
            studies.receive_permit(self.store, asked.hash, name, envelope)
        return self.run(asked)

    def run(self, asked: Study) -> tuple[Run, Mapping[str, Outcome]]:
        engine = LocalEngine({name: hospital.runner.answer for name, hospital in self.hospitals.items()})
        return run_study(self.store, asked.hash, engine, installed_methods())
