"""The report in a terminal: the finding, the coefficients, the AUROC matrix and what left, within 80 columns."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from dure.language import Language, Words
from dure.report import numerals
from dure.report.html import headline
from dure.report.phrases import HEADINGS, phrase
from dure.report.story import AurocCell, ForestRow, ModelFit, Story, departures
from dure.report.term_labels import term_words

_STATUS = {"waiting": "yellow", "refused": "red", "failed": "bold", "done": "green"}


def summary(story: Story, language: Language) -> Group:
    """What a person wants to know after a run; the HTML report has the rest."""
    return Group(*_parts(story, language))


def _parts(story: Story, language: Language) -> Iterator[RenderableType]:
    yield Text(story.title.say(language), style="bold")
    yield Text(headline(story.oracle).say(language), style="bold green")
    if story.finding:
        yield Text(story.finding.say(language))
    for outcome in story.outcomes:
        if outcome.status != "done":
            reason = f" {outcome.reason.say(language)}" if outcome.reason else ""
            mark = (phrase(outcome.status).say(language), _STATUS[outcome.status])
            yield Text.assemble(mark, f" {outcome.step}{reason}")
    if story.forest:
        yield Text()
        yield _ratios(story.forest, language)
    else:
        for model in story.models:
            yield Text()
            yield _coefficients(model, story, language)
    if story.auroc:
        yield Text()
        yield _auroc(story.auroc, language)
    if story.left:
        yield Text()
        yield _left(story, language)


def _grid(title: Words, language: Language) -> Grid:
    return Grid(
        title=title.say(language), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )


def _ratios(rows: tuple[ForestRow, ...], language: Language) -> Grid:
    """Federated beside pooled; where one has no estimate its reason stands there."""
    grid = _grid(phrase("forest"), language)
    grid.add_column(HEADINGS["term"].say(language), overflow="fold", ratio=1)
    kinds = [kind for kind in ("federated", "pooled") if any(p.kind == kind for row in rows for p in row.points)]
    for kind in kinds:
        grid.add_column(f"{phrase(kind).say(language)} ({phrase('confidence').say(language)})", justify="right")
    for row in rows:
        cells = []
        for kind in kinds:
            point = next((point for point in row.points if point.kind == kind), None)
            if point is None:
                cells.append("")
            elif point.estimate is None:
                cells.append(point.status.say(language) if point.status else "–")
            else:
                known = point.low is not None and point.high is not None
                span = f" ({numerals.interval(point.low or 0, point.high or 0)})" if known else ""
                cells.append(f"{numerals.ratio(point.estimate)}{span}")
        grid.add_row(Text(row.label.say(language)), *(Text(cell) for cell in cells))
    return grid


def _coefficients(model: ModelFit, story: Story, language: Language) -> Grid:
    grid = _grid(model.title, language)
    grid.add_column(HEADINGS["term"].say(language), overflow="fold", ratio=1)
    grid.add_column((model.ratio or HEADINGS["estimate"]).say(language), justify="right")
    grid.add_column(HEADINGS["ci"].say(language), justify="right")
    for row in model.coefficients.frame.iter_rows(named=True):
        values = [row["estimate"], row.get("ci_low"), row.get("ci_high")]
        shown = ["–" if value is None else _shown(value, model.ratio is not None) for value in values]
        label = Text(term_words(str(row["term"]), story.labels).say(language))
        grid.add_row(label, shown[0], f"{shown[1]} – {shown[2]}")
    return grid


def _shown(value: float, exponentiate: bool) -> str:
    return numerals.ratio(math.exp(min(value, 700))) if exponentiate else numerals.significant(value)


def _auroc(cells: tuple[AurocCell, ...], language: Language) -> Group:
    """Numbers in the matrix; each reason for a missing one has a letter, explained beneath."""
    grid = _grid(Words("AUROC", "AUROC"), language)
    corner = f"{phrase('trained_at').say(language)} ↓ {phrase('tested_at').say(language)} →"
    grid.add_column(corner, overflow="fold", ratio=1)
    tested = list(dict.fromkeys(cell.tested_at for cell in cells))
    for place in tested:
        grid.add_column(Text(place.say(language)), justify="right", overflow="fold")
    reasons: dict[Words, str] = {}
    for trained in dict.fromkeys(cell.trained_at for cell in cells):
        row = []
        for place in tested:
            cell = next((one for one in cells if (one.trained_at, one.tested_at) == (trained, place)), None)
            if cell is None:
                row.append("")
            elif cell.auroc is None:
                row.append(reasons.setdefault(cell.withheld or Words("–", "–"), f"({chr(97 + len(reasons) % 26)})"))
            else:
                row.append(numerals.auroc(cell.auroc))
        grid.add_row(Text(trained.say(language)), *row)
    notes = [Text(f"{letter} {words.say(language)}", style="dim") for words, letter in reasons.items()]
    return Group(grid, *notes)


def _left(story: Story, language: Language) -> Grid:
    grid = _grid(phrase("left"), language)
    grid.add_column(HEADINGS["hospital"].say(language), overflow="fold", ratio=1)
    for name in ("messages", "numbers", "bytes"):
        grid.add_column(HEADINGS[name].say(language), justify="right")
    totals = departures(story.left)
    for one in totals:
        grid.add_row(
            Text(one.hospital), numerals.count(one.messages), numerals.count(one.numbers), numerals.size(one.bytes)
        )
    grid.add_section()
    grid.add_row(
        phrase("all_people").say(language),
        numerals.count(sum(one.messages for one in totals)),
        numerals.count(sum(one.numbers for one in totals)),
        numerals.size(sum(one.bytes for one in totals)),
    )
    return grid
