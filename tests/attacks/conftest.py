"""The made hospitals of made.py, as the fixture `made`; and the demonstration's four, as `stage`."""

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


_HERE = Path(__file__).parent
_made, _stage = _module(_HERE / "made.py"), _module(_HERE.parent / "hub" / "stage.py")
stage = _stage.stage


@pytest.fixture(scope="session")
def made() -> ModuleType:
    return _made
