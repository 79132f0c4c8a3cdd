"""Whatever a person hands over: what happened, why, what to do now; never a traceback, never a patient's value."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openpyxl
import polars as pl
import pytest

from dure.cli.commands import run
from dure.demo import offices
from dure.errors import DureError, NotACount, all_errors

SECRET = "Kim Minsu 900101-1234567"
"""Stands for a patient's value in a cell where it does not belong."""


def people(hospitals: tuple[str, ...] = ("Hanbit", "Saessak", "Onnuri", "Narae"), n: int = 400) -> pl.DataFrame:
    random = np.random.default_rng(7)
    age, marker = random.normal(60, 9, n).round(1), random.normal(5, 2, n).round(3)
    dead = (random.random(n) < 1 / (1 + np.exp(-(age - 60) / 10 - (marker - 5) / 2))).astype(int)
    return pl.DataFrame(
        {
            "clinic": [hospitals[i % len(hospitals)] for i in range(n)],
            "age": age,
            "sex": np.where(random.random(n) < 0.5, "m", "f"),
            "marker": marker,
            "dead": dead,
            "days": random.exponential(20, n).round(2) + 0.1,
            "cost": (3 * age + random.normal(0, 5, n)).round(2),
        }
    )


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    errors: str

    def has(self, sentence: str) -> bool:
        """Whether the sentence stands there, however the terminal broke its lines."""
        return _squeezed(sentence) in _squeezed(self.out + self.errors)


def _squeezed(text: str) -> str:
    return "".join(character for character in text if not character.isspace() and character not in "│╭╮╰╯─")


Command = Callable[..., Said]


@pytest.fixture(params=["en", "ko"])
def language(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DURE_LANGUAGE", request.param)
    return str(request.param)


@pytest.fixture
def dure(capsys: pytest.CaptureFixture[str]) -> Command:
    def call(*arguments: object) -> Said:
        code = run([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return Said(code, shown.out, shown.err)

    return call


def three_sentences(said: Said, error: str, language: str) -> bool:
    """The error's fixed words stand there, in this language and not in the other."""
    kind: type[DureError] = next(kind for kind in all_errors() if kind.code() == error)
    for words in (kind.what, kind.why, kind.remedy):
        mine, other = (words.ko, words.en) if language == "ko" else (words.en, words.ko)
        if not all(said.has(piece) for piece in _fixed(mine)):
            return False
        if any(said.has(piece) for piece in _fixed(other) if piece.strip() not in mine):
            return False
    return said.has(error)


def _fixed(sentence: str) -> list[str]:
    """What is between a sentence's `{fields}`, where it is long enough to be recognised."""
    parts = sentence.replace("{", "}").split("}")[::2]
    return [part for part in parts if len(_squeezed(part)) > 7]


def clean(said: Said) -> bool:
    return "Traceback" not in said.out + said.errors and not said.has("Kim Minsu") and not said.has("900101")


# ── a table of one's own ──


def no_such_column(folder: Path) -> list[object]:
    people().write_csv(folder / "t.csv")
    return ["--hospital", "clinic", "--outcome", "deed"]


def no_such_hospital_column(folder: Path) -> list[object]:
    people().write_csv(folder / "t.csv")
    return ["--hospital", "clinik", "--outcome", "dead"]


def no_such_file(folder: Path) -> list[object]:
    return ["--hospital", "clinic", "--outcome", "dead"]


def another_encoding(folder: Path) -> list[object]:
    (folder / "t.csv").write_bytes("병원,나이,사망\n한빛,51,1\n새싹,60,0\n".encode("cp949"))
    return ["--hospital", "병원", "--outcome", "사망"]


def text_where_numbers_belong(folder: Path) -> list[object]:
    frame = people().with_columns(pl.col("marker").cast(pl.String))
    column = [SECRET if place == 17 else value for place, value in enumerate(frame["marker"])]
    frame.with_columns(pl.Series("marker", column)).write_csv(folder / "t.csv")
    return ["--hospital", "clinic", "--outcome", "dead"]


def text_in_the_time(folder: Path) -> list[object]:
    frame = people().with_columns(pl.col("days").cast(pl.String))
    column = [SECRET if place == 17 else value for place, value in enumerate(frame["days"])]
    frame.with_columns(pl.Series("days", column)).write_csv(folder / "t.csv")
    return ["--hospital", "clinic", "--outcome", "dead", "--time", "days"]


def everybody_alike(folder: Path) -> list[object]:
    people().with_columns(dead=pl.lit(1)).write_csv(folder / "t.csv")
    return ["--hospital", "clinic", "--outcome", "dead"]


def names_as_outcome(folder: Path) -> list[object]:
    frame = people().with_columns(pl.Series("name", [f"{SECRET} {i}" for i in range(400)]))
    frame.write_csv(folder / "t.csv")
    return ["--hospital", "clinic", "--outcome", "name"]


def two_hospitals(folder: Path) -> list[object]:
    people(("Hanbit", "Narae")).write_csv(folder / "t.csv")
    return ["--hospital", "clinic", "--outcome", "dead"]


def one_hospital(folder: Path) -> list[object]:
    people(("Hanbit",)).write_csv(folder / "t.csv")
    return ["--hospital", "clinic", "--outcome", "dead"]


def an_excel_file(folder: Path) -> list[object]:
    people().write_csv(folder / "t.csv")
    workbook = openpyxl.Workbook()
    workbook.save(folder / "t.csv")
    return ["--hospital", "clinic", "--outcome", "dead"]


def two_columns_of_one_name(folder: Path) -> list[object]:
    text = people().write_csv()
    header, rest = text.split("\n", 1)
    lines = [line + ",1" for line in rest.splitlines()]
    (folder / "t.csv").write_text("\n".join([header + ",age", *lines]), encoding="utf-8")
    return ["--hospital", "clinic", "--outcome", "dead"]


def a_nine_among_zeros_and_ones(folder: Path) -> list[object]:
    frame = people().with_row_index("line")
    frame = frame.with_columns(pl.when(pl.col("line") == 3).then(9).otherwise(pl.col("dead")).alias("dead"))
    frame.drop("line").write_csv(folder / "t.csv")
    return ["--hospital", "clinic", "--outcome", "dead"]


def one_column_in_two_roles(folder: Path) -> list[object]:
    people().write_csv(folder / "t.csv")
    return ["--hospital", "clinic", "--outcome", "clinic"]


def a_group_without_time(folder: Path) -> list[object]:
    people().write_csv(folder / "t.csv")
    return ["--hospital", "clinic", "--outcome", "dead", "--group", "sex"]


def only_a_header(folder: Path) -> list[object]:
    people().head(0).write_csv(folder / "t.csv")
    return ["--hospital", "clinic", "--outcome", "dead"]


def nothing_at_all(folder: Path) -> list[object]:
    (folder / "t.csv").write_text("")
    return ["--hospital", "clinic", "--outcome", "dead"]


def lines_of_different_length(folder: Path) -> list[object]:
    (folder / "t.csv").write_text(f"clinic,age,dead\nA,1,0\nA,2,1,{SECRET},9\n")
    return ["--hospital", "clinic", "--outcome", "dead"]


def a_hospital_without_a_name(folder: Path) -> list[object]:
    frame = people()
    names = [None if place == 3 else name for place, name in enumerate(frame["clinic"])]
    frame.with_columns(pl.Series("clinic", names)).write_csv(folder / "t.csv")
    return ["--hospital", "clinic", "--outcome", "dead"]


TABLES = [
    (no_such_column, "unknown-column", "'dead'"),
    (no_such_hospital_column, "unknown-column", "'clinic'"),
    (no_such_file, "file-missing", "t.csv"),
    (another_encoding, "wrong-encoding", "cp949"),
    (text_where_numbers_belong, "text-where-numbers", "'marker'"),
    (text_in_the_time, "text-where-numbers", "'days'"),
    (everybody_alike, "one-class", "'dead'"),
    (names_as_outcome, "not-an-outcome", "'name'"),
    (two_hospitals, "refused", "'minimum_hospitals'"),
    (one_hospital, "not-enough-hospitals", "2"),
    (only_a_header, "empty-export", "t.csv"),
    (nothing_at_all, "empty-export", "t.csv"),
    (lines_of_different_length, "invalid-document", "t.csv"),
    (an_excel_file, "invalid-document", "t.csv"),
    (two_columns_of_one_name, "invalid-document", "age"),
    (a_nine_among_zeros_and_ones, "not-an-outcome", "'dead'"),
    (one_column_in_two_roles, "invalid-parameter", "'clinic'"),
    (a_group_without_time, "invalid-parameter", "'group'"),
    (a_hospital_without_a_name, NotACount.code(), "'clinic'"),
]


@pytest.mark.parametrize(("make", "error", "named"), TABLES, ids=[make.__name__ for make, _, _ in TABLES])
def test_a_table_that_cannot_be_used_says_why_and_what_to_do(
    tmp_path: Path, dure: Command, language: str, make: Callable[[Path], list[object]], error: str, named: str
) -> None:
    said = dure("try", tmp_path / "t.csv", *make(tmp_path))
    assert said.code == 1
    assert three_sentences(said, error, language), said.errors
    assert said.has(named)
    assert clean(said)


def test_an_empty_hospital_is_said_and_the_others_answer(tmp_path: Path, dure: Command, language: str) -> None:
    frame = people()
    frame.with_columns(pl.when(pl.col("clinic") != "Narae").then("marker").alias("marker")).write_csv(
        tmp_path / "t.csv"
    )
    said = dure("try", tmp_path / "t.csv", "--hospital", "clinic", "--outcome", "dead")
    assert said.code == 3
    assert said.has(
        "Narae: nobody has a value" if language == "en" else "Narae: 쓰이는 모든 열에 값이 있는 사람이 없어"
    )
    assert said.has("Leave out the column that it lacks" if language == "en" else "그 병원에 없는 열을 빼면")
    assert said.has("marker")
    assert said.has("0.")
    assert clean(said)


def test_a_hospital_of_one_class_is_said_and_has_no_auroc(tmp_path: Path, dure: Command, language: str) -> None:
    frame = people()
    frame.with_columns(dead=pl.when(pl.col("clinic") == "Narae").then(1).otherwise("dead")).write_csv(
        tmp_path / "t.csv"
    )
    said = dure("try", tmp_path / "t.csv", "--hospital", "clinic", "--outcome", "dead")
    assert said.code == 3
    assert said.has(
        "Narae: everybody analysed has the same" if language == "en" else "Narae: 분석 대상 모두의 결과가 같습니다"
    )
    assert said.has("fewer than 10 non-cases" if language == "en" else "10명 미만")
    assert clean(said)


def test_a_constant_column_is_left_out_and_said(tmp_path: Path, dure: Command, language: str) -> None:
    people().with_columns(ward=pl.lit(7)).write_csv(tmp_path / "t.csv")
    said = dure("try", tmp_path / "t.csv", "--hospital", "clinic", "--outcome", "dead")
    assert said.code == 3
    assert said.has("Left out: 'ward' has the same value" if language == "en" else "뺌: 'ward' 값이 모두 같습니다")


def test_a_hospital_that_is_too_small_is_left_out_and_its_size_is_not_said(
    tmp_path: Path, dure: Command, language: str
) -> None:
    frame = people().with_row_index().filter((pl.col("clinic") != "Narae") | (pl.col("index") < 28)).drop("index")
    assert frame.filter(clinic="Narae").height == 7
    frame.write_csv(tmp_path / "t.csv")
    said = dure("try", tmp_path / "t.csv", "--hospital", "clinic", "--outcome", "dead")
    assert said.code == 3
    assert said.has("'minimum_cohort'")
    assert said.has("Left Narae: 0 arrays, 0 bytes" if language == "en" else "Narae에서 나간 것: 배열 0개")
    line = next(
        line for line in said.out.splitlines() if ("Narae" in line and "minimum" in line.lower()) or "Narae:" in line
    )
    assert "7" not in line


# ── a study document ──

STUDY = offices.STUDY.read_text(encoding="utf-8")
DOCUMENTS = [
    ("method: table_one", "method: tabel_one", "unknown-method", "'table_one'", None),
    ("{by_hospital: true}", "{by_hospitl: true}", "unknown-parameter", "'by_hospital'", None),
    ("+ heart_rate +", "+ hart_rate +", "unknown-column", "'heart_rate'", None),
    ("disease ~ age", "disease ~ open(age)", "formula-error", "open", None),
    ("disease ~ age", "disease ~ age + __import__('os')", "formula-error", "~", None),
    ("disease ~ age", "disease age", "formula-error", "~", None),
    ("question:\n  en:", "question:\n en  en:", "malformed-yaml", "study.yaml", "question:"),
    ("    age: {at_least: 18}", "    age: {at_least: eighteen}", "invalid-document", "age.at_least", "eighteen"),
    ("  criteria:", "  critera:", "invalid-document", "'criteria'", "critera:"),
    ("dure: 1\n", "", "invalid-document", "dure", None),
    ("uses: [model]", "uses: [modell]", "unknown-step", "'model'", None),
    (
        "{outcome: disease, scores: [model.prediction], bins: 10}",
        "{outcome: disease}",
        "invalid-parameter",
        "scores",
        None,
    ),
]


@pytest.mark.parametrize(
    ("old", "new", "error", "named", "at"), DOCUMENTS, ids=[f"{row[2]}-{place}" for place, row in enumerate(DOCUMENTS)]
)
def test_a_study_that_cannot_be_read_names_the_line_or_the_nearest_word(
    tmp_path: Path, dure: Command, language: str, old: str, new: str, error: str, named: str, at: str | None
) -> None:
    assert old in STUDY
    text = STUDY.replace(old, new, 1)
    path = tmp_path / "study.yaml"
    path.write_text(text, encoding="utf-8")
    said = dure("study", "check", path)
    assert said.code == 1
    assert three_sentences(said, error, language), said.errors
    assert said.has(named)
    assert clean(said)
    if at:
        line = next(number for number, content in enumerate(text.splitlines(), start=1) if at in content)
        places = [line, line + 1, line + 2] if error == "malformed-yaml" else [line]
        assert any(said.has(f"line {n}" if language == "en" else f"{n}행") for n in places), said.errors


def test_a_study_in_another_encoding_or_nowhere_is_said(tmp_path: Path, dure: Command, language: str) -> None:
    said = dure("study", "check", tmp_path / "study.yaml")
    assert (said.code, three_sentences(said, "file-missing", language)) == (1, True)
    (tmp_path / "study.yaml").write_bytes("title: 연구".encode("cp949"))
    said = dure("study", "check", tmp_path / "study.yaml")
    assert (said.code, three_sentences(said, "wrong-encoding", language)) == (1, True)


@pytest.mark.parametrize(
    "text", ["", "- 1\n", "just words\n", "a: [1\n", "\t- x\n", "a: b: c\n", "!!python/object:os.system {}\n"]
)
def test_any_text_is_an_answer(tmp_path: Path, dure: Command, text: str) -> None:
    (tmp_path / "study.yaml").write_text(text)
    said = dure("study", "check", tmp_path / "study.yaml")
    assert said.code == 1
    assert clean(said)
    assert not said.has("Something went wrong")


def test_the_demonstrations_study_is_sound(dure: Command) -> None:
    said = dure("study", "check", offices.STUDY)
    assert said.code == 0
    assert said.has("sha256:")


# ── the command line itself ──


def process(*arguments: str, folder: Path, **environment: str) -> Said:
    found = subprocess.run(
        [sys.executable, "-m", "dure.cli", *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "300", **environment},
        capture_output=True,
        text=True,
    )
    return Said(found.returncode, found.stdout, found.stderr)


def test_only_debug_shows_a_traceback(tmp_path: Path) -> None:
    asked = ("study", "check", "nowhere.yaml")
    plain, debug = process(*asked, folder=tmp_path), process(*asked, "--debug", folder=tmp_path)
    assert (plain.code, "Traceback" in plain.errors) == (1, False)
    assert (debug.code, "Traceback" in debug.errors) == (1, True)
    assert "FileMissing" in debug.errors


def test_the_language_can_be_chosen_in_the_command_or_the_environment(tmp_path: Path) -> None:
    asked = ("study", "check", "nowhere.yaml")
    assert process(*asked, folder=tmp_path, DURE_LANGUAGE="en").has("cannot be read")
    assert process("--language", "ko", *asked, folder=tmp_path, DURE_LANGUAGE="en").has("읽을 수 없습니다")
    assert process(*asked, folder=tmp_path, DURE_LANGUAGE="", LC_ALL="ko_KR.UTF-8").has("읽을 수 없습니다")


@pytest.mark.parametrize(
    "arguments",
    [("nonsense",), ("try",), ("try", "x.csv"), ("study", "check"), ("demo", "--foldr", "x"), ("methods", "a", "b")],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2_and_points_to_the_help(dure: Command, arguments: tuple[str, ...]) -> None:
    said = dure(*arguments)
    assert said.code == 2
    assert said.errors.strip()
    assert clean(said)


def test_a_hub_file_that_is_not_there_or_no_store_is_said(tmp_path: Path, dure: Command) -> None:
    assert dure("hub", "status", "--store", tmp_path / "hub.db").code == 1
    assert not (tmp_path / "hub.db").exists()
    (tmp_path / "hub.db").write_text("no SQLite file, only words, and enough of them to fill the header of one " * 3)
    said = dure("hub", "status", "--store", tmp_path / "hub.db")
    assert said.code == 1
    assert said.has("hub.db")
    assert clean(said)
