"""DuckDB files that hold an OMOP CDM 5.4: made with the whole schema, opened so that nothing can change."""

from __future__ import annotations

from pathlib import Path

import duckdb

from dure.errors import FileMissing, NotACdm
from dure.language import Words
from dure.omop.schema import TABLES


def create(path: Path) -> duckdb.DuckDBPyConnection:
    """A new file with every CDM table, empty; raises NotACdm if something is already there."""
    if path.exists():
        problem = Words("Something is already there", "그 자리에 이미 파일이 있습니다")
        hint = Words("Choose another name, or move the old file away.", "다른 이름을 쓰거나 옛 파일을 옮기십시오.")
        raise NotACdm(path=path, problem=problem, hint=hint)
    if not path.parent.is_dir():
        raise FileMissing(path=path.parent)
    connection = duckdb.connect(str(path))
    for table in TABLES.values():
        connection.execute(table.definition)
    return connection


def open_read_only(path: Path) -> duckdb.DuckDBPyConnection:
    """A connection that cannot write; raises FileMissing, or NotACdm if no CDM is inside.

    Several processes may hold one; a process that writes to the same file at that moment makes it NotACdm.
    """
    if not path.is_file():
        raise FileMissing(path=path)
    try:
        connection = duckdb.connect(str(path), read_only=True)
    except duckdb.Error:
        problem = Words(
            "DuckDB cannot open it, or another process is writing to it",
            "DuckDB로 열 수 없거나 다른 프로세스가 쓰고 있습니다",
        )
        hint = Words(
            "Close the program that writes to it, or run the standardise step again.",
            "그 파일에 쓰고 있는 프로그램을 닫거나, 표준화 단계를 다시 실행하십시오.",
        )
        raise NotACdm(path=path, problem=problem, hint=hint) from None
    there = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    lacking = sorted({"person", "visit_occurrence", "measurement", "observation"} - there)
    if lacking:
        connection.close()
        problem = Words(f"The table '{lacking[0]}' is not in it", f"'{lacking[0]}' 테이블이 없습니다")
        hint = Words("Point to the file that the standardise step wrote.", "표준화 단계가 만든 파일을 지정하십시오.")
        raise NotACdm(path=path, problem=problem, hint=hint)
    return connection
