"""The four hospitals of tests/hub/stage.py, as the fixture `stage`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("dure_tests_stage", Path(__file__).parents[1] / "hub" / "stage.py")
assert _spec is not None
assert _spec.loader is not None
_stage = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_stage)
stage = _stage.stage
