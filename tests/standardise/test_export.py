"""Exports as hospitals really write them: encodings, delimiters, Excel; every row knows its line."""

from __future__ import annotations

import csv
from datetime import date, datetime
from pathlib import Path

import openpyxl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dure.errors import DureError, EmptyExport, FileMissing, UnmappedColumn, WrongEncoding
from dure.standardise.export import read_csv, read_excel

# What csv carries through unchanged; a reader strips the spaces around a cell.
CELL = st.text(st.characters(codec="cp949", exclude_categories=("Cc", "Cs", "Z")), max_size=6)


def in_both_languages(error: DureError) -> None:
    for language in ("en", "ko"):
        assert all(part.strip() and "{" not in part for part in error.parts(language))
    assert error.text("en") != error.text("ko")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(CELL, CELL).filter(any), min_size=1, max_size=6),
    dialect=st.sampled_from([("utf-8", ","), ("utf-8-sig", ";"), ("cp949", "\t"), ("utf-16", "|")]),
)
@example(rows=[("a,b", 'say "no"'), ("한글", ";")], dialect=("cp949", ","))
def test_law_what_is_written_is_read(tmp_path: Path, rows: list[tuple[str, str]], dialect: tuple[str, str]) -> None:
    encoding, delimiter = dialect
    path = tmp_path / "export.csv"
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([("번호", "값"), *rows])
    export = read_csv(path, "utf-8" if encoding == "utf-8-sig" else encoding, delimiter)
    assert export.columns == ("번호", "값")
    assert [(row.cells["번호"], row.cells["값"]) for row in export.rows] == rows
    assert [row.line for row in export.rows] == list(range(2, len(rows) + 2))


def test_a_line_number_survives_blank_lines_and_cells_of_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "notes.csv"
    path.write_text('id,note\n1,"first\nsecond"\n\n2,plain\n', encoding="utf-8")
    assert [(row.line, row.cells["id"]) for row in read_csv(path).rows] == [(2, "1"), (5, "2")]


def test_excel_cells_become_the_text_a_person_sees(tmp_path: Path) -> None:
    path = tmp_path / "export.xlsx"
    workbook = openpyxl.Workbook()
    sheet = workbook.active
    assert sheet is not None
    sheet.append(["a", "b", "c", "d", "e", "f"])
    sheet.append([1, 2.0, 2.3, True, date(2025, 3, 1), None])
    sheet.append([None] * 6)
    sheet.append(["x", " y ", 1e-7, False, datetime(2025, 3, 1, 8, 30), 0])
    workbook.save(path)
    first, second = read_excel(path).rows
    assert list(first.cells.values()) == ["1", "2", "2.3", "TRUE", "2025-03-01", ""]
    assert list(second.cells.values()) == ["x", "y", "1e-07", "FALSE", "2025-03-01T08:30:00", "0"]
    assert (first.line, second.line) == (2, 4)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for read in (read_csv, read_excel):
        with pytest.raises(FileMissing) as caught:
            read(tmp_path / "none")
        in_both_languages(caught.value)


def test_a_korean_export_read_as_utf_8_names_the_encoding(tmp_path: Path) -> None:
    path = tmp_path / "export.csv"
    path.write_bytes("번호,이름\n1,홍길동\n".encode("cp949"))
    with pytest.raises(WrongEncoding) as caught:
        read_csv(path)
    in_both_languages(caught.value)
    assert "cp949" in caught.value.text("en")
    assert "홍길동" not in caught.value.text("ko")
    assert read_csv(path, "cp949").rows[0].cells["이름"] == "홍길동"


@pytest.mark.parametrize("text", ["", "id,age\n", "\n\n", "id,age\n,\n"])
def test_an_export_without_rows_is_empty(tmp_path: Path, text: str) -> None:
    path = tmp_path / "export.csv"
    path.write_text(text)
    with pytest.raises(EmptyExport) as caught:
        read_csv(path)
    in_both_languages(caught.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [("id,age\n1,50\nSECRET\n", 3), ("id,age\n1,50,SECRET\n", 2), ("id;age\nSECRET,1;2\n", 2)],
)
def test_rows_that_do_not_fit_the_header_name_their_line_only(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "export.csv"
    path.write_text(text)
    with pytest.raises(UnmappedColumn) as caught:
        read_csv(path)
    in_both_languages(caught.value)
    assert f"Line {line} " in caught.value.text("en")
    assert f"{line}행" in caught.value.text("ko")
    assert "SECRET" not in caught.value.text("en") + caught.value.text("ko")


def test_columns_named_alike_cannot_be_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "export.csv"
    path.write_text("id,age,age\n1,50,51\n")
    with pytest.raises(UnmappedColumn, match="age"):
        read_csv(path)


def test_what_is_no_workbook_or_has_no_such_sheet(tmp_path: Path) -> None:
    path = tmp_path / "export.xlsx"
    path.write_text("id,age\n1,50\n")
    with pytest.raises(UnmappedColumn, match="not an Excel workbook") as caught:
        read_excel(path)
    in_both_languages(caught.value)
    openpyxl.Workbook().save(path)
    with pytest.raises(UnmappedColumn, match="no sheet"):
        read_excel(path, "Patienten")
