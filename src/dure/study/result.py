"""The answer of one step: tables, facts, and what a hospital needs to derive columns from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import polars as pl

from dure.language import Words
from dure.study.packing import pack, unpack

Fact = int | float | str | bool | None | list[str] | dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A table that knows which of its columns count people, so that release rules need no method's help.

    - `counts`: columns that count people; released rounded, small cells suppressed.
    - `behind`: column → count column: where the count is suppressed, the column's value goes too.
    - `shares`: column → (count column, whole column, factor); a share (factor 1) or percentage (100), filled in
      at release from rounded counts, since an exact share would give the exact count away.
    - `derived`: columns that restate others (a p-value beside its estimate); not counted as released numbers.
    - `group`: columns that name a group of rows whose counts add up to `whole`; a single suppressed cell of a
      group takes a second one with it (complementary suppression).
    - `withheld`: (row, column) pairs already suppressed, with the reason shown in their place.
    """

    frame: pl.DataFrame
    counts: tuple[str, ...] = ()
    behind: Mapping[str, str] = field(default_factory=dict)
    group: tuple[str, ...] = ()
    derived: tuple[str, ...] = ()
    shares: Mapping[str, tuple[str, str, float]] = field(default_factory=dict)
    withheld: Mapping[tuple[int, str], str] = field(default_factory=dict)


Drawn = Literal["steps", "lines", "points", "bars", "forest", "dots"]


@dataclass(frozen=True)
class Figure:
    """What to draw of a table. It names columns and holds no numbers: only what is released can be drawn.

    - `drawn`: `steps` (a survival curve), `lines`, `points` (calibration), `bars`, `forest` (estimates with
      intervals, one row per `y`), `dots` (one row per `y`, several `group`s: a balance plot).
    - `low`, `high`: columns of an interval around the value; `group`: one colour per level.
    - `start`: where every line begins, before the table's first row: a survival curve at (0, 1).
    - `log`: the value axis is logarithmic; `rule`: values at which a thin line stands; `diagonal`: y = x is drawn.
    """

    drawn: Drawn
    table: str
    x: str
    y: str
    title: Words
    x_title: Words
    y_title: Words
    low: str = ""
    high: str = ""
    group: str = ""
    start: tuple[float, float] | None = None
    log: bool = False
    rule: tuple[float, ...] = ()
    diagonal: bool = False


@dataclass(frozen=True)
class Fitted:
    """What the model rules compare: fitted parameters, people, and a binary outcome's events."""

    parameters: int
    n: int
    events: int | None = None
    non_events: int | None = None


@dataclass(frozen=True)
class Result:
    """One step's answer.

    `facts` are single numbers and words; those named in `people_facts` count people. `portable` is what
    `derive` needs at the hospitals (plain data and arrays); it is part of the run, not of a release.
    `notes` are remarks for the reader (a dropped term, a merged level). `figures` say what to draw of the tables;
    `paragraph` is the sentence or two a journal's methods section needs, from the parameters alone (no numbers of
    the data), and `references` the works it rests on, each as a journal prints it.
    """

    method: str
    tables: Mapping[str, Table] = field(default_factory=dict)
    facts: Mapping[str, Fact] = field(default_factory=dict)
    people_facts: tuple[str, ...] = ()
    fitted: Fitted | None = None
    portable: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[Words, ...] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)
    paragraph: Words | None = None
    references: tuple[str, ...] = ()


def pack_result(result: Result) -> bytes:
    """The Result as bytes, for the ledger and for the hospitals."""
    return pack(
        {
            "method": result.method,
            "tables": {name: _table(table) for name, table in result.tables.items()},
            "facts": dict(result.facts),
            "people_facts": list(result.people_facts),
            "fitted": [
                result.fitted.parameters,
                result.fitted.n,
                result.fitted.events,
                result.fitted.non_events,
            ]
            if result.fitted
            else None,
            "portable": dict(result.portable),
            "notes": [_both(note) for note in result.notes],
            "figures": {name: _figure(figure) for name, figure in result.figures.items()},
            "paragraph": _both(result.paragraph) if result.paragraph else None,
            "references": list(result.references),
        }
    )


def unpack_result(data: bytes) -> Result:
    raw = unpack(data)
    return Result(
        method=raw["method"],
        tables={name: _read_table(table) for name, table in raw["tables"].items()},
        facts=raw["facts"],
        people_facts=tuple(raw["people_facts"]),
        fitted=Fitted(*raw["fitted"]) if raw["fitted"] else None,
        portable=raw["portable"],
        notes=tuple(Words(en, ko) for en, ko in raw["notes"]),
        figures={name: _read_figure(figure) for name, figure in raw["figures"].items()},
        paragraph=Words(*raw["paragraph"]) if raw["paragraph"] else None,
        references=tuple(raw["references"]),
    )


def _both(words: Words) -> list[str]:
    return [words.en, words.ko]


def _figure(figure: Figure) -> dict[str, Any]:
    values = {name: getattr(figure, name) for name in Figure.__dataclass_fields__}
    return {name: _both(value) if isinstance(value, Words) else value for name, value in values.items()}


def _read_figure(raw: dict[str, Any]) -> Figure:
    words = {name: Words(*raw[name]) for name in ("title", "x_title", "y_title")}
    start = tuple(raw["start"]) if raw["start"] else None
    return Figure(**{**raw, **words, "rule": tuple(raw["rule"]), "start": start})


def _table(table: Table) -> dict[str, Any]:
    return {
        "columns": {name: table.frame[name].to_list() for name in table.frame.columns},
        "types": {name: _TYPE_NAMES[table.frame[name].dtype] for name in table.frame.columns},
        "counts": list(table.counts),
        "behind": dict(table.behind),
        "group": list(table.group),
        "derived": list(table.derived),
        "shares": {name: list(pair) for name, pair in table.shares.items()},
        "withheld": [[row, column, why] for (row, column), why in table.withheld.items()],
    }


def _read_table(raw: dict[str, Any]) -> Table:
    schema = {name: _TYPES[kind] for name, kind in raw["types"].items()}
    return Table(
        frame=pl.DataFrame(raw["columns"], schema=schema),
        counts=tuple(raw["counts"]),
        behind=raw["behind"],
        group=tuple(raw["group"]),
        derived=tuple(raw["derived"]),
        shares={name: (pair[0], pair[1], pair[2]) for name, pair in raw["shares"].items()},
        withheld={(row, column): why for row, column, why in raw["withheld"]},
    )


_TYPES: dict[str, Any] = {"number": pl.Float64, "integer": pl.Int64, "text": pl.String, "flag": pl.Boolean}
_TYPE_NAMES = {dtype: name for name, dtype in _TYPES.items()}
