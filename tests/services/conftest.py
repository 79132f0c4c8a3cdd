"""Four hospitals' databases, built once, and towns of processes that end with their test."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dure.demo import alliance as demo
from dure.demo import offices

pytest.importorskip("nvflare", reason="services between hospitals need the extra 'flare'")

_spec = importlib.util.spec_from_file_location("dure_services_stage", Path(__file__).parent / "stage.py")
assert _spec is not None
assert _spec.loader is not None
stage = importlib.util.module_from_spec(_spec)
sys.modules["dure_services_stage"] = stage
_spec.loader.exec_module(stage)


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Hospital → its OMOP database."""
    folder = tmp_path_factory.mktemp("databases")
    sites, _ = demo.open_hospitals(folder, lambda words: None)
    return {name: site.database for name, site in sites.items()}


@pytest.fixture
def towns(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Makes towns; every process and proxy of them ends with the test."""
    made: list[Any] = []

    def make(**settings: Any) -> Any:
        folder = tmp_path / f"town{len(made)}"
        folder.mkdir()
        made.append(stage.Town(folder, **settings))
        return made[-1]

    yield make
    for town in made:
        town.close()


@pytest.fixture
def four(towns: Callable[..., Any], databases: dict[str, Path]) -> Callable[..., Any]:
    """Makes a town of the four hospitals."""

    def make(**settings: Any) -> Any:
        town = towns(**settings)
        for name in offices.HOSPITALS:
            town.join(name, databases[name])
        return town

    return make


@pytest.fixture(scope="session")
def services() -> Any:
    """The module with processes, proxies and studies."""
    return stage
