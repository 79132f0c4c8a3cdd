"""Play an alliance on frames: the same rounds, gate and release as between hospitals, in one process."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from dure.client.export import FORMATS, Answered, Format, changed, hashes, paragraph, write
from dure.client.frames import columns_of, to_polars
from dure.errors import DureError, InvalidParameter, NotEnoughHospitals
from dure.federation.answer import Desk, answer, part
from dure.federation.engine import Answerer
from dure.federation.kept import InMemory
from dure.federation.ledger import InMemoryLedger, Ledger, Outcome
from dure.federation.local_engine import LocalEngine
from dure.federation.plain_sum import PlainSum
from dure.federation.plan import Plan
from dure.federation.rounds import Progress, Run
from dure.federation.secure_sum.exchange import Exchange, read_question
from dure.federation.secure_sum.member import Member, PinsInMemory
from dure.federation.secure_sum.opening import SecureSum
from dure.federation.secure_sum.record import Record
from dure.federation.sums import Summing
from dure.guard.rules import DEFAULT, OFF, Limits, with_overrides
from dure.language import Language, Words, reader_language
from dure.report import charts
from dure.study.method import Methods, calculating, installed_methods, read_parameters, source_hash
from dure.study.permit import Grant
from dure.study.result import Result
from dure.study.rows import Column, Rows
from dure.study.spec import Step, in_order

Rules = Literal["default", "off"] | Mapping[str, Any]


@dataclass(frozen=True)
class Simulated:
    """The released answer. `tables` are polars frames (suppressed numbers are null and named in a column
    `withheld`); `left` lists what left each site, array by array; `refused` maps a site that took no part to
    the reason; `changed` says what was suppressed or rounded; `parameters` are those asked, with defaults; `hashes`
    and `versions` say what calculated. `result` keeps the same answer with its metadata, for reports."""

    tables: dict[str, pl.DataFrame]
    facts: dict[str, Any]
    left: list[dict[str, Any]]
    notes: tuple[Words, ...]
    refused: dict[str, DureError]
    result: Result = field(repr=False)
    answered: Answered = field(repr=False)

    def __getitem__(self, table: str) -> pl.DataFrame:
        return self.tables[table]

    @property
    def parameters(self) -> Mapping[str, Any]:
        return self.answered.parameters

    @property
    def hashes(self) -> Mapping[str, str]:
        return self.answered.hashes

    @property
    def versions(self) -> Mapping[str, str]:
        return self.answered.versions

    @property
    def changed(self) -> list[dict[str, Any]]:
        return changed(self.result, self.answered.rounded_to)

    def figures(self, language: Language | None = None) -> dict[str, dict[str, Any]]:
        """Vega-Lite by name, drawn from the released tables."""
        drawn = charts.drawable(self.result).items()
        said = language or reader_language()
        return {name: charts.spec(figure, self.result.tables[figure.table], said) for name, figure in drawn}

    def paragraph(self, language: Language | None = None) -> str:
        """Sentences for a methods section, with references."""
        return paragraph(self.answered, language or reader_language())

    def write(self, folder: Path | str, formats: Collection[Format] = FORMATS) -> list[Path]:
        """CSV and Parquet tables, `result.json` with everything, and `result.html`; their paths."""
        return write([self.answered], Path(folder), formats, {"left": self.left})


def simulate(
    sites: Mapping[str, Any],
    method: str,
    parameters: Mapping[str, Any] | None = None,
    engine: str = "local",
    rules: Rules = "default",
) -> Simulated:
    """Ask one question of several hospitals' frames, as their alliance would answer it.

    `sites`: hospital → polars or pandas frame or Arrow table; each row one person of the cohort. The name of
    the hospital is the column `site` in formulas and strata. `rules`: "default", "off" (simulation only), or
    overrides of `dure.guard.rules.Limits`; `per_hospital: True` and `difference: True` add permissions.
    A site that may not answer (a cohort too small) is left out, with a warning. Raises DureError.
    """
    if not isinstance(method, str):
        raise _unusable("method", "It has to be a method's name", "방법의 이름이어야 합니다")
    if not isinstance(parameters, Mapping | None):
        raise _unusable("parameters", "They have to be a dict of name → value", "이름 → 값의 dict여야 합니다")
    step = Step(name="step", method=method, parameters=dict(parameters or {}))
    found = _chain(sites, (step,), rules, engine)
    return found._told(found.run.outcomes["step"], None, label=method)


def simulate_steps(
    sites: Mapping[str, Any], steps: Sequence[Mapping[str, Any] | Step], rules: Rules = "default"
) -> Chain:
    """Ask several questions that build on each other; `steps` as in a study document (name, method, parameters, uses,
    scope, release). Everything else is as in `simulate`. Raises DureError where a step cannot be read; a step that is
    refused raises when it is looked up."""
    try:
        read = tuple(step if isinstance(step, Step) else Step.model_validate(dict(step)) for step in steps)
    except ValidationError as error:
        said = error.errors()[0]
        problem = f"{'.'.join(map(str, said['loc']))}: {said['msg']}"
        raise _unusable("steps", problem, problem) from None
    try:
        in_order(read)
    except ValueError as error:
        raise _unusable("steps", str(error), str(error)) from None
    return _chain(sites, read, rules, "local")


@dataclass(frozen=True)
class Chain:
    """The released answers of several steps: `chain["step"]`, or `chain["step", "hospital"]` for a step of scope
    `each` or `all_but_one`. Raises the step's own error where there is no answer."""

    run: Run
    limits: Limits

    def __getitem__(self, name: str | tuple[str, str]) -> Simulated:
        step, fold = name if isinstance(name, tuple) else (name, None)
        if step not in self.run.outcomes:
            known = ", ".join(self.run.outcomes)
            raise _unusable(
                "steps", f"No step is called '{step}'; there are: {known}", f"'{step}' 단계가 없습니다: {known}"
            )
        return self._told(self.run.outcomes[step], fold)

    def status(self) -> dict[str, str]:
        """What became of each step."""
        return {name: outcome.status for name, outcome in self.run.outcomes.items()}

    def write(self, folder: Path | str, formats: Collection[Format] = FORMATS) -> list[Path]:
        """Every released answer as files in one folder (`dure.client.export.write`); their paths."""
        answers = [
            self._answered(outcome, fold)
            for outcome in self.run.outcomes.values()
            for fold, found in outcome.folds.items()
            if found.released is not None or found.error is not None
        ]
        left = [entry for outcome in self.run.outcomes.values() for entry in _left(outcome)]
        return write(answers, Path(folder), formats, {"left": left})

    def _answered(self, outcome: Outcome, fold: str | None, label: str = "") -> Answered:
        found, step = outcome.folds[fold], self.run.plan.step(outcome.step)
        method = self.run.plan.method(step)
        asked = read_parameters(method, step.parameters).model_dump(mode="json")
        return Answered(
            name=label or outcome.step,
            method=method.name,
            title=method.title,
            parameters=asked,
            hospitals=outcome.hospitals,
            rounds=found.rounds,
            result=found.released,
            error=found.error.words() if found.error else None,
            fold=fold or "",
            refused={name: error.words() for name, error in self.run.dropped.items()},
            hashes=hashes(asked, found.released, method=source_hash(method)),
            versions=calculating(),
            rounded_to=self.limits.round_to,
        )

    def _told(self, outcome: Outcome, fold: str | None, label: str = "") -> Simulated:
        if fold not in outcome.folds:
            fold = self._only(outcome, fold)
        found = outcome.folds[fold]
        if found.released is None:
            raise found.error or _unusable(
                "steps",
                f"The step '{outcome.step}' only serves others (release: false)",
                f"'{outcome.step}' 단계는 다른 단계에만 쓰입니다(release: false)",
            )
        return Simulated(
            tables={name: shown_frame(table.frame, table.withheld) for name, table in found.released.tables.items()},
            facts={**found.released.facts, "rounds": found.rounds, "sites": list(outcome.hospitals)},
            left=_left(outcome),
            notes=found.released.notes,
            refused=dict(self.run.dropped),
            result=found.released,
            answered=self._answered(outcome, fold, label),
        )

    @staticmethod
    def _only(outcome: Outcome, fold: str | None) -> str | None:
        """A step refused or skipped as a whole has one outcome for everybody; else a hospital has to be named."""
        if set(outcome.folds) == {None} and outcome.folds[None].released is None:
            return None
        known = ", ".join(str(name) for name in outcome.folds if name) or "–"
        en = f"The step '{outcome.step}' has no answer of '{fold}'; there are those of: {known}"
        ko = f"'{outcome.step}' 단계에 '{fold}'의 답이 없습니다. 있는 것: {known}"
        raise _unusable("steps", en, ko)


def _left(outcome: Outcome) -> list[dict[str, Any]]:
    names = ("hospital", "step", "round", "array", "shape", "bytes", "rules")
    return [{name: getattr(entry, name) for name in names} for entry in outcome.left]


def _chain(sites: Mapping[str, Any], steps: tuple[Step, ...], rules: Rules, engine: str) -> Chain:
    limits, grants = _rules(rules)
    _, run = run_frames(sites, steps, limits, grants, engine=engine)
    for name, error in run.dropped.items():
        warnings.warn(f"{name}: {error.text()}", stacklevel=4)
    return Chain(run, limits)


def run_frames(
    sites: Mapping[str, Any],
    steps: tuple[Step, ...],
    limits: Limits = DEFAULT,
    grants: frozenset[Grant] = frozenset(),
    *,
    engine: str = "local",
    methods: Methods | None = None,
    columns: Mapping[str, Column] | None = None,
    ledger: Ledger | None = None,
    progress: Progress | None = None,
    summing: Summing | Literal["plain", "secure"] = "plain",
) -> tuple[dict[str, Outcome], Run]:
    """Several steps over frames; what `simulate`, `dure try` and the generic tests run on.

    `columns` declares kinds and levels; without it they are collected from the frames.
    Per-hospital arrays that a method declares are permitted, since one person owns all frames; sums of too
    few hospitals and differences need the grant said aloud. `summing`: plain sums; `secure` ones as between hospitals,
    with keys made for this call and no permits, so that sums which differ by few hospitals are refused; or another way.
    """
    if engine != "local":
        raise _unusable("engine", f"'{engine}' is not an engine here", f"'{engine}' 엔진은 여기 없습니다")
    if not isinstance(sites, Mapping):
        raise _unusable("sites", "It is not a dict of hospital → table", "병원 → 표의 dict가 아닙니다")
    if not sites:
        raise NotEnoughHospitals(named=0, needed=1)
    frames = {str(name): to_polars(frame) for name, frame in sites.items()}
    if any("site" in frame.columns for frame in frames.values()):
        raise _unusable(
            "sites",
            "A column is called 'site', which is the hospital's name; call it something else",
            "'site'라는 열이 있으나 이는 병원 이름입니다. 다른 이름으로 바꾸십시오",
        )
    hospitals = tuple(frames)
    known_methods = methods if methods is not None else installed_methods()
    plan = Plan("simulation", steps, columns or columns_of(frames), known_methods, minimum_people=limits.minimum_people)
    plan.check(hospitals)
    enough = len(hospitals) >= limits.minimum_hospitals
    if enough and "per_hospital" in plan.grants_needed(hospitals, 1):
        grants = grants | {"per_hospital"}
    desks = {name: _desk(name, frame, plan, limits, grants) for name, frame in frames.items()}
    signing = {name: Ed25519PrivateKey.generate() for name in hospitals} if summing == "secure" else {}
    local = LocalEngine({name: _answerer(desk, *([signing[name]] if signing else [])) for name, desk in desks.items()})
    if summing == "secure":
        roster = {name: key.public_key().public_bytes_raw() for name, key in signing.items()}
        summing = SecureSum(roster, minimum=limits.minimum_hospitals)
    run = Run(
        "simulation",
        plan,
        hospitals,
        dict.fromkeys(hospitals, grants),
        limits,
        local,
        PlainSum() if isinstance(summing, str) else summing,
        ledger or InMemoryLedger(),
        cap=False,
        progress=progress or (lambda event, details: None),
    )
    return dict(run.steps()), run


def shown_frame(frame: pl.DataFrame, withheld: Mapping[tuple[int, str], str]) -> pl.DataFrame:
    """The table for reading: where something was suppressed, a column `withheld` says what and why."""
    if not withheld:
        return frame
    said = [
        "; ".join(f"{column}: {why}" for (place, column), why in withheld.items() if place == row)
        for row in range(frame.height)
    ]
    return frame.with_columns(pl.Series("withheld", said))


def _rules(rules: Rules) -> tuple[Limits, frozenset[Grant]]:
    if rules == "default":
        return DEFAULT, frozenset()
    every: frozenset[Grant] = frozenset(("per_hospital", "difference"))
    if rules == "off":
        return OFF, every
    if not isinstance(rules, Mapping):
        raise _unusable(
            "rules",
            'It has to be "default", "off", or a dict of limits',
            '"default", "off", 또는 한도의 dict여야 합니다',
        )
    asked: frozenset[Grant] = frozenset(grant for grant in every if rules.get(grant))
    return with_overrides({name: value for name, value in rules.items() if name not in every}), asked


def _unusable(parameter: str, en: str, ko: str) -> InvalidParameter:
    return InvalidParameter(method="simulate", parameter=parameter, problem=Words(en, ko))


def _desk(name: str, frame: pl.DataFrame, plan: Plan, limits: Limits, grants: frozenset[Grant]) -> Desk:
    present = {column: declared for column, declared in plan.columns.items() if column in frame.columns}
    numbered = "person_id" in frame.columns and frame["person_id"].dtype.is_integer()
    person = frame["person_id"].to_numpy() if numbered else np.arange(frame.height)
    rows = Rows(frame, name, present, (frame.height,), person.astype(np.int64))
    return Desk(name, plan, grants, limits, lambda: rows, InMemory())


def _answerer(desk: Desk, key: Ed25519PrivateKey | None = None) -> Answerer:
    """A hospital as a function: of questions in the clear, and of masked sums where it has a key."""
    member = key and Member(
        desk.hospital,
        key.public_key().public_bytes_raw(),
        key.sign,
        PinsInMemory(),
        Record(":memory:"),
        desk.limits.minimum_hospitals,
        desk.grants,
    )

    def answered(message: bytes) -> bytes:
        asked = read_question(message)
        if isinstance(asked, Exchange):
            assert member
            return member.answer(asked, lambda ask: part(ask, desk))
        return answer(asked, desk)

    return answered
