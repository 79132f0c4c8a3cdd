"""Every method's answer as files: tables, figures, parameters, hashes, versions, what was changed, and a paragraph."""

from __future__ import annotations

import json
import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from dure.client.simulate import Simulated, simulate
from dure.errors import InvalidParameter
from dure.report.phrases import HEADINGS
from dure.study.method import installed_methods

OWN = [name for name, method in installed_methods().items() if type(method).__module__.startswith("dure.methods")]
EVERY = pytest.mark.parametrize("name", OWN)


@cache
def answered(name: str) -> Simulated:
    """The method's example, twenty times as many people, under the rules."""
    method = installed_methods()[name]
    if name == "training":
        pytest.importorskip("torch", reason="training needs the extra 'learning'")
    parts = [method.example(np.random.default_rng(seed)).frame for seed in range(20)]
    parameters = method.example(np.random.default_rng(0)).parameters
    frame = pl.concat(parts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return simulate({f"h{place}": frame[place::4] for place in range(4)}, name, parameters)


def _visible(page: str, language: str) -> str:
    return " ".join(re.findall(rf'lang="{language}"[^>]*>([^<]+)<', page))


@EVERY
def test_an_answer_becomes_files(name: str, tmp_path: Path) -> None:
    found = answered(name)
    paths = found.write(tmp_path)
    assert {path.suffix for path in paths} == {".csv", ".parquet", ".json", ".html"}
    for table, frame in found.result.tables.items():
        read = pl.read_parquet(tmp_path / f"{name}.{table}.parquet")
        assert read.equals(frame.frame)
        assert (tmp_path / f"{name}.{table}.csv").read_text(encoding="utf-8").count("\n") == frame.frame.height + 1

    def strict(constant: str) -> Any:
        raise AssertionError(f"{constant} is no JSON")

    data = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"), parse_constant=strict)
    told = data["answers"][0]
    assert told["parameters"].keys() == installed_methods()[name].parameters.model_fields.keys()
    assert told["hashes"].keys() == {"method", "parameters", "result"}
    assert told["versions"]["numpy"] == np.__version__
    assert told["tables"].keys() == found.tables.keys()
    assert data["left"]


@EVERY
def test_the_page_speaks_both_languages_and_holds_everything(name: str, tmp_path: Path) -> None:
    found = answered(name)
    found.write(tmp_path, ["html"])
    page = (tmp_path / "result.html").read_text(encoding="utf-8")
    assert re.search("[가-힣]", _visible(page, "ko"))
    assert installed_methods()[name].title.en in page
    assert installed_methods()[name].title.ko in page
    assert page.count('<svg role="img"') == 2 * len(found.figures("en"))
    assert found.hashes["result"] in page
    assert "<script" not in page


@EVERY
def test_figures_hold_only_what_was_released(name: str) -> None:
    found = answered(name)
    for language in ("en", "ko"):
        for figure, spec in found.figures(language).items():
            drawn = found.result.figures[figure]
            frame = found.result.tables[drawn.table].frame
            released = {round(value, 12) for column in (drawn.x, drawn.y, drawn.low, drawn.high) if column
                        for value in frame[column].to_list() if isinstance(value, int | float)}  # fmt: skip
            values = [row for rows in spec["datasets"].values() for row in rows] if "datasets" in spec else []
            values += _inline(spec)
            guides = {*drawn.rule, *(drawn.start or ())}
            for row in values:
                for key in ("x", "y", "low", "high"):
                    value = row.get(key)
                    if isinstance(value, int | float):
                        assert round(value, 12) in released | guides, (figure, key, value)


def _inline(spec: Any) -> list[dict[str, Any]]:
    if isinstance(spec, dict):
        own = spec.get("values", []) if isinstance(spec.get("values"), list) else []
        return [row for row in own if isinstance(row, dict)] + [row for part in spec.values() for row in _inline(part)]
    return [row for part in spec for row in _inline(part)] if isinstance(spec, list) else []


@EVERY
def test_a_method_says_what_a_paper_would_say(name: str) -> None:
    found = answered(name)
    for language in ("en", "ko"):
        text = found.paragraph(language)
        assert "dure" in text
        marks = re.findall(r"\[(\d+(?:[,–-] ?\d+)*)\]", text.split("\n")[0])
        cited = {number for mark in marks for part in mark.split(",") for number in _numbers(part)}
        assert cited == set(range(1, len(found.result.references) + 1))
        assert text.count("\n") == len(found.result.references)
    assert re.search("[가-힣]", found.paragraph("ko"))
    for work in found.result.references:
        assert re.search(r"(19|20)\d\d", work), work


def _numbers(part: str) -> range:
    """`2` or `2–4`."""
    first, *last = re.split("[–-]", part)
    return range(int(first), int(last[0] if last else first) + 1)


@EVERY
def test_every_heading_is_in_both_languages(name: str) -> None:
    found = answered(name).result
    shown = {column for table in found.tables.values() for column in table.frame.columns}
    shown = {column for column in shown if not (column.endswith("_ko") and column[:-3] in shown)}
    shown |= found.tables.keys() | {
        fact for fact, value in found.facts.items() if not isinstance(value, bool | list | dict)
    }
    asked = set(re.findall(r"\w+", str(answered(name).parameters)))  # tables and columns called after columns
    unnamed = {word for word in shown if not set(word.replace("by_", "").split("_and_")) <= asked}
    assert sorted(unnamed - HEADINGS.keys() - {"formula", *answered(name).answered.hospitals}) == []


def test_a_format_that_is_not_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="docx"):
        answered("feasibility").write(tmp_path / "x", ["docx"])  # type: ignore[list-item]
    assert not (tmp_path / "x").exists()


def test_what_was_suppressed_and_rounded_is_listed() -> None:
    frame = pl.DataFrame({"stage": ["a"] * 60 + ["b"] * 57 + ["c"] * 3})
    found = simulate({f"h{place}": frame[place::3] for place in range(3)}, "table_one", {"variables": ["stage"]})
    told = found.changed[0]
    assert told["table"] == "table_one"
    assert "n" in told["rounded"]
    assert {"row": 3, "column": "n", "shown": "<10"} in told["suppressed"]
