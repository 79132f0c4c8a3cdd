"""What is really loaded: the hub's process holds nothing that reads a row, and `import dure` hardly anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dure
from dure.hub.store import Store

BLIND_TO = ("duckdb", "ibis", "dure.site", "dure.omop", "dure.standardise", "dure.demo")
HEAVY = ("polars", "numpy", "pandas", "scipy", "pyarrow", "duckdb", "formulaic", "altair", "pydantic", "rich", "typer")


def times(command: list[str], folder: Path) -> tuple[str, set[str]]:
    """What the command printed, and every module that its process imported (`-X importtime`)."""
    found = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    lines = [line for line in found.stderr.splitlines() if line.startswith("import time:")]
    return found.stdout, {line.rsplit("|", 1)[1].strip() for line in lines}


def under(modules: set[str], packages: tuple[str, ...]) -> list[str]:
    return sorted(m for m in modules if any(m == package or m.startswith(package + ".") for package in packages))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "hub.db"
    opened = Store(path)
    opened.add_hospital("Hanbit", {"keyid": "1"})
    opened.close()
    return path


@pytest.mark.parametrize(
    "command",
    [[sys.executable, "-m", "dure.hub.entry"], [str(Path(sys.executable).with_name("dure-hub"))]],
    ids=["module", "script"],
)
def test_the_hubs_process_loads_nothing_that_reads_a_row(command: list[str], store: Path) -> None:
    said, modules = times([*command, "status", "--store", str(store)], store.parent)
    assert "Hanbit" in said
    assert "dure.hub.store" in modules
    assert under(modules, BLIND_TO) == []


def test_a_hub_that_runs_studies_loads_nothing_that_reads_a_row(tmp_path: Path) -> None:
    """The whole service, with its engine and every installed method; PyTorch is not among what it needs."""
    pytest.importorskip("nvflare", reason="the hub's service needs the extra 'flare'")
    program = (
        "import dure.hub.service, dure.federation.rounds, json, sys;"
        "from dure.study.method import installed_methods; installed_methods();"
        "print(json.dumps(sorted(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    modules = set(json.loads(found.stdout))
    assert "dure.methods.regression" in modules
    assert under(modules, BLIND_TO) == []


def test_a_site_would_be_seen_by_these_tests(tmp_path: Path) -> None:
    _, modules = times([sys.executable, "-c", "import dure.site.runner"], tmp_path)
    assert under(modules, ("duckdb",))
    assert under(modules, ("dure.site", "dure.omop"))


def test_importing_dure_loads_only_what_is_asked_of_it(tmp_path: Path) -> None:
    _, modules = times([sys.executable, "-c", "import dure"], tmp_path)
    assert under(modules, ("dure",)) == ["dure"]
    assert under(modules, HEAVY) == []


def test_everything_exported_is_there_when_it_is_asked_for() -> None:
    for name in dure.__all__:
        assert getattr(dure, name) is not None
    assert set(dure._WHERE) == set(dure.__all__) - {"__version__"}
    with pytest.raises(AttributeError, match="no attribute 'pool_rows'"):
        _ = dure.pool_rows
