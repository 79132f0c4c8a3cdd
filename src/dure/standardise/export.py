"""A hospital's export as it is: CSV in any encoding, or Excel; every cell is text, rows know its line."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from dure.errors import EmptyExport, FileMissing, UnmappedColumn
from dure.language import Words
from dure.study.document import read_text


@dataclass(frozen=True, slots=True)
class Row:
    """One row of an export: the line it starts on (1 is the file's first) and its cells by column."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True, slots=True)
class Export:
    """One export file, read whole; `columns` in the file's order."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def read_csv(path: Path, encoding: str = "utf-8", delimiter: str = ",") -> Export:
    """Raises FileMissing, WrongEncoding, EmptyExport, or UnmappedColumn where rows do not fit the header."""
    text = read_text(path, encoding)
    return _export(path, _numbered(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)))


def read_excel(path: Path, sheet: str | None = None) -> Export:
    """One sheet of an .xlsx workbook, the first unless named; raises as `read_csv`.

    Whole numbers lose Excel's `.0`; dates become YYYY-MM-DD. Formulas give the values Excel last saved.
    """
    import openpyxl  # slow to import, and only Excel exports need it

    if not path.is_file():
        raise FileMissing(path=path)
    try:
        workbook = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (zipfile.BadZipFile, openpyxl.utils.exceptions.InvalidFileException, KeyError):
        raise _misfit(
            path,
            "format",
            Words("It is not an Excel workbook (.xlsx)", "엑셀 통합 문서(.xlsx)가 아닙니다"),
            Words("Save it as .xlsx, or write `format: csv`.", ".xlsx로 저장하거나 `format: csv`로 쓰십시오."),
        ) from None
    try:
        if sheet is not None and sheet not in workbook.sheetnames:
            raise _misfit(
                path,
                sheet,
                Words("The workbook has no sheet of that name", "통합 문서에 그런 이름의 시트가 없습니다"),
                Words("Correct `sheet:` in the plan.", "계획의 `sheet:`를 고치십시오."),
            )
        found = workbook[sheet] if sheet is not None else workbook.worksheets[0]
        lines = [
            (line, [_as_text(cell) for cell in cells])
            for line, cells in enumerate(found.iter_rows(values_only=True), start=1)
        ]
    finally:
        workbook.close()
    return _export(path, lines)


def _numbered(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """A quoted cell may span lines, so a row's line is the one after the row before it ended."""
    line = 1
    for cells in reader:
        yield line, cells
        line = reader.line_num + 1


def _export(path: Path, lines: Iterable[tuple[int, list[str]]]) -> Export:
    filled = ((line, cells) for line, cells in lines if any(cell.strip() for cell in cells))
    try:
        head_line, head = next(filled, (1, []))
        columns = tuple(cell.strip() for cell in head)
        while columns and not columns[-1]:
            columns = columns[:-1]  # Excel keeps formatted but empty columns
        twice = sorted({column for column in columns if columns.count(column) > 1})
        if twice:
            raise _misfit(
                path,
                twice[0] or "(no name)",
                Words(
                    f"Line {head_line} names two columns alike",
                    f"{head_line}행에 같은 이름의 열이 둘 있습니다",
                ),
                Words("Give every column its own name.", "열마다 다른 이름을 붙이십시오."),
            )
        rows = tuple(Row(line, _cells(path, columns, line, cells)) for line, cells in filled)
    except csv.Error:
        raise _misfit(
            path,
            "format",
            Words("It cannot be read as a table", "표로 읽을 수 없습니다"),
            Words("Check `delimiter:` and unclosed quotes.", "`delimiter:`와 닫히지 않은 따옴표를 확인하십시오."),
        ) from None
    if not rows:
        raise EmptyExport(path=path)
    return Export(path, columns, rows)


def _cells(path: Path, columns: tuple[str, ...], line: int, cells: list[str]) -> dict[str, str]:
    if len(cells) < len(columns) or any(cell.strip() for cell in cells[len(columns) :]):
        raise _misfit(
            path,
            columns[min(len(cells), len(columns) - 1)],
            Words(f"Line {line} does not have one cell per column", f"{line}행의 칸 수가 열 수와 다릅니다"),
            Words(
                "Check `delimiter:`, or correct that line in the hospital's system and export again.",
                "`delimiter:`를 확인하거나, 병원 시스템에서 그 행을 바로잡아 다시 내보내십시오.",
            ),
        )
    return {column: cell.strip() for column, cell in zip(columns, cells)}


def _as_text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "TRUE" if cell else "FALSE"
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() else repr(cell)
    if isinstance(cell, datetime):
        return cell.date().isoformat() if cell.time() == datetime.min.time() else cell.isoformat()
    if isinstance(cell, date):
        return cell.isoformat()
    return str(cell)


def _misfit(path: Path, column: str, problem: Words, hint: Words) -> UnmappedColumn:
    return UnmappedColumn(path=path, column=column, problem=problem, hint=hint)
