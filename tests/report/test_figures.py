"""Figures draw whatever a study may bring: nothing estimable, endless intervals, many hospitals, one model."""

from __future__ import annotations

import math
import re

import pytest

from dure.language import LANGUAGES, Language, Words
from dure.report import figures
from dure.report.drawing import ems, wrapped
from dure.report.story import AurocCell, CalibrationPoint, CalibrationSeries, ForestPoint, ForestRow

NO = Words("not estimable: separation", "추정 불가: 완전 분리")


def row(*points: ForestPoint) -> tuple[ForestRow, ...]:
    return (ForestRow("age", Words("Age", "나이"), points),)


def texts(svg: str) -> list[str]:
    return re.findall(r">([^<>]+)</t", svg)


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_estimable_is_said_in_every_lane(language: Language) -> None:
    drawn = figures.forest(row(*(ForestPoint(Words(n, n), "local", status=NO) for n in "ABC")), language)
    assert sum(NO.say(language) in text for text in texts(drawn)) == 6  # each once as outline, once as text


def test_an_endless_interval_is_cut_and_marked_and_its_numbers_stay_true() -> None:
    far = ForestPoint(Words("Federated", "연합"), "federated", 2.0, 0.5, math.inf)
    wide = ForestPoint(Words("A", "A"), "local", 300.0, 0.001, 90000.0)
    drawn = figures.forest(row(far, wide), "en")
    assert "2.00 (0.50–∞)" in texts(drawn)
    assert "NaN" not in drawn
    assert "Infinity" not in drawn


def test_a_federated_fit_that_failed_is_said_too() -> None:
    drawn = figures.forest(row(ForestPoint(Words("Federated", "연합"), "federated", status=NO)), "en")
    assert "Federated · not estimable: separation" in texts(drawn)


def test_a_dozen_hospitals_fit() -> None:
    places = [Words(f"Hospital {k}", f"병원 {k}") for k in range(12)]
    cells = tuple(AurocCell(a, b, 0.8, 100) for a in places for b in places)
    assert texts(figures.auroc(cells, "ko")).count("0.80") == 144
    points = tuple(ForestPoint(place, "local", 1.2, 0.9, 1.6) for place in places)
    assert "병원 11" in texts(figures.forest(row(*points), "ko"))


def test_auroc_below_a_half_is_still_drawn() -> None:
    cell = AurocCell(Words("A", "A"), Words("B", "B"), 0.41, None)
    assert "0.41" in texts(figures.auroc((cell,), "en"))


@pytest.mark.parametrize("models", [1, 3, 4])
def test_calibration_panels(models: int) -> None:
    names = [Words(f"Model {k}", f"모형 {k}") for k in range(models)]
    series = tuple(CalibrationSeries(name, (CalibrationPoint(0.2, 0.3, 50),)) for name in names)
    drawn = texts(figures.calibration(series, "ko"))
    assert [text for text in drawn if text.startswith("모형")] == [name.ko for name in names]


def test_lines_break_only_at_spaces() -> None:
    assert wrapped("운동 유발 협심증", 4) == ["운동", "유발", "협심증"]
    assert wrapped("", 4) == [""]
    assert ems("가나") > ems("ab")


def test_names_are_escaped_in_drawings() -> None:
    cell = AurocCell(Words("<script>", "<script>"), Words("B", "B"), withheld=Words("<b>no</b>", "<b>no</b>"))
    drawn = figures.auroc((cell,), "en")
    assert "<script" not in drawn
    assert "<b>" not in drawn
