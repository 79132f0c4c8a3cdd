"""Work that is cut: a standardisation leaves the old database or the new one, a stopped demonstration says so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest

from dure.demo import offices

STANDARDISE = """
import os, signal, sys
from pathlib import Path
import duckdb
from dure.demo import offices
from dure.standardise import load

folder, database, when = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if when == "before-commit":
    load._sign = die
elif when == "before-rename":
    Path.replace = die
elif when == "in-the-rows":
    load.load_concepts = die
print("ready", flush=True)
offices.build_database("Hungary", folder, database)
"""


# Ctrl-C while pydantic-core calls back: it makes an error of its own of whatever is raised there.
IN_A_SERIALISER = """
import signal, sys
from pydantic import BaseModel, field_serializer
from dure.study import method

class Study(BaseModel):
    age: int
    @field_serializer("age")
    def shown(self, age):
        if "press" in sys.argv:
            signal.raise_signal(signal.SIGINT)
        raise ValueError("no age")

def asked():
    try:
        return Study(age=7).model_dump_json()
    except ValueError:
        if "go on" in sys.argv:
            return {}
        raise

method.installed_methods = asked
if "press" in sys.argv:  # pydantic-core does as said, else this test shows nothing
    try:
        Study(age=7).model_dump_json()
    except ValueError as error:
        assert type(error).__name__ == "PydanticSerializationError", error
from dure.cli.commands import run
sys.exit(run(["methods"]))
"""


def people(database: Path) -> int:
    with duckdb.connect(str(database), read_only=True) as connection:
        (count,) = connection.execute("SELECT count(*) FROM person").fetchone() or (0,)
    return int(count)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return offices.write_exports(tmp_path_factory.mktemp("exports"))["Hungary"]


@pytest.mark.parametrize("when", ["in-the-rows", "before-commit", "before-rename"])
@pytest.mark.parametrize("before", [False, True], ids=["new", "again"])
def test_a_standardisation_killed_in_its_middle_leaves_no_half_database(
    export: Path, tmp_path: Path, when: str, before: bool
) -> None:
    database = tmp_path / "omop.duckdb"
    if before:
        offices.build_database("Hungary", export, database)
    was = database.read_bytes() if before else None
    child = subprocess.run([sys.executable, "-c", STANDARDISE, str(export), str(database), when], capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert (database.read_bytes() if database.exists() else None) == was
    offices.build_database("Hungary", export, database)  # what the killed process left is no obstacle
    assert people(database) == 294
    assert [path.name for path in tmp_path.iterdir()] == ["omop.duckdb"]


@pytest.mark.parametrize(
    "part", [0.2, pytest.param(0.5, marks=pytest.mark.slow), pytest.param(0.8, marks=pytest.mark.slow)]
)
def test_a_standardisation_killed_at_some_moment_leaves_all_or_nothing(
    export: Path, tmp_path: Path, part: float
) -> None:
    database = tmp_path / "omop.duckdb"
    child = subprocess.Popen(
        [sys.executable, "-c", STANDARDISE, str(export), str(database), "never"], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(part)
    child.kill()
    child.communicate()
    if database.exists():
        assert people(database) == 294
    offices.build_database("Hungary", export, database)
    assert people(database) == 294


def demo(folder: Path, language: str) -> Any:
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "dure.cli", "--language", language, "demo", "--folder", "played"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


@pytest.mark.parametrize(
    ("mark", "language", "said"),
    [
        ("1. ", "en", "Stopped. Nothing half-written is left; run it again to go on."),
        ("3. ", "ko", "멈췄습니다. 반쯤 쓰인 것은 없습니다. 다시 실행하면 이어집니다."),
        pytest.param("✓ model ·", "en", "Stopped.", marks=pytest.mark.slow),
        pytest.param("4. ", "en", "Stopped.", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_during_the_demonstration_is_one_sentence_and_exit_code_130(
    tmp_path: Path, mark: str, language: str, said: str
) -> None:
    child = demo(tmp_path, language)
    for line in child.stdout:
        if mark in line:
            break
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130, errors
    assert said in " ".join(errors.split())
    assert "Traceback" not in errors
    assert len(errors.split()) < 20


@pytest.mark.parametrize(
    ("how", "code"),
    [(["press"], 130), (["press", "go on"], 130), ([], 1), (["go on"], 0)],
    ids=["pressed", "pressed and caught", "an error", "caught"],
)
def test_ctrl_c_that_a_library_turned_into_another_error_is_still_ctrl_c(how: list[str], code: int) -> None:
    ended = subprocess.run([sys.executable, "-c", IN_A_SERIALISER, *how], capture_output=True, text=True)
    assert ended.returncode == code, ended.stderr
    assert ("Stopped." in ended.stderr) == ("press" in how)
    assert "Traceback" not in ended.stderr
