"""The report as one self-contained HTML file: both languages, light and dark, no script and no request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from markupsafe import Markup

from dure.guard.rules import RULES
from dure.language import LANGUAGES, Language, Words
from dure.report import figures, numerals, tables
from dure.report.phrases import HEADINGS, phrase
from dure.report.story import LeftEntry, ModelFit, OracleCheck, Story, departures
from dure.report.table_one import table_one
from dure.report.tables import Cell, Grid, Naming, plain_grid


@dataclass(frozen=True)
class Figure:
    """One drawing per language, and the table that says the same."""

    title: Words
    drawings: Mapping[Language, Markup]
    grid: Grid


def page(story: Story, language: Language = "en") -> str:
    """The whole report; `language` is the one shown first, the reader switches inside the file."""
    naming = Naming(story.labels, story.headings)
    open_steps = [outcome for outcome in story.outcomes if outcome.status != "done"]
    return (
        tables.templates()
        .get_template("page.html.j2")
        .render(
            story=story,
            title=story.title,
            language=language,
            say=phrase,
            table=tables.html,
            heading=lambda name: tables.bilingual(naming.heading(name)),
            shape=numerals.shape,
            size=numerals.size,
            titles=_titles(story),
            short_hash=short_hash(story.study_hash),
            people=_people(story),
            places=Words(f"{len(story.hospitals)} hospitals", f"병원 {len(story.hospitals)}곳"),
            headline=headline(story.oracle),
            glance=_glance(story),
            open_steps=open_steps,
            hospitals=_hospitals(story),
            attrition=_attrition(story, naming),
            table_one=_table_one(story, naming),
            models=[_model(model, naming) for model in story.models],
            forest=_forest(story),
            auroc=_auroc(story),
            calibration=_calibration(story),
            departures=_departures(story),
            departed=_listing(story.left),
            rules=[RULES[name] for name in sorted({r for e in story.left for r in e.rules}) if name in RULES],
            check=_check(story.oracle),
            steps=_steps(story),
        )
    )


def headline(oracle: OracleCheck | None) -> Words:
    """The first sentence of report and terminal: whether federated equals pooled, and by how much."""
    if oracle is None:
        return phrase("headline_unchecked")
    name = "headline_equal" if oracle.equal else "headline_differs"
    return phrase(name, difference=numerals.power(oracle.largest))


def short_hash(value: str) -> str:
    """`sha256 9f2c…41ab`: enough to compare two prints by eye."""
    kind, _, digits = value.rpartition(":")
    return f"{kind} {digits[:4]}…{digits[-4:]}".strip() if len(digits) > 12 else value


def _titles(story: Story) -> dict[str, Words]:
    present = {
        "question": True,
        "where": True,
        "attrition": story.attrition is not None,
        "table_one": story.table_one is not None,
        "model": bool(story.models or story.forest),
        "discrimination": bool(story.auroc),
        "calibration": bool(story.calibration),
        "left": bool(story.left),
        "checked": bool(story.oracle or story.outcomes or story.seconds),
        "documents": True,
        "next": bool(story.next_steps),
    }
    return {name: phrase(name) for name, there in present.items() if there}


def _people(story: Story) -> Words | None:
    if story.persons is None:
        return None
    return Words(f"{numerals.count(story.persons)} people", f"대상자 {numerals.count(story.persons)}명")


def _glance(story: Story) -> list[tuple[Words, str]]:
    found = []
    if story.persons is not None:
        found.append((phrase("people"), numerals.count(story.persons)))
    found.append((phrase("hospitals"), str(len(story.hospitals))))
    if story.left:
        totals = departures(story.left)
        found.append((phrase("messages_left"), numerals.count(sum(one.messages for one in totals))))
        found.append((phrase("numbers_left"), numerals.count(sum(one.numbers for one in totals))))
    return found


def _hospitals(story: Story) -> Grid:
    rows = []
    largest = max((hospital.persons or 0 for hospital in story.hospitals), default=0)
    for hospital in story.hospitals:
        if hospital.persons is None:
            people = Cell("–", number=True, withheld=True, title=tables.reason_title("–"))
        else:
            people = Cell(numerals.count(hospital.persons), number=True)
        rows.append((Cell(hospital.name, heads=True), people, tables.bar_cell(hospital.persons, largest)))
    headings = (
        tables.Heading(HEADINGS["hospital"]),
        tables.Heading(HEADINGS["persons"], number=True),
        tables.Heading("", bars=True),
    )
    return Grid(phrase("where"), headings, tuple(rows))


def _table_one(story: Story, naming: Naming) -> Grid | None:
    if story.table_one is None:
        return None
    return table_one(story.table_one, phrase("table_one"), naming, story.table_one_by, story.differences)


def _attrition(story: Story, naming: Naming) -> Grid | None:
    table = story.attrition
    if table is None:
        return None
    return tables.grid(table, phrase("attrition"), naming, bar=table.counts[0] if table.counts else None)


def _model(model: ModelFit, naming: Naming) -> dict[str, Any]:
    facts = []
    for name, value in model.facts.items():
        if name in {"formula", "family"} or isinstance(value, bool):
            continue
        if isinstance(value, str):
            facts.append((naming.heading(name), value))
        elif isinstance(value, int):
            facts.append((naming.heading(name), numerals.count(value)))
        elif isinstance(value, float):
            facts.append((naming.heading(name), numerals.significant(value, 4)))
    formula = model.facts.get("formula")
    grid = tables.coefficients(model.coefficients, model.title, naming, model.ratio)
    return {"title": model.title, "grid": grid, "facts": facts, "notes": model.notes, "formula": formula}


def _forest(story: Story) -> Figure | None:
    if not story.forest:
        return None
    rows = []
    for row in story.forest:
        for number, point in enumerate(row.points):
            head = (Cell(row.label, heads=True, span=len(row.points)),) if number == 0 else ()
            if point.estimate is None:
                numbers = (Cell("–", number=True), Cell(point.status or "–"))
            else:
                known = point.low is not None and point.high is not None
                span = numerals.interval(point.low or 0, point.high or 0) if known else ""
                numbers = (Cell(numerals.ratio(point.estimate), number=True), Cell(span))
            rows.append((*head, Cell(point.series, heads=True), *numbers))
    headings = (
        tables.Heading(HEADINGS["term"]),
        tables.Heading(HEADINGS["series"]),
        tables.Heading(phrase("odds_ratio"), number=True),
        tables.Heading(phrase("confidence")),
    )
    drawings = {language: figures.forest(story.forest, language) for language in LANGUAGES}
    return Figure(phrase("forest"), drawings, Grid(phrase("forest"), headings, tuple(rows)))


def _auroc(story: Story) -> Figure | None:
    if not story.auroc:
        return None
    rows = []
    for trained in dict.fromkeys(cell.trained_at for cell in story.auroc):
        own = [cell for cell in story.auroc if cell.trained_at == trained]
        for number, cell in enumerate(own):
            head = (Cell(trained, heads=True, span=len(own)),) if number == 0 else ()
            value = Cell("–" if cell.auroc is None else f"{cell.auroc:.3f}", number=True)
            people = Cell("–" if cell.n is None else numerals.count(cell.n), number=True)
            rows.append((*head, Cell(cell.tested_at, heads=True), value, people, Cell(cell.withheld or "")))
    headings = (
        tables.Heading(phrase("trained_at")),
        tables.Heading(phrase("tested_at")),
        tables.Heading("AUROC", number=True),
        tables.Heading(HEADINGS["n"], number=True),
        tables.Heading(HEADINGS["reason"]),
    )
    drawings = {language: figures.auroc(story.auroc, language) for language in LANGUAGES}
    return Figure(phrase("discrimination"), drawings, Grid(phrase("discrimination"), headings, tuple(rows)))


def _calibration(story: Story) -> Figure | None:
    if not story.calibration:
        return None
    rows = []
    for series in story.calibration:
        for number, point in enumerate(series.points):
            head = (Cell(series.model, heads=True, span=len(series.points)),) if number == 0 else ()
            numbers = (f"{100 * point.predicted:.1f}%", f"{100 * point.observed:.1f}%", numerals.count(point.n))
            rows.append((*head, *(Cell(text, number=True) for text in numbers)))
    headings = (
        tables.Heading(HEADINGS["model"]),
        tables.Heading(phrase("predicted"), number=True),
        tables.Heading(phrase("observed"), number=True),
        tables.Heading(HEADINGS["n"], number=True),
    )
    drawings = {language: figures.calibration(story.calibration, language) for language in LANGUAGES}
    return Figure(phrase("calibration"), drawings, Grid(phrase("calibration"), headings, tuple(rows)))


def _departures(story: Story) -> Grid:
    rows = [
        (
            Cell(one.hospital, heads=True),
            Cell(numerals.count(one.messages), number=True),
            Cell(numerals.count(one.numbers), number=True),
            Cell(numerals.size(one.bytes), number=True),
        )
        for one in departures(story.left)
    ]
    return plain_grid(phrase("left"), ("hospital", "messages", "numbers", "bytes"), rows)


def _listing(left: tuple[LeftEntry, ...]) -> list[dict[str, Any]]:
    """Every entry, by hospital and step, both in the order of the record."""
    found = []
    for total in departures(left):
        own = [entry for entry in left if entry.hospital == total.hospital]
        order = list(dict.fromkeys(entry.step for entry in own))
        steps = []
        for step, entries in groupby(sorted(own, key=lambda entry: order.index(entry.step)), lambda e: e.step):
            listed = sorted(entries, key=lambda entry: (entry.fold or "", entry.round))
            arrays = phrase("entries", count=numerals.count(len(listed)))
            folds = any(entry.fold for entry in listed)
            steps.append({"name": step, "entries": listed, "total": arrays, "folds": folds})
        words = phrase(
            "departed",
            messages=numerals.count(total.messages),
            numbers=numerals.count(total.numbers),
            bytes=numerals.size(total.bytes),
        )
        found.append({"name": total.hospital, "total": words, "steps": steps})
    return found


def _check(oracle: OracleCheck | None) -> Words | None:
    if oracle is None:
        return None
    return phrase(
        "oracle",
        against=oracle.against,
        coefficients=numerals.power(oracle.coefficients),
        std_errors=numerals.power(oracle.std_errors),
    )


def _steps(story: Story) -> list[dict[str, Any]]:
    outcomes = {outcome.step: outcome for outcome in story.outcomes}
    names = [*outcomes, *(name for name in story.seconds if name not in outcomes)]
    return [
        {
            "name": name,
            "status": outcomes[name].status if name in outcomes else None,
            "reason": outcomes[name].reason if name in outcomes else None,
            "seconds": numerals.seconds(story.seconds[name]) if name in story.seconds else "",
        }
        for name in names
    ]
