"""A study as a document: readable YAML for people, canonical JSON with a stable hash for machines."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from dure.errors import UnknownStep
from dure.study.cohort import Cohort, Variable
from dure.study.document import Bilingual, Strict, read_document

Scope = Literal["all", "each", "all_but_one"]
NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
LARGEST = 2**63
"""Every integer of a study is smaller, whatever its sign."""


class Step(Strict):
    """One question put to the cohort.

    `uses` names earlier steps: their Results reach the method and their derived columns join the rows as
    `step.column`. `scope`: `all` hospitals sum together; `each` runs the whole loop inside every hospital
    and only its Result may leave; `all_but_one` repeats the loop once per hospital, without that hospital.
    With `release: false` the Result only serves later steps and is shown to nobody.
    """

    name: str
    method: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    uses: tuple[str, ...] = ()
    scope: Scope = "all"
    release: bool = True

    @model_validator(mode="after")
    def _plain_name(self) -> Step:
        if not NAME.match(self.name):
            raise ValueError("a step's name is lower-case letters, digits and _, starting with a letter")
        return self

    @property
    def digest(self) -> str:
        """`sha256:` of the step's canonical JSON."""
        return _digest(self.model_dump(mode="json", exclude_defaults=True))


Duration = Annotated[str, Field(pattern=r"^[0-9]{1,6} (second|minute|hour|day)s?$")]
"""Such as `30 minutes` or `14 days`; at most six digits."""
SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}


def seconds(duration: str) -> float:
    number, unit = duration.split()
    return float(number) * SECONDS[unit.removesuffix("s")]


class Quorum(Strict):
    """How many hospitals a study needs, and how long it waits for the others.

    A study starts when every hospital has replied, or `reply_within` after it was submitted, if all of `all_of`
    and `at_least` so many have permitted it; otherwise it is declined. While it runs, a hospital that gives no
    answer for `answer_within` is left out where enough others remain and the rules allow it; without
    `answer_within`, and wherever leaving out is not allowed, the run waits and names the hospital.
    """

    at_least: int = Field(3, ge=1)
    all_of: tuple[str, ...] = ()
    reply_within: Duration | None = None
    answer_within: Duration | None = None

    def met(self, hospitals: Collection[str], joined: int) -> bool:
        """Whether these hospitals are enough in an alliance of `joined`."""
        return len(hospitals) >= min(self.at_least, joined) and set(self.all_of) <= set(hospitals)


class Application(Strict):
    """What a review board is told beside the question. What is left out, the packet says is not stated.

    `purpose`, `benefit`: why, and what good comes of it. `legal_basis`: on what the use of pseudonymised data rests
    (in Korea the Personal Information Protection Act, article 28-2). `pseudonymisation`, `retention`, `recipients`,
    `risks`: how, how long, who reads results, what could go wrong.
    """

    purpose: Bilingual | None = None
    benefit: Bilingual | None = None
    legal_basis: Bilingual | None = None
    pseudonymisation: Bilingual | None = None
    retention: Bilingual | None = None
    recipients: Bilingual | None = None
    risks: Bilingual | None = None


class Open(Strict):
    """Counts asked without boards, of hospitals that offer it: each adds noise to its own counts, such that the whole
    study tells of any one person at most `epsilon` (differential privacy, Dwork et al. 2006)."""

    epsilon: float = Field(gt=0, le=1)


class Study(Strict):
    """A whole study. It contains no code: methods are named, and their parameters are plain data.

    `replaces` is the hash of the version that this one replaces; approvals of that one no longer count.
    """

    dure: Literal[1]
    title: Bilingual
    question: Bilingual
    cohort: Cohort
    variables: dict[str, Variable]
    steps: tuple[Step, ...] = Field(min_length=1)
    quorum: Quorum = Quorum()
    documents: tuple[Bilingual, ...] = ()
    """What the boards read beside the question: cleaning rules, limits, sources."""
    application: Application = Application()
    replaces: str | None = Field(None, pattern=r"^sha256:[0-9a-f]{64}$")
    open: Open | None = None

    @model_validator(mode="after")
    def _steps_in_order(self) -> Study:
        in_order(self.steps)
        if not all(abs(number) < LARGEST for number in _whole_numbers(self.model_dump())):
            raise ValueError("a whole number is too large to be stored (64 bits)")
        if "site" in self.variables:
            raise ValueError("'site' is the hospital's name and cannot be a variable")
        if self.open and any(
            step.method != "feasibility" or step.scope != "all" or step.parameters.get("by_hospital")
            for step in self.steps
        ):
            raise ValueError("a study with `open` has only steps of `feasibility` over all hospitals, none by hospital")
        return self

    @property
    def hash(self) -> str:
        """`sha256:` and the hex digest of the canonical JSON; layout and comments of the YAML do not matter."""
        return "sha256:" + hashlib.sha256(canonical_json(self).encode()).hexdigest()

    @property
    def cohort_hash(self) -> str:
        """`sha256:` of who is asked about and what is known of each."""
        data = self.model_dump(mode="json", exclude_defaults=True, include={"cohort", "variables"})
        return _digest(data)

    def step(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)

    def lineage(self, name: str) -> tuple[str, ...]:
        """Names of the steps that `name` builds on, directly or not, in study order."""
        return tuple(step.name for step in lineage(self.steps, self.step(name)))


def in_order(steps: Sequence[Step]) -> None:
    """Raise ValueError where two steps share a name, UnknownStep where one uses what is not above it."""
    earlier: list[str] = []
    for step in steps:
        if step.name in earlier:
            raise ValueError(f"two steps are named '{step.name}'")
        for used in step.uses:
            if used not in earlier:
                raise UnknownStep(step.name, used, earlier)
        earlier.append(step.name)


def lineage(steps: Sequence[Step], step: Step) -> tuple[Step, ...]:
    """The steps that `step` builds on, directly or not, in order."""
    wanted = set(step.uses)
    for earlier in reversed(steps):
        if earlier.name in wanted:
            wanted.update(earlier.uses)
    return tuple(earlier for earlier in steps if earlier.name in wanted)


def _whole_numbers(data: Any) -> Iterator[int]:
    """Every whole number in plain data."""
    if isinstance(data, int):
        yield data
    elif isinstance(data, dict | list | tuple):
        for item in (*data, *data.values()) if isinstance(data, dict) else data:
            yield from _whole_numbers(item)


def canonical_json(study: Study) -> str:
    """Sorted keys, no spaces, defaults left out, whole floats as integers (as RFC 8785 prints them) where they are
    integers that a study may hold: a larger one would not read back."""
    return _canonical(study.model_dump(mode="json", exclude_defaults=True))


def _canonical(data: Any) -> str:
    return json.dumps(_plain(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _digest(data: Any) -> str:
    return "sha256:" + hashlib.sha256(_canonical(data).encode()).hexdigest()


def read_study(path: Path) -> Study:
    """A study's YAML file; raises FileMissing, WrongEncoding, MalformedYaml, InvalidDocument or UnknownStep."""
    return read_document(path, Study)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < LARGEST:
        return int(value)
    return value
