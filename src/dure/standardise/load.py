"""One export becomes one OMOP database, whole or not at all, and every row keeps the line it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb

from dure.errors import UnknownColumn, UnmappedColumn
from dure.language import Words
from dure.omop.database import create
from dure.standardise.cdm_rows import CdmRows
from dure.standardise.concept_list import load_concepts
from dure.standardise.export import Export, read_csv, read_excel
from dure.standardise.mapping import MappingPlan, read_plan

CDM_5_4 = 756265  # OMOP's own concept for this version of the model


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load did, in counts; it holds no value of any patient.

    `missing`, `unreadable`: cells per column of the export. `sexes_unmapped`: persons whose sex is not known
    to OMOP. `contradictions`: persons whose later rows state another sex or year of birth than their first.
    """

    hospital: Words
    rows_read: int
    people: int
    rows: Mapping[str, int]
    missing: Mapping[str, int]
    unreadable: Mapping[str, int]
    sexes_unmapped: int
    contradictions: int


def standardise(plan: MappingPlan | Path, folder: Path, database: Path, *, concepts: Path | None = None) -> LoadReport:
    """Load the plan's file from `folder` into a new CDM at `database`, replacing one that is there.

    Everything is written in one transaction to a file beside it, which takes its name only when complete.
    Raises FileMissing, WrongEncoding, EmptyExport, UnknownColumn (the plan names a column that the file
    lacks), UnmappedColumn (a column or code that the plan lacks) or TextWhereNumbers; then nothing changed.
    """
    plan = read_plan(plan) if isinstance(plan, Path) else plan
    export = read_export(plan, folder)
    rows = CdmRows(plan, export)
    for row in export.rows:
        rows.add(row)
    rows.finish()
    _write_whole(rows, database, concepts)
    people = rows.tables["person"]
    return LoadReport(
        hospital=plan.hospital.words(),
        rows_read=len(export.rows),
        people=len(people),
        rows={table: len(written) for table, written in rows.tables.items()},
        missing=dict(rows.missing),
        unreadable=dict(rows.unreadable),
        sexes_unmapped=sum(person["gender_concept_id"] == 0 for person in people),
        contradictions=len(rows.contradicting),
    )


def read_export(plan: MappingPlan, folder: Path) -> Export:
    """The plan's file, with exactly the columns that the plan speaks of; raises as `standardise`."""
    path = folder / plan.file
    if plan.format == "excel":
        export = read_excel(path, plan.sheet)
    else:
        export = read_csv(path, plan.encoding, plan.delimiter)
    named = plan.named_columns()
    for column in named:
        if column not in export.columns:
            raise UnknownColumn(column, export.columns, path.name)
    for column in export.columns:
        if column not in named:
            problem = Words(
                "The file has this column and the plan does not speak of it",
                "파일에는 있으나 계획에 없는 열입니다",
            )
            hint = Words(
                "Map it, or list it under `not_used:` with a reason.",
                "매핑하거나, 이유와 함께 `not_used:`에 적으십시오.",
            )
            raise UnmappedColumn(path=path, column=column, problem=problem, hint=hint)
    return export


def _write_whole(rows: CdmRows, database: Path, concepts: Path | None) -> None:
    database.parent.mkdir(parents=True, exist_ok=True)
    partial = database.with_name(f".{database.name}.partial")
    _forget(partial)
    try:
        with create(partial) as connection:
            connection.begin()
            if concepts is not None:
                load_concepts(connection, concepts)
            rows.write(connection)
            _sign(connection, rows.plan)
            connection.commit()
        partial.replace(database)
    finally:
        _forget(partial)


def _sign(connection: duckdb.DuckDBPyConnection, plan: MappingPlan) -> None:
    """CDM_SOURCE says whose database this is, and from which export."""
    today = date.today()
    connection.execute(
        """INSERT INTO cdm_source (cdm_source_name, cdm_source_abbreviation, cdm_holder, source_description,
        source_release_date, cdm_release_date, cdm_version, cdm_version_concept_id, vocabulary_version)
        VALUES (?, ?, ?, ?, ?, ?, '5.4', ?, 'see VOCABULARY')""",
        [plan.hospital.en, plan.hospital.en[:25], plan.hospital.en, plan.file, today, today, CDM_5_4],
    )


def _forget(partial: Path) -> None:
    for path in (partial, partial.with_name(partial.name + ".wal")):
        path.unlink(missing_ok=True)
