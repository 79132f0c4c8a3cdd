"""Released results as one self-contained HTML page: each answer's tables, figures, parameters and provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dure.language import LANGUAGES, Language, Words
from dure.report import charts, numerals, tables
from dure.report.phrases import phrase
from dure.report.table_one import table_one
from dure.report.tables import Grid, Naming
from dure.study.result import Result, Table


@dataclass(frozen=True)
class Section:
    """One answer as the page shows it; `parameters`, `hashes` and `versions` are ready to print."""

    name: str
    title: Words
    result: Result | None
    error: Words | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    hospitals: tuple[str, ...] = ()
    rounds: int = 0
    refused: Mapping[str, Words] = field(default_factory=dict)
    rounded_to: int = 1
    paragraph: Words | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def page(
    sections: Sequence[Section], title: Words | None = None, language: Language = "en", naming: Naming | None = None
) -> str:
    """The whole page in both languages; `language` is shown first."""
    named = naming or Naming()
    return (
        tables.templates()
        .get_template("results.html.j2")
        .render(
            title=title or phrase("results"),
            language=language,
            say=phrase,
            table=tables.html,
            heading=lambda name: tables.bilingual(named.heading(name)),
            titles={f"step-{section.name}": section.title for section in sections},
            sections=[_shown(section, named) for section in sections],
        )
    )


def _shown(section: Section, naming: Naming) -> dict[str, Any]:
    result = section.result
    return {
        "section": section,
        "grids": [_grid(name, table, naming, section) for name, table in result.tables.items()] if result else [],
        "figures": _figures(section, naming),
        "facts": _facts(result, naming) if result else [],
        "suppressed": any(table.withheld for table in result.tables.values()) if result else False,
        "counts": any(table.counts for table in result.tables.values()) if result else False,
    }


def _grid(name: str, table: Table, naming: Naming, section: Section) -> Grid:
    caption = naming.heading(name)
    if name == "table_one":
        return table_one(table, caption, naming, section.parameters.get("by", ""))
    if {"term", "estimate", "std_error"} == set(table.frame.columns) & {"term", "estimate", "std_error"}:
        plain = {"term", "estimate", "std_error", "statistic", "p_value", "ci_low", "ci_high"}
        if set(table.frame.columns) == plain:
            return tables.coefficients(table, caption, naming, None)
    return tables.grid(table, caption, naming)


def _figures(section: Section, naming: Naming) -> list[dict[str, Any]]:
    result = section.result
    if result is None:
        return []
    return [
        {
            "title": figure.title,
            "drawings": {
                language: charts.drawing(
                    figure, result.tables[figure.table], language, f"{section.name}-{name}".replace(".", "-"), naming
                )
                for language in LANGUAGES
            },
        }
        for name, figure in charts.drawable(result).items()
    ]


def _facts(result: Result, naming: Naming) -> list[tuple[Words, str]]:
    found = []
    for name, value in result.facts.items():
        if isinstance(value, bool) or value is None or name == "formula":
            continue
        if isinstance(value, int):
            found.append((naming.heading(name), numerals.count(value)))
        elif isinstance(value, float):
            text = numerals.p_value(value) if name.endswith("_p") else numerals.significant(value, 4)
            found.append((naming.heading(name), text))
        elif isinstance(value, str):
            found.append((naming.heading(name), value))
    return found
