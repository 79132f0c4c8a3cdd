"""The terminal summary fits 80 columns in both languages and loses no reason."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console

from dure.language import LANGUAGES, Language
from dure.report.story import Story
from dure.report.terminal import summary

from .sample import story


def printed(told: Story, language: Language) -> str:
    console = Console(width=80, file=StringIO(), force_terminal=False)
    console.print(summary(told, language))
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_fits_eighty_columns_and_shows_every_reason(language: Language) -> None:
    text = printed(story(), language)
    assert max(cell_len(line) for line in text.splitlines()) <= 80
    for word in ("0.89", "3.84 (2.53–5.83)", "(a) ", "(b) ", "2,928", "cholesterol_model", "2.9 × 10⁻¹²"):
        assert word in text
    assert {"en": "not estimable: separation", "ko": "추정 불가: 완전 분리"}[language] in text


def test_without_a_forest_the_coefficients_stand_alone() -> None:
    text = printed(replace(story(), forest=(), auroc=(), left=(), oracle=None), "en")
    assert "Chest pain: asymptomatic" in text
    assert "2.53 – 5.83" in text


def test_brackets_in_names_are_not_markup() -> None:
    assert "[red]Ward[/red]" in printed(story({"[red]Ward[/red]": 90, "B": 90, "C": 90, "D": 90}), "en")
