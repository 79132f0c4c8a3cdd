"""The answer of one step: tables, facts, and what a hospital needs to derive columns from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
    `notes` are remarks for the reader (a dropped term, a merged level).
    """

    method: str
    tables: Mapping[str, Table] = field(default_factory=dict)
    facts: Mapping[str, Fact] = field(default_factory=dict)
    people_facts: tuple[str, ...] = ()
    fitted: Fitted | None = None
    portable: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[Words, ...] = ()


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
            "notes": [[note.en, note.ko] for note in result.notes],
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
    )


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
