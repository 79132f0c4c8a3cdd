"""A person's CSV file as a table: separator, decimal comma, missing marks; an error names the line."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import polars as pl

from dure.errors import EmptyExport, InvalidDocument
from dure.language import Words
from dure.study.document import read_text

MISSING = ["", "NA", "N/A", "NaN", "nan", "NULL", "null", "None", ".", "결측", "미상"]


def read_table(path: Path, encoding: str = "utf-8") -> pl.DataFrame:
    """A CSV file with a header; comma, semicolon or tab. Raises FileMissing, WrongEncoding, EmptyExport, or
    InvalidDocument with the first line that does not fit the header."""
    if path.is_file() and path.read_bytes()[:4] == b"PK\x03\x04":
        raise _unreadable(
            path,
            1,
            Words("It is an Excel file", "엑셀 파일입니다"),
            Words("Save it as CSV (UTF-8) and try again.", "CSV(UTF-8)로 저장해 다시 시도하십시오."),
        )
    text = read_text(path, encoding)
    header = text.split("\n", 1)[0]
    separator = max(",;\t", key=header.count)
    _check_lines(path, text, separator)
    comma = separator != "," and len(re.findall(r"\d,\d", text)) > len(re.findall(r"\d\.\d", text))
    try:
        frame = pl.read_csv(
            io.BytesIO(text.encode()),
            separator=separator,
            null_values=MISSING,
            infer_schema_length=None,
            decimal_comma=comma,
        )
    except pl.exceptions.NoDataError:
        raise EmptyExport(path=path) from None
    except pl.exceptions.PolarsError:
        problem = Words("It cannot be read as a table", "표로 읽을 수 없습니다")
        hint = Words("Open it in a spreadsheet, look for stray quotes, and export it again.", QUOTES_KO)
        raise _unreadable(path, 1, problem, hint) from None
    if frame.height == 0:
        raise EmptyExport(path=path)
    return frame


QUOTES_KO = "스프레드시트에서 열어 잘못된 따옴표가 있는지 보고 다시 내보내십시오."


def _check_lines(path: Path, text: str, separator: str) -> None:
    """Every line has as many fields as the header, and no two columns share a name."""
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    names = next(reader, [])
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        shown = ", ".join(twice)
        problem = Words(f"Two columns are called {shown}", f"이름이 같은 열이 있습니다: {shown}")
        raise _unreadable(path, 1, problem, Words("Give each column its own name.", "열마다 다른 이름을 주십시오."))
    for row in reader:
        if row and len(row) != len(names):
            problem = Words(
                f"It has {len(row)} fields where the header has {len(names)}",
                f"머리글은 {len(names)}칸인데 이 행은 {len(row)}칸입니다",
            )
            hint = Words(
                "Correct that line; text that holds the separator needs quotation marks around it.",
                "그 행을 고치십시오. 구분자가 든 글자는 따옴표로 묶어야 합니다.",
            )
            raise _unreadable(path, reader.line_num, problem, hint)


def _unreadable(path: Path, line: int, problem: Words, hint: Words) -> InvalidDocument:
    return InvalidDocument(path=path, line=line, field="table", problem=problem, hint=hint)
