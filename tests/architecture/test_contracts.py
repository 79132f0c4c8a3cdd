"""The import contracts hold, and each of them breaks where somebody builds against it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = "A room imports only lower floors; place a new room where everything it needs lies below it"
CIRCLES = "No circles among siblings; move what both need to a lower floor"
THE_ROOT = "Nobody imports the root package; import the module that defines the name"
BLIND = "The hub is blind; code that reads rows belongs in dure.site"
METHODS = "Methods do not know each other; what they share is dure.estimation, what they chain is a study's steps"


def lint(folder: Path, source: Path) -> tuple[int, dict[str, bool], str]:
    """The exit code, contract → kept, and all that lint-imports said of the package under `source`."""
    from_there = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    found = subprocess.run(
        [sys.executable, "-c", from_there, "--cache-dir", str(folder / "cache"), "--verbose"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(source), "COLUMNS": "300", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )
    said = found.stdout + found.stderr
    kept = {}
    for line in said.splitlines():
        for verdict in ("KEPT", "BROKEN"):
            if line.rstrip().endswith(verdict):
                kept[line.rstrip().removesuffix(verdict).strip()] = verdict == "KEPT"
    return found.returncode, kept, said


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the package and its contracts."""
    shutil.copytree(ROOT / "src" / "dure", tmp_path / "src" / "dure", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", tmp_path / ".importlinter")
    return tmp_path


def plant(house: Path, module: str, line: str) -> None:
    """Write a line at the end of a module of the copy, which may be new."""
    path = house / "src" / Path(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")


def test_every_contract_is_kept(tmp_path: Path) -> None:
    shutil.copy(ROOT / ".importlinter", tmp_path / ".importlinter")
    code, kept, said = lint(tmp_path, ROOT / "src")
    assert code == 0, said
    assert kept == dict.fromkeys((FLOORS, CIRCLES, THE_ROOT, BLIND, METHODS), True)


def test_every_contract_in_the_file_is_planted_against_below() -> None:
    names = [
        line.partition("=")[2].strip()
        for line in (ROOT / ".importlinter").read_text(encoding="utf-8").splitlines()
        if line.startswith("name")
    ]
    assert sorted(names) == sorted((FLOORS, CIRCLES, THE_ROOT, BLIND, METHODS))
    assert {contract for _, contract, _ in PLANTED} == set(names)


PLANTED = [
    (("dure.study.spec", "import dure.hub.store"), FLOORS, "dure.study.spec -> dure.hub.store"),
    (("dure.portal", "VALUE = 1"), FLOORS, "portal"),
    (("dure.standardise.mapping", "import dure.standardise.load"), CIRCLES, "standardise"),
    (("dure.guard.gate", "from dure import simulate"), THE_ROOT, "dure.guard.gate -> dure"),
    (("dure.hub.store", "import dure.omop.database"), BLIND, "dure.hub.store -> dure.omop.database"),
    (("dure.federation.plan", "import duckdb"), BLIND, "dure.federation.plan -> duckdb"),
    (("dure.methods.survival", "import dure.omop.schema"), BLIND, "dure.methods.survival -> dure.omop.schema"),
    (("dure.report.tables", "import dure.site.settings"), BLIND, "dure.report.tables -> dure.site.settings"),
    (("dure.client.frames", "import ibis"), BLIND, "dure.client.frames -> ibis"),
    (
        ("dure.study.rows", "import dure.guard.reader", "dure.guard.reader", "import duckdb"),
        BLIND,
        "dure.guard.reader -> duckdb",
    ),
    (
        ("dure.methods.survival", "import dure.methods.regression"),
        METHODS,
        "dure.methods.survival -> dure.methods.regression",
    ),
]


@pytest.mark.parametrize(("planted", "contract", "named"), PLANTED, ids=[planted[0] for planted, _, _ in PLANTED])
def test_a_forbidden_import_breaks_its_contract(
    house: Path, planted: tuple[str, ...], contract: str, named: str
) -> None:
    for module, line in zip(planted[::2], planted[1::2], strict=True):
        plant(house, module, line)
    code, kept, said = lint(house, house / "src")
    assert code == 1, said
    assert kept[contract] is False, said
    # The broken import exists only in the copy, so that the copy is what was read.
    assert named in said
