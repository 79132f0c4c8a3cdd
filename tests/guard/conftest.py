"""The made hospitals of tests/attacks/made.py, as the fixture `made`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"dure_tests_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_made = _module(Path(__file__).parents[1] / "attacks" / "made.py")


@pytest.fixture(scope="session")
def made() -> ModuleType:
    return _made
