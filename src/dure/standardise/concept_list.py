"""A short list of concepts, with Korean names, loaded into the vocabulary tables of a CDM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from dure.errors import UnknownColumn
from dure.standardise.export import read_csv

COLUMNS = ("concept_id", "vocabulary", "domain", "name_en", "name_ko")
VALID = "DATE '1970-01-01', DATE '2099-12-31'"


def load_concepts(connection: duckdb.DuckDBPyConnection, path: Path) -> int:
    """Fills CONCEPT, CONCEPT_SYNONYM (Korean names), VOCABULARY and DOMAIN; returns the number of concepts.

    A UTF-8 CSV with the columns `concept_id, vocabulary, domain, name_en, name_ko`. Invented concepts have
    ids from 2,000,000,000, the range that OMOP leaves to its users.
    """
    export = read_csv(path)
    for column in COLUMNS:
        if column not in export.columns:
            raise UnknownColumn(column, export.columns, path.name)
    rows: list[dict[str, Any]] = [row.cells for row in export.rows]
    connection.register("listed", pa.Table.from_pylist(rows))
    connection.execute(f"""INSERT INTO concept BY POSITION
        SELECT CAST(concept_id AS BIGINT), name_en, domain, vocabulary, 'Undefined', 'S', concept_id, {VALID},
        NULL FROM listed""")
    connection.execute("""INSERT INTO concept_synonym
        SELECT CAST(concept_id AS BIGINT), name_ko, 0 FROM listed WHERE name_ko <> ''""")
    connection.execute("""INSERT INTO vocabulary
        SELECT DISTINCT vocabulary, vocabulary, NULL, NULL, 0 FROM listed""")
    connection.execute("INSERT INTO domain SELECT DISTINCT domain, domain, 0 FROM listed")
    connection.unregister("listed")
    return len(rows)
