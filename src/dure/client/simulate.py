"""Play an alliance on frames: the same rounds, gate and release as between hospitals, in one process."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from dure.client.export import FORMATS, Answered, Format, changed, hashes, paragraph, write
from dure.client.frames import columns_of, to_polars
from dure.errors import DureError, InvalidParameter, NotEnoughHospitals
from dure.federation.answer import Desk, InMemory, answer
from dure.federation.local_engine import LocalEngine
from dure.federation.messages import Ask
from dure.federation.plain_sum import PlainSum
from dure.federation.plan import Plan
from dure.federation.rounds import InMemoryLedger, Ledger, Outcome, Progress, Run
from dure.guard.rules import DEFAULT, OFF, Limits, with_overrides
from dure.language import Language, Words, reader_language
from dure.report import charts
from dure.study.method import Methods, calculating, installed_methods, source_hash
from dure.study.permit import Grant
from dure.study.result import Result
from dure.study.rows import Column, Rows
from dure.study.spec import Step

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
    limits, grants = _rules(rules)
    outcome, run = run_frames(
        sites,
        (Step(name="step", method=method, parameters=dict(parameters or {})),),
        limits,
        grants,
        engine=engine,
    )
    fold = outcome["step"].folds[None]
    if fold.released is None:
        assert fold.error is not None
        raise fold.error
    known_method = run.plan.method(run.plan.steps[0])
    for name, error in run.dropped.items():
        warnings.warn(f"{name}: {error.text()}", stacklevel=2)
    asked = known_method.parameters.model_validate(dict(parameters or {})).model_dump(mode="json")
    answered = Answered(
        name=method,
        method=method,
        title=known_method.title,
        parameters=asked,
        hospitals=run.taking_part,
        rounds=fold.rounds,
        result=fold.released,
        refused={name: Words(error.text("en"), error.text("ko")) for name, error in run.dropped.items()},
        hashes=hashes(asked, fold.released, method=source_hash(known_method)),
        versions=calculating(),
        rounded_to=limits.round_to,
    )
    return Simulated(
        tables={name: shown_frame(table.frame, table.withheld) for name, table in fold.released.tables.items()},
        facts={**fold.released.facts, "rounds": fold.rounds, "sites": list(run.taking_part)},
        left=[
            {name: getattr(entry, name) for name in ("hospital", "step", "round", "array", "shape", "bytes", "rules")}
            for entry in outcome["step"].left
        ],
        notes=fold.released.notes,
        refused=dict(run.dropped),
        result=fold.released,
        answered=answered,
    )


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
) -> tuple[dict[str, Outcome], Run]:
    """Several steps over frames; what `simulate`, `dure try` and the generic tests run on.

    `columns` declares kinds and levels; without it they are collected from the frames.
    Per-hospital arrays that a method declares are permitted, since one person owns all frames; sums of too
    few hospitals and differences need the grant said aloud.
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
    local = LocalEngine({name: _answerer(desk) for name, desk in desks.items()})
    run = Run(
        "simulation",
        plan,
        hospitals,
        dict.fromkeys(hospitals, grants),
        limits,
        local,
        PlainSum(),
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


def _answerer(desk: Desk) -> Any:
    return lambda message: answer(Ask.from_bytes(message), desk)
