"""The page of methods runs as it is printed, and leaves none of dure's own methods out."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import polars as pl

from dure.study.method import installed_methods

PAGE = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text(encoding="utf-8")


def test_every_example_runs() -> None:
    names: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert len(blocks) > 10
    with warnings.catch_warnings(), pl.Config(tbl_rows=0):
        for block in blocks:
            exec(compile(block, "docs/statistics.md", "exec"), names)


def test_every_method_has_an_example() -> None:
    own = {name for name, method in installed_methods().items() if type(method).__module__.startswith("dure.methods")}
    shown = set(re.findall(r'"(\w+)"', " ".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))))
    assert own - shown == {"training"}  # docs/training.md
