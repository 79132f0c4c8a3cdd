"""The hospital's own list of every number that ever left it: `egress.db`, which nobody else reads.

A reply is written here before it is sent, as it was before any mask: every array with its numbers, every table of a
result. The audit log beside it holds digests only; this file is as confidential as the numbers are.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dure.federation.answer import Departure
from dure.language import Words
from dure.study.packing import pack, unpack
from dure.study.result import Result, unpack_result
from dure.study.spec import Study
from dure.study.summary import Array

FILE = "egress.db"
SCHEMA = """
CREATE TABLE IF NOT EXISTS departure (question TEXT, array TEXT, time TEXT, study TEXT, title TEXT, run TEXT, step TEXT,
                                      fold TEXT, round INTEGER, permit TEXT, shape TEXT, kind TEXT, masked INTEGER,
                                      rules TEXT, labels TEXT, bytes INTEGER, sha256 TEXT, numbers BLOB,
                                      PRIMARY KEY (question, array))
"""
COLUMNS = "time, study, title, run, step, fold, round, permit, array, shape, kind, masked, rules, labels, bytes, sha256"
LARGE = 1 << 20
"""Bytes above which the weights of a model are not kept, only their size and digest."""
KINDS = {
    "count": Words("count", "사람 수"),
    "moment": Words("sum", "합"),
    "weights": Words("weights", "가중치"),
    "table": Words("table", "표"),
    "facts": Words("facts", "단일 값"),
}


@dataclass(frozen=True)
class Left:
    """One array that left, or one table of a released result. `labels` name the cells along one axis; `numbers` is
    None where large weights were not kept; `masked`: it left as a part of a secure sum, which shows nothing of it."""

    time: str
    study: str
    title: Words
    run: str
    step: str
    fold: str | None
    round: int
    permit: str
    array: str
    shape: tuple[int, ...]
    kind: str
    masked: bool
    rules: tuple[str, ...]
    labels: tuple[str, ...]
    bytes: int
    sha256: str
    numbers: Array | None

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return int(np.prod(self.shape, dtype=np.int64))

    def cells(self) -> Iterator[tuple[str, float | int]]:
        """Each number with the name of its cell: its place, and its label where the declaration has one."""
        if self.numbers is None:
            return
        axis = next((axis for axis in (-1, 0) if self.shape and self.shape[axis] == len(self.labels)), None)
        for place, value in np.ndenumerate(self.numbers):
            name = self.labels[0] if not place and len(self.labels) == 1 else ""
            if axis is not None:
                rest = [str(index + 1) for at, index in enumerate(place) if at != axis % len(place)]
                name = " · ".join([*rest, self.labels[place[axis]]])
            yield name or (", ".join(str(index + 1) for index in place) or "1"), value.item()


class Egress:
    """One SQLite file that only its owner may read. `keep_weights`: also weights above 1 MiB."""

    def __init__(self, path: Path, keep_weights: bool = False) -> None:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, stat.S_IRUSR | stat.S_IWUSR))
        self._keep_weights = keep_weights
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(SCHEMA)

    def write(self, departure: Departure, study: Study, permit: str) -> None:
        """Every array of a reply, at once or not at all. The same question again, after a crash, is listed once."""
        ask, now = departure.ask, datetime.now(UTC).isoformat(timespec="seconds")
        title = json.dumps([study.title.en, study.title.ko], ensure_ascii=False)
        rows = []
        for name, values, kind, labels in _parts(departure):
            data = pack(values)
            kept = self._keep_weights or kind != "weights" or values.nbytes <= LARGE
            about = (departure.question, name, now, ask.study, title, ask.run, ask.step, ask.fold, ask.round, permit)
            rules = departure.reply.rules.get(name, departure.reply.rules.get("result", []))
            shape, sha256 = json.dumps(values.shape), hashlib.sha256(data).hexdigest()
            words = json.dumps(labels, ensure_ascii=False)
            level = 1 if values.dtype.kind == "i" or values.nbytes < LARGE else 0  # large floats do not shrink
            numbers = zlib.compress(data, level) if kept else None
            what = (shape, kind, departure.masked, json.dumps(list(rules)), words, values.nbytes, sha256, numbers)
            rows.append((*about, *what))
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            marks = ", ".join("?" * 18)
            self._connection.executemany(f"INSERT OR IGNORE INTO departure VALUES ({marks})", rows)
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def read(self, study: str | None = None, step: str | None = None, numbers: bool = True) -> Iterator[Left]:
        """What left, oldest first; of one study (its hash) or one step. Without `numbers` none are unpacked."""
        asked = {"study": study, "step": step}
        where = " AND ".join(f"{name} = ?" for name, value in asked.items() if value) or "1"
        wanted = f"{COLUMNS}, {'numbers' if numbers else 'NULL'}"
        query = f"SELECT {wanted} FROM departure WHERE {where} ORDER BY time, rowid"
        for row in self._connection.execute(query, [value for value in asked.values() if value]):
            yield _left(row)

    def close(self) -> None:
        self._connection.close()


def _left(row: tuple[Any, ...]) -> Left:
    fields = dict(zip(COLUMNS.split(", "), row))
    for name in ("shape", "rules", "labels"):
        fields[name] = tuple(json.loads(fields[name]))
    fields["title"], fields["masked"] = Words(*json.loads(fields["title"])), bool(fields["masked"])
    return Left(**fields, numbers=unpack(zlib.decompress(row[-1])) if row[-1] is not None else None)


def _parts(departure: Departure) -> Iterator[tuple[str, Array, str, tuple[str, ...]]]:
    """Name, numbers, kind and labels of everything in a reply that is a number."""
    for spec in departure.declared:
        if spec.bytes:  # an array of no numbers is not something that left
            values = np.ascontiguousarray(departure.reply.arrays[spec.name], dtype=spec.dtype).reshape(spec.shape)
            yield spec.name, values, spec.kind, spec.labels
    if departure.reply.result:
        yield from _of_result(unpack_result(departure.reply.result))


def _of_result(result: Result) -> Iterator[tuple[str, Array, str, tuple[str, ...]]]:
    for name, table in result.tables.items():
        found = list(_of_table(table.frame))
        if found:
            yield name, np.array([value for _, value in found], dtype=np.float64), "table", tuple(n for n, _ in found)
    fitted = (
        {f"fitted.{name}": getattr(result.fitted, name) for name in ("parameters", "n", "events", "non_events")}
        if (result.fitted)
        else {}
    )
    facts = list(_numbers_in({**result.facts, **fitted}))
    if facts:
        yield "facts", np.array([value for _, value in facts], dtype=np.float64), "facts", tuple(n for n, _ in facts)


def _of_table(frame: pl.DataFrame) -> Iterator[tuple[str, float]]:
    """Every shown number of a table, named by the words of its row and its column."""
    words = [name for name, dtype in frame.schema.items() if dtype == pl.String and not name.endswith("_ko")]
    numeric = [name for name, dtype in frame.schema.items() if dtype.is_numeric()]
    for place, row in enumerate(frame.to_dicts()):
        of_row = " ".join(str(row[name]) for name in words if row[name]) or str(place + 1)
        for name in numeric:
            if row[name] is not None:
                yield f"{of_row} · {name}", float(row[name])


def _numbers_in(facts: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Numbers at any depth of plain data, named by the way to them."""
    if isinstance(facts, dict):
        for key, value in facts.items():
            yield from _numbers_in(value, f"{name}.{key}" if name else str(key))
    elif isinstance(facts, list | tuple):
        for place, value in enumerate(facts):
            yield from _numbers_in(value, f"{name}.{place + 1}")
    elif isinstance(facts, int | float) and not isinstance(facts, bool):
        yield name, float(facts)
