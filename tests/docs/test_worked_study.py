"""The worked study runs from invented hospitals to files, finds what was put in, and is what its page prints."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "new_users"
PAGE = (ROOT / "docs" / "worked-study.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("new_users_run", FOLDER / "run.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        folder = tmp_path_factory.mktemp("study") / "new_users"
        outcomes = module.run(folder)
    finally:
        sys.path.remove(str(FOLDER))
    assert {name: outcome.status for name, outcome in outcomes.items()} == dict.fromkeys(outcomes, "finished")
    return folder / "results"


@pytest.fixture(scope="module")
def answers(results: Path) -> dict[str, Any]:
    told = json.loads((results / "result.json").read_text(encoding="utf-8"))
    return {answer["step"]: answer for answer in told["answers"]}


def ratio(answer: dict[str, Any]) -> tuple[float, float, float]:
    row = next(row for row in answer["tables"]["coefficients"] if row["term"] == "on_a")
    return math.exp(row["estimate"]), math.exp(row["ci_low"]), math.exp(row["ci_high"])


def test_the_page_prints_what_came_out(answers: dict[str, Any]) -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([\d.]+) \(([\d.]+)–([\d.]+)\) \|$", PAGE, re.MULTILINE)
    cox = {name for name, answer in answers.items() if answer["method"] == "cox"}
    assert {name for name, *_ in rows} == cox
    for name, *printed in rows:
        assert [f"{value:.2f}" for value in ratio(answers[name])] == printed, name


def test_the_truth_is_inside_the_adjusted_intervals_and_not_in_the_crude_one(answers: dict[str, Any]) -> None:
    for name in ("main", "adjusted", "iptw", "later", "across"):
        _, low, high = ratio(answers[name])
        assert low < 0.7 < high, name
    assert ratio(answers["crude"])[1] > 0.7
    assert ratio(answers["negative_control"])[1] < 1 < ratio(answers["negative_control"])[2]


def test_overlap_weights_balance_what_the_score_holds_linearly(answers: dict[str, Any]) -> None:
    balance = answers["weights"]["tables"]["balance"]
    after = [row["smd"] for row in balance if row["sample"] == "after" and row["variable"] in ("diabetes", "pressure")]
    before = [row["smd"] for row in balance if row["sample"] == "before" and row["variable"] == "age"]
    assert max(abs(value) for value in after) < 1e-8
    assert abs(before[0]) > 0.3


def test_everything_a_reader_needs_is_there(results: Path, answers: dict[str, Any]) -> None:
    page = (results / "result.html").read_text(encoding="utf-8")
    assert page.count('<svg role="img"') >= 2 * 8
    for answer in answers.values():
        assert answer["hashes"].keys() >= {"study", "method", "parameters"}
        assert answer["paragraph"]["ko"]
    for path in results.glob("*.csv"):
        assert path.with_suffix(".parquet").exists()
